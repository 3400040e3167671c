//! Hosts behind routers that translate addresses: who can't be dialled is reached through a relay, and directly where a
//! hole can be punched.

use super::key;
use crate::common::{
    hosts::Hosts,
    lab::{Lab, Nat},
    process::has,
};
use serde_json::Value;

/// TCP is there already; holes are punched more easily for QUIC.
const QUIC: [&str; 3] = ["--listen", "/ip4/0.0.0.0/udp/4001/quic-v1", "--no-upnp"];

/// What a node has said of its connections to another: their paths, and "upgraded" where one became direct.
fn paths(hosts: &Hosts, host: usize, other: &str) -> Vec<String> {
    let of_other = |event: &&Value| event["peer"] == other;
    let events = hosts.events(host);
    let told = events.iter().filter(of_other).filter_map(|event| match event["event"].as_str() {
        Some("connected") => event["path"].as_str().map(str::to_owned),
        Some("upgraded") => Some("upgraded".into()),
        _ => None,
    });
    told.collect()
}

#[test]
fn hosts_behind_routers_meet_through_a_relay_and_then_directly_where_that_can_be() {
    let routers = [(2, Nat::Cone), (3, Nat::Cone), (4, Nat::Symmetric)];
    let Some(lab) = Lab::or_skip(15, 5, &routers) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(lab, home.path(), 5, |_| {});
    hosts.start(0, &[], &[&QUIC[..], &["--relay"]].concat());
    for host in 1..5 {
        hosts.start(host, &[0], &QUIC);
    }
    let all: Vec<usize> = (0..5).collect();
    hosts.wait_for_seal(&all, 2, "all are there, however they are connected");
    let keys: Vec<String> = all.iter().map(|host| key(&hosts, *host)).collect();

    // Both sides of a circuit know that it is one.
    for (host, other) in [(2, 4), (4, 2), (3, 4), (4, 3)] {
        let peer = keys[other].clone();
        let node = hosts.nodes.get_mut(&host).unwrap();
        node.wait_for("a relayed connection", |event| has(event, "connected", None) && event["peer"] == peer.as_str());
        assert_eq!(paths(&hosts, host, &peer)[0], "relayed", "{host} and {other}");
    }
    // Two routers that keep ports let a hole be punched.
    for (host, other) in [(2, 3), (3, 2)] {
        let peer = keys[other].clone();
        let node = hosts.nodes.get_mut(&host).unwrap();
        let direct = |event: &Value| {
            event["peer"] == peer.as_str()
                && (has(event, "upgraded", None) || (has(event, "connected", None) && event["path"] == "direct"))
        };
        node.wait_for("a direct connection", direct);
    }
    // A router that changes them does not: the network goes on by the relay.
    let round = hosts.furthest(&all) + 3;
    hosts.wait_for_seal(&all, round, "some stay relayed");
    for (host, other) in [(2, 4), (4, 2)] {
        assert!(!paths(&hosts, host, &keys[other]).contains(&"upgraded".into()), "{host} and {other}");
    }
    hosts.assert_one_history(&all);
}
