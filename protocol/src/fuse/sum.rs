//! The one big loop: a weighted integer sum of all senders' values of a group.

use super::{
    fixed::{self, round_fraction, saturate},
    parallel,
    tensor::Row,
};
use crate::{limits, mixture::power_of_two};

/// The sum of `weights[i]` times row i, in units of the charter's smallest power of two: exact but for the rounding of
/// the weights (see [`factor`]) and one last rounding, both half to even. Saturates.
pub(super) fn weighted(values: usize, rows: &[Option<Row<'_>>], weights: &[f64], threads: usize) -> Vec<i64> {
    let terms: Vec<(&[i32], i128)> = rows
        .iter()
        .zip(weights)
        .filter_map(|(row, weight)| row.map(|row| (row.mantissas, factor(&row, *weight, rows.len()))))
        .filter(|(_, factor)| *factor != 0)
        .collect();
    let mut sum = vec![0i64; values];
    let blocks: Vec<_> = sum.chunks_mut(limits::GRAM_BLOCK).enumerate().collect();
    parallel::for_each(blocks, threads, |(block, sum)| {
        let start = block * limits::GRAM_BLOCK;
        let mut exact = [0i128; limits::GRAM_BLOCK];
        for (mantissas, factor) in &terms {
            let mantissas = &mantissas[start..start + sum.len()];
            exact.iter_mut().zip(mantissas).for_each(|(exact, m)| *exact += i128::from(*m) * factor);
        }
        sum.iter_mut().zip(&exact).for_each(|(sum, exact)| *sum = saturate(round_fraction(*exact)));
    });
    sum
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
fn factor(row: &Row<'_>, weight: f64, senders: usize) -> i128 {
    let taken = fixed::bits(row.largest.into()) + fixed::bits(senders as u64);
    let most = 1i128 << 126u32.saturating_sub(taken);
    // Exact: an f64 that is an integer, and shifts of 60 at most. Saturating beyond i128.
    let shifted = weight * power_of_two(row.shift as i16) * fixed::ONE as f64;
    (shifted.round_ties_even() as i128).clamp(-most, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirds_make_a_whole_and_halves_round_to_even() {
        let one = [6, -6, 1, -1, 3, -3];
        let row = |shift| Some(Row { shift, mantissas: &one, largest: 6 });
        assert_eq!(weighted(6, &[row(0)], &[1.0], 1), [6, -6, 1, -1, 3, -3]);
        assert_eq!(weighted(6, &[row(0)], &[0.5], 1), [3, -3, 0, 0, 2, -2]);
        assert_eq!(weighted(6, &[row(0), None, row(2)], &[0.5, 9.0, 0.25], 1), [9, -9, 2, -2, 4, -4]);
        assert_eq!(weighted(6, &[row(0); 3], &[1.0 / 3.0; 3], 2), one.map(i64::from));
    }

    #[test]
    fn the_largest_terms_saturate_instead_of_wrapping() {
        let most = (1 << 23) - 1;
        let mantissas = vec![most, -most];
        let row = Some(Row { shift: 60, mantissas: &mantissas, largest: most as u32 });
        for weight in [1.0, 1e3, 1e30, f64::MAX] {
            assert_eq!(weighted(2, &[row; 64], &[weight; 64], 1), [i64::MAX, i64::MIN]);
        }
        // Bringing the largest update down to one unit doesn't round it away, nor does lifting a unit.
        assert_eq!(weighted(2, &[row], &[power_of_two(-83)], 1), [1, -1]);
        assert_eq!(weighted(2, &[row], &[power_of_two(-82)], 1), [2, -2]);
        let ones = [1, -1];
        let tiny = Some(Row { shift: 0, mantissas: &ones, largest: 1 });
        assert_eq!(weighted(2, &[tiny, None], &[power_of_two(62), 1.0], 1), [1 << 62, -(1 << 62)]);
    }
}
