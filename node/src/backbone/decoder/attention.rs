//! A block's attention over the text up to each token.

use super::{
    Past,
    block::norm,
    config::{Config, Layer},
};
use crate::{
    backbone::Source,
    ops::{Attention, Linear, RmsNorm, Rotary},
};
use candle_core::{Result as Computed, Tensor};

/// Causal attention with rotated queries and keys.
pub(super) struct SelfAttention {
    heads: usize,
    /// Heads of keys and values.
    groups: usize,
    /// Values of a head.
    size: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    /// Norms of every head's queries and keys.
    norms: Option<(RmsNorm, RmsNorm)>,
    rotary: Rotary,
    attention: Attention,
    output: Linear,
}

impl SelfAttention {
    pub(super) fn assemble<S: Source>(
        config: &Config,
        name: &str,
        layer: &Layer,
        source: &mut S,
    ) -> Result<Self, S::Error> {
        let (heads, groups, size, width) = (config.heads, config.groups, config.size, config.width);
        let (queries, keys) = (heads * size, groups * size);
        let [query, key, value] = if config.fused {
            let (name, all) = (format!("{name}.qkv_proj"), queries + 2 * keys);
            let mut rows = |rows| source.linear_rows(&name, (all, width), rows);
            [rows(0..queries)?, rows(queries..queries + keys)?, rows(queries + keys..all)?]
        } else {
            let mut map = |part, outputs| source.linear(&format!("{name}.{part}"), outputs, width, config.qkv_bias);
            [map("q_proj", queries)?, map("k_proj", keys)?, map("v_proj", keys)?]
        };
        let output = source.linear(&format!("{name}.o_proj"), width, queries, config.output_bias)?;
        let mut norm = |part| norm(config, source, &format!("{name}.{part}"), size);
        let norms = match config.head_norms {
            true => Some((norm("q_norm")?, norm("k_norm")?)),
            false => None,
        };
        let attention = Attention { scale: config.scale, causal: true, window: layer.window, softcap: config.softcap };
        let rotary = layer.rotary.clone();
        Ok(Self { heads, groups, size, query, key, value, norms, rotary, attention, output })
    }

    /// From `[n, tokens, d]` to the same; `past` as in [`super::block::Block::forward`].
    pub(super) fn forward(&self, x: &Tensor, past: Option<(usize, &mut Past)>) -> Computed<Tensor> {
        let (inputs, tokens, _) = x.dims3()?;
        let split = |map: &Linear, heads| map.forward(x)?.reshape((inputs, tokens, heads, self.size));
        let (mut query, mut key) = (split(&self.query, self.heads)?, split(&self.key, self.groups)?);
        if let Some((of_query, of_key)) = &self.norms {
            (query, key) = (of_query.forward(&query)?, of_key.forward(&key)?);
        }
        let first = past.as_ref().map_or(0, |(index, past)| past.tokens(*index));
        let (query, key) = (self.rotary.forward(&query, first)?, self.rotary.forward(&key, first)?);
        let value = split(&self.value, self.groups)?;
        let (key, value) = match past {
            Some((index, past)) => past.extend(index, &key, &value)?,
            None => (key, value),
        };
        // Padding stands behind all that is a text's own, so no token of its own sees it.
        let attended = self.attention.forward(&query, &key, &value, None)?;
        self.output.forward(&attended.reshape((inputs, tokens, self.heads * self.size))?)
    }
}
