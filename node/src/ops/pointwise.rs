//! A function of every value by itself, with a gradient.

use super::{values, with_values};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// Fewer values than this are not worth a thread of their own.
const PIECE: usize = 4_096;

/// f of every value of `x`, by the function and its derivative. On a GPU it is the kernel `name`, and `name`_back.
///
/// # Errors
/// Values that are not f32 in main memory.
pub(super) fn pointwise<F, D>(x: &Tensor, name: &'static str, function: F, derivative: D) -> Result<Tensor>
where
    F: Fn(f32) -> f32 + Send + Sync + 'static,
    D: Fn(f32) -> f32 + Send + Sync + 'static,
{
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::pointwise(x, name);
    }
    x.contiguous()?.apply_op1(Pointwise { name, function, derivative })
}

struct Pointwise<F, D> {
    name: &'static str,
    function: F,
    derivative: D,
}

impl<F: Fn(f32) -> f32 + Send + Sync, D: Fn(f32) -> f32 + Send + Sync> CustomOp1 for Pointwise<F, D> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        let y = x.par_iter().with_min_len(PIECE).map(|x| (self.function)(*x)).collect();
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let dx: Vec<f32> = with_values(x, |x| {
            with_values(gradient, |gradient| {
                let pairs = x.par_iter().with_min_len(PIECE).zip(gradient);
                Ok(pairs.map(|(x, g)| g * (self.derivative)(*x)).collect())
            })
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
