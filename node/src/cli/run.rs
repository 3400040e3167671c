//! `heterotune run`: one node.

use crate::{
    cli::{
        model::{Frozen, Training},
        network::Network,
    },
    disk::Crash,
    runtime::{self, Options},
};
use anyhow::{Context as _, Result};
use clap::Args;
use heterotune_scenarios::Lie;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The node's state folder: key, ledger, private weights, event log. A node started again resumes from it.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The network's charter, the same file on every node.
    #[arg(long, value_name = "FILE")]
    charter: PathBuf,
    #[command(flatten)]
    frozen: Frozen,
    /// The data: a folder with train.csv, anchors.csv and, if accuracy is to be measured, test.csv. With held.csv
    /// (samples of your own that are not in train.csv) the node tests each mixture, and goes on using an earlier one
    /// while newer ones are worse. It never leaves this node.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    #[command(flatten)]
    network: Network,
    /// Threads for computing [default: all cores].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    training: Training,
    /// Measure first what this node reaches alone, without the network.
    #[arg(long)]
    alone: bool,
    /// Derive the key from a seed, for a local scenario; stop when standard input ends.
    #[arg(long, value_name = "SEED/NAME", hide = true)]
    scenario: Option<String>,
    /// Tell the others this instead of the truth.
    #[arg(long, value_name = "LIE", hide = true, requires = "scenario")]
    lie: Option<Lie>,
    /// Die before the N-th write to the ledger, or after it.
    #[arg(long, value_name = "N[+]", hide = true, requires = "scenario")]
    crash_at: Option<Crash>,
}

pub(super) fn run(flags: Flags) -> Result<()> {
    let scenario = match &flags.scenario {
        None => None,
        Some(text) => {
            let (seed, name) = text.split_once('/').context("--scenario must be SEED/NAME")?;
            Some((seed.parse().context("--scenario must be SEED/NAME, with a number as SEED")?, name.to_string()))
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = flags.threads.unwrap_or(cores).max(1);
    // candle's kernels run on rayon's global pool, which reads its size once, here.
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start compute threads")?;
    let options = Options {
        state: flags.state,
        charter: flags.charter,
        frozen: flags.frozen.options(),
        backbone: flags.frozen.folder()?,
        data: flags.data,
        network: flags.network.settings()?,
        training: flags.training.settings(),
        threads,
        alone: flags.alone,
        scenario,
        lie: flags.lie,
        crash: flags.crash_at,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(runtime::run(options));
    // A trainer in the middle of a step is not waited for: what it knows is on disk.
    runtime.shutdown_background();
    result
}
