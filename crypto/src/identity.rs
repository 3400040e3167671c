//! Node identities: ed25519 keys.

use crate::Digest;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// Who a node is: its ed25519 public key. Its libp2p PeerId is derived from the same key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) [u8; 32]);

crate::hex::text_and_serde!(NodeId);

impl NodeId {
    /// Below all others in order, and nobody's.
    pub const LOWEST: Self = Self([0; 32]);
    /// Above all others in order, and nobody's.
    pub const HIGHEST: Self = Self([0xff; 32]);

    /// Whether `signature` is this node's over `message`. Strict: no malleable signatures, no small-order keys
    /// (`verify_strict` of ed25519-dalek), so that one message has one valid signature per signer's choice of nonce
    /// and no key signs for everything.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }

    /// Whether the bytes are a point that a signature could verify against.
    pub fn is_valid(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| !key.is_weak())
    }
}

/// A node's secret key. Wiped from memory when dropped; its `Debug` shows the public half only.
#[derive(Clone)]
pub struct Identity(SigningKey);

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.id().short())
    }
}

impl Identity {
    /// The identity with these 32 secret bytes.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&secret))
    }

    /// A repeatable identity for local experiments: anyone who knows `seed` and `name` has the key.
    pub fn from_seed(seed: u64, name: &str) -> Self {
        let digest = Digest::of("heterotune 2026 scenario identity", &[&seed.to_le_bytes(), name.as_bytes()]);
        Self::from_secret(digest.0)
    }

    /// The 32 secret bytes, for the key file and the libp2p key pair.
    pub fn secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_8032_test_1() {
        // RFC 8032, section 7.1, TEST 1: the empty message.
        let secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let identity = Identity::from_secret(crate::hex::parse(secret).unwrap());
        assert_eq!(identity.id().to_string(), public);
        let signature = identity.sign(b"");
        assert_eq!(signature[..4], [0xe5, 0x56, 0x43, 0x00]);
        assert!(identity.id().verifies(b"", &signature));
        assert!(!identity.id().verifies(b"x", &signature));
    }

    #[test]
    fn seeds_and_names_make_different_identities() {
        let id = Identity::from_seed(1, "a").id();
        assert_eq!(id, Identity::from_seed(1, "a").id());
        assert_ne!(id, Identity::from_seed(2, "a").id());
        assert_ne!(id, Identity::from_seed(1, "b").id());
    }

    #[test]
    fn weak_keys_verify_nothing() {
        assert!(!NodeId([0; 32]).is_valid());
        assert!(!NodeId([0; 32]).verifies(b"", &[0; 64]));
    }
}
