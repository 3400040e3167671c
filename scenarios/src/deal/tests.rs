use super::*;
use crate::{TaskKind, embedded, places::Places, testing};
use heterotune_crypto::Digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

fn quickstart() -> (Scenario, Data, tempfile::TempDir) {
    let inputs = tempfile::tempdir().unwrap();
    embedded::write(inputs.path()).unwrap();
    let scenario = Scenario::quickstart().unwrap();
    let places = Places { folder: inputs.path().into(), data: None };
    let scenario = scenario.located(&places).unwrap();
    let data = Data::read(&scenario.data, TaskKind::ImageClassification).unwrap();
    (scenario, data, inputs)
}

/// The quickstart's nodes with other data: 360 rows of 6 labels and 19 speakers, 60 test rows, 30 public ones.
fn texts(partition: &str) -> (Scenario, Data) {
    let home = tempfile::tempdir().unwrap();
    let row = |row: u32| {
        let (label, speaker) = (row % 6, f64::from(row).sqrt() as u32);
        format!("{{\"text\": \"row {row}\", \"label\": {label}, \"speaker\": \"s{speaker}\"}}\n")
    };
    for (name, rows) in [("train.jsonl", 0..360), ("test.jsonl", 400..460), ("anchors.jsonl", 500..530)] {
        fs::write(home.path().join(name), rows.map(row).collect::<String>()).unwrap();
    }
    let mut scenario = Scenario::quickstart().unwrap();
    let keys = "file = \"train.jsonl\"\ntest = \"test.jsonl\"\nanchors_file = \"anchors.jsonl\"\n";
    scenario.data = toml::from_str(&format!("{keys}{partition}")).unwrap();
    scenario.task.kind = TaskKind::TextClassification;
    scenario.data.check(scenario.task.kind).unwrap();
    let scenario = scenario.located(&Places { folder: home.path().into(), data: None }).unwrap();
    let data = Data::read(&scenario.data, scenario.task.kind).unwrap();
    (scenario, data)
}

fn refusal(partition: &str) -> String {
    let (scenario, data) = texts(partition);
    Deal::draw(&scenario, &data, 1).unwrap_err().to_string()
}

/// What every deal must be, whatever the partition; `per_node` rows to train on, where all get as many.
fn check(scenario: &Scenario, data: &Data, seed: u64, per_node: Option<usize>) -> Deal {
    let deal = Deal::draw(scenario, data, seed).unwrap();
    let dealt = deal.shares.iter().flat_map(|share| share.rows.iter().chain(&share.held));
    let all: Vec<usize> = dealt.chain(&deal.anchors).chain(&deal.test).copied().collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "a row was dealt twice with seed {seed}");
    for (share, node) in deal.shares.iter().zip(&scenario.nodes) {
        assert_eq!(share.name, node.name);
        assert_eq!(share.held.len(), scenario.data.held_per_node);
        assert!(per_node.is_none_or(|rows| rows == share.rows.len()), "{share:?}");
        assert_eq!(share.per_class.iter().sum::<usize>(), share.rows.len());
        assert!(share.rows.iter().all(|row| data.own.contains(row) && share.per_class[data.rows[*row].class] > 0));
        assert_eq!(share.bytes, data.file(&share.rows).len() - share.rows.len() - header(data));
    }
    let rows = |deal: &Deal| deal.shares.iter().map(|share| share.rows.clone()).collect::<Vec<_>>();
    assert_eq!(rows(&deal), rows(&Deal::draw(scenario, data, seed).unwrap()));
    assert_ne!(rows(&deal), rows(&Deal::draw(scenario, data, seed + 1).unwrap()));
    deal
}

fn header(data: &Data) -> usize {
    data.file(&[]).len()
}

#[test]
fn a_dirichlet_deal_meets_its_conditions() {
    let (mut scenario, data, _inputs) = quickstart();
    for seed in 0..20 {
        let deal = check(&scenario, &data, seed, Some(40));
        assert_eq!((deal.anchors.len(), deal.test.len()), (128, 597));
        assert!(deal.shares.iter().all(|share| (1..=8).contains(&share.classes())));
        for class in 0..10 {
            assert!(deal.shares.iter().map(|share| share.per_class[class]).sum::<usize>() >= 5);
        }
    }
    let without = Deal::draw(&scenario, &data, 1).unwrap();
    scenario.data.held_per_node = 20;
    let with = check(&scenario, &data, 1, Some(40));
    assert!(with.shares.iter().zip(&without.shares).all(|(with, without)| with.rows == without.rows));
}

