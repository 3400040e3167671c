//! How updates are written: integers with one bounded power-of-two exponent a group, decoded exactly.
//!
//! What is fused is the decoded value, so that sender and receivers mean the same number to the last bit.

mod blocks;
mod sparse;

use crate::{
    charter::{Codec, CodecKind},
    limits,
    mixture::{Layout, power_of_two},
};
use blocks::Width;
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
        let value = |m: i32| (f64::from(m) * scale) as f32;
        match &self.mantissas {
            Mantissas::Narrow(mantissas) => mantissas.iter().map(|m| value(i32::from(*m))).collect(),
            Mantissas::Wide(mantissas) => mantissas.iter().map(|m| value(*m)).collect(),
        }
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

/// Bytes of a group of so many values.
pub fn bytes(kind: CodecKind, values: usize) -> usize {
    match kind {
        CodecKind::F32 => 4 * values,
        CodecKind::Q8 => values,
        CodecKind::Q4 => blocks::bytes(Width::Four, values),
        CodecKind::Sign => blocks::bytes(Width::One, values),
        CodecKind::TopK => sparse::bytes(values),
    }
}

/// Bytes of all values of an update, without what CBOR adds.
pub fn update_bytes(kind: CodecKind, layout: &Layout) -> usize {
    layout.groups().iter().map(|group| bytes(kind, group.values())).sum()
}

const Q8_MAX: i32 = 127;

const F32_MAX: i32 = (1 << limits::MANTISSA_BITS) - 1;

/// Rounds `values` to the finest grid on which the largest of them fits, half to even. Values that are not finite
/// count as 0 and values too large for the charter are cut off: the caller keeps what was lost.
pub fn quantise(codec: &Codec, values: &[f32]) -> Group {
    let finite = |v: &f32| if v.is_finite() { f64::from(*v) } else { 0.0 };
    let values: Vec<f64> = values.iter().map(finite).collect();
    let (lowest, highest) = (codec.exponent_min, codec.exponent_max);
    match codec.kind {
        CodecKind::F32 => quantise_each(&values, lowest, highest, limits::MANTISSA_BITS as i16, F32_MAX),
        CodecKind::Q8 => quantise_each(&values, lowest, highest, 7, Q8_MAX),
        CodecKind::Q4 => blocks::quantise(Width::Four, &values, lowest, highest),
        CodecKind::Sign => blocks::quantise(Width::One, &values, lowest, highest),
        CodecKind::TopK => sparse::quantise(&values, lowest, highest),
    }
}

fn quantise_each(values: &[f64], lowest: i16, highest: i16, bits: i16, most: i32) -> Group {
    let most = f64::from(most);
    let largest = values.iter().fold(0f64, |largest, v| largest.max(v.abs()));
    // The exponent of `largest` from its bits, then up by as much as the mantissa's width asks for.
    let log2 = ((largest.to_bits() >> 52) & 0x7ff) as i16 - 1023;
    let mut exponent = (log2 - bits).clamp(lowest, highest);
    while largest / power_of_two(exponent) > most && exponent < highest {
        exponent += 1;
    }
    let scale = power_of_two(exponent);
    let mantissas = values.iter().map(|v| round((v / scale).clamp(-most, most)) as i32).collect();
    Group { exponent, mantissas }
}

/// Rounds half to even what is below 2^51, as `f64::round_ties_even`, which is a call for each value where the compiler
/// may not take an instruction for it for granted: beside 2^52 f64 has no room for fractions.
fn round(value: f64) -> f64 {
    const SHIFT: f64 = 1.5 * (1u64 << 52) as f64;
    (value + SHIFT) - SHIFT
}

