//! The trimmed mean (Yin et al. 2018): coordinate by coordinate, without the smallest and the largest values.

use super::{
    fixed::{round_ratio, saturate},
    parallel,
    tensor::Row,
};
use crate::limits;

/// The mean of what is left of each coordinate without its `drop` lowest and highest values, rounded once, half to
/// even; in units of the charter's smallest power of two. At least the middle one or two values stay. Saturates.
pub(super) fn mean(values: usize, rows: &[Row<'_>], drop: usize, threads: usize) -> Vec<i64> {
    let mut step = vec![0i64; values];
    if rows.is_empty() {
        return step;
    }
    let drop = drop.min((rows.len() - 1) / 2);
    let left = (rows.len() - 2 * drop) as i128;
    let blocks: Vec<_> = step.chunks_mut(limits::GRAM_BLOCK).enumerate().collect();
    parallel::for_each(blocks, threads, |(block, step)| {
        let start = block * limits::GRAM_BLOCK;
        let mut columns = vec![0i128; step.len() * rows.len()];
        for (at, row) in rows.iter().enumerate() {
            let cells = columns.iter_mut().skip(at).step_by(rows.len());
            // 23 bits and a shift of 60; 64 of them add 6.
            cells.zip(row.values(start)).for_each(|(cell, m)| *cell = i128::from(m) << row.shift);
        }
        for (step, column) in step.iter_mut().zip(columns.chunks_exact_mut(rows.len())) {
            column.sort_unstable();
            let sum = column[drop..rows.len() - drop].iter().sum();
            *step = saturate(round_ratio(sum, left));
        }
    });
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Mantissas;

    #[test]
    fn by_hand_on_one_scale() {
        let data = [vec![1, 7], vec![-100, 7], vec![2, 7], vec![3, 7], vec![100, 7]].map(Mantissas::from);
        // The fourth is doubled twice: 12, 28.
        let row = |(at, mantissas)| Row { shift: if at == 3 { 2 } else { 0 }, mantissas, largest: 100 };
        let rows: Vec<_> = data.iter().enumerate().map(row).collect();
        // (1 + 2 + 12) / 3; (1 - 100 + 2 + 12 + 100) / 5; the middle one; 49 / 5.
        assert_eq!([0, 1, 9].map(|drop| mean(2, &rows, drop, 1)), [[3, 11], [5, 7], [2, 7]]);
        // Of four the middle two, half to even: (1 + 2) / 2.
        assert_eq!(mean(2, &rows[..4], 9, 1), [2, 7]);
        assert_eq!(mean(2, &[], 1, 1), [0, 0]);
    }
}