#[test]
fn the_quickstarts_deal_is_the_same_for_ever() {
    let (scenario, data, inputs) = quickstart();
    let deal = Deal::draw(&scenario, &data, 1).unwrap();
    let anchors = deal.write(&data, inputs.path()).unwrap();
    assert_eq!(deal.how, "draw 4 (first with 5 or more of every class and 1 to 8 classes a node)");
    let digest = |folder: &Path| {
        let files = deal.shares.iter().flat_map(|share| {
            ["train.csv", "anchors.csv", "test.csv"].map(|file| fs::read(folder.join(&share.name).join(file)).unwrap())
        });
        Digest::of("test", &files.collect::<Vec<_>>().iter().map(Vec::as_slice).collect::<Vec<_>>()).to_string()
    };
    println!("OLD {}", digest(Path::new("/tmp/oldq/data")));
    // Results of the quickstart, and the hash of its mixture, depend on every byte of these.
    assert_eq!(digest(inputs.path()), digest(Path::new("/tmp/oldq/data")));
    assert_eq!(anchors.count, 128);
}

#[test]
fn an_iid_deal_is_a_fair_sample() {
    let (scenario, data) =
        texts("labelled_per_node = 30\nheld_per_node = 10\npartition = \"iid\"\ntest_rows = 20\nanchors = 16");
    for seed in 0..20 {
        let deal = check(&scenario, &data, seed, Some(30));
        assert_eq!((deal.test.len(), deal.anchors[..].to_vec()), (20, (420..436).collect::<Vec<_>>()));
        assert!(deal.test.iter().all(|row| (360..420).contains(row)));
        assert!(deal.shares.iter().all(|share| share.classes() >= 4), "seed {seed}");
    }
    let (scenario, data) = texts("held_per_node = 10\npartition = \"iid\"");
    let deal = check(&scenario, &data, 1, Some(35));
    assert_eq!((deal.test, deal.anchors), ((360..420).collect(), (420..450).collect()));
    assert_eq!(deal.how, "dealt at random");
}

#[test]
fn shards_hold_few_labels() {
    let (scenario, data) = texts("partition = \"shards\"\nshards_per_node = 3");
    for seed in 0..20 {
        let deal = check(&scenario, &data, seed, Some(45));
        // 24 pieces of 15 rows: 4 of each of the 6 labels.
        for share in &deal.shares {
            assert!(share.classes() <= 3 && share.per_class.iter().all(|count| count % 15 == 0), "{share:?}");
        }
        for class in 0..6 {
            assert_eq!(deal.shares.iter().map(|share| share.per_class[class]).sum::<usize>(), 60);
        }
    }
    assert!(refusal("partition = \"shards\"\nshards_per_node = 46").contains("360 rows make no 368 shards"));
}

#[test]
fn a_value_of_a_column_is_at_one_node() {
    let (scenario, data) = texts("partition = \"column\"\ncolumn = \"speaker\"");
    for seed in 0..20 {
        let deal = check(&scenario, &data, seed, None);
        let mut owners = BTreeMap::new();
        for share in &deal.shares {
            for row in &share.rows {
                let group = &data.rows[*row].group;
                assert_eq!(*owners.entry(group.clone()).or_insert(&share.name), &share.name);
                assert!(share.values.contains(group));
            }
        }
        let sizes: Vec<usize> = deal.shares.iter().map(|share| share.rows.len()).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 360);
        let largest =
            owners.keys().map(|group| data.rows[..360].iter().filter(|row| row.group == *group).count()).max();
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= largest.unwrap(), "{sizes:?}");
    }
    let deal = Deal::draw(&scenario, &data, 1).unwrap();
    assert!(deal.title().ends_with("all with one speaker at one node"));
    assert!(deal.shares[0].values_listed().unwrap().starts_with("ada: s"));
    let message = refusal("partition = \"column\"\ncolumn = \"speaker\"\nlabelled_per_node = 45");
    assert!(message.contains(" needs 45 rows, and its part of them has "), "{message}");
}

