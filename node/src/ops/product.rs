//! Matrix products of plain values, into memory that is there already.

use candle_core::{Result, bail};
use gemm::Parallelism;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Rows of a product that are worth a thread of their own.
const SHARE: usize = 128;

/// A matrix in some values, by how far apart its rows and columns are.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a> View<'a> {
    /// A matrix whose rows follow each other.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { values, rows, columns, row_step: columns, column_step: 1 }
    }

    /// Some columns of a matrix that has `step` of them; `values` begin at the first.
    pub(super) fn columns(values: &'a [f32], rows: usize, columns: usize, step: usize) -> Self {
        Self { values, rows, columns, row_step: step, column_step: 1 }
    }

    /// The same with rows and columns exchanged.
    pub(super) fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_step: self.column_step, column_step: self.row_step, ..self }
    }

    /// Some of its rows.
    fn part(self, first: usize, rows: usize) -> Self {
        Self { values: self.values.get(first * self.row_step..).unwrap_or_default(), rows, ..self }
    }

    /// How many values it reaches over.
    fn reach(&self) -> usize {
        match (self.rows, self.columns) {
            (0, _) | (_, 0) => 0,
            (rows, columns) => (rows - 1) * self.row_step + (columns - 1) * self.column_step + 1,
        }
    }
}

/// What a product is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    /// What was there is overwritten.
    Set,
    /// It is added to what was there.
    Add,
}

/// A B into the rows of `into`, which are `step` values apart; by all threads, or where it is one of many such products at
/// a time, by this one.
///
/// # Errors
/// Matrices that do not fit each other.
pub(super) fn multiply(
    into: (&mut [f32], usize),
    how: Into,
    a: View<'_>,
    b: View<'_>,
    all_threads: bool,
) -> Result<()> {
    let (into, step) = into;
    let (rows, inner, columns) = (a.rows, a.columns, b.columns);
    let reach = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * step + columns };
    let fit = [(a.reach(), a.values.len()), (b.reach(), b.values.len()), (reach, into.len())];
    if inner != b.rows || step < columns || fit.iter().any(|(reach, len)| reach > len) {
        bail!("a product of [{rows}, {inner}] and [{}, {columns}] does not fit what it is made of", b.rows);
    }
    let write = |into: &mut [f32], a, threads| {
        #[allow(unsafe_code)]
        // SAFETY: the three matrices lie within their slices, as was just seen; `into` is borrowed for this alone.
        unsafe {
            write(into.as_mut_ptr(), step, how == Into::Add, a, b, threads);
        }
    };
    match share(rows) {
        Some(share) if all_threads => {
            let parts = into.get_mut(..reach).unwrap_or_default().par_chunks_mut(share * step).enumerate();
            parts.for_each(|(part, into)| {
                write(into, a.part(part * share, share.min(rows - part * share)), Parallelism::None);
            });
        }
        _ => write(into, a, if all_threads { Parallelism::Rayon(0) } else { Parallelism::None }),
    }
    Ok(())
}

/// How many rows each thread takes where a product has many: threads that multiply side by side wait for each other
/// less than those that share one product. None where it has few.
fn share(rows: usize) -> Option<usize> {
    let threads = rayon::current_num_threads();
    (threads > 1 && rows >= SHARE * threads).then(|| rows.div_ceil(threads))
}

/// A B, plus `bias` in every row, behind what is in `into` already, row by row, by all threads. Nothing is written there
/// before.
///
/// # Errors
/// Matrices that do not fit each other.
pub(super) fn extend(into: &mut Vec<f32>, a: View<'_>, b: View<'_>, bias: Option<&[f32]>) -> Result<()> {
    let (before, (rows, columns)) = (into.len(), (a.rows, b.columns));
    let fit = [(a.reach(), a.values.len()), (b.reach(), b.values.len())];
    let biased = bias.is_none_or(|bias| bias.len() == columns);
    if a.columns != b.rows || !biased || fit.iter().any(|(reach, len)| reach > len) {
        bail!("a product of [{rows}, {}] and [{}, {columns}] does not fit what it is made of", a.columns, b.rows);
    }
    let size = rows * columns;
    if size == 0 {
        return Ok(());
    }
    into.reserve_exact(size);
    let room = into.spare_capacity_mut().get_mut(..size).unwrap_or_default();
    let zero;
    let first = match bias {
        // With nothing to add up the library leaves what is there.
        None if a.columns == 0 => {
            zero = vec![0f32; columns];
            Some(zero.as_slice())
        }
        bias => bias,
    };
    let write = |into: &mut [MaybeUninit<f32>], a, threads| {
        if let Some(first) = first {
            for row in into.chunks_exact_mut(columns) {
                row.iter_mut().zip(first).for_each(|(into, value)| *into = MaybeUninit::new(*value));
            }
        }
        #[allow(unsafe_code)]
        // SAFETY: both matrices lie within their slices; `into` has room for the product, and what is added to is written.
        unsafe {
            write(into.as_mut_ptr().cast(), columns, first.is_some(), a, b, threads);
        }
    };
    match share(rows) {
        Some(share) => room.par_chunks_mut(share * columns).enumerate().for_each(|(part, into)| {
            write(into, a.part(part * share, share.min(rows - part * share)), Parallelism::None);
        }),
        None => write(room, a, Parallelism::Rayon(0)),
    }
    #[allow(unsafe_code)]
    // SAFETY: every value behind the first ones was just written.
    unsafe {
        into.set_len(before + size);
    }
    Ok(())
}

