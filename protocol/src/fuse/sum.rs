//! The one big loop: a weighted integer sum of all senders' values of a group.

use super::{
    fixed::{self, round_fraction, round_short_fraction, saturate},
    parallel,
    tensor::Row,
    wide::with_widest,
};
use crate::{codec::Mantissas, mixture::power_of_two};
use std::{collections::BTreeMap, ops::Range};

/// Values that are summed at a time: so many bytes of a row that memory is read ahead, while the partial sums stay in
/// the second cache.
const BLOCK: usize = 16_384;

/// Rows of bytes that are added up before they are multiplied: the sum of 64 fits 16 bits.
const TOGETHER_MOST: usize = 64;

/// What is multiplied by one factor.
struct Term<'a> {
    factor: i128,
    rows: Rows<'a>,
    /// What no |m|, nor the sum of several, is above.
    largest: u64,
}

/// One row, or several of bytes.
enum Rows<'a> {
    Bytes(Vec<&'a [i8]>),
    Words(&'a [i32]),
}

/// The sum of `weights[i]` times row i, in units of the charter's smallest power of two: exact but for the rounding of
/// the weights (see [`factor`]) and one last rounding, both half to even. Saturates.
///
/// Products of mantissas and factors need an i128. To keep the inner loop in 64 bits, a factor is cut into signed
/// digits, as few as the mantissas' width allows: one or two for bytes.
pub(super) fn weighted(values: usize, rows: &[Option<Row<'_>>], weights: &[f64], threads: usize) -> Vec<i64> {
    let terms = terms(rows, weights);
    // No sum of mantissas is above this.
    let largest: u64 = terms.iter().map(|term| term.largest).sum();
    let digit_bits = 63 - fixed::bits(largest);
    let factor_bits = terms.iter().map(|term| i128::BITS - term.factor.unsigned_abs().leading_zeros()).max();
    // A sign bit more.
    let digits = (factor_bits.unwrap_or(0) + 1).div_ceil(digit_bits) as usize;
    let mut sum = vec![0i64; values];
    let blocks: Vec<_> = sum.chunks_mut(BLOCK).enumerate().collect();
    parallel::for_each(blocks, threads, |(block, sum)| {
        let start = block * BLOCK;
        with_widest(
            #[inline(always)]
            || add_block(&terms, start, sum, digits, digit_bits),
        );
    });
    sum
}

/// The sum of one block of values, from `start` on, with factors cut into so many digits.
#[inline(always)]
fn add_block(terms: &[Term<'_>], start: usize, sum: &mut [i64], digits: usize, digit_bits: u32) {
    let range = start..start + sum.len();
    if let ([Term { factor, rows: Rows::Bytes(rows), .. }], 1) = (terms, digits) {
        let factor = *factor as i64;
        let whole = together(rows, range);
        sum.iter_mut().zip(&whole).for_each(|(sum, whole)| *sum = round_short_fraction(i64::from(*whole) * factor));
        return;
    }
    let mut parts = vec![[0i64; BLOCK]; digits];
    for term in terms {
        let mut rest = term.factor;
        let factors = parts.iter_mut().map(|part| (part, next_digit(&mut rest, digit_bits)));
        match &term.rows {
            Rows::Words(row) => add_times(factors, &row[range.clone()]),
            Rows::Bytes(rows) => match rows.as_slice() {
                [row] => add_times(factors, &row[range.clone()]),
                rows => add_times(factors, &together(rows, range.clone())[..range.len()]),
            },
        }
    }
    if let [whole] = parts.as_slice() {
        sum.iter_mut().zip(whole).for_each(|(sum, whole)| *sum = round_short_fraction(*whole));
        return;
    }
    for (at, sum) in sum.iter_mut().enumerate() {
        // Modulo 2^128, in which the whole fits though a part may not.
        let join = |whole: i128, part: &[i64; BLOCK]| (whole << digit_bits).wrapping_add(part[at].into());
        *sum = saturate(round_fraction(parts.iter().rev().fold(0, join)));
    }
}

/// The rows that have a weight; those of bytes that have the same factor together.
fn terms<'a>(rows: &[Option<Row<'a>>], weights: &[f64]) -> Vec<Term<'a>> {
    let mut terms = Vec::new();
    let mut bytes: BTreeMap<i128, Vec<&'a [i8]>> = BTreeMap::new();
    for (row, weight) in rows.iter().zip(weights) {
        let Some(row) = row else { continue };
        match (row.mantissas, factor(row, *weight, rows.len())) {
            (_, 0) => {}
            (Mantissas::Narrow(row), factor) => bytes.entry(factor).or_default().push(row),
            (Mantissas::Wide(words), factor) => {
                terms.push(Term { factor, rows: Rows::Words(words), largest: row.largest.into() });
            }
        }
    }
    for (factor, rows) in bytes {
        terms.extend(rows.chunks(TOGETHER_MOST).map(|rows| {
            let largest = rows.len() as u64 * u64::from(i8::MIN.unsigned_abs());
            Term { factor, rows: Rows::Bytes(rows.to_vec()), largest }
        }));
    }
    terms
}

