//! The learner on a tiny backbone and made-up images.

use super::*;
use crate::{
    backbone,
    data::{Inputs, Set, Targets, table},
};
use heterotune_crypto::Identity;
use heterotune_protocol::{
    charter::{Anchors, Charter, Task, Vocabulary},
    mixture::Layout,
};
use std::{fmt::Write, fs};

const ANCHORS: usize = 12;

/// Images of two kinds: bright on top, or bright at the bottom.
fn images(labels: &[Option<&str>]) -> String {
    let mut text = String::from("# made up\n");
    text += if labels.iter().all(Option::is_some) { "label," } else { "" };
    text += &(0..16).map(|i| format!("p{i}")).collect::<Vec<_>>().join(",");
    for (row, label) in labels.iter().enumerate() {
        let top = label.map_or(row % 2 == 0, |label| label == "top");
        text.push('\n');
        label.iter().for_each(|label| write!(text, "{label},").unwrap());
        let pixel = |i: usize| (row * 7 + i * i * (1 + row % 5)) % 8 + if (i < 8) == top { 8 } else { 0 };
        text += &(0..16).map(|i| pixel(i).to_string()).collect::<Vec<_>>().join(",");
    }
    text + "\n"
}

fn fixture_settings() -> Settings {
    Settings { rate: 5e-3, ..Settings::default() }
}

struct Fixture {
    backbone: tempfile::TempDir,
    data: tempfile::TempDir,
    charter: Charter,
}

fn fixture() -> Fixture {
    let data = tempfile::tempdir().unwrap();
    let anchors = images(&[None; ANCHORS]);
    fs::write(data.path().join("anchors.csv"), &anchors).unwrap();
    let both: Vec<_> = (0..20).map(|row| Some(if row % 3 == 0 { "top" } else { "bottom" })).collect();
    fs::write(data.path().join("train.csv"), images(&both)).unwrap();
    fs::write(data.path().join("test.csv"), images(&both)).unwrap();
    let anchors = Anchors { digest: Anchors::digest_of(anchors.as_bytes()), count: ANCHORS as u16 };
    let founders = vec![Identity::from_seed(1, "a").id()];
    let mut charter = Charter::new(
        "test",
        founders,
        Task::ImageClassification { labels: vec!["top".into(), "bottom".into(), "never".into()] },
        anchors,
    );
    (charter.adapter.branches, charter.adapter.rank, charter.adapter.readout_rank) = (2, 4, 6);
    charter.check().unwrap();
    Fixture { backbone: backbone::tests::tiny().0, data, charter }
}

impl Fixture {
    fn load(&self) -> Result<Learner, TrainError> {
        self.load_with(fixture_settings())
    }

    fn load_with(&self, settings: Settings) -> Result<Learner, TrainError> {
        let options = backbone::Options::default();
        Learner::load(self.backbone.path(), options, self.data.path(), &self.charter, settings)
    }

    fn aligned(&self) -> Learner {
        let mut learner = self.load().unwrap();
        let reference = |rank: usize| (0..ANCHORS * rank).map(|i| ((i * i * 7) % 13) as f64 - 6.0).collect::<Vec<_>>();
        let explained = learner.align(&[reference(4), reference(4), reference(6)]).unwrap();
        assert!(explained.len() == 3 && explained.iter().all(|share| (0.0..=1.0).contains(share)), "{explained:?}");
        learner
    }

    /// A mixture with something in every group.
    fn mixture(&self) -> Vec<Vec<f32>> {
        let groups = Layout::new(&self.charter);
        let values = |n: usize| (0..n).map(|i| ((i * 5) % 7) as f32 * 0.05 - 0.15).collect();
        groups.groups().iter().map(|group| values(group.values())).collect()
    }
}

#[test]
fn a_learner_is_described() {
    let fixture = fixture();
    let description = fixture.load().unwrap().description();
    assert_eq!((description.model_type.as_str(), description.width, description.depth), ("vit", 8, 2));
    assert_eq!((description.samples, description.has_test), (20, true));
    assert_eq!(description.classes, ["top", "bottom"]);
}

