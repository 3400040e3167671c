//! The table `[data]`: which data there is and how it is dealt.

use super::{TaskKind, Wrong, must};
use crate::data::Format;
use serde::Deserialize;
use std::{fmt, path::PathBuf};

/// Dirichlet concentrations whose gamma variates are numbers that can be told apart.
const ALPHA: std::ops::RangeInclusive<f64> = 0.001..=1e6;

/// Bytes of a piece of plain text, unless the scenario says otherwise.
const PIECE_BYTES: usize = 100;

/// The share of plain text that is the common test, unless the scenario says otherwise.
const TEST_SHARE: f64 = 0.1;

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
    /// How many rows nobody learns from, so that settings can be chosen by them: the last but the anchors.
    pub validation: Option<usize>,
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

impl DataPlan {
    /// Into pieces of how many bytes plain text is cut.
    pub fn piece_bytes(&self) -> usize {
        self.piece_bytes.unwrap_or(PIECE_BYTES)
    }

    /// The share of a plain text that is the common test, where it has no file of its own.
    pub fn test_share(&self) -> f64 {
        self.test_share.unwrap_or(TEST_SHARE)
    }

    /// How many rows nobody learns from.
    pub(crate) fn validation_rows(&self) -> usize {
        self.validation.unwrap_or(0)
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
        self.check_counts(kind)?;
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

    fn check_counts(&self, kind: TaskKind) -> Result<(), Wrong> {
        must(self.test_rows != Some(0), "test_rows", "must be at least 1")?;
        must(self.validation != Some(0), "validation", "must be at least 1")?;
        must(self.labelled_per_node != Some(0), "labelled_per_node", "must be at least 1")?;
        must(
            kind.has_labels() || self.held_per_node > 0,
            "held_per_node",
            "must be at least 1 for causal-lm: by the rows that a node holds out it tells when to stop",
        )?;
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
