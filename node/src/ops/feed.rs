//! The feed-forward layer of a transformer block: of what is inside, only what the maps give before the nonlinearity is
//! kept for the way back.

use super::{Linear, gelu, linear::Map, pointwise::times, silu, vector::wide};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::cell::Cell;

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

/// What a layer leaves for the way back: what `widen`, and then what `gate` gives, row by row.
pub(super) type Kept = [Vec<f32>; 2];

impl FeedForward {
    /// From `[.., d]` to the same.
    ///
    /// # Errors
    /// Another width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inner = match &self.gate {
            Some(gate) => (self.activation.forward(&gate.forward(x)?)? * self.widen.forward(x)?)?,
            None => self.activation.forward(&self.widen.forward(x)?)?,
        };
        self.narrow.forward(&inner)
    }

    /// The layer on plain values; none where it is trained.
    pub(super) fn maps(&self) -> Option<Maps<'_>> {
        let gate = match &self.gate {
            Some(gate) => Some(gate.map()?),
            None => None,
        };
        Some(Maps { gate, widen: self.widen.map()?, narrow: self.narrow.map()?, activation: self.activation })
    }
}

/// A layer in which all maps are frozen.
pub(super) struct Maps<'a> {
    gate: Option<Map<'a>>,
    widen: Map<'a>,
    narrow: Map<'a>,
    activation: Activation,
}

impl Maps<'_> {
    /// From `[rows, d]` to the same; what it leaves is empty unless it `keeps`.
    pub(super) fn forward(&self, x: &[f32], keeps: bool) -> Result<(Vec<f32>, Kept)> {
        let Self { gate, widen, narrow, activation } = self;
        let (width, inner) = (widen.inputs(), widen.outputs());
        let rows = x.len() / width.max(1);
        let room = |rows: usize| Vec::with_capacity(rows * inner);
        let all = if keeps { rows } else { ROWS.min(rows) };
        let (mut widened, mut gates) = (room(all), room(if gate.is_some() { all } else { 0 }));
        let mut y = Vec::with_capacity(rows * narrow.outputs());
        with_scratch(ROWS.min(rows) * inner, |active| {
            for x in x.chunks((ROWS * width).max(1)) {
                if !keeps {
                    widened.clear();
                    gates.clear();
                }
                let first = widened.len();
                widen.extend(x, &mut widened)?;
                let widened = widened.get(first..).unwrap_or_default();
                let active = active.get_mut(..widened.len()).unwrap_or_default();
                match gate {
                    None => activation.apply(widened, active),
                    Some(gate) => {
                        gate.extend(x, &mut gates)?;
                        activation.apply(gates.get(first..).unwrap_or_default(), active);
                        times(active, widened);
                    }
                }
                narrow.extend(active, &mut y)?;
            }
            Ok(())
        })?;
        Ok((y, if keeps { [widened, gates] } else { Kept::default() }))
    }

    /// The gradient of `[rows, d]` by that of what came out.
    pub(super) fn backward(&self, [mut widened, gates]: Kept, gradient: &[f32]) -> Result<Vec<f32>> {
        let Self { gate, widen, narrow, activation } = self;
        let (width, inner, outputs) = (widen.inputs(), widen.outputs(), narrow.outputs());
        let rows = gradient.len() / outputs.max(1);
        let mut dx = Vec::with_capacity(rows * width);
        let size = ROWS * inner;
        with_scratch(ROWS.min(rows) * inner, |inside| {
            for (index, gradient) in gradient.chunks((ROWS * outputs).max(1)).enumerate() {
                let inside = inside.get_mut(..gradient.len() / outputs * inner).unwrap_or_default();
                narrow.apply_back(gradient, inside, false)?;
                let widened = widened.chunks_mut(size).nth(index).unwrap_or_default();
                match gate {
                    None => {
                        activation.slope(inside, widened);
                        widen.extend_back(inside, &mut dx)?;
                    }
                    Some(gate) => {
                        // Of the gate: g w slope(gate). Of what is gated: g activation(gate).
                        let gates = gates.chunks(size).nth(index).unwrap_or_default();
                        times(widened, inside);
                        activation.slope(widened, gates);
                        let first = dx.len();
                        gate.extend_back(widened, &mut dx)?;
                        activation.apply(gates, widened);
                        times(inside, widened);
                        widen.apply_back(inside, dx.get_mut(first..).unwrap_or_default(), true)?;
                    }
                }
            }
            Ok(())
        })?;
        Ok(dx)
    }
}

/// Calls `compute` with memory for `size` values, which holds anything: the same again and again, as clearing it would
/// take a hundredth of a step.
fn with_scratch(size: usize, compute: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
    thread_local! {
        static KEPT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    }
    let mut kept = KEPT.take();
    if kept.len() < size {
        kept.resize(size, 0.0);
    }
    let computed = compute(kept.get_mut(..size).unwrap_or_default());
    KEPT.set(kept);
    computed
}
