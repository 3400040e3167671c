//! Operations around frozen weights, with gradients of their own.
//!
//! The tensor library computes and keeps the gradient of every argument of a recorded operation, frozen or not, and
//! its fused norms and softmax silently have no gradient at all. The operations here hold their frozen weights inside
//! and pass back the gradient of the input alone; where a weight is trained they record the plain operations instead.
//!
//! In main memory values are f32. On a GPU (feature `cuda`) they are f32 or bf16, and the weights of norms are f32; what
//! trains norms, and what is packed, is for the CPU only.

mod attention;
#[cfg(feature = "cuda")]
mod cuda;
mod feed;
mod gelu;
mod linear;
mod mapped;
mod norm;
mod packed;
mod pointwise;
mod product;
mod projected;
mod rms_norm;
mod rotary;
mod self_attention;
mod silu;
mod softmax;
mod sublayer;
mod vector;
mod vocabulary;

pub use attention::Attention;
pub use feed::{Activation, FeedForward};
pub use gelu::{gelu, gelu_tanh};
pub use linear::Linear;
pub use mapped::Mapped;
pub use norm::{EPSILON, LayerNorm};
pub use packed::Packed;
pub use projected::{enter, leave};
pub use rms_norm::RmsNorm;
pub use rotary::Rotary;
pub use self_attention::SelfAttention;
pub use silu::silu;
pub use softmax::softmax;
pub use sublayer::{Inner, Norm, Sublayer};
pub use vocabulary::Vocabulary;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, Var, backprop::GradStore, bail};

/// Refuses gradients in which a trained variable is missing: the optimiser would skip it without a word.
///
/// # Errors
/// Names the first variable without a gradient.
pub fn ensure_gradients<'a>(
    gradients: &GradStore,
    variables: impl IntoIterator<Item = (&'a str, &'a Var)>,
) -> Result<()> {
    for (name, variable) in variables {
        if gradients.get(variable).is_none() {
            bail!("the loss does not depend on {name}, or an operation between them has no gradient");
        }
    }
    Ok(())
}

/// The values of a contiguous f32 storage.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("the operation takes contiguous tensors only") };
    storage
        .as_slice::<f32>()?
        .get(start..end)
        .ok_or_else(|| candle_core::Error::Msg("a layout outside its storage".into()))
}

/// Calls `compute` with the values of a tensor in main memory.
fn with_values<T>(tensor: &Tensor, compute: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => compute(values(storage, layout)?),
        _ => bail!("the operation runs on the CPU only"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use candle_core::Device;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Repeatable values in [-1, 1).
    pub(crate) fn noise(shape: &[usize], seed: u64) -> Tensor {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn flat(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn close(a: &[f32], b: &[f32], tolerance: f32) {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} is not {b}"));
    }

    /// Compares an operation with its plain twin, in value and in gradient, which it gives.
    pub(super) fn agree(
        shape: &[usize],
        op: impl Fn(&Tensor) -> Tensor,
        plain: impl Fn(&Tensor) -> Tensor,
    ) -> Vec<f32> {
        let input = Var::from_tensor(&noise(shape, 1)).unwrap();
        let weights = noise(op(&input).dims(), 2);
        let loss = |y: Tensor| (y * &weights).unwrap().sum_all().unwrap();
        close(&flat(&op(&input)), &flat(&plain(&input)), 1e-5);
        let gradient = |y: Tensor| flat(loss(y).backward().unwrap().get(&input).unwrap());
        let ours = gradient(op(&input));
        close(&ours, &gradient(plain(&input)), 1e-4);
        ours
    }

    /// The same, and compares the gradient with finite differences.
    pub(super) fn check(shape: &[usize], op: impl Fn(&Tensor) -> Tensor, plain: impl Fn(&Tensor) -> Tensor) {
        let ours = agree(shape, &op, plain);
        let start = flat(&noise(shape, 1));
        let weights = noise(op(&noise(shape, 1)).dims(), 2);
        let step = 1e-2;
        let moved = |index: usize, by: f32| {
            let mut values = start.clone();
            values[index] += by;
            flat(&(op(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()) * &weights).unwrap())
                .iter()
                .map(|value| f64::from(*value))
                .sum::<f64>()
        };
        let differences: Vec<f32> =
            (0..start.len()).map(|i| ((moved(i, step) - moved(i, -step)) / f64::from(2.0 * step)) as f32).collect();
        close(&ours, &differences, 5e-3);
    }

    #[test]
    fn a_variable_without_a_gradient_is_named() {
        let used = Var::from_tensor(&noise(&[2], 1)).unwrap();
        let idle = Var::from_tensor(&noise(&[2], 2)).unwrap();
        let gradients = used.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert!(ensure_gradients(&gradients, [("used", &used)]).is_ok());
        let refusal = ensure_gradients(&gradients, [("used", &used), ("idle", &idle)]).unwrap_err();
        assert!(refusal.to_string().contains("idle"));
    }
}