/// # Safety
/// `a` and `b` lie within their slices, and `into` has room for the rows of the product, `step` values apart, which with
/// `add` have values already.
#[allow(unsafe_code)]
unsafe fn write(into: *mut f32, step: usize, add: bool, a: View<'_>, b: View<'_>, threads: Parallelism) {
    // SAFETY: as the caller says.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            into,
            1,
            step as isize,
            add,
            a.values.as_ptr(),
            a.column_step as isize,
            a.row_step as isize,
            b.values.as_ptr(),
            b.column_step as isize,
            b.row_step as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::noise;
    use candle_core::Tensor;

    fn flat(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn products_are_those_of_the_tensor_library() {
        let (a, b) = (noise(&[5, 7], 1), noise(&[7, 6], 2));
        let (wide, turned) = (noise(&[5, 9], 3), noise(&[6, 7], 4));
        let (flat_a, flat_b, flat_wide, flat_turned) = (flat(&a), flat(&b), flat(&wide), flat(&turned));
        for threads in [false, true] {
            let mut into = vec![f32::NAN; 30];
            multiply((&mut into, 6), Into::Set, View::new(&flat_a, 5, 7), View::new(&flat_b, 7, 6), threads).unwrap();
            let first = a.matmul(&b).unwrap();
            let near = |into: &[f32], other: &Tensor| into.iter().zip(flat(other)).all(|(x, y)| (x - y).abs() < 1e-5);
            assert!(near(&into, &first));
            let mut behind = vec![1.0; 2];
            extend(&mut behind, View::new(&flat_a, 5, 7), View::new(&flat_b, 7, 6), None).unwrap();
            assert!(behind[..2] == [1.0; 2] && near(&behind[2..], &first));
            let bias = noise(&[6], 5);
            let mut biased = Vec::new();
            extend(&mut biased, View::new(&flat_a, 5, 7), View::new(&flat_b, 7, 6), Some(&flat(&bias))).unwrap();
            assert!(near(&biased, &first.broadcast_add(&bias).unwrap()));
            let part = View::columns(&flat_wide[2..], 5, 7, 9);
            multiply((&mut into, 6), Into::Add, part, View::new(&flat_turned, 6, 7).t(), threads).unwrap();
            let second = wide.narrow(1, 2, 7).unwrap().matmul(&turned.t().unwrap()).unwrap();
            assert!(near(&into, &(first + second).unwrap()));
        }
    }

    #[test]
    fn threads_that_share_rows_compute_the_same() {
        let (rows, inner, columns) = (4 * SHARE + 5, 33, 47);
        let (a, b, bias) =
            (flat(&noise(&[rows, inner], 1)), flat(&noise(&[inner, columns], 2)), flat(&noise(&[columns], 3)));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (a, b) = (View::new(&a, rows, inner), View::new(&b, inner, columns));
                let mut all = Vec::new();
                extend(&mut all, a, b, Some(&bias)).unwrap();
                multiply((&mut all, columns), Into::Add, a, b, true).unwrap();
                all
            })
        };
        let one = run(1);
        assert!([2, 3, 4].into_iter().all(|threads| run(threads) == one));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let values = [0f32; 12];
        let refused = |into: usize, a: View<'_>, b: View<'_>| {
            multiply((&mut vec![0f32; into], b.columns), Into::Set, a, b, false).is_err()
        };
        let product = |a, b, bias: Option<&[f32]>| {
            let mut into = Vec::new();
            extend(&mut into, a, b, bias).map(|()| into)
        };
        assert!(product(View::new(&values, 3, 4), View::new(&values, 3, 4), None).is_err());
        assert!(product(View::new(&values, 4, 4), View::new(&values, 4, 3), None).is_err());
        assert!(product(View::new(&values, 3, 4), View::new(&values, 4, 3), Some(&[0.0; 4])).is_err());
        assert_eq!(product(View::new(&[], 2, 0), View::new(&[], 0, 3), None).unwrap(), [0.0; 6]);
        assert_eq!(
            product(View::new(&[], 2, 0), View::new(&[], 0, 2), Some(&[1.0, 2.0])).unwrap(),
            [1.0, 2.0, 1.0, 2.0]
        );
        let matrix = |rows, columns| View::new(&values, rows, columns);
        assert!(!refused(9, matrix(3, 4), matrix(4, 3)));
        assert!(refused(8, matrix(3, 4), matrix(4, 3)));
        assert!(refused(9, matrix(3, 4), matrix(3, 4)));
        assert!(refused(16, matrix(4, 4), matrix(4, 3)));
        assert!(refused(9, matrix(3, 4), matrix(4, 4)));
    }
}
