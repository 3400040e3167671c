//! How others reach a node that they cannot dial: through relays. And what follows for Kademlia.

use super::{NetEvent, Network, address::is_relayed};
use libp2p::{
    Multiaddr, PeerId, autonat,
    core::transport::ListenerId,
    kad,
    multiaddr::Protocol,
    swarm::{FromSwarm, NetworkBehaviour, NewExternalAddrCandidate},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Relays on which a node that cannot be dialled reserves a place: one, and another for when that goes.
const RESERVATIONS_MAX: usize = 2;

/// Relays remembered.
const RELAYS_MAX: usize = 16;

/// The pause after a reservation was asked for or lost.
const PAUSE: Duration = Duration::from_secs(10);

/// How long a node waits for word that others reach it. Where a router drops what it does not expect, a test ends in
/// silence, which AutoNAT does not tell of.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is known of how this node can be reached.
#[derive(Debug)]
pub(super) struct Reach {
    /// Whether the node listens nowhere, so that there is nothing to test.
    silent: bool,
    /// When the node started.
    since: Instant,
    /// Whether AutoNAT has tried one of its addresses in vain, and none with success since.
    unreachable: bool,
    relays: BTreeMap<PeerId, Multiaddr>,
    reservations: BTreeMap<PeerId, ListenerId>,
    next: Option<Instant>,
    /// Whether Kademlia was told to answer questions.
    serves: bool,
}

impl Reach {
    pub(super) fn new(silent: bool) -> Self {
        let (relays, reservations) = (BTreeMap::new(), BTreeMap::new());
        Self { silent, since: Instant::now(), unreachable: false, relays, reservations, next: None, serves: false }
    }

    /// Notes that a connected peer is a relay, dialled at this address.
    pub(super) fn found(&mut self, peer: PeerId, address: Multiaddr) {
        if self.relays.len() < RELAYS_MAX || self.relays.contains_key(&peer) {
            self.relays.insert(peer, address);
        }
    }

    /// Notes the end of a listener: a reservation has run out, or its relay has gone.
    pub(super) fn closed(&mut self, listener: ListenerId) {
        self.reservations.retain(|_, reserved| *reserved != listener);
    }
}

impl Network {
    /// Has peers call back at an address, beside those at which they see this node.
    pub fn ask_for_calls(&mut self, address: &Multiaddr) {
        let candidate = NewExternalAddrCandidate { addr: address };
        self.swarm.behaviour_mut().reachable.on_swarm_event(FromSwarm::NewExternalAddrCandidate(candidate));
    }

    /// Reserves a place on a relay, without waiting for word that nobody reaches this node. Whether a relay is known.
    pub fn seek_relay(&mut self) -> bool {
        self.reach.unreachable = true;
        self.look_after_relays(Instant::now());
        !self.reach.relays.is_empty()
    }

    pub(super) fn on_called_back(&mut self, event: autonat::v2::client::Event) {
        let reached = event.result.is_ok();
        self.reach.unreachable = !reached;
        self.events.push_back(NetEvent::CalledBack(event.tested_addr, reached));
    }

    /// Reserves places on relays while nobody can dial this node, and gives them back when somebody can.
    pub(super) fn look_after_relays(&mut self, now: Instant) {
        let links = &self.links;
        self.reach.relays.retain(|peer, _| links.contains(peer));
        if self.swarm.external_addresses().any(|address| !is_relayed(address)) {
            while let Some((_, listener)) = self.reach.reservations.pop_first() {
                self.swarm.remove_listener(listener);
            }
            return;
        }
        let unheard = now.saturating_duration_since(self.reach.since) > PATIENCE;
        let needed = self.reach.silent || self.reach.unreachable || unheard;
        if !needed || self.reach.next.is_some_and(|next| now < next) {
            return;
        }
        let room = RESERVATIONS_MAX.saturating_sub(self.reach.reservations.len());
        let unused = self.reach.relays.iter().filter(|(peer, _)| !self.reach.reservations.contains_key(peer));
        let chosen: Vec<_> = unused.take(room).map(|(peer, address)| (*peer, address.clone())).collect();
        for (relay, address) in chosen {
            self.reach.next = Some(now + PAUSE);
            let Ok(address) = address.with_p2p(relay) else { continue };
            if let Ok(listener) = self.swarm.listen_on(address.with(Protocol::P2pCircuit)) {
                self.reach.reservations.insert(relay, listener);
            }
        }
    }

    /// A node answers Kademlia's questions where all its peers are near, and so can dial it; elsewhere libp2p decides, by
    /// whether others have reached it.
    pub(super) fn choose_kad_mode(&mut self) {
        let near = !self.reach.silent && self.links.are_local();
        if near != self.reach.serves {
            self.reach.serves = near;
            self.swarm.behaviour_mut().kad.set_mode(near.then_some(kad::Mode::Server));
        }
    }
}
