//! Signed statements that keep the bytes that were signed.

use crate::{Digest, Identity, NodeId};

/// Why a statement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError {
    /// The signature is not the author's over these bytes in this context.
    #[error("the signature does not verify")]
    BadSignature,
}

/// A statement `T` by `author`, with the payload bytes as they were signed or as they arrived. They are never made
/// again from `T`: what is hashed, stored and sent on is what the author signed.
///
/// The signature covers `tag` (what kind of statement), `context` (where it belongs: protocol puts version, network,
/// genesis, round, author and sequence number there) and the payload's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    author: NodeId,
    value: T,
    payload: Vec<u8>,
    signature: [u8; 64],
}

fn message(tag: &str, context: &[u8], payload: &[u8]) -> [u8; 32] {
    let payload = Digest::of("heterotune 2026 signed payload", &[payload]);
    *Digest::of("heterotune 2026 signed statement", &[tag.as_bytes(), context, payload.as_bytes()]).as_bytes()
}

impl<T> Signed<T> {
    /// Signs `payload`, the bytes of `value`.
    pub fn sign(identity: &Identity, tag: &str, context: &[u8], value: T, payload: Vec<u8>) -> Self {
        let signature = identity.sign(&message(tag, context, &payload));
        Self { author: identity.id(), value, payload, signature }
    }

    /// Believes `payload` to be `author`'s if the signature verifies, and only then calls `decode` on it.
    ///
    /// # Errors
    /// [`SignedError::BadSignature`], or what `decode` says.
    pub fn verify<E: From<SignedError>>(
        author: NodeId,
        tag: &str,
        context: &[u8],
        payload: Vec<u8>,
        signature: [u8; 64],
        decode: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<Self, E> {
        if !author.verifies(&message(tag, context, &payload), &signature) {
            return Err(SignedError::BadSignature.into());
        }
        let value = decode(&payload)?;
        Ok(Self { author, value, payload, signature })
    }

    /// The same statement, its bytes read as something else.
    pub fn with<U>(self, value: U) -> Signed<U> {
        let Self { author, payload, signature, .. } = self;
        Signed { author, value, payload, signature }
    }

    /// Who signed.
    pub fn author(&self) -> NodeId {
        self.author
    }

    /// What was said.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The very bytes that were signed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signature.
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(author: NodeId, tag: &str, context: &[u8], payload: Vec<u8>, signature: [u8; 64]) -> bool {
        Signed::verify(author, tag, context, payload, signature, |_| Ok::<_, SignedError>(())).is_ok()
    }

    #[test]
    fn nothing_is_decoded_before_it_verifies() {
        let result = Signed::<()>::verify(Identity::from_seed(0, "a").id(), "t", b"", vec![1], [0; 64], |_| {
            panic!("decoded an unverified payload")
        });
        assert_eq!(result, Err(SignedError::BadSignature));
    }

    proptest! {
        #[test]
        fn changing_anything_breaks_it(payload in prop::collection::vec(any::<u8>(), 1..64), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let identity = Identity::from_seed(1, "a");
            let signed = Signed::sign(&identity, "tag", b"context", (), payload.clone());
            let (author, signature) = (signed.author(), *signed.signature());
            prop_assert!(check(author, "tag", b"context", payload.clone(), signature));
            prop_assert!(!check(author, "other", b"context", payload.clone(), signature));
            prop_assert!(!check(author, "tag", b"elsewhere", payload.clone(), signature));
            prop_assert!(!check(Identity::from_seed(2, "a").id(), "tag", b"context", payload.clone(), signature));
            let mut other = payload.clone();
            other[at.index(payload.len())] ^= 1 << bit;
            prop_assert!(!check(author, "tag", b"context", other, signature));
            let mut forged = signature;
            forged[at.index(64)] ^= 1 << bit;
            prop_assert!(!check(author, "tag", b"context", payload, forged));
        }
    }
}
