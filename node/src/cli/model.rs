//! Flags that several verbs have: which frozen model, and how it is trained.

use crate::{
    backbone::{Options, Precision},
    cli::fetch,
    hub::{self, HubError},
    train::Settings,
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
}

impl Frozen {
    /// The frozen model's folder; what has to be downloaded is, with a word on standard error.
    pub(super) fn folder(&self) -> Result<PathBuf, HubError> {
        hub::folder(&self.backbone, &mut fetch::show())
    }

    pub(super) fn options(&self) -> Options {
        Options { layers: self.layers, precision: self.precision }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
pub(super) struct Training {
    /// Local training steps in a round.
    #[arg(long, value_name = "N", default_value_t = Settings::default().steps)]
    steps: usize,
    /// Samples in a batch.
    #[arg(long, value_name = "N", default_value_t = Settings::default().batch)]
    batch: usize,
    /// Batches in a step: their gradients are added up.
    #[arg(long, value_name = "N", default_value_t = Settings::default().accumulate)]
    accumulate: usize,
    /// Learning rate.
    #[arg(long, value_name = "X", default_value_t = Settings::default().rate)]
    rate: f64,
    /// Learning rate of the branches [default: --rate].
    #[arg(long, value_name = "X")]
    branch_rate: Option<f64>,
    /// Learning rate of a shared readout [default: --rate].
    #[arg(long, value_name = "X")]
    readout_rate: Option<f64>,
    /// Learning rate of the private projections, 0 to leave them as they are fitted [default: --rate for language
    /// models, otherwise 0].
    #[arg(long, value_name = "X")]
    projection_rate: Option<f64>,
    /// Steps over which the rates rise from nothing.
    #[arg(long, value_name = "N", default_value_t = Settings::default().warm_up)]
    warm_up: u64,
    /// Let the rates fall to nothing by a cosine until the network's last round.
    #[arg(long)]
    cosine: bool,
    /// Shorten gradients that are longer than this [default: none].
    #[arg(long, value_name = "NORM")]
    clip: Option<f64>,
    /// AdamW's weight decay.
    #[arg(long, value_name = "X", default_value_t = Settings::default().decay)]
    decay: f64,
    /// Language models: tokens of a text that are learnt from at once.
    #[arg(long, value_name = "TOKENS", default_value_t = Settings::default().length)]
    length: usize,
    /// Language models: do not join texts, but cut each off at --length.
    #[arg(long)]
    no_pack: bool,
    /// Seeds the order of the training samples.
    #[arg(long, value_name = "N", default_value_t = Settings::default().seed)]
    seed: u64,
}

impl Training {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            steps: self.steps,
            batch: self.batch,
            accumulate: self.accumulate,
            rate: self.rate,
            branch_rate: self.branch_rate,
            readout_rate: self.readout_rate,
            projection_rate: self.projection_rate,
            warm_up: self.warm_up,
            cosine: self.cosine,
            clip: self.clip,
            decay: self.decay,
            length: self.length,
            pack: !self.no_pack,
            seed: self.seed,
        }
    }
}
