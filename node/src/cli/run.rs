//! `heterotune run`: one node.

use crate::{
    cli::{fetch, state::State},
    config::NodeConfig,
    console::Console,
    disk::Crash,
    doctor, folder, hub,
    runtime::{self, Options},
};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use heterotune_scenarios::Lie;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    state: State,
    /// The network's charter, the same file on every node [default: charter.toml in the state folder].
    #[arg(long, value_name = "FILE")]
    charter: Option<PathBuf>,
    #[command(flatten)]
    config: NodeConfig,
    #[command(flatten)]
    play: Play,
}

/// What is no setting of a node, but of one run.
#[derive(Debug, Default, Args)]
pub(super) struct Play {
    /// Measure first what this node reaches alone, without the network.
    #[arg(long)]
    alone: bool,
    /// Derive the key from a seed, for a local scenario; stop when standard input ends.
    #[arg(long, value_name = "SEED/NAME", hide = true)]
    scenario: Option<String>,
    /// Tell the others this instead of the truth.
    #[arg(long, value_name = "LIE", hide = true, requires = "scenario")]
    lie: Option<Lie>,
    /// Draw updates instead of training.
    #[arg(long, hide = true, requires = "scenario")]
    idle: bool,
    /// Die before the N-th write to the ledger, or after it.
    #[arg(long, value_name = "N[+]", hide = true, requires = "scenario")]
    crash_at: Option<Crash>,
}

pub(super) fn run(flags: Flags) -> Result<()> {
    start(flags.state.folder(), flags.charter, flags.config, flags.play)
}

/// Runs the node of a state folder, as its `node.toml` says where `flags` say nothing.
pub(super) fn start(state: PathBuf, charter: Option<PathBuf>, flags: NodeConfig, play: Play) -> Result<()> {
    let scenario = match &play.scenario {
        None => None,
        Some(text) => {
            let (seed, name) = text.split_once('/').context("--scenario must be SEED/NAME")?;
            Some((seed.parse().context("--scenario must be SEED/NAME, with a number as SEED")?, name.to_string()))
        }
    };
    let config = flags.clone().or(NodeConfig::read(&state)?);
    let missing =
        |what: &str| format!("--{what} is missing: give it, or set it in {}", NodeConfig::path(&state).display());
    let backbone = config.backbone.as_ref().with_context(|| missing("backbone"))?;
    let data = config.data.clone().with_context(|| missing("data"))?;
    let kept = state.join(folder::CHARTER);
    if charter.is_none() && !kept.exists() {
        bail!("{} belongs to no network yet: use `heterotune join INVITE`, or give --charter FILE", state.display());
    }
    config.frozen().device.check()?;
    let console = Console::new(config.log.unwrap_or_default());
    if scenario.is_none() {
        doctor::quick(&state, &config).iter().for_each(|finding| console.warn(&finding.to_string()));
    }
    let threads = super::settle_threads(config.threads)?;
    let options = Options {
        charter: charter.unwrap_or(kept),
        frozen: config.frozen(),
        backbone: hub::folder(backbone, &mut fetch::show())?,
        data,
        network: config.network()?,
        training: config.training.settings(),
        threads,
        alone: play.alone,
        console,
        flags,
        scenario,
        lie: play.lie,
        idle: play.idle,
        crash: play.crash_at,
        state,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(runtime::run(options));
    // A trainer in the middle of a step is not waited for: what it knows is on disk.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{ArgMatches, Command, Error, error::ErrorKind};

    #[test]
    fn what_scenarios_play_is_refused_outside_of_one() {
        let parse = |flags: &[&str]| -> Result<ArgMatches, Error> {
            Flags::augment_args(Command::new("run")).try_get_matches_from([&["run", "--state", "s"], flags].concat())
        };
        for flags in [["--idle"].as_slice(), &["--lie", "sign-flip"], &["--crash-at", "1"]] {
            assert_eq!(parse(flags).unwrap_err().kind(), ErrorKind::MissingRequiredArgument, "{flags:?}");
            parse(&[flags, &["--scenario", "1/a"]].concat()).unwrap();
        }
    }
}
