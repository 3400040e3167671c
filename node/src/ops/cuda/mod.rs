//! Our operations on NVIDIA's GPUs: kernels for what is no matrix product.
//!
//! An operation's own file says what it computes; where its input is on a GPU, it comes here. Nothing is copied between
//! main memory and the GPU but a few numbers that all blocks share, once.

mod attention;
mod kernel;
#[cfg(test)]
mod tests;

pub(super) use attention::attention;

use candle_core::{CpuStorage, CudaStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};
use kernel::{Kernel, Over, Takes};
use std::{cell::RefCell, sync::Arc};

/// The function `name` of every value, which has the derivative `name`_back.
pub(super) fn pointwise(x: &Tensor, name: &'static str) -> Result<Tensor> {
    let back = Kernel::new(format!("{name}_back"), Over::Values, [Takes::Same; 2]);
    let forward = Kernel::new(name, Over::Values, [Takes::Same]);
    operation(x, forward, vec![], move |x, _, gradient| back.apply(&[x, gradient]))
}

/// Softmax over the last dimension.
pub(super) fn softmax(x: &Tensor) -> Result<Tensor> {
    let back = Kernel::new("attention_back", Over::Rows, [Takes::Same; 3]).numbers([1.0, 0.0]);
    let forward = Kernel::new("softmax", Over::Rows, [Takes::Same]);
    operation(x, forward, vec![], move |_, y, gradient| back.apply(&[y, y, gradient]))
}

/// Root mean square normalisation over the last dimension by a frozen weight `[d]`.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
    frozen([weight])?;
    let weights = Takes::Numbers(weight.elem_count());
    let forward = Kernel::new("rms_norm", Over::Rows, [Takes::Same, weights]).numbers([epsilon]);
    let back = Kernel::new("rms_norm_back", Over::Rows, [Takes::Same, weights, Takes::Same]).numbers([epsilon]);
    let held = weight.clone();
    operation(x, forward, vec![weight.clone()], move |x, _, gradient| back.apply(&[x, &held, gradient]))
}

/// Layer normalisation over the last dimension, by a frozen weight and bias `[d]` where there are any.
pub(super) fn layer_norm(x: &Tensor, affine: Option<&(Tensor, Tensor)>, epsilon: f32) -> Result<Tensor> {
    let Some((weight, bias)) = affine else {
        let forward = Kernel::new("plain_norm", Over::Rows, [Takes::Same]).numbers([epsilon]);
        let back = Kernel::new("plain_norm_back", Over::Rows, [Takes::Same; 2]).numbers([epsilon]);
        return operation(x, forward, vec![], move |x, _, gradient| back.apply(&[x, gradient]));
    };
    frozen([weight, bias])?;
    let weights = Takes::Numbers(weight.elem_count());
    let forward = Kernel::new("layer_norm", Over::Rows, [Takes::Same, weights, weights]).numbers([epsilon]);
    let back = Kernel::new("layer_norm_back", Over::Rows, [Takes::Same, weights, Takes::Same]).numbers([epsilon]);
    let held = weight.clone();
    let all = vec![weight.clone(), bias.clone()];
    operation(x, forward, all, move |x, _, gradient| back.apply(&[x, &held, gradient]))
}

/// Rotary position embedding of heads `[.., d]`, whose tokens are dimension `tokens`, the first at place `first`.
pub(super) fn rotary(x: &Tensor, frequencies: &Arc<[f32]>, first: usize, tokens: usize) -> Result<Tensor> {
    thread_local! {
        static KEPT: Kept<[f32]> = const { RefCell::new(Vec::new()) };
    }
    let (pairs, dims) = (frequencies.len(), x.dims());
    let (Some(count), Some(size)) = (dims.get(tokens), dims.last().filter(|size| 2 * pairs <= **size)) else {
        bail!("{pairs} pairs of values can't turn in heads of shape {dims:?}")
    };
    let step = dims.iter().skip(tokens + 1).product();
    let kernel = |direction: f32| {
        let sizes = [*count, step, *size, pairs, first];
        Kernel::new("rotary", Over::Values, [Takes::Same, Takes::Numbers(pairs)]).sizes(sizes).numbers([direction])
    };
    let (forward, back) = (kernel(1.0), kernel(-1.0));
    let device = x.device();
    let held =
        KEPT.with_borrow_mut(|kept| on_gpu(kept, frequencies, device, || Tensor::new(&**frequencies, device)))?;
    operation(x, forward, vec![held.clone()], move |_, _, gradient| back.apply(&[gradient, &held]))
}

/// Refuses weights in training, for which there are no kernels.
fn frozen<'a>(weights: impl IntoIterator<Item = &'a Tensor>) -> Result<()> {
    match weights.into_iter().any(Tensor::track_op) {
        true => bail!("norms are trained on the CPU only"),
        false => Ok(()),
    }
}

/// Lists that went to a GPU.
type Kept<T> = RefCell<Vec<(Arc<T>, Tensor)>>;

/// Lists that are kept there at a time.
const KEPT_MAX: usize = 8;

/// A list on the GPU: the one that is kept there, or what `make` gives.
fn on_gpu<T: ?Sized>(
    kept: &mut Vec<(Arc<T>, Tensor)>,
    list: &Arc<T>,
    device: &Device,
    make: impl FnOnce() -> Result<Tensor>,
) -> Result<Tensor> {
    let same = |(of, tensor): &&(Arc<T>, Tensor)| Arc::ptr_eq(of, list) && tensor.device().same_device(device);
    if let Some((_, tensor)) = kept.iter().find(same) {
        return Ok(tensor.clone());
    }
    let tensor = make()?;
    kept.truncate(KEPT_MAX - 1);
    kept.insert(0, (list.clone(), tensor.clone()));
    Ok(tensor)
}

/// Applies an operation of one kernel, which is given `x` and `held`. Its gradient is made by `backward`, from `x`, the
/// result and the gradient of the result.
fn operation<B>(x: &Tensor, forward: Kernel, held: Vec<Tensor>, backward: B) -> Result<Tensor>
where
    B: Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    x.contiguous()?.apply_op1(Op { forward, held, backward })
}

struct Op<B> {
    forward: Kernel,
    held: Vec<Tensor>,
    backward: B,
}

impl<B: Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync> CustomOp1 for Op<B> {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("this operation is a GPU's")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward.run_with((x, layout), &self.held)
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        (self.backward)(x, y, gradient).map(Some)
    }
}
