//! Matrix products of plain values, into memory that is there already.

use candle_core::{Result, bail};
use gemm::Parallelism;

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
    #[allow(unsafe_code)]
    // SAFETY: the three matrices lie within their slices, as was just seen; `into` is borrowed for this alone.
    unsafe {
        write(into.as_mut_ptr(), step, how == Into::Add, a, b, all_threads);
    }
    Ok(())
}

/// A B in memory of its own, row by row, by all threads. Nothing is written there before.
///
/// # Errors
/// Matrices that do not fit each other.
pub(super) fn product(a: View<'_>, b: View<'_>) -> Result<Vec<f32>> {
    let fit = [(a.reach(), a.values.len()), (b.reach(), b.values.len())];
    if a.columns != b.rows || fit.iter().any(|(reach, len)| reach > len) {
        bail!("a product of [{}, {}] and [{}, {}] does not fit", a.rows, a.columns, b.rows, b.columns);
    }
    let size = a.rows * b.columns;
    if a.columns == 0 {
        return Ok(vec![0.0; size]);
    }
    let mut into = Vec::with_capacity(size);
    #[allow(unsafe_code)]
    // SAFETY: both matrices lie within their slices; `into` has room for the product, of which every value is written
    // before it counts.
    unsafe {
        write(into.as_mut_ptr(), b.columns, false, a, b, true);
        into.set_len(size);
    }
    Ok(into)
}

/// # Safety
/// `a` and `b` lie within their slices, and `into` has room for the rows of the product, `step` values apart.
#[allow(unsafe_code)]
unsafe fn write(into: *mut f32, step: usize, add: bool, a: View<'_>, b: View<'_>, all_threads: bool) {
    let threads = if all_threads { Parallelism::Rayon(0) } else { Parallelism::None };
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
            assert!(near(&product(View::new(&flat_a, 5, 7), View::new(&flat_b, 7, 6)).unwrap(), &first));
            let part = View::columns(&flat_wide[2..], 5, 7, 9);
            multiply((&mut into, 6), Into::Add, part, View::new(&flat_turned, 6, 7).t(), threads).unwrap();
            let second = wide.narrow(1, 2, 7).unwrap().matmul(&turned.t().unwrap()).unwrap();
            assert!(near(&into, &(first + second).unwrap()));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let values = [0f32; 12];
        let refused = |into: usize, a: View<'_>, b: View<'_>| {
            multiply((&mut vec![0f32; into], b.columns), Into::Set, a, b, false).is_err()
        };
        assert!(product(View::new(&values, 3, 4), View::new(&values, 3, 4)).is_err());
        assert!(product(View::new(&values, 4, 4), View::new(&values, 4, 3)).is_err());
        assert_eq!(product(View::new(&[], 2, 0), View::new(&[], 0, 3)).unwrap(), [0.0; 6]);
        let matrix = |rows, columns| View::new(&values, rows, columns);
        assert!(!refused(9, matrix(3, 4), matrix(4, 3)));
        assert!(refused(8, matrix(3, 4), matrix(4, 3)));
        assert!(refused(9, matrix(3, 4), matrix(3, 4)));
        assert!(refused(16, matrix(4, 4), matrix(4, 3)));
        assert!(refused(9, matrix(3, 4), matrix(4, 4)));
    }
}
