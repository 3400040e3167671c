//! Whole networks of real node processes on the loopback.

mod common;
#[path = "network/crashes.rs"]
mod crashes;
#[path = "network/schema.rs"]
mod schema;

use common::{
    inputs::shared,
    process::{events, has, is_running, kill, wait_for},
    scenario::Scenario,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, Weak},
};
use tempfile::TempDir;

const SEED: u64 = 7;
const ROUNDS: u64 = 4;

/// A scenario that ran to its end without anything getting in its way.
struct Undisturbed {
    scenario: Scenario,
    out: PathBuf,
    summary: Value,
    home: TempDir,
}

static UNDISTURBED: Mutex<Weak<Undisturbed>> = Mutex::new(Weak::new());

fn undisturbed() -> Undisturbed {
    let home = tempfile::tempdir().unwrap();
    let scenario = Scenario::short(home.path(), ROUNDS as i64);
    let out = home.path().join("out");
    let ended = scenario.run(SEED, &out);
    let summary = serde_json::from_str(&ended.stdout).expect("stdout is the summary, and nothing but it");
    Undisturbed { scenario, out, summary, home }
}

#[test]
fn a_scenario_ends_with_one_mixture_and_says_what_came_of_it() {
    let run = shared(&UNDISTURBED, undisturbed);
    let summary = &run.summary;
    schema::check(summary);
    assert_eq!(summary, &serde_json::from_slice::<Value>(&fs::read(run.out.join("summary.json")).unwrap()).unwrap());
    assert_eq!((&summary["scenario"], &summary["rounds"]), (&json!("short"), &json!(ROUNDS)));
    let names: Vec<&str> = array(&summary["nodes"]).iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ada", "blaise", "carl", "emmy"]);
    let shapes: BTreeSet<_> =
        array(&summary["nodes"]).iter().map(|node| [&node["width"], &node["depth"]].map(Value::as_u64)).collect();
    assert_eq!(shapes.len(), 4, "four different backbones");

    let rounds = array(&summary["round_log"]);
    let numbers: Vec<_> = rounds.iter().map(|round| round["round"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=ROUNDS).collect::<Vec<_>>());
    for round in rounds {
        assert_eq!(round["updates"], 4, "{round}");
        assert!(
            round["branch_norm"].as_f64().unwrap() > 0.0 && round["update_norm"].as_f64().unwrap() > 0.0,
            "{round}"
        );
    }
    let hashes: BTreeSet<_> = rounds.iter().map(|round| round["mixture_hash"].as_str().unwrap()).collect();
    assert_eq!(hashes.len(), rounds.len(), "every round makes a new mixture");
    for node in array(&summary["nodes"]) {
        assert_eq!(node["mixture_hash"], rounds.last().unwrap()["mixture_hash"], "{node}");
        assert!(node["bytes_out"].as_u64().unwrap() > 0 && node["bytes_in"].as_u64().unwrap() > 0, "{node}");
    }
    // What each learns from others is worth something, even in so short a run.
    let mean = |key: &str| summary["mean"][key].as_f64().unwrap();
    assert!(mean("network_global") > mean("alone_global") + 0.2, "{}", summary["mean"]);

    let report = fs::read_to_string(run.out.join("report.html")).unwrap();
    assert!(report.contains("<svg"));
    for fetched in ["src=", "<link", "@import", "url(", "<script"] {
        assert!(!report.contains(fetched), "the report fetches something: {fetched}");
    }
}

