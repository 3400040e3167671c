//! Checksums as the hub has them.

use sha2::{Digest as _, Sha256};

/// The checksum of a file whose bytes come one after the other.
pub(super) enum Hash {
    /// Of a large file: SHA-256 of its bytes.
    Large(Sha256),
    /// Of a file in git: SHA-1 of the blob, which is a header with the size and the bytes.
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
            Self::Blob(hash) => hex(&hash.finish()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-1 (FIPS 180-4). It is broken as a signature, but git names its blobs by it; here it finds damage.
pub(super) struct Sha1 {
    state: [u32; 5],
    /// What does not fill a block yet.
    rest: Vec<u8>,
    /// Bytes so far.
    length: u64,
}

impl Sha1 {
    const BLOCK: usize = 64;

    pub(super) fn new() -> Self {
        let state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
        Self { state, rest: Vec::new(), length: 0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.len() / Self::BLOCK * Self::BLOCK;
        for block in self.rest[..whole].chunks_exact(Self::BLOCK) {
            compress(&mut self.state, block);
        }
        self.rest.drain(..whole);
    }

    pub(super) fn finish(mut self) -> [u8; 20] {
        let bits = self.length * 8;
        // A one, zeros, and the length in the last eight bytes of a block.
        let zeros = (2 * Self::BLOCK - 9 - self.rest.len()) % Self::BLOCK;
        self.update(&[0x80]);
        self.update(&vec![0; zeros]);
        self.update(&bits.to_be_bytes());
        let mut digest = [0; 20];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }
}

fn compress(state: &mut [u32; 5], block: &[u8]) {
    let mut words = [0_u32; 80];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    for t in 16..80 {
        words[t] = (words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16]).rotate_left(1);
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for (t, word) in words.into_iter().enumerate() {
        let (f, k) = match t {
            0..20 => (b & c | !b & d, 0x5a82_7999),
            20..40 => (b ^ c ^ d, 0x6ed9_eba1),
            40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc_u32),
            _ => (b ^ c ^ d, 0xca62_c1d6),
        };
        let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(word);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
        *sum = sum.wrapping_add(value);
    }
}
