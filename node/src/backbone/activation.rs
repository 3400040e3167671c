//! The nonlinearities of feed-forward layers, by the hub's names.

use crate::ops::Activation;

/// The activation that `hidden_act` names, or what is wrong with it.
pub(super) fn named(name: &str) -> Result<Activation, String> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => {
            let known = "\"gelu\", \"gelu_new\", \"gelu_pytorch_tanh\" and \"relu\"";
            Err(format!("hidden_act is \"{other}\", but only {known} are known"))
        }
    }
}
