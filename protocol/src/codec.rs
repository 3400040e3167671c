//! How updates are written: integers with one bounded power-of-two exponent a group, decoded exactly.
//!
//! What is fused is the decoded value, so that sender and receivers mean the same number to the last bit.

use crate::{
    charter::{Codec, CodecKind},
    limits,
    mixture::{Layout, power_of_two},
};
use serde::{Deserialize, Serialize};

/// One tensor group of an update as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodedGroup {
    /// Values are multiples of 2^exponent.
    pub exponent: i16,
    /// The values, in the codec's width, little-endian.
    #[serde(with = "serde_bytes")]
    pub values: Vec<u8>,
}

/// One tensor group of an update, decoded: value i is `mantissas[i]` times 2^`exponent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The power of two.
    pub exponent: i16,
    /// The integers, |m| < 2^23.
    pub mantissas: Mantissas,
}

/// A group's integers, as narrow as they fit: fusion reads bytes four times as fast as words, and multiplies them in
/// fewer bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mantissas {
    /// All fit a byte, as q8's do.
    Narrow(Vec<i8>),
    /// Some do not.
    Wide(Vec<i32>),
}

impl Mantissas {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Narrow(mantissas) => mantissas.len(),
            Self::Wide(mantissas) => mantissas.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// They, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = i32> + '_ {
        self.iter_from(0)
    }

    /// Those from the one at `start` on.
    pub(crate) fn iter_from(&self, start: usize) -> impl Iterator<Item = i32> + '_ {
        let (narrow, wide): (&[i8], &[i32]) = match self {
            Self::Narrow(mantissas) => (mantissas.get(start..).unwrap_or_default(), &[]),
            Self::Wide(mantissas) => (&[], mantissas.get(start..).unwrap_or_default()),
        };
        narrow.iter().map(|m| i32::from(*m)).chain(wide.iter().copied())
    }
}

impl From<Vec<i32>> for Mantissas {
    fn from(wide: Vec<i32>) -> Self {
        let narrow: Result<_, _> = wide.iter().map(|m| i8::try_from(*m)).collect();
        narrow.map_or(Self::Wide(wide), Self::Narrow)
    }
}

impl FromIterator<i32> for Mantissas {
    fn from_iter<I: IntoIterator<Item = i32>>(mantissas: I) -> Self {
        mantissas.into_iter().collect::<Vec<i32>>().into()
    }
}

impl Group {
    /// The values as f32, exactly.
    pub fn view(&self) -> Vec<f32> {
        let scale = power_of_two(self.exponent);
        self.mantissas.iter().map(|m| (f64::from(m) * scale) as f32).collect()
    }
}

/// Why a group is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Another number of groups than the charter's layout has.
    #[error("wrong shape: {is} groups instead of {must}")]
    Groups {
        /// How many came.
        is: usize,
        /// How many the layout has.
        must: usize,
    },
    /// Another number of values than the charter's layout has.
    #[error("wrong shape: group {group} has {is} bytes instead of {must}")]
    Shape {
        /// Which group.
        group: usize,
        /// How many bytes came.
        is: usize,
        /// How many there must be.
        must: usize,
    },
    /// An exponent that the charter does not allow.
    #[error("out of range: group {group} has exponent {exponent}")]
    Exponent {
        /// Which group.
        group: usize,
        /// Its exponent.
        exponent: i16,
    },
    /// NaN or an infinity.
    #[error("not a number: group {group} holds NaN or an infinity at {at}")]
    NotFinite {
        /// Which group.
        group: usize,
        /// Which value.
        at: usize,
    },
    /// A value off the group's grid, or not written in the one way it can be.
    #[error("out of range: group {group} holds a value at {at} that its exponent does not allow")]
    OffGrid {
        /// Which group.
        group: usize,
        /// Which value.
        at: usize,
    },
}

/// Bytes of one value.
pub fn width(kind: CodecKind) -> usize {
    match kind {
        CodecKind::F32 => 4,
        CodecKind::Q8 => 1,
    }
}

