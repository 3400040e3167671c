//! Layer normalisation, frozen or trained, with or without weights.

use super::{
    values,
    vector::{dot, sum, sum_of, wide},
    with_values,
};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Rows that a thread takes together. What their weights' gradients add up to is added in the rows' order, so that the
/// number of threads changes nothing.
const ROWS: usize = 64;

/// The epsilon of a normalisation that has no weights, and so no configuration either.
pub const EPSILON: f64 = 1e-5;

/// y = (x - mean) / sqrt(variance + epsilon) over the last dimension, times a weight plus a bias where there are any.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    affine: Option<(Tensor, Tensor)>,
    epsilon: f64,
}

impl LayerNorm {
    /// A normalisation without weights.
    pub fn plain() -> Self {
        Self { affine: None, epsilon: EPSILON }
    }

    /// A normalisation with `weight` and `bias` `[d]`, kept as f32. It is trained where they are, or come
    /// from, variables.
    ///
    /// # Errors
    /// Shapes that do not fit each other.
    pub fn affine(weight: Tensor, bias: Tensor, epsilon: f64) -> Result<Self> {
        if weight.dims1()? != bias.dims1()? {
            bail!("a norm with a weight of shape {:?} and a bias of shape {:?}", weight.dims(), bias.dims());
        }
        Ok(Self { affine: Some((weight.to_dtype(DType::F32)?, bias.to_dtype(DType::F32)?)), epsilon })
    }

    /// Normalises `[.., d]`.
    ///
    /// # Errors
    /// A last dimension other than that of the weights.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        if let Some(expected) = self.width().filter(|expected| *expected != width(x.dims())) {
            bail!("a norm over {expected} values was given {}", width(x.dims()));
        }
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return super::cuda::layer_norm(&x, self.affine.as_ref(), self.epsilon as f32);
        }
        match &self.affine {
            Some((weight, bias)) if self.is_trained() => x.apply_op3(weight, bias, Trained(self.epsilon as f32)),
            _ => x.apply_op1(Frozen(self.clone())),
        }
    }

    /// Whether its weights are, or come from, variables.
    pub(super) fn is_trained(&self) -> bool {
        self.affine.as_ref().is_some_and(|(weight, bias)| weight.track_op() || bias.track_op())
    }

    /// Values of a row; none where rows may have any number.
    pub(super) fn width(&self) -> Option<usize> {
        self.affine.as_ref().map(|(weight, _)| weight.elem_count())
    }

    /// Normalises rows of `width` values.
    pub(super) fn apply(&self, x: &[f32], width: usize) -> Result<Vec<f32>> {
        let (weight, bias) = self.weights(width)?;
        Ok(normalise(x, &weight, &bias, self.epsilon as f32))
    }

    /// The gradient of rows of `width` values by that of what [`LayerNorm::apply`] gives.
    pub(super) fn back(&self, x: &[f32], gradient: &[f32], width: usize) -> Result<Vec<f32>> {
        let (weight, _) = self.weights(width)?;
        Ok(differentiate::<false>(x, &weight, gradient, self.epsilon as f32).0)
    }
}

/// The normalisation with its weights out of the graph's sight.
struct Frozen(LayerNorm);

/// The normalisation with its weights as arguments, by its epsilon.
struct Trained(f32);

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "frozen-layer-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.0.apply(values(x, layout)?, width(layout.dims()))?;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let width = width(x.dims());
        let dx = with_values(x, |x| with_values(gradient, |gradient| self.0.back(x, gradient, width)))?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

impl CustomOp3 for Trained {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (weight, bias) = (values(weight, weight_layout)?, values(bias, bias_layout)?);
        Ok((CpuStorage::F32(normalise(values(x, layout)?, weight, bias, self.0)), layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dweight, dbias) = with_values(x, |x| {
            with_values(weight, |weight| {
                with_values(gradient, |gradient| Ok(differentiate::<true>(x, weight, gradient, self.0)))
            })
        })?;
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device()).map(Some);
        Ok((tensor(dx, x)?, tensor(dweight, weight)?, tensor(dbias, bias)?))
    }
}

impl LayerNorm {
    /// Weight and bias as lists; ones and zeros where there are none.
    fn weights(&self, width: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        match &self.affine {
            Some((weight, bias)) => Ok((weight.to_vec1()?, bias.to_vec1()?)),
            None => Ok((vec![1.0; width], vec![0.0; width])),
        }
    }
}

/// The last dimension.
fn width(dims: &[usize]) -> usize {
    dims.last().copied().unwrap_or(1)
}

/// A row's mean and inverse standard deviation.
#[inline(always)]
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let width = row.len() as f32;
    let mean = sum(row) / width;
    let variance = sum_of(row, |x| (x - mean) * (x - mean)) / width;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

fn normalise(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) -> Vec<f32> {
    let width = weight.len().max(1);
    let mut y = vec![0f32; x.len()];
    y.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width)).for_each(|(y, x)| {
        wide(|| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let (mean, inverse) = moments(x, epsilon);
                for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                    *y = (x - mean) * inverse * weight + bias;
                }
            }
        });
    });
    y
}

