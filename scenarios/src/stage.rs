//! A scenario with its files read, ready for its networks: of its main run, its variants, many seeds.

use crate::{
    Data, Deal, InProcess, Plan, RunError, Scenario, TrainPlan, Variant, embedded,
    folder::{self, Folder},
    history::History,
    inproc, network,
    places::Places,
    progress::Progress,
    tokenizer,
};
use heterotune_protocol::charter::{Anchors, Charter, Task, Vocabulary};
use std::path::{Path, PathBuf};

/// What runs networks.
pub(crate) enum Machine<'a> {
    /// Processes.
    Processes,
    /// This process.
    Here(&'a mut dyn InProcess),
}

/// A scenario, its data, and the output folder.
pub(crate) struct Stage<'a> {
    /// The program.
    binary: PathBuf,
    machine: Machine<'a>,
    /// The scenario, each path where it is.
    pub(crate) scenario: Scenario,
    pub(crate) data: Data,
    vocabularies: Vec<Vocabulary>,
    folder: Folder,
}

/// The data of one seed, dealt and written.
pub(crate) struct Dealt {
    pub(crate) seed: u64,
    pub(crate) deal: Deal,
    /// Where each node's folder is.
    folder: PathBuf,
    anchors: Anchors,
    task: Task,
}

/// A network to run on dealt data.
pub(crate) struct Run<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) train: &'a TrainPlan,
    pub(crate) charter: &'a Charter,
    /// Where it goes.
    pub(crate) folder: &'a Path,
    pub(crate) alone: bool,
}

impl<'a> Stage<'a> {
    /// Takes the output folder and reads the scenario's files.
    pub(crate) fn open(
        scenario: &Scenario,
        out: &Path,
        binary: PathBuf,
        engine: Option<&'a mut dyn InProcess>,
    ) -> Result<Self, RunError> {
        let folder = Folder::take(out)?;
        let scenario = located(scenario, folder.path())?;
        let readouts = scenario.task.readouts.iter();
        let vocabularies = readouts.map(|path| tokenizer::vocabulary(&binary, path)).collect::<Result<_, _>>()?;
        let data = Data::read(&scenario.data, scenario.task.kind)?;
        let machine = engine.map_or(Machine::Processes, Machine::Here);
        Ok(Self { binary, machine, scenario, data, vocabularies, folder })
    }

    /// The output folder.
    pub(crate) fn out(&self) -> PathBuf {
        self.folder.path().into()
    }

    /// Removes what an earlier run left: to be called when all that can be wrong with the scenario's files is found.
    pub(crate) fn empty(&mut self) -> Result<(), RunError> {
        self.folder.empty(&self.scenario.source)
    }

    /// Writes the data of a deal, which was drawn with `seed`, to the output folder's `folder`.
    pub(crate) fn write(&self, deal: Deal, seed: u64, folder: &str) -> Result<Dealt, RunError> {
        let folder = self.out().join(folder);
        let anchors = deal.write(&self.data, &folder)?;
        let task = self.scenario.task.charter(&deal.labels, self.vocabularies.clone());
        Ok(Dealt { seed, deal, folder, anchors, task })
    }

    /// Runs a network; what its nodes reported.
    pub(crate) fn run(
        &mut self,
        run: &Run<'_>,
        dealt: &Dealt,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<History>, RunError> {
        let Run { scenario, train, charter, folder, alone } = *run;
        let plan = Plan { scenario, train, seed: dealt.seed, data: &dealt.folder, folder, charter, alone };
        match &mut self.machine {
            Machine::Here(engine) => inproc::run(*engine, &plan, progress),
            Machine::Processes => {
                let text = toml::to_string(charter)
                    .map_err(|error| RunError::Encode { what: "the charter", message: error.to_string() })?;
                folder::write(&folder.join("charter.toml"), text.as_bytes())?;
                network::run(&self.binary, &plan, progress)
            }
        }
    }
}

impl Dealt {
    /// The charter of a `scenario` with these nodes, or of a `variant` of it.
    pub(crate) fn charter(&self, scenario: &Scenario, variant: Option<&Variant>) -> Result<Charter, RunError> {
        scenario.charter(self.seed, self.task.clone(), self.anchors.clone(), variant)
    }
}

/// The scenario with each path where it is, once its backbones are there.
fn located(scenario: &Scenario, out: &Path) -> Result<Scenario, RunError> {
    let folder = match &scenario.folder {
        // Nodes may run elsewhere: only absolute paths mean the same to them.
        Some(folder) => {
            std::path::absolute(folder).map_err(|source| RunError::Read { path: folder.clone(), source })?
        }
        None => {
            embedded::write(&out.join("inputs"))?;
            out.join("inputs")
        }
    };
    let scenario = scenario.located(&Places::below(folder))?;
    for node in &scenario.nodes {
        if !node.backbone.join("config.json").is_file() {
            return Err(RunError::Backbone { node: node.name.clone(), path: node.backbone.clone() });
        }
    }
    Ok(scenario)
}
