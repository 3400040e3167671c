//! How a node trains: flags of `run`, and the table `[training]` of `node.toml`.

use crate::train::{Cache, Settings};
use serde::{Deserialize, Serialize};

/// What is not set is as in [`Settings::default`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Training")]
pub struct Training {
    /// Local training steps in a round [default: 5].
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Samples in a batch [default: 32].
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Batches in a step: their gradients are added up [default: 1].
    #[arg(long, value_name = "N")]
    pub accumulate: Option<usize>,
    /// Learning rate [default: 0.001].
    #[arg(long, value_name = "X")]
    pub rate: Option<f64>,
    /// Learning rate of the branches [default: --rate].
    #[arg(long, value_name = "X")]
    pub branch_rate: Option<f64>,
    /// Learning rate of a shared readout [default: --rate].
    #[arg(long, value_name = "X")]
    pub readout_rate: Option<f64>,
    /// Learning rate of the private projections, 0 to leave them as they are fitted [default: --rate for language
    /// models, otherwise 0].
    #[arg(long, value_name = "X")]
    pub projection_rate: Option<f64>,
    /// Steps over which the rates rise from nothing [default: 0].
    #[arg(long, value_name = "N")]
    pub warm_up: Option<u64>,
    /// Let the rates fall to nothing by a cosine until the network's last round.
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub cosine: Option<bool>,
    /// Shorten gradients that are longer than this [default: none].
    #[arg(long, value_name = "NORM")]
    pub clip: Option<f64>,
    /// AdamW's weight decay [default: 0].
    #[arg(long, value_name = "X")]
    pub decay: Option<f64>,
    /// Language models: tokens of a text that are learnt from at once [default: 256].
    #[arg(long, value_name = "TOKENS")]
    pub length: Option<usize>,
    /// Language models: do not join texts, but cut each off at --length.
    #[arg(long = "no-pack", num_args = 0, default_missing_value = "false")]
    pub pack: Option<bool>,
    /// Where to keep what the frozen blocks before the first slot make of the samples, so that it is made only once
    /// [default: memory].
    #[arg(long, value_name = "WHERE")]
    pub cache: Option<Cache>,
    /// Gradient checkpointing: keep only what goes into each block, and compute the rest again on the way back. Much less
    /// memory, steps about a third slower.
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub checkpoint: Option<bool>,
    /// Seeds the order of the training samples [default: 0].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

impl Training {
    /// These settings, and `other`'s where they say nothing.
    pub fn or(self, other: Self) -> Self {
        Self {
            steps: self.steps.or(other.steps),
            batch: self.batch.or(other.batch),
            accumulate: self.accumulate.or(other.accumulate),
            rate: self.rate.or(other.rate),
            branch_rate: self.branch_rate.or(other.branch_rate),
            readout_rate: self.readout_rate.or(other.readout_rate),
            projection_rate: self.projection_rate.or(other.projection_rate),
            warm_up: self.warm_up.or(other.warm_up),
            cosine: self.cosine.or(other.cosine),
            clip: self.clip.or(other.clip),
            decay: self.decay.or(other.decay),
            length: self.length.or(other.length),
            pack: self.pack.or(other.pack),
            cache: self.cache.or(other.cache),
            checkpoint: self.checkpoint.or(other.checkpoint),
            seed: self.seed.or(other.seed),
        }
    }

    /// The settings that a learner takes.
    pub fn settings(&self) -> Settings {
        let usual = Settings::default();
        Settings {
            steps: self.steps.unwrap_or(usual.steps),
            batch: self.batch.unwrap_or(usual.batch),
            accumulate: self.accumulate.unwrap_or(usual.accumulate),
            rate: self.rate.unwrap_or(usual.rate),
            branch_rate: self.branch_rate,
            readout_rate: self.readout_rate,
            projection_rate: self.projection_rate,
            warm_up: self.warm_up.unwrap_or(usual.warm_up),
            cosine: self.cosine.unwrap_or(usual.cosine),
            clip: self.clip,
            decay: self.decay.unwrap_or(usual.decay),
            length: self.length.unwrap_or(usual.length),
            pack: self.pack.unwrap_or(usual.pack),
            cache: self.cache.unwrap_or(usual.cache),
            checkpoint: self.checkpoint.unwrap_or(usual.checkpoint),
            seed: self.seed.unwrap_or(usual.seed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the flags' help says of defaults.
    #[test]
    fn nothing_said_is_the_default() {
        let usual = Settings::default();
        assert_eq!(Training::default().settings(), usual);
        let told = (usual.steps, usual.batch, usual.accumulate, usual.rate, usual.warm_up, usual.length, usual.seed);
        assert_eq!(told, (5, 32, 1, 0.001, 0, 256, 0));
    }
}
