//! The learner: one backbone, one node's data, and the shared mixture trained on them.
//!
//! Everything here is a function of its arguments, the settings' seed and the files; no state is carried from round to
//! round. The tensor library's numbers differ in their last bits between processors, so nothing made here is ever
//! recomputed by another node.

mod alone;
mod learner;
pub mod pretrain;
mod round;
mod score;
mod trunk;

pub use learner::Learner;

use crate::{backbone::BackboneError, data::DataError, dema::DemaError};
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
    /// Adam's learning rate. From a statistics start on the digits (40 labels a node, 10 rounds of 5 steps, 5 seeds),
    /// 1e-3 costs 0.2 points of global accuracy and 5e-3 costs 0.5; both gain 0.2 points of own accuracy.
    pub rate: f64,
    /// Decides which samples make up a batch, and random projections.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { steps: 5, batch: 32, rate: 1e-3, seed: 0 }
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
}

/// Shares of test samples that are told right, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Accuracy {
    /// Over the whole test set.
    pub global: f64,
    /// Over the test set as if its labels were as frequent as the node's own, knowing how frequent these are.
    pub own: f64,
}

/// What a node can do by itself: the fair opponent of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Alone {
    /// The method that did better on a held-out part of the node's own data.
    pub chosen: String,
    /// Its accuracy over the whole test set.
    pub global: f64,
    /// Its accuracy for the node's own labels.
    pub own: f64,
    /// Every method that was tried, trained on all data.
    pub best_of: BTreeMap<String, Accuracy>,
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
