//! The network's edge: a libp2p swarm with two protocols of ours on it.
//!
//! - Gossip (`gossip`): one topic a network; what [`heterotune_protocol`] signs travels here.
//! - Requests (`behaviour`, `hello`): hellos (who are you, whom do you know) and pulls (what did I miss).
//!
//! [`Network`] turns swarm events into [`NetEvent`]s and knows nothing of rounds. [`Peers`] keeps the addresses.

mod behaviour;
mod gossip;
mod hello;
mod peers;
mod swarm;
mod traffic;

pub use gossip::topic;
pub use hello::differences;
pub use peers::{Peers, is_loopback};
pub use swarm::{NetEvent, Network};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_is_both_a_node_and_a_peer() {
        let identity = Identity::from_seed(1, "a");
        let peer = keypair(&identity).unwrap().public().to_peer_id();
        assert_eq!(peer_id(&identity.id()), Some(peer));
        assert_eq!(node_id(&peer), Some(identity.id()));
        assert!(node_id(&identity::Keypair::generate_ed25519().public().to_peer_id()).is_some());
    }
}
