//! The main job as a user runs it: `heterotune quickstart --json`, and what it promises.

use serde_json::Value;
use std::{collections::BTreeSet, fs, process::Command};

#[test]
fn eight_different_backbones_learn_together() {
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_heterotune"))
        .args(["quickstart", "--json", "--out"])
        .arg(folder.path().join("out"))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let summary: Value = serde_json::from_slice(&run.stdout).unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let (nodes, rounds) = (list(&summary["nodes"]), list(&summary["round_log"]));

    assert_eq!(nodes.len(), 8);
    let shapes: BTreeSet<_> = nodes.iter().map(|node| (node["width"].as_u64(), node["depth"].as_u64())).collect();
    assert_eq!(shapes.len(), 8, "no two backbones are alike");
    let last = &rounds[9]["mixture_hash"];
    assert!(nodes.iter().all(|node| node["mixture_hash"] == *last), "all hold the last round's mixture");

    assert_eq!(rounds.len(), 10);
    assert!(rounds.iter().all(|round| round["updates"] == 8));
    assert!(rounds.iter().all(|round| round["branch_norm"].as_f64().unwrap() > 0.0));
    let hashes: BTreeSet<_> = rounds.iter().map(|round| round["mixture_hash"].to_string()).collect();
    assert_eq!(hashes.len(), 10, "every round changes the mixture");

    let mean = |name: &str| summary["mean"][name].as_f64().unwrap();
    assert!(mean("network_global") >= 0.76, "{}", summary["mean"]);
    assert!(mean("network_global") - mean("alone_global") >= 0.45, "{}", summary["mean"]);
    assert!(mean("network_own") >= mean("alone_own"), "{}", summary["mean"]);
    assert!(mean("alone_own") >= 0.85, "the opponent is fair: {}", summary["mean"]);
    assert!(summary["bytes"]["reduction"].as_f64().unwrap() > 20.0, "{}", summary["bytes"]);
    let called_back = |node: &Value| {
        let log = folder.path().join("out/nodes").join(node["name"].as_str().unwrap()).join("events.jsonl");
        fs::read_to_string(log).unwrap().contains(r#""event":"called_back""#)
    };
    assert!(!nodes.iter().any(called_back), "each call would have cost up to 100 kB");

    // In one process the same code comes to the same bits.
    let run = Command::new(env!("CARGO_BIN_EXE_heterotune"))
        .args(["quickstart", "--inproc", "--json", "--out"])
        .arg(folder.path().join("inproc"))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let inproc: Value = serde_json::from_slice(&run.stdout).unwrap();
    for key in ["network_id", "round_log", "mean"] {
        assert_eq!(inproc[key], summary[key], "{key}");
    }
    for (one, other) in list(&inproc["nodes"]).iter().zip(&nodes) {
        for key in ["name", "alone", "network", "mixture_hash", "classes_seen"] {
            assert_eq!(one[key], other[key], "{key}");
        }
    }
}
