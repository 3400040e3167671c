//! The tables of a scenario file: task, data, nodes, training.

mod data;

use crate::{Lie, Metric};
use heterotune_protocol::charter::{Task, Vocabulary};
use serde::Deserialize;
use std::path::PathBuf;

pub use data::{DataPlan, Partition};

/// The key of a wrong value in its table, and what is wrong.
pub(crate) type Wrong = (&'static str, String);

/// What is learned.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskPlan {
    /// Its kind.
    #[serde(default)]
    pub kind: TaskKind,
    /// Backbones whose tokenizers each get a shared readout. Nodes with other tokenizers share branches alone.
    #[serde(default)]
    pub readouts: Vec<PathBuf>,
}

/// A kind of task, as charters call it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// Which label an image has.
    #[default]
    ImageClassification,
    /// Which label a text has.
    TextClassification,
    /// The next token of a text.
    CausalLm,
}

/// One node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePlan {
    /// Its name, also of its folder.
    pub name: String,
    /// The folder of its backbone.
    pub backbone: PathBuf,
    /// Use the backbone's first so many blocks only.
    pub layers: Option<u32>,
    /// How the backbone's matrices are kept.
    pub precision: Option<Precision>,
    /// What it tells in place of what is true. No file says so: [`Liars`](crate::Liars) are made for comparison only.
    #[serde(skip)]
    pub(crate) lie: Option<Lie>,
}

/// How a frozen matrix is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As four bytes a value.
    F32,
    /// As two.
    F16,
    /// As two, with the range of four.
    Bf16,
    /// As about one.
    Q8,
    /// As about a half.
    Q4,
}

/// Local training.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainPlan {
    /// Optimiser steps a round.
    pub steps: u32,
    /// Rows a step.
    pub batch: u32,
    /// The learning rate.
    pub rate: f64,
    /// That of the branches, where it differs.
    pub branch_rate: Option<f64>,
    /// That of the projections, where they are trained.
    pub projection_rate: Option<f64>,
    /// That of the readout, where it differs.
    pub readout_rate: Option<f64>,
    /// Tokens of a training window.
    pub length: Option<u32>,
    /// Whether nodes draw updates instead of training, so that what the rest of a round costs can be measured. No file
    /// says so.
    #[serde(skip)]
    pub idle: bool,
}

/// `Err` with the key and the message unless something `holds`.
fn must(holds: bool, key: &'static str, message: &str) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err((key, message.to_owned())) }
}

impl TaskKind {
    /// What its scores are.
    pub fn metric(self) -> Metric {
        match self {
            Self::ImageClassification | Self::TextClassification => Metric::Accuracy,
            Self::CausalLm => Metric::Perplexity,
        }
    }

    /// Whether its rows have labels.
    pub fn has_labels(self) -> bool {
        self != Self::CausalLm
    }
}

impl TaskPlan {
    /// The task as charters say it, with what its files are found to have.
    pub(crate) fn charter(&self, labels: &[String], vocabularies: Vec<Vocabulary>) -> Task {
        let labels = labels.to_vec();
        match self.kind {
            TaskKind::ImageClassification => Task::ImageClassification { labels },
            TaskKind::TextClassification => Task::TextClassification { labels },
            TaskKind::CausalLm => Task::CausalLm { vocabularies },
        }
    }

    /// The first mistake.
    pub(crate) fn check(&self) -> Result<(), Wrong> {
        must(
            self.readouts.is_empty() || self.kind == TaskKind::CausalLm,
            "readouts",
            "are for causal-lm: a classification has one readout, of its labels",
        )
    }
}

impl Precision {
    /// Its name in files and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }
}

impl NodePlan {
    /// How much of its backbone is used, and how, as options of `heterotune run`.
    pub(crate) fn flags(&self) -> Vec<(&'static str, String)> {
        let layers = self.layers.map(|layers| ("--layers", layers.to_string()));
        let precision = self.precision.map(|precision| ("--precision", precision.name().to_owned()));
        layers.into_iter().chain(precision).collect()
    }
}

impl TrainPlan {
    /// The first mistake.
    pub(crate) fn check(&self) -> Result<(), Wrong> {
        must(self.steps > 0, "steps", "must be at least 1")?;
        must(self.batch > 0, "batch", "must be at least 1")?;
        must(self.length.is_none_or(|length| length >= 2), "length", "must be at least 2")?;
        let rates = [("rate", Some(self.rate)), ("readout_rate", self.readout_rate)];
        let more = [("branch_rate", self.branch_rate), ("projection_rate", self.projection_rate)];
        let positive = |rate: f64| rate.is_finite() && rate > 0.0;
        let mut rates = rates.into_iter().chain(more);
        rates.try_for_each(|(key, rate)| must(rate.is_none_or(positive), key, "must be a positive number"))
    }

    /// How to train, as options of `heterotune run`.
    pub(crate) fn flags(&self) -> Vec<(&'static str, String)> {
        let always = [("--steps", self.steps.to_string()), ("--batch", self.batch.to_string())];
        let rates = [
            ("--rate", Some(self.rate)),
            ("--branch-rate", self.branch_rate),
            ("--projection-rate", self.projection_rate),
            ("--readout-rate", self.readout_rate),
        ];
        let rates = rates.into_iter().filter_map(|(name, rate)| Some((name, rate?.to_string())));
        let length = self.length.map(|length| ("--length", length.to_string()));
        always.into_iter().chain(rates).chain(length).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(flags: Vec<(&'static str, String)>) -> String {
        flags.into_iter().map(|(name, value)| format!("{name} {value} ")).collect()
    }

    #[test]
    fn a_node_is_told_what_its_scenario_says_and_no_more() {
        let node: NodePlan = toml::from_str("name = \"a\"\nbackbone = \"b\"").unwrap();
        assert_eq!(words(node.flags()), "");
        let node = NodePlan { layers: Some(3), precision: Some(Precision::Q8), ..node };
        assert_eq!(words(node.flags()), "--layers 3 --precision q8 ");
        let train: TrainPlan = toml::from_str("steps = 5\nbatch = 32\nrate = 0.001").unwrap();
        assert_eq!(words(train.flags()), "--steps 5 --batch 32 --rate 0.001 ");
        let more = TrainPlan { projection_rate: Some(0.002), length: Some(64), ..train };
        assert_eq!(words(more.flags()), "--steps 5 --batch 32 --rate 0.001 --projection-rate 0.002 --length 64 ");
    }

    #[test]
    fn names_of_precisions_are_those_of_files() {
        for precision in [Precision::F32, Precision::F16, Precision::Bf16, Precision::Q8, Precision::Q4] {
            let node = format!("name = \"a\"\nbackbone = \"b\"\nprecision = \"{}\"", precision.name());
            assert_eq!(toml::from_str::<NodePlan>(&node).unwrap().precision, Some(precision));
        }
    }
}
