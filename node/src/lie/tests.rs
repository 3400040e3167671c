use super::*;
use heterotune_crypto::Identity;
use heterotune_protocol::{
    charter::{Anchors, Charter, Task},
    genesis::{reference, start},
    mixture::Layout,
};

const WIDTH: usize = 8;
const LABELS: usize = 3;

fn identity(node: usize) -> Identity {
    Identity::from_seed(0, &format!("node-{node}"))
}

fn context() -> Context {
    let founders = (0..6).map(|node| identity(node).id()).collect();
    let labels = (0..LABELS).map(|label| label.to_string()).collect();
    let mut charter = Charter::new(
        "test",
        founders,
        Task::ImageClassification { labels },
        Anchors { digest: Digest::ZERO, count: 24 },
    );
    (charter.adapter.slots, charter.adapter.branches) = (1, 2);
    (charter.adapter.rank, charter.adapter.readout_rank) = (3, WIDTH as u16);
    Context::new(charter).unwrap()
}

fn liar(lie: Lie, node: usize) -> Liar {
    Liar::new(lie, 1, identity(node).id(), context().into())
}

/// What node `node` would say in round 1.
fn honest(node: usize) -> Vec<Group> {
    let context = context();
    let values = |group: &GroupShape| (0..group.values()).map(|at| ((at + node) as f32).sin()).collect::<Vec<_>>();
    context.layout.groups().iter().map(|group| codec::quantise(&context.charter.codec, &values(group))).collect()
}

/// What the liar says in round 1, all other nodes being honest.
fn told(lie: Lie, node: usize) -> Vec<Group> {
    let mut liar = liar(lie, node);
    (0..6).filter(|other| *other != node).for_each(|other| hear(&mut liar, other));
    liar.hold(Contribution::Update { round: 1, groups: honest(node) });
    match liar.tell(Some(&base())) {
        Some(Contribution::Update { round: 1, groups }) => groups,
        other => panic!("{other:?}"),
    }
}

fn hear(liar: &mut Liar, other: usize) {
    let said = context().say(&identity(other), Digest::ZERO, Step::Round(1), 1, Content::Update(honest(other)));
    liar.hear(&said.unwrap());
}

fn base() -> Mixture {
    let mut base = Mixture::zeros(&Layout::new(&context().charter));
    base.groups.iter_mut().flatten().enumerate().for_each(|(at, value)| *value = (at as i64 % 7) << 36);
    base
}

fn views(groups: &[Group]) -> Vec<f32> {
    groups.iter().flat_map(Group::view).collect()
}

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|value| value * value).sum::<f32>().sqrt()
}

fn is_valid(groups: &[Group]) -> bool {
    let context = context();
    let encoded: Vec<_> = groups.iter().filter_map(|group| codec::encode(&context.charter.codec, group)).collect();
    codec::decode(&context.charter.codec, &context.layout, &encoded).is_ok()
}

#[test]
fn updates_are_altered_as_the_lie_says() {
    let own = views(&honest(0));
    for (lie, factor) in [(Lie::SignFlip, -10.0), (Lie::Scale, 100.0)] {
        let said = views(&told(lie, 0));
        assert!(said.iter().zip(&own).all(|(said, own)| (said - factor * own).abs() <= factor.abs() / 64.0), "{lie}");
    }
    let noise = views(&told(Lie::Noise, 0));
    assert!((norm(&noise) / norm(&own) / 10.0 - 1.0).abs() < 0.05);
    let along = noise.iter().zip(&own).map(|(a, b)| a * b).sum::<f32>() / norm(&noise) / norm(&own);
    assert!(along.abs() < 0.5, "{along}");
    assert_eq!(told(Lie::Noise, 0), told(Lie::Noise, 0));
    assert_ne!(told(Lie::Noise, 0), told(Lie::Noise, 1));
    for lie in Lie::ALL {
        assert_eq!(is_valid(&told(lie, 0)), lie != Lie::OutOfRange, "{lie}");
    }
    for lie in [Lie::ShiftedLabels, Lie::NegatedMeans, Lie::OpposedMeans, Lie::CapturedReference] {
        assert_eq!(told(lie, 0), honest(0), "{lie}");
    }
}

#[test]
fn colluding_liars_say_the_same_and_want_all_labels_shifted() {
    let said = told(Lie::Collusion, 0);
    assert_eq!(said, told(Lie::Collusion, 1));
    let (branches, readout) = (said[0].view(), said[1].view());
    assert!(branches.iter().all(|value| *value == 0.0));
    let view = &base().view(context().charter.codec.exponent_min)[1];
    for (at, (value, step)) in view.iter().zip(&readout).enumerate() {
        let (row, label) = (at / LABELS, at % LABELS);
        let wanted = view[row * LABELS + (label + LABELS - 1) % LABELS];
        assert!((value + step - wanted).abs() < 0.01, "at {at}: {value} {step} {wanted}");
    }
}

