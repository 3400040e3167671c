//! Fusion as a whole: against its twin, against liars, and at the edges.

use super::{twin, *};
use crate::{
    charter::{Align, Fusion, Norms},
    codec::Group,
    genesis::samples::Numbers,
    mixture::Kind,
    testing::{charter, identity},
};
use proptest::prelude::*;

/// The updates of a round, by sender.
type Round = Vec<Vec<Group>>;

fn senders(round: &Round) -> Vec<Sender<'_>> {
    round
        .iter()
        .enumerate()
        .map(|(at, groups)| Sender { author: identity(at).id(), payload: Digest::ZERO, groups })
        .collect()
}

fn run(charter: &Charter, round: &Round, memory: &Memory) -> Fused {
    fuse(charter, &Layout::new(charter), &senders(round), memory, 1)
}

/// An update that is `common` plus noise, `[18]`, `[12]` and `[3]` values, times 2^exponent times `factor`.
fn update(numbers: &mut Numbers, noise: f64, exponent: i16, factor: f64) -> Vec<Group> {
    let mut common = Numbers::new(5);
    let group = |values: usize| {
        let value = |_| ((common.normal() + noise * numbers.normal()) * factor * 4096.0) as i32;
        Group { exponent, mantissas: (0..values).map(value).collect() }
    };
    [18, 12, 3].map(group).into()
}

/// A round of 8: six that agree somewhat, two that flip signs, ten times as large.
fn attacked(seed: u64) -> Round {
    let mut numbers = Numbers::new(seed);
    (0..8).map(|at| update(&mut numbers, 1.5, -20, if at < 6 { 1.0 } else { -10.0 })).collect()
}

fn values(round: &Round, group: usize, sender: usize) -> Vec<f64> {
    let group = &round[sender][group];
    group.mantissas.iter().map(|m| f64::from(m) * power_of_two(group.exponent)).collect()
}

prop_compose! {
    fn any_round(senders: std::ops::Range<usize>, exponents: std::ops::RangeInclusive<i16>)
        (seeds in prop::collection::vec((any::<u64>(), exponents, 4u32..=23, 0..8u8), senders)) -> Round {
        seeds.iter().map(|(seed, exponent, bits, zero)| {
            let mut numbers = Numbers::new(*seed);
            let most = (1i32 << bits) - 1;
            [18, 12, 3].iter().enumerate().map(|(group, values)| {
                let mut mantissa = |_| if *zero == group as u8 { 0 } else { (numbers.signed() * f64::from(most)) as i32 };
                Group { exponent: *exponent, mantissas: (0..*values).map(&mut mantissa).collect() }
            }).collect()
        }).collect()
    }
}

fn any_fusion() -> impl Strategy<Value = Fusion> {
    let aligns = prop::sample::select(vec![Align::Pcgrad, Align::Nash, Align::None]);
    let rules = prop::sample::select(vec![Rule::Cmga, Rule::Mean, Rule::Trimmed, Rule::Geomedian, Rule::Ties]);
    (rules, aligns, any::<bool>(), any::<bool>()).prop_map(|(rule, align, equal, screen)| Fusion {
        rule,
        align,
        norms: if equal { Norms::Equal } else { Norms::Kept },
        screen,
        ..charter(3).fusion
    })
}

fn any_memory() -> impl Strategy<Value = Memory> {
    prop::collection::btree_map(0..9usize, any::<i64>(), 0..9)
        .prop_map(|map| Memory(map.into_iter().map(|(at, evidence)| (identity(at).id(), evidence)).collect()))
}