/// The largest mantissa.
fn mantissa_max(kind: CodecKind) -> i32 {
    match kind {
        CodecKind::F32 => (1 << limits::MANTISSA_BITS) - 1,
        CodecKind::Q8 => 127,
    }
}

/// Rounds `values` to the finest grid on which the largest of them fits, half to even. Values that are not finite
/// count as 0 and values too large for the charter are cut off: the caller keeps what was lost.
pub fn quantise(codec: &Codec, values: &[f32]) -> Group {
    let most = f64::from(mantissa_max(codec.kind));
    let finite = |v: f32| if v.is_finite() { f64::from(v) } else { 0.0 };
    let largest = values.iter().fold(0f64, |largest, v| largest.max(finite(*v).abs()));
    // The exponent of `largest` from its bits, then up by as much as the mantissa's width asks for.
    let log2 = ((largest.to_bits() >> 52) & 0x7ff) as i16 - 1023;
    let bits = if codec.kind == CodecKind::Q8 { 7 } else { limits::MANTISSA_BITS as i16 };
    let mut exponent = (log2 - bits).clamp(codec.exponent_min, codec.exponent_max);
    while largest / power_of_two(exponent) > most && exponent < codec.exponent_max {
        exponent += 1;
    }
    let scale = power_of_two(exponent);
    let mantissas = values.iter().map(|v| (finite(*v) / scale).round_ties_even().clamp(-most, most) as i32).collect();
    Group { exponent, mantissas }
}

/// Writes a group.
pub fn encode(codec: &Codec, group: &Group) -> EncodedGroup {
    let scale = power_of_two(group.exponent);
    let values = match codec.kind {
        CodecKind::F32 => group.mantissas.iter().flat_map(|m| ((f64::from(m) * scale) as f32).to_le_bytes()).collect(),
        CodecKind::Q8 => group.mantissas.iter().flat_map(|m| (m as i8).to_le_bytes()).collect(),
    };
    EncodedGroup { exponent: group.exponent, values }
}

/// Reads the groups of an update.
///
/// # Errors
/// Groups of another shape, an exponent out of the charter's range, values that are not finite or off their grid.
pub fn decode(codec: &Codec, layout: &Layout, groups: &[EncodedGroup]) -> Result<Vec<Group>, CodecError> {
    let shapes = layout.groups();
    if groups.len() != shapes.len() {
        return Err(CodecError::Groups { is: groups.len(), must: shapes.len() });
    }
    groups
        .iter()
        .zip(shapes)
        .enumerate()
        .map(|(at, (group, shape))| decode_group(codec, at, group, shape.values()))
        .collect()
}

