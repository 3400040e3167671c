//! The linear map, frozen or trained.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, backend::BackendStorage, bail, op::Add,
};

/// y = x W^T + b over the last dimension, with W `[out, in]` and b `[out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A map by its weight `[out, in]` and bias `[out]`. It is trained where one of them is, or comes from, a variable.
    ///
    /// # Errors
    /// Shapes that do not fit each other.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let (outputs, _) = weight.dims2()?;
        if let Some(bias) = &bias
            && bias.dims1()? != outputs
        {
            bail!("a bias of shape {:?} for a weight of shape {:?}", bias.dims(), weight.dims());
        }
        Ok(Self { weight: weight.contiguous()?, bias: bias.map(|bias| bias.contiguous()).transpose()? })
    }

    /// Maps `[.., in]` to `[.., out]`. A frozen map's backward pass makes the gradient of `x` alone.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let trained = self.weight.track_op() || self.bias.as_ref().is_some_and(Tensor::track_op);
        if trained { self.plain(x) } else { x.contiguous()?.apply_op1(Frozen(self.clone())) }
    }

    /// The same from the library's operations, with gradients for everything.
    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = self.weight.dims2()?;
        let mut shape = x.dims().to_vec();
        let rows = x.elem_count() / inputs.max(1);
        let y = x.contiguous()?.reshape((rows, inputs))?.matmul(&self.weight.t()?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        y.reshape(shape)
    }
}

/// The map with its weights out of the graph's sight.
struct Frozen(Linear);

impl Frozen {
    /// The forward pass on any device's storage.
    fn map<S: BackendStorage>(&self, x: &S, layout: &Layout, weight: &S, bias: Option<&S>) -> Result<(S, Shape)> {
        let Linear { weight: w, bias: b } = &self.0;
        let (outputs, inputs) = w.dims2()?;
        let mut shape = layout.dims().to_vec();
        let (Some((start, end)), Some(last)) = (layout.contiguous_offsets(), shape.last_mut()) else {
            bail!("a linear map takes contiguous tensors only");
        };
        if *last != inputs {
            bail!("a linear map from {inputs} to {outputs} values was given {last}");
        }
        *last = outputs;
        let rows = (end - start) / inputs;
        let x_layout = Layout::contiguous_with_offset((rows, inputs), start);
        let mut y = x.matmul(weight, (1, rows, outputs, inputs), &x_layout, &w.layout().transpose(0, 1)?)?;
        if let (Some(bias), Some(b)) = (bias, b) {
            let spread = b.layout().broadcast_as((rows, outputs))?;
            y = y.binary_impl::<Add>(bias, &Layout::contiguous((rows, outputs)), &spread)?;
        }
        Ok((y, shape.into()))
    }
}

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let bias = self.0.bias.as_ref().map(Tensor::storage_and_layout);
        match (&*self.0.weight.storage_and_layout().0, bias.as_ref().map(|(storage, _)| &**storage)) {
            (Storage::Cpu(weight), None) => self.map(x, layout, weight, None),
            (Storage::Cpu(weight), Some(Storage::Cpu(bias))) => self.map(x, layout, weight, Some(bias)),
            _ => bail!("the weights of a linear map are on another device than its input"),
        }
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let bias = self.0.bias.as_ref().map(Tensor::storage_and_layout);
        match (&*self.0.weight.storage_and_layout().0, bias.as_ref().map(|(storage, _)| &**storage)) {
            (Storage::Cuda(weight), None) => self.map(x, layout, weight, None),
            (Storage::Cuda(weight), Some(Storage::Cuda(bias))) => self.map(x, layout, weight, Some(bias)),
            _ => bail!("the weights of a linear map are on another device than its input"),
        }
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (outputs, _) = self.0.weight.dims2()?;
        let rows = gradient.elem_count() / outputs;
        let gradient = gradient.contiguous()?.reshape((rows, outputs))?;
        Ok(Some(gradient.matmul(&self.0.weight)?.reshape(x.shape())?))
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
            let map = Linear::new(noise(&[4, 5], 3), bias.then(|| noise(&[4], 4))).unwrap();
            check(shape, |x| map.forward(x).unwrap(), |x| map.plain(x).unwrap());
        }
    }

    #[test]
    fn views_are_mapped_as_what_they_show() {
        let map = Linear::new(noise(&[4, 5], 3), None).unwrap();
        let x = noise(&[5, 6], 5);
        let view = x.t().unwrap().narrow(0, 1, 3).unwrap();
        let ours: Vec<Vec<f32>> = map.forward(&view).unwrap().to_vec2().unwrap();
        assert_eq!(ours, map.plain(&view).unwrap().to_vec2::<f32>().unwrap());
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
