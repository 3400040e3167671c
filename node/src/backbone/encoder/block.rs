//! One transformer block that normalises behind each of its two halves.

use super::{
    super::{Source, activation, attention, block::Block},
    config::{Config, Names},
};
use crate::ops::{FeedForward, Inner, Norm, Sublayer};

/// Block `index`.
pub(super) fn assemble<S: Source>(
    config: &Config,
    names: &Names,
    index: usize,
    source: &mut S,
) -> Result<Block, S::Error> {
    let (width, inner, epsilon) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
    let name = |name: &str| format!("{}.{index}.{name}", names.layers);
    let maps = names.attention.map(name);
    let attention = attention::assemble(source, maps, (width, config.num_attention_heads), true)?;
    let feed = FeedForward {
        gate: None,
        widen: source.linear(&name(names.widen), inner, width, true)?,
        activation: activation::named(&config.hidden_act).map_err(candle_core::Error::Msg)?,
        narrow: source.linear(&name(names.narrow), width, inner, true)?,
    };
    let mut norm = |part| Ok::<_, S::Error>(Some(Norm::Layer(source.layer_norm(&name(part), width, epsilon)?)));
    Ok(Block {
        attention: Sublayer { behind: norm(names.attention_norm)?, ..Sublayer::new(attention) },
        feed: Sublayer { behind: norm(names.output_norm)?, ..Sublayer::new(Inner::Feed(feed)) },
    })
}
