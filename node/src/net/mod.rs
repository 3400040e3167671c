//! The network's edge: a libp2p swarm, and who gets to it.
//!
//! - Who comes in: every connection, direct or relayed, goes through the [gate](GateError) before any protocol gets a byte;
//!   the [`Doorkeeper`] knows the charter, memberships, revocations and [bans](Ban).
//! - How peers are found: addresses that were given, mDNS, Kademlia, what peers tell each other, and what an earlier life
//!   has left in the address book ([`Peers`]).
//! - How they are reached: TCP and QUIC, through a router (UPnP), a relay, or a hole in a NAT.
//! - What they say: gossip, one topic a network, which carries what [`heterotune_protocol`] signs; and requests, hellos and
//!   pulls.
//!
//! [`Network`] turns swarm events into [`NetEvent`]s and knows nothing of rounds.

mod address;
mod bans;
mod behaviour;
mod clock;
mod differences;
mod door;
mod event;
mod files;
mod gate;
mod gossip;
mod links;
mod meeting;
mod peers;
mod per_ip;
mod reach;
mod requests;
mod revoked;
mod settings;
mod swarm;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod told;
mod traffic;
mod transport;

pub use address::is_loopback;
pub use bans::{Ban, Bans};
pub use clock::{Clock, difference, is_off};
pub use differences::differences;
pub use door::{Doorkeeper, Misfit};
pub use event::NetEvent;
pub use gate::{GateError, Refusal};
pub use gossip::topic;
pub use links::Path;
pub use peers::{Dial, Peers};
pub use per_ip::Crowded;
pub use revoked::Revoked;
pub use settings::{CONNECTIONS_MAX, Settings, default_listen};
pub use swarm::Network;
pub use traffic::Traffic;

use heterotune_crypto::{Identity, NodeId};
use libp2p::{PeerId, identity};

/// The libp2p key pair of an identity: the same 32 secret bytes.
///
/// # Errors
/// None in practice: every 32 bytes are an ed25519 secret.
pub fn keypair(identity: &Identity) -> Result<identity::Keypair, identity::DecodingError> {
    identity::Keypair::ed25519_from_bytes(identity.secret())
}

/// The peer id of a node.
pub fn peer_id(node: &NodeId) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(node.as_bytes()).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The node of a peer id: an ed25519 peer id holds the whole key.
pub fn node_id(peer: &PeerId) -> Option<NodeId> {
    let bytes = peer.to_bytes();
    // An identity multihash: code 0, length, then the key in libp2p's protobuf envelope.
    let envelope = bytes.strip_prefix(&[0x00, 0x24])?;
    let key = identity::PublicKey::try_decode_protobuf(envelope).ok()?.try_into_ed25519().ok()?;
    Some(NodeId::from_bytes(key.to_bytes()))
}
