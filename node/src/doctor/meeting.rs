//! What a node that runs has heard from its peers: who is there, whose clock differs, and whether others reach it.

use super::{Finding, clock, settle};
use crate::{
    events,
    status::{Peer, Status},
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, path::Path};

/// What a running node has seen in this life.
pub(super) fn told(state: &Path, status: &Status) -> Vec<Finding> {
    let events: Vec<_> = events::read(state).map(Iterator::collect).unwrap_or_default();
    let begun = events.iter().rposition(|event| is(event, "started")).unwrap_or(0);
    let run = events.get(begun..).unwrap_or_default();
    let mut findings = vec![peers(&status.peers, run)];
    let known = |peer: &Peer| Some(clock(&peer.node, peer.ahead_s?));
    findings.extend(status.peers.iter().filter_map(known));
    // One address that others reach is enough.
    let (reached, missed): (BTreeSet<_>, BTreeSet<_>) =
        run.iter().filter_map(call_back).partition(|(_, reached)| *reached);
    let circuit = |address: &&Multiaddr| address.iter().any(|protocol| protocol == Protocol::P2pCircuit);
    let relay = status.listening.iter().find(circuit);
    findings.extend(match reached.first() {
        Some((address, _)) => vec![Finding::ok("dial-back", format!("others reach this host at {address}"))],
        None if missed.is_empty() && relay.is_none() => {
            vec![Finding::skipped("dial-back", "no peer has called back yet; ask again in a minute")]
        }
        None => {
            let missed = missed.into_iter().map(|(address, _)| address.to_string()).collect();
            settle(missed, relay, true, &status.listening)
        }
    });
    findings
}

fn peers(peers: &[Peer], run: &[Map<String, Value>]) -> Finding {
    match (peers.len(), run.iter().rfind(|event| is(event, "misfit"))) {
        (0, Some(misfit)) => {
            let reason = misfit.get("reason").and_then(Value::as_str).unwrap_or_default();
            let cause = format!("nobody is connected, and who called does not belong here: {reason}");
            Finding::warning("peers", cause, "the same charter and program on all nodes")
        }
        (0, None) => Finding::warning("peers", "nobody is connected", "`bootstrap` in node.toml, then kill -HUP"),
        (count, _) => {
            let relayed = peers.iter().filter(|peer| peer.relayed).count();
            Finding::ok("peers", format!("{count} connected, {relayed} of them through another node"))
        }
    }
}

/// Where a peer was asked to call back, and whether it has reached this node.
fn call_back(event: &Map<String, Value>) -> Option<(&str, bool)> {
    let address = is(event, "called_back").then(|| event.get("address")?.as_str()).flatten()?;
    Some((address, event.get("reached")?.as_bool()?))
}

fn is(event: &Map<String, Value>, kind: &str) -> bool {
    event.get("event").and_then(Value::as_str) == Some(kind)
}