proptest! {
    #[test]
    fn order_and_threads_change_no_bit(
        round in any_round(0..9, -40..=8),
        fusion in any_fusion(),
        memory in any_memory(),
        shuffle in any::<u64>(),
    ) {
        let charter = Charter { fusion, ..charter(3) };
        let layout = Layout::new(&charter);
        let first = run(&charter, &round, &memory);
        let mut senders = senders(&round);
        let mut numbers = Numbers::new(shuffle);
        (1..senders.len()).rev().for_each(|at| senders.swap(at, numbers.below(at + 1)));
        for threads in [0, 1, 2, 5] {
            prop_assert_eq!(&fuse(&charter, &layout, &senders, &memory, threads), &first);
        }
    }

    #[test]
    fn powers_of_two_scale_the_step(round in any_round(1..9, -30..=-20), fusion in any_fusion(), k in 1i16..20) {
        let charter = Charter { fusion, ..charter(3) };
        let scaled: Round = round.iter().map(|groups| {
            groups.iter().map(|group| Group { exponent: group.exponent + k, ..group.clone() }).collect()
        }).collect();
        let (small, large) = (run(&charter, &round, &Memory::default()), run(&charter, &scaled, &Memory::default()));
        prop_assert_eq!(&small.memory, &large.memory);
        for (small, large) in small.step.iter().flatten().zip(large.step.iter().flatten()) {
            // The small one is rounded by half a unit, and 8 weights by a hundredth each.
            let slack = 1 + (1 << (k - 1)) + (1 << k >> 3);
            prop_assert!(((small << k) - large).abs() <= slack, "{} {}", small, large);
        }
    }

    #[test]
    fn the_twin_agrees(round in any_round(1..9, -40..=-5), fusion in any_fusion()) {
        let charter = Charter { fusion: Fusion { rule: Rule::Cmga, ..fusion }, ..charter(3) };
        let groups: Vec<_> = Layout::new(&charter).groups().iter().enumerate().map(|(at, shape)| twin::Group {
            bias: shape.kind == Kind::Bias,
            updates: (0..round.len()).map(|sender| values(&round, at, sender)).collect(),
        }).collect();
        let fused = run(&charter, &round, &Memory::default());
        let twin = twin::fuse(&charter.fusion, &groups, &vec![0.0; round.len()]);
        // Evidence that is all but zero, or all but equal, may fall on either side.
        let mut sorted = [twin.evidence.clone(), vec![0.0]].concat();
        sorted.sort_by(f64::total_cmp);
        prop_assume!(sorted.windows(2).all(|pair| pair[0] == pair[1] || pair[1] - pair[0] > 1e-8));
        for (at, evidence) in twin.evidence.iter().enumerate() {
            let author = identity(at).id();
            let remembered = fused.memory.0.get(&author).copied().unwrap_or(0) as f64 / fixed::ONE as f64;
            prop_assert!((remembered - evidence).abs() < 1e-8);
            prop_assert_eq!(!fused.report.left_out.contains(&author), twin.kept[at]);
        }
        for (step, expected) in fused.step.iter().zip(&twin.step) {
            // Half a unit for the last rounding, a little for the weights'.
            let slack = power_of_two(-40) + 1e-6 * twin::norm(expected);
            for (value, expected) in step.iter().zip(expected) {
                let value = *value as f64 * power_of_two(-40);
                prop_assert!((value - expected).abs() <= slack, "{} is not {} +- {}", value, expected, slack);
            }
        }
    }

    #[test]
    fn no_update_is_too_large_or_too_small(
        round in any_round(0..9, -40..=20),
        fusion in any_fusion(),
        memory in any_memory(),
    ) {
        // 60 exponents apart, any evidence: nothing overflows, nothing is NaN, nobody gets more than its clip.
        let mut charter = Charter { fusion, ..charter(3) };
        charter.codec.exponent_max = 20;
        let fused = run(&charter, &round, &memory);
        prop_assert!(fused.report.agreement.abs() <= 1.0 && fused.report.update_norm.is_finite());
        prop_assert!(fused.report.senders.iter().all(|standing| standing.cosine.abs() <= 1.0));
        for (at, step) in fused.step.iter().enumerate() {
            let mut norms: Vec<f64> =
                (0..round.len()).map(|sender| twin::norm(&values(&round, at, sender))).filter(|n| *n > 0.0).collect();
            norms.sort_by(f64::total_cmp);
            let length = twin::norm(&step.iter().map(|v| *v as f64 * power_of_two(-40)).collect::<Vec<_>>());
            let saturated = step.iter().any(|value| value.unsigned_abs() >= i64::MAX as u64);
            if matches!(charter.fusion.rule, Rule::Cmga | Rule::Geomedian) && norms.len() > 2 && !saturated {
                let limit = norms[(norms.len() - 1) / 2];
                prop_assert!(length <= limit * 1.001 + 5.0 * power_of_two(-40), "{} {}", length, limit);
            }
        }
    }
}

