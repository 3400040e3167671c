//! Strict CBOR: size first, no unknown fields, no trailing bytes, one encoding for one value.

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Longer than such a thing may be.
    #[error("{bytes} bytes, more than the {most} allowed")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// Not CBOR of the expected form.
    #[error("not readable: {0}")]
    Unreadable(String),
    /// Nothing that this protocol can write.
    #[error("not writable: {0}")]
    Unwritable(&'static str),
    /// Readable, but not written the one way that this protocol writes it.
    #[error("not in canonical form, or followed by other bytes")]
    NotCanonical,
}

/// Writes `value` as CBOR.
///
/// # Errors
/// A value that needs more than `most` bytes.
pub fn encode<T: Serialize>(value: &T, most: usize) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|error| WireError::Unreadable(error.to_string()))?;
    if bytes.len() > most {
        return Err(WireError::TooLong { bytes: bytes.len(), most });
    }
    Ok(bytes)
}

/// Reads a value of at most `most` bytes. It is written again and compared, so that indefinite lengths, wide
/// integers, fields out of order and trailing bytes are all refused.
///
/// Lengths inside the CBOR are claims: ciborium reads byte strings in pieces as they come, and serde takes at most
/// 1 MiB on a claimed length, so a short message never makes a large allocation.
///
/// # Errors
/// Bytes that are too many, not readable, or not canonical.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], most: usize) -> Result<T, WireError> {
    if bytes.len() > most {
        return Err(WireError::TooLong { bytes: bytes.len(), most });
    }
    // Nothing of ours nests deeper than a charter: map, list or map, value.
    let value: T = ciborium::de::from_reader_with_recursion_limit(bytes, 8)
        .map_err(|error| WireError::Unreadable(error.to_string()))?;
    if encode(&value, most)? != bytes {
        return Err(WireError::NotCanonical);
    }
    Ok(value)
}
