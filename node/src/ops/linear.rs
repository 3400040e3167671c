//! The linear map, frozen or trained.

use super::{
    mapped::Mapped,
    packed::Packed,
    product::{Into, View, extend, multiply},
    values, with_values,
};
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
    Mapped(Mapped),
    Packed(Arc<Packed>),
}

impl Weight {
    /// Whether it is, or comes from, a variable.
    fn is_trained(&self) -> bool {
        matches!(self, Self::Dense(weight) if weight.track_op())
    }

    /// Calls `compute` with all values; none where they are packed.
    fn whole<T>(&self, compute: impl FnOnce(&[f32]) -> Result<T>) -> Option<Result<T>> {
        match self {
            Self::Dense(weight) => Some(with_values(weight, compute)),
            Self::Mapped(weight) => Some(compute(weight.values())),
            Self::Packed(_) => None,
        }
    }
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

    /// A map by a weight in its file, which stays frozen, and a bias `[out]`, taken as frozen too.
    ///
    /// # Errors
    /// Shapes that do not fit each other.
    pub fn mapped(weight: Mapped, bias: Option<Tensor>) -> Result<Self> {
        let bias = fitting(weight.dims(), bias)?.map(|bias| bias.detach());
        Ok(Self { weight: Weight::Mapped(weight), bias })
    }

    /// The weight, where it is a tensor.
    pub fn weight(&self) -> Option<&Tensor> {
        match &self.weight {
            Weight::Dense(weight) => Some(weight),
            Weight::Mapped(_) | Weight::Packed(_) => None,
        }
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
            _ => x.apply_op1(Frozen(self.clone())),
        }
    }

    /// The map on plain values; none where it is trained.
    pub(super) fn map(&self) -> Option<Map<'_>> {
        let trained = self.weight.is_trained() || self.bias.as_ref().is_some_and(Tensor::track_op);
        (!trained).then_some(Map(self))
    }

    /// Values of a row that comes out, and of one that goes in.
    fn dims(&self) -> (usize, usize) {
        match &self.weight {
            Weight::Dense(weight) => weight.dims2().unwrap_or_default(),
            Weight::Mapped(weight) => weight.dims(),
            Weight::Packed(matrix) => matrix.dims(),
        }
    }

    /// Values of a row that comes out.
    pub(super) fn outputs(&self) -> usize {
        self.dims().0
    }

    /// Values of a row that goes in.
    pub(super) fn inputs(&self) -> usize {
        self.dims().1
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

/// A frozen map on plain values in main memory.
#[derive(Clone, Copy)]
pub(super) struct Map<'a>(&'a Linear);

