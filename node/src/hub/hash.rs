//! Checksums as the hub has them.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The checksum of a file whose bytes come one after the other.
pub(super) enum Hash {
    /// Of a large file: SHA-256 of its bytes.
    Large(Sha256),
    /// Of a file in git: SHA-1 of the blob, which is a header with the size and the bytes. Broken as a signature, it
    /// still finds damage.
    Blob(Sha1),
}

impl Hash {
    /// Whether a text looks like a checksum.
    pub(super) fn is_checksum(text: &str) -> bool {
        matches!(text.len(), 40 | 64) && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
    }

    /// Of the kind that `checksum` is, for a file of `size` bytes.
    pub(super) fn new(checksum: &str, size: u64) -> Self {
        if checksum.len() == 64 {
            return Self::Large(Sha256::new());
        }
        let mut hash = Sha1::new();
        hash.update(format!("blob {size}\0").as_bytes());
        Self::Blob(hash)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Large(hash) => hash.update(bytes),
            Self::Blob(hash) => hash.update(bytes),
        }
    }

    /// In hexadecimal digits.
    pub(super) fn finish(self) -> String {
        match self {
            Self::Large(hash) => hex(&hash.finalize()),
            Self::Blob(hash) => hex(&hash.finalize()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