/// Writes a group; none if it is not on the codec's grid, as what [`quantise`] gives is.
pub fn encode(codec: &Codec, group: &Group) -> Option<EncodedGroup> {
    let scale = power_of_two(group.exponent);
    let mantissas = group.mantissas.iter();
    let values = match codec.kind {
        CodecKind::F32 => mantissas.flat_map(|m| ((f64::from(m) * scale) as f32).to_le_bytes()).collect(),
        CodecKind::Q8 => match &group.mantissas {
            Mantissas::Narrow(mantissas) => mantissas.iter().map(|m| m.cast_unsigned()).collect(),
            Mantissas::Wide(_) => {
                mantissas.map(|m| i8::try_from(m).map(i8::cast_unsigned)).collect::<Result<_, _>>().ok()?
            }
        },
        CodecKind::Q4 => blocks::encode(Width::Four, group)?,
        CodecKind::Sign => blocks::encode(Width::One, group)?,
        CodecKind::TopK => sparse::encode(group)?,
    };
    Some(EncodedGroup { exponent: group.exponent, values })
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
    let (is, must) = (encoded.values.len(), bytes(codec.kind, values));
    if is != must {
        return Err(CodecError::Shape { group, is, must });
    }
    let exponent = encoded.exponent;
    if !(codec.exponent_min..=codec.exponent_max).contains(&exponent) {
        return Err(CodecError::Exponent { group, exponent });
    }
    let mantissas = match codec.kind {
        CodecKind::Q8 => {
            let mantissa = |(at, byte): (usize, &u8)| match byte.cast_signed() {
                m if i32::from(m).abs() <= Q8_MAX => Ok(m),
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
                let ok = m.abs() <= f64::from(F32_MAX) && m.trunc() == m && (m != 0.0 || value.is_sign_positive());
                if ok { Ok(m as i32) } else { Err(CodecError::OffGrid { group, at }) }
            };
            words.iter().enumerate().map(mantissa).collect::<Result<_, _>>()
        }
        CodecKind::Q4 => blocks::decode(Width::Four, group, &encoded.values, values).map(Mantissas::from),
        CodecKind::Sign => blocks::decode(Width::One, group, &encoded.values, values).map(Mantissas::from),
        CodecKind::TopK => sparse::decode(group, &encoded.values, values).map(Mantissas::from),
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

    const KINDS: [CodecKind; 5] = [CodecKind::F32, CodecKind::Q8, CodecKind::Q4, CodecKind::Sign, CodecKind::TopK];

    #[test]
    fn halves_are_rounded_to_even() {
        let most = f64::from(F32_MAX);
        for value in [0.0, 0.5, 1.5, 2.5, 126.5, 0.49999999999999994, most - 0.5, most] {
            assert_eq!((round(value), round(-value)), (value.round_ties_even(), (-value).round_ties_even()), "{value}");
        }
    }

    proptest! {
        #[test]
        fn values_are_rounded_to_the_nearest(value in -1e7f64..1e7) {
            prop_assert_eq!(round(value), value.round_ties_even());
        }

        #[test]
        fn what_is_written_is_read_exactly(values in prop::collection::vec(-1e3f32..1e3, 1..200), kind in 0..5usize, sparse: u64) {
            let codec = codec(KINDS[kind]);
            // Some values are none, as of parts that have not been trained.
            let values: Vec<_> = values.iter().enumerate().map(|(at, value)| if sparse >> (at % 64) & 1 == 1 { 0.0 } else { *value }).collect();
            let group = quantise(&codec, &values);
            let encoded = encode(&codec, &group).unwrap();
            prop_assert_eq!(encoded.values.len(), bytes(codec.kind, values.len()));
            prop_assert_eq!(&decode_group(&codec, 0, &encoded, values.len()).unwrap(), &group);
            // What is read is rounded to itself.
            prop_assert_eq!(quantise(&codec, &group.view()).view(), group.view());
        }

        #[test]
        fn what_rounding_loses_is_little(values in prop::collection::vec(-1e3f32..1e3, 1..200), kind in 0..5usize) {
            let codec = codec(KINDS[kind]);
            let view = quantise(&codec, &values).view();
            let largest = values.iter().fold(0f32, |a, b| a.max(b.abs()));
            let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value) * f64::from(value)).sum::<f64>();
            let lost = square(&mut values.iter().zip(&view).map(|(a, b)| a - b));
            let most = match codec.kind {
                CodecKind::F32 => largest / 4e6,
                CodecKind::Q8 => largest / 126.0,
                CodecKind::Q4 => largest / 13.5,
                // Whatever it loses, the sender keeps: it must not be more than there was.
                CodecKind::Sign | CodecKind::TopK => {
                    prop_assert!(lost < square(&mut values.iter().copied()) * 1.001);
                    return Ok(());
                }
            };
            for (a, b) in values.iter().zip(view) {
                prop_assert!((a - b).abs() <= most, "{} became {}", a, b);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(exponent: i16, values in prop::collection::vec(any::<u8>(), 0..64), kind in 0..5usize, count in 0..100usize) {
            let codec = codec(KINDS[kind]);
            let encoded = EncodedGroup { exponent, values };
            if let Ok(group) = decode_group(&codec, 0, &encoded, count) {
                prop_assert_eq!(encode(&codec, &group), Some(encoded));
                prop_assert!(group.mantissas.iter().all(|m| m.abs() < 1 << 23));
            }
        }

        /// What one changes of valid bytes is refused, or is read as something else.
        #[test]
        fn there_is_one_way_to_write_it(values in prop::collection::vec(-1e3f32..1e3, 1..200), kind in 0..5usize, at: prop::sample::Index, bit in 0..8u8) {
            let codec = codec(KINDS[kind]);
            let encoded = encode(&codec, &quantise(&codec, &values)).unwrap();
            let read = decode_group(&codec, 0, &encoded, values.len()).unwrap();
            let mut other = encoded.clone();
            let at = at.index(other.values.len());
            other.values[at] ^= 1 << bit;
            prop_assert!(decode_group(&codec, 0, &other, values.len()).map_or(true, |other| other != read));
        }
    }

    #[test]
    fn few_bits_are_few_bytes() {
        let sizes = KINDS.map(|kind| bytes(kind, 6_400));
        assert_eq!(sizes, [25_600, 6_400, 3_300, 900, 400]);
        assert_eq!(KINDS.map(|kind| bytes(kind, 65)), [260, 65, 33 + 2, 9 + 2, 6]);
        assert_eq!(KINDS.map(|kind| bytes(kind, 0)), [0; 5]);
    }

    #[test]
    fn what_is_off_the_grid_is_not_written() {
        let group = |mantissas: Vec<i32>| Group { exponent: 0, mantissas: mantissas.into() };
        let writes = |kind, mantissas| encode(&codec(kind), &group(mantissas)).is_some();
        assert!(writes(CodecKind::Q8, vec![127]) && !writes(CodecKind::Q8, vec![128]));
        assert!(writes(CodecKind::Q4, vec![14, -2, 0]) && !writes(CodecKind::Q4, vec![15, 2]));
        assert!(writes(CodecKind::Q4, vec![7 * 255]) && !writes(CodecKind::Q4, vec![8 * 255]));
        assert!(writes(CodecKind::Sign, vec![9, -9]) && !writes(CodecKind::Sign, vec![9, 0]));
        assert!(writes(CodecKind::TopK, vec![0, -127]) && !writes(CodecKind::TopK, vec![1, 1]));
        // Beyond 255 zeros it takes two entries: there are places for 10.
        let far = |count: usize| (0..300).map(|at| i32::from(at > 298 || (at < count))).collect();
        assert!(writes(CodecKind::TopK, far(8)) && !writes(CodecKind::TopK, far(9)));
    }

    #[test]
    fn as_many_of_the_largest_are_kept_as_fit() {
        let kept =
            |values: &[f32]| quantise(&codec(CodecKind::TopK), values).mantissas.iter().filter(|m| *m != 0).count();
        assert_eq!(kept(&[1.0; 1_024]), 32);
        // A readout in which nothing has been learnt of half of the tokens: 2^19 zeros take 2^11 entries.
        let half: Vec<_> = (0..1 << 20).map(|at| f32::from(u8::from(at >= 1 << 19))).collect();
        assert_eq!(kept(&half), (1 << 15) - (1 << 11));
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
