//! `heterotune simulate`.

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use heterotune_protocol::charter::Closing;
use heterotune_scenarios::world::{Delay, KINDS, Lie, Options, Partition, WorldError, simulate};

#[derive(Debug, Args)]
#[command(after_help = lies())]
pub(super) struct Flags {
    /// How many nodes. Up to 64 of them contribute to a round (--contributors); all of them follow.
    #[arg(long, value_name = "N", default_value_t = 8)]
    nodes: usize,
    /// How many rounds. The run ends when they are sealed at every honest node that is up, or after four deadlines of
    /// 10 virtual seconds for each.
    #[arg(long, value_name = "R", default_value_t = 10)]
    rounds: u64,
    /// Seeds everything: the same seed is the same world, to the last message.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
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

/// The kinds of liars, for --help.
fn lies() -> String {
    let kinds = KINDS.iter().map(|(name, _, does)| format!("  {name:<12}{does}"));
    format!("Kinds of liars:\n{}", kinds.collect::<Vec<_>>().join("\n"))
}

pub(super) fn run(flags: Flags) -> Result<()> {
    let options = Options {
        nodes: flags.nodes,
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
    let report = simulate(&options).with_context(|| format!("cannot simulate seed {}", flags.seed))?;
    if flags.json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    // Whoever runs seeds in a loop stops at the one that breaks what must never break.
    if report.diverged > 0 {
        bail!("{} honest nodes hold another sealed state than the others, with seed {}", report.diverged, flags.seed);
    }
    Ok(())
}
