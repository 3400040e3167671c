//! Nodes on hosts of their own, with what lies between real hosts: distance, loss, slow lines, cut cables.

mod common;
#[path = "hosts/discovery.rs"]
mod discovery;
#[path = "hosts/doctor.rs"]
mod doctor;
#[path = "hosts/floods.rs"]
mod floods;
#[allow(dead_code, reason = "it plays more elsewhere")]
#[path = "hostile/members.rs"]
mod members;
#[path = "hosts/nat.rs"]
mod nat;
#[path = "hosts/pieces.rs"]
mod pieces;
#[path = "hosts/refusals.rs"]
mod refusals;
#[path = "hosts/restored.rs"]
mod restored;
#[path = "hosts/upnp.rs"]
mod upnp;

use common::{
    hosts::Hosts,
    lab::{Lab, Wire},
    process::{has, wait_for},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    net::TcpStream,
    time::{Duration, Instant},
};

#[test]
fn eight_hosts_far_apart_end_with_one_mixture() {
    let Some(lab) = Lab::or_skip(11, 8, &[]) else { return };
    let (delay, jitter) = (Duration::from_millis(80), Duration::from_millis(20));
    lab.wire(Wire { delay, jitter, loss: 0.02, rate: 10_000_000 });
    let home = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(lab, home.path(), 8, |charter| {
        (charter.rounds.total, charter.rounds.deadline_ms) = (5, 20_000);
    });
    for host in 0..8 {
        hosts.start(host, &[0], &[]);
    }
    // There and back: the distance is not just said.
    hosts.nodes.get_mut(&0).unwrap().wait_for("listening", |event| has(event, "listening", None));
    let since = Instant::now();
    TcpStream::connect((hosts.lab.address(0), 4001)).unwrap();
    assert!(since.elapsed() >= 2 * (delay - jitter));

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
    let Some(lab) = Lab::or_skip(12, 8, &[]) else { return };
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

/// The nodes that a host's node has ever been connected to.
fn met(hosts: &Hosts, host: usize) -> BTreeSet<String> {
    let events = hosts.events(host);
    let connected = events.iter().filter(|event| has(event, "connected", None));
    connected.filter_map(|event| event["peer"].as_str().map(str::to_owned)).collect()
}

fn key(hosts: &Hosts, host: usize) -> String {
    let started = |event: &Value| has(event, "started", None);
    hosts.events(host).iter().find(|event| started(event)).unwrap()["node"].as_str().unwrap().to_owned()
}

#[test]
fn nodes_find_each_other_when_the_only_one_that_all_knew_is_gone() {
    let Some(lab) = Lab::or_skip(13, 9, &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(lab, home.path(), 9, |charter| {
        // The ninth comes when the network is founded.
        charter.members = charter.founders.drain(8..).collect();
        charter.sealers = charter.founders.clone();
        charter.rounds.quorum = 6;
    });
    // All that finds peers by itself in a local network is off.
    let given = ["--no-mdns"];
    for host in [0, 1, 2] {
        hosts.start(host, &[0], &given);
    }
    wait_for("1 and 2 to meet through 0", || {
        let keys = [1, 2].map(|host| hosts.nodes[&host].is_started().then(|| key(&hosts, host)));
        let [Some(first), Some(second)] = keys else { return None };
        (met(&hosts, 1).contains(&second) && met(&hosts, 2).contains(&first)).then_some(())
    });
    hosts.nodes.get_mut(&0).unwrap().process.kill();
    for host in 3..8 {
        hosts.start(host, &[1 + host % 2], &given);
    }
    let rest: Vec<usize> = (1..8).collect();
    hosts.wait_for_seal(&rest, 2, "seven of eight");
    hosts.start(8, &[7], &given);
    let round = hosts.furthest(&rest) + 2;
    hosts.wait_for_seal(&[8], round, "a ninth has joined through the last");
    let others: BTreeSet<String> = (1..8).map(|host| key(&hosts, host)).collect();
    wait_for("all to meet", || others.is_subset(&met(&hosts, 8)).then_some(()));
    hosts.assert_one_history(&(1..9).collect::<Vec<_>>());
}

/// What a process holds: resident memory in kB, and open files.
fn held(pid: u64) -> Option<(u64, usize)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    Some((resident?, fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()))
}

/// How long the soak takes, in minutes: by this variable of the environment, else thirty.
const SOAK: &str = "HETEROTUNE_SOAK_MINUTES";

#[test]
#[ignore = "takes half an hour; cargo test --release --test hosts -- --ignored --nocapture"]
fn twelve_hosts_that_come_and_go_hold_no_more_after_half_an_hour() {
    let Some(lab) = Lab::or_skip(14, 12, &[]) else { return };
    let minutes: u64 = std::env::var(SOAK).ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(30);
    lab.wire(Wire { delay: Duration::from_millis(20), jitter: Duration::from_millis(5), loss: 0.005, rate: 0 });
    let home = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(lab, home.path(), 12, |charter| charter.rounds.deadline_ms = 10_000);
    let all: Vec<usize> = (0..12).collect();
    for host in &all {
        hosts.start(*host, &[0, 1, 2], &[]);
    }
    hosts.wait_for_seal(&all, 1, "all are there");
    // Three stay throughout: what they hold is looked at. Of the others one goes every minute, and comes back.
    let (stay, start) = ([0, 1, 2], Instant::now());
    let mut looks = Vec::new();
    for minute in 1..=minutes {
        let goes = 3 + usize::try_from(minute).unwrap() % 9;
        hosts.nodes.get_mut(&goes).unwrap().process.kill();
        let round = hosts.furthest(&stay) + 1;
        hosts.wait_for_seal(&stay, round, "one is away");
        hosts.start(goes, &[0, 1, 2], &[]);
        let next = start + Duration::from_secs(60 * minute);
        wait_for("the next minute", || (Instant::now() >= next).then_some(()));
        let held = stay.map(|host| held(u64::from(hosts.nodes[&host].process.id())).unwrap());
        println!("minute {minute:2}: round {:4}, {held:?} (kB, files)", hosts.furthest(&stay));
        looks.push(held);
    }
    let round = hosts.furthest(&stay) + 2;
    hosts.wait_for_seal(&all, round, "all are back");
    hosts.assert_one_history(&all);
    // A third of the time to settle; then a tenth, and some, for chance.
    let (settled, last) = (&looks[looks.len() / 3], &looks[looks.len() - 1]);
    for ((memory, files), (memory_then, files_then)) in last.iter().zip(settled) {
        assert!(*memory <= memory_then + memory_then / 10 + 8_192, "{memory_then} kB have become {memory} kB");
        assert!(*files <= files_then + 16, "{files_then} open files have become {files}");
    }
}
