//! Values in blocks that share a scale: few bits a value.
//!
//! A block of up to [`BLOCK`] values is a scale s of one byte, and its values v in so many bits, the lowest first; what
//! is meant is s v times the group's power of two. Of the ways to write the same numbers one is valid: the smallest
//! scale. A block of zeros has scale 0.

use super::{CodecError, Group};
use crate::mixture::power_of_two;

/// Values that share a scale.
pub(super) const BLOCK: usize = 64;

/// The largest scale.
const SCALE_MAX: i32 = 255;

/// How a value of a block is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// In 4 bits: -7 to 7.
    Four,
    /// In 1 bit: 1 or -1.
    One,
}

impl Width {
    fn bits(self) -> usize {
        match self {
            Self::Four => 4,
            Self::One => 1,
        }
    }

    /// The largest value.
    fn most(self) -> i32 {
        match self {
            Self::Four => 7,
            Self::One => 1,
        }
    }

    /// What a scale must bear, of these values, so that all are written as well as they can be.
    fn reach(self, block: &[f64]) -> f64 {
        let sizes = block.iter().map(|value| value.abs());
        match self {
            Self::Four => sizes.fold(0.0, f64::max) / 7.0,
            // The scale with the smallest squared error of a sign (Bernstein et al. 2018, arXiv 1802.04434).
            Self::One => sizes.sum::<f64>() / block.len().max(1) as f64,
        }
    }

    fn bits_of(self, value: i32) -> u8 {
        match self {
            Self::Four => (value & 0xf) as u8,
            Self::One => u8::from(value < 0),
        }
    }

    fn value(self, bits: u8) -> i32 {
        match self {
            // The sign bit of four, drawn out.
            Self::Four => i32::from((bits << 4).cast_signed() >> 4),
            Self::One => 1 - 2 * i32::from(bits),
        }
    }
}

/// Bytes of so many values.
pub(super) fn bytes(width: Width, values: usize) -> usize {
    let block = |values: usize| 1 + (values * width.bits()).div_ceil(8);
    values / BLOCK * block(BLOCK) + if values.is_multiple_of(BLOCK) { 0 } else { block(values % BLOCK) }
}

/// Rounds values to the finest scales that the exponents allow.
pub(super) fn quantise(width: Width, values: &[f64], lowest: i16, highest: i16) -> Group {
    let reach = values.chunks(BLOCK).map(|block| width.reach(block)).fold(0.0, f64::max);
    let mut exponent = lowest;
    while reach / power_of_two(exponent) > f64::from(SCALE_MAX) && exponent < highest {
        exponent += 1;
    }
    let unit = power_of_two(exponent);
    let block = |block: &[f64]| {
        // Rounded up, so that the largest of four bits still fits; a sign's scale is rounded to the nearest.
        let reach = width.reach(block) / unit;
        let scale = if width == Width::One { reach.round_ties_even() } else { reach.ceil() };
        let scale = scale.min(f64::from(SCALE_MAX));
        let most = f64::from(width.most());
        let mantissa = move |value: &f64| {
            let value = match width {
                Width::Four if scale > 0.0 => (value / unit / scale).round_ties_even().clamp(-most, most),
                Width::Four => 0.0,
                Width::One => {
                    if *value < 0.0 {
                        -1.0
                    } else {
                        1.0
                    }
                }
            };
            (value * scale) as i32
        };
        block.iter().map(mantissa).collect::<Vec<_>>()
    };
    Group { exponent, mantissas: values.chunks(BLOCK).flat_map(block).collect() }
}

/// Writes a group; none if it is not on this codec's grid.
pub(super) fn encode(width: Width, group: &Group) -> Option<Vec<u8>> {
    let mantissas: Vec<_> = group.mantissas.iter().collect();
    let mut out = Vec::with_capacity(bytes(width, mantissas.len()));
    for block in mantissas.chunks(BLOCK) {
        encode_block(width, block, &mut out)?;
    }
    Some(out)
}

fn encode_block(width: Width, block: &[i32], out: &mut Vec<u8>) -> Option<()> {
    let scale = scale_of(width, block)?;
    out.push(u8::try_from(scale).ok()?);
    let per_byte = 8 / width.bits();
    for values in block.chunks(per_byte) {
        let value = |mantissa: &i32| if scale == 0 { 0 } else { mantissa / scale };
        let bits = |(at, mantissa)| {
            // Of a block of zeros all bits are zero, though a sign has none for it.
            let bits = if scale == 0 { 0 } else { width.bits_of(value(mantissa)) };
            bits << (at * width.bits())
        };
        out.push(values.iter().enumerate().map(bits).fold(0, |byte, bits| byte | bits));
    }
    Some(())
}

/// The smallest scale of which all these are multiples, few enough times.
fn scale_of(width: Width, block: &[i32]) -> Option<i32> {
    let largest = block.iter().map(|mantissa| mantissa.saturating_abs()).max().unwrap_or(0);
    if largest == 0 {
        return Some(0);
    }
    let fits = |scale: &i32| match width {
        Width::Four => block.iter().all(|mantissa| mantissa % scale == 0),
        Width::One => block.iter().all(|mantissa| mantissa.saturating_abs() == *scale),
    };
    (largest.div_euclid(width.most()).max(1)..=SCALE_MAX)
        .filter(|scale| largest <= scale.saturating_mul(width.most()))
        .find(fits)
}

/// Reads a group of so many values, whose bytes are as many as they must be.
pub(super) fn decode(width: Width, group: usize, encoded: &[u8], values: usize) -> Result<Vec<i32>, CodecError> {
    let mut mantissas = Vec::with_capacity(values);
    let mut rest = encoded;
    let mut again = Vec::with_capacity(bytes(width, BLOCK));
    while mantissas.len() < values {
        let at = mantissas.len();
        let count = BLOCK.min(values - at);
        let off_grid = CodecError::OffGrid { group, at };
        let (block, others) = rest.split_at_checked(bytes(width, count)).ok_or(off_grid.clone())?;
        rest = others;
        let (scale, packed) = block.split_first().ok_or(off_grid.clone())?;
        let (per_byte, mask) = (8 / width.bits(), (1 << width.bits()) - 1);
        let value = |at: usize| packed[at / per_byte] >> (at % per_byte * width.bits()) & mask;
        mantissas.extend((0..count).map(|at| i32::from(*scale) * width.value(value(at))));
        // One way to write it: the one that this program writes.
        again.clear();
        encode_block(width, &mantissas[at..], &mut again).ok_or(off_grid.clone())?;
        if again != block {
            return Err(off_grid);
        }
    }
    Ok(mantissas)
}
