//! The nonlinearities of feed-forward layers, by the hub's names.

use crate::ops::{gelu, gelu_tanh};
use candle_core::{Result as Computed, Tensor};

/// The nonlinearity between the two maps of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// x Phi(x), with erf.
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
    Relu,
}

impl Activation {
    /// The activation that `hidden_act` names, or what is wrong with it.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        match name {
            "gelu" => Ok(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Self::GeluTanh),
            "relu" => Ok(Self::Relu),
            other => {
                let known = "\"gelu\", \"gelu_new\", \"gelu_pytorch_tanh\" and \"relu\"";
                Err(format!("hidden_act is \"{other}\", but only {known} are known"))
            }
        }
    }

    /// Of every value.
    pub(super) fn forward(self, x: &Tensor) -> Computed<Tensor> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_tanh(x),
            Self::Relu => x.relu(),
        }
    }
}
