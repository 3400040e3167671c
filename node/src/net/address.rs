//! What can be told from an address alone.

use super::node_id;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use std::net::IpAddr;

/// Whether an address is on this machine.
pub fn is_loopback(address: &Multiaddr) -> bool {
    ip(address).is_some_and(|ip| ip.is_loopback())
}

/// Whether an address is on this machine or its local network.
pub(super) fn is_local(address: &Multiaddr) -> bool {
    !is_relayed(address)
        && ip(address).is_some_and(|ip| match ip {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        })
}

/// Whether an address leads through a relay.
pub(super) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Whether an address that was told over a connection to `via` can be of use here: another machine's loopback is not,
/// and nobody is at an unspecified address.
pub(super) fn is_useful(address: &Multiaddr, via: &Multiaddr) -> bool {
    !ip(address).is_some_and(|ip| ip.is_unspecified()) && (!is_loopback(address) || is_loopback(via))
}

/// An address without the peer at its end.
pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    address
}

/// The node that an address names at its end.
pub(super) fn named_peer(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) if node_id(&peer).is_some() => Some(peer),
        _ => None,
    }
}

/// The IP address that an address begins with.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        let relay = PeerId::random();
        let of = |text: &str| text.replace("RELAY", &relay.to_string()).parse::<Multiaddr>().unwrap();
        let (loopback, private, public) =
            (of("/ip4/127.0.0.1/tcp/1"), of("/ip4/10.0.0.1/udp/1/quic-v1"), of("/ip6/2001:db8::1/tcp/1"));
        assert!(is_loopback(&loopback) && !is_loopback(&private) && is_loopback(&of("/ip6/::1/tcp/1")));
        assert!(is_local(&loopback) && is_local(&private) && !is_local(&public));
        assert!(!is_local(&of("/dns4/node.example.org/tcp/1")));
        let circuit = of("/ip4/10.0.0.1/tcp/1/p2p/RELAY/p2p-circuit");
        assert!(is_relayed(&circuit) && !is_local(&circuit) && !is_relayed(&private));
        assert!(is_useful(&loopback, &loopback) && !is_useful(&loopback, &private) && is_useful(&private, &loopback));
        assert!(!is_useful(&of("/ip4/0.0.0.0/tcp/1"), &loopback));
        assert_eq!(without_peer(&of("/ip4/10.0.0.1/tcp/1/p2p/RELAY")), of("/ip4/10.0.0.1/tcp/1"));
        assert_eq!(without_peer(&circuit), circuit);
    }
}