/// Cuts the lowest digit off: between -2^(bits - 1) and 2^(bits - 1), so that what is left is rounded and has an end.
#[inline(always)]
fn next_digit(rest: &mut i128, bits: u32) -> i64 {
    let digit = *rest << (i128::BITS - bits) >> (i128::BITS - bits);
    *rest = (*rest - digit) >> bits;
    digit as i64
}

/// Adds `source` times each digit to its part.
#[inline(always)]
fn add_times<'a, T: Copy + Into<i64>>(parts: impl Iterator<Item = (&'a mut [i64; BLOCK], i64)>, source: &[T]) {
    for (part, digit) in parts.filter(|(_, digit)| *digit != 0) {
        part.iter_mut().zip(source).for_each(|(part, m)| *part += (*m).into() * digit);
    }
}

/// The plain sum of up to [`TOGETHER_MOST`] rows.
#[inline(always)]
fn together(rows: &[&[i8]], range: Range<usize>) -> [i16; BLOCK] {
    let mut sums = [0; BLOCK];
    // Sixteen rows at a time, so that the sum is read and written once for as many bytes.
    let (many, rest) = rows.as_chunks::<16>();
    for rows in many {
        add_many(&mut sums[..range.len()], &rows.map(|row| &row[range.clone()]));
    }
    for row in rest {
        sums.iter_mut().zip(&row[range.clone()]).for_each(|(sum, m)| *sum += i16::from(*m));
    }
    sums
}

/// Adds sixteen rows of bytes to `sums`, all of one length.
#[inline(always)]
fn add_many(sums: &mut [i16], rows: &[&[i8]; 16]) {
    // Telling the compiler that they are, so that it need not ask each time.
    let rows = rows.map(|row| &row[..sums.len()]);
    for (at, sum) in sums.iter_mut().enumerate() {
        *sum += rows.iter().map(|row| i16::from(row[at])).sum::<i16>();
    }
}