/// The gradients of the input and, where they are `TRAINED`, of weight and bias, which else are zeros.
fn differentiate<const TRAINED: bool>(
    x: &[f32],
    weight: &[f32],
    gradient: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (width, mut dx) = (weight.len().max(1), vec![0f32; x.len()]);
    let rows = ROWS * width;
    let pieces = dx.par_chunks_mut(rows).zip(x.par_chunks(rows)).zip(gradient.par_chunks(rows));
    let pieces =
        pieces.map(|((dx, x), gradient)| wide(|| differentiate_rows::<TRAINED>(dx, x, weight, gradient, epsilon)));
    let (mut dweight, mut dbias) = (vec![0f32; width], vec![0f32; width]);
    for (weights, biases) in pieces.collect::<Vec<_>>() {
        dweight.iter_mut().zip(weights).for_each(|(sum, value)| *sum += value);
        dbias.iter_mut().zip(biases).for_each(|(sum, value)| *sum += value);
    }
    (dx, dweight, dbias)
}

/// The gradients of some rows, and what they add to those of weight and bias. With n the normalised row and
/// h = gradient * weight: dx = (h - mean(h) - n mean(h n)) / deviation.
#[inline(always)]
fn differentiate_rows<const TRAINED: bool>(
    dx: &mut [f32],
    x: &[f32],
    weight: &[f32],
    gradient: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>) {
    let width = weight.len().max(1);
    let (mut dweight, mut dbias) = (vec![0f32; width], vec![0f32; width]);
    for ((dx, x), gradient) in dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(gradient.chunks_exact(width)) {
        let (mean, inverse) = moments(x, epsilon);
        let weights = weight.iter().zip(dweight.iter_mut().zip(&mut dbias));
        for ((dx, (x, g)), (w, (dw, db))) in dx.iter_mut().zip(x.iter().zip(gradient)).zip(weights) {
            if TRAINED {
                *dw += g * (x - mean) * inverse;
                *db += g;
            }
            *dx = g * w;
        }
        // The mean of h, and of h n.
        let first = sum(dx) / width as f32;
        let second = (dot(dx, x) / width as f32 - first * mean) * inverse;
        dx.iter_mut().zip(x).for_each(|(dx, x)| *dx = inverse * (*dx - first - (x - mean) * inverse * second));
    }
    (dweight, dbias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{check, noise};
    use candle_core::{D, Var};

    /// The same from the library's operations.
    fn twin(norm: &LayerNorm, x: &Tensor) -> Tensor {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1).unwrap()).unwrap();
        let variance = centred.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        let normal = centred.broadcast_div(&(variance + norm.epsilon).unwrap().sqrt().unwrap()).unwrap();
        match &norm.affine {
            Some((weight, bias)) => normal.broadcast_mul(weight).unwrap().broadcast_add(bias).unwrap(),
            None => normal,
        }
    }

    #[test]
    fn it_normalises_and_differentiates_like_its_plain_twin() {
        let affine = LayerNorm::affine(noise(&[7], 3), noise(&[7], 4), 1e-6).unwrap();
        let weight = Var::from_tensor(&noise(&[7], 3)).unwrap();
        let trained = LayerNorm::affine(weight.as_tensor().clone(), noise(&[7], 4), 1e-6).unwrap();
        for norm in [LayerNorm::plain(), affine, trained] {
            check(&[2, 3, 7], |x| norm.forward(x).unwrap(), |x| twin(&norm, x));
        }
    }

    #[test]
    fn trained_weights_get_the_gradients_of_the_plain_twin() {
        let (weight, bias) = (Var::from_tensor(&noise(&[7], 3)).unwrap(), Var::from_tensor(&noise(&[7], 4)).unwrap());
        let norm = LayerNorm::affine(weight.as_tensor().clone(), bias.as_tensor().clone(), 1e-6).unwrap();
        let (x, outer) = (noise(&[2, 3, 7], 1), noise(&[2, 3, 7], 2));
        let gradients = |y: Tensor| (y * &outer).unwrap().sum_all().unwrap().backward().unwrap();
        let (ours, theirs) = (gradients(norm.forward(&x).unwrap()), gradients(twin(&norm, &x)));
        for variable in [&weight, &bias] {
            let difference = (ours.get(variable).unwrap() - theirs.get(variable).unwrap()).unwrap().abs().unwrap();
            assert!(difference.max(0).unwrap().to_scalar::<f32>().unwrap() < 1e-4);
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        assert!(LayerNorm::affine(noise(&[7], 3), noise(&[6], 4), 1e-6).is_err());
        let norm = LayerNorm::affine(noise(&[7], 3), noise(&[7], 4), 1e-6).unwrap();
        assert!(norm.forward(&noise(&[2, 6], 1)).is_err());
    }
}
