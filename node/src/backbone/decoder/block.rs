//! One block of a decoder, which normalises before each of its two halves.

use super::{
    attention,
    config::{Config, Layer},
    feed,
};
use crate::{
    backbone::{Source, block::Block},
    ops::{Inner, Norm, RmsNorm, Sublayer},
};

/// The norm `name`.weight.
pub(super) fn norm<S: Source>(config: &Config, source: &mut S, name: &str, width: usize) -> Result<RmsNorm, S::Error> {
    let weight = source.tensor(&format!("{name}.weight"), &[width])?;
    let norm = match config.gemma {
        true => RmsNorm::around_one(&weight, config.epsilon),
        false => RmsNorm::new(weight, config.epsilon),
    };
    Ok(norm?)
}

/// Block `index`.
pub(super) fn assemble<S: Source>(
    config: &Config,
    index: usize,
    layer: &Layer,
    source: &mut S,
) -> Result<Block, S::Error> {
    let name = format!("layers.{index}");
    let attention = attention::assemble(config, &format!("{name}.self_attn"), layer, source)?;
    let feed = feed::assemble(config, &format!("{name}.mlp"), source)?;
    let mut norm = |part: &str| {
        let norm = norm(config, source, &format!("{name}.{part}"), config.width)?;
        Ok::<_, S::Error>(Some(Norm::Rms(norm)))
    };
    let mut attention = Sublayer { before: norm("input_layernorm")?, ..Sublayer::new(Inner::Attention(attention)) };
    let mut feed = Sublayer::new(Inner::Feed(feed));
    // "post_attention" means behind the attention with Gemma, and before the feed-forward layer with all others.
    if config.gemma {
        attention.after = norm("post_attention_layernorm")?;
        feed.before = norm("pre_feedforward_layernorm")?;
        feed.after = norm("post_feedforward_layernorm")?;
    } else {
        feed.before = norm("post_attention_layernorm")?;
    }
    Ok(Block { attention, feed })
}
