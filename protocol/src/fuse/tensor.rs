//! One tensor group of all senders of a round: their mantissas, exact norms and exact cosines.

use super::{Sender, fixed::Norm, parallel};
use crate::{charter::Charter, genesis::linalg::Square, limits, mixture::GroupShape, mixture::Kind};
use std::sync::{Mutex, PoisonError};

/// One sender's values of a group: `mantissas[i]` times 2^`exponent`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    /// How far its exponent is above the charter's smallest: 0 to 60.
    pub(super) shift: u32,
    /// The values, |m| < 2^23.
    pub(super) mantissas: &'a [i32],
    /// The largest |m|.
    pub(super) largest: u32,
}

/// One tensor group as all senders of a round have it.
pub(super) struct Tensor<'a> {
    /// How many values it has.
    pub(super) values: usize,
    /// Whether it counts in the screen and in the agreement: all but biases do.
    pub(super) counts: bool,
    /// The senders' values; none for a sender without this group.
    pub(super) rows: Vec<Option<Row<'a>>>,
    /// Their norms; none where a sender has no values or only zeros.
    pub(super) norms: Vec<Option<Norm>>,
    /// The cosines between them, `[senders, senders]`: 1 on the diagonal, 0 where one of the two has no norm.
    pub(super) cosines: Square,
}

impl<'a> Tensor<'a> {
    /// Measures group `at` of `senders`.
    pub(super) fn measure(
        charter: &Charter,
        at: usize,
        shape: &GroupShape,
        senders: &[&Sender<'a>],
        threads: usize,
    ) -> Self {
        let values = shape.values();
        let rows: Vec<_> = senders.iter().map(|sender| Row::new(charter, sender, at, values)).collect();
        let count = rows.len();
        let gram = gram(values, &rows, threads);
        let exponent = |row: &Row<'_>| charter.codec.exponent_min.saturating_add(row.shift as i16);
        let norm = |(at, row): (usize, &Option<Row<'_>>)| Norm::new(gram[at * count + at], exponent(&(*row)?));
        let norms: Vec<_> = rows.iter().enumerate().map(norm).collect();
        // Exponents cancel in a cosine.
        let roots: Vec<f64> = (0..count).map(|at| (gram[at * count + at] as f64).sqrt()).collect();
        let cosines = Square::from_fn(count, |row, column| {
            let (low, high) = (row.min(column), row.max(column));
            match (&norms[low], &norms[high]) {
                (Some(_), Some(_)) if low == high => 1.0,
                (Some(_), Some(_)) => (gram[high * count + low] as f64 / (roots[low] * roots[high])).clamp(-1.0, 1.0),
                _ => 0.0,
            }
        });
        Self { values, counts: shape.kind != Kind::Bias, rows, norms, cosines }
    }

    /// The mean cosine between two senders that both have a norm here; none with fewer than two of them.
    pub(super) fn agreement(&self) -> Option<f64> {
        let speaking: Vec<usize> = (0..self.norms.len()).filter(|at| self.norms[*at].is_some()).collect();
        let (mut sum, mut pairs) = (0.0, 0.0);
        for (place, row) in speaking.iter().enumerate() {
            for column in &speaking[..place] {
                sum += self.cosines.at(*row, *column);
                pairs += 1.0;
            }
        }
        (pairs > 0.0).then(|| sum / pairs)
    }
}

impl<'a> Row<'a> {
    /// Group `at` of a sender, where it is what the codec lets through.
    fn new(charter: &Charter, sender: &Sender<'a>, at: usize, values: usize) -> Option<Self> {
        let codec = &charter.codec;
        let group = sender.groups.get(at)?;
        let largest = group.mantissas.iter().fold(0, |largest, m| m.unsigned_abs().max(largest));
        let fits = group.mantissas.len() == values
            && (codec.exponent_min..=codec.exponent_max).contains(&group.exponent)
            && largest < 1 << limits::MANTISSA_BITS;
        let shift = u32::try_from(group.exponent.saturating_sub(codec.exponent_min)).ok()?;
        (fits && shift <= limits::EXPONENT_RANGE_MAX as u32).then_some(Self {
            shift,
            mantissas: &group.mantissas,
            largest,
        })
    }
}

/// The inner products of all rows' mantissas, `[rows, rows]`, exactly; the lower triangle is filled.
///
/// A block of 4,096 products of 23-bit mantissas stays below 2^58. Both blocks of a pair (32 KB) are in the first
/// cache while they are multiplied.
fn gram(values: usize, rows: &[Option<Row<'_>>], threads: usize) -> Vec<i128> {
    let count = rows.len();
    let total = Mutex::new(vec![0i128; count * count]);
    let blocks: Vec<usize> = (0..values).step_by(limits::GRAM_BLOCK).collect();
    parallel::for_each(blocks, threads, |start| {
        let end = values.min(start + limits::GRAM_BLOCK);
        let block: Vec<&[i32]> = rows
            .iter()
            .map(|row| row.filter(|row| row.largest > 0).map_or(&[][..], |row| &row.mantissas[start..end]))
            .collect();
        let mut partial = vec![0i64; count * count];
        for (i, left) in block.iter().enumerate() {
            for (j, right) in block[..=i].iter().enumerate() {
                partial[i * count + j] = left.iter().zip(*right).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
            }
        }
        // Integer sums don't depend on which block comes first.
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        total.iter_mut().zip(&partial).for_each(|(total, partial)| *total += i128::from(*partial));
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesis::samples::Numbers;

    #[test]
    fn the_gram_matrix_is_exact_at_the_largest_mantissas() {
        let values = limits::MIXTURE_VALUES_MAX;
        let most = (1 << limits::MANTISSA_BITS) - 1;
        let mut numbers = Numbers::new(1);
        let data: Vec<Vec<i32>> = vec![
            vec![most; values],
            vec![-most; values],
            (0..values).map(|_| (numbers.bits() % (2 * most as u64)) as i32 - most).collect(),
            vec![0; values],
        ];
        let row = |mantissas: &'_ Vec<i32>| mantissas.iter().fold(0, |most, m| m.unsigned_abs().max(most));
        let rows: Vec<_> =
            data.iter().map(|m| Some(Row { shift: 0, mantissas: m, largest: row(m) })).chain([None]).collect();
        for threads in [1, 2, 5] {
            let gram = gram(values, &rows, threads);
            for i in 0..5 {
                for j in 0..=i {
                    let products = |i: usize, j: usize| data[i].iter().zip(&data[j]);
                    let exact: i128 =
                        if i == 4 { 0 } else { products(i, j).map(|(a, b)| i128::from(*a) * i128::from(*b)).sum() };
                    assert_eq!(gram[i * 5 + j], exact, "{i} {j}");
                }
            }
        }
    }
}
