//! Rotary position embedding (RoFormer, <https://arxiv.org/abs/2104.09864>) in the layout of the hub's decoders: value i
//! of a head turns together with value i + n, where n is half of the values that turn.

use super::{values, with_values};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::sync::Arc;

/// Turns pairs of values by angles that grow with the token's place.
#[derive(Clone, Debug)]
pub struct Rotary {
    frequencies: Arc<[f32]>,
}

impl Rotary {
    /// A rotation by its frequencies, in radians a token, one for each pair of values.
    pub fn new(frequencies: impl Into<Arc<[f32]>>) -> Self {
        Self { frequencies: frequencies.into() }
    }

    /// Turns heads `[n, tokens, heads, d]`, of which the first token stands at place `first`. Values beyond the pairs stay.
    ///
    /// # Errors
    /// Heads that have fewer values than turn.
    pub fn forward(&self, x: &Tensor, first: usize) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return super::cuda::rotary(x, &self.frequencies, first, 1);
        }
        x.contiguous()?.apply_op1(Turn { rotary: self.clone(), first })
    }
}

impl Rotary {
    /// Turns heads of `[n, tokens, heads, d]` in place; with `back`, the other way, which is the transpose and so the
    /// gradient.
    pub(super) fn turn(&self, heads: &mut [f32], dims: [usize; 4], first: usize, back: bool) -> Result<()> {
        let ([_, tokens, count, size], pairs) = (dims, self.frequencies.len());
        if 2 * pairs > size {
            bail!("{pairs} pairs of values can't turn in heads of {size}");
        }
        let direction = if back { -1.0 } else { 1.0 };
        let places = (0..tokens).map(|token| (first + token) as f32);
        let turn = |place: f32| self.frequencies.iter().map(move |frequency| (place * frequency).sin_cos());
        let turns: Vec<(f32, f32)> = places.flat_map(turn).map(|(sin, cos)| (direction * sin, cos)).collect();
        heads.par_chunks_mut((tokens * count * size).max(1)).for_each(|input| {
            for (token, turns) in input.chunks_exact_mut(count * size).zip(turns.chunks_exact(pairs.max(1))) {
                for head in token.chunks_exact_mut(size) {
                    let (left, right) = head.split_at_mut(pairs);
                    for ((a, b), (sin, cos)) in left.iter_mut().zip(right).zip(turns) {
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
            }
        });
        Ok(())
    }
}

struct Turn {
    rotary: Rotary,
    first: usize,
}

impl Turn {
    fn turned(&self, x: &[f32], dims: &[usize], back: bool) -> Result<Vec<f32>> {
        let &[inputs, tokens, heads, size] = dims else { bail!("heads of shape {dims:?} can't be turned") };
        let mut y = x.to_vec();
        self.rotary.turn(&mut y, [inputs, tokens, heads, size], self.first, back)?;
        Ok(y)
    }
}

impl CustomOp1 for Turn {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.turned(values(x, layout)?, layout.dims(), false)?), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_values(gradient, |gradient| self.turned(gradient, x.dims(), true))?;
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
        let x = x.transpose(1, 2).unwrap();
        let tokens = x.dim(D::Minus2).unwrap();
        let angles: Vec<f32> =
            (0..tokens).flat_map(|token| FREQUENCIES.map(|frequency| (first + token) as f32 * frequency)).collect();
        let angles = Tensor::from_vec(angles, (tokens, 3), &Device::Cpu).unwrap();
        let (turning, rest) = (x.narrow(D::Minus1, 0, 6).unwrap(), x.narrow(D::Minus1, 6, x.dims()[3] - 6).unwrap());
        let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
        let turned = candle_nn::rotary_emb::rope_slow(&turning.contiguous().unwrap(), &cos, &sin).unwrap();
        Tensor::cat(&[turned, rest], D::Minus1).unwrap().transpose(1, 2).unwrap()
    }

    #[test]
    fn it_turns_and_differentiates_like_its_plain_twin() {
        let rotary = Rotary::new(FREQUENCIES);
        for (first, size) in [(0, 6), (5, 6), (5, 8)] {
            check(&[1, 3, 2, size], |x| rotary.forward(x, first).unwrap(), |x| twin(x, first));
        }
    }

    #[test]
    fn heads_that_are_too_narrow_are_refused() {
        assert!(Rotary::new(FREQUENCIES).forward(&noise(&[1, 3, 2, 5], 1), 0).is_err());
    }
}
