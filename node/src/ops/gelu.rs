//! GELU, in one pass forward and one backward. <https://arxiv.org/abs/1606.08415>

use super::pointwise::pointwise;
use candle_core::{Result, Tensor, cpu::erf::erf_f32};
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_PI, FRAC_2_SQRT_PI};

/// x Phi(x), with Phi the distribution function of N(0, 1), of every value.
///
/// # Errors
/// Values that are not f32 in main memory.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    pointwise(x, "gelu", |x| x * distribution(x), |x| distribution(x) + x * density(x))
}

fn distribution(x: f32) -> f32 {
    0.5 * (1.0 + erf_f32(x * FRAC_1_SQRT_2))
}

fn density(x: f32) -> f32 {
    (0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI) * (-0.5 * x * x).exp()
}

/// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 of every value: the hub's "gelu_pytorch_tanh" and "gelu_new".
///
/// # Errors
/// Values that are not f32 in main memory.
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    let slope = |x: f32| {
        let t = bend(x).tanh();
        0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * FRAC_2_PI.sqrt() * (1.0 + 3.0 * CUBIC * x * x)
    };
    pointwise(x, "gelu_tanh", |x| 0.5 * x * (1.0 + bend(x).tanh()), slope)
}

const CUBIC: f32 = 0.044_715;

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
