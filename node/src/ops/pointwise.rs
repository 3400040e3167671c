//! A function of every value by itself, with a gradient.

use super::{values, vector::wide, with_values};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// Values that a thread takes at a time.
const PIECE: usize = 16_384;

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

/// a *= b.
pub(super) fn times(a: &mut [f32], b: &[f32]) {
    each(a, b, |a, b| *a *= b);
}

/// a += b.
pub(super) fn plus(a: &mut [f32], b: &[f32]) {
    each(a, b, |a, b| *a += b);
}

fn each(a: &mut [f32], b: &[f32], change: impl Fn(&mut f32, f32) + Copy + Send + Sync) {
    a.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE)).for_each(|(a, b)| {
        wide(|| a.iter_mut().zip(b).for_each(|(a, b)| change(a, *b)));
    });
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
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(y, x)| {
            wide(|| y.iter_mut().zip(x).for_each(|(y, x)| *y = (self.function)(*x)));
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_values(x, |x| {
            with_values(gradient, |gradient| {
                let mut dx = vec![0f32; x.len()];
                let pieces = dx.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).zip(gradient.par_chunks(PIECE));
                pieces.for_each(|((dx, x), gradient)| {
                    wide(|| {
                        let all = dx.iter_mut().zip(x).zip(gradient);
                        all.for_each(|((dx, x), g)| *dx = g * (self.derivative)(*x));
                    });
                });
                Ok(dx)
            })
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