#[test]
fn a_copier_waits_for_the_honest_and_says_what_one_of_them_has_said() {
    let mut copier = liar(Lie::Copy, 0);
    copier.hold(Contribution::Update { round: 1, groups: honest(0) });
    // Of six nodes, two may lie.
    for other in 1..4 {
        hear(&mut copier, other);
        assert!(copier.tell(None).is_none());
    }
    hear(&mut copier, 4);
    let Some(Contribution::Update { groups, .. }) = copier.tell(None) else { panic!() };
    assert!((1..5).any(|other| groups == honest(other)));
    assert!(copier.tell(None).is_none(), "once");
}

/// Statistics of 20 samples: `node`'s own noise around class means that all share.
fn statistics(node: usize) -> Statistics {
    let mut rng = ChaCha8Rng::seed_from_u64(node as u64);
    let mut values = Values { counts: vec![10, 6, 4], sums: vec![0.0; LABELS * WIDTH], gram: vec![0.0; WIDTH * WIDTH] };
    for label in (0..LABELS).flat_map(|label| vec![label; values.counts[label] as usize]) {
        let code = |at| ((label * WIDTH + at) as f64).sin() + 0.3 * rng.sample::<f64, _>(StandardNormal);
        let code: Vec<f64> = (0..WIDTH).map(code).collect();
        for at in 0..WIDTH * WIDTH {
            values.gram[at] += code[at / WIDTH] * code[at % WIDTH];
        }
        code.iter().enumerate().for_each(|(at, value)| values.sums[label * WIDTH + at] += value);
    }
    values.encode(&context()).unwrap()
}

#[test]
fn false_statistics_pass_every_check_and_the_screen_leaves_them_out() {
    let context = context();
    let all: BTreeMap<NodeId, Statistics> = (0..6).map(|node| (identity(node).id(), statistics(node))).collect();
    assert!(start(&context.charter, &all).left_out.is_empty());
    for lie in [Lie::ShiftedLabels, Lie::NegatedMeans, Lie::OpposedMeans] {
        let mut liar = liar(lie, 0);
        liar.hold(Contribution::Statistics(statistics(0)));
        for other in 1..6 {
            let content = Content::Statistics(statistics(other));
            liar.hear(&context.say(&identity(other), Digest::ZERO, Step::Statistics, 1, content).unwrap());
        }
        let Some(Contribution::Statistics(said)) = liar.tell(None) else { panic!("{lie}") };
        assert_eq!(said.check(&context.charter), Ok(()), "{lie}");
        assert_ne!(said, statistics(0), "{lie}");
        let counts: &[u32] = match lie {
            Lie::ShiftedLabels => &[400, 1000, 600],
            Lie::OpposedMeans => &[20, 20, 20],
            _ => &[10, 6, 4],
        };
        assert_eq!(said.counts, counts, "{lie}");
        let mut all = all.clone();
        all.insert(identity(0).id(), said);
        assert_eq!(start(&context.charter, &all).left_out, [identity(0).id()], "{lie}");
    }
}

#[test]
fn a_kernel_of_its_own_passes_every_check_and_the_screen_leaves_it_out() {
    let context = context();
    let kernels = |node: usize| {
        let feature = |at: usize| (((at * at) as f64).sin()) + 0.1 * ((at * (node + 2)) as f64).cos();
        let features = Matrix::new(24, 5, (0..24 * 5).map(feature).collect()).unwrap();
        let means = features.means();
        let features = features.less(&means);
        let size = features.square_sum();
        Kernels::from_features(&context.charter, &[features.gram().times(1.0 / size).values().to_vec()]).unwrap()
    };
    let mut all: BTreeMap<NodeId, Kernels> = (0..6).map(|node| (identity(node).id(), kernels(node))).collect();
    assert!(reference(&context.charter, &all).left_out.is_empty());
    let mut liar = liar(Lie::CapturedReference, 0);
    liar.hold(Contribution::Kernels(kernels(0)));
    let Some(Contribution::Kernels(said)) = liar.tell(None) else { panic!() };
    assert_eq!(said.check(&context.charter), Ok(()));
    all.insert(identity(0).id(), said);
    assert_eq!(reference(&context.charter, &all).left_out, [identity(0).id()]);
}
