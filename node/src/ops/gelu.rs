//! GELU, in one pass forward and one backward. <https://arxiv.org/abs/1606.08415>

use super::{
    pointwise::pointwise,
    vector::{normal, normal_and_bell, tanh},
};
use candle_core::{Result, Tensor};
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_PI, FRAC_2_SQRT_PI};

/// x Phi(x), with Phi the distribution function of N(0, 1), of every value.
///
/// # Errors
/// Values that are not f32 in main memory.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    pointwise(x, "gelu", value, slope)
}

/// x Phi(x).
#[inline(always)]
pub(super) fn value(x: f32) -> f32 {
    x * normal(x)
}

/// Phi(x) + x phi(x), with phi the density.
#[inline(always)]
pub(super) fn slope(x: f32) -> f32 {
    let (below, bell) = normal_and_bell(x);
    below + x * bell * (0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI)
}

/// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 of every value: the hub's "gelu_pytorch_tanh" and "gelu_new".
///
/// # Errors
/// Values that are not f32 in main memory.
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    pointwise(x, "gelu_tanh", tanh_value, tanh_slope)
}

/// See [`gelu_tanh`].
#[inline(always)]
pub(super) fn tanh_value(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(bend(x)))
}

/// Its derivative.
#[inline(always)]
pub(super) fn tanh_slope(x: f32) -> f32 {
    let t = tanh(bend(x));
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * FRAC_2_PI.sqrt() * (1.0 + 3.0 * CUBIC * x * x)
}

const CUBIC: f32 = 0.044_715;

#[inline(always)]
fn bend(x: f32) -> f32 {
    FRAC_2_PI.sqrt() * (x + CUBIC * x * x * x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::check;

    #[test]
    fn both_agree_with_their_plain_twins() {
        check(&[2, 3, 5], |x| gelu(x).unwrap(), |x| x.gelu_erf().unwrap());
        check(&[2, 3, 5], |x| gelu_tanh(x).unwrap(), |x| x.gelu().unwrap());
    }
}
