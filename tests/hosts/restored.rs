//! A host whose disk goes back in time.

use crate::common::{
    hosts::Hosts,
    lab::Lab,
    process::{events, has},
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path, process::Command};

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}

/// Puts a copy of a folder at `to`, in place of what is there.
fn copy(from: &Path, to: &Path) {
    run("rm", &["-rf", to.to_str().unwrap()]);
    run("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
}

/// The updates that were said, by round.
fn updates(events: &[Value]) -> BTreeMap<u64, String> {
    let updates = events.iter().filter(|event| has(event, "published", None) && event["kind"] == "update");
    updates.map(|event| (event["round"].as_u64().unwrap(), event["payload"].as_str().unwrap().into())).collect()
}

#[test]
fn a_host_restored_from_an_older_copy_catches_up_and_contradicts_nothing() {
    let Some(lab) = Lab::or_skip(20, 4, &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(lab, home.path(), 4, |_| {});
    let (all, rest, state, backup) = ([0, 1, 2, 3], [0, 1, 2], hosts.state(3), home.path().join("backup"));
    for host in all {
        hosts.start(host, &[0, 1], &[]);
    }
    hosts.wait_for_seal(&all, 2, "all are there");
    // A snapshot, as a virtual machine's: taken in one instant, after which it goes on.
    let pid = hosts.nodes[&3].process.id().to_string();
    run("kill", &["-STOP", &pid]);
    copy(&state, &backup);
    run("kill", &["-CONT", &pid]);
    let round = hosts.sealed(3) + 4;
    hosts.wait_for_seal(&[3], round, "it has said more since");
    hosts.nodes.get_mut(&3).unwrap().process.kill();
    let (before, copied) = (hosts.events(3), events(&backup).len());
    let said = updates(&before);
    copy(&backup, &state);
    hosts.start(3, &[0, 1], &[]);

    let last = *said.last_key_value().unwrap().0;
    let node = hosts.nodes.get_mut(&3).unwrap();
    let is_new = |event: &Value| event["round"].as_u64().is_some_and(|round| round > last);
    node.wait_for("news", |event| has(event, "published", None) && event["kind"] == "update" && is_new(event));
    let round = hosts.furthest(&rest) + 2;
    hosts.wait_for_seal(&all, round, "it has caught up");
    for (round, payload) in updates(&hosts.events(3)[copied..]) {
        assert!(said.get(&round).is_none_or(|said| *said == payload), "it contradicts itself in round {round}");
    }
    hosts.assert_one_history(&all);
    for event in all.iter().flat_map(|host| hosts.events(*host)).chain(before) {
        assert!(!has(&event, "conflict", None) && !has(&event, "state_differs", None), "{event}");
        assert!(!has(&event, "sealed", None) || event["conflicts"].as_array().unwrap().is_empty(), "{event}");
    }
}
