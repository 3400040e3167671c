//! A block's gated feed-forward layer. <https://arxiv.org/abs/2002.05202>

use super::config::Config;
use crate::{backbone::Source, ops::FeedForward};

/// narrow(activation(gate(x)) widen(x)), from the weights that `source` gives.
pub(super) fn assemble<S: Source>(config: &Config, name: &str, source: &mut S) -> Result<FeedForward, S::Error> {
    let (width, inner, bias) = (config.width, config.inner, config.mlp_bias);
    let [gate, widen] = if config.fused {
        let name = format!("{name}.gate_up_proj");
        let mut rows = |rows| source.linear_rows(&name, (2 * inner, width), rows, false);
        [rows(0..inner)?, rows(inner..2 * inner)?]
    } else {
        let mut map = |part| source.linear(&format!("{name}.{part}"), inner, width, bias);
        [map("gate_proj")?, map("up_proj")?]
    };
    let narrow = source.linear(&format!("{name}.down_proj"), width, inner, bias)?;
    Ok(FeedForward { gate: Some(gate), widen, activation: config.activation, narrow })
}
