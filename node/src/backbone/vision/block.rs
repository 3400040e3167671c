//! One transformer block that normalises before each of its two halves.

use super::{
    super::{Source, activation, attention::Attention},
    config::Config,
};
use crate::ops::{FeedForward, LayerNorm, Linear, silu};
use candle_core::{D, Result as Computed, Tensor};
use std::sync::Arc;

pub(super) struct Block {
    attention: Attention,
    feed: Feed,
    norms: [LayerNorm; 2],
    /// What the results of attention and feed-forward layer are multiplied by, `[d]` (LayerScale,
    /// <https://arxiv.org/abs/2103.17239>).
    scales: Option<[Tensor; 2]>,
}

impl Block {
    /// Block `index`.
    pub(super) fn assemble<S: Source>(config: &Config, index: usize, source: &mut S) -> Result<Self, S::Error> {
        let (width, epsilon, names) = (config.hidden_size, config.layer_norm_eps, config.family().names());
        let name = |name: &str| format!("encoder.layer.{index}.{name}");
        let maps = ["attention.attention.query", "attention.attention.key", "attention.attention.value"].map(name);
        let [query, key, value] = maps;
        let maps = [query, key, value, name("attention.output.dense")];
        let attention = Attention::assemble(source, maps, (width, config.num_attention_heads), config.qkv_bias)?;
        let feed = Feed::assemble(config, name, source)?;
        let [before, after] = names.norms.map(name);
        let norms = [source.layer_norm(&before, width, epsilon)?, source.layer_norm(&after, width, epsilon)?];
        let scales = match names.scales.map(|names| names.map(name)) {
            Some([first, second]) => Some([source.tensor(&first, &[width])?, source.tensor(&second, &[width])?]),
            None => None,
        };
        Ok(Self { attention, feed, norms, scales })
    }

    /// `[n, tokens, d]` to the same.
    pub(super) fn forward(&self, hidden: &Tensor, lengths: Option<&Arc<[usize]>>) -> Computed<Tensor> {
        let [before, after] = &self.norms;
        let hidden = (hidden + self.scaled(0, self.attention.forward(&before.forward(hidden)?, lengths)?)?)?;
        &hidden + self.scaled(1, self.feed.forward(&after.forward(&hidden)?)?)?
    }

    fn scaled(&self, half: usize, y: Tensor) -> Computed<Tensor> {
        match self.scales.as_ref().and_then(|scales| scales.get(half)) {
            Some(scale) => y.broadcast_mul(scale),
            None => Ok(y),
        }
    }
}

/// Two maps and a nonlinearity between them.
enum Feed {
    Plain(FeedForward),
    /// The gated one (SwiGLU, <https://arxiv.org/abs/2002.05202>): silu(a) b, with both from one map.
    Joined {
        widen: Linear,
        narrow: Linear,
    },
}

impl Feed {
    fn assemble<S: Source>(config: &Config, name: impl Fn(&str) -> String, source: &mut S) -> Result<Self, S::Error> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        if config.use_swiglu_ffn {
            let widen = source.linear(&name("mlp.weights_in"), 2 * inner, width, true)?;
            return Ok(Self::Joined { widen, narrow: source.linear(&name("mlp.weights_out"), width, inner, true)? });
        }
        let [widen, narrow] = config.family().names().feed;
        Ok(Self::Plain(FeedForward {
            gate: None,
            widen: source.linear(&name(widen), inner, width, true)?,
            activation: activation::named(&config.hidden_act).map_err(candle_core::Error::Msg)?,
            narrow: source.linear(&name(narrow), width, inner, true)?,
        }))
    }

    fn forward(&self, x: &Tensor) -> Computed<Tensor> {
        match self {
            Self::Plain(layer) => layer.forward(x),
            Self::Joined { widen, narrow } => {
                let wide = widen.forward(x)?;
                let half = wide.dim(D::Minus1)? / 2;
                let gate = silu(&wide.narrow(D::Minus1, 0, half)?)?;
                narrow.forward(&(gate * wide.narrow(D::Minus1, half, half)?)?)
            }
        }
    }
}
