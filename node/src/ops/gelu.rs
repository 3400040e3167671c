//! GELU, the one with erf, in one pass forward and one backward. <https://arxiv.org/abs/1606.08415>

use super::{values, with_values};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, cpu::erf::erf_f32};
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// x Phi(x), with Phi the distribution function of N(0, 1), of every value.
///
/// # Errors
/// Values that are not f32 in main memory.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Gelu)
}

struct Gelu;

fn distribution(x: f32) -> f32 {
    0.5 * (1.0 + erf_f32(x * FRAC_1_SQRT_2))
}

fn density(x: f32) -> f32 {
    (0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI) * (-0.5 * x * x).exp()
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = values(x, layout)?.iter().map(|x| x * distribution(*x)).collect();
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let dx: Vec<f32> = with_values(x, |x| {
            with_values(gradient, |gradient| {
                Ok(x.iter().zip(gradient).map(|(x, g)| g * (distribution(*x) + x * density(*x))).collect())
            })
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::check;

    #[test]
    fn it_agrees_with_its_plain_twin() {
        check(&[2, 3, 5], |x| gelu(x).unwrap(), |x| x.gelu_erf().unwrap());
    }
}
