//! Root mean square normalisation, frozen or trained. <https://arxiv.org/abs/1910.07467>

use super::{
    values,
    vector::{dot, wide},
    with_values,
};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// y = weight x / sqrt(mean(x^2) + epsilon) over the last dimension.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Tensor,
    epsilon: f32,
}

impl RmsNorm {
    /// A normalisation by its weight `[d]`, kept as f32. It is trained where that is, or comes from, a variable.
    ///
    /// # Errors
    /// A weight that is no vector.
    pub fn new(weight: Tensor, epsilon: f64) -> Result<Self> {
        weight.dims1()?;
        Ok(Self { weight: weight.to_dtype(DType::F32)?.contiguous()?, epsilon: epsilon as f32 })
    }

    /// One whose weight is kept as its difference from one, as Gemma does.
    ///
    /// # Errors
    /// As [`RmsNorm::new`].
    pub fn around_one(difference: &Tensor, epsilon: f64) -> Result<Self> {
        Self::new((difference.to_dtype(DType::F32)? + 1.0)?, epsilon)
    }

    /// Normalises `[.., d]`. A frozen norm's backward pass makes the gradient of `x` alone.
    ///
    /// # Errors
    /// A last dimension other than that of the weight.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (expected, found) = (self.width(), x.dims().last().copied().unwrap_or(1));
        if expected != found {
            bail!("a norm over {expected} values was given {found}");
        }
        let x = x.contiguous()?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return super::cuda::rms_norm(&x, &self.weight, self.epsilon);
        }
        match self.is_trained() {
            true => x.apply_op2(&self.weight, Trained(self.epsilon)),
            false => x.apply_op1(Frozen(self.clone())),
        }
    }

    /// Whether its weight is, or comes from, a variable.
    pub(super) fn is_trained(&self) -> bool {
        self.weight.track_op()
    }

    /// Values of a row.
    pub(super) fn width(&self) -> usize {
        self.weight.elem_count()
    }

    /// Normalises rows.
    pub(super) fn apply(&self, x: &[f32]) -> Result<Vec<f32>> {
        with_values(&self.weight, |weight| Ok(normalise(x, weight, self.epsilon)))
    }

    /// The gradient of rows by that of what [`RmsNorm::apply`] gives.
    pub(super) fn back(&self, x: &[f32], gradient: &[f32]) -> Result<Vec<f32>> {
        with_values(&self.weight, |weight| Ok(differentiate::<false>(x, weight, gradient, self.epsilon).0))
    }
}

/// The normalisation with its weight out of the graph's sight.
struct Frozen(RmsNorm);

/// The normalisation with its weight as an argument, by its epsilon.
struct Trained(f32);

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "frozen-rms-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.0.apply(values(x, layout)?)?), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_values(x, |x| with_values(gradient, |gradient| self.0.back(x, gradient)))?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

impl CustomOp2 for Trained {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = normalise(values(x, layout)?, values(weight, weight_layout)?, self.0);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dweight) = with_values(x, |x| {
            with_values(weight, |weight| {
                with_values(gradient, |gradient| Ok(differentiate::<true>(x, weight, gradient, self.0)))
            })
        })?;
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device()).map(Some);
        Ok((tensor(dx, x)?, tensor(dweight, weight)?))
    }
}

/// Rows that a thread takes together. What their weights' gradients add up to is added in the rows' order, so that the
/// number of threads changes nothing.
const ROWS: usize = 64;

#[inline(always)]
fn inverse(row: &[f32], epsilon: f32) -> f32 {
    let mean = dot(row, row) / row.len() as f32;
    1.0 / (mean + epsilon).sqrt()
}

fn normalise(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let width = weight.len().max(1);
    let mut y = vec![0f32; x.len()];
    y.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width)).for_each(|(y, x)| {
        wide(|| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let inverse = inverse(x, epsilon);
                y.iter_mut().zip(x).zip(weight).for_each(|((y, x), weight)| *y = x * inverse * weight);
            }
        });
    });
    y
}

