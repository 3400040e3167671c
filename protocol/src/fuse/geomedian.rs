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
    let norms = &voices.clipped;
    let count = norms.len();
    let gram = Square::from_fn(count, |row, column| norms[row] * norms[column] * voices.cosines.at(row, column));
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
