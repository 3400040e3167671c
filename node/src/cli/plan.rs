//! `heterotune plan`: what a node will need, before anything is loaded.

use super::model::Frozen;
use crate::{
    config::{Training, read_charter},
    plan::{Plan, Shape, Work},
};
use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    frozen: Frozen,
    /// The network's charter file.
    #[arg(long, value_name = "FILE")]
    charter: PathBuf,
    #[command(flatten)]
    training: Training,
    /// Tokens of the texts, where they are shorter than --length.
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is printed for scripts.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    plan: Plan,
    peak: u64,
    seconds: Option<f64>,
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    super::settle_threads(None)?;
    let folder = flags.frozen.folder()?;
    let shape = Shape::read(&folder)
        .with_context(|| format!("{} has no config.json that says how large the model is", folder.display()))?;
    let (charter, settings) = (read_charter(&flags.charter)?, flags.training.settings());
    let work = Work { tokens: flags.tokens, ..Work::new(&charter, &settings) };
    let plan = shape.plan(flags.frozen.options(), &work).context("the configuration's sizes can't be meant")?;
    let seconds = shape.seconds(flags.frozen.options(), &work)?;
    if flags.json {
        println!("{}", serde_json::to_string(&Told { plan, peak: plan.peak(), seconds })?);
        return Ok(());
    }
    for (what, bytes) in [
        ("frozen weights", plan.weights),
        ("kept for the way back", plan.kept),
        ("adapters", plan.adapters),
        ("what comes and goes", plan.passing),
        ("what is trained", plan.trained),
        ("the program", plan.program),
        ("all, at the most", plan.peak()),
    ] {
        println!("{what:<22} {:>7.0} MB", bytes as f64 / 1e6);
    }
    match seconds {
        Some(seconds) => {
            println!("{:<22} {seconds:>7.2} s, by how long one of its blocks takes here just now", "a step")
        }
        None => println!("{:<22} not timed, as its blocks are too large to be made for that alone", "a step"),
    }
    Ok(())
}
