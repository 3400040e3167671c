//! The address book: where members may be reached, who is connected, and when to try again.

use super::node_id;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Addresses remembered of one member: TCP and QUIC, on two interfaces.
const ADDRESSES_MAX: usize = 4;

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The peers of a node.
pub struct Peers {
    /// Members but this node, and their addresses, each ending in `/p2p/..`.
    members: BTreeMap<PeerId, BTreeSet<Multiaddr>>,
    /// Addresses given by the user; whoever answers there.
    given: Vec<Multiaddr>,
    connected: BTreeMap<PeerId, usize>,
    /// Members that have been in this network since the start.
    welcome: BTreeSet<PeerId>,
    retry_at: Instant,
    retry_after: Duration,
}

impl Peers {
    /// The members of a network and the addresses that the user gave.
    pub fn new(members: impl IntoIterator<Item = PeerId>, given: Vec<Multiaddr>) -> Self {
        let members = members.into_iter().map(|member| (member, BTreeSet::new())).collect();
        Self {
            members,
            given,
            connected: BTreeMap::new(),
            welcome: BTreeSet::new(),
            retry_at: Instant::now(),
            retry_after: RETRY_MIN,
        }
    }

    /// Whether a peer is a member.
    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.members.contains_key(peer)
    }

    /// Remembers a member's address. Whether it is new, and the member not connected.
    pub fn learn(&mut self, peer: &PeerId, address: Multiaddr) -> bool {
        let connected = self.connected.contains_key(peer);
        let Some(addresses) = self.members.get_mut(peer) else { return false };
        let Ok(address) = address.with_p2p(*peer) else { return false };
        addresses.len() < ADDRESSES_MAX && addresses.insert(address) && !connected
    }

    /// Forgets an address where nobody answers, to make room for one where somebody does.
    pub fn forget(&mut self, address: &Multiaddr) {
        for addresses in self.members.values_mut() {
            addresses.remove(address);
        }
    }

    /// Notes that a member is in the same network.
    pub fn welcomed(&mut self, peer: &PeerId) {
        self.welcome.insert(*peer);
    }

    /// Whether a member has been in the same network since this node's start.
    pub fn was_welcome(&self, peer: &PeerId) -> bool {
        self.welcome.contains(peer)
    }

    /// Notes a connection. Whether it is the first to that peer.
    pub fn connected(&mut self, peer: PeerId) -> bool {
        self.retry_after = RETRY_MIN;
        let connections = self.connected.entry(peer).or_default();
        *connections += 1;
        *connections == 1
    }

    /// Notes the end of one. Whether it was the last.
    pub fn disconnected(&mut self, peer: &PeerId, left: u32) -> bool {
        self.retry_after = RETRY_MIN;
        self.retry_at = self.retry_at.min(Instant::now() + RETRY_MIN);
        if left > 0 {
            return false;
        }
        self.connected.remove(peer).is_some()
    }

    /// Connected members.
    pub fn connected_members(&self) -> impl Iterator<Item = &PeerId> {
        self.connected.keys().filter(|peer| self.members.contains_key(peer))
    }

    /// Members that are not connected.
    pub fn absent(&self) -> impl Iterator<Item = (&PeerId, &BTreeSet<Multiaddr>)> {
        self.members.iter().filter(|(peer, _)| !self.connected.contains_key(peer))
    }

    /// Addresses of connected members, to tell others.
    pub fn known_addresses(&self) -> impl Iterator<Item = &Multiaddr> {
        self.connected_members().filter_map(|peer| self.members.get(peer)).flatten()
    }

    /// If it is time to try again: the user's addresses that nobody connected is known to be at, and whom to ask for
    /// more. The pauses double while nothing changes.
    pub fn retry(&mut self, now: Instant) -> Option<Vec<Multiaddr>> {
        if now < self.retry_at || self.absent().next().is_none() {
            return None;
        }
        self.retry_at = now + self.retry_after;
        self.retry_after = (2 * self.retry_after).min(RETRY_MAX);
        let known: BTreeSet<_> = self.known_addresses().map(without_peer).collect();
        let mut addresses: Vec<_> =
            self.given.iter().filter(|given| !known.contains(&without_peer(given))).cloned().collect();
        addresses.extend(self.absent().flat_map(|(_, addresses)| addresses.iter().cloned()));
        Some(addresses)
    }

    /// Whether the user gave this address.
    pub fn is_given(&self, address: &Multiaddr) -> bool {
        self.given.iter().any(|given| without_peer(given) == without_peer(address))
    }
}

fn without_peer(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|protocol| !matches!(protocol, Protocol::P2p(_))).collect()
}

/// The member that an address names at its end.
pub(super) fn named_peer(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) if node_id(&peer).is_some() => Some(peer),
        _ => None,
    }
}

/// Whether an address is on this machine.
pub fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_crypto::Identity;

    fn peer(name: &str) -> PeerId {
        super::super::peer_id(&Identity::from_seed(1, name).id()).unwrap()
    }

    #[test]
    fn only_members_are_remembered_and_only_some_addresses() {
        let (member, stranger) = (peer("member"), peer("stranger"));
        let mut peers = Peers::new([member], vec![]);
        let address = |port: u16| format!("/ip4/10.0.0.1/tcp/{port}").parse::<Multiaddr>().unwrap();
        assert!(!peers.learn(&stranger, address(1)));
        assert!(peers.learn(&member, address(1)));
        assert!(!peers.learn(&member, address(1)));
        assert!(!peers.learn(&member, address(2).with(Protocol::P2p(stranger))));
        for port in 2..99 {
            peers.learn(&member, address(port));
        }
        assert_eq!(peers.absent().next().unwrap().1.len(), ADDRESSES_MAX);
    }

    #[test]
    fn who_is_absent_is_dialled_again_in_growing_pauses() {
        let given: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let mut peers = Peers::new([peer("a")], vec![given.clone()]);
        let now = Instant::now() + Duration::from_millis(1);
        assert_eq!(peers.retry(now), Some(vec![given]));
        assert_eq!(peers.retry(now), None);
        assert!(peers.retry(now + Duration::from_secs(1)).is_some());
        assert!(peers.retry(now + Duration::from_secs(2)).is_none());
        peers.connected(peer("a"));
        assert!(peers.retry(now + Duration::from_secs(9)).is_none());
        assert!(is_loopback(&"/ip4/127.0.0.1/tcp/1".parse().unwrap()));
        assert!(!is_loopback(&"/ip4/10.0.0.1/tcp/1".parse().unwrap()));
    }
}
