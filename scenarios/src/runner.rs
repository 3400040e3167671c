//! Runs a scenario: deals the data, writes the charter, runs the network and its variants, writes what came of it.

use crate::{
    Deal, InProcess, Liars, RunError, Scenario,
    damage::{Damage, LieSummary},
    folder,
    history::History,
    progress::Progress,
    report::Report,
    stage::{Run, Stage},
    summary::{AblationSummary, Summary},
};
use heterotune_protocol::charter::Charter;
use std::{io::Write, path::PathBuf};

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
        self.run_in(scenario, None)
    }

    /// As [`Runner::run`], with networks run by an `engine` within this process, where there is one.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn run_in(self, scenario: &Scenario, engine: Option<&mut dyn InProcess>) -> Result<Summary, RunError> {
        let Self { binary, out, seed, ablation, lies, progress } = self;
        check_seed(seed)?;
        let liars = lies.then(|| scenario.liars.as_ref().ok_or_else(|| RunError::NoLiars(scenario.name.clone())));
        let liars = liars.transpose()?;
        let mut progress = Progress::new(progress);
        let mut stage = Stage::open(scenario, &out, binary, engine)?;
        let scenario = &stage.scenario.clone();
        let metric = scenario.metric();
        let deal = Deal::draw(scenario, &stage.data, seed)?;
        stage.empty()?;
        let out = stage.out();
        let dealt = stage.write(deal, seed, "data")?;

        let main = dealt.charter(scenario, None)?;
        let id = main.id()?;
        progress.line(&format!(
            "{}: {} nodes, seed {seed}, network {}\n",
            scenario.name,
            dealt.deal.shares.len(),
            id.0.short()
        ));
        progress.deal(&dealt.deal);
        let mut network = |run: Run<'_>, progress: &mut Progress<'_>| stage.run(&run, &dealt, progress);
        let started = progress.seconds();
        let run = Run { scenario, train: &scenario.train, charter: &main, folder: &out, alone: true };
        let histories = network(run, &mut progress)?;
        let wall_s = progress.seconds() - started;
        let mut summary = Summary::new(scenario, id, wall_s, &histories, &out.join("nodes"))?;

        for variant in scenario.ablations.iter().filter(|_| ablation) {
            let of = if variant.changes_nothing() {
                AblationSummary::new(&variant.name, metric, &histories)
            } else {
                progress.line(&format!("\nablation {}", variant.name));
                let folder = out.join("ablation").join(&variant.name);
                let train = variant.train.as_ref().unwrap_or(&scenario.train);
                let charter = &dealt.charter(scenario, Some(variant))?;
                let run = Run { scenario, train, charter, folder: &folder, alone: false };
                let histories = network(run, &mut progress)?;
                AblationSummary::new(&variant.name, metric, &histories)
            };
            summary.ablation.push(of);
        }

        if let Some(liars) = liars {
            let mut run = |name: &str, scenario: &Scenario| {
                progress.line(&format!("\nlies: {name}"));
                let charter = dealt.charter(scenario, None)?;
                let folder = out.join("lies").join(name);
                let run = Run { scenario, train: &scenario.train, charter: &charter, folder: &folder, alone: false };
                let honest = network(run, &mut progress)?;
                Ok((charter, honest))
            };
            summary.lies = Some(damage(scenario, liars, &histories, &mut run)?);
        }

        folder::write(&out.join("summary.json"), (summary.to_json()? + "\n").as_bytes())?;
        let report = Report { charter: &main, deal: &dealt.deal, histories: &histories, summary: &summary };
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

/// Refuses a seed that TOML can't hold.
pub(crate) fn check_seed(seed: u64) -> Result<(), RunError> {
    match i64::try_from(seed) {
        Ok(_) => Ok(()),
        Err(_) => Err(RunError::Encode { what: "the seed", message: "it must be below 2^63".into() }),
    }
}
