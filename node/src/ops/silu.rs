//! SiLU, also called swish, in one pass forward and one backward. <https://arxiv.org/abs/1606.08415>

use super::{pointwise::pointwise, vector::sigmoid};
use candle_core::{Result, Tensor};

/// x / (1 + exp(-x)) of every value.
///
/// # Errors
/// Values that are not f32 in main memory.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    pointwise(x, "silu", value, slope)
}

/// x / (1 + e^-x).
#[inline(always)]
pub(super) fn value(x: f32) -> f32 {
    x * sigmoid(x)
}

/// Its derivative.
#[inline(always)]
pub(super) fn slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 + x * (1.0 - s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::check;

    #[test]
    fn it_agrees_with_its_plain_twin() {
        check(&[2, 3, 5], |x| silu(x).unwrap(), |x| x.silu().unwrap());
    }

    #[test]
    fn large_values_stay_finite() {
        let x = Tensor::new(&[-200f32, 200.0], &candle_core::Device::Cpu).unwrap();
        let y: Vec<f32> = silu(&x).unwrap().to_vec1().unwrap();
        assert!(y[0].abs() < 1e-30 && y[1] == 200.0, "{y:?}");
    }
}
