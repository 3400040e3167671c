//! The command line: a verb a file.

mod bans;
mod bench;
mod charter;
mod doctor;
mod export;
mod fetch;
mod generate;
mod init;
mod invite;
mod join;
mod ledger;
mod model;
mod peers;
mod plan;
mod pretrain;
mod revoke;
mod run;
mod scenario;
mod simulate;
mod state;
mod status;
mod using;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Fine-tune together, peer to peer: every node keeps its own model and its own data, and all share small adapters.
///
/// To see it work: `heterotune quickstart`. To run a network of your own: `heterotune init` on every host, `heterotune
/// charter new` and `heterotune invite` on one, `heterotune join` on the others, `heterotune run`. `heterotune doctor` says
/// what is wrong.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110, after_help = STATUSES)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// See [`crate::exit`].
const STATUSES: &str = "Exit status: 0 done; 1 an error; 2 a command line that cannot be understood; 3 the network does not \
let this node in; 4 no peer can be reached.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run eight nodes with eight different vision transformers on this machine, and see what they gain.
    Quickstart(scenario::Flags),
    /// Run a local network of real node processes, as a file describes it.
    #[command(subcommand)]
    Scenario(scenario::Verb),
    /// Run a network of thousands of nodes in virtual time: loss, partitions, crashes, liars, from one seed.
    Simulate(simulate::Flags),
    /// Make a node's state folder, its key and a node.toml to fill in; print the key for the charter.
    Init(init::Flags),
    /// Write or show a charter: what all nodes of a network agree on.
    #[command(subcommand)]
    Charter(charter::Verb),
    /// Print a line of text that lets another node into the network.
    Invite(invite::Flags),
    /// Join a network by an invite, and run.
    Join(join::Flags),
    /// Find out what keeps a node from running, and how to mend it.
    Doctor(doctor::Flags),
    /// Download a backbone from the Hugging Face hub, or what is newer of it; print its folder.
    Fetch(fetch::Flags),
    /// Say how much memory and time training will take, before anything is loaded.
    Plan(plan::Flags),
    /// Run one node.
    Run(run::Flags),
    /// Show where a node is, from its state folder.
    Status(state::Question),
    /// Show who is connected to a running node, and how.
    Peers(state::Question),
    /// Show, add or lift bans: whom a node has nothing to do with.
    #[command(subcommand)]
    Bans(bans::Verb),
    /// Show the rounds that a node knows, and which of them are sealed.
    Ledger(ledger::Flags),
    /// Take back memberships that an admin has given.
    Revoke(revoke::Flags),
    /// Measure a model: the perplexity of texts, or the share of texts or images whose label is told.
    Eval(using::Eval),
    /// Tell the labels of texts or images, a JSON line each.
    Predict(using::Predict),
    /// Go on from a text with a language model.
    Generate(generate::Flags),
    /// Write what a node has learnt in a form that other programs can use.
    Export(export::Flags),
    /// Show what tells a backbone's tokenizer from others.
    Tokenizer(using::TokenizerFlags),
    /// Measure how fast the parts of a node are on this machine, and how much memory they take.
    #[command(subcommand)]
    Bench(bench::Verb),
    /// Make backbones from unlabelled images or texts, as a recipe file describes them.
    Pretrain(pretrain::Flags),
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// One sentence on what went wrong, where, and how to mend it.
    pub fn run(self) -> Result<()> {
        match self.verb {
            Verb::Quickstart(flags) => scenario::quickstart(&flags),
            Verb::Scenario(verb) => scenario::run(&verb),
            Verb::Simulate(flags) => simulate::run(flags),
            Verb::Init(flags) => init::run(&flags),
            Verb::Charter(verb) => charter::run(&verb),
            Verb::Invite(flags) => invite::run(&flags),
            Verb::Join(flags) => join::run(flags),
            Verb::Doctor(flags) => doctor::run(flags),
            Verb::Fetch(flags) => fetch::run(&flags),
            Verb::Plan(flags) => plan::run(&flags),
            Verb::Run(flags) => run::run(flags),
            Verb::Status(flags) => status::run(&flags),
            Verb::Peers(flags) => peers::run(&flags),
            Verb::Bans(verb) => bans::run(&verb),
            Verb::Ledger(flags) => ledger::run(&flags),
            Verb::Revoke(flags) => revoke::run(&flags),
            Verb::Eval(flags) => using::eval(&flags),
            Verb::Predict(flags) => using::predict(&flags),
            Verb::Generate(flags) => generate::run(&flags),
            Verb::Export(flags) => export::run(&flags),
            Verb::Tokenizer(flags) => using::tokenizer(&flags),
            Verb::Bench(verb) => bench::run(&verb),
            Verb::Pretrain(flags) => pretrain::run(&flags),
        }
    }
}

/// Starts the threads that compute; all cores without a number.
fn settle_threads(threads: Option<usize>) -> Result<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or(cores).max(1);
    // candle's kernels run on rayon's global pool, which reads its size once, here.
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start compute threads")?;
    Ok(threads)
}
