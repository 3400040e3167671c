//! The flags that most verbs have: which node, and in what form the answer is wanted.

use clap::Args;
use std::path::PathBuf;

/// The environment's name for the state folder.
const VARIABLE: &str = "HETEROTUNE_STATE";

#[derive(Clone, Debug, Default, Args)]
pub(super) struct State {
    /// The node's state folder [default: $HETEROTUNE_STATE, or heterotune-node in the current folder].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl State {
    pub(super) fn folder(&self) -> PathBuf {
        let named = || std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        self.state.clone().or_else(named).unwrap_or_else(|| "heterotune-node".into())
    }
}

/// A question about a node.
#[derive(Debug, Args)]
pub(super) struct Question {
    #[command(flatten)]
    pub(super) state: State,
    /// Print it as JSON.
    #[arg(long)]
    pub(super) json: bool,
}
