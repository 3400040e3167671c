//! A function of every value by itself, with a gradient.

use super::{values, with_values};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// f of every value of `x`, by the function and its derivative.
///
/// # Errors
/// Values that are not f32 in main memory.
pub(super) fn pointwise<F, D>(x: &Tensor, name: &'static str, function: F, derivative: D) -> Result<Tensor>
where
    F: Fn(f32) -> f32 + Send + Sync + 'static,
    D: Fn(f32) -> f32 + Send + Sync + 'static,
{
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
        let y = values(x, layout)?.iter().map(|x| (self.function)(*x)).collect();
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let dx: Vec<f32> = with_values(x, |x| {
            with_values(gradient, |gradient| {
                Ok(x.iter().zip(gradient).map(|(x, g)| g * (self.derivative)(*x)).collect())
            })
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