#[test]
fn a_round_gives_the_same_bits_again_and_after_a_restart() {
    let fixture = fixture();
    let mixture = fixture.mixture();
    let mut learner = fixture.aligned();
    let first = learner.train(3, &mixture).unwrap();
    learner.train(4, &mixture).unwrap();
    assert_eq!(learner.train(3, &mixture).unwrap(), first);
    let saved = learner.save().unwrap();
    let mut restarted = fixture.load().unwrap();
    restarted.restore(&saved).unwrap();
    assert_eq!(restarted.train(3, &mixture).unwrap(), first);
    assert_eq!(restarted.evaluate(&mixture).unwrap(), learner.evaluate(&mixture).unwrap());
    assert_eq!(restarted.save().unwrap(), saved);
}

#[test]
fn every_group_learns_and_the_loss_falls() {
    let fixture = fixture();
    let mut learner = fixture.aligned();
    let mut mixture = fixture.mixture();
    let losses: Vec<f32> = (0..30)
        .map(|round| {
            let trained = learner.train(round, &mixture).unwrap();
            assert!(trained.delta.iter().all(|group| group.iter().any(|value| *value != 0.0)));
            for (group, delta) in mixture.iter_mut().zip(&trained.delta) {
                group.iter_mut().zip(delta).for_each(|(value, delta)| *value += delta);
            }
            trained.loss
        })
        .collect();
    assert!(losses[29] < 0.5 * losses[0], "{losses:?}");
    assert!(learner.evaluate(&mixture).unwrap().unwrap().own > 0.8);
}

#[test]
fn what_is_made_again_on_the_way_back_gives_the_same_bits() {
    let fixture = fixture();
    let mixture = fixture.mixture();
    let mut kept = fixture.aligned();
    let mut made_again = fixture.load_with(Settings { checkpoint: true, ..fixture_settings() }).unwrap();
    made_again.restore(&kept.save().unwrap()).unwrap();
    assert_eq!(made_again.train(1, &mixture).unwrap(), kept.train(1, &mixture).unwrap());
    assert!(made_again.net.trunk.checkpoint && !kept.net.trunk.checkpoint);
}

#[test]
fn samples_give_the_same_wherever_they_are_kept() {
    let fixture = fixture();
    let mut learner = fixture.aligned();
    let mixture = fixture.mixture();
    let (trained, statistics) = (learner.train(1, &mixture).unwrap(), learner.statistics().unwrap());
    let path = fixture.data.path().join("train.csv");
    let labels = table::Labels::OneOf(fixture.charter.task.labels());
    let table = table::parse(&path, &fs::read(&path).unwrap(), 16, labels).unwrap();
    let set = Set { inputs: Inputs::Pixels(table.pixels), targets: Targets::Labels(table.labels) };
    for cache in [Cache::None, Cache::Disk] {
        let set = Set { inputs: set.inputs.clone(), targets: set.targets.clone() };
        learner.train = learner.net.trunk.samples(set, cache).unwrap();
        assert_eq!(learner.train(1, &mixture).unwrap(), trained, "{cache:?}");
        assert_eq!(learner.statistics().unwrap(), statistics, "{cache:?}");
    }
}

#[test]
fn statistics_add_up() {
    let learner = fixture().aligned();
    let Statistics { counts, sums, gram } = learner.statistics().unwrap();
    assert_eq!(counts, [7, 13, 0]);
    assert_eq!((sums.len(), gram.len()), (18, 36));
    assert!(sums[12..].iter().all(|sum| *sum == 0.0));
    let trace: f64 = gram.iter().step_by(7).sum();
    assert!(trace > 0.0 && trace <= 20.0 * 16.0 * 6.0);
}

#[test]
fn without_a_test_set_nothing_is_scored() {
    let fixture = fixture();
    fs::remove_file(fixture.data.path().join("test.csv")).unwrap();
    let mut learner = fixture.aligned();
    assert!(!learner.description().has_test);
    assert_eq!(learner.evaluate(&fixture.mixture()).unwrap(), None);
    assert_eq!(learner.alone(&fixture.charter).unwrap(), None);
}

