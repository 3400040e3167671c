//! `heterotune plan`: what a node will need, before anything is loaded.

use super::model::Frozen;
use crate::{
    config::{Training, read_charter},
    plan::{Plan, Shape, Work},
};
use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use std::{path::PathBuf, time::Instant};

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
    seconds: f64,
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    super::settle_threads(None)?;
    let folder = flags.frozen.folder()?;
    let shape = Shape::read(&folder)
        .with_context(|| format!("{} has no config.json that says how large the model is", folder.display()))?;
    let (charter, settings) = (read_charter(&flags.charter)?, flags.training.settings());
    let work = Work { tokens: flags.tokens, ..Work::new(&charter, &settings) };
    let plan = shape.plan(flags.frozen.options(), &work).context("the configuration's sizes can't be meant")?;
    let seconds = plan.operations as f64 / rate()? * OVERHEAD;
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
    println!("{:<22} {:>7.2} s, by how fast this machine multiplies just now", "a step", seconds);
    Ok(())
}

/// What a step takes beside its products, as a factor: seen with three models on one and two threads.
const OVERHEAD: f64 = 1.5;

/// Operations a second of matrix products here, on all threads.
fn rate() -> Result<f64> {
    const SIDE: usize = 1_024;
    let a = candle_core::Tensor::ones((SIDE, SIDE), candle_core::DType::F32, &candle_core::Device::Cpu)?;
    let products = (0..4).map(|_| {
        let start = Instant::now();
        a.matmul(&a)?;
        Ok(2.0 * (SIDE * SIDE * SIDE) as f64 / start.elapsed().as_secs_f64())
    });
    let rates = products.collect::<Result<Vec<f64>>>()?;
    rates.into_iter().max_by(f64::total_cmp).context("no product was made")
}
