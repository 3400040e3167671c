//! `heterotune quickstart` and `heterotune scenario run`.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use heterotune_scenarios::{Runner, Scenario};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the network that a scenario file describes: deal the data, start the nodes, check and report.
    Run {
        /// The scenario file; scenarios/quickstart.toml explains every key.
        file: PathBuf,
        #[command(flatten)]
        flags: Flags,
    },
}

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
    #[arg(long)]
    ablation: bool,
    /// Also run the network with the scenario's liars, one lie a run. Takes many times longer.
    #[arg(long)]
    lies: bool,
}

pub(super) fn quickstart(flags: &Flags) -> Result<()> {
    start(&Scenario::quickstart()?, flags)
}

pub(super) fn run(verb: &Verb) -> Result<()> {
    let Verb::Run { file, flags } = verb;
    start(&Scenario::from_file(file)?, flags)
}

fn start(scenario: &Scenario, flags: &Flags) -> Result<()> {
    let out = flags.out.clone().unwrap_or_else(|| PathBuf::from("heterotune-out").join(&scenario.name));
    let runner = Runner {
        binary: std::env::current_exe().context("cannot find this program's own file")?,
        out: out.clone(),
        seed: flags.seed.unwrap_or(scenario.seed),
        ablation: flags.ablation,
        lies: flags.lies,
        progress: &mut std::io::stderr(),
    };
    let summary = runner.run(scenario)?;
    if flags.json {
        println!("{}", summary.to_json()?);
    } else {
        println!("{summary}");
    }
    eprintln!("the report is {}", out.join("report.html").display());
    Ok(())
}