#[test]
fn held_out_samples_judge_a_mixture() {
    let fixture = fixture();
    assert_eq!(fixture.aligned().held_losses(&fixture.mixture()).unwrap(), None);
    let path = fixture.data.path().join("held.csv");
    fs::write(&path, images(&[Some("top"), Some("bottom")].repeat(4))).unwrap();
    let mut learner = fixture.aligned();
    assert_eq!(learner.description().held, 8);
    let mut mixture = fixture.mixture();
    let mean = |learner: &Learner, mixture: &[Vec<f32>]| {
        learner.held_losses(mixture).unwrap().unwrap().iter().sum::<f64>() / 8.0
    };
    let before = mean(&learner, &mixture);
    for round in 0..20 {
        let trained = learner.train(round, &mixture).unwrap();
        for (group, delta) in mixture.iter_mut().zip(&trained.delta) {
            group.iter_mut().zip(delta).for_each(|(value, delta)| *value += delta);
        }
    }
    let after = mean(&learner, &mixture);
    assert!(after < 0.7 * before, "{before} {after}");
    mixture.iter_mut().for_each(|group| group.iter_mut().for_each(|value| *value *= -1.0));
    assert!(mean(&learner, &mixture) > before);
    fs::write(&path, images(&[Some("top"); 7])).unwrap();
    let told = fixture.load().map(|_| ()).unwrap_err().to_string();
    assert!(told.contains("held.csv: holds 7 samples, too few"), "{told}");
}

#[test]
fn alone_learns_what_is_easy_and_says_how() {
    let fixture = fixture();
    let alone = fixture.load().unwrap().alone(&fixture.charter).unwrap().unwrap();
    assert_eq!(alone.best_of.len(), 2);
    assert!(alone.own > 0.9 && alone.global > 0.9, "{alone:?}");
    let one = vec![Some("top"); 5];
    fs::write(fixture.data.path().join("train.csv"), images(&one)).unwrap();
    let alone = fixture.load().unwrap().alone(&fixture.charter).unwrap().unwrap();
    assert_eq!((alone.chosen.as_str(), alone.own), ("only-class", 1.0));
    let two = [Some("top"), Some("bottom")];
    fs::write(fixture.data.path().join("train.csv"), images(&two)).unwrap();
    assert_eq!(fixture.load().unwrap().alone(&fixture.charter).unwrap().unwrap().best_of.len(), 2);
}

#[test]
fn nothing_works_before_the_alignment() {
    let fixture = fixture();
    let mut learner = fixture.load().unwrap();
    let mixture = fixture.mixture();
    assert!(matches!(learner.train(1, &mixture), Err(TrainError::NotAligned)));
    assert!(matches!(learner.statistics(), Err(TrainError::NotAligned)));
    assert!(matches!(learner.save(), Err(TrainError::NotAligned)));
    learner.randomise().unwrap();
    assert!(learner.train(1, &mixture).is_ok());
    assert!(learner.align(&[vec![0.0; 3]]).is_err());
    assert!(learner.restore(&[1, 2, 3]).is_err());
    assert!(learner.train(1, &mixture[1..]).is_err());
    let kernels = learner.kernels().unwrap();
    assert!(kernels.len() == 3 && kernels.iter().all(|kernel| kernel.len() == ANCHORS * ANCHORS));
}

#[test]
fn files_of_another_network_are_refused() {
    let mut fixture = fixture();
    let path = fixture.data.path().join("anchors.csv");
    let anchors = fs::read_to_string(&path).unwrap();
    let shorter = anchors.trim_end().rsplit_once('\n').unwrap().0;
    fs::write(&path, shorter).unwrap();
    let told = |fixture: &Fixture| fixture.load().map(|_| ()).unwrap_err().to_string();
    assert!(told(&fixture).contains("is not the file that the charter names"));
    fixture.charter.anchors.digest = Anchors::digest_of(shorter.as_bytes());
    assert!(told(&fixture).contains("holds 11 anchors, but the charter says 12"));
    fixture.charter.anchors.count = 11;
    fs::remove_file(fixture.data.path().join("train.csv")).unwrap();
    assert!(told(&fixture).contains("has no train.jsonl, train.csv"));
}

