//! One pre-norm block of a decoder: attention, then the gated feed-forward layer (<https://arxiv.org/abs/2002.05202>).

use super::{
    Past,
    config::{Activation, Config, Layer},
};
use crate::{
    backbone::Source,
    ops::{Attention, Linear, RmsNorm, Rotary, gelu_tanh, silu},
};
use candle_core::{Result as Computed, Tensor};

/// A block's weights and how they are used.
pub(super) struct Block {
    heads: Heads,
    attention: Attention,
    rotary: Rotary,
    activation: Activation,
    norm_before: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    /// Norms of every head's queries and keys.
    head_norms: Option<(RmsNorm, RmsNorm)>,
    output: Linear,
    norm_between: RmsNorm,
    gate: Linear,
    widen: Linear,
    narrow: Linear,
    /// Norms of what the attention and the feed-forward layer add.
    norms_behind: Option<(RmsNorm, RmsNorm)>,
}

struct Heads {
    of_queries: usize,
    of_keys: usize,
    size: usize,
}

/// The norm `name`.weight.
pub(super) fn norm<S: Source>(config: &Config, source: &mut S, name: &str, width: usize) -> Result<RmsNorm, S::Error> {
    let weight = source.tensor(&format!("{name}.weight"), &[width])?;
    let norm = match config.gemma {
        true => RmsNorm::around_one(&weight, config.epsilon),
        false => RmsNorm::new(weight, config.epsilon),
    };
    Ok(norm?)
}

impl Block {
    pub(super) fn assemble<S: Source>(
        config: &Config,
        index: usize,
        layer: &Layer,
        source: &mut S,
    ) -> Result<Self, S::Error> {
        let (width, size, inner) = (config.width, config.size, config.inner);
        let (queries, keys) = (config.heads * size, config.groups * size);
        let name = |name: &str| format!("layers.{index}.{name}");
        let [query, key, value] = if config.fused {
            let (name, all) = (name("self_attn.qkv_proj"), queries + 2 * keys);
            let mut rows = |rows| source.linear_rows(&name, (all, width), rows);
            [rows(0..queries)?, rows(queries..queries + keys)?, rows(queries + keys..all)?]
        } else {
            let mut map = |part, outputs| source.linear(&name(part), outputs, width, config.qkv_bias);
            [map("self_attn.q_proj", queries)?, map("self_attn.k_proj", keys)?, map("self_attn.v_proj", keys)?]
        };
        let [gate, widen] = if config.fused {
            let name = name("mlp.gate_up_proj");
            let mut rows = |rows| source.linear_rows(&name, (2 * inner, width), rows);
            [rows(0..inner)?, rows(inner..2 * inner)?]
        } else {
            let mut map = |part| source.linear(&name(part), inner, width, config.mlp_bias);
            [map("mlp.gate_proj")?, map("mlp.up_proj")?]
        };
        let output = source.linear(&name("self_attn.o_proj"), width, queries, config.output_bias)?;
        let narrow = source.linear(&name("mlp.down_proj"), width, inner, config.mlp_bias)?;
        let mut norm = |part, width| norm(config, source, &name(part), width);
        // "post_attention" means behind the attention with Gemma, and before the feed-forward layer with all others.
        let (between, behind) = match config.gemma {
            true => ("pre_feedforward_layernorm", Some("post_attention_layernorm")),
            false => ("post_attention_layernorm", None),
        };
        let norms_behind = match behind {
            Some(behind) => Some((norm(behind, width)?, norm("post_feedforward_layernorm", width)?)),
            None => None,
        };
        let head_norms = match config.head_norms {
            true => Some((norm("self_attn.q_norm", size)?, norm("self_attn.k_norm", size)?)),
            false => None,
        };
        Ok(Self {
            heads: Heads { of_queries: config.heads, of_keys: config.groups, size },
            attention: Attention { scale: config.scale, causal: true, window: layer.window, softcap: config.softcap },
            rotary: layer.rotary.clone(),
            activation: config.activation,
            norm_before: norm("input_layernorm", width)?,
            norm_between: norm(between, width)?,
            query,
            key,
            value,
            head_norms,
            output,
            gate,
            widen,
            narrow,
            norms_behind,
        })
    }

    /// The next hidden state, from `[n, tokens, d]` to the same; with a past, of tokens that come after it.
    pub(super) fn forward(&self, hidden: &Tensor, past: Option<(usize, &mut Past)>) -> Computed<Tensor> {
        let mut attended = self.attend(&self.norm_before.forward(hidden)?, past)?;
        if let Some((norm, _)) = &self.norms_behind {
            attended = norm.forward(&attended)?;
        }
        let hidden = (hidden + attended)?;
        let mut fed = self.feed(&self.norm_between.forward(&hidden)?)?;
        if let Some((_, norm)) = &self.norms_behind {
            fed = norm.forward(&fed)?;
        }
        hidden + fed
    }

    fn attend(&self, x: &Tensor, past: Option<(usize, &mut Past)>) -> Computed<Tensor> {
        let (inputs, tokens, _) = x.dims3()?;
        let Heads { of_queries, of_keys, size } = self.heads;
        let split = |y: Tensor, heads| y.reshape((inputs, tokens, heads, size));
        let (mut query, mut key) = (split(self.query.forward(x)?, of_queries)?, split(self.key.forward(x)?, of_keys)?);
        if let Some((of_query, of_key)) = &self.head_norms {
            (query, key) = (of_query.forward(&query)?, of_key.forward(&key)?);
        }
        let first = past.as_ref().map_or(0, |(index, past)| past.tokens(*index));
        let query = self.rotary.forward(&query.transpose(1, 2)?, first)?;
        let key = self.rotary.forward(&key.transpose(1, 2)?, first)?;
        let value = split(self.value.forward(x)?, of_keys)?.transpose(1, 2)?.contiguous()?;
        let (key, value) = match past {
            Some((index, past)) => past.extend(index, &key, &value)?,
            None => (key, value),
        };
        // Padding stands behind all that is a text's own, so no token of its own sees it.
        let attended = self.attention.forward(&query, &key, &value, None)?;
        self.output.forward(&attended.transpose(1, 2)?.reshape((inputs, tokens, of_queries * size))?)
    }

    fn feed(&self, x: &Tensor) -> Computed<Tensor> {
        let gate = self.gate.forward(x)?;
        let gate = match self.activation {
            Activation::Silu => silu(&gate)?,
            Activation::GeluTanh => gelu_tanh(&gate)?,
        };
        self.narrow.forward(&(gate * self.widen.forward(x)?)?)
    }
}