#[test]
fn the_event_logs_show_a_network() {
    let run = shared(&UNDISTURBED, undisturbed);
    let mut peers = BTreeSet::new();
    for state in run.scenario.states(&run.out) {
        let events = events(&state);
        let all = |kind: &'static str| events.iter().filter(move |event| has(event, kind, None));
        let started = all("started").next().unwrap();
        peers.insert(started["peer_id"].as_str().unwrap().to_owned());
        let addresses: Vec<_> = all("listening").map(|event| event["address"].as_str().unwrap()).collect();
        for transport in ["/tcp/", "/quic-v1/"] {
            let found = addresses.iter().find(|address| address.contains(transport));
            let found = found.unwrap_or_else(|| panic!("no {transport} among {addresses:?}"));
            assert!(found.starts_with("/ip4/127.0.0.1/") && found.ends_with(started["peer_id"].as_str().unwrap()));
        }
        for connected in all("connected") {
            assert!(connected["address"].as_str().unwrap().starts_with("/ip4/127.0.0.1/"), "{connected}");
        }
        let met: BTreeSet<_> = all("connected").map(|event| event["peer"].as_str().unwrap()).collect();
        assert!(!met.is_empty() && !met.contains(started["node"].as_str().unwrap()));
        // Kernels, statistics and an update a round, of its own and of each of the three others.
        let said = |kind: &'static str| -> Vec<_> {
            let mut said: Vec<_> =
                all(kind).map(|event| (event["kind"].as_str().unwrap(), event["round"].as_u64().unwrap())).collect();
            said.sort_unstable();
            said
        };
        let expected =
            [("kernels", 0), ("statistics", 0)].into_iter().chain((1..=ROUNDS).map(|round| ("update", round)));
        let mut expected: Vec<_> = expected.collect();
        expected.sort_unstable();
        assert_eq!(said("published"), expected);
        assert_eq!(said("received"), expected.iter().flat_map(|said| [*said; 3]).collect::<Vec<_>>());
        assert!(all("refused").next().is_none() && all("conflict").next().is_none());
    }
    assert_eq!(peers.len(), 4);
}

/// What must be the same whenever a scenario is run with the same seed: all but times, bytes and memory.
fn outcome(summary: &Value) -> Value {
    let nodes: Vec<_> = array(&summary["nodes"])
        .iter()
        .map(|node| json!([node["name"], node["classes_seen"], node["alone"], node["network"], node["mixture_hash"]]))
        .collect();
    json!([summary["network_id"], nodes, summary["round_log"], summary["mean"]])
}

#[test]
fn the_seed_decides_what_comes_of_it() {
    let run = shared(&UNDISTURBED, undisturbed);
    let summary = |seed, out| -> Value {
        serde_json::from_str(&run.scenario.run(seed, &run.home.path().join(out)).stdout).unwrap()
    };
    assert_eq!(outcome(&run.summary), outcome(&summary(SEED, "again")));
    let other = summary(SEED + 1, "other");
    assert_ne!(run.summary["network_id"], other["network_id"]);
    let last = |summary: &Value| array(&summary["round_log"]).last().unwrap()["mixture_hash"].clone();
    assert_ne!(last(&run.summary), last(&other));
}

/// Processes of nodes that a runner has started, killed at the end of a test that failed.
struct Children(Vec<u64>);

impl Children {
    /// Waits until all nodes of a run have closed a round.
    fn of(scenario: &Scenario, out: &Path) -> Self {
        let mut children = Self(Vec::new());
        for state in scenario.states(out) {
            let pid =
                wait_for("a node to start", || events(&state).into_iter().find(|event| has(event, "started", None)));
            children.0.push(pid["pid"].as_u64().unwrap());
        }
        for state in scenario.states(out) {
            wait_for("a round", || events(&state).into_iter().find(|event| has(event, "round_closed", Some(1))));
        }
        children
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.0.iter().copied().filter(|pid| is_running(*pid)).for_each(kill);
    }
}

#[test]
fn a_runner_that_is_killed_leaves_no_process_behind() {
    let home = tempfile::tempdir().unwrap();
    let scenario = Scenario::short(home.path(), 100_000);
    let out = home.path().join("out");
    let mut runner = scenario.start(SEED, &out);
    let children = Children::of(&scenario, &out);
    assert!(children.0.iter().all(|pid| is_running(*pid)));
    runner.kill();
    for pid in &children.0 {
        wait_for("the children's end", || (!is_running(*pid)).then_some(()));
    }
}

#[test]
fn a_child_that_is_killed_ends_the_run_and_is_named() {
    let home = tempfile::tempdir().unwrap();
    let scenario = Scenario::short(home.path(), 100_000);
    let out = home.path().join("out");
    let mut runner = scenario.start(SEED, &out);
    let children = Children::of(&scenario, &out);
    kill(children.0[2]);
    let ended = runner.wait();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    let error = ended.stderr.lines().last().unwrap();
    let log = out.canonicalize().unwrap().join("nodes/carl/stderr.log");
    for said in ["node carl ended early", "signal", log.to_str().unwrap()] {
        assert!(error.contains(said), "{error}");
    }
    assert!(log.is_file());
    assert!(children.0.iter().all(|pid| !is_running(*pid)), "the runner left a child behind");
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}
