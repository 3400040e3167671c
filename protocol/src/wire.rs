//! Strict CBOR: size first, no unknown fields, no trailing bytes, one encoding for one value.

use serde::{Serialize, de::DeserializeOwned};
use std::io;

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
    let mut rest = Rest(bytes);
    let same = ciborium::into_writer(&value, &mut rest).is_ok() && rest.0.is_empty();
    if same { Ok(value) } else { Err(WireError::NotCanonical) }
}

/// Takes what is written only as long as it is the same as these bytes: so they need not be written anew to be compared.
struct Rest<'a>(&'a [u8]);

impl io::Write for Rest<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One way to write a value, nothing behind it, and nothing missing.
    #[test]
    fn what_is_not_written_the_one_way_is_refused() {
        let value = (7u64, vec![1i64, -300], "text".to_string());
        let bytes = encode(&value, 100).unwrap();
        assert_eq!(decode(&bytes, 100), Ok(value));
        let read = |bytes: &[u8]| decode::<(u64, Vec<i64>, String)>(bytes, 100);
        assert_eq!(read(&[bytes.as_slice(), &[0]].concat()), Err(WireError::NotCanonical));
        assert!(matches!(read(&bytes[..bytes.len() - 1]), Err(WireError::Unreadable(_))));
        // The same 7, in two bytes.
        let wide = [&bytes[..1], &[0x18, 7], &bytes[2..]].concat();
        assert_eq!((bytes[1], read(&wide)), (7, Err(WireError::NotCanonical)));
    }
}
