//! How a node is reached, and how it reaches others.

use super::{Clock, address::is_loopback, files::unix_seconds};
use heterotune_protocol::admission::Membership;
use libp2p::{Multiaddr, pnet::PreSharedKey};
use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::PathBuf,
};

/// How a node is reached, and how it reaches others. The default listens nowhere, knows nobody and asks nobody.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses to listen on.
    pub listen: Vec<Multiaddr>,
    /// Addresses of ordinary nodes to begin with: IP addresses, `/dns4/..`, `/dns6/..` or `/dnsaddr/..`.
    pub bootstrap: Vec<Multiaddr>,
    /// Addresses at which others reach this node, as its owner knows: a forwarded port, a DNS name.
    pub external: Vec<Multiaddr>,
    /// Whether to carry circuits between nodes that cannot reach each other.
    pub relay: bool,
    /// Whether to look for peers in the local network by mDNS.
    pub mdns: bool,
    /// Whether to ask the local router for a port by UPnP.
    pub upnp: bool,
    /// Whether to ask peers to call back, which tells where others reach this node. Each address takes 30 to 100 kB, so
    /// that nobody has others call strangers at no cost.
    pub call_back: bool,
    /// A key without which nobody can even begin a connection. TCP only.
    pub psk: Option<PreSharedKey>,
    /// Connections at most, to all peers.
    pub connections_max: u32,
    /// What lets this node in where the charter does not name it.
    pub membership: Option<Membership>,
    /// Where addresses, bans and revocations are kept; nowhere if there is none.
    pub folder: Option<PathBuf>,
    /// The clock that greetings tell, and by which memberships expire.
    pub clock: Clock,
}

/// Connections at most: eight times as many peers as a node looks for by itself, as bootstrap nodes are looked for by
/// all. Each costs some 100 KiB of buffers.
pub const CONNECTIONS_MAX: u32 = 256;

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            bootstrap: Vec::new(),
            external: Vec::new(),
            relay: false,
            mdns: false,
            upnp: false,
            call_back: false,
            psk: None,
            connections_max: CONNECTIONS_MAX,
            membership: None,
            folder: None,
            clock: unix_seconds,
        }
    }
}

impl Settings {
    /// Whether the node listens to other machines.
    pub(super) fn is_public(&self) -> bool {
        self.listen.iter().any(|address| !is_loopback(address))
    }
}

/// Tries for a port number that is free for both TCP and UDP.
const PORT_TRIES: usize = 64;

/// Where a node listens that was not told: on all interfaces, by TCP and QUIC on one port number, which is all that a
/// firewall or a router needs to be told. With a pre-shared key by TCP alone.
pub fn default_listen(private: bool) -> Vec<Multiaddr> {
    let port = (0..PORT_TRIES).find_map(|_| free_port()).unwrap_or(0);
    let mut addresses = vec![format!("/ip4/0.0.0.0/tcp/{port}")];
    if !private {
        addresses.push(format!("/ip4/0.0.0.0/udp/{port}/quic-v1"));
    }
    addresses.iter().filter_map(|address| address.parse().ok()).collect()
}

/// A port number that nobody has with either protocol: TCP's choice, if UDP has it too.
pub(super) fn free_port() -> Option<u16> {
    let chosen = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    let port = chosen.local_addr().ok()?.port();
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).ok().map(|_| port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_and_quic_listen_on_one_port_number() {
        let [tcp, quic] = <[Multiaddr; 2]>::try_from(default_listen(false)).unwrap();
        let port = tcp.to_string().rsplit('/').next().unwrap().to_owned();
        assert_ne!(port, "0");
        assert_eq!(quic.to_string(), format!("/ip4/0.0.0.0/udp/{port}/quic-v1"));
        assert_eq!(default_listen(true).len(), 1);
        let settings = |listen: &str| Settings { listen: vec![listen.parse().unwrap()], ..Settings::default() };
        assert!(settings("/ip4/0.0.0.0/tcp/1").is_public() && !settings("/ip4/127.0.0.1/tcp/1").is_public());
        assert!(!Settings::default().is_public());
    }
}
