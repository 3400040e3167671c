//! CMGA's conflict-aware alignment, and the final scale.
//!
//! With n updates g_i of one tensor group, u_i = g_i / |g_i|, m the lower median norm and p_i = min(|g_i|, m) / m,
//! everything is done in the coefficients b_i of sum_i b_i u_i, and everything needed is in the cosines. At the end
//! the weight of g_i itself is b_i / (|g_i| / m).

use super::{nash, voices::Voices};
use crate::{
    charter::{Align, Fusion, Norms},
    genesis::linalg::Square,
};

/// Below this, relative to the sum of its parts' lengths, the squared length of a sum is rounding noise: it is zero.
const LENGTH_NEGLIGIBLE: f64 = 1e-12;

/// The coefficients of the voices of a tensor, as unit vectors.
pub(super) fn coefficients(fusion: &Fusion, voices: &Voices) -> Vec<f64> {
    align(fusion, &voices.clipped, &voices.cosines)
}

/// The coefficients of unit updates whose clipped norms are `clipped`: aligned, and scaled so that their sum is as
/// long as the mean of the clipped updates.
fn align(fusion: &Fusion, clipped: &[f64], cosines: &Square) -> Vec<f64> {
    if clipped.len() == 1 {
        // With nobody to align with it stays what it is, to the last bit.
        return clipped.to_vec();
    }
    let count = clipped.len() as f64;
    let mean: Vec<f64> = clipped.iter().map(|norm| norm / count).collect();
    let norms = match fusion.norms {
        Norms::Kept => clipped.to_vec(),
        Norms::Equal => vec![1.0; clipped.len()],
    };
    let coefficients = match fusion.align {
        Align::None => norms.iter().map(|norm| norm / count).collect(),
        Align::Pcgrad => pcgrad(&norms, cosines),
        // Bargaining knows directions only: its weights multiply unit updates whatever their norms.
        Align::Nash => nash::weights(cosines),
    };
    let (target, length) = (length(&mean, cosines), length(&coefficients, cosines));
    if length > 0.0 {
        let scale = target / length;
        coefficients.iter().map(|coefficient| coefficient * scale).collect()
    } else {
        vec![0.0; coefficients.len()]
    }
}

/// PCGrad (Yu et al. 2020) without its random order: g_i' = g_i - sum_j min(0, <g_i, g_j>) / |g_j|^2 g_j, all j at
/// once and from the originals, then the mean over i.
///
/// In coefficients: b_j = (|g_j| + sum_i |g_i| max(0, -cos_ij)) / n, which divides by no norm.
fn pcgrad(norms: &[f64], cosines: &Square) -> Vec<f64> {
    let count = norms.len() as f64;
    let coefficient = |(at, norm): (usize, &f64)| {
        let conflicts = norms.iter().zip(cosines.row(at));
        conflicts.fold(*norm, |sum, (other, cosine)| sum + other * (-cosine).max(0.0)) / count
    };
    norms.iter().enumerate().map(coefficient).collect()
}

/// The length of sum_i b_i u_i; exactly 0 where the parts cancel to rounding noise.
fn length(coefficients: &[f64], cosines: &Square) -> f64 {
    let (mut square, mut parts) = (0.0, 0.0);
    for (row, left) in coefficients.iter().enumerate() {
        for (cosine, right) in cosines.row(row).iter().zip(coefficients) {
            square += left * right * cosine;
        }
        parts += left.abs();
    }
    if square > LENGTH_NEGLIGIBLE * (parts * parts) { square.sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::charter;

    fn fusion(align: Align, norms: Norms) -> Fusion {
        Fusion { align, norms, ..charter(3).fusion }
    }

    fn pair(cosine: f64) -> Square {
        Square::from_fn(2, |row, column| if row == column { 1.0 } else { cosine })
    }

    #[test]
    fn pcgrad_of_two_by_hand() {
        // g_1 = 2 u_1, g_2 = u_2, cosine -1/2: g_1' = g_1 + g_2, g_2' = g_2 + g_1 / 4; mean (5/8) g_1 + g_2.
        assert_eq!(pcgrad(&[2.0, 1.0], &pair(-0.5)), [1.25, 1.0]);
        // Scaled from |1.25 u_1 + u_2|^2 = 1.3125 to |u_1 + u_2 / 2|^2 = 0.75.
        let aligned = align(&fusion(Align::Pcgrad, Norms::Kept), &[2.0, 1.0], &pair(-0.5));
        let scale = (0.75f64 / 1.3125).sqrt();
        assert!((aligned[0] - 1.25 * scale).abs() < 1e-15 && (aligned[1] - scale).abs() < 1e-15);
        // No conflict, no change.
        assert_eq!(align(&fusion(Align::Pcgrad, Norms::Kept), &[2.0, 1.0], &pair(0.3)), [1.0, 0.5]);
    }

    #[test]
    fn equal_norms_weigh_alike_at_the_same_length() {
        let aligned = align(&fusion(Align::None, Norms::Equal), &[1.0, 0.25], &pair(0.0));
        assert!((aligned[0] - aligned[1]).abs() < 1e-15);
        let target = (1.0f64 + 0.0625).sqrt() / 2.0;
        assert!((length(&aligned, &pair(0.0)) - target).abs() < 1e-15);
    }

    #[test]
    fn opposites_cancel_to_exactly_nothing() {
        for align_by in [Align::None, Align::Pcgrad, Align::Nash] {
            for cosine in [-1.0, -1.0 + f64::EPSILON] {
                assert_eq!(align(&fusion(align_by, Norms::Kept), &[1.0, 1.0], &pair(cosine)), [0.0, 0.0]);
            }
        }
        assert!(align(&fusion(Align::Nash, Norms::Kept), &[], &Square::zeros(0)).is_empty());
    }
}
