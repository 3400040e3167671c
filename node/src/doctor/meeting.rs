//! What peers say to this node: whether version, charter and membership suit them, and whether they can call back.

use super::{Finding, Patient};
use crate::{
    events,
    exit::Ending,
    folder::read_membership,
    net::{NetEvent, Network, Settings},
};
use heterotune_protocol::message::Context;
use libp2p::{Multiaddr, multiaddr::Protocol};
use serde_json::{Map, Value};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long the first peer has to say hello.
const PATIENCE: Duration = Duration::from_secs(15);

/// What peers say. A node that runs is asked what they have said to it; another one calls them, with its own key.
pub(super) async fn meet(patient: &Patient) -> (Vec<Finding>, Option<Ending>) {
    if patient.running.is_some() {
        return (told(patient), None);
    }
    let not_running = || Finding::skipped("dial-back", "is seen while the node runs: start it, and ask again");
    let call = call(patient);
    match timeout(PATIENCE, call).await {
        Ok((finding, ending)) => (vec![finding, not_running()], ending),
        Err(_) => {
            let cause = "nobody has said hello in time: those that answer may be no nodes, or take no more peers";
            (
                vec![
                    Finding::warning("peers", cause, "another `bootstrap` address, or try again later"),
                    not_running(),
                ],
                None,
            )
        }
    }
}

/// Calls the bootstrap addresses until one peer says yes or no.
async fn call(patient: &Patient) -> (Finding, Option<Ending>) {
    let (Some(charter), Some(identity), Some(bootstrap)) =
        (&patient.charter, &patient.identity, &patient.config.bootstrap)
    else {
        return (Finding::skipped("peers", "no charter, no key or no address of a peer"), None);
    };
    let open = || -> anyhow::Result<Network> {
        let settings = Settings {
            bootstrap: bootstrap.clone(),
            psk: patient.config.network()?.psk,
            membership: read_membership(&patient.state)?,
            ..Settings::default()
        };
        Network::new(identity, Arc::new(Context::new(charter.clone())?), settings)
    };
    let mut network = match open() {
        Ok(network) => network,
        Err(error) => return (Finding::error("peers", format!("{error:#}"), "mend the charter"), None),
    };
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        let event = tokio::select! {
            event = network.next() => event,
            _ = tick.tick() => {
                network.tick();
                continue;
            }
        };
        match event {
            NetEvent::Connected(node, address, _) => {
                let cause = format!("{} at {address} is in the same network", node.short());
                return (Finding::ok("peers", cause), None);
            }
            NetEvent::Misfit { peer, reason, .. } => {
                let mend = "take the network's charter and an invite from one of its members, and the same program";
                let finding = Finding::error("peers", format!("{peer} does not let this node in: {reason}"), mend);
                return (finding, Some(Ending::Refused { peer, reason }));
            }
            _ => {}
        }
    }
}

/// What a running node has seen.
fn told(patient: &Patient) -> Vec<Finding> {
    let events: Vec<_> = events::read(&patient.state).map(Iterator::collect).unwrap_or_default();
    let begun = events.iter().rposition(|event| is(event, "started")).unwrap_or(0);
    let run = events.get(begun..).unwrap_or_default();
    let peers = patient.running.as_ref().map_or(&[][..], |status| &status.peers);
    let mut findings = vec![match (peers.len(), run.iter().rfind(|event| is(event, "misfit"))) {
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
    }];
    let last = |kind: &str| run.iter().rfind(|event| is(event, kind));
    findings.push(match last("reachable").and_then(|event| event.get("address")?.as_str()) {
        Some(address) => Finding::ok("dial-back", format!("peers have called back at {address}")),
        None => Finding::skipped("dial-back", "no peer has called back yet"),
    });
    let listening = patient.running.as_ref().map_or(&[][..], |status| &status.listening);
    let circuit = |address: &&Multiaddr| address.iter().any(|protocol| protocol == Protocol::P2pCircuit);
    findings.push(match listening.iter().find(circuit) {
        Some(address) => Finding::ok("relay", format!("a place is reserved: {address}")),
        None => Finding::skipped("relay", "no place is reserved: none is needed, or no relay is known"),
    });
    findings
}

fn is(event: &Map<String, Value>, kind: &str) -> bool {
    event.get("event").and_then(Value::as_str) == Some(kind)
}
