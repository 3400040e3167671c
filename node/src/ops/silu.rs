//! SiLU, also called swish, in one pass forward and one backward. <https://arxiv.org/abs/1606.08415>

use super::pointwise::pointwise;
use candle_core::{Result, Tensor};

/// x / (1 + exp(-x)) of every value.
///
/// # Errors
/// Values that are not f32 in main memory.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    pointwise(x, "silu", move |x| x * sigmoid(x), move |x| sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))))
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
        assert_eq!(silu(&x).unwrap().to_vec1::<f32>().unwrap(), [0.0, 200.0]);
    }
}
