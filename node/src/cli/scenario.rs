//! `heterotune quickstart` and `heterotune scenario run`.

use crate::inproc::Engine;
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use heterotune_scenarios::{
    InProcess, Runner, Scenario,
    compare::{self, Comparison},
};
use std::{fmt::Display, path::PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the network that a scenario file describes: deal the data, start the nodes, check and report.
    ///
    /// With --compare, run several methods on the same data and seeds, and tell how much each is worth: settings are chosen
    /// for each method on rows that nobody learns from, and differences are those between runs with the same seed.
    #[command(after_long_help = EXAMPLES)]
    Run {
        /// The scenario file; scenarios/quickstart.toml explains every key.
        file: PathBuf,
        #[command(flatten)]
        flags: Flags,
    },
}

const EXAMPLES: &str = "Examples:
  heterotune scenario run scenarios/quickstart.toml --inproc
          the network, all nodes in this process
  heterotune scenario run scenarios/quickstart.toml --inproc --seeds 5
          the network and its nodes alone, mean and standard deviation over five deals of the data
  heterotune scenario run scenarios/quickstart.toml --inproc --seeds 5 --compare local,readout,full
          does it help, and which part of it?
  heterotune scenario run scenarios/quickstart.toml --compare help
          the methods there are

How settings are chosen. data.validation says how many rows are set aside by which settings are chosen (if it does not, up to
200 of those that the nodes leave). For each method a ladder of learning rates is tried: 0.3, 1 and 3 times what [train] says,
and further up or down for as long as the last one is the best. A table [search] in the file, or search in an [[ablation]],
lists values instead, each tried with each: search = { rate = [0.001, 0.003], steps = [5, 20] }; its keys are rate, branch_rate,
projection_rate, readout_rate, steps and batch. The round to stop at is chosen in the same way.";

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Seeds the deal of the data, the keys and the order of training [default: the scenario's own].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The folder for logs, report.html and summary.json [default: heterotune-out/SCENARIO].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print summary.json instead of a table.
    #[arg(long)]
    json: bool,
    /// Also run the variants that show what each part is worth. Takes some times longer.
    #[arg(long, conflicts_with_all = ["seeds", "compare"])]
    ablation: bool,
    /// Also run the network with the scenario's liars, one lie a run. Takes many times longer.
    #[arg(long, conflicts_with_all = ["inproc", "seeds", "compare"])]
    lies: bool,
    /// Run all nodes in this process, without sockets: the same code, and the same results to the bit, sooner.
    #[arg(long)]
    inproc: bool,
    /// Run so many seeds, from --seed on, and tell means and standard deviations.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    seeds: Option<u64>,
    /// Compare methods, by name: `help` lists them; the file's ablations are methods, too.
    #[arg(long, value_name = "NAME,NAME,..", value_delimiter = ',')]
    compare: Vec<String>,
    /// What the others are compared to, one of those that are named [default: local, or else the first].
    #[arg(long, value_name = "NAME", requires = "compare")]
    reference: Option<String>,
    /// Choose no settings: every method trains as the file says.
    #[arg(long, requires = "compare")]
    no_search: bool,
}

pub(super) fn quickstart(flags: &Flags) -> Result<()> {
    start(&Scenario::quickstart()?, flags)
}

pub(super) fn run(verb: &Verb) -> Result<()> {
    let Verb::Run { file, flags } = verb;
    start(&Scenario::from_file(file)?, flags)
}

fn start(scenario: &Scenario, flags: &Flags) -> Result<()> {
    if flags.compare.iter().any(|name| name == "help") {
        println!("Methods to compare (and the file's ablations):\n\n{}", compare::list());
        return Ok(());
    }
    let out = flags.out.clone().unwrap_or_else(|| PathBuf::from("heterotune-out").join(&scenario.name));
    let runner = Runner {
        binary: std::env::current_exe().context("cannot find this program's own file")?,
        out: out.clone(),
        seed: flags.seed.unwrap_or(scenario.seed),
        ablation: flags.ablation,
        lies: flags.lies,
        progress: &mut std::io::stderr(),
    };
    let mut engine = flags.inproc.then(Engine::new).transpose()?;
    let engine = engine.as_mut().map(|engine| engine as &mut dyn InProcess);
    if flags.seeds.is_none() && flags.compare.is_empty() {
        let summary = runner.run_in(scenario, engine)?;
        show(&summary, flags.json.then(|| summary.to_json()).transpose()?);
    } else {
        let comparison = Comparison {
            methods: flags.compare.clone(),
            seeds: flags.seeds.unwrap_or(1),
            reference: flags.reference.clone(),
            search: !flags.compare.is_empty() && !flags.no_search,
        };
        let study = runner.compare(scenario, &comparison, engine)?;
        show(&study, flags.json.then(|| study.to_json()).transpose()?);
    }
    eprintln!("the report is {}", out.join("report.html").display());
    Ok(())
}

/// Prints a result as a table, or as JSON where that is wanted.
fn show(result: &impl Display, json: Option<String>) {
    match json {
        Some(json) => println!("{json}"),
        None => println!("{result}"),
    }
}
