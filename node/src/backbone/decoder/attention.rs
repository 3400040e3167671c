//! A block's attention over the text up to each token, with rotated queries and keys.

use super::{
    block::norm,
    config::{Config, Layer},
};
use crate::{
    backbone::Source,
    ops::{Attention, SelfAttention},
};

/// From the weights that `source` gives. No lengths are needed with it: padding stands behind all that is a text's own,
/// so no token of its own sees it.
pub(super) fn assemble<S: Source>(
    config: &Config,
    name: &str,
    layer: &Layer,
    source: &mut S,
) -> Result<SelfAttention, S::Error> {
    let (heads, groups, size, width) = (config.heads, config.groups, config.size, config.width);
    let (queries, keys) = (heads * size, groups * size);
    let [query, key, value] = if config.fused {
        let (name, all) = (format!("{name}.qkv_proj"), queries + 2 * keys);
        let mut rows = |rows| source.linear_rows(&name, (all, width), rows, false);
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
    let rotary = Some(layer.rotary.clone());
    Ok(SelfAttention { heads, groups, size, query, key, value, norms, rotary, attention, output })
}
