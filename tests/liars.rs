//! Real nodes that lie, among real nodes that don't: the liars are found out, and the others learn as without them.

mod common;

use common::{
    process::{Ended, events, has},
    scenario::Scenario,
};
use serde_json::{Value, json};
use std::fs;
use toml::Table;

/// The short scenario on less skewed data, with `emmy` lying and some training that lies can do harm to.
fn lying(folder: &std::path::Path, lies: &[&str]) -> Scenario {
    let scenario = Scenario::short(folder, 3);
    let mut table: Table = fs::read_to_string(&scenario.file).unwrap().parse().unwrap();
    table["data"].as_table_mut().unwrap().insert("alpha".into(), 2.0.into());
    table["data"].as_table_mut().unwrap().insert("classes_per_node".into(), vec![1, 10].into());
    table["train"].as_table_mut().unwrap().insert("rate".into(), 0.01.into());
    let mut liars = Table::new();
    liars.insert("nodes".into(), vec!["emmy"].into());
    liars.insert("lies".into(), lies.to_vec().into());
    liars.insert("deadline_ms".into(), 4_000.into());
    table.insert("liars".into(), liars.into());
    fs::write(&scenario.file, table.to_string()).unwrap();
    scenario
}

#[test]
fn liars_are_found_out_and_the_others_learn_as_without_them() {
    let home = tempfile::tempdir().unwrap();
    let lies = ["sign-flip", "out-of-range", "shifted-labels", "captured-reference"];
    let out = home.path().join("out");
    let Ended { stdout, .. } = lying(home.path(), &lies).run_with(&["--lies"], 1, &out);
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    let lies = &summary["lies"];
    let of = |name: &str| {
        let found = lies["lies"].as_array().unwrap().iter().find(|one| one["lie"] == name);
        found.unwrap_or_else(|| panic!("{name} is missing in {lies}"))
    };
    assert_eq!(lies["liars"], json!(["emmy"]));
    let reason = of("out-of-range")["left_out"]["refused"]["emmy"].as_str().unwrap();
    assert!(reason.starts_with("out of range: group 0 has exponent "), "{reason}");
    for name in ["shifted-labels", "captured-reference"] {
        assert_eq!(of(name)["left_out"]["genesis"], json!(["emmy"]), "{lies}");
    }
    for name in ["sign-flip", "out-of-range"] {
        assert_eq!(of(name)["left_out"]["genesis"], json!([]), "{lies}");
    }
    let alone = lies["honest_alone"]["global"].as_f64().unwrap();
    for one in lies["lies"].as_array().unwrap() {
        assert!(one["global"].as_f64().unwrap() > alone - 0.05, "{lies}");
    }
}

#[test]
fn a_node_goes_on_using_what_was_better_by_its_own_samples() {
    let home = tempfile::tempdir().unwrap();
    let scenario = lying(home.path(), &["sign-flip"]);
    let mut table: Table = fs::read_to_string(&scenario.file).unwrap().parse().unwrap();
    table["data"].as_table_mut().unwrap().insert("held_per_node".into(), 30.into());
    // A rule that lets liars in.
    table["network"]["fusion"].as_table_mut().unwrap().insert("rule".into(), "mean".into());
    table["train"].as_table_mut().unwrap().insert("rate".into(), 0.03.into());
    fs::write(&scenario.file, table.to_string()).unwrap();
    let out = home.path().join("out");
    scenario.run_with(&["--lies"], 1, &out);
    let judged = |run: &str| -> Vec<Value> {
        let nodes = ["ada", "blaise", "carl"].map(|name| out.join(run).join("nodes").join(name));
        nodes.iter().flat_map(|node| events(node)).filter(|event| has(event, "judged", None)).collect()
    };
    let declined = |judged: &[Value]| judged.iter().filter(|event| event["accepted"] == false).count();
    let (honest, among_liars) = (judged("lies/honest-alone"), judged("lies/sign-flip"));
    // After genesis, and after each of three rounds.
    assert_eq!((honest.len(), among_liars.len()), (12, 12));
    assert!(declined(&among_liars) > declined(&honest) + 3, "{among_liars:?} {honest:?}");
    for event in among_liars.iter().filter(|event| event["accepted"] == false) {
        assert!(event["uses"].as_u64() < event["round"].as_u64() && event["loss"].as_f64() > event["best"].as_f64());
    }
}
