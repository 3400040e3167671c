//! A block's gated feed-forward layer. <https://arxiv.org/abs/2002.05202>

use super::config::{Activation, Config};
use crate::{
    backbone::Source,
    ops::{Linear, gelu_tanh, silu},
};
use candle_core::{Result as Computed, Tensor};

/// narrow(activation(gate(x)) widen(x)).
pub(super) struct FeedForward {
    gate: Linear,
    widen: Linear,
    narrow: Linear,
    activation: Activation,
}

impl FeedForward {
    pub(super) fn assemble<S: Source>(config: &Config, name: &str, source: &mut S) -> Result<Self, S::Error> {
        let (width, inner, bias) = (config.width, config.inner, config.mlp_bias);
        let [gate, widen] = if config.fused {
            let name = format!("{name}.gate_up_proj");
            let mut rows = |rows| source.linear_rows(&name, (2 * inner, width), rows);
            [rows(0..inner)?, rows(inner..2 * inner)?]
        } else {
            let mut map = |part| source.linear(&format!("{name}.{part}"), inner, width, bias);
            [map("gate_proj")?, map("up_proj")?]
        };
        let narrow = source.linear(&format!("{name}.down_proj"), width, inner, bias)?;
        Ok(Self { gate, widen, narrow, activation: config.activation })
    }

    /// From `[n, tokens, d]` to the same.
    pub(super) fn forward(&self, x: &Tensor) -> Computed<Tensor> {
        let gate = self.gate.forward(x)?;
        let gate = match self.activation {
            Activation::Silu => silu(&gate)?,
            Activation::GeluTanh => gelu_tanh(&gate)?,
        };
        self.narrow.forward(&(gate * self.widen.forward(x)?)?)
    }
}
