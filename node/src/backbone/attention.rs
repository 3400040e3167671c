//! Self-attention in which every token sees all tokens of its input: Attention Is All You Need,
//! <https://arxiv.org/abs/1706.03762>. Encoders and vision transformers share it.

use super::Source;
use crate::ops::{Linear, softmax};
use candle_core::{D, Device, Result as Computed, Tensor};
use std::sync::Arc;

/// A layer's four maps.
pub(super) struct Attention {
    heads: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl Attention {
    /// The maps named `query`, `key`, `value` and `output`, all from `width` to `width`; the first three have a bias
    /// where `bias` says so.
    pub(super) fn assemble<S: Source>(
        source: &mut S,
        [query, key, value, output]: [String; 4],
        (width, heads): (usize, usize),
        bias: bool,
    ) -> Result<Self, S::Error> {
        Ok(Self {
            heads,
            query: source.linear(&query, width, width, bias)?,
            key: source.linear(&key, width, width, bias)?,
            value: source.linear(&value, width, width, bias)?,
            output: source.linear(&output, width, width, true)?,
        })
    }

    /// `[n, tokens, d]` to the same. Of an input that has a length, only so many tokens are seen.
    pub(super) fn forward(&self, x: &Tensor, lengths: Option<&Arc<[usize]>>) -> Computed<Tensor> {
        let (inputs, tokens, width) = x.dims3()?;
        let split =
            |y: Tensor| y.reshape((inputs, tokens, self.heads, width / self.heads))?.transpose(1, 2)?.contiguous();
        let query = split(self.query.forward(x)?)?;
        let (key, value) = (split(self.key.forward(x)?)?, split(self.value.forward(x)?)?);
        let seen = attend(&query, &key, &value, lengths)?;
        self.output.forward(&seen.transpose(1, 2)?.reshape((inputs, tokens, width))?)
    }
}

/// softmax(Q K^T / sqrt(size)) V for every head, all `[n, heads, tokens, size]`. Keys beyond an input's length, which
/// is 1 or more, get no weight.
pub(super) fn attend(query: &Tensor, key: &Tensor, value: &Tensor, lengths: Option<&Arc<[usize]>>) -> Computed<Tensor> {
    let (_, _, tokens, size) = key.dims4()?;
    let query = (query * (size as f64).powf(-0.5))?;
    let scores = query.matmul(&key.transpose(D::Minus2, D::Minus1)?)?;
    let scores = match lengths {
        Some(lengths) => scores.broadcast_add(&padding(lengths, tokens, key.device())?)?,
        None => scores,
    };
    softmax(&scores)?.matmul(value)
}

/// What is added to scores: 0 for an input's own tokens, minus infinity for others: `[n, 1, 1, tokens]`.
fn padding(lengths: &[usize], tokens: usize, device: &Device) -> Computed<Tensor> {
    let own = |length: &usize| {
        let length = *length;
        (0..tokens).map(move |token| if token < length { 0f32 } else { f32::NEG_INFINITY })
    };
    Tensor::from_vec(lengths.iter().flat_map(own).collect(), (lengths.len(), 1, 1, tokens), device)
}
