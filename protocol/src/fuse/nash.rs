//! The Nash bargaining solution's weights (Navon et al. 2022): every update's gain counts by its logarithm, so that
//! none is bought with another's loss.

use crate::genesis::linalg::{Square, cholesky, dot, solve};

/// Added to the diagonal, so that updates that cancel each other still have a solution.
const RIDGE: f64 = 1e-3;

/// Newton steps. Always all of them: a test of convergence would be one more thing to agree on. Updates that are nearly
/// orthogonal are there after 6; the slowest of 648 random sets (2 to 64 updates of rank 1 to 200, a quarter of them
/// negated) took 53. A step of 64 updates is some 100,000 multiplications.
const STEPS: usize = 64;

/// How often a step may be halved to keep weights positive. A damped step needs none but for rounding.
const HALVINGS: usize = 20;

/// Weights a > 0 with M a = 1/a, where M is the `cosines` (1 on the diagonal) plus a ridge: the one minimum of
/// a'Ma / 2 - sum log a, by damped Newton steps of 1 / (1 + decrement). The function is self-concordant, so that
/// these stay positive and converge from anywhere (Nesterov and Nemirovskii 1994).
pub(super) fn weights(cosines: &Square) -> Vec<f64> {
    let count = cosines.size();
    let matrix =
        Square::from_fn(count, |row, column| cosines.at(row, column) + if row == column { RIDGE } else { 0.0 });
    // The best of all equal weights. The sum is at least n RIDGE but for rounding, since cosines are a Gram matrix.
    let sum = (0..count).flat_map(|row| matrix.row(row)).fold(0.0, |sum, value| sum + value);
    let start = (count as f64 / sum.max(RIDGE * count as f64)).sqrt();
    let mut weights = vec![start; count];
    for _ in 0..STEPS {
        let gradient: Vec<f64> = (0..count).map(|at| dot(matrix.row(at), &weights) - 1.0 / weights[at]).collect();
        let hessian = Square::from_fn(count, |row, column| {
            let curvature = if row == column { 1.0 / (weights[row] * weights[row]) } else { 0.0 };
            matrix.at(row, column) + curvature
        });
        // Positive definite: a Gram matrix plus a positive diagonal.
        let Some(lower) = cholesky(&hessian) else { break };
        let direction = solve(&lower, &gradient);
        let decrement = dot(&gradient, &direction).max(0.0).sqrt();
        let mut step = 1.0 / (1.0 + decrement);
        let moved = |step: f64| weights.iter().zip(&direction).map(|(w, d)| w - step * d).collect::<Vec<_>>();
        let mut next = moved(step);
        for _ in 0..HALVINGS {
            if next.iter().all(|weight| *weight > 0.0) {
                break;
            }
            step /= 2.0;
            next = moved(step);
        }
        if !next.iter().all(|weight| weight.is_finite() && *weight > 0.0) {
            break;
        }
        weights = next;
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesis::samples::Numbers;

    fn residual(cosines: &Square, weights: &[f64]) -> f64 {
        (0..weights.len()).fold(0.0, |worst, at| {
            let left = dot(cosines.row(at), weights) + RIDGE * weights[at];
            (left * weights[at] - 1.0).abs().max(worst)
        })
    }

    /// The cosines of `count` random vectors, the first of them `negated`.
    fn random(count: usize, width: usize, bias: f64, negated: usize) -> Square {
        let mut numbers = Numbers::new((count * 1000 + width) as u64);
        let unit = |at: usize| {
            let row: Vec<f64> = (0..width).map(|_| numbers.normal() + bias).collect();
            let norm = dot(&row, &row).sqrt() * if at < negated { -1.0 } else { 1.0 };
            row.iter().map(|v| v / norm).collect()
        };
        let rows: Vec<Vec<f64>> = (0..count).map(unit).collect();
        Square::from_fn(count, |i, j| if i == j { 1.0 } else { dot(&rows[i], &rows[j]) })
    }

    #[test]
    fn they_solve_the_equation() {
        for count in [1, 2, 8, 64] {
            for (width, bias) in [(1, 0.0), (3, 0.0), (3, 2.0), (6, 0.3), (200, 0.0), (200, 0.3)] {
                for negated in [0, count / 4] {
                    let cosines = random(count, width, bias, negated);
                    let worst = residual(&cosines, &weights(&cosines));
                    assert!(worst < 1e-9, "{count} {width} {bias} {negated}: {worst}");
                }
            }
        }
    }

    #[test]
    fn two_of_them_in_closed_form() {
        // By symmetry a_1 = a_2 = 1 / sqrt(1 + cosine + ridge).
        for cosine in [-1.0, -0.5, 0.0, 0.9, 1.0] {
            let cosines = Square::from_fn(2, |i, j| if i == j { 1.0 } else { cosine });
            let expected = 1.0 / (1.0 + cosine + RIDGE).sqrt();
            weights(&cosines).iter().for_each(|weight| assert!((weight - expected).abs() < 1e-9 * expected));
        }
    }
}
