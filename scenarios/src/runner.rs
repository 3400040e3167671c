//! Runs a scenario: deals the data, writes the charter, runs the network and its variants, writes what came of it.

use crate::{
    Data, Deal, Liars, RunError, Scenario, TrainPlan,
    damage::{Damage, LieSummary},
    embedded,
    folder::{self, Folder},
    history::History,
    network::{self, Plan},
    places::Places,
    progress::Progress,
    report::Report,
    summary::{AblationSummary, Summary},
    tokenizer,
};
use heterotune_protocol::charter::Charter;
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// How a scenario is to be run.
pub struct Runner<'a> {
    /// The `heterotune` program, which every node is a process of.
    pub binary: PathBuf,
    /// Where everything goes: a new folder, or one from an earlier run, which is emptied.
    pub out: PathBuf,
    /// The seed of every random choice, usually [`Scenario::seed`].
    pub seed: u64,
    /// Whether the scenario's variants are run, too.
    pub ablation: bool,
    /// Whether the scenario's liars are run, too.
    pub lies: bool,
    /// Where progress is printed, usually stderr.
    pub progress: &'a mut dyn Write,
}

impl Runner<'_> {
    /// Runs `scenario` and leaves `summary.json` and `report.html` in the output folder. When it returns, however it
    /// does, no process of it is left.
    ///
    /// # Errors
    /// The first thing that keeps the scenario from running as it should.
    pub fn run(self, scenario: &Scenario) -> Result<Summary, RunError> {
        let Self { binary, out, seed, ablation, lies, progress } = self;
        if i64::try_from(seed).is_err() {
            return Err(RunError::Encode { what: "the seed", message: "it must be below 2^63".into() });
        }
        let liars = lies.then(|| scenario.liars.as_ref().ok_or_else(|| RunError::NoLiars(scenario.name.clone())));
        let liars = liars.transpose()?;
        let mut progress = Progress::new(progress);
        let mut taken = Folder::take(&out)?;
        let scenario = &located(scenario, taken.path())?;
        let metric = scenario.metric();
        let readouts = scenario.task.readouts.iter();
        let vocabularies: Vec<_> =
            readouts.map(|path| tokenizer::vocabulary(&binary, path)).collect::<Result<_, _>>()?;
        let data = Data::read(&scenario.data, scenario.task.kind)?;
        let deal = Deal::draw(scenario, &data, seed)?;
        // All that can be wrong with the scenario's files is found by now: an earlier run's results may go.
        taken.empty(&scenario.source)?;
        let out = taken.path();
        let dealt = out.join("data");
        let anchors = deal.write(&data, &dealt)?;
        let task = scenario.task.charter(&deal.labels, vocabularies);
        let charter = |scenario: &Scenario, variant| scenario.charter(seed, task.clone(), anchors.clone(), variant);

        let main = charter(scenario, None)?;
        let id = main.id()?;
        progress.line(&format!(
            "{}: {} nodes, seed {seed}, network {}\n",
            scenario.name,
            deal.shares.len(),
            id.0.short()
        ));
        progress.deal(&deal);
        let network = |scenario: &Scenario,
                       charter: &Charter,
                       train: &TrainPlan,
                       folder: &Path,
                       alone,
                       progress: &mut Progress<'_>| {
            let text = toml::to_string(charter)
                .map_err(|error| RunError::Encode { what: "the charter", message: error.to_string() })?;
            folder::write(&folder.join("charter.toml"), text.as_bytes())?;
            let (binary, data) = (&binary, &dealt);
            let plan = Plan { binary, scenario, train, seed, data, folder, charter, alone };
            network::run(&plan, progress)
        };
        let started = progress.seconds();
        let histories = network(scenario, &main, &scenario.train, out, true, &mut progress)?;
        let wall_s = progress.seconds() - started;
        let mut summary = Summary::new(scenario, id, wall_s, &histories, &out.join("nodes"))?;

        for variant in scenario.ablations.iter().filter(|_| ablation) {
            let of = if variant.changes_nothing() {
                AblationSummary::new(&variant.name, metric, &histories)
            } else {
                progress.line(&format!("\nablation {}", variant.name));
                let folder = out.join("ablation").join(&variant.name);
                let train = variant.train.as_ref().unwrap_or(&scenario.train);
                let charter = charter(scenario, Some(variant))?;
                let histories = network(scenario, &charter, train, &folder, false, &mut progress)?;
                AblationSummary::new(&variant.name, metric, &histories)
            };
            summary.ablation.push(of);
        }

        if let Some(liars) = liars {
            let mut run = |name: &str, scenario: &Scenario| {
                progress.line(&format!("\nlies: {name}"));
                let charter = charter(scenario, None)?;
                let folder = out.join("lies").join(name);
                let honest = network(scenario, &charter, &scenario.train, &folder, false, &mut progress)?;
                Ok((charter, honest))
            };
            summary.lies = Some(damage(scenario, liars, &histories, &mut run)?);
        }

        folder::write(&out.join("summary.json"), (summary.to_json()? + "\n").as_bytes())?;
        let report = Report { charter: &main, deal: &deal, histories: &histories, summary: &summary };
        folder::write(&out.join("report.html"), report.to_html().as_bytes())?;
        progress.line(&format!("\nreport: {}\n", out.join("report.html").display()));
        Ok(summary)
    }
}

/// What became of one network.
type Ran = Result<(Charter, Vec<History>), RunError>;

/// Runs the honest nodes by themselves, then among `liars`, one lie a run; `all` are the histories of all nodes, honest.
fn damage(
    scenario: &Scenario,
    liars: &Liars,
    all: &[History],
    run: &mut dyn FnMut(&str, &Scenario) -> Ran,
) -> Result<Damage, RunError> {
    let (_, alone) = run("honest-alone", &scenario.without(liars))?;
    let honest: Vec<History> = all.iter().filter(|node| !liars.nodes.contains(&node.name)).cloned().collect();
    let metric = scenario.metric();
    let mut damage = Damage {
        metric,
        liars: liars.nodes.clone(),
        honest_alone: History::mean_score(&alone, metric),
        all_honest: History::mean_score(&honest, metric),
        lies: Vec::new(),
    };
    for lie in &liars.lies {
        let scenario = scenario.with(liars, *lie);
        let (charter, honest) = run(lie.name(), &scenario)?;
        damage.lies.push(LieSummary::new(*lie, &scenario, &charter, &honest));
    }
    Ok(damage)
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
