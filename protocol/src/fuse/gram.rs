//! The other big loop: the inner products of all senders' mantissas of a group, exactly.

use super::{dots, parallel, tensor::Row};
use crate::{codec::Mantissas, limits};
use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

/// The inner products of all rows' mantissas, `[rows, rows]`, exactly; the lower triangle is filled, with 0 where
/// there is no row. Block by block, as they lie in the cache.
pub(super) fn gram(values: usize, rows: &[Option<Row<'_>>], threads: usize) -> Vec<i128> {
    let count = rows.len();
    let present: Vec<(usize, &Mantissas)> =
        rows.iter().enumerate().filter_map(|(at, row)| row.map(|row| (at, row.mantissas))).collect();
    let narrow: Option<Vec<&[i8]>> = present
        .iter()
        .map(|(_, mantissas)| match mantissas {
            Mantissas::Narrow(bytes) => Some(bytes.as_slice()),
            Mantissas::Wide(_) => None,
        })
        .collect();
    let total = Mutex::new(vec![0i128; count * count]);
    let blocks: Vec<usize> = (0..values).step_by(limits::GRAM_BLOCK).collect();
    parallel::for_each(blocks, threads, |start| {
        let end = values.min(start + limits::GRAM_BLOCK);
        let mut partial = vec![0i64; present.len() * present.len()];
        let mut take = |row: usize, column: usize, product| partial[row * present.len() + column] = product;
        match &narrow {
            Some(rows) => {
                let parts: Vec<dots::Part> = rows.iter().map(|row| dots::part(&row[start..end])).collect();
                dots::products(&parts, |row, column, product| take(row, column, product.into()));
            }
            None => wide_products(&present, start..end, take),
        }
        // Integer sums don't depend on which block comes first.
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, product) in partial.into_iter().enumerate() {
            let (row, column) = (present[at / present.len()].0, present[at % present.len()].0);
            total[row * count + column] += i128::from(product);
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The same as [`dots::products`] where some mantissas don't fit a byte: 23 + 23 + 12 bits.
fn wide_products(rows: &[(usize, &Mantissas)], range: Range<usize>, mut take: impl FnMut(usize, usize, i64)) {
    let mut block: Vec<i32> = Vec::with_capacity(rows.len() * range.len());
    for (_, mantissas) in rows {
        match mantissas {
            Mantissas::Narrow(bytes) => block.extend(bytes[range.clone()].iter().map(|m| i32::from(*m))),
            Mantissas::Wide(mantissas) => block.extend(&mantissas[range.clone()]),
        }
    }
    let block: Vec<&[i32]> = block.chunks_exact(range.len()).collect();
    for (i, left) in block.iter().enumerate() {
        for (j, right) in block[..=i].iter().enumerate() {
            take(i, j, left.iter().zip(*right).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum());
        }
    }
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
