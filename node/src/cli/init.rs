//! `heterotune init`: a state folder, a key, and a `node.toml` to fill in.

use super::state::State;
use crate::{config::NodeConfig, store::Store};
use anyhow::Result;
use clap::Args;
use heterotune_crypto::Identity;
use std::path::Path;

#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    state: State,
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let state = flags.state.folder();
    println!("{}", prepare(&state)?.id());
    Ok(())
}

/// Makes what a state folder lacks, and changes nothing that is there.
pub(super) fn prepare(state: &Path) -> Result<Identity> {
    let identity = Store::open(state)?.identity()?;
    NodeConfig::found(state)?;
    Ok(identity)
}
