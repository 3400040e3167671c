//! How nodes find each other where nobody tells them everything.

use super::{key, met};
use crate::common::{
    hosts::Hosts,
    lab::Lab,
    process::{has, wait_for},
};
use std::fs;

#[test]
fn nodes_in_one_local_network_need_no_address() {
    let Some(lab) = Lab::or_skip(18, 4, &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(lab, home.path(), 4, |_| {});
    let all = [0, 1, 2, 3];
    for host in all {
        hosts.start(host, &[], &[]);
    }
    hosts.wait_for_seal(&all, 1, "all have met");
    hosts.assert_one_history(&all);
}

/// Hellos tell of who is connected. What is left for one who is not is Kademlia's table.
#[test]
fn a_node_is_found_that_the_only_known_one_cannot_reach() {
    let Some(lab) = Lab::or_skip(19, 3, &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(lab, home.path(), 3, |_| {});
    let given = ["--no-mdns"];
    hosts.start(0, &[], &given);
    hosts.start(1, &[0], &given);
    let known = hosts.state(0).join("peers.json");
    let listens = hosts.address(1);
    wait_for("host 0 to know where host 1 listens", || {
        fs::read_to_string(&known).is_ok_and(|text| text.contains(&listens)).then_some(())
    });
    let one = key(&hosts, 1);
    hosts.nodes.get_mut(&1).unwrap().process.kill();
    let gone = |event: &serde_json::Value| has(event, "disconnected", None) && event["peer"] == one.as_str();
    hosts.nodes.get_mut(&0).unwrap().wait_for("the end of host 1", gone);
    hosts.lab.part(0, 1);
    // It has forgotten all, if it has written it down already, and is told of nobody.
    let _ = fs::remove_file(hosts.state(1).join("peers.json"));
    hosts.start(1, &[], &given);
    hosts.start(2, &[0], &given);
    wait_for("host 2 to meet host 1", || met(&hosts, 2).contains(&one).then_some(()));
    let last = hosts.events(0).into_iter().rev().find(|event| event["peer"] == one.as_str()).unwrap();
    assert!(has(&last, "disconnected", None), "host 0 reaches host 1: {last}");
}
