//! The geometric median (Weiszfeld 1937): the point whose distances to all updates have the smallest sum.

use super::voices::Voices;
use crate::genesis::linalg::{Square, dot};

/// Weiszfeld's steps. Always all of them: a test of convergence would be one more thing to agree on.
const STEPS: usize = 64;

/// No distance counts as less than this, in units of the median norm: at an update itself the weight would be
/// infinite. Far above the rounding of a distance, 1e-8 of the norms.
const DISTANCE_MIN: f64 = 1e-6;

/// The coefficients of the voices as unit vectors: of y = sum_i w_i g_i with w_i proportional to 1 / |g_i - y|, from
/// the mean on. All of it in Gram space: |g_i - y|^2 = K_ii - 2 (K w)_i + w'K w.
pub(super) fn coefficients(voices: &Voices) -> Vec<f64> {
    coefficients_of(&voices.clipped, &voices.cosines)
}

fn coefficients_of(norms: &[f64], cosines: &Square) -> Vec<f64> {
    let count = norms.len();
    let gram = Square::from_fn(count, |row, column| norms[row] * norms[column] * cosines.at(row, column));
    let mut weights = vec![1.0 / count as f64; count];
    for _ in 0..STEPS {
        let inner: Vec<f64> = (0..count).map(|at| dot(gram.row(at), &weights)).collect();
        let square = dot(&inner, &weights);
        let distance = |at: usize| (gram.at(at, at) - 2.0 * inner[at] + square).max(0.0).sqrt().max(DISTANCE_MIN);
        let pulls: Vec<f64> = (0..count).map(|at| 1.0 / distance(at)).collect();
        let total = pulls.iter().fold(0.0, |sum, pull| sum + pull);
        weights = pulls.iter().map(|pull| pull / total).collect();
    }
    weights.iter().zip(norms).map(|(weight, norm)| weight * norm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fermat_point_and_a_majority() {
        // Corners of an equilateral triangle with the origin in it: by symmetry the origin is nearest to all.
        let cosines = Square::from_fn(3, |row, column| if row == column { 1.0 } else { -0.5 });
        let equal = coefficients_of(&[1.0; 3], &cosines);
        assert!(equal.iter().all(|weight| (weight - 1.0 / 3.0).abs() < 1e-12), "{equal:?}");
        // Three that stand in one place outvote two, wherever those are.
        let same = |row: usize, column: usize| if (row < 3) == (column < 3) { 1.0 } else { -1.0 };
        let majority = coefficients_of(&[1.0; 5], &Square::from_fn(5, same));
        assert!(majority[3] + majority[4] < 1e-4, "{majority:?}");
        assert_eq!(coefficients_of(&[0.5], &Square::from_fn(1, |_, _| 1.0)), [0.5]);
    }
}
