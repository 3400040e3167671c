//! Bytes that are too many for one message: announced by a manifest, and fetched in pieces that each verify.
//!
//! A manifest is a tree of digests (Merkle 1979) of depth one, so a piece is checked by itself, whoever gives it.

use crate::limits;
use heterotune_crypto::Digest;
use serde::{Deserialize, Serialize};

/// What bytes are made of: all pieces are [`limits::PIECE_BYTES`] long, but for the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// How many bytes there are.
    pub length: u64,
    /// The pieces' digests, in order.
    pub pieces: Vec<Digest>,
}

/// A manifest that no bytes can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsound manifest: {pieces} pieces of {length} bytes, where {least} to {most} may be")]
pub struct ManifestError {
    /// The pieces it names.
    pub pieces: usize,
    /// The bytes it claims.
    pub length: u64,
    /// How few there may be.
    pub least: usize,
    /// How many there may be.
    pub most: usize,
}

impl Manifest {
    /// The manifest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let pieces = bytes.chunks(limits::PIECE_BYTES).map(piece_digest).collect();
        Self { length: bytes.len() as u64, pieces }
    }

    /// What bytes with this manifest are known by.
    pub fn digest(&self) -> Digest {
        let pieces: Vec<u8> = self.pieces.iter().flat_map(|piece| *piece.as_bytes()).collect();
        Digest::of("heterotune 2026 manifest", &[&self.length.to_le_bytes(), &pieces])
    }

    /// Whether bytes of this manifest can be, and are `least` to `most`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, least: usize, most: usize) -> Result<(), ManifestError> {
        let (length, pieces) = (self.length, self.pieces.len());
        let sound = (least as u64..=most as u64).contains(&length)
            && pieces as u64 == length.div_ceil(limits::PIECE_BYTES as u64);
        if sound { Ok(()) } else { Err(ManifestError { pieces, length, least, most }) }
    }

    /// Whether these are the bytes of the piece with this number.
    pub fn is_piece(&self, piece: u32, bytes: &[u8]) -> bool {
        self.pieces.get(piece as usize).is_some_and(|digest| *digest == piece_digest(bytes))
    }
}

fn piece_digest(bytes: &[u8]) -> Digest {
    Digest::of("heterotune 2026 piece", &[bytes])
}

/// Bytes and their manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    manifest: Manifest,
    digest: Digest,
    bytes: Vec<u8>,
}

impl Blob {
    /// Cuts bytes into pieces.
    pub fn new(bytes: Vec<u8>) -> Self {
        let manifest = Manifest::of(&bytes);
        Self { digest: manifest.digest(), manifest, bytes }
    }

    /// What it is made of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The piece with this number, if there is one.
    pub fn piece(&self, piece: u32) -> Option<&[u8]> {
        self.bytes.chunks(limits::PIECE_BYTES).nth(piece as usize)
    }
}

/// Which pieces of a blob somebody holds: a bit for each, the lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces(Vec<u8>);

impl Pieces {
    /// All of so many.
    pub fn all(count: usize) -> Self {
        (0..count as u32).collect()
    }

    /// From the wire; more bytes than any blob has bits for are none.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(if bytes.len() <= limits::PIECES_MAX.div_ceil(8) { bytes.to_vec() } else { Vec::new() })
    }

    /// For the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this one is among them.
    pub fn has(&self, piece: u32) -> bool {
        self.0.get(piece as usize / 8).is_some_and(|byte| byte >> (piece % 8) & 1 == 1)
    }
}

impl FromIterator<u32> for Pieces {
    fn from_iter<I: IntoIterator<Item = u32>>(pieces: I) -> Self {
        let mut bytes = Vec::new();
        for piece in pieces.into_iter().filter(|piece| (*piece as usize) < limits::PIECES_MAX) {
            let at = piece as usize / 8;
            if bytes.len() <= at {
                bytes.resize(at + 1, 0u8);
            }
            bytes[at] |= 1 << (piece % 8);
        }
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn pieces_make_the_whole_and_verify_alone() {
        for length in
            [1, limits::PIECE_BYTES - 1, limits::PIECE_BYTES, limits::PIECE_BYTES + 1, 3 * limits::PIECE_BYTES]
        {
            let blob = Blob::new(bytes(length));
            let manifest = blob.manifest();
            manifest.check(1, length).unwrap();
            let pieces: Vec<_> = (0..).map_while(|piece| blob.piece(piece)).collect();
            assert_eq!((pieces.concat(), pieces.len()), (bytes(length), manifest.pieces.len()));
            for (number, piece) in (0..).zip(&pieces) {
                assert!(manifest.is_piece(number, piece));
                let mut other = piece.to_vec();
                other[0] ^= 1;
                assert!(!manifest.is_piece(number, &other) && !manifest.is_piece(number + 1, &other));
                assert!(!manifest.is_piece(number, &piece[1..]));
            }
            assert_eq!(blob.digest(), manifest.digest());
        }
    }

    #[test]
    fn manifests_that_nothing_has_are_refused() {
        let manifest = Manifest::of(&bytes(2 * limits::PIECE_BYTES));
        let length = 2 * limits::PIECE_BYTES;
        manifest.check(length, length).unwrap();
        assert!(manifest.check(length + 1, 2 * length).is_err() && manifest.check(0, length - 1).is_err());
        for length in [0, length as u64 + 1, u64::MAX] {
            let other = Manifest { length, ..manifest.clone() };
            assert!(other.check(0, usize::MAX).is_err(), "{length}");
            assert_ne!(other.digest(), manifest.digest());
        }
    }

    proptest! {
        #[test]
        fn bits_say_what_is_held(pieces in prop::collection::btree_set(0..limits::PIECES_MAX as u32, 0..40)) {
            let held: Pieces = pieces.iter().copied().collect();
            let read = Pieces::from_bytes(held.as_bytes());
            prop_assert!((0..limits::PIECES_MAX as u32 + 9).all(|piece| read.has(piece) == pieces.contains(&piece)));
        }
    }
}
