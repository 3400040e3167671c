//! One transformer block that normalises after each of its two halves.

use super::{
    super::{Source, activation, attention::Attention},
    config::{Config, Names},
};
use crate::ops::{FeedForward, LayerNorm};
use candle_core::{Result as Computed, Tensor};
use std::sync::Arc;

pub(super) struct Block {
    attention: Attention,
    attention_norm: LayerNorm,
    feed: FeedForward,
    output_norm: LayerNorm,
}

impl Block {
    /// Block `index`.
    pub(super) fn assemble<S: Source>(
        config: &Config,
        names: &Names,
        index: usize,
        source: &mut S,
    ) -> Result<Self, S::Error> {
        let (width, inner, epsilon) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let name = |name: &str| format!("{}.{index}.{name}", names.layers);
        let shape = (width, config.num_attention_heads);
        Ok(Self {
            attention: Attention::assemble(source, names.attention.map(name), shape, true)?,
            feed: FeedForward {
                gate: None,
                widen: source.linear(&name(names.widen), inner, width, true)?,
                activation: activation::named(&config.hidden_act).map_err(candle_core::Error::Msg)?,
                narrow: source.linear(&name(names.narrow), width, inner, true)?,
            },
            attention_norm: source.layer_norm(&name(names.attention_norm), width, epsilon)?,
            output_norm: source.layer_norm(&name(names.output_norm), width, epsilon)?,
        })
    }

    /// `[n, tokens, d]` to the same.
    pub(super) fn forward(&self, hidden: &Tensor, lengths: Option<&Arc<[usize]>>) -> Computed<Tensor> {
        let hidden = self.attention_norm.forward(&(hidden + self.attention.forward(hidden, lengths)?)?)?;
        self.output_norm.forward(&(&hidden + self.feed.forward(&hidden)?)?)
    }
}
