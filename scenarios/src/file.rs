//! The scenario file: what to run, as strict TOML in which every mistake has a line and a column.

use crate::{Liars, Lie, RunError, embedded, settings};
use heterotune_crypto::{Digest, Identity};
use heterotune_protocol::{
    charter::{Anchors, Charter, Task},
    limits,
};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A scenario: data to deal, nodes to deal it to, and what they agree on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What people call it; also the network's name.
    pub name: String,
    /// The seed of every random choice, unless the runner is given another.
    pub seed: u64,
    /// What is learned from.
    pub data: DataPlan,
    /// The nodes.
    #[serde(rename = "node")]
    pub nodes: Vec<NodePlan>,
    /// Charter settings that differ from [`Charter::new`].
    #[serde(default)]
    pub network: toml::Table,
    /// What a node does between two rounds.
    pub train: TrainPlan,
    /// Variants to compare with.
    #[serde(default, rename = "ablation")]
    pub ablations: Vec<Variant>,
    /// Who lies when that is asked for.
    pub liars: Option<Liars>,
    /// The text it was read from.
    #[serde(skip)]
    pub(crate) source: String,
    /// Where relative paths start; none in the scenario that is built in.
    #[serde(skip)]
    pub(crate) folder: Option<PathBuf>,
}

/// Which data there is and how it is dealt.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPlan {
    /// The CSV file.
    pub file: PathBuf,
    /// The seed of the shuffle that parts training and test rows.
    pub split_seed: u64,
    /// How many rows are for training; the others are the common test set.
    pub train: usize,
    /// How many of these are public and unlabelled.
    pub anchors: u16,
    /// How many labelled rows a node gets.
    pub labelled_per_node: usize,
    /// How many more it gets that it does not train on, but judges mixtures by.
    #[serde(default)]
    pub held_per_node: usize,
    /// The Dirichlet concentration of a node's classes.
    pub alpha: f64,
    /// The least labels of any class in the whole network.
    pub min_per_class: usize,
    /// The least and the most classes of a node.
    pub classes_per_node: [usize; 2],
}

/// One node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePlan {
    /// Its name, also of its folder.
    pub name: String,
    /// The folder of its backbone.
    pub backbone: PathBuf,
    /// What it tells in place of what is true. No file says so: [`Liars`] are made for comparison only.
    #[serde(skip)]
    pub(crate) lie: Option<Lie>,
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
}

/// A variant of the network, for comparison.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Its name, also of its folder.
    pub name: String,
    /// Charter settings that differ from the scenario's.
    #[serde(default)]
    pub network: toml::Table,
    /// How its nodes train, where that differs: what starts from nothing needs more than what starts well.
    pub train: Option<TrainPlan>,
}

impl Variant {
    /// Whether it is the scenario itself.
    pub fn changes_nothing(&self) -> bool {
        self.network.is_empty() && self.train.is_none()
    }
}

impl TrainPlan {
    /// The first mistake: its key, and what is wrong.
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let must = |holds: bool, key, message| if holds { Ok(()) } else { Err((key, message)) };
        must(self.steps > 0, "steps", "must be at least 1")?;
        must(self.batch > 0, "batch", "must be at least 1")?;
        must(self.rate.is_finite() && self.rate > 0.0, "rate", "must be a positive number")
    }
}

impl Scenario {
    /// The scenario that is built in: eight nodes on handwritten digits.
    ///
    /// # Errors
    /// Never in a released program; the file is checked like any other.
    pub fn quickstart() -> Result<Self, RunError> {
        Self::from_text(Path::new("quickstart.toml"), embedded::QUICKSTART.into(), None)
    }

    /// The scenario in the file at `path`.
    ///
    /// # Errors
    /// A file that can't be read, or the first mistake in it.
    pub fn from_file(path: &Path) -> Result<Self, RunError> {
        let source = fs::read_to_string(path).map_err(|source| RunError::Read { path: path.into(), source })?;
        // A file in the current folder has an empty one above it.
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")).to_path_buf();
        Self::from_text(path, source, Some(folder))
    }

