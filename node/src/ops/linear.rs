//! The linear map, frozen or trained.

use super::packed::{self, Packed};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, backend::BackendStorage, bail, op::Add,
};
use std::sync::Arc;

/// y = x W^T + b over the last dimension, with W `[out, in]` and b `[out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

#[derive(Clone, Debug)]
enum Weight {
    Dense(Tensor),
    Packed(Arc<Packed>),
}

impl Linear {
    /// A map by its weight `[out, in]` and bias `[out]`. It is trained where one of them is, or comes from, a variable.
    ///
    /// # Errors
    /// Shapes that do not fit each other.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let dims = weight.dims2()?;
        Ok(Self { weight: Weight::Dense(weight.contiguous()?), bias: fitting(dims, bias)? })
    }

    /// A map by a packed weight, which stays frozen, and a bias `[out]`, taken as frozen too.
    ///
    /// # Errors
    /// Shapes that do not fit each other.
    pub fn packed(weight: Packed, bias: Option<Tensor>) -> Result<Self> {
        let bias = fitting(weight.dims(), bias)?.map(|bias| bias.detach());
        Ok(Self { weight: Weight::Packed(weight.into()), bias })
    }

    /// Maps `[.., in]` to `[.., out]`. A frozen map's backward pass makes the gradient of `x` alone.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        let bias = self.bias.clone();
        match &self.weight {
            Weight::Dense(weight) if weight.track_op() || bias.as_ref().is_some_and(Tensor::track_op) => {
                plain(&x, weight, bias.as_ref())
            }
            Weight::Dense(weight) => x.apply_op1(Frozen { weight: weight.clone(), bias }),
            Weight::Packed(matrix) => x.apply_op1(packed::Frozen { matrix: matrix.clone(), bias }),
        }
    }
}

/// The bias, made contiguous, if it fits a weight of these dimensions.
fn fitting((outputs, inputs): (usize, usize), bias: Option<Tensor>) -> Result<Option<Tensor>> {
    if let Some(bias) = &bias
        && bias.dims1()? != outputs
    {
        bail!("a bias of shape {:?} for a weight of shape {:?}", bias.dims(), [outputs, inputs]);
    }
    bias.map(|bias| bias.contiguous()).transpose()
}

/// The map from the library's operations, with gradients for everything.
fn plain(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    let rows = x.elem_count() / inputs.max(1);
    let y = x.contiguous()?.reshape((rows, inputs))?.matmul(&weight.t()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    y.reshape(shape)
}

/// A contiguous input `[.., in]` as rows, and the shape of what becomes of it, `[.., out]`.
pub(super) struct Rows {
    pub(super) rows: usize,
    /// `[rows, in]`.
    pub(super) layout: Layout,
    pub(super) shape: Shape,
}

impl Rows {
    pub(super) fn new(layout: &Layout, outputs: usize, inputs: usize) -> Result<Self> {
        let mut shape = layout.dims().to_vec();
        let (Some((start, end)), Some(last)) = (layout.contiguous_offsets(), shape.last_mut()) else {
            bail!("a linear map takes contiguous tensors only");
        };
        if *last != inputs {
            bail!("a linear map from {inputs} to {outputs} values was given {last}");
        }
        *last = outputs;
        let rows = (end - start) / inputs;
        Ok(Self { rows, layout: Layout::contiguous_with_offset((rows, inputs), start), shape: shape.into() })
    }
}

/// The map with its weights out of the graph's sight.
struct Frozen {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Frozen {
    /// The forward pass on any device's storage.
    fn map<S: BackendStorage>(&self, x: &S, layout: &Layout, weight: &S, bias: Option<&S>) -> Result<(S, Shape)> {
        let (outputs, inputs) = self.weight.dims2()?;
        let Rows { rows, layout, shape } = Rows::new(layout, outputs, inputs)?;
        let transposed = self.weight.layout().transpose(0, 1)?;
        let mut y = x.matmul(weight, (1, rows, outputs, inputs), &layout, &transposed)?;
        if let (Some(bias), Some(b)) = (bias, &self.bias) {
            let spread = b.layout().broadcast_as((rows, outputs))?;
            y = y.binary_impl::<Add>(bias, &Layout::contiguous((rows, outputs)), &spread)?;
        }
        Ok((y, shape))
    }
}

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let bias = self.bias.as_ref().map(Tensor::storage_and_layout);
        match (&*self.weight.storage_and_layout().0, bias.as_ref().map(|(storage, _)| &**storage)) {
            (Storage::Cpu(weight), None) => self.map(x, layout, weight, None),
            (Storage::Cpu(weight), Some(Storage::Cpu(bias))) => self.map(x, layout, weight, Some(bias)),
            _ => bail!("the weights of a linear map are on another device than its input"),
        }
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let bias = self.bias.as_ref().map(Tensor::storage_and_layout);
        match (&*self.weight.storage_and_layout().0, bias.as_ref().map(|(storage, _)| &**storage)) {
            (Storage::Cuda(weight), None) => self.map(x, layout, weight, None),
            (Storage::Cuda(weight), Some(Storage::Cuda(bias))) => self.map(x, layout, weight, Some(bias)),
            _ => bail!("the weights of a linear map are on another device than its input"),
        }
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (outputs, _) = self.weight.dims2()?;
        let rows = gradient.elem_count() / outputs;
        let gradient = gradient.contiguous()?.reshape((rows, outputs))?;
        Ok(Some(gradient.matmul(&self.weight)?.reshape(x.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{check, noise};
    use candle_core::Var;

    #[test]
    fn it_maps_and_differentiates_like_its_plain_twin() {
        for (shape, bias) in [(&[3, 5][..], true), (&[2, 3, 5], true), (&[2, 1, 3, 5], false)] {
            let (weight, bias) = (noise(&[4, 5], 3), bias.then(|| noise(&[4], 4)));
            let map = Linear::new(weight.clone(), bias.clone()).unwrap();
            check(shape, |x| map.forward(x).unwrap(), |x| plain(x, &weight, bias.as_ref()).unwrap());
        }
    }

    #[test]
    fn views_are_mapped_as_what_they_show() {
        let weight = noise(&[4, 5], 3);
        let map = Linear::new(weight.clone(), None).unwrap();
        let x = noise(&[5, 6], 5);
        let view = x.t().unwrap().narrow(0, 1, 3).unwrap();
        let ours: Vec<Vec<f32>> = map.forward(&view).unwrap().to_vec2().unwrap();
        assert_eq!(ours, plain(&view, &weight, None).unwrap().to_vec2::<f32>().unwrap());
    }

    #[test]
    fn only_trained_weights_get_a_gradient() {
        let x = Var::from_tensor(&noise(&[2, 5], 1)).unwrap();
        let weight = Var::from_tensor(&noise(&[4, 5], 2)).unwrap();
        let frozen = Linear::new(weight.as_detached_tensor(), None).unwrap();
        let trained = Linear::new(weight.as_tensor().clone(), None).unwrap();
        let gradients = |map: &Linear| map.forward(&x).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(gradients(&frozen).get(&weight).is_none());
        assert!(gradients(&trained).get(&weight).is_some());
        let kept = gradients(&frozen).get_ids().count();
        assert!(kept < gradients(&trained).get_ids().count());
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        assert!(Linear::new(noise(&[4, 5], 1), Some(noise(&[5], 2))).is_err());
        let map = Linear::new(noise(&[4, 5], 1), None).unwrap();
        assert!(map.forward(&noise(&[5, 4], 2)).is_err());
    }
}
