//! Softmax over the last dimension, in one operation that has a gradient.

use super::values;
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

/// Softmax of `[.., n]` over the last dimension.
///
/// # Errors
/// Values that are not f32 in main memory.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::softmax(x);
    }
    x.contiguous()?.apply_op1(Softmax)
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = layout.shape().dims().last().copied().unwrap_or(1).max(1);
        let mut y = values(x, layout)?.to_vec();
        for row in y.chunks_exact_mut(width) {
            let largest = row.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            let mut sum = 0f32;
            for value in row.iter_mut() {
                *value = (*value - largest).exp();
                sum += *value;
            }
            row.iter_mut().for_each(|value| *value /= sum);
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let y = y.detach();
        let mean = (gradient * &y)?.sum_keepdim(D::Minus1)?;
        Ok(Some((gradient.broadcast_sub(&mean)? * y)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::check;

    #[test]
    fn it_agrees_with_its_plain_twin() {
        check(&[2, 3, 5], |x| softmax(x).unwrap(), |x| candle_nn::ops::softmax(x, D::Minus1).unwrap());
    }
}
