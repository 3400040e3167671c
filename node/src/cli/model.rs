//! Flags that several verbs have: which frozen model.

use crate::{
    backbone::{Options, Precision},
    cli::fetch,
    device::DeviceChoice,
    hub::{self, HubError},
};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Frozen {
    /// The frozen model: a folder in Hugging Face layout (config.json, model.safetensors, ..), or hf:ORG/NAME[@REVISION],
    /// which is downloaded from the Hugging Face hub if the hub's cache on this machine does not hold it.
    #[arg(long, value_name = "DIR|hf:ORG/NAME")]
    backbone: String,
    /// Take only the model's first N layers.
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// How the frozen matrices are kept in memory: f32, f16, bf16, q8 (a quarter of f32) or q4 (an eighth).
    #[arg(long, value_name = "KIND", default_value = "f32")]
    precision: Precision,
    /// What computes: cpu, cuda, cuda:N or auto (a GPU if there is one that can be used).
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: DeviceChoice,
}

impl Frozen {
    /// The frozen model's folder; what has to be downloaded is, with a word on standard error.
    pub(super) fn folder(&self) -> Result<PathBuf, HubError> {
        hub::folder(&self.backbone, &mut fetch::show())
    }

    pub(super) fn options(&self) -> Options {
        Options { layers: self.layers, precision: self.precision, device: self.device }
    }
}
