//! One pre-norm block of a decoder: attention, then the feed-forward layer.

use super::{
    Past,
    attention::SelfAttention,
    config::{Config, Layer},
    feed,
};
use crate::{
    backbone::Source,
    ops::{FeedForward, RmsNorm},
};
use candle_core::{Result as Computed, Tensor};

/// A block's weights and how they are used.
pub(super) struct Block {
    norm_before: RmsNorm,
    attention: SelfAttention,
    norm_between: RmsNorm,
    feed: FeedForward,
    /// Norms of what attention and feed-forward layer add.
    norms_behind: Option<(RmsNorm, RmsNorm)>,
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
        let name = format!("layers.{index}");
        let attention = SelfAttention::assemble(config, &format!("{name}.self_attn"), layer, source)?;
        let feed = feed::assemble(config, &format!("{name}.mlp"), source)?;
        let mut norm = |part: &str| norm(config, source, &format!("{name}.{part}"), config.width);
        // "post_attention" means behind the attention with Gemma, and before the feed-forward layer with all others.
        let (between, norms_behind) = match config.gemma {
            true => {
                let behind = (norm("post_attention_layernorm")?, norm("post_feedforward_layernorm")?);
                ("pre_feedforward_layernorm", Some(behind))
            }
            false => ("post_attention_layernorm", None),
        };
        let norm_between = norm(between)?;
        Ok(Self { norm_before: norm("input_layernorm")?, attention, norm_between, feed, norms_behind })
    }

    /// The next hidden state, from `[n, tokens, d]` to the same; with a past (and the block's number in it), of tokens
    /// that come after it.
    pub(super) fn forward(&self, hidden: &Tensor, past: Option<(usize, &mut Past)>) -> Computed<Tensor> {
        let mut attended = self.attention.forward(&self.norm_before.forward(hidden)?, past)?;
        if let Some((norm, _)) = &self.norms_behind {
            attended = norm.forward(&attended)?;
        }
        let hidden = (hidden + attended)?;
        let mut fed = self.feed.forward(&self.norm_between.forward(&hidden)?)?;
        if let Some((_, norm)) = &self.norms_behind {
            fed = norm.forward(&fed)?;
        }
        hidden + fed
    }
}