#[test]
fn nobody_makes_no_step_and_one_makes_its_own() {
    for align in [Align::Pcgrad, Align::Nash, Align::None] {
        let others = [Rule::Mean, Rule::Trimmed, Rule::Geomedian].map(|rule| (rule, Norms::Kept));
        for (rule, norms) in [(Rule::Cmga, Norms::Kept), (Rule::Cmga, Norms::Equal)].into_iter().chain(others) {
            let mut charter = charter(3);
            charter.fusion = Fusion { rule, align, norms, ..charter.fusion };
            let none = run(&charter, &vec![], &Memory::default());
            assert_eq!(none.step, vec![vec![0; 18], vec![0; 12], vec![0; 3]]);
            assert_eq!((none.report.agreement, none.report.update_norm), (0.0, 0.0));
            let one = vec![update(&mut Numbers::new(3), 1.0, -35, 1.0)];
            let fused = run(&charter, &one, &Memory::default());
            for (step, group) in fused.step.iter().zip(&one[0]) {
                let own: Vec<i64> = group.mantissas.iter().map(|m| i64::from(m) << 5).collect();
                assert_eq!(step, &own, "{align:?} {rule:?} {norms:?}");
            }
        }
    }
}

#[test]
fn two_opposed_updates_by_hand() {
    // (4, 0, ..) and (-3, 3, ..) in the bias: cosine -1/sqrt 2. g_1' = g_1 + 12/18 g_2 = (2, 2), g_2' = g_2 + 12/16 g_1
    // = (0, 3). Their mean (1, 2.5) is scaled to the length of (1/2, 3/2): by sqrt(2.5 / 7.25).
    let zero = |values| Group { exponent: 0, mantissas: vec![0; values].into() };
    let one = |bias: [i32; 3]| vec![zero(18), zero(12), Group { exponent: 0, mantissas: bias.to_vec().into() }];
    let fused = run(&charter(3), &vec![one([4, 0, 0]), one([-3, 3, 0])], &Memory::default());
    let scale = (2.5f64 / 7.25).sqrt();
    let bias: Vec<f64> = fused.step[2].iter().map(|value| *value as f64 * power_of_two(-40)).collect();
    for (value, expected) in bias.iter().zip([scale, 2.5 * scale, 0.0]) {
        assert!((value - expected).abs() < 1e-8, "{bias:?}");
    }
    assert_eq!(fused.report.agreement, 0.0, "biases don't count");
}

#[test]
fn the_plain_mean_counts_who_is_present() {
    let mut charter = charter(3);
    charter.fusion.rule = Rule::Mean;
    let group = |value: i32, values: usize| Group { exponent: 0, mantissas: vec![value; values].into() };
    let all = |value| vec![group(value, 18), group(value, 12), group(value, 3)];
    let mut round = vec![all(30), all(0), all(3), all(-6)];
    round[3].truncate(1);
    round[2][2] = group(3, 4);
    let fused = run(&charter, &round, &Memory::default());
    let first = |at: usize| fused.step[at][0] as f64 * power_of_two(-40);
    for (value, expected) in [(first(0), 6.75), (first(1), 11.0), (first(2), 15.0)] {
        assert!((value - expected).abs() < 1e-7, "{value}");
    }
    let wild = vec![vec![group(1 << 23, 18), group(i32::MIN, 12), Group { exponent: 9, ..group(1, 3) }]];
    assert!(run(&charter, &wild, &Memory::default()).step.iter().flatten().all(|value| *value == 0));
}