    fn from_text(path: &Path, source: String, folder: Option<PathBuf>) -> Result<Self, RunError> {
        let mistake = |offset, message| {
            let (line, column) = settings::position(&source, offset);
            RunError::Text { path: path.into(), line, column, message }
        };
        let mut scenario: Self = toml::from_str(&source)
            .map_err(|error| mistake(error.span().map_or(0, |span| span.start), error.message().trim().into()))?;
        if let Err((key, message)) = scenario.check() {
            return Err(mistake(settings::offset(&source, &key), format!("{}: {message}", key.join("."))));
        }
        (scenario.source, scenario.folder) = (source, folder);
        Ok(scenario)
    }

    /// The charter of this network, or of a `variant` of it.
    ///
    /// # Errors
    /// Settings that make no charter.
    pub fn charter(
        &self,
        seed: u64,
        task: Task,
        anchors: Anchors,
        variant: Option<&Variant>,
    ) -> Result<Charter, RunError> {
        let tables = [Some(&self.network), variant.map(|variant| &variant.network)];
        let mut charter = settings::apply(self.defaults(seed, task, anchors), tables.into_iter().flatten())
            .map_err(|(_, message)| RunError::Encode { what: "the charter", message })?;
        charter.nonce = seed;
        charter.adapter.seed = seed;
        // Everybody is always waited for, but for liars whose updates nobody takes.
        let refused = self.nodes.iter().any(|node| node.lie.is_some_and(Lie::is_refused));
        let awaited = if refused { self.honest() } else { self.nodes.len() };
        charter.rounds.quorum = u16::try_from(awaited).unwrap_or(u16::MAX);
        if let Some(liars) = self.liars.as_ref().filter(|_| refused) {
            charter.rounds.deadline_ms = liars.deadline_ms;
        }
        charter.check()?;
        Ok(charter)
    }

    fn defaults(&self, seed: u64, task: Task, anchors: Anchors) -> Charter {
        let founders = self.nodes.iter().map(|node| Identity::from_seed(seed, &node.name).id()).collect();
        Charter::new(&self.name, founders, task, anchors)
    }

