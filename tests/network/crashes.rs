//! Nodes that die, at whatever instant, and are started again.

use super::{SEED, UNDISTURBED, Undisturbed, array, undisturbed};
use crate::common::{
    inputs::shared,
    process::{Node, events, has},
};
use serde_json::Value;
use std::{fs, path::Path, process::Command};

/// The event after which a node is killed.
type Instant<'a> = &'a dyn Fn(&Value) -> bool;

/// Starts node `index` of an undisturbed run anew, in a state folder below `states`.
fn start(run: &Undisturbed, index: usize, states: &Path, peers: &[String]) -> Node {
    start_with(run, index, states, peers, &[])
}

fn start_with(run: &Undisturbed, index: usize, states: &Path, peers: &[String], more: &[&str]) -> Node {
    let (name, backbone) = &run.scenario.nodes[index];
    Node::start(&states.join(name), |command: &mut Command| {
        command.args(more);
        command.arg("--charter").arg(run.out.join("charter.toml")).arg("--backbone").arg(backbone);
        command.arg("--data").arg(run.out.join("data").join(name));
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]).args(peers.iter().flat_map(|peer| ["--peer", peer]));
        command.args(["--threads", "1", "--steps", "5", "--batch", "32", "--rate", "0.001"]);
        command.args(["--seed", &SEED.to_string(), "--scenario", &format!("{SEED}/{name}")]);
    })
}

/// All four nodes, the others with the first as their peer.
fn start_all(run: &Undisturbed, states: &Path) -> Vec<Node> {
    let mut nodes = vec![start(run, 0, states, &[])];
    let first = nodes[0].address();
    nodes.extend((1..4).map(|index| start(run, index, states, std::slice::from_ref(&first))));
    nodes
}

/// Waits for the end of all: the undisturbed run's.
fn check_the_end(run: &Undisturbed, nodes: &mut [Node]) {
    let expected = &array(&run.summary["round_log"]).last().unwrap()["mixture_hash"];
    assert_eq!(&agreed(nodes), expected);
}

/// Waits for the end of all: the same for everybody, without anybody having contradicted himself.
fn agreed(nodes: &mut [Node]) -> Value {
    let mut hashes = Vec::new();
    for node in nodes {
        hashes.push(node.wait_for("its end", |event| has(event, "finished", None))["mixture_hash"].clone());
        let ended = node.process.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        for event in events(&node.state) {
            assert!(!has(&event, "conflict", None) && !has(&event, "state_differs", None), "{event}");
            // A node that is back goes through its steps anew, and then is not where the others are.
            let apart = |reason: &str| reason.starts_with("stale: ") || reason.starts_with("early: ");
            assert!(!has(&event, "refused", None) || event["reason"].as_str().is_some_and(apart), "{event}");
        }
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    hashes.swap_remove(0)
}

#[test]
fn a_node_killed_and_started_again_changes_nothing() {
    let run = shared(&UNDISTURBED, undisturbed);
    let states = run.home.path().join("disturbed");
    let mut nodes = start_all(&run, &states);

    // In genesis, before, while and after training, and the node that the others first knew, too.
    let kills: [(usize, &str, Instant<'_>); 7] = [
        (1, "kernels", &|event| has(event, "published", Some(0)) && event["kind"] == "kernels"),
        (2, "an alignment", &|event| has(event, "aligned", None)),
        (1, "an open round", &|event| has(event, "round_opened", Some(2))),
        (3, "a seal", &|event| has(event, "sealed", Some(1))),
        (2, "a trained round", &|event| has(event, "trained", Some(2))),
        (0, "an update", &|event| has(event, "published", Some(3))),
        (3, "a closed round", &|event| has(event, "round_closed", Some(3))),
    ];
    for (victim, what, instant) in kills {
        nodes[victim].wait_for(what, instant);
        nodes[victim].process.kill();
        let peers: Vec<String> = nodes
            .iter_mut()
            .enumerate()
            .filter(|(index, _)| *index != victim)
            .map(|(_, node)| node.address())
            .collect();
        nodes[victim] = start(&run, victim, &states, &peers);
    }

    check_the_end(&run, &mut nodes);
}

/// Each life of a node ends before its first write to the ledger, or right after it, in turn. So it dies on both sides
/// of all of them, one after the other.
#[test]
fn a_node_may_die_at_every_write() {
    let run = shared(&UNDISTURBED, undisturbed);
    let states = run.home.path().join("dying");
    let mut nodes = start_all(&run, &states);
    nodes[1].process.kill();
    let peers = [0, 2, 3].map(|index| nodes[index].address());
    let mut lives = 0;
    let closed = |event: &Value| has(event, "round_closed", Some(super::ROUNDS));
    while !events(&nodes[1].state).iter().any(closed) {
        let crash = ["1", "1+"][lives % 2];
        nodes[1] = start_with(&run, 1, &states, &peers, &["--crash-at", crash]);
        let ended = nodes[1].process.wait();
        assert_eq!(ended.code, None, "{}", ended.stderr);
        lives += 1;
    }
    println!("died {lives} times");
    // Genesis and four rounds write more often than once each.
    assert!(lives > 2 * 6, "{lives}");
    nodes[1] = start(&run, 1, &states, &peers);
    check_the_end(&run, &mut nodes);
}

/// An old ledger with the same key: the node must not sign anew what it has signed since.
#[test]
fn a_restored_backup_contradicts_nothing() {
    let run = shared(&UNDISTURBED, undisturbed);
    let states = run.home.path().join("restored");
    let mut nodes = start_all(&run, &states);
    let peers = [0, 2, 3].map(|index| nodes[index].address());
    let state = nodes[1].state.clone();
    let backup = |from: &str, to: &str| {
        for file in ["ledger.redb", "private.safetensors"] {
            fs::copy(state.join(file.to_owned() + from), state.join(file.to_owned() + to)).unwrap();
        }
    };
    nodes[1].wait_for("a round", |event| has(event, "round_closed", Some(1)));
    nodes[1].process.kill();
    backup("", ".old");
    nodes[1] = start(&run, 1, &states, &peers);
    nodes[1].wait_for("a seal", |event| has(event, "sealed", Some(2)));
    nodes[1].process.kill();
    backup(".old", "");
    nodes[1] = start(&run, 1, &states, &peers);
    // What rounding had kept back since the backup is lost, so it is not the undisturbed run's end.
    agreed(&mut nodes);
}
