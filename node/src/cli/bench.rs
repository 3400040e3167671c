//! `heterotune bench`: how fast the parts of a node are here.

use crate::{
    backbone::Precision,
    bench::{self, Shape},
    train::Cache,
};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// A training step on a made-up model of a common shape: seconds and memory.
    Step(StepFlags),
    /// Rounds of eight real nodes on this machine, without training: seconds, processor time and bytes on the sockets.
    Round(RoundFlags),
    /// Writing and reading an update of a million values, in every codec.
    Codec(Json),
    /// Fusing 64 updates of a million values: the exact mean, and CMGA.
    Fusion(FusionFlags),
}

#[derive(Debug, Args)]
pub(super) struct FusionFlags {
    /// Threads that compute [default: all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
pub(super) struct Json {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RoundFlags {
    /// Rounds that are timed.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Let the nodes train, two steps of a sample each, and measure what comes of it.
    #[arg(long)]
    train: bool,
    /// Keep what the nodes write in this new folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct StepFlags {
    /// The model.
    #[arg(value_enum, default_value = "decoder")]
    shape: Shape,
    /// Steps that are timed together, after one that is not.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Threads that compute [default: all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Where to keep what the frozen layers below the first slot make of the samples: a node keeps it in memory.
    #[arg(long, value_name = "WHERE", default_value = "none")]
    cache: Cache,
    /// How the frozen matrices are kept: f32, f16, bf16, q8 or q4.
    #[arg(long, value_name = "KIND", default_value = "f32")]
    precision: Precision,
    /// Gradient checkpointing: less memory, more time.
    #[arg(long)]
    checkpoint: bool,
    /// Time nothing, but write the model and all that a step needs, and gives, into this folder, so that another program
    /// can take the same step.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Take the model that is in this folder since `--write`: making one takes memory, too.
    #[arg(long, value_name = "DIR", conflicts_with = "write")]
    from: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(verb: &Verb) -> Result<()> {
    match verb {
        Verb::Step(flags) => step(flags),
        Verb::Round(flags) => round(flags),
        Verb::Codec(flags) => codec(flags.json),
        Verb::Fusion(flags) => fusion(flags),
    }
}

fn step(flags: &StepFlags) -> Result<()> {
    super::settle_threads(flags.threads.map(|threads| threads as usize))?;
    let StepFlags { shape, cache, precision, checkpoint, .. } = *flags;
    let options = bench::Options { shape, steps: flags.steps as usize, cache, precision, checkpoint };
    if let Some(folder) = &flags.write {
        return bench::write(&options, folder);
    }
    let folder = tempfile::tempdir().context("cannot make a folder for the model")?;
    let step = bench::step(&options, flags.from.as_deref().unwrap_or(folder.path()))?;
    if flags.json {
        println!("{}", serde_json::to_string(&step)?);
        return Ok(());
    }
    let (frozen, trained) = (step.frozen as f64 / 1e6, step.trained as f64 / 1e3);
    println!("{:?}: {frozen:.1} M weights frozen, {trained:.1} k trained", step.shape);
    println!("a step     {:.3} s", step.seconds);
    if let Some(seconds) = step.cpu_seconds {
        println!("of a core  {seconds:.3} s");
    }
    if let Some(bytes) = step.peak_bytes {
        println!("memory     {:.0} MB at the most", bytes as f64 / 1e6);
    }
    println!("loss       {:.4} over {} samples or tokens", step.loss, step.batch);
    Ok(())
}

fn round(flags: &RoundFlags) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder for the network")?;
    eprintln!("running eight nodes for {} rounds", flags.rounds);
    let out = flags.out.as_deref().unwrap_or(folder.path());
    let round = bench::round(flags.rounds.into(), flags.train, out)?;
    if flags.json {
        println!("{}", serde_json::to_string(&round)?);
        return Ok(());
    }
    println!("{} nodes, updates of {} bytes, {} rounds", round.nodes, round.update_bytes, round.rounds);
    println!("a round    {:.3} s", round.seconds);
    if let Some(seconds) = round.cpu_seconds {
        println!("of a core  {seconds:.3} s, all nodes together");
    }
    println!("sent       {:.1} kB by each node", round.sent_bytes / 1e3);
    Ok(())
}

fn codec(json: bool) -> Result<()> {
    let all = bench::codecs()?;
    if json {
        println!("{}", serde_json::to_string(&all)?);
        return Ok(());
    }
    println!("codec  bytes      write    read");
    for coded in all {
        let name = format!("{:?}", coded.codec).to_lowercase();
        let (write, read) = (coded.write_seconds * 1e3, coded.read_seconds * 1e3);
        println!("{name:<6} {:>9} {write:>6.1} ms {read:>6.1} ms", coded.bytes);
    }
    Ok(())
}

fn fusion(flags: &FusionFlags) -> Result<()> {
    let threads = super::settle_threads(flags.threads.map(|threads| threads as usize))?;
    let fused = bench::fusion(threads);
    if flags.json.json {
        println!("{}", serde_json::to_string(&fused)?);
        return Ok(());
    }
    println!("64 updates of a million q8 values, {} threads", fused.threads);
    println!("exact mean {:>6.1} ms", fused.mean_seconds * 1e3);
    println!("CMGA       {:>6.1} ms", fused.cmga_seconds * 1e3);
    Ok(())
}
