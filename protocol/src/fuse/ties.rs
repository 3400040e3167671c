//! TIES-merging (Yadav et al. 2023): trim, elect a sign, average those who agree with it.

use super::{
    fixed::{ONE, round_ratio, saturate},
    parallel, sum,
    tensor::Row,
};
use crate::limits;

/// Of its values each update keeps the largest fifth, as in the paper's experiments.
const KEPT_PART: usize = 5;

/// Per coordinate the mean of those values that have the sign of the sum of all, where of each row only the largest
/// fifth counts (more where several are equally large; zeros never), times its weight; in units of the charter's
/// smallest power of two. 0 where the sum is. Exact but for the rounding of the weights and one last rounding, both
/// half to even. Saturates.
pub(super) fn merge(values: usize, rows: &[Option<Row<'_>>], weights: &[f64], threads: usize) -> Vec<i64> {
    let terms: Vec<_> = rows
        .iter()
        .zip(weights)
        .filter_map(|(row, weight)| row.map(|row| (row, sum::factor(&row, *weight, rows.len()), threshold(&row))))
        .filter(|(_, factor, _)| *factor != 0)
        .collect();
    let mut step = vec![0i64; values];
    let blocks: Vec<_> = step.chunks_mut(limits::GRAM_BLOCK).enumerate().collect();
    parallel::for_each(blocks, threads, |(block, step)| {
        let start = block * limits::GRAM_BLOCK;
        // Per coordinate and sign: the sum and how many.
        let mut sides = vec![[(0i128, 0i128); 2]; step.len()];
        for (row, factor, threshold) in &terms {
            for (sides, m) in sides.iter_mut().zip(row.values(start)).filter(|(_, m)| m.unsigned_abs() >= *threshold) {
                let (sum, count) = &mut sides[usize::from(m < 0)];
                *sum += i128::from(m) * factor;
                *count += 1;
            }
        }
        for (step, [plus, minus]) in step.iter_mut().zip(&sides) {
            let (sum, count) = match plus.0 + minus.0 {
                0 => continue,
                elected if elected > 0 => plus,
                _ => minus,
            };
            *step = saturate(round_ratio(*sum, count * i128::from(ONE)));
        }
    });
    step
}

/// The smallest |m| among a row's largest fifth, and at least 1.
fn threshold(row: &Row<'_>) -> u32 {
    let mut sizes: Vec<u32> = row.values(0).map(i32::unsigned_abs).collect();
    let kept = sizes.len().div_ceil(KEPT_PART);
    match sizes.len().checked_sub(kept) {
        Some(place) if kept > 0 => (*sizes.select_nth_unstable(place).1).max(1),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Mantissas;

    #[test]
    fn by_hand() {
        // Of ten values two count: the rest is below them, or zero.
        let with = |first: i32, second: i32| Mantissas::from([vec![first, second, 2, -2], vec![0; 6]].concat());
        let data = [with(10, 9), with(-4, 7), with(8, -30), with(5, 0)];
        let row = |mantissas| Some(Row { shift: 0, mantissas, largest: 30 });
        let rows: Vec<_> = data.iter().map(row).chain([None]).collect();
        // 10 - 4 + 8 + 5 > 0: (10 + 8 + 5) / 3. 9 + 7 - 30 < 0: -30. The last row's second largest are both of 2 and -2.
        assert_eq!(merge(10, &rows, &[1.0; 5], 1), [8, -30, 2, -2, 0, 0, 0, 0, 0, 0]);
        // The clip is a weight: 10, -2, 4, 5 and 9, 3.5, -15.
        assert_eq!(merge(10, &rows, &[1.0, 0.5, 0.5, 1.0, 1.0], 1)[..2], [6, -15]);
        assert_eq!(merge(10, &rows[..2], &[0.5, 1.25], 1)[0], 0, "torn");
    }
}