#[test]
fn an_impossible_deal_is_an_error() {
    let (mut scenario, data, _inputs) = quickstart();
    let refused = |scenario: &Scenario| Deal::draw(scenario, &data, 1).unwrap_err().to_string();
    scenario.data.labelled_per_node = Some(135);
    assert!(refused(&scenario).contains("need 1080 labelled rows, and there are 1072"));
    scenario.data.train = Some(1_797);
    assert!(refused(&scenario).contains("1797 rows leave none for the test after 1797 for training"));
    scenario.data.train = Some(1_000);
    scenario.data.test_rows = Some(798);
    assert!(refused(&scenario).contains("data.test_rows is 798, and there are 797 test rows"));
    for (keys, said) in [
        (
            "labelled_per_node = 40\nalpha = 0.1\nmin_per_class = 55\nclasses_per_node = [1, 2]",
            "in 10000 draws, none had 55 labels of every class and 1 to 2 classes a node",
        ),
        ("partition = \"iid\"\nanchors = 31", "data.anchors is 31, and there are 30 rows in data.anchors_file"),
        ("partition = \"iid\"\ntrain = 361", "data.train is 361, and there are 360 rows"),
        ("partition = \"iid\"\ntrain = 7", "the nodes need 8 labelled rows, and there are 7"),
    ] {
        let message = refusal(keys);
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn files_hold_what_was_dealt() {
    let (scenario, data, inputs) = quickstart();
    let deal = Deal::draw(&scenario, &data, 1).unwrap();
    let anchors = deal.write(&data, inputs.path()).unwrap();
    let read = |path: &str| fs::read_to_string(inputs.path().join(path)).unwrap();
    assert_eq!(anchors.count, 128);
    assert_eq!(anchors.digest, Anchors::digest_of(read("hedy/anchors.csv").as_bytes()));
    assert_eq!(read("ada/anchors.csv"), read("hedy/anchors.csv"));
    assert!(read("ada/anchors.csv").starts_with("p0,p1,"));
    assert!(read("ada/train.csv").starts_with("label,p0,p1,"));
    assert_eq!(read("ada/train.csv").lines().count(), 41);
    assert_eq!(read("ada/test.csv").lines().count(), 598);
    assert!(!inputs.path().join("ada/held.csv").exists());

    let (scenario, data) = texts("held_per_node = 2\npartition = \"iid\"");
    let home = tempfile::tempdir().unwrap();
    let deal = Deal::draw(&scenario, &data, 1).unwrap();
    deal.write(&data, home.path()).unwrap();
    let lines = |name: &str| fs::read_to_string(home.path().join("ada").join(name)).unwrap().lines().count();
    assert_eq!(["train", "held", "test", "anchors"].map(|name| lines(&format!("{name}.jsonl"))), [43, 2, 60, 30]);
    assert!(!fs::read_to_string(home.path().join("ada/anchors.jsonl")).unwrap().contains("label"));
}

#[test]
fn the_shipped_scenarios_can_be_dealt() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = testing::real_data();
    for name in ["quickstart", "liars", "trec", "cifar", "stories-to-shakespeare"] {
        let scenario = Scenario::from_file(&folder.join(name).with_extension("toml")).unwrap();
        assert_eq!(scenario.name, name);
        let Ok(scenario) = scenario.located(&Places { folder: folder.into(), data: data.clone() }) else {
            assert!(data.is_none());
            continue;
        };
        let data = Data::read(&scenario.data, scenario.task.kind).unwrap();
        for seed in 1..=5 {
            let deal = check(&scenario, &data, seed, scenario.data.labelled_per_node);
            println!("{name}, seed {seed}: {}", deal.title());
        }
    }
}

#[test]
fn the_public_texts_are_many_and_different() {
    let text = include_str!("../../data/anchors-text.jsonl");
    let rows: BTreeSet<String> = text
        .lines()
        .map(|line| {
            let row: BTreeMap<String, String> = serde_json::from_str(line).unwrap();
            assert_eq!(row.len(), 1);
            row["text"].clone()
        })
        .collect();
    assert_eq!(rows.len(), 256);
    assert!(rows.iter().all(|row| (40..=160).contains(&row.chars().count())));
}
