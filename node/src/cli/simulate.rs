//! `heterotune simulate`.

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use heterotune_protocol::charter::Closing;
use heterotune_scenarios::world::{
    Delay, KINDS, Lie, Options, Partition, Report, WorldError, simulate, simulate_seeds,
};
use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

#[derive(Debug, Args)]
#[command(after_help = lies())]
pub(super) struct Flags {
    /// How many nodes. Up to 64 of them contribute to a round (--contributors); all of them follow.
    #[arg(long, value_name = "N", default_value_t = 8)]
    nodes: usize,
    /// How many more join while the network runs, invited by an admin: the charter does not name them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    newcomers: usize,
    /// How many rounds. The run ends when they are sealed at every honest node that is up, or after four deadlines of
    /// 10 virtual seconds for each.
    #[arg(long, value_name = "R", default_value_t = 10)]
    rounds: u64,
    /// Seeds everything: the same seed is the same world, to the last message.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Run one world for each of these seeds, the second one excluded, and print those in which something breaks that
    /// must never break: a divergence, or an honest node that contradicts itself.
    #[arg(long, value_name = "A..B", conflicts_with = "seed", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// The share of messages lost on each way from one node to the next.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    loss: f64,
    /// How long a message takes from one node to the next: anything between the two, in ms.
    #[arg(long, value_name = "LO..HI", default_value = "10..100")]
    delay_ms: Delay,
    /// Cut the network into parts from one time to another, in deadlines: '10..16:0.5|0.5' are two halves.
    #[arg(long, value_name = "FROM..TO:PART|PART")]
    partition: Option<Partition>,
    /// The chance that a node crashes, each deadline; it comes back soon, with what is on its disk.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    crash: f64,
    /// The chance that a node leaves, each deadline; it comes back after two to six.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    churn: f64,
    /// Members that lie, how, and how many of all nodes; may be given more than once. The kinds are below.
    #[arg(long, value_name = "KIND:SHARE")]
    liars: Vec<Lie>,
    /// Clocks are off by up to so many seconds, either way.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    skew_s: f64,
    /// Who closes rounds: everyone by itself, sealed afterwards, or the round's leader.
    #[arg(long, value_name = "everyone|leader", default_value = "everyone", value_parser = closing)]
    closing: Closing,
    /// Updates in a round; drawn where there are more nodes.
    #[arg(long, value_name = "C", default_value_t = 64)]
    contributors: u16,
    /// How many nodes seal rounds: the first ones. Of n, (n - 1) / 3 may lie or be away.
    #[arg(long, value_name = "K", default_value_t = 7)]
    sealers: usize,
    /// Whether nodes ask each other for what gossip did not bring.
    #[arg(long, value_name = "on|off", default_value = "on")]
    anti_entropy: Switch,
    /// Print one line of JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

fn closing(text: &str) -> Result<Closing, WorldError> {
    Options::closing(text)
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().ok();
    text.split_once("..")
        .and_then(|(first, last)| Some(number(first)?..number(last)?))
        .filter(|seeds| !seeds.is_empty())
        .ok_or_else(|| format!("the seeds are '{text}', but must be A..B in whole numbers, with A < B, as in 0..1000"))
}

/// The kinds of liars, for --help.
fn lies() -> String {
    let kinds = KINDS.iter().map(|(name, _, does)| format!("  {name:<14}{does}"));
    format!("Kinds of liars:\n{}", kinds.collect::<Vec<_>>().join("\n"))
}

pub(super) fn run(flags: Flags) -> Result<()> {
    let options = Options {
        nodes: flags.nodes,
        newcomers: flags.newcomers,
        rounds: flags.rounds,
        seed: flags.seed,
        loss: flags.loss,
        delay: flags.delay_ms,
        partition: flags.partition,
        crash: flags.crash,
        churn: flags.churn,
        liars: flags.liars,
        skew_s: flags.skew_s,
        closing: flags.closing,
        contributors: flags.contributors,
        sealers: flags.sealers,
        anti_entropy: flags.anti_entropy == Switch::On,
        ..Options::default()
    };
    if let Some(seeds) = flags.seeds {
        return search(&options, seeds);
    }
    let report = simulate(&options).with_context(|| format!("cannot simulate seed {}", flags.seed))?;
    if flags.json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    // Whoever runs seeds in a loop stops at the one that breaks what must never break.
    if !report.is_sound() {
        bail!("{}, with seed {}", damage(&report), flags.seed);
    }
    Ok(())
}

/// What has broken that must never break.
fn damage(report: &Report) -> String {
    let Report { diverged, perjured, .. } = report;
    format!(
        "{diverged} honest nodes hold another sealed state than the others, {perjured} have said two different things"
    )
}

/// Looks for seeds that break what must never break.
fn search(options: &Options, seeds: Range<u64>) -> Result<()> {
    let (broken, unfinished) = (AtomicU64::new(0), AtomicU64::new(0));
    let world = |seed| Options { seed, ..options.clone() };
    let tell = |options: &Options, report: &Report| {
        unfinished.fetch_add(u64::from(report.rounds_sealed < options.rounds), Relaxed);
        if !report.is_sound() {
            broken.fetch_add(1, Relaxed);
            println!("seed {}: {}", options.seed, damage(report));
        }
    };
    simulate_seeds(seeds.clone(), options.threads, world, tell).context("cannot simulate these seeds")?;
    let (all, broken, unfinished) = (seeds.end - seeds.start, broken.into_inner(), unfinished.into_inner());
    println!("{all} seeds: {broken} broken; in {unfinished} not all rounds were sealed in time");
    if broken > 0 {
        bail!("{broken} of {all} seeds break what must never break");
    }
    Ok(())
}
