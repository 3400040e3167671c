//! The feed-forward layer of a transformer block as one operation: of what is inside, only what the maps give before the
//! nonlinearity is kept for the way back.

use super::{Linear, gelu, linear::Map, silu, values, vector::wide, with_values};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::sync::Mutex;

/// Rows that are inside at once.
const ROWS: usize = 1_024;

/// Values that a thread takes at a time.
const PIECE: usize = 8_192;

/// What is between the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x Phi(x), with Phi the distribution function of N(0, 1). <https://arxiv.org/abs/1606.08415>
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// x / (1 + e^-x).
    Silu,
}

impl Activation {
    /// Of every value.
    ///
    /// # Errors
    /// Values that are not f32 in main memory.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => gelu::gelu(x),
            Self::GeluTanh => gelu::gelu_tanh(x),
            Self::Relu => x.relu(),
            Self::Silu => silu::silu(x),
        }
    }

    /// Of every value of `x`, into `y`.
    fn apply(self, x: &[f32], y: &mut [f32]) {
        let each = |(y, x): (&mut [f32], &[f32])| {
            let pairs = y.iter_mut().zip(x);
            match self {
                Self::Gelu => wide(|| pairs.for_each(|(y, x)| *y = gelu::value(*x))),
                Self::GeluTanh => wide(|| pairs.for_each(|(y, x)| *y = gelu::tanh_value(*x))),
                Self::Relu => wide(|| pairs.for_each(|(y, x)| *y = x.max(0.0))),
                Self::Silu => wide(|| pairs.for_each(|(y, x)| *y = silu::value(*x))),
            }
        };
        y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(each);
    }

    /// Multiplies each value by the slope at another.
    fn slope(self, values: &mut [f32], at: &[f32]) {
        let each = |(values, at): (&mut [f32], &[f32])| {
            let pairs = values.iter_mut().zip(at);
            match self {
                Self::Gelu => wide(|| pairs.for_each(|(value, x)| *value *= gelu::slope(*x))),
                Self::GeluTanh => wide(|| pairs.for_each(|(value, x)| *value *= gelu::tanh_slope(*x))),
                Self::Relu => wide(|| pairs.for_each(|(value, x)| *value *= if *x > 0.0 { 1.0 } else { 0.0 })),
                Self::Silu => wide(|| pairs.for_each(|(value, x)| *value *= silu::slope(*x))),
            }
        };
        values.par_chunks_mut(PIECE).zip(at.par_chunks(PIECE)).for_each(each);
    }
}

/// narrow(activation(widen(x))), or with a gate narrow(activation(gate(x)) widen(x)) (<https://arxiv.org/abs/2002.05202>).
#[derive(Clone, Debug)]
pub struct FeedForward {
    /// See there.
    pub gate: Option<Linear>,
    /// See there.
    pub widen: Linear,
    /// See there.
    pub activation: Activation,
    /// See there.
    pub narrow: Linear,
}

impl FeedForward {
    /// From `[.., d]` to the same.
    ///
    /// # Errors
    /// Another width; values that are not f32 in main memory.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let frozen = [Some(&self.widen), Some(&self.narrow), self.gate.as_ref()].into_iter().flatten().map(Linear::map);
        match frozen.collect::<Option<Vec<_>>>() {
            Some(_) if x.device().is_cpu() => {
                x.contiguous()?.apply_op1(Op { layer: self.clone(), keeps: x.track_op(), kept: Mutex::default() })
            }
            _ => self.plain(x),
        }
    }

    /// The same, operation by operation, for maps that are trained, and on a GPU.
    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let inner = match &self.gate {
            Some(gate) => (self.activation.forward(&gate.forward(x)?)? * self.widen.forward(x)?)?,
            None => self.activation.forward(&self.widen.forward(x)?)?,
        };
        self.narrow.forward(&inner)
    }
}

struct Op {
    layer: FeedForward,
    /// Whether there is a way back.
    keeps: bool,
    /// What `widen`, and then what `gate` gives, row by row.
    kept: Mutex<Option<[Vec<f32>; 2]>>,
}

/// The maps of a layer in which all are frozen.
struct Maps<'a> {
    gate: Option<Map<'a>>,
    widen: Map<'a>,
    narrow: Map<'a>,
}

