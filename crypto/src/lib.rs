//! Who said it: the identities, digests and signed statements of a HeteroTune network.
//!
//! - [`Digest`] is a BLAKE3 hash under a domain string; [`NodeId`] is a public key.
//! - [`Identity`] is a node's ed25519 key; the same 32 secret bytes make its libp2p key pair.
//! - [`Signed`] is a statement together with the very bytes that were signed.
//!
//! What never comes in: files, sockets, clocks, rounds. What a statement means is `protocol`'s business; here it
//! is a domain tag, opaque context bytes and opaque payload bytes.

mod digest;
mod hex;
mod identity;
mod signed;

pub use digest::{Digest, Hasher};
pub use hex::HexError;
pub use identity::{Identity, NodeId};
pub use signed::{Signed, SignedError};