/// The gradients of the input and, where it is `TRAINED`, of the weight, which else is zeros.
fn differentiate<const TRAINED: bool>(
    x: &[f32],
    weight: &[f32],
    gradient: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>) {
    let (width, mut dx) = (weight.len().max(1), vec![0f32; x.len()]);
    let rows = ROWS * width;
    let pieces = dx.par_chunks_mut(rows).zip(x.par_chunks(rows)).zip(gradient.par_chunks(rows));
    let pieces =
        pieces.map(|((dx, x), gradient)| wide(|| differentiate_rows::<TRAINED>(dx, x, weight, gradient, epsilon)));
    let mut dweight = vec![0f32; width];
    for weights in pieces.collect::<Vec<_>>() {
        dweight.iter_mut().zip(weights).for_each(|(sum, value)| *sum += value);
    }
    (dx, dweight)
}

/// The gradients of some rows, and what they add to that of the weight. With n the normalised row and
/// h = gradient * weight: dx = (h - n mean(h n)) / rms.
#[inline(always)]
fn differentiate_rows<const TRAINED: bool>(
    dx: &mut [f32],
    x: &[f32],
    weight: &[f32],
    gradient: &[f32],
    epsilon: f32,
) -> Vec<f32> {
    let width = weight.len().max(1);
    let mut dweight = vec![0f32; width];
    for ((dx, x), gradient) in dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(gradient.chunks_exact(width)) {
        let inverse = inverse(x, epsilon);
        for (((dx, dw), (x, g)), w) in dx.iter_mut().zip(&mut dweight).zip(x.iter().zip(gradient)).zip(weight) {
            if TRAINED {
                *dw += g * x * inverse;
            }
            *dx = g * w;
        }
        let mean = dot(dx, x) * inverse * inverse / width as f32;
        dx.iter_mut().zip(x).for_each(|(dx, x)| *dx = inverse * (*dx - x * mean));
    }
    dweight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{check, noise};
    use candle_core::{D, Var};

    /// The same from the library's operations.
    fn twin(norm: &RmsNorm, x: &Tensor) -> Tensor {
        let mean = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        let normal = x.broadcast_div(&(mean + f64::from(norm.epsilon)).unwrap().sqrt().unwrap()).unwrap();
        normal.broadcast_mul(&norm.weight).unwrap()
    }

    #[test]
    fn it_normalises_and_differentiates_like_its_plain_twin() {
        let variable = Var::from_tensor(&noise(&[7], 3)).unwrap();
        let frozen = RmsNorm::new(noise(&[7], 3), 1e-6).unwrap();
        let around = RmsNorm::around_one(&noise(&[7], 3), 1e-6).unwrap();
        let trained = RmsNorm::new(variable.as_tensor().clone(), 1e-6).unwrap();
        for norm in [frozen, around, trained] {
            check(&[2, 3, 7], |x| norm.forward(x).unwrap(), |x| twin(&norm, x));
        }
    }

    #[test]
    fn a_weight_around_one_is_a_difference() {
        let (plain, around) = (noise(&[7], 3), (noise(&[7], 3) - 1.0).unwrap());
        let x = noise(&[2, 7], 1);
        let [a, b] = [RmsNorm::new(plain, 1e-6).unwrap(), RmsNorm::around_one(&around, 1e-6).unwrap()]
            .map(|norm| norm.forward(&x).unwrap().to_vec2::<f32>().unwrap());
        for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
            assert!((a - b).abs() < 1e-6);
        }
    }

    #[test]
    fn only_trained_weights_get_a_gradient() {
        let weight = Var::from_tensor(&noise(&[7], 3)).unwrap();
        let x = Var::from_tensor(&noise(&[2, 3, 7], 1)).unwrap();
        let outer = noise(&[2, 3, 7], 2);
        let gradients = |y: Tensor| (y * &outer).unwrap().sum_all().unwrap().backward().unwrap();
        let trained = RmsNorm::around_one(&weight, 1e-6).unwrap();
        let ours = gradients(trained.forward(&x).unwrap());
        let theirs = gradients(twin(&trained, &x));
        let difference = (ours.get(&weight).unwrap() - theirs.get(&weight).unwrap()).unwrap().abs().unwrap();
        assert!(difference.max(0).unwrap().to_scalar::<f32>().unwrap() < 1e-4);
        let frozen = RmsNorm::new(weight.as_detached_tensor(), 1e-6).unwrap();
        assert!(gradients(frozen.forward(&x).unwrap()).get(&weight).is_none());
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        assert!(RmsNorm::new(noise(&[7, 1], 3), 1e-6).is_err());
        assert!(RmsNorm::new(noise(&[7], 3), 1e-6).unwrap().forward(&noise(&[2, 6], 1)).is_err());
    }
}
