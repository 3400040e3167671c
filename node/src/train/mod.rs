//! The learner: one backbone, one node's data, and the shared mixture trained on them.
//!
//! Everything here is a function of its arguments, the settings' seed, the files, and what is private to the node:
//! its projections and, where these are trained, the optimiser's state. [`Learner::save`] and [`Learner::restore`]
//! carry that from round to round and over a restart, bit for bit. The tensor library's numbers differ in their last bits between processors, so nothing made here is ever
//! recomputed by another node.

mod alone;
mod checkpoint;
mod disk;
pub mod export;
mod idle;
mod learner;
mod load;
mod model;
mod optimiser;
mod predict;
pub mod pretrain;
mod private;
mod probe;
mod round;
mod samples;
mod score;
mod snapshot;
mod trunk;

pub(crate) use idle::drawn;
pub use learner::{Learner, Sets};
pub use predict::Predictor;
pub use snapshot::Snapshot;

use crate::{backbone::BackboneError, data::DataError, dema::DemaError};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// How a node trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Optimiser steps in a round.
    pub steps: usize,
    /// Samples of a step.
    pub batch: usize,
    /// Batches whose gradients are added up for one step.
    pub accumulate: usize,
    /// AdamW's learning rate, where no other is given. From a statistics start on the digits (40 labels a node, 10
    /// rounds of 5 steps, 5 seeds), 1e-3 costs 0.2 points of global accuracy and 5e-3 costs 0.5; both gain 0.2 points
    /// of own accuracy.
    pub rate: f64,
    /// The branches' learning rate.
    pub branch_rate: Option<f64>,
    /// The learning rate of a shared readout; one that the node keeps to itself has `rate`.
    pub readout_rate: Option<f64>,
    /// The private projections' learning rate; 0: they stay as they were fitted. By default they are trained at `rate`
    /// for language models, and stay otherwise.
    pub projection_rate: Option<f64>,
    /// Steps over which the rates rise from nothing.
    pub warm_up: u64,
    /// Whether the rates fall to nothing by a cosine until the network's last round.
    pub cosine: bool,
    /// The largest norm of a step's gradient.
    pub clip: Option<f64>,
    /// AdamW's decoupled weight decay.
    pub decay: f64,
    /// Tokens of a text that are learnt from at once.
    pub length: usize,
    /// Whether texts are joined and cut into pieces of that length; otherwise each is cut off there.
    pub pack: bool,
    /// Where what the frozen blocks before the first slot make of the samples is kept. It changes no result.
    pub cache: Cache,
    /// Whether only what goes into each block is kept for the way back, and the rest computed again (gradient
    /// checkpointing, <https://arxiv.org/abs/1604.06174>). It changes no result.
    pub checkpoint: bool,
    /// Decides which samples make up a batch, and random projections.
    pub seed: u64,
}

/// Where hidden states of samples are kept from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// In memory, where they take no more than 256 MB; else nowhere.
    Memory,
    /// In a file of the folder for temporary files (TMPDIR).
    Disk,
    /// Nowhere: they are made anew for each batch.
    None,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            steps: 5,
            batch: 32,
            accumulate: 1,
            rate: 1e-3,
            branch_rate: None,
            readout_rate: None,
            projection_rate: None,
            warm_up: 0,
            cosine: false,
            clip: None,
            decay: 0.0,
            length: 256,
            pack: true,
            cache: Cache::Memory,
            checkpoint: false,
            seed: 0,
        }
    }
}

impl Settings {
    /// What can't be meant.
    ///
    /// # Errors
    /// Names the setting.
    pub fn check(&self) -> Result<(), TrainError> {
        let refuse = |what: &str| Err(TrainError::Value(what.into()));
        if self.steps == 0 || self.batch == 0 || self.accumulate == 0 || self.length < 2 {
            return refuse("steps, batch and accumulate of the training must be more than 0, and length more than 1");
        }
        let good = |rate: f64| rate.is_finite() && rate > 0.0;
        if !good(self.rate) || ![self.branch_rate, self.readout_rate, self.clip].into_iter().flatten().all(good) {
            return refuse("the training's rates and its clip must be more than 0");
        }
        if !self.projection_rate.is_none_or(|rate| rate == 0.0 || good(rate)) || !(0.0..1.0).contains(&self.decay) {
            return refuse("the projections' rate must be 0 or more, and decay from 0 to 1");
        }
        Ok(())
    }
}

/// What a learner works with.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The backbone's family.
    pub model_type: String,
    /// Its width d.
    pub width: usize,
    /// Its depth L.
    pub depth: usize,
    /// Its weights, all frozen.
    pub parameters: usize,
    /// Training samples.
    pub samples: usize,
    /// The labels that occur among them, in the charter's order.
    pub classes: Vec<String>,
    /// Whether there is a test set.
    pub has_test: bool,
    /// Held-out samples to judge mixtures by.
    pub held: usize,
    /// Rows of files that could not be used, in words.
    pub left_out: Vec<String>,
    /// Whether the network has a readout for what the backbone says; if not, it keeps one to itself.
    pub shares_readout: bool,
}

/// What a node tells about its data before the first round, in the aligned space.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Samples of each class `[C]`.
    pub counts: Vec<u32>,
    /// The sum of codes of each class `[C, r_h]`, row-major.
    pub sums: Vec<f64>,
    /// The sum of q q^T over all codes q `[r_h, r_h]`, row-major.
    pub gram: Vec<f64>,
}

/// What a round of local training gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The mixture after training minus the mixture before, in the groups of the layout.
    pub delta: Vec<Vec<f32>>,
    /// The mean loss over the steps.
    pub loss: f32,
    /// Samples that went through the backbone, and tokens of them that were foretold.
    pub seen: (usize, usize),
}

/// How good a node is. For classification: shares of test samples that are told right, from 0 to 1. For language
/// models: perplexities, e to the mean cross entropy of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Score {
    /// Over the whole test set.
    pub global: f64,
    /// Classification: over the test set as if its labels were as frequent as the node's own, knowing how frequent
    /// these are. Language models: over the node's own held-out text, or the test set where it has none.
    pub own: f64,
}

/// What a node can do by itself: the fair opponent of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Alone {
    /// The method that did better on a held-out part of the node's own data.
    pub chosen: String,
    /// See [`Score::global`].
    pub global: f64,
    /// See [`Score::own`].
    pub own: f64,
    /// Every method that was tried, trained on all data.
    pub best_of: BTreeMap<String, Score>,
    /// The model of the chosen one, for [`Predictor::alone`].
    pub saved: Vec<u8>,
}

/// Why a learner can't do what it is asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file that is missing, not readable, or not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do about it.
        problem: String,
    },
    /// The data can't be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The backbone can't be used.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// The anchors, the reference or the projections can't be used.
    #[error(transparent)]
    Dema(#[from] DemaError),
    /// Something was asked for before the projections were made.
    #[error("the node is not aligned yet: align, randomise or restore its projections first")]
    NotAligned,
    /// A value that can't be used.
    #[error("{0}")]
    Value(String),
    /// A loss that is no longer a number.
    #[error("{0}")]
    Diverged(String),
    /// The tensor library refused to compute.
    #[error("training could not be computed: {0}")]
    Compute(#[from] candle_core::Error),
}

impl TrainError {
    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.into(), problem: problem.into() }
    }
}

#[cfg(test)]
mod tests;
