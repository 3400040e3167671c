//! The scenario file: what to run, as strict TOML in which every mistake has a line and a column.

use crate::{
    DataPlan, Liars, Lie, Metric, NodePlan, RunError, TaskPlan, TrainPlan, compare::SearchPlan, embedded, places,
    plan::Wrong, settings,
};
use heterotune_crypto::{Digest, Identity};
use heterotune_protocol::{
    charter::{Anchors, Charter, Task, Vocabulary},
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
    /// What is learned.
    #[serde(default)]
    pub task: TaskPlan,
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
    /// Settings to try where methods are compared, unless an ablation has its own.
    pub search: Option<SearchPlan>,
    /// Who lies when that is asked for.
    pub liars: Option<Liars>,
    /// The text it was read from.
    #[serde(skip)]
    pub(crate) source: String,
    /// Where relative paths start; none in the scenario that is built in.
    #[serde(skip)]
    pub(crate) folder: Option<PathBuf>,
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
    /// Settings to try for it where methods are compared.
    pub search: Option<SearchPlan>,
}

impl Variant {
    /// Whether it is the scenario itself.
    pub fn changes_nothing(&self) -> bool {
        self.network.is_empty() && self.train.is_none()
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

    /// What the nodes' scores are.
    pub fn metric(&self) -> Metric {
        self.task.kind.metric()
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
        must((1..=limits::NAME_BYTES_MAX).contains(&self.name.len()), "name", "must have 1 to 64 bytes")?;
        must(i64::try_from(self.seed).is_ok(), "seed", "must be below 2^63, which is what TOML can hold")?;
        let below = |table: &str| {
            let table = table.to_owned();
            move |(key, message): Wrong| (at(&format!("{table}.{key}")), message)
        };
        self.task.check().map_err(below("task"))?;
        self.data.check(self.task.kind).map_err(below("data"))?;
        if let Some((key, _)) = self.paths().iter().find(|(_, path)| places::is_unknown(path)) {
            must(false, key, "begins with a variable, and there is only $HETEROTUNE_DATA")?;
        }
        let variants = self.ablations.iter().enumerate();
        let trained =
            variants.filter_map(|(index, variant)| Some((format!("ablation.{index}.train"), variant.train.as_ref()?)));
        for (table, train) in trained.chain([("train".to_string(), &self.train)]) {
            train.check().map_err(below(&table))?;
        }
        let variants = self.ablations.iter().enumerate();
        let searched =
            variants.filter_map(|(index, of)| Some((format!("ablation.{index}.search"), of.search.as_ref()?)));
        for (table, search) in searched.chain(self.search.iter().map(|search| ("search".to_string(), search))) {
            search.check().map_err(below(&table))?;
        }
        must((1..=limits::FOUNDERS_MAX).contains(&self.nodes.len()), "node", "there must be 1 to 64 nodes")?;
        let empty = self.nodes.iter().position(|node| node.layers == Some(0));
        empty.map_or(Ok(()), |index| must(false, &format!("node.{index}.layers"), "must be at least 1"))?;

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
            liars.check(&self.nodes).map_err(below("liars"))?;
        }

        // The files' labels, tokenizers and number of anchors are not known yet; others stand for them.
        let labels = ["0", "1"].map(String::from);
        let vocabularies = (0u64..)
            .zip(&self.task.readouts)
            .map(|(index, _)| Vocabulary { tokenizer: Digest::of("stand-in", &[&index.to_le_bytes()]), tokens: 2 });
        let task = self.task.charter(&labels, vocabularies.collect());
        let most = u16::try_from(limits::ANCHORS_MAX).unwrap_or(u16::MAX);
        let anchors = Anchors { digest: Digest::ZERO, count: self.data.anchors.unwrap_or(most) };
        let stand_in = self.defaults(self.seed, task, anchors);
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
            ("[data]", "[task]\nkind = \"poetry\"\n[data]", "\"poetry", "unknown variant `poetry`"),
            ("[data]", "[task]\nreadouts = [\"x\"]\n[data]", "readouts = [\"x", "task.readouts: are for causal-lm"),
            (
                "file = \"data/digits.csv\"",
                "file = \"$HOME/x.csv\"",
                "file = \"$HOME",
                "there is only $HETEROTUNE_DATA",
            ),
            ("file = \"data/digits.csv\"", "file = \"x.xls\"", "file = \"x.xls", "data.file: must end in .csv, .bin"),
            ("split_seed = 0", "test = \"x.jsonl\"", "test = \"x.jsonl", "data.test: must be of the same kind"),
            ("split_seed = 0", "test_share = 0.5", "test_share = 0.5", "data.test_share: is for a .txt"),
            ("train = 1200", "", "data]", "data.train: must be given"),
            ("train = 1200", "train = 128", "train = 128", "data.train: must be more than data.anchors"),
            ("anchors = 128", "", "data]", "data.anchors: must be given"),
            ("alpha = 0.1", "", "data]", "data.alpha: must be given for partition = \"dirichlet\""),
            ("alpha = 0.1", "partition = \"iid\"", "min_per_class", "min_per_class: is for partition = \"dirichlet\""),
            ("alpha = 0.1", "alpha = 0.1\ncolumn = \"x\"", "column = \"x", "column: is for partition = \"column\""),
            ("labelled_per_node = 40", "labelled_per_node = 0", "labelled_per_node = 0", "must be at least 1"),
            ("[[node]]", "[[node]]\nlayers = 0", "layers = 0", "node.0.layers: must be at least 1"),
            ("[[node]]", "[[node]]\nprecision = \"q2\"", "\"q2", "unknown variant `q2`"),
            (
                "steps = 5",
                "branch_rate = -1.0\nsteps = 5",
                "branch_rate",
                "train.branch_rate: must be a positive number",
            ),
            ("steps = 5", "length = 1\nsteps = 5", "length = 1", "train.length: must be at least 2"),
        ] {
            let message = mistake(from, to);
            assert!(message.starts_with(&place(from, to, text)), "{message}, not {}", place(from, to, text));
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn texts_without_labels_are_dealt_without_them() {
        let text =
            embedded::QUICKSTART.replacen("[data]", "[task]\nkind = \"causal-lm\"\nreadouts = [\"x\"]\n[data]", 1);
        let text =
            text.replace("data/digits.csv", "x.jsonl").replace("readout = \"statistics\"", "readout = \"trained\"");
        let read = |text: String| Scenario::from_text(Path::new("x.toml"), text, None);
        let held = text.replace("split_seed = 0", "split_seed = 0\nheld_per_node = 4");
        let message = read(held).unwrap_err().to_string();
        assert!(message.contains("data.partition: must be \"iid\" or \"column\": texts for causal-lm"), "{message}");
        let dirichlet = ["alpha = 0.1", "min_per_class = 5", "classes_per_node = [1, 8]"];
        let text = dirichlet.iter().fold(text, |text, key| text.replace(key, ""));
        let iid = text.replace("split_seed = 0", "partition = \"iid\"");
        let message = read(iid.clone()).unwrap_err().to_string();
        assert!(message.contains("data.held_per_node: must be at least 1 for causal-lm"), "{message}");
        let iid = iid.replace("partition", "held_per_node = 4\npartition");
        assert_eq!(read(iid.clone()).unwrap().metric(), Metric::Perplexity);
        let statistics = iid.replace("readout = \"trained\"", "readout = \"statistics\"");
        assert!(read(statistics).unwrap_err().to_string().contains("tokens have no class statistics"));
        let message = read(iid.replace("x.jsonl", "x.csv")).unwrap_err().to_string();
        assert!(message.contains("data.file: must end in .jsonl or .txt"), "{message}");
    }

    #[test]
    fn what_the_runner_sets_is_not_the_scenarios() {
        assert!(mistake("codec = {", "nonce = 3\ncodec = {").contains("is set by the runner"));
    }
}
