//! Hexadecimal text of 32-byte values, and how they travel through serde.

use serde::{Deserializer, Serializer, de};
use std::fmt;

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits")]
pub struct HexError;

pub(crate) fn write(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

pub(crate) fn parse(text: &str) -> Result<[u8; 32], HexError> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(HexError);
    }
    let mut out = [0u8; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = char::from(*digit).to_digit(16).ok_or(HexError)?;
            *byte = (*byte << 4) | u8::try_from(value).map_err(|_| HexError)?;
        }
    }
    Ok(out)
}

/// Text formats (TOML, JSON) get hexadecimal digits, binary ones (CBOR) a byte string.
pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 32], text: &impl fmt::Display, s: S) -> Result<S::Ok, S::Error> {
    if s.is_human_readable() { s.collect_str(text) } else { s.serialize_bytes(bytes) }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = [u8; 32];
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("32 bytes, or 64 hexadecimal digits")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<[u8; 32], E> {
            parse(text).map_err(E::custom)
        }
        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<[u8; 32], E> {
            bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
        }
    }
    if d.is_human_readable() { d.deserialize_str(Visitor) } else { d.deserialize_bytes(Visitor) }
}

/// Display, Debug (short), FromStr, Serialize and Deserialize for a 32-byte newtype.
macro_rules! text_and_serde {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::hex::write(&self.0, f)
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }
        impl std::str::FromStr for $name {
            type Err = $crate::HexError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::hex::parse(text).map(Self)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                $crate::hex::serialize(&self.0, self, s)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                $crate::hex::deserialize(d).map(Self)
            }
        }
        impl $name {
            /// The first ten hexadecimal digits, for people.
            pub fn short(&self) -> String {
                self.to_string().chars().take(10).collect()
            }
            /// The 32 bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// From 32 bytes as they are.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
        }
    };
}
pub(crate) use text_and_serde;