#[test]
fn a_learner_can_live_on_its_own_thread() {
    fn sent<T: Send>() {}
    sent::<Learner>();
}

/// A real language model that is to learn some counting, its projections too.
fn language_model(readout: bool) -> Option<(Learner, Vec<Vec<f32>>)> {
    let folder = backbone::tests::real_data()?.join("models/llama-ts-d48-l3");
    let model = backbone::load(&folder, backbone::Options::default()).unwrap();
    let anchors = Anchors { digest: heterotune_crypto::Digest::ZERO, count: 16 };
    let tokenizer = heterotune_crypto::Digest::of("test", &[]);
    let vocabularies = if readout { vec![Vocabulary { tokenizer, tokens: 512 }] } else { vec![] };
    let founders = vec![Identity::from_seed(1, "a").id()];
    let mut charter = Charter::new("test", founders, Task::CausalLm { vocabularies }, anchors);
    (charter.adapter.branches, charter.adapter.rank, charter.adapter.readout_rank) = (1, 4, 6);
    charter.check().unwrap();
    let text = |row: u32| (0..12 + row % 5).map(|at| 3 + (at * (row % 3 + 1) + row) % 500).collect::<Vec<u32>>();
    let set = |rows: std::ops::Range<u32>| {
        let texts: Vec<Vec<u32>> = rows.map(text).collect();
        let counted = texts.iter().map(|text| vec![true; text.len()]).collect();
        Set { inputs: Inputs::Tokens(texts), targets: Targets::Next(counted) }
    };
    let anchors = set(0..16).inputs;
    let sets = Sets { anchors, train: set(20..44), test: Some(set(50..60)), held: Some(set(60..70)), validation: None };
    let settings = Settings {
        steps: 3,
        batch: 4,
        accumulate: 2,
        rate: 4e-3,
        warm_up: 2,
        cosine: true,
        clip: Some(1.0),
        ..Settings::default()
    };
    let mut learner = Learner::new(model, Some(tokenizer), sets, &charter, settings).unwrap();
    learner.randomise().unwrap();
    let mixture = Layout::new(&charter).groups().iter().map(|group| vec![0.0; group.values()]).collect();
    Some((learner, mixture))
}

#[test]
fn a_language_model_goes_on_after_a_restart_as_without_one() {
    for readout in [true, false] {
        let Some((mut learner, start)) = language_model(readout) else { return };
        let round = |learner: &mut Learner, round: u64, mixture: &mut Vec<Vec<f32>>| {
            let trained = learner.train(round, mixture).unwrap();
            for (group, delta) in mixture.iter_mut().zip(&trained.delta) {
                group.iter_mut().zip(delta).for_each(|(value, delta)| *value += delta);
            }
            (trained.loss, learner.evaluate(mixture).unwrap().unwrap())
        };
        let mut mixture = start.clone();
        let first: Vec<_> = (1..=2).map(|at| round(&mut learner, at, &mut mixture)).collect();
        let (saved, mut resumed) = (learner.save().unwrap(), mixture.clone());
        let on: Vec<_> = (3..=5).map(|at| round(&mut learner, at, &mut mixture)).collect();
        let mut restarted = language_model(readout).unwrap().0;
        restarted.restore(&saved).unwrap();
        let again: Vec<_> = (3..=5).map(|at| round(&mut restarted, at, &mut resumed)).collect();
        assert_eq!(again, on);
        assert_eq!((resumed == mixture, restarted.save().unwrap() == learner.save().unwrap()), (true, true));
        assert!(on[2].1.global < 0.8 * first[0].1.global, "{first:?} {on:?}");
        assert_ne!(learner.save().unwrap(), saved, "the projections are trained");
    }
}

#[test]
fn a_loss_that_is_no_number_names_its_batch() {
    let fixture = fixture();
    let mut learner = fixture.aligned();
    let mut mixture = fixture.mixture();
    mixture[0][0] = f32::INFINITY;
    let told = learner.train(2, &mixture).unwrap_err().to_string();
    assert!(told.contains("the loss of step 0 of round 2 is") && told.contains("over the training samples"), "{told}");
}
