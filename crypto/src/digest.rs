//! BLAKE3 digests, each under a domain string, so that no two kinds of thing ever share a hash.

/// A 32-byte BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub(crate) [u8; 32]);

crate::hex::text_and_serde!(Digest);

impl Digest {
    /// All zero bytes: "nothing yet", never the digest of anything.
    pub const ZERO: Digest = Digest([0; 32]);

    /// The digest of `parts` under `domain`. Each part is preceded by its length, so that moving a byte from one
    /// part to the next changes the digest.
    pub fn of(domain: &str, parts: &[&[u8]]) -> Digest {
        let mut hasher = Hasher::new(domain);
        parts.iter().for_each(|part| hasher.part(part));
        hasher.finish()
    }
}

/// A digest in the making, for things too large or too scattered to be laid side by side.
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Starts a digest under `domain` (BLAKE3's key derivation mode, whose context string this is).
    pub fn new(domain: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(domain))
    }

    /// Adds one length-prefixed part.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// The digest of all parts so far.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_and_the_borders_between_parts_count() {
        let digest = Digest::of("a", &[b"xy", b"z"]);
        assert_eq!(digest, Digest::of("a", &[b"xy", b"z"]));
        assert_ne!(digest, Digest::of("b", &[b"xy", b"z"]));
        assert_ne!(digest, Digest::of("a", &[b"x", b"yz"]));
        assert_ne!(digest, Digest::of("a", &[b"xyz"]));
    }

    #[test]
    fn text_round_trips_and_bad_text_is_refused() {
        let digest = Digest::of("a", &[]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("12".parse::<Digest>().is_err());
        assert!("zz".repeat(32).parse::<Digest>().is_err());
        assert!("é".repeat(32).parse::<Digest>().is_err());
    }

    #[test]
    fn cbor_carries_a_byte_string() {
        let mut bytes = Vec::new();
        ciborium::into_writer(&Digest([7; 32]), &mut bytes).unwrap();
        assert_eq!(bytes[..2], [0x58, 32]);
        assert_eq!(ciborium::from_reader::<Digest, _>(&bytes[..]).unwrap(), Digest([7; 32]));
        assert!(ciborium::from_reader::<Digest, _>(&[0x41u8, 7][..]).is_err());
    }
}