impl Op {
    fn maps(&self) -> Result<Maps<'_>> {
        let FeedForward { gate, widen, narrow, .. } = &self.layer;
        match (gate.as_ref().map(Linear::map), widen.map(), narrow.map()) {
            (None, Some(widen), Some(narrow)) => Ok(Maps { gate: None, widen, narrow }),
            (Some(Some(gate)), Some(widen), Some(narrow)) => Ok(Maps { gate: Some(gate), widen, narrow }),
            _ => bail!("a feed-forward layer that is trained"),
        }
    }

    fn forward(&self, x: &[f32], width: usize) -> Result<Vec<f32>> {
        let Maps { gate, widen, narrow } = self.maps()?;
        let (rows, inner) = (x.len() / width.max(1), widen.outputs());
        let room = |rows: usize| Vec::with_capacity(rows * inner);
        let all = if self.keeps { rows } else { ROWS.min(rows) };
        let (mut widened, mut gates) = (room(all), room(if gate.is_some() { all } else { 0 }));
        let (mut active, mut y) = (vec![0f32; ROWS.min(rows) * inner], Vec::with_capacity(rows * narrow.outputs()));
        for x in x.chunks(ROWS * width) {
            if !self.keeps {
                widened.clear();
                gates.clear();
            }
            let first = widened.len();
            widen.extend(x, &mut widened)?;
            let widened = widened.get(first..).unwrap_or_default();
            let active = active.get_mut(..widened.len()).unwrap_or_default();
            match &gate {
                None => self.layer.activation.apply(widened, active),
                Some(gate) => {
                    gate.extend(x, &mut gates)?;
                    self.layer.activation.apply(gates.get(first..).unwrap_or_default(), active);
                    times(active, widened);
                }
            }
            narrow.extend(active, &mut y)?;
        }
        let kept = [widened, gates];
        if let (true, Ok(mut place)) = (self.keeps, self.kept.lock()) {
            *place = Some(kept);
        }
        Ok(y)
    }

    fn backward(&self, gradient: &[f32], width: usize) -> Result<Vec<f32>> {
        let Maps { gate, widen, narrow } = self.maps()?;
        let taken = self.kept.lock().ok().and_then(|mut kept| kept.take());
        let Some([mut widened, gates]) = taken else { bail!("a feed-forward layer goes backward once") };
        let (inner, outputs) = (widen.outputs(), narrow.outputs());
        let mut dx = vec![0f32; gradient.len() / outputs.max(1) * width];
        let mut inside = vec![0f32; ROWS.min(gradient.len() / outputs.max(1)) * inner];
        let size = ROWS * inner;
        for (index, (dx, gradient)) in dx.chunks_mut(ROWS * width).zip(gradient.chunks(ROWS * outputs)).enumerate() {
            let count = gradient.len() / outputs;
            let inside = inside.get_mut(..count * inner).unwrap_or_default();
            narrow.apply_back(gradient, inside, false)?;
            let widened = widened.chunks_mut(size).nth(index).unwrap_or_default();
            match &gate {
                None => {
                    self.layer.activation.slope(inside, widened);
                    widen.apply_back(inside, dx, false)?;
                }
                Some(gate) => {
                    // Of the gate: g w slope(gate). Of what is gated: g activation(gate).
                    let gates = gates.chunks(size).nth(index).unwrap_or_default();
                    times(widened, inside);
                    self.layer.activation.slope(widened, gates);
                    gate.apply_back(widened, dx, false)?;
                    self.layer.activation.apply(gates, widened);
                    times(inside, widened);
                    widen.apply_back(inside, dx, true)?;
                }
            }
        }
        Ok(dx)
    }
}

/// a *= b.
fn times(a: &mut [f32], b: &[f32]) {
    a.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE)).for_each(|(a, b)| {
        wide(|| a.iter_mut().zip(b).for_each(|(a, b)| *a *= b));
    });
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "feed-forward"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (inputs, outputs) = (self.layer.widen.inputs(), self.layer.narrow.outputs());
        let mut shape = layout.dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == inputs => *last = outputs,
            _ => bail!("a feed-forward layer from {inputs} values was given {:?}", layout.dims()),
        }
        Ok((CpuStorage::F32(self.forward(values(x, layout)?, inputs)?), shape.into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_values(gradient, |gradient| self.backward(gradient, self.layer.widen.inputs()))?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{check, noise};
    use candle_core::Var;

    fn layer(activation: Activation, gated: bool) -> FeedForward {
        let map =
            |shape: &[usize; 2], seed| Linear::new(noise(shape, seed), Some(noise(&shape[..1], seed + 1))).unwrap();
        let gate = gated.then(|| map(&[7, 5], 3));
        FeedForward { gate, widen: map(&[7, 5], 5), activation, narrow: map(&[5, 7], 7) }
    }

    #[test]
    fn it_computes_and_differentiates_like_its_plain_twin() {
        use Activation::{Gelu, GeluTanh, Relu, Silu};
        for (activation, gated) in [(Gelu, false), (GeluTanh, true), (Silu, true), (Silu, false), (Relu, true)] {
            let layer = layer(activation, gated);
            check(&[2, 3, 5], |x| layer.forward(x).unwrap(), |x| layer.plain(x).unwrap());
        }
    }

    #[test]
    fn many_rows_are_as_few() {
        let layer = layer(Activation::Silu, true);
        let x = Var::from_tensor(&noise(&[2 * ROWS + 3, 5], 1)).unwrap();
        let outer = noise(&[2 * ROWS + 3, 5], 2);
        let [ours, theirs] = [layer.forward(&x).unwrap(), layer.plain(&x).unwrap()].map(|y| {
            let store = (&y * &outer).unwrap().sum_all().unwrap().backward().unwrap();
            Tensor::cat(&[&y.detach(), store.get(&x).unwrap()], 0).unwrap()
        });
        let worst = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst < 1e-4, "{worst}");
        // Without a way back nothing is kept, and the result is the same.
        let again = layer.forward(&x.as_detached_tensor()).unwrap();
        let difference = (again - layer.forward(&x).unwrap()).unwrap().abs().unwrap().max_all().unwrap();
        assert_eq!(difference.to_scalar::<f32>().unwrap(), 0.0);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        assert!(layer(Activation::Gelu, false).forward(&noise(&[2, 6], 1)).is_err());
    }
}
