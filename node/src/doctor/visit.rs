//! A short visit to the network, with the node's own key and on its own ports: who lets it in, whose clock differs, whether
//! peers can call it back, and whether a relay helps where they cannot.

use super::{Finding, Patient, clock, settle};
use crate::{
    exit::Ending,
    folder::read_membership,
    net::{NetEvent, Network, Settings},
};
use heterotune_crypto::NodeId;
use heterotune_protocol::message::Context;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Interval, interval, timeout};

/// How long the first peer has to let this node in.
const MEETING: Duration = Duration::from_secs(5);

/// How long peers have to call back. They are asked every five seconds.
const CALLING: Duration = Duration::from_secs(6);

/// How long a relay has to reserve a place.
const RESERVING: Duration = Duration::from_secs(4);

/// How long the end of the connections is waited for.
const PARTING: Duration = Duration::from_secs(1);

/// How often the network does what is due.
const TICK: Duration = Duration::from_millis(250);

/// Calls the bootstrap addresses. `ports_free` says whether this node's own ports can be listened on.
pub(super) async fn visit(
    patient: &Patient,
    ports_free: bool,
    progress: &mut dyn FnMut(&str),
) -> (Vec<Finding>, Option<Ending>) {
    let given = patient.config.bootstrap.as_ref().filter(|given| !given.is_empty());
    let (Some(_), Some(_), Some(given)) = (&patient.charter, &patient.identity, given) else {
        return (vec![Finding::skipped("peers", "no charter, no key or no address of a peer")], None);
    };
    let mut visit = match Visit::begin(patient, ports_free) {
        Ok(visit) => visit,
        Err(error) => return (vec![Finding::error("peers", format!("{error:#}"), "mend that first")], None),
    };
    let outcome = visit.go(given.len(), ports_free, progress).await;
    // Those that do not answer any more are left as they are.
    let _ = timeout(PARTING, visit.network.depart()).await;
    outcome
}

/// A network of the moment, and what has been seen of it.
struct Visit {
    network: Network,
    listen: Vec<Multiaddr>,
    ticks: Interval,
    seen: Seen,
}

impl Visit {
    /// Nothing is written into the state folder: that is the node's.
    fn begin(patient: &Patient, ports_free: bool) -> anyhow::Result<Self> {
        let (Some(charter), Some(identity)) = (&patient.charter, &patient.identity) else {
            anyhow::bail!("there is no charter or no key");
        };
        let own = patient.config.network()?;
        let listen = if ports_free { own.listen } else { Vec::new() };
        let settings = Settings {
            listen: listen.clone(),
            bootstrap: own.bootstrap,
            upnp: own.upnp,
            call_back: true,
            psk: own.psk,
            membership: read_membership(&patient.state)?,
            ..Settings::default()
        };
        let mut network = Network::new(identity, Arc::new(Context::new(charter.clone())?), settings)?;
        own.external.iter().for_each(|address| network.ask_for_calls(address));
        Ok(Self { network, listen, ticks: interval(TICK), seen: Seen::default() })
    }

    /// Meets the peers, asks to be called back, and asks a relay where nobody could.
    async fn go(
        &mut self,
        addresses: usize,
        ports_free: bool,
        progress: &mut dyn FnMut(&str),
    ) -> (Vec<Finding>, Option<Ending>) {
        progress(&format!("calling {addresses} addresses of peers"));
        self.look(MEETING, |seen| !seen.met.is_empty() || seen.hopeless).await;
        if self.seen.met.is_empty() {
            let (finding, ending) = self.seen.nobody();
            return (vec![finding, Finding::skipped("dial-back", "there is no peer to call back")], ending);
        }
        if !ports_free {
            let mut findings = self.seen.peers();
            findings.push(Finding::skipped("dial-back", "this node's port is not free"));
            return (findings, None);
        }
        progress("asking them to call back");
        self.look(CALLING, |seen| seen.reached.is_some()).await;
        let relay_known = self.seen.reached.is_none() && self.network.seek_relay();
        if relay_known {
            progress("asking a relay for a place");
            self.look(RESERVING, |seen| seen.circuit.is_some()).await;
        }
        let mut findings = self.seen.peers();
        findings.extend(match &self.seen.reached {
            Some(address) => vec![
                Finding::ok("dial-back", format!("others reach this host at {address}")),
                Finding::skipped("relay", "none is needed"),
            ],
            None => {
                let missed = self.seen.missed.iter().map(ToString::to_string).collect();
                settle(missed, self.seen.circuit.as_ref(), relay_known, &self.listen)
            }
        });
        (findings, None)
    }

    /// Looks on until that is enough, or for so long.
    async fn look(&mut self, most: Duration, enough: impl Fn(&Seen) -> bool) {
        let look = async {
            while !enough(&self.seen) {
                tokio::select! {
                    event = self.network.next() => self.seen.take(event),
                    _ = self.ticks.tick() => self.network.tick(),
                }
            }
        };
        // What has not come by then is a finding too.
        let _ = timeout(most, look).await;
    }
}

/// What has been seen.
#[derive(Default)]
struct Seen {
    met: BTreeMap<NodeId, Multiaddr>,
    clocks: BTreeMap<NodeId, i64>,
    misfits: BTreeMap<PeerId, String>,
    /// Whether all who can be called have refused this node, or were refused.
    hopeless: bool,
    /// Where a peer has called back.
    reached: Option<Multiaddr>,
    /// Where peers have tried to.
    missed: BTreeSet<Multiaddr>,
    /// A place on a relay.
    circuit: Option<Multiaddr>,
}

impl Seen {
    fn take(&mut self, event: NetEvent) {
        match event {
            NetEvent::Connected(node, address, _) => drop(self.met.insert(node, address)),
            NetEvent::Clock(node, ahead) => drop(self.clocks.insert(node, ahead)),
            NetEvent::Misfit { peer, reason, hopeless } => {
                self.misfits.insert(peer, reason);
                self.hopeless |= hopeless;
            }
            NetEvent::CalledBack(address, true) => self.reached = Some(address),
            NetEvent::CalledBack(address, false) => drop(self.missed.insert(address)),
            NetEvent::Listening(address) if address.iter().any(|part| part == Protocol::P2pCircuit) => {
                self.circuit = Some(address);
            }
            _ => {}
        }
    }

    /// Who was met, and who does not fit.
    fn peers(&self) -> Vec<Finding> {
        let met = self.met.iter().map(|(node, address)| {
            Finding::ok("peers", format!("{} at {address} is in the same network", node.short()))
        });
        let misfits = self.misfits.iter().map(|(peer, reason)| {
            Finding::warning(
                "peers",
                format!("{peer} does not fit: {reason}"),
                "the same charter and program on all nodes",
            )
        });
        let clocks = self.clocks.iter().map(|(node, ahead)| clock(node, *ahead));
        met.chain(misfits).chain(clocks).collect()
    }

    /// Why nobody was met.
    fn nobody(&self) -> (Finding, Option<Ending>) {
        let Some((peer, reason)) = self.misfits.iter().next() else {
            let cause = "nobody has said hello in time: those that answer may be no nodes, or take no more peers";
            return (Finding::warning("peers", cause, "another `bootstrap` address, or try again later"), None);
        };
        let mend = "take the network's charter and an invite from one of its members, and the same program";
        let finding = Finding::error("peers", format!("{peer} does not let this node in: {reason}"), mend);
        (finding, Some(Ending::Refused { peer: *peer, reason: reason.clone() }))
    }
}
