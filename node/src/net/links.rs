//! Connections by peer: which of them are relayed, and which are too many.

use super::address::{is_local, is_relayed};
use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, swarm::ConnectionId};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Connections of one peer at a time: one through a relay, the direct one that replaces it, one more while both sides
/// dial, and those on which AutoNAT tries whether this node can be reached.
pub(super) const PER_PEER_MAX: u32 = 6;

/// How long a connection beside a better one is left: streams under way end, and AutoNAT has its answer.
const SURPLUS_AFTER: Duration = Duration::from_secs(30);

/// How two nodes are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// From one to the other.
    Direct,
    /// Through a third node, which both could reach.
    Relayed,
}

/// A connection.
#[derive(Clone, Debug)]
struct Link {
    id: ConnectionId,
    address: Multiaddr,
    since: Instant,
}

impl Link {
    fn path(&self) -> Path {
        if is_relayed(&self.address) { Path::Relayed } else { Path::Direct }
    }
}

/// What a new connection changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The peer was not connected.
    Met,
    /// The peer was connected through relays only.
    Upgraded,
    /// Nothing.
    None,
}

/// All connections, by peer.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<PeerId, Vec<Link>>);

impl Links {
    /// Notes a connection.
    pub(super) fn opened(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) -> Change {
        // A listener has the circuit in its own address.
        let address = match endpoint {
            ConnectedPoint::Listener { local_addr, .. } if is_relayed(local_addr) => local_addr,
            endpoint => endpoint.get_remote_address(),
        };
        let link = Link { id, address: address.clone(), since: Instant::now() };
        let before = self.path(&peer);
        let path = link.path();
        self.0.entry(peer).or_default().push(link);
        match (before, path) {
            (None, _) => Change::Met,
            (Some(Path::Relayed), Path::Direct) => Change::Upgraded,
            _ => Change::None,
        }
    }

    /// Notes the end of one. Whether it was the peer's last.
    pub(super) fn closed(&mut self, peer: &PeerId, id: ConnectionId) -> bool {
        let Some(links) = self.0.get_mut(peer) else { return false };
        links.retain(|link| link.id != id);
        links.is_empty() && self.0.remove(peer).is_some()
    }

    /// Whether a peer is connected.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.0.contains_key(peer)
    }

    /// How many peers are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Connected peers.
    pub(super) fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.0.keys()
    }

    /// How a peer is connected, at best.
    pub(super) fn path(&self, peer: &PeerId) -> Option<Path> {
        let links = self.0.get(peer)?;
        Some(if links.iter().any(|link| link.path() == Path::Direct) { Path::Direct } else { Path::Relayed })
    }

    /// The address on the other side of a peer's best connection.
    pub(super) fn address(&self, peer: &PeerId) -> Option<&Multiaddr> {
        Some(&best(self.0.get(peer)?)?.address)
    }

    /// Whether all connections stay on this machine or its local network.
    pub(super) fn are_local(&self) -> bool {
        self.0.values().flatten().all(|link| is_local(&link.address))
    }

    /// Connections beside a better one of the same peer that it is time to close. Of two peers only the lower does, so
    /// that they do not close each other's best.
    pub(super) fn surplus(&self, own: &PeerId, now: Instant) -> Vec<ConnectionId> {
        let mine = self.0.iter().filter(|(peer, _)| own < *peer).map(|(_, links)| links);
        let others = mine.flat_map(|links| {
            let best = best(links).map(|link| link.id);
            links.iter().filter(move |link| Some(link.id) != best)
        });
        others.filter(|link| now.saturating_duration_since(link.since) >= SURPLUS_AFTER).map(|link| link.id).collect()
    }
}

/// Direct before relayed, older before newer.
fn best(links: &[Link]) -> Option<&Link> {
    links.iter().min_by_key(|link| (link.path() == Path::Relayed, link.since, link.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(local: &str) -> ConnectedPoint {
        let send_back_addr = "/ip4/203.0.113.7/tcp/9".parse().unwrap();
        ConnectedPoint::Listener { local_addr: local.parse().unwrap(), send_back_addr }
    }

    #[test]
    fn a_peer_is_met_relayed_upgraded_and_what_is_left_over_closed() {
        let (mut links, id) = (Links::default(), ConnectionId::new_unchecked);
        let mut ids: Vec<_> = (0..3).map(|_| PeerId::random()).collect();
        ids.sort_unstable();
        let [low, own, high]: [PeerId; 3] = ids.try_into().unwrap();
        let circuit = format!("/ip4/203.0.113.1/tcp/9/p2p/{low}/p2p-circuit");
        assert_eq!(links.opened(high, id(1), &listener(&circuit)), Change::Met);
        assert_eq!((links.path(&high), links.are_local()), (Some(Path::Relayed), false));
        assert_eq!(links.opened(high, id(2), &listener("/ip4/203.0.113.9/tcp/9")), Change::Upgraded);
        assert_eq!(links.opened(high, id(3), &listener("/ip4/203.0.113.9/tcp/9")), Change::None);
        assert_eq!(links.address(&high), Some(&"/ip4/203.0.113.7/tcp/9".parse().unwrap()));
        let (now, later) = (Instant::now(), Instant::now() + SURPLUS_AFTER);
        assert!(links.surplus(&own, now).is_empty(), "streams on them may end first");
        assert_eq!(links.surplus(&own, later), [id(1), id(3)]);
        [1, 3].into_iter().for_each(|number| assert!(!links.closed(&high, id(number))));
        assert!(links.surplus(&own, later).is_empty());
        assert!(links.closed(&high, id(2)) && !links.contains(&high) && !links.closed(&high, id(2)));
        links.opened(low, id(4), &listener("/ip4/203.0.113.9/tcp/9"));
        links.opened(low, id(5), &listener("/ip4/203.0.113.9/tcp/9"));
        assert!(links.surplus(&own, later).is_empty(), "the other side closes them");
    }
}
