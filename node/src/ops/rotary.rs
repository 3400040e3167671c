//! Rotary position embedding (RoFormer, <https://arxiv.org/abs/2104.09864>) in the layout of the hub's decoders: value i
//! of a head turns together with value i + n, where n is half of the values that turn.

#[cfg(feature = "cuda")]
use super::cuda::{Kernel, Over, Takes};
use super::{values, with_values};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use std::sync::Arc;

/// Turns pairs of values by angles that grow with the token's place.
#[derive(Clone, Debug)]
pub struct Rotary {
    frequencies: Arc<Frequencies>,
}

/// Radians a token, one for each pair of values.
#[derive(Debug)]
struct Frequencies {
    values: Arc<[f32]>,
    /// The same on the GPU that used them first.
    #[cfg(feature = "cuda")]
    on_gpu: std::sync::OnceLock<Tensor>,
}

impl Rotary {
    /// A rotation by its frequencies, in radians a token, one for each pair of values.
    pub fn new(frequencies: impl Into<Arc<[f32]>>) -> Self {
        let frequencies = Frequencies {
            values: frequencies.into(),
            #[cfg(feature = "cuda")]
            on_gpu: std::sync::OnceLock::new(),
        };
        Self { frequencies: frequencies.into() }
    }

    /// Turns heads `[.., tokens, d]`, of which the first token stands at place `first`. Values beyond the pairs stay.
    ///
    /// # Errors
    /// Heads that have fewer values than turn.
    pub fn forward(&self, x: &Tensor, first: usize) -> Result<Tensor> {
        x.contiguous()?.apply_op1(Turn { frequencies: self.frequencies.clone(), first, direction: 1.0 })
    }
}

/// The rotation, or, with a direction of -1, the one back, which is its transpose and so its gradient.
struct Turn {
    frequencies: Arc<Frequencies>,
    first: usize,
    direction: f32,
}

impl Turn {
    /// Tokens, and values of a head.
    fn sizes(&self, dims: &[usize]) -> Result<(usize, usize)> {
        let pairs = self.frequencies.values.len();
        match dims {
            [.., tokens, size] if 2 * pairs <= *size => Ok((*tokens, *size)),
            _ => bail!("{pairs} pairs of values can't turn in heads of shape {dims:?}"),
        }
    }

    fn back(&self) -> Self {
        Self { frequencies: self.frequencies.clone(), first: self.first, direction: -self.direction }
    }

    fn turn(&self, x: &[f32], dims: &[usize]) -> Result<Vec<f32>> {
        let pairs = self.frequencies.values.len();
        let (tokens, size) = self.sizes(dims)?;
        let places = (0..tokens).map(|token| (self.first + token) as f32);
        let turns: Vec<(f32, f32)> = places
            .flat_map(|place| self.frequencies.values.iter().map(move |frequency| (place * frequency).sin_cos()))
            .collect();
        let mut y = x.to_vec();
        for head in y.chunks_exact_mut((tokens * size).max(1)) {
            for (row, turns) in head.chunks_exact_mut(size).zip(turns.chunks_exact(pairs.max(1))) {
                let (left, right) = row.split_at_mut(pairs);
                for ((a, b), (sin, cos)) in left.iter_mut().zip(right).zip(turns) {
                    let sin = sin * self.direction;
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
        Ok(y)
    }
}

#[cfg(feature = "cuda")]
impl Turn {
    /// The kernel for heads of this shape, given to `run` with the frequencies.
    fn kernel<T>(
        &self,
        dims: &[usize],
        device: &candle_core::Device,
        run: impl FnOnce(Kernel<'_>, &Tensor) -> Result<T>,
    ) -> Result<T> {
        let (tokens, size) = self.sizes(dims)?;
        let pairs = self.frequencies.values.len();
        let frequencies = match self.frequencies.on_gpu.get() {
            Some(frequencies) if frequencies.device().same_device(device) => frequencies.clone(),
            _ => {
                let frequencies = Tensor::new(&*self.frequencies.values, device)?;
                self.frequencies.on_gpu.get_or_init(|| frequencies.clone());
                frequencies
            }
        };
        let kernel = Kernel {
            name: "rotary",
            over: Over::Values,
            takes: &[Takes::Same, Takes::Numbers(pairs)],
            sizes: &[tokens, size, pairs, self.first],
            numbers: &[self.direction],
        };
        run(kernel, &frequencies)
    }
}

impl CustomOp1 for Turn {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.turn(values(x, layout)?, layout.dims())?), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let device = candle_core::Device::Cuda(x.device.clone());
        self.kernel(layout.dims(), &device, |kernel, frequencies| kernel.run_with((x, layout), &[frequencies]))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let back = self.back();
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let turn = |kernel: Kernel<'_>, frequencies: &Tensor| kernel.apply(&[gradient, frequencies]);
            return back.kernel(x.dims(), x.device(), turn).map(Some);
        }
        let dx = with_values(gradient, |gradient| back.turn(gradient, x.dims()))?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{check, noise};
    use candle_core::{D, Device};

    const FREQUENCIES: [f32; 3] = [1.0, 0.3, 0.01];

    /// The same from the library's operations.
    fn twin(x: &Tensor, first: usize) -> Tensor {
        let tokens = x.dim(D::Minus2).unwrap();
        let angles: Vec<f32> =
            (0..tokens).flat_map(|token| FREQUENCIES.map(|frequency| (first + token) as f32 * frequency)).collect();
        let angles = Tensor::from_vec(angles, (tokens, 3), &Device::Cpu).unwrap();
        let (turning, rest) = (x.narrow(D::Minus1, 0, 6).unwrap(), x.narrow(D::Minus1, 6, x.dims()[3] - 6).unwrap());
        let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
        let turned = candle_nn::rotary_emb::rope_slow(&turning.contiguous().unwrap(), &cos, &sin).unwrap();
        Tensor::cat(&[turned, rest], D::Minus1).unwrap()
    }

    #[test]
    fn it_turns_and_differentiates_like_its_plain_twin() {
        let rotary = Rotary::new(FREQUENCIES);
        for (first, size) in [(0, 6), (5, 6), (5, 8)] {
            check(&[1, 2, 3, size], |x| rotary.forward(x, first).unwrap(), |x| twin(x, first));
        }
    }

    #[test]
    fn heads_that_are_too_narrow_are_refused() {
        assert!(Rotary::new(FREQUENCIES).forward(&noise(&[1, 2, 3, 5], 1), 0).is_err());
    }
}
