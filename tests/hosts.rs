//! Nodes on hosts of their own, with what lies between real hosts: distance, loss, slow lines, cut cables.

mod common;

use common::{
    hosts::Hosts,
    lab::{Lab, Wire},
    process::{has, wait_for},
};
use std::{collections::BTreeSet, time::Duration};

/// A lab; where none can be made, that is said, and in CI it is a failure.
fn lab(subnet: u8, hosts: usize) -> Option<Lab> {
    match Lab::new(subnet, hosts) {
        Ok(lab) => Some(lab),
        Err(reason) => {
            assert!(std::env::var_os("CI").is_none(), "no network of namespaces can be made here ({reason})");
            eprintln!("skipped: no network of namespaces can be made here ({reason})");
            None
        }
    }
}

#[test]
fn eight_hosts_far_apart_end_with_one_mixture() {
    let Some(lab) = lab(11, 8) else { return };
    let (delay, jitter) = (Duration::from_millis(80), Duration::from_millis(20));
    lab.wire(Wire { delay, jitter, loss: 0.02, rate: 10_000_000 });
    let home = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(lab, home.path(), 8, |charter| {
        (charter.rounds.total, charter.rounds.deadline_ms) = (5, 20_000);
    });
    for host in 0..8 {
        hosts.start(host, &[0], &[]);
    }
    let all: Vec<usize> = (0..8).collect();
    let mut mixtures = BTreeSet::new();
    for host in &all {
        let node = hosts.nodes.get_mut(host).unwrap();
        node.wait_for("its end", |event| has(event, "finished", None));
        mixtures.insert(hosts.rounds(*host, "round_closed", "mixture_hash")[&5].clone());
    }
    assert_eq!(mixtures.len(), 1, "{mixtures:?}");
    hosts.assert_one_history(&all);
}

#[test]
fn a_split_network_seals_on_the_side_of_the_quorum_alone_and_heals() {
    let Some(lab) = lab(12, 8) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(lab, home.path(), 8, |_| {});
    for host in 0..8 {
        hosts.start(host, &[0, 1], &[]);
    }
    let all: Vec<usize> = (0..8).collect();
    hosts.wait_for_seal(&all, 2, "all are there");

    let (most, few) = ([0, 1, 2, 3, 4, 5], [6, 7]);
    hosts.lab.split(&[&most, &few]);
    let cut_at = hosts.furthest(&all);
    hosts.wait_for_seal(&most, cut_at + 4, "six of eight seal");
    // Whatever was under way when they were cut off: the two have not gone on from it.
    assert!(hosts.furthest(&few) <= cut_at + 1, "two of eight have sealed");
    let published = |hosts: &Hosts| hosts.events(6).iter().filter(|event| has(event, "published", None)).count();
    assert!(published(&hosts) > 0);
    hosts.lab.split(&[]);
    let healed_at = hosts.furthest(&all);
    hosts.wait_for_seal(&all, healed_at + 2, "the two are back");
    hosts.assert_one_history(&all);

    let (left, right) = ([0, 1, 2, 3], [4, 5, 6, 7]);
    hosts.lab.split(&[&left, &right]);
    let cut_at = hosts.furthest(&all);
    let missed = [0, 4].map(|host| hosts.deadlines_missed(host));
    for (host, missed) in [0, 4].into_iter().zip(missed) {
        wait_for("two deadlines", || (hosts.deadlines_missed(host) >= missed + 2).then_some(()));
    }
    assert!(hosts.furthest(&all) <= cut_at + 1, "half of the sealers have sealed");
    hosts.lab.split(&[]);
    hosts.wait_for_seal(&all, cut_at + 3, "both halves are back");
    hosts.assert_one_history(&all);
}
