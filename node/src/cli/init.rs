//! `heterotune init`: a state folder and a key.

use crate::store::Store;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The node's state folder; made if it is not there.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let identity = Store::open(&flags.state)?.identity()?;
    println!("{}", identity.id());
    Ok(())
}