    /// The first mistake: the path of its key, and what is wrong.
    fn check(&self) -> Result<(), (Vec<String>, String)> {
        let at = |key: &str| key.split('.').map(String::from).collect::<Vec<_>>();
        let must = |holds: bool, key: &str, message: &str| if holds { Ok(()) } else { Err((at(key), message.into())) };
        let data = &self.data;
        must((1..=limits::NAME_BYTES_MAX).contains(&self.name.len()), "name", "must have 1 to 64 bytes")?;
        must(i64::try_from(self.seed).is_ok(), "seed", "must be below 2^63, which is what TOML can hold")?;
        must(data.train > usize::from(data.anchors), "data.train", "must be more than data.anchors")?;
        must(data.labelled_per_node > 0, "data.labelled_per_node", "must be at least 1")?;
        must((0.001..=1e6).contains(&data.alpha), "data.alpha", "must be from 0.001 to 1000000")?;
        let [fewest, most] = data.classes_per_node;
        must(1 <= fewest && fewest <= most, "data.classes_per_node", "must be [least, most], with 1 <= least <= most")?;
        let variants = self.ablations.iter().enumerate();
        let trained =
            variants.filter_map(|(index, variant)| Some((format!("ablation.{index}.train"), variant.train.as_ref()?)));
        for (table, train) in trained.chain([("train".to_string(), &self.train)]) {
            train.check().map_err(|(key, message)| (at(&format!("{table}.{key}")), message.to_string()))?;
        }
        must((1..=limits::FOUNDERS_MAX).contains(&self.nodes.len()), "node", "there must be 1 to 64 nodes")?;

        let names = |table: &str, names: Vec<&str>| {
            let mut seen = BTreeSet::new();
            for (index, name) in names.into_iter().enumerate() {
                let key = format!("{table}.{index}.name");
                must(is_name(name), &key, "must be 1 to 32 lower-case letters, digits or hyphens: it names a folder")?;
                must(seen.insert(name), &key, "must differ from the names before it")?;
            }
            Ok(())
        };
        names("node", self.nodes.iter().map(|node| node.name.as_str()).collect())?;
        names("ablation", self.ablations.iter().map(|variant| variant.name.as_str()).collect())?;

        if let Some(liars) = &self.liars {
            liars.check(&self.nodes).map_err(|(key, message)| (at(&format!("liars.{key}")), message))?;
        }

        // The data file's labels are not known yet; two stand for them.
        let stand_ins = Task::ImageClassification { labels: vec!["0".into(), "1".into()] };
        let anchors = Anchors { digest: Digest::ZERO, count: data.anchors };
        let stand_in = self.defaults(self.seed, stand_ins, anchors);
        let mut base = vec!["network".to_owned()];
        let charter = settings::check(stand_in, &self.network, &base)?;
        must(charter.rounds.total > 0, "network.rounds.total", "must be at least 1: a scenario has an end")?;
        for (index, variant) in self.ablations.iter().enumerate() {
            base = at(&format!("ablation.{index}.network"));
            settings::check(charter.clone(), &variant.network, &base)?;
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(from: &str, to: &str) -> String {
        assert!(embedded::QUICKSTART.contains(from), "{from}");
        let text = embedded::QUICKSTART.replacen(from, to, 1);
        Scenario::from_text(Path::new("x.toml"), text, None).unwrap_err().to_string()
    }

    /// `x.toml:line:column` of the first occurrence of `text` in the changed quickstart.
    fn place(from: &str, to: &str, text: &str) -> String {
        let changed = embedded::QUICKSTART.replacen(from, to, 1);
        let (line, column) = settings::position(&changed, changed.find(text).unwrap());
        format!("x.toml:{line}:{column}: ")
    }

    #[test]
    fn the_quickstart_makes_a_charter() {
        let scenario = Scenario::quickstart().unwrap();
        assert_eq!(scenario.nodes.len(), 8);
        let anchors = Anchors { digest: Digest::ZERO, count: 128 };
        let task = Task::ImageClassification { labels: (0..10).map(|digit| digit.to_string()).collect() };
        let charter = scenario.charter(7, task.clone(), anchors.clone(), None).unwrap();
        assert_eq!((charter.nonce, charter.adapter.seed, charter.rounds.quorum), (7, 7, 8));
        assert_eq!((charter.adapter.slots, charter.rounds.horizon), (1, 4));
        let charter = scenario.charter(7, task, anchors, scenario.ablations.get(1)).unwrap();
        assert_eq!((charter.adapter.slots, charter.adapter.branches), (1, 0));
    }

    #[test]
    fn mistakes_have_a_place() {
        for (from, to, text, said) in [
            ("steps = 5", "stops = 10", "stops", "unknown field `stops`"),
            ("steps = 5", "steps = = 10", "= 10     # o", ""),
            ("alpha = 0.1", "alpha = 0.0", "alpha = 0.0", "data.alpha: must be"),
            ("name = \"carl\"", "name = \"ada\"", "name = \"ada\"\nbackbone = \"backbones/vit-d64-l4", "must differ"),
            ("name = \"carl\"", "name = \"../x\"", "name = \"../x\"", "names a folder"),
            ("slots = 1", "slits = 1", "slits", "unknown field `slits`"),
            ("slots = 1", "slots = \"one\"", "slots = \"one\"", "invalid type"),
            ("slots = 1", "slots = 9", "slots = 9", "from 1 to 8"),
            (
                "[train]",
                "[liars]\nnodes = [\"eve\"]\nlies = [\"copy\"]\ndeadline_ms = 5000\n[train]",
                "nodes = [\"eve",
                "liars.nodes: there is no node eve",
            ),
            ("[train]", "[liars]\nnodes = []\nlies = [\"white\"]\n[train]", "\"white", "unknown variant `white`"),
            ("rule = \"mean\"", "rule = \"mode\"", "rule = \"mode\"", "unknown variant `mode`"),
        ] {
            let message = mistake(from, to);
            assert!(message.starts_with(&place(from, to, text)), "{message}, not {}", place(from, to, text));
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn what_the_runner_sets_is_not_the_scenarios() {
        assert!(mistake("codec = {", "nonce = 3\ncodec = {").contains("is set by the runner"));
    }
}
