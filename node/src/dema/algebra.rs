//! The little linear algebra that alignment and discriminants need: dense, f64, one thread, the same order every time.

use candle_core::{DType, Device, Result, Tensor};

/// A dense matrix, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// A matrix from its values, row by row. `None` where their number is not `rows` x `columns`.
    pub fn new(rows: usize, columns: usize, values: Vec<f64>) -> Option<Self> {
        (rows.checked_mul(columns) == Some(values.len())).then_some(Self { rows, columns, values })
    }

    /// A matrix of zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    /// The values of a tensor `[rows, columns]`.
    ///
    /// # Errors
    /// A tensor of another rank.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let (rows, columns) = tensor.dims2()?;
        Ok(Self { rows, columns, values: tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()? })
    }

    /// The values as an f32 tensor `[rows, columns]`.
    ///
    /// # Errors
    /// None that are known.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let values: Vec<f32> = self.values.iter().map(|value| *value as f32).collect();
        Tensor::from_vec(values, (self.rows, self.columns), &Device::Cpu)
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// All values, to be changed.
    pub fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// The rows one after another.
    pub fn iter(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.columns.max(1))
    }

    /// The rows one after another, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut [f64]> {
        self.values.chunks_exact_mut(self.columns.max(1))
    }

    /// The mean of each column.
    pub fn means(&self) -> Vec<f64> {
        let mut means = vec![0.0; self.columns];
        self.iter().for_each(|row| add(&mut means, row, 1.0 / self.rows as f64));
        means
    }

    /// The matrix less `means`, row by row.
    pub fn less(mut self, means: &[f64]) -> Self {
        self.iter_mut().for_each(|row| add(row, means, -1.0));
        self
    }

    /// The matrix times a number.
    pub fn times(mut self, factor: f64) -> Self {
        self.values.iter_mut().for_each(|value| *value *= factor);
        self
    }

    /// The sum of squares.
    pub fn square_sum(&self) -> f64 {
        self.values.iter().map(|value| value * value).sum()
    }

    /// A B.
    pub fn dot(&self, other: &Matrix) -> Matrix {
        let mut product = Matrix::zeros(self.rows, other.columns);
        for (row, out) in self.iter().zip(product.iter_mut()) {
            row.iter().zip(other.iter()).for_each(|(factor, line)| add(out, line, *factor));
        }
        product
    }

    /// A^T.
    pub fn transposed(&self) -> Matrix {
        let mut out = Matrix::zeros(self.columns, self.rows);
        for (i, row) in self.iter().enumerate() {
            row.iter()
                .zip(out.values.iter_mut().skip(i).step_by(self.rows.max(1)))
                .for_each(|(value, slot)| *slot = *value);
        }
        out
    }

    /// A A^T.
    pub fn gram(&self) -> Matrix {
        let values = self.iter().flat_map(|a| self.iter().map(move |b| inner(a, b))).collect();
        Matrix { rows: self.rows, columns: self.rows, values }
    }

    /// A + `amount` I, of a square matrix.
    pub fn ridged(mut self, amount: f64) -> Matrix {
        let step = self.columns + 1;
        self.values.iter_mut().step_by(step).for_each(|value| *value += amount);
        self
    }

    /// The mean of the diagonal of a square matrix.
    pub fn diagonal_mean(&self) -> f64 {
        self.values.iter().step_by(self.columns + 1).sum::<f64>() / self.rows.max(1) as f64
    }

    /// X of A X = `right`, where A is symmetric and positive definite, by Cholesky. A pivot that rounding made too
    /// small is lifted to 1e-14 of the largest diagonal value, so that a deficient rank gives a finite answer.
    pub fn solve(&self, right: &Matrix) -> Matrix {
        let n = self.rows;
        let largest = self.values.iter().step_by(n + 1).fold(1e-200, |a: f64, b| a.max(*b));
        let mut lower: Vec<Vec<f64>> = Vec::with_capacity(n);
        for (i, line) in self.iter().enumerate() {
            let mut row = Vec::with_capacity(i + 1);
            for (above, value) in lower.iter().zip(line) {
                let pivot = above.last().copied().unwrap_or(1.0);
                row.push((value - inner(&row, above)) / pivot);
            }
            let rest = line.get(i).copied().unwrap_or(0.0) - inner(&row, &row);
            row.push(rest.max(largest * 1e-14).sqrt());
            lower.push(row);
        }
        // L Y = right from the top, then L^T X = Y from the bottom, in place.
        let mut lines: Vec<Vec<f64>> = right.iter().map(<[f64]>::to_vec).collect();
        for (i, row) in lower.iter().enumerate() {
            let (done, rest) = lines.split_at_mut(i);
            let Some(line) = rest.first_mut() else { break };
            done.iter().zip(row).for_each(|(above, factor)| add(line, above, -factor));
            let pivot = row.last().copied().unwrap_or(1.0);
            line.iter_mut().for_each(|value| *value /= pivot);
        }
        for (i, row) in lower.iter().enumerate().rev() {
            let (above, rest) = lines.split_at_mut(i);
            let Some(line) = rest.first_mut() else { continue };
            let pivot = row.last().copied().unwrap_or(1.0);
            line.iter_mut().for_each(|value| *value /= pivot);
            above.iter_mut().zip(row).for_each(|(above, factor)| add(above, line, -factor));
        }
        Matrix { rows: n, columns: right.columns, values: lines.concat() }
    }
}

/// The inner product over the length of the shorter.
fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// a += factor b.
fn add(a: &mut [f64], b: &[f64], factor: f64) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += factor * b);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn noise(rows: usize, columns: usize, seed: u64) -> Matrix {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Matrix::new(rows, columns, (0..rows * columns).map(|_| rng.random_range(-1.0..1.0)).collect()).unwrap()
    }

    #[test]
    fn solutions_solve() {
        let (a, x) = (noise(9, 12, 1).gram(), noise(9, 4, 2));
        let found = a.solve(&a.dot(&x));
        found.values().iter().zip(x.values()).for_each(|(a, b)| assert!((a - b).abs() < 1e-8, "{a} is not {b}"));
    }

    #[test]
    fn a_deficient_rank_gives_a_finite_answer() {
        let a = noise(9, 3, 1).gram().ridged(1e-12);
        assert!(a.solve(&noise(9, 4, 2)).values().iter().all(|value| value.is_finite()));
        assert!(Matrix::zeros(3, 3).solve(&noise(3, 1, 3)).values().iter().all(|value| value.is_finite()));
    }

    #[test]
    fn products_and_transposes_agree() {
        let a = noise(4, 6, 1);
        assert_eq!(a.transposed().transposed(), a);
        let (gram, product) = (a.gram(), a.dot(&a.transposed()));
        gram.values().iter().zip(product.values()).for_each(|(a, b)| assert!((a - b).abs() < 1e-12));
    }

    #[test]
    fn centred_columns_have_no_mean() {
        let a = noise(7, 3, 1);
        let means = a.means();
        assert!(a.less(&means).means().iter().all(|mean| mean.abs() < 1e-12));
    }
}
