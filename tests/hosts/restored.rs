//! A host whose disk goes back in time.

use crate::common::{
    hosts::Hosts,
    lab::Lab,
    process::{events, has, wait_for},
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

/// Copies a host's state folder as a virtual machine's snapshot does, in one instant: when a round is open to which its
/// node has said nothing yet. It would say it again, and otherwise.
fn snapshot(hosts: &Hosts, host: usize, to: &Path) {
    let pid = hosts.nodes[&host].process.id().to_string();
    wait_for("an open round without its update", || {
        let opened = |events: &[Value]| events.iter().rev().find(|event| has(event, "round_opened", None)).cloned();
        let round = opened(&hosts.events(host))?["round"].as_u64();
        run("kill", &["-STOP", &pid]);
        copy(&hosts.state(host), to);
        run("kill", &["-CONT", &pid]);
        let copied = events(to);
        let is_open = opened(&copied)?["round"].as_u64() == round;
        (is_open && !updates(&copied).contains_key(&round?)).then_some(())
    });
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
    snapshot(&hosts, 3, &backup);
    let round = hosts.sealed(3) + 4;
    hosts.wait_for_seal(&[3], round, "it has said more since");
    hosts.nodes.get_mut(&3).unwrap().process.kill();
    let (before, copied) = (hosts.events(3), events(&backup).len());
    let said = updates(&before);
    copy(&backup, &state);
    // Alone with its old disk it says nothing, however long that takes.
    hosts.lab.cut(3);
    hosts.start(3, &[0, 1], &[]);
    wait_for("two deadlines", || {
        let passed = hosts.events(3).iter().skip(copied).filter(|event| has(event, "deadline_missed", None)).count();
        (passed >= 2).then_some(())
    });
    assert_eq!(updates(&hosts.events(3)[copied..]), BTreeMap::new());
    hosts.lab.heal(3);

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
