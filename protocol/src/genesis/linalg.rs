//! Small dense linear algebra in scalar f64: only + - * / and square roots, in one order, so that every machine gets
//! the same bits. A tensor library's would differ from one instruction set to the next.

/// A square matrix, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Square {
    size: usize,
    values: Vec<f64>,
}

/// Sweeps of the cyclic Jacobi method. It converges quadratically: random kernels of 128 and 256 anchors have nothing
/// left to rotate after 9 or 10, and such a sweep costs next to nothing.
const JACOBI_SWEEPS: usize = 12;

/// What an off-diagonal entry may be, relative to the largest diagonal one, to count as zero: 2^-56.
const JACOBI_NEGLIGIBLE: f64 = 1.0 / (1u64 << 56) as f64;

impl Square {
    /// The matrix of zeros, `[size, size]`.
    pub(crate) fn zeros(size: usize) -> Self {
        Self { size, values: vec![0.0; size * size] }
    }

    /// The matrix with `value(row, column)` in each place.
    pub(crate) fn from_fn(size: usize, mut value: impl FnMut(usize, usize) -> f64) -> Self {
        let values = (0..size * size).map(|at| value(at / size, at % size)).collect();
        Self { size, values }
    }

    /// How many rows it has.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The entry at (`row`, `column`).
    pub(crate) fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.size + column]
    }

    /// Replaces the entry at (`row`, `column`).
    pub(crate) fn set(&mut self, row: usize, column: usize, value: f64) {
        self.values[row * self.size + column] = value;
    }

    /// One row.
    pub(crate) fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.size..(row + 1) * self.size]
    }

    /// Rotates rows p < q: (p, q) becomes (c p - s q, s p + c q).
    fn rotate_rows(&mut self, p: usize, q: usize, cosine: f64, sine: f64) {
        let size = self.size;
        let (head, tail) = self.values.split_at_mut(q * size);
        for (a, b) in head[p * size..(p + 1) * size].iter_mut().zip(&mut tail[..size]) {
            (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
        }
    }
}

/// a . b, summed from the first entry to the last.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

/// The lower triangle L with L L^T = `matrix` (symmetric; only its lower triangle is read), or nothing where the
/// matrix isn't positive definite to working precision.
pub(crate) fn cholesky(matrix: &Square) -> Option<Square> {
    let size = matrix.size();
    let mut lower = Square::zeros(size);
    for row in 0..size {
        for column in 0..=row {
            let known = dot(&lower.row(row)[..column], &lower.row(column)[..column]);
            let rest = matrix.at(row, column) - known;
            if row != column {
                lower.set(row, column, rest / lower.at(column, column));
            } else if rest.is_finite() && rest > 0.0 {
                lower.set(row, row, rest.sqrt());
            } else {
                return None;
            }
        }
    }
    Some(lower)
}

/// Solves L L^T x = `right` for the `lower` triangle L that [`cholesky`] gave.
pub(crate) fn solve(lower: &Square, right: &[f64]) -> Vec<f64> {
    let size = lower.size();
    let mut x = right.to_vec();
    for row in 0..size {
        x[row] = (x[row] - dot(&lower.row(row)[..row], &x[..row])) / lower.at(row, row);
    }
    for row in (0..size).rev() {
        let known = (row + 1..size).fold(0.0, |sum, below| sum + lower.at(below, row) * x[below]);
        x[row] = (x[row] - known) / lower.at(row, row);
    }
    x
}