impl Map<'_> {
    pub(super) fn outputs(self) -> usize {
        self.0.outputs()
    }

    pub(super) fn inputs(self) -> usize {
        self.0.inputs()
    }

    /// Rows `[rows, in]` to rows `[rows, out]`.
    pub(super) fn apply(self, x: &[f32]) -> Result<Vec<f32>> {
        let mut y = Vec::new();
        self.extend(x, &mut y)?;
        Ok(y)
    }

    /// Rows `[rows, in]` to rows `[rows, out]`, behind what is in `y` already.
    pub(super) fn extend(self, x: &[f32], y: &mut Vec<f32>) -> Result<()> {
        match &self.0.bias {
            Some(bias) => with_values(bias, |bias| self.extend_by(x, Some(bias), y)),
            None => self.extend_by(x, None, y),
        }
    }

    fn extend_by(self, x: &[f32], bias: Option<&[f32]>, y: &mut Vec<f32>) -> Result<()> {
        let (outputs, inputs) = self.0.dims();
        let (rows, before) = (x.len() / inputs.max(1), y.len());
        let x = View::new(x, rows, inputs);
        let whole = self.0.weight.whole(|weight| extend(y, x, View::new(weight, outputs, inputs).t(), bias));
        if let Some(done) = whole {
            return done;
        }
        match bias {
            Some(bias) => (0..rows).for_each(|_| y.extend_from_slice(bias)),
            None => y.resize(before + rows * outputs, 0.0),
        }
        let (_, y) = y.split_at_mut(before);
        self.panels(|first, panel, count| {
            let panel = View::new(panel, count, inputs).t();
            multiply((y.get_mut(first..).unwrap_or_default(), outputs), Into::Add, x, panel, true)
        })
    }

    /// Adds what rows `[rows, in]` map to to rows `[rows, out]`.
    pub(super) fn add(self, x: &[f32], y: &mut [f32]) -> Result<()> {
        let (outputs, inputs) = self.0.dims();
        let x = View::new(x, y.len() / outputs.max(1), inputs);
        self.panels(|first, panel, count| {
            let panel = View::new(panel, count, inputs).t();
            multiply((y.get_mut(first..).unwrap_or_default(), outputs), Into::Add, x, panel, true)
        })?;
        match &self.0.bias {
            Some(bias) => with_values(bias, |bias| {
                y.chunks_exact_mut(outputs.max(1)).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
                Ok(())
            }),
            None => Ok(()),
        }
    }

    /// The gradient of `[rows, in]` from that of `[rows, out]`, into `dx`: in place of what is there, or added to it.
    pub(super) fn apply_back(self, gradient: &[f32], dx: &mut [f32], add: bool) -> Result<()> {
        let (outputs, inputs) = self.0.dims();
        let rows = dx.len() / inputs.max(1);
        self.panels(|first, panel, count| {
            let how = if add || first > 0 { Into::Add } else { Into::Set };
            let gradient = View::columns(gradient.get(first..).unwrap_or_default(), rows, count, outputs);
            multiply((dx, inputs), how, gradient, View::new(panel, count, inputs), true)
        })
    }

    /// The gradient of `[rows, in]` from that of `[rows, out]`.
    pub(super) fn back(self, gradient: &[f32]) -> Result<Vec<f32>> {
        let mut dx = Vec::new();
        self.extend_back(gradient, &mut dx)?;
        Ok(dx)
    }

    /// The same, behind what is in `dx` already.
    pub(super) fn extend_back(self, gradient: &[f32], dx: &mut Vec<f32>) -> Result<()> {
        let (outputs, inputs) = self.0.dims();
        let (rows, before) = (gradient.len() / outputs.max(1), dx.len());
        let gradients = View::new(gradient, rows, outputs);
        if let Some(done) =
            self.0.weight.whole(|weight| extend(dx, gradients, View::new(weight, outputs, inputs), None))
        {
            return done;
        }
        dx.resize(before + rows * inputs, 0.0);
        self.apply_back(gradient, dx.get_mut(before..).unwrap_or_default(), false)
    }

    /// The weight in parts: the first row's number, the rows, and how many they are.
    fn panels(self, mut each: impl FnMut(usize, &[f32], usize) -> Result<()>) -> Result<()> {
        let Weight::Packed(matrix) = &self.0.weight else {
            return self.0.weight.whole(|weight| each(0, weight, self.outputs())).unwrap_or(Ok(()));
        };
        matrix.panels().try_for_each(|panel| {
            let (first, panel) = panel?;
            with_values(&panel, |values| each(first, values, panel.dim(0)?))
        })
    }
}

/// The map with its weights out of the graph's sight.
struct Frozen(Linear);

impl Frozen {
    /// The shape of what comes out, `[.., out]`.
    fn shape(&self, layout: &Layout) -> Result<Shape> {
        let (outputs, inputs) = self.0.dims();
        let mut shape = layout.dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == inputs => *last = outputs,
            _ => bail!("a linear map from {inputs} to {outputs} values was given {:?}", layout.dims()),
        }
        Ok(shape.into())
    }

    fn map(&self) -> Result<Map<'_>> {
        self.0.map().ok_or_else(|| candle_core::Error::Msg("the map is trained".into()))
    }
}

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = self.shape(layout)?;
        Ok((CpuStorage::F32(self.map()?.apply(values(x, layout)?)?), shape))
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (Weight::Dense(weight), shape) = (&self.0.weight, self.shape(layout)?) else {
            bail!("packed and mapped weights are in main memory only")
        };
        let (Some((start, end)), (outputs, inputs)) = (layout.contiguous_offsets(), weight.dims2()?) else {
            bail!("a linear map takes contiguous tensors only");
        };
        let rows = (end - start) / inputs.max(1);
        let layout = Layout::contiguous_with_offset((rows, inputs), start);
        let (storage, weight_layout) = weight.storage_and_layout();
        let Storage::Cuda(weight) = &*storage else { bail!("the weights of a linear map are on another device") };
        let y = x.matmul(weight, (1, rows, outputs, inputs), &layout, &weight_layout.transpose(0, 1)?)?;
        let Some(bias) = &self.0.bias else { return Ok((y, shape)) };
        let (storage, bias_layout) = bias.storage_and_layout();
        let Storage::Cuda(bias) = &*storage else { bail!("the bias of a linear map is on another device") };
        let spread = bias_layout.broadcast_as((rows, outputs))?;
        Ok((y.binary_impl::<Add>(bias, &Layout::contiguous((rows, outputs)), &spread)?, shape))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        if let (Weight::Dense(weight), false) = (&self.0.weight, x.device().is_cpu()) {
            let (outputs, _) = weight.dims2()?;
            let rows = gradient.elem_count() / outputs.max(1);
            let gradient = gradient.contiguous()?.reshape((rows, outputs))?;
            return Ok(Some(gradient.matmul(weight)?.reshape(x.shape())?));
        }
        let dx = with_values(gradient, |gradient| self.map()?.back(gradient))?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
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