/// What a row's mantissas are multiplied by: its weight times 2^shift, so that the product is in the charter's smallest
/// power of two, as an integer in units of 2^-30.
///
/// The shift comes before the rounding. So however large an update is, and however small the weight that brings it
/// down to size, the rounding moves a value by 2^(23 - 31), less than a hundredth of a unit.
///
/// A mantissa has 23 bits, the shift 60, a weight's fraction 30, 64 senders add 7: 120 of 126 bits, and a weight may
/// be up to 2^6. A row of smaller values may have a larger weight, by as much. A factor that would need more is cut to
/// what the largest term leaves it; the step is then far beyond what the mixture's i64 holds.
pub(super) fn factor(row: &Row<'_>, weight: f64, senders: usize) -> i128 {
    let taken = fixed::bits(row.largest.into()) + fixed::bits(senders as u64);
    let most = 1i128 << 126u32.saturating_sub(taken);
    // Exact: an f64 that is an integer, and shifts of 60 at most. Saturating beyond i128.
    let shifted = weight * power_of_two(row.shift as i16) * fixed::ONE as f64;
    (shifted.round_ties_even() as i128).clamp(-most, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesis::samples::Numbers;
    use proptest::prelude::*;

    fn row(mantissas: &Mantissas, shift: u32) -> Option<Row<'_>> {
        Some(Row { shift, mantissas, largest: mantissas.iter().fold(0, |largest, m| m.unsigned_abs().max(largest)) })
    }

    #[test]
    fn thirds_make_a_whole_and_halves_round_to_even() {
        let one = Mantissas::from(vec![6, -6, 1, -1, 3, -3]);
        let row = |shift| row(&one, shift);
        assert_eq!(weighted(6, &[row(0)], &[1.0], 1), [6, -6, 1, -1, 3, -3]);
        assert_eq!(weighted(6, &[row(0)], &[0.5], 1), [3, -3, 0, 0, 2, -2]);
        assert_eq!(weighted(6, &[row(0), None, row(2)], &[0.5, 9.0, 0.25], 1), [9, -9, 2, -2, 4, -4]);
        assert_eq!(weighted(6, &[row(0); 3], &[1.0 / 3.0; 3], 2), [6, -6, 1, -1, 3, -3]);
    }

    #[test]
    fn the_largest_terms_saturate_instead_of_wrapping() {
        let most = (1 << 23) - 1;
        let mantissas = Mantissas::from(vec![most, -most]);
        let large = row(&mantissas, 60);
        for weight in [1.0, 1e3, 1e30, f64::MAX] {
            assert_eq!(weighted(2, &[large; 64], &[weight; 64], 1), [i64::MAX, i64::MIN]);
        }
        // Bringing the largest update down to one unit doesn't round it away, nor does lifting a unit.
        assert_eq!(weighted(2, &[large], &[power_of_two(-83)], 1), [1, -1]);
        assert_eq!(weighted(2, &[large], &[power_of_two(-82)], 1), [2, -2]);
        let ones = Mantissas::from(vec![1, -1]);
        assert_eq!(weighted(2, &[row(&ones, 0), None], &[power_of_two(62), 1.0], 1), [1 << 62, -(1 << 62)]);
    }

    proptest! {
        /// Any mix of widths, shifts and weights, alone or many of one factor: as one by one in 128 bits.
        #[test]
        fn digits_make_the_same_sum(
            seed: u64,
            shapes in prop::collection::vec((any::<bool>(), 0u32..=60, 0usize..4), 1..150),
            weights in prop::array::uniform4(-4.0f64..4.0),
        ) {
            let mut numbers = Numbers::new(seed);
            let mut random = |wide: bool| -> Mantissas {
                let most = if wide { (1 << 23) - 1 } else { 127 };
                (0..5).map(|at| if at == 0 { most } else { (numbers.signed() * f64::from(most)) as i32 }).collect()
            };
            let data: Vec<_> = shapes.iter().map(|(wide, ..)| random(*wide)).collect();
            let rows: Vec<_> = data.iter().zip(&shapes).map(|(data, (_, shift, _))| row(data, *shift)).collect();
            let weights: Vec<_> = shapes.iter().map(|(.., weight)| weights[*weight]).collect();
            let expected: Vec<i64> = (0..5).map(|at| {
                let term = |(row, weight): (&Option<Row<'_>>, &f64)| {
                    let row = row.unwrap();
                    i128::from(row.values(at).next().unwrap()) * factor(&row, *weight, rows.len())
                };
                saturate(round_fraction(rows.iter().zip(&weights).map(term).sum()))
            }).collect();
            prop_assert_eq!(weighted(5, &rows, &weights, 1), expected);
        }
    }
}
