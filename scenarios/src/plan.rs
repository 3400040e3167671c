//! The tables of a scenario file: task, data, nodes, training.

use crate::{Lie, Metric, data::Format};
use heterotune_protocol::charter::{Task, Vocabulary};
use serde::Deserialize;
use std::{fmt, path::PathBuf};

/// The key of a wrong value in its table, and what is wrong.
pub(crate) type Wrong = (&'static str, String);

/// Dirichlet concentrations whose gamma variates are numbers that can be told apart.
const ALPHA: std::ops::RangeInclusive<f64> = 0.001..=1e6;

/// Bytes of a piece of plain text, unless the scenario says otherwise.
const PIECE_BYTES: usize = 100;

/// The share of plain text that is the common test, unless the scenario says otherwise.
const TEST_SHARE: f64 = 0.1;

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

/// Which data there is and how it is dealt.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPlan {
    /// The data; its extension tells its format.
    pub file: PathBuf,
    /// The common test set, where it is a file of its own.
    pub test: Option<PathBuf>,
    /// How many rows of the test set are used: the first after a shuffle.
    pub test_rows: Option<usize>,
    /// The share of a plain text, at its end, that is the common test.
    pub test_share: Option<f64>,
    /// Into pieces of how many bytes plain text is cut.
    pub piece_bytes: Option<usize>,
    /// The seed of the shuffle that parts training and test rows.
    #[serde(default)]
    pub split_seed: u64,
    /// How many rows are for training; all, where there is a test set besides.
    pub train: Option<usize>,
    /// How many rows are public and unlabelled.
    pub anchors: Option<u16>,
    /// Where these come from, if not from the training rows.
    pub anchors_file: Option<PathBuf>,
    /// How many labelled rows a node gets.
    pub labelled_per_node: Option<usize>,
    /// How many more it gets that it does not train on, but judges mixtures by.
    #[serde(default)]
    pub held_per_node: usize,
    /// How rows are dealt.
    #[serde(default)]
    partition: PartitionKind,
    alpha: Option<f64>,
    min_per_class: Option<usize>,
    classes_per_node: Option<[usize; 2]>,
    shards_per_node: Option<usize>,
    column: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PartitionKind {
    #[default]
    Dirichlet,
    Iid,
    Shards,
    Column,
}

/// How rows are dealt.
#[derive(Clone, Debug, PartialEq)]
pub enum Partition {
    /// Each node draws its own shares of the classes.
    Dirichlet {
        /// The Dirichlet concentration of a node's classes.
        alpha: f64,
        /// The least labels of any class in the whole network.
        min_per_class: usize,
        /// The least and the most classes of a node.
        classes_per_node: [usize; 2],
    },
    /// At random.
    Iid,
    /// Sorted by label and cut into pieces (McMahan et al. 2017, "Communication-efficient learning of deep networks from
    /// decentralized data").
    Shards {
        /// Pieces that a node gets.
        per_node: usize,
    },
    /// All rows with the same value of a column at one node.
    Column(String),
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

impl DataPlan {
    /// Into pieces of how many bytes plain text is cut.
    pub fn piece_bytes(&self) -> usize {
        self.piece_bytes.unwrap_or(PIECE_BYTES)
    }

    /// The share of a plain text that is the common test, where it has no file of its own.
    pub fn test_share(&self) -> f64 {
        self.test_share.unwrap_or(TEST_SHARE)
    }

    /// The column that rows are dealt by, if they are.
    pub(crate) fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    /// How rows are dealt.
    ///
    /// # Errors
    /// The key that is missing, or not for this partition.
    pub(crate) fn partition(&self) -> Result<Partition, Wrong> {
        let kind = self.partition;
        let given = [
            ("alpha", self.alpha.is_some(), PartitionKind::Dirichlet),
            ("min_per_class", self.min_per_class.is_some(), PartitionKind::Dirichlet),
            ("classes_per_node", self.classes_per_node.is_some(), PartitionKind::Dirichlet),
            ("shards_per_node", self.shards_per_node.is_some(), PartitionKind::Shards),
            ("column", self.column.is_some(), PartitionKind::Column),
        ];
        for (key, given, of) in given {
            match (given, kind == of) {
                (true, false) => return Err((key, format!("is for partition = \"{of}\", and this is \"{kind}\""))),
                (false, true) => return Err((key, format!("must be given for partition = \"{kind}\""))),
                _ => {}
            }
        }
        Ok(match kind {
            PartitionKind::Dirichlet => Partition::Dirichlet {
                alpha: self.alpha.unwrap_or_default(),
                min_per_class: self.min_per_class.unwrap_or_default(),
                classes_per_node: self.classes_per_node.unwrap_or_default(),
            },
            PartitionKind::Iid => Partition::Iid,
            PartitionKind::Shards => Partition::Shards { per_node: self.shards_per_node.unwrap_or_default() },
            PartitionKind::Column => Partition::Column(self.column.clone().unwrap_or_default()),
        })
    }

    /// The first mistake, for a task of this `kind`.
    pub(crate) fn check(&self, kind: TaskKind) -> Result<(), Wrong> {
        self.check_files(kind)?;
        self.check_counts()?;
        match self.partition()? {
            Partition::Dirichlet { alpha, classes_per_node: [fewest, most], .. } => {
                must(
                    kind.has_labels(),
                    "partition",
                    "must be \"iid\" or \"column\": texts for causal-lm have no labels",
                )?;
                must(ALPHA.contains(&alpha), "alpha", "must be from 0.001 to 1000000")?;
                let ordered = 1 <= fewest && fewest <= most;
                must(ordered, "classes_per_node", "must be [least, most], with 1 <= least <= most")?;
                must(
                    self.labelled_per_node.is_some(),
                    "labelled_per_node",
                    "must be given for partition = \"dirichlet\"",
                )
            }
            Partition::Iid => Ok(()),
            Partition::Shards { per_node } => {
                must(
                    kind.has_labels(),
                    "partition",
                    "must be \"iid\" or \"column\": texts for causal-lm have no labels",
                )?;
                must((1..=1_000).contains(&per_node), "shards_per_node", "must be from 1 to 1000")
            }
            Partition::Column(_) => {
                let has_columns = Format::of(&self.file) == Some(Format::Jsonl);
                must(has_columns, "column", "needs a .jsonl file, whose rows have names for their values")
            }
        }
    }

    fn check_files(&self, kind: TaskKind) -> Result<(), Wrong> {
        let format = Format::of(&self.file);
        let formats = match kind {
            TaskKind::ImageClassification => [Format::Csv, Format::Cifar],
            TaskKind::TextClassification => [Format::Jsonl; 2],
            TaskKind::CausalLm => [Format::Jsonl, Format::Text],
        };
        let endings = match kind {
            TaskKind::ImageClassification => "must end in .csv, .bin or .bin.gz, which hold images",
            TaskKind::TextClassification => "must end in .jsonl, which holds texts with labels",
            TaskKind::CausalLm => "must end in .jsonl or .txt, which hold texts",
        };
        must(format.is_some_and(|format| formats.contains(&format)), "file", endings)?;
        for (key, path) in [("test", &self.test), ("anchors_file", &self.anchors_file)] {
            let like = |path| Format::of(path).map(Format::extension) == format.map(Format::extension);
            let same = path.as_ref().is_none_or(|path| like(path));
            must(same, key, "must be of the same kind as data.file: nodes get all of their data in one format")?;
        }
        let text = format == Some(Format::Text);
        must(text || self.piece_bytes.is_none(), "piece_bytes", "is for .txt files, which are cut into pieces")?;
        must((16..=65_536).contains(&self.piece_bytes()), "piece_bytes", "must be from 16 to 65536")?;
        let cut = text && self.test.is_none();
        must(cut || self.test_share.is_none(), "test_share", "is for a .txt file without a data.test of its own")?;
        must((0.001..=0.9).contains(&self.test_share()), "test_share", "must be from 0.001 to 0.9")?;
        let parted = cut || self.test.is_some() || self.train.is_some();
        must(parted, "train", "must be given: without a data.test, the rows after these are the common test set")
    }

    fn check_counts(&self) -> Result<(), Wrong> {
        must(self.test_rows != Some(0), "test_rows", "must be at least 1")?;
        must(self.labelled_per_node != Some(0), "labelled_per_node", "must be at least 1")?;
        if self.anchors_file.is_some() {
            return Ok(());
        }
        let Some(anchors) = self.anchors.map(usize::from) else {
            return Err(("anchors", "must be given, unless there is a data.anchors_file".into()));
        };
        must(self.train.is_none_or(|train| train > anchors), "train", "must be more than data.anchors")
    }
}

impl fmt::Display for PartitionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dirichlet => "dirichlet",
            Self::Iid => "iid",
            Self::Shards => "shards",
            Self::Column => "column",
        })
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
