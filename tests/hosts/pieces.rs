//! Updates that are too large for a message, over slow lines.

use super::*;
use heterotune_protocol::charter::{Alignment, CodecKind, Readout};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// What a host fetches: bytes that are there, and all. None while it fetches nothing.
fn fetching(hosts: &Hosts, host: usize) -> Option<(u64, u64)> {
    let text = fs::read(hosts.state(host).join("status.json")).ok()?;
    let status: Value = serde_json::from_slice(&text).ok()?;
    let progress = status["fetching"].as_array()?.first()?;
    Some((progress["held"].as_u64()?, progress["bytes"].as_u64()?))
}

/// While it is fetched, the line is cut and the fetching node is killed: it goes on where it was.
#[test]
fn an_update_of_16_mib_crosses_a_line_of_5_mbit() {
    let Some(lab) = Lab::or_skip(29, 2, &[]) else { return };
    lab.wire(Wire { delay: Duration::from_millis(20), jitter: Duration::ZERO, loss: 0.0, rate: 5_000_000 });
    let home = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(lab, home.path(), 2, |charter| {
        // 4 x 16 x 256 x 256 values of four bytes, and the readout.
        let adapter = &mut charter.adapter;
        (adapter.slots, adapter.branches, adapter.rank) = (4, 16, 256);
        (adapter.alignment, adapter.readout) = (Alignment::Random, Readout::Trained);
        charter.codec.kind = CodecKind::F32;
        (charter.rounds.total, charter.rounds.deadline_ms, charter.rounds.quorum) = (1, 600_000, 2);
    });
    hosts.backbones = &["vit-d32-l4", "vit-d64-l4"];
    (0..2).for_each(|host| hosts.start(host, &[1 - host], &[]));

    let (before, all) =
        wait_for("a good part of an update", || fetching(&hosts, 0).filter(|(held, _)| *held > 5 * MIB));
    assert!((16 * MIB..18 * MIB).contains(&all), "{all} bytes");
    hosts.lab.cut(1);
    hosts.nodes.get_mut(&0).unwrap().process.kill();
    hosts.lab.heal(1);
    hosts.start(0, &[1], &[]);
    for host in 0..2 {
        let node = hosts.nodes.get_mut(&host).unwrap();
        let end = node.wait_for("its end", |event| has(event, "finished", None));
        let came = end["bytes_in"].as_u64().unwrap();
        if host == 0 {
            // What was there is not sent again.
            assert!(came < all - before + 2 * MIB, "{came} bytes after the {before} of {all}");
        } else {
            assert!(came < all + 2 * MIB, "{came} bytes for {all}");
        }
        let received = |event: &&Value| has(event, "received", Some(1)) && event["kind"] == "update";
        assert_eq!(hosts.events(host).iter().filter(received).count(), 1);
    }
    hosts.assert_one_history(&[0, 1]);
}