/// The eigenvalues of a symmetric matrix, largest first, and their unit eigenvectors as rows, by the cyclic Jacobi
/// method (Golub and Van Loan, Matrix Computations, section 8.5). Equal eigenvalues keep the order of their places.
pub(crate) fn eigen(mut matrix: Square) -> (Vec<f64>, Square) {
    let size = matrix.size();
    let mut vectors = Square::from_fn(size, |row, column| f64::from(u8::from(row == column)));
    let largest = (0..size).fold(0f64, |largest, at| largest.max(matrix.at(at, at).abs()));
    for _ in 0..JACOBI_SWEEPS {
        for p in 0..size {
            for q in p + 1..size {
                if matrix.at(p, q).abs() > largest * JACOBI_NEGLIGIBLE {
                    rotate(&mut matrix, &mut vectors, p, q);
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|a, b| matrix.at(*b, *b).total_cmp(&matrix.at(*a, *a)));
    let values = order.iter().map(|at| matrix.at(*at, *at)).collect();
    (values, Square::from_fn(size, |row, column| vectors.at(order[row], column)))
}

/// One Jacobi rotation, which makes the entry at (p, q) zero.
fn rotate(matrix: &mut Square, vectors: &mut Square, p: usize, q: usize) {
    let (app, aqq, apq) = (matrix.at(p, p), matrix.at(q, q), matrix.at(p, q));
    let theta = (aqq - app) / (2.0 * apq);
    // The smaller of the two roots. A theta whose square overflows gives 0, which is what it should be.
    let root = 1.0 / (theta.abs() + (theta * theta + 1.0).sqrt());
    let tangent = if theta < 0.0 { -root } else { root };
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    matrix.rotate_rows(p, q, cosine, sine);
    matrix.set(p, p, app - tangent * apq);
    matrix.set(q, q, aqq + tangent * apq);
    matrix.set(p, q, 0.0);
    matrix.set(q, p, 0.0);
    for k in 0..matrix.size() {
        let (kp, kq) = (matrix.at(p, k), matrix.at(q, k));
        matrix.set(k, p, kp);
        matrix.set(k, q, kq);
    }
    vectors.rotate_rows(p, q, cosine, sine);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesis::samples::Numbers;

    fn random(size: usize, seed: u64) -> Square {
        let mut numbers = Numbers::new(seed);
        let raw = Square::from_fn(size, |_, _| numbers.signed());
        Square::from_fn(size, |i, j| raw.at(i, j) + raw.at(j, i))
    }

    #[test]
    fn eigenvectors_rebuild_the_matrix() {
        for (size, seed) in [(1, 1), (2, 2), (7, 3), (40, 4), (128, 5)] {
            let matrix = random(size, seed);
            let (values, vectors) = eigen(matrix.clone());
            assert!(values.is_sorted_by(|a, b| a >= b));
            for i in 0..size {
                for j in 0..size {
                    let rebuilt = (0..size).fold(0.0, |s, k| s + vectors.at(k, i) * values[k] * vectors.at(k, j));
                    assert!((rebuilt - matrix.at(i, j)).abs() < 1e-12 * size as f64, "{size}: {i} {j}");
                    let inner = dot(vectors.row(i), vectors.row(j));
                    assert!((inner - f64::from(u8::from(i == j))).abs() < 1e-12, "{size}: {i} {j}");
                }
            }
        }
    }

    #[test]
    fn a_known_spectrum() {
        let matrix = Square { size: 2, values: vec![2.0, 1.0, 1.0, 2.0] };
        let (values, vectors) = eigen(matrix);
        assert!((values[0] - 3.0).abs() < 1e-15 && (values[1] - 1.0).abs() < 1e-15);
        assert!((vectors.at(0, 0).abs() - 0.5f64.sqrt()).abs() < 1e-15);
        let (values, _) = eigen(Square::zeros(3));
        assert_eq!(values, [0.0; 3]);
    }

    #[test]
    fn cholesky_solves_and_knows_when_it_cannot() {
        let raw = random(9, 6);
        let matrix = Square::from_fn(9, |i, j| dot(raw.row(i), raw.row(j)) + f64::from(u8::from(i == j)));
        let right: Vec<f64> = (0..9).map(|k| k as f64 - 3.0).collect();
        let x = solve(&cholesky(&matrix).unwrap(), &right);
        for (row, value) in right.iter().enumerate() {
            assert!((dot(matrix.row(row), &x) - value).abs() < 1e-9);
        }
        assert_eq!(cholesky(&Square::zeros(2)), None);
        assert_eq!(cholesky(&Square { size: 2, values: vec![1.0, 2.0, 2.0, 1.0] }), None);
        assert_eq!(cholesky(&Square { size: 1, values: vec![f64::NAN] }), None);
    }
}
