//! How long a step will take: parts of the model's shape, with made-up weights, are timed here and now.

use super::{Shape, Work};
use crate::{
    backbone::{Options, Precision, packing},
    dema::{self, Adapter, Projection},
    ops::{
        Activation, Attention, FeedForward, Inner, LayerNorm, Linear, Norm, Packed, RmsNorm, Rotary, SelfAttention,
        Sublayer, Vocabulary,
    },
};
use candle_core::{Device, Result, Tensor, Var};
use std::time::Instant;

/// Tokens that parts are timed with, about.
const TOKENS: u64 = 2_048;

/// Tokens of the vocabulary that is made.
const VOCABULARY: u64 = 8_192;

/// Weights of the largest block that is made: a GiB.
const WEIGHTS_MAX: u64 = 1 << 28;

/// How often each part is timed, after once that does not count.
const TIMES: usize = 5;

/// The size of all made-up values.
const VALUE: f32 = 0.01;

impl Shape {
    /// Seconds of a step; none where a block is too large to be made only to be timed.
    ///
    /// # Errors
    /// A machine without memory for a block.
    pub fn seconds(&self, options: Options, work: &Work<'_>) -> Result<Option<f64>> {
        let (Some(plan), Some(weights)) = (self.plan(options, work), self.block()) else { return Ok(None) };
        let (batch, tokens) = (work.settings.batch as u64, self.tokens(work));
        let inputs = (TOKENS / tokens.max(1)).clamp(1, batch.max(1));
        // What goes into a block counts, too: with a single slot there is no way back, and nothing is kept.
        let hidden = inputs.saturating_mul(tokens).saturating_mul(self.hidden_size.max(self.inner()));
        if weights.max(hidden) > WEIGHTS_MAX || plan.kept / batch.max(1) * inputs > WEIGHTS_MAX * 4 {
            return Ok(None);
        }
        let made = Made { shape: self, precision: options.precision };
        let hidden = constant(&[inputs as usize, tokens as usize, self.hidden_size as usize])?;
        let [attention, feed] = made.block()?;
        let block = |x: &Tensor| feed.forward(&attention.forward(x, None)?, None);
        let forward = time(|| block(&hidden))?;
        let both = time(|| back(&hidden, block))?;
        let adapter = made.adapter(work)?;
        let (rank, branches) = (work.adapter.rank.into(), work.adapter.branches.into());
        let branches = Var::from_tensor(&constant(&[branches, rank, rank])?)?;
        let adapters = match branches.elem_count() {
            0 => 0.0,
            _ => f64::from(work.adapter.slots) * time(|| back(&hidden, |x| adapter.forward(x, &branches)))?,
        };
        let head = if work.foretells { self.head(&hidden, work)? } else { 0.0 };
        let (first, above) = self.depths(options, work);
        let again = if work.settings.checkpoint { above } else { 0 };
        let blocks = (first + again) as f64 * forward + above as f64 * both;
        Ok(Some((blocks + adapters + head) * batch as f64 / inputs as f64))
    }

    /// Seconds of the loss of some tokens.
    fn head(&self, hidden: &Tensor, work: &Work<'_>) -> Result<f64> {
        let (some, rank) = (self.vocab_size.clamp(1, VOCABULARY), usize::from(work.adapter.readout_rank));
        let (places, width) = (hidden.elem_count() / self.hidden_size.max(1) as usize, self.hidden_size as usize);
        let (head, x) = (constant(&[some as usize, width])?, hidden.reshape((places, width))?);
        let weight = Var::from_tensor(&constant(&[rank, some as usize])?)?;
        let (bias, codes) = (constant(&[some as usize])?, constant(&[places, rank])?);
        let goals = vec![0; places];
        let vocabulary = Vocabulary { head: &head, softcap: None, weight: &weight, bias: &bias };
        let seconds = time(|| back(&x, |x| vocabulary.loss(x, &codes, &goals)))?;
        Ok(seconds * self.vocab_size as f64 / some as f64)
    }
}

/// Parts with made-up weights.
struct Made<'a> {
    shape: &'a Shape,
    precision: Precision,
}

impl Made<'_> {
    fn block(&self) -> Result<[Sublayer; 2]> {
        let (width, inner) = (self.shape.hidden_size as usize, self.shape.inner() as usize);
        let (queries, keys) = self.shape.attention().unwrap_or_default();
        let heads = self.shape.num_attention_heads.unwrap_or(1).max(1);
        let size = queries / heads;
        let decodes = self.shape.decodes();
        let attention = SelfAttention {
            heads: heads as usize,
            groups: (keys / size.max(1)) as usize,
            size: size as usize,
            query: self.map(queries as usize, width)?,
            key: self.map(keys as usize, width)?,
            value: self.map(keys as usize, width)?,
            norms: None,
            rotary: decodes.then(|| Rotary::new(vec![VALUE; size as usize / 2])),
            attention: Attention { scale: 1.0, causal: decodes, ..Attention::default() },
            output: self.map(width, queries as usize)?,
        };
        let feed = FeedForward {
            gate: if decodes { Some(self.map(inner, width)?) } else { None },
            widen: self.map(inner, width)?,
            activation: if decodes { Activation::Silu } else { Activation::Gelu },
            narrow: self.map(width, inner)?,
        };
        let half = |inner| {
            let weight = constant(&[width])?;
            let norm = match decodes {
                true => Norm::Rms(RmsNorm::new(weight, f64::from(VALUE))?),
                false => Norm::Layer(LayerNorm::affine(weight.clone(), weight, f64::from(VALUE))?),
            };
            Ok::<_, candle_core::Error>(match self.shape.normalises_behind() {
                true => Sublayer { behind: Some(norm), ..Sublayer::new(inner) },
                false => Sublayer { before: Some(norm), ..Sublayer::new(inner) },
            })
        };
        Ok([half(Inner::Attention(attention))?, half(Inner::Feed(feed))?])
    }

    fn map(&self, outputs: usize, inputs: usize) -> Result<Linear> {
        match packing(self.precision, inputs) {
            None => Linear::new(constant(&[outputs, inputs])?, None),
            Some(format) => {
                let packed = Packed::new((outputs, inputs), format, |rows| constant(&[rows.len(), inputs]))?;
                Linear::packed(packed, None)
            }
        }
    }

    fn adapter(&self, work: &Work<'_>) -> Result<Adapter> {
        let (width, rank) = (self.shape.hidden_size as usize, usize::from(work.adapter.rank));
        let (down, up) = (constant(&[width, rank])?, Some(constant(&[rank, width])?));
        let projection = Projection { mean: constant(&[width])?, down, up };
        let gates = dema::gates(0, 1, rank, work.adapter.branches.into())?;
        let gate = gates.first().ok_or_else(|| candle_core::Error::Msg("a slot without a gate".into()))?;
        Adapter::new(&projection, gate)
    }
}

fn constant(shape: &[usize]) -> Result<Tensor> {
    Tensor::full(VALUE, shape, &Device::Cpu)
}

/// There and back.
fn back(x: &Tensor, run: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
    let x = Var::from_tensor(x)?;
    run(x.as_tensor())?.sum_all()?.backward().map(drop)
}

/// The seconds that some work takes: the median.
fn time<T>(work: impl Fn() -> Result<T>) -> Result<f64> {
    work()?;
    let times = (0..TIMES).map(|_| {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64())
    });
    let mut times = times.collect::<Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times.get(TIMES / 2).copied().unwrap_or_default())
}
