//! Self-attention in which every token sees all tokens of its input: Attention Is All You Need,
//! <https://arxiv.org/abs/1706.03762>. Encoders and vision transformers share it.

use super::Source;
use crate::ops::{self, Linear};
use candle_core::{Result as Computed, Tensor};
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
        let size = width / self.heads;
        let split = |y: Tensor| y.reshape((inputs, tokens, self.heads, size));
        let query = split(self.query.forward(x)?)?;
        let (key, value) = (split(self.key.forward(x)?)?, split(self.value.forward(x)?)?);
        let attention = ops::Attention { scale: (size as f32).powf(-0.5), ..Default::default() };
        let seen = attention.forward(&query, &key, &value, lengths)?;
        self.output.forward(&seen.reshape((inputs, tokens, width))?)
    }
}
