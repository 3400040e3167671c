//! Whole networks in one process, on the loopback and in memory.

mod discovery;
mod entrance;

use super::*;
use heterotune_crypto::Identity;

#[test]
fn one_key_is_both_a_node_and_a_peer() {
    let identity = Identity::from_seed(1, "a");
    let peer = keypair(&identity).unwrap().public().to_peer_id();
    assert_eq!(peer_id(&identity.id()), Some(peer));
    assert_eq!(node_id(&peer), Some(identity.id()));
    assert!(node_id(&libp2p::identity::Keypair::generate_ed25519().public().to_peer_id()).is_some());
}
