//! The largest values of a group, and where they are.
//!
//! Of n values n / 32 are written, rounded up, in two bytes each: how many zeros come before it, and its mantissa of
//! -127 to 127. Where more than 255 zeros come first, entries of 255 zeros and a zero carry on; unused entries at the end
//! are two zero bytes. What is not written the sender adds to its next update (Stich et al. 2018, arXiv 1809.07599).

use super::{CodecError, Group};
use crate::mixture::power_of_two;

/// One value of so many is written.
const ONE_OF: usize = 32;

const MANTISSA_MAX: i32 = 127;

/// Entries of so many values.
fn entries(values: usize) -> usize {
    values.div_ceil(ONE_OF)
}

/// Bytes of so many values.
pub(super) fn bytes(values: usize) -> usize {
    2 * entries(values)
}

/// Keeps the largest values, on the finest grid on which the largest of all fits.
pub(super) fn quantise(values: &[f64], lowest: i16, highest: i16) -> Group {
    let largest = values.iter().fold(0f64, |largest, value| largest.max(value.abs()));
    let mut exponent = lowest;
    while largest / power_of_two(exponent) > f64::from(MANTISSA_MAX) && exponent < highest {
        exponent += 1;
    }
    let (unit, most) = (power_of_two(exponent), f64::from(MANTISSA_MAX));
    let rounded: Vec<i32> =
        values.iter().map(|value| (value / unit).round_ties_even().clamp(-most, most) as i32).collect();
    let mut order: Vec<usize> = (0..values.len()).filter(|at| rounded[*at] != 0).collect();
    // Largest first; of equals the first.
    order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()).then(a.cmp(b)));
    let keep = |count: usize| {
        let mut kept = vec![0; values.len()];
        order.iter().take(count).for_each(|at| kept[*at] = rounded[*at]);
        kept
    };
    // What lies far apart takes more entries than one. One value more never takes fewer, so the most that fit are found
    // by halving.
    let (mut fit, mut too_many) = (0, order.len().min(entries(values.len())) + 1);
    while fit + 1 < too_many {
        let count = usize::midpoint(fit, too_many);
        if needed(&keep(count)) <= entries(values.len()) { fit = count } else { too_many = count }
    }
    Group { exponent, mantissas: keep(fit).into_iter().collect() }
}

/// The entries of these values.
fn written(mantissas: &[i32]) -> Vec<(u8, i32)> {
    let (mut entries, mut zeros) = (Vec::new(), 0usize);
    for mantissa in mantissas {
        if *mantissa == 0 {
            zeros += 1;
            continue;
        }
        while zeros > 255 {
            entries.push((255, 0));
            zeros -= 256;
        }
        entries.push((zeros as u8, *mantissa));
        zeros = 0;
    }
    entries
}

fn needed(mantissas: &[i32]) -> usize {
    written(mantissas).len()
}

/// Writes a group; none if it is not on this codec's grid.
pub(super) fn encode(group: &Group) -> Option<Vec<u8>> {
    let mantissas: Vec<_> = group.mantissas.iter().collect();
    let mut out = Vec::with_capacity(bytes(mantissas.len()));
    for (zeros, mantissa) in written(&mantissas) {
        let mantissa = i8::try_from(mantissa).ok().filter(|mantissa| *mantissa != i8::MIN)?;
        out.extend([zeros, mantissa.cast_unsigned()]);
    }
    let length = bytes(mantissas.len());
    out.resize(length.max(out.len()), 0);
    (out.len() == length).then_some(out)
}

/// Reads a group of so many values, whose bytes are as many as they must be.
pub(super) fn decode(group: usize, encoded: &[u8], values: usize) -> Result<Vec<i32>, CodecError> {
    let mut mantissas = vec![0; values];
    let mut at = 0;
    for entry in encoded.chunks(2) {
        let &[zeros, mantissa] = entry else { break };
        if (zeros, mantissa) == (0, 0) {
            break;
        }
        at += usize::from(zeros);
        *mantissas.get_mut(at).ok_or(CodecError::OffGrid { group, at })? = i32::from(mantissa.cast_signed());
        at += 1;
    }
    // One way to write it: the one that this program writes.
    let read = Group { exponent: 0, mantissas: mantissas.iter().copied().collect() };
    if encode(&read).as_deref() != Some(encoded) {
        return Err(CodecError::OffGrid { group, at: 0 });
    }
    Ok(mantissas)
}
