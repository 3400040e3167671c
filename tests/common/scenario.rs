//! The shipped scenario in a shorter form, run by the real runner.

use super::{
    inputs::shipped,
    process::{Ended, Process, heterotune},
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

/// A scenario file.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Where it is.
    pub(crate) file: PathBuf,
    /// Its nodes: name and backbone folder.
    pub(crate) nodes: Vec<(String, PathBuf)>,
}

impl Scenario {
    /// The quickstart with four of its nodes, half the labels, a small test set and so many rounds.
    pub(crate) fn short(folder: &Path, rounds: i64) -> Self {
        let mut scenario: Table = fs::read_to_string(shipped().join("quickstart.toml")).unwrap().parse().unwrap();
        scenario.insert("name".into(), "short".into());
        let data = scenario["data"].as_table_mut().unwrap();
        data.insert("file".into(), path(&shipped().join("data/digits.csv")));
        for (key, value) in [("train", 1_650), ("anchors", 64), ("labelled_per_node", 20), ("min_per_class", 2)] {
            data.insert(key.into(), value.into());
        }
        let adapter = scenario["network"]["adapter"].as_table_mut().unwrap();
        adapter.insert("rank".into(), 8.into());
        adapter.insert("readout_rank".into(), 32.into());
        scenario["network"]["rounds"].as_table_mut().unwrap().insert("total".into(), rounds.into());
        let nodes = scenario["node"].as_array_mut().unwrap();
        // Four different widths and depths.
        nodes.retain(|node| ["ada", "blaise", "carl", "emmy"].contains(&node["name"].as_str().unwrap()));
        let mut known = Vec::new();
        for node in nodes {
            let backbone = shipped().join(node["backbone"].as_str().unwrap());
            known.push((node["name"].as_str().unwrap().to_owned(), backbone.clone()));
            node.as_table_mut().unwrap().insert("backbone".into(), path(&backbone));
        }
        let file = folder.join("short.toml");
        fs::write(&file, scenario.to_string()).unwrap();
        Self { file, nodes: known }
    }

    /// Starts the runner.
    pub(crate) fn start(&self, seed: u64, out: &Path) -> Process {
        self.start_with(&[], seed, out)
    }

    fn start_with(&self, flags: &[&str], seed: u64, out: &Path) -> Process {
        let mut command = heterotune();
        command.args(["scenario", "run"]).arg(&self.file).args(flags);
        command.args(["--json", "--seed", &seed.to_string(), "--out"]).arg(out);
        Process::start(command, &out.with_extension("runner"))
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, seed: u64, out: &Path) -> Ended {
        self.run_with(&[], seed, out)
    }

    /// Runs it to its end, with more flags.
    pub(crate) fn run_with(&self, flags: &[&str], seed: u64, out: &Path) -> Ended {
        let ended = self.start_with(flags, seed, out).wait();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended
    }

    /// The state folders of the nodes of a run.
    pub(crate) fn states(&self, out: &Path) -> Vec<PathBuf> {
        self.nodes.iter().map(|(name, _)| out.join("nodes").join(name)).collect()
    }
}

fn path(path: &Path) -> Value {
    path.to_str().unwrap().into()
}