fn decode_group(codec: &Codec, group: usize, encoded: &EncodedGroup, values: usize) -> Result<Group, CodecError> {
    let (is, must) = (encoded.values.len(), values * width(codec.kind));
    if is != must {
        return Err(CodecError::Shape { group, is, must });
    }
    let exponent = encoded.exponent;
    if !(codec.exponent_min..=codec.exponent_max).contains(&exponent) {
        return Err(CodecError::Exponent { group, exponent });
    }
    let most = mantissa_max(codec.kind);
    let mantissas = match codec.kind {
        CodecKind::Q8 => {
            let mantissa = |(at, byte): (usize, &u8)| match byte.cast_signed() {
                m if i32::from(m).abs() <= most => Ok(m),
                _ => Err(CodecError::OffGrid { group, at }),
            };
            encoded.values.iter().enumerate().map(mantissa).collect::<Result<_, _>>().map(Mantissas::Narrow)
        }
        CodecKind::F32 => {
            let scale = power_of_two(exponent);
            let (words, _) = encoded.values.as_chunks::<4>();
            let mantissa = |(at, word): (usize, &[u8; 4])| {
                let value = f32::from_le_bytes(*word);
                if !value.is_finite() {
                    return Err(CodecError::NotFinite { group, at });
                }
                // Division by a power of two is exact here; -0.0 has another spelling, 0.0.
                let m = f64::from(value) / scale;
                let ok = m.abs() <= f64::from(most) && m.trunc() == m && (m != 0.0 || value.is_sign_positive());
                if ok { Ok(m as i32) } else { Err(CodecError::OffGrid { group, at }) }
            };
            words.iter().enumerate().map(mantissa).collect::<Result<_, _>>()
        }
    };
    Ok(Group { exponent, mantissas: mantissas? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::charter;
    use proptest::prelude::*;

    fn codec(kind: CodecKind) -> Codec {
        Codec { kind, exponent_min: -40, exponent_max: 8 }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_exactly(values in prop::collection::vec(-1e3f32..1e3, 1..40), q8: bool) {
            let codec = codec(if q8 { CodecKind::Q8 } else { CodecKind::F32 });
            let group = quantise(&codec, &values);
            let read = decode_group(&codec, 0, &encode(&codec, &group), values.len()).unwrap();
            prop_assert_eq!(&read, &group);
            let largest = values.iter().fold(0f32, |a, b| a.max(b.abs()));
            let step = if q8 { largest / 126.0 } else { largest / 4e6 };
            for (a, b) in values.iter().zip(read.view()) {
                prop_assert!((a - b).abs() <= step, "{} became {}", a, b);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(exponent: i16, values in prop::collection::vec(any::<u8>(), 0..64), q8: bool) {
            let codec = codec(if q8 { CodecKind::Q8 } else { CodecKind::F32 });
            let encoded = EncodedGroup { exponent, values };
            if let Ok(group) = decode_group(&codec, 0, &encoded, 8) {
                prop_assert_eq!(encode(&codec, &group), encoded);
                prop_assert!(group.mantissas.iter().all(|m| m.abs() < 1 << 23));
            }
        }
    }

    #[test]
    fn each_defect_has_its_name() {
        let codec = codec(CodecKind::F32);
        let read = |exponent, value: f32| {
            let encoded = EncodedGroup { exponent, values: value.to_le_bytes().to_vec() };
            decode_group(&codec, 0, &encoded, 1)
        };
        assert_eq!(read(-10, 3.0).unwrap().mantissas, Mantissas::Wide(vec![3072]));
        assert_eq!(read(-10, f32::NAN), Err(CodecError::NotFinite { group: 0, at: 0 }));
        assert_eq!(read(-10, f32::INFINITY), Err(CodecError::NotFinite { group: 0, at: 0 }));
        assert_eq!(read(-10, -0.0), Err(CodecError::OffGrid { group: 0, at: 0 }));
        assert_eq!(read(1, 3.0), Err(CodecError::OffGrid { group: 0, at: 0 }));
        assert_eq!(read(-40, 3.0), Err(CodecError::OffGrid { group: 0, at: 0 }));
        assert_eq!(read(-41, 3.0), Err(CodecError::Exponent { group: 0, exponent: -41 }));
        assert!(read(8, 0.0).is_ok());
        assert_eq!(read(9, 0.0), Err(CodecError::Exponent { group: 0, exponent: 9 }));
        for is in [0, 3, 5, 8] {
            let encoded = EncodedGroup { exponent: -10, values: vec![0; is] };
            assert_eq!(decode_group(&codec, 0, &encoded, 1), Err(CodecError::Shape { group: 0, is, must: 4 }));
        }
        let charter = charter(3);
        let layout = Layout::new(&charter);
        assert_eq!(decode(&codec, &layout, &[]), Err(CodecError::Groups { is: 0, must: layout.groups().len() }));
    }

    #[test]
    fn nothing_finite_or_small_is_lost_without_a_trace() {
        let codec = codec(CodecKind::Q8);
        assert_eq!(quantise(&codec, &[0.0, f32::NAN]).mantissas, Mantissas::Narrow(vec![0, 0]));
        assert_eq!(quantise(&codec, &[1e-30]).mantissas, Mantissas::Narrow(vec![0]));
        let cut = quantise(&codec, &[1e9]);
        assert_eq!((cut.exponent, cut.mantissas), (8, Mantissas::Narrow(vec![127])));
    }
}
