//! The other big loop: the inner products of all senders' mantissas of a group, exactly.

use super::{parallel, tensor::Row};
use crate::{codec::Mantissas, limits};
use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

/// The inner products of all rows' mantissas, `[rows, rows]`, exactly; the lower triangle is filled, with 0 where
/// there is no row.
///
/// Blocks of 4,096 values are multiplied as they lie in the cache. Where all mantissas are bytes, in 16 bits with sums
/// in 32, which any vector unit does eight at a time: 7 + 7 + 12 bits and a sign.
pub(super) fn gram(values: usize, rows: &[Option<Row<'_>>], threads: usize) -> Vec<i128> {
    let count = rows.len();
    let present: Vec<(usize, &Mantissas)> =
        rows.iter().enumerate().filter_map(|(at, row)| row.map(|row| (at, row.mantissas))).collect();
    let narrow = present.iter().all(|(_, mantissas)| matches!(mantissas, Mantissas::Narrow(_)));
    let total = Mutex::new(vec![0i128; count * count]);
    let blocks: Vec<usize> = (0..values).step_by(limits::GRAM_BLOCK).collect();
    parallel::for_each(blocks, threads, |start| {
        let range = start..values.min(start + limits::GRAM_BLOCK);
        let partial = if narrow {
            products(&present, range, |m| m as i16, dot_narrow)
        } else {
            products(&present, range, |m| m, dot_wide)
        };
        // Integer sums don't depend on which block comes first.
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        for ((row, column), product) in partial {
            total[row * count + column] += i128::from(product);
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The inner products within one block, by row and column.
fn products<T: Copy>(
    rows: &[(usize, &Mantissas)],
    range: Range<usize>,
    convert: impl Fn(i32) -> T,
    dot: impl Fn(&[T], &[T]) -> i64,
) -> Vec<((usize, usize), i64)> {
    let values = range.len();
    let mut block = Vec::with_capacity(rows.len() * values);
    for (_, mantissas) in rows {
        match mantissas {
            Mantissas::Narrow(mantissas) => block.extend(mantissas[range.clone()].iter().map(|m| convert((*m).into()))),
            Mantissas::Wide(mantissas) => block.extend(mantissas[range.clone()].iter().map(|m| convert(*m))),
        }
    }
    let block: Vec<&[T]> = block.chunks_exact(values).collect();
    let mut products = Vec::with_capacity(rows.len() * (rows.len() + 1) / 2);
    for (i, left) in block.iter().enumerate() {
        for (j, right) in block[..=i].iter().enumerate() {
            products.push(((rows[i].0, rows[j].0), dot(left, right)));
        }
    }
    products
}

/// a . b for a block of bytes. Sums of 32, four of them at a time, are written out for the compiler's sake: from a
/// plain sum it makes instructions that multiply four pairs instead of eight, and takes 2.5 times as long.
fn dot_narrow(a: &[i16], b: &[i16]) -> i64 {
    let dot = |a: &[i16], b: &[i16]| a.iter().zip(b).fold(0i32, |sum, (a, b)| sum + i32::from(*a) * i32::from(*b));
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
    let ((a, a_few), (b, b_few)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let fours = a.iter().zip(b).fold(0, |sum, ([a0, a1, a2, a3], [b0, b1, b2, b3])| {
        sum + dot(a0, b0) + dot(a1, b1) + dot(a2, b2) + dot(a3, b3)
    });
    let few = a_few.iter().zip(b_few).fold(0, |sum, (a, b)| sum + dot(a, b));
    (fours + few + dot(a_rest, b_rest)).into()
}

/// a . b for a block of 23-bit mantissas: 23 + 23 + 12 bits.
fn dot_wide(a: &[i32], b: &[i32]) -> i64 {
    a.iter().zip(b).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesis::samples::Numbers;

    fn check(values: usize, data: &[Mantissas]) {
        let row = |mantissas| Some(Row { shift: 0, mantissas, largest: 1 << limits::MANTISSA_BITS });
        let rows: Vec<_> = data.iter().map(row).chain([None]).collect();
        let count = rows.len();
        for threads in [1, 2, 5] {
            let gram = gram(values, &rows, threads);
            for i in 0..count {
                for j in 0..=i {
                    let products = || data[i].iter().zip(data[j].iter());
                    let exact: i128 =
                        if i == data.len() { 0 } else { products().map(|(a, b)| i128::from(a) * i128::from(b)).sum() };
                    assert_eq!(gram[i * count + j], exact, "{i} {j}");
                }
            }
        }
    }

    #[test]
    fn it_is_exact_at_the_largest_mantissas() {
        let values = limits::MIXTURE_VALUES_MAX;
        let mut numbers = Numbers::new(1);
        let mut random = |most: i32| (0..values).map(|_| (numbers.bits() % (2 * most as u64)) as i32 - most).collect();
        let most = (1 << limits::MANTISSA_BITS) - 1;
        let narrow = [vec![127; values].into(), vec![-128; values].into(), random(127), vec![0; values].into()];
        check(values, &narrow);
        let [a, b, c, d] = narrow;
        check(values, &[a, vec![most; values].into(), b, vec![-most; values].into(), random(most), c, d]);
    }
}
