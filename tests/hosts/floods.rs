//! What one rude host can do to another: nothing that the others notice, and nothing that stays in memory.

use super::{held, key, members};
use crate::common::{
    hosts::Hosts,
    lab::Lab,
    process::{has, wait_for},
};
use heterotune_crypto::{Digest, Identity};
use heterotune_protocol::message::{Context, Step};
use members::Member;
use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

/// Dials of the flood.
const DIALS: usize = 2_000;

/// Messages of the flood.
const MESSAGES: usize = 20_000;

/// What a node may hold more after a flood than before it, in kB. The held connections alone, if it kept them and
/// believed their lengths, would be terabytes.
const MORE_MAX: u64 = 64 << 10;

/// A network of four, sealing.
fn four(subnet: u8, home: &std::path::Path, rude: &Identity) -> Option<(Hosts, Arc<Context>)> {
    let lab = Lab::or_skip(subnet, 4, &[])?;
    let mut context = None;
    let mut hosts = Hosts::new(lab, home, 4, |charter| {
        charter.members = vec![rude.id()];
        context = Context::new(charter.clone()).ok();
    });
    for host in 0..4 {
        hosts.start(host, &[0, 1], &[]);
    }
    hosts.wait_for_seal(&[0, 1, 2, 3], 2, "all are there");
    Some((hosts, Arc::new(context.unwrap())))
}

fn memory(hosts: &Hosts, host: usize) -> u64 {
    held(u64::from(hosts.nodes[&host].process.id())).unwrap().0
}

#[test]
fn two_thousand_dials_that_say_nothing_or_too_much_cost_no_memory_and_no_round() {
    let home = tempfile::tempdir().unwrap();
    let Some((mut hosts, _)) = four(16, home.path(), &Identity::from_seed(1, "rude")) else { return };
    let before = memory(&hosts, 0);
    let address: SocketAddr = format!("{}:4001", hosts.lab.address(0)).parse().unwrap();
    let sealed = hosts.furthest(&[0]);
    let mut lines = Vec::new();
    for dial in 0..DIALS {
        let Ok(mut line) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) else { continue };
        // Half of them say nothing more than the first bytes; the others that four gigabytes follow.
        let words: &[u8] = if dial % 2 == 0 { b"\x13/multi" } else { b"\xff\xff\xff\xff\x0f" };
        let _ = line.write_all(words);
        lines.push(line);
    }
    assert!(lines.len() > DIALS / 10, "the flood was none: {} dials", lines.len());
    hosts.wait_for_seal(&[0, 1, 2, 3], sealed + 5, "rounds go on");
    let after = memory(&hosts, 0);
    assert!(after < before + MORE_MAX, "{before} kB have become {after} kB");
    drop(lines);
    // Whoever comes with a good reason is let in again: host 3, after a restart.
    hosts.nodes.get_mut(&3).unwrap().process.kill();
    hosts.start(3, &[0], &[]);
    let zero = key(&hosts, 0);
    hosts
        .nodes
        .get_mut(&3)
        .unwrap()
        .wait_for("the flooded host", |event| has(event, "connected", None) && event["peer"] == zero.as_str());
    hosts.assert_one_history(&[0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_never_stops_talking_costs_no_memory_and_no_round() {
    let home = tempfile::tempdir().unwrap();
    let rude = Identity::from_seed(1, "rude");
    let Some((mut hosts, context)) = four(17, home.path(), &rude) else { return };
    let before = memory(&hosts, 0);
    let sealed = hosts.furthest(&[0]);
    let mut rude = Member::join(rude, context, &hosts.address(0));
    let key = rude.identity.id().to_string();
    let node = hosts.nodes.get_mut(&0).unwrap();
    node.wait_for("the rude member", |event| has(event, "connected", None) && event["peer"] == key.as_str());
    for number in 0..MESSAGES {
        let step = Step::Round(1 + number as u64 % 1_000);
        let said = rude.say(Digest::ZERO, step, members::head(1 + number as u64, Digest::ZERO));
        rude.publish(said);
    }
    hosts.wait_for_seal(&[0, 1, 2, 3], sealed + 5, "rounds go on");
    wait_for("the flood to be refused", || {
        hosts.events(0).iter().any(|event| has(event, "refused", None)).then_some(())
    });
    let after = memory(&hosts, 0);
    assert!(after < before + MORE_MAX, "{before} kB have become {after} kB");
    hosts.assert_one_history(&[0, 1, 2, 3]);
}