#[test]
fn a_hundredfold_update_is_clipped() {
    let mut numbers = Numbers::new(8);
    let mut round: Round = (0..5).map(|_| update(&mut numbers, 0.5, -20, 1.0)).collect();
    let mut charter = charter(5);
    charter.fusion = Fusion { screen: false, align: Align::None, ..charter.fusion };
    let before = run(&charter, &round, &Memory::default());
    round[4] = update(&mut numbers, 0.5, -20, 100.0);
    let after = run(&charter, &round, &Memory::default());
    assert!(after.report.update_norm < 1.3 * before.report.update_norm);
    charter.fusion.rule = Rule::Mean;
    assert!(run(&charter, &round, &Memory::default()).report.update_norm > 10.0 * before.report.update_norm);
}

#[test]
fn who_keeps_flipping_signs_is_left_out_and_stays_out() {
    for align in [Align::Pcgrad, Align::Nash, Align::None] {
        let mut charter = charter(8);
        charter.fusion.align = align;
        let mut liars = vec![identity(6).id(), identity(7).id()];
        liars.sort();
        let mut memory = Memory::default();
        for seed in 0..6 {
            let fused = run(&charter, &attacked(seed), &memory);
            assert!(fused.report.left_out.iter().all(|author| liars.contains(author)), "honest left out");
            memory = fused.memory;
            if seed >= 2 {
                assert_eq!(fused.report.left_out, liars);
                let honest = run(&charter, &attacked(seed)[..6].to_vec(), &memory);
                let ratio = fused.report.update_norm / honest.report.update_norm;
                assert!((0.8..1.25).contains(&ratio), "{ratio}");
            }
        }
        // No more than the charter's share, worst first.
        charter.fusion.max_liars_ppm = 125_000;
        let worst = liars.iter().min_by_key(|liar| memory.0[liar]).unwrap();
        assert_eq!(run(&charter, &attacked(9), &memory).report.left_out, [*worst]);
        // Three are too few to judge, and who is absent keeps its evidence.
        let few = run(&charter, &attacked(9)[5..].to_vec(), &memory);
        assert_eq!((few.report.left_out.len(), &few.memory), (0, &memory));
        charter.fusion.screen = false;
        let open = run(&charter, &attacked(9), &memory);
        assert_eq!((open.report.left_out.len(), &open.memory), (0, &memory));
    }
}

#[test]
fn updates_that_agree_leave_nobody_out() {
    let charter = charter(8);
    let mut memory = Memory::default();
    for seed in 0..10 {
        let mut numbers = Numbers::new(seed);
        let round: Round = (0..8).map(|_| update(&mut numbers, 1.5, -20, 1.0)).collect();
        let fused = run(&charter, &round, &memory);
        assert!(fused.report.left_out.is_empty());
        assert!(fused.report.agreement > 0.1 && fused.report.agreement < 0.6);
        memory = fused.memory;
    }
    assert!(memory.0.values().all(|evidence| *evidence > 0));
}

#[test]
fn every_machine_gets_these_bits() {
    let mut parts = vec![];
    for align in [Align::Pcgrad, Align::Nash, Align::None] {
        let mut charter = charter(8);
        charter.fusion.align = align;
        let fused = run(&charter, &attacked(1), &Memory::default());
        parts.extend(fused.step.iter().flatten().chain(fused.memory.0.values()).flat_map(|v| v.to_le_bytes()));
    }
    assert_eq!(
        Digest::of("test", &[&parts]).to_string(),
        "f74aa690bb69b07dca771312aa8c46814013898c95068290e457a9247289b8a4"
    );
}
