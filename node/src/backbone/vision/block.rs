//! One transformer block that normalises before each of its two halves.

use super::{
    super::{Source, activation, attention, block::Block},
    config::Config,
};
use crate::ops::{Activation, FeedForward, Inner, Norm, Sublayer};

/// Block `index`.
pub(super) fn assemble<S: Source>(config: &Config, index: usize, source: &mut S) -> Result<Block, S::Error> {
    let (width, epsilon, names) = (config.hidden_size, config.layer_norm_eps, config.family().names());
    let name = |name: &str| format!("encoder.layer.{index}.{name}");
    let maps = ["attention.attention.query", "attention.attention.key", "attention.attention.value"].map(name);
    let [query, key, value] = maps;
    let maps = [query, key, value, name("attention.output.dense")];
    let attention = attention::assemble(source, maps, (width, config.num_attention_heads), config.qkv_bias)?;
    let feed = feed(config, name, source)?;
    let [before, between] = names.norms.map(name);
    let mut norm = |name: &str| Ok::<_, S::Error>(Some(Norm::Layer(source.layer_norm(name, width, epsilon)?)));
    let mut attention = Sublayer { before: norm(&before)?, ..Sublayer::new(attention) };
    let mut feed = Sublayer { before: norm(&between)?, ..Sublayer::new(Inner::Feed(feed)) };
    if let Some([first, second]) = names.scales.map(|names| names.map(name)) {
        attention.scale = Some(source.tensor(&first, &[width])?);
        feed.scale = Some(source.tensor(&second, &[width])?);
    }
    Ok(Block { attention, feed })
}

/// Two maps and a nonlinearity between them, or the gated layer (SwiGLU, <https://arxiv.org/abs/2002.05202>), whose gate
/// and what is gated are one matrix in the file.
fn feed<S: Source>(config: &Config, name: impl Fn(&str) -> String, source: &mut S) -> Result<FeedForward, S::Error> {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    if config.use_swiglu_ffn {
        let joined = name("mlp.weights_in");
        let mut rows = |rows| source.linear_rows(&joined, (2 * inner, width), rows, true);
        let (gate, widen) = (Some(rows(0..inner)?), rows(inner..2 * inner)?);
        let narrow = source.linear(&name("mlp.weights_out"), width, inner, true)?;
        return Ok(FeedForward { gate, widen, activation: Activation::Silu, narrow });
    }
    let [widen, narrow] = config.family().names().feed;
    Ok(FeedForward {
        gate: None,
        widen: source.linear(&name(widen), inner, width, true)?,
        activation: activation::named(&config.hidden_act).map_err(candle_core::Error::Msg)?,
        narrow: source.linear(&name(narrow), width, inner, true)?,
    })
}
