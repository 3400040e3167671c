//! `heterotune join`: into a network, by an invite.

use super::{
    init,
    invite::{now, read},
    run,
    state::State,
};
use crate::{
    config::NodeConfig,
    folder::{self, write_cbor},
    invite::Invite,
    store::{Store, write_atomically},
};
use anyhow::Result;
use clap::Args;
use heterotune_crypto::NodeId;
use std::path::Path;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The invite: the line that `heterotune invite` printed, or a file that holds it.
    invite: String,
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    config: NodeConfig,
    /// Do not start the node.
    #[arg(long)]
    no_run: bool,
}

pub(super) fn run(flags: Flags) -> Result<()> {
    let (state, invite) = (flags.state.folder(), read(&flags.invite)?);
    flags.config.frozen().device.check()?;
    let key = init::prepare(&state)?.id();
    take(&state, &key, &invite, flags.config)?;
    if flags.no_run {
        println!("{key} has joined {}; `heterotune run` starts it", invite.charter.name);
        return Ok(());
    }
    run::start(state, None, NodeConfig::default(), run::Play::default())
}

/// Makes the state folder a member's: charter, membership, pre-shared key, and what is set in `node.toml`.
fn take(state: &Path, key: &NodeId, invite: &Invite, mut config: NodeConfig) -> Result<()> {
    invite.admits(key, now())?;
    Store::open(state)?.bind(&invite.charter)?;
    if let Some(membership) = invite.membership.as_ref().filter(|membership| membership.member == *key) {
        write_cbor(&state.join(folder::MEMBERSHIP), membership)?;
    }
    if let Some(psk) = &invite.psk {
        let path = state.join("psk.key");
        write_atomically(&path, psk, true)?;
        config.psk = Some(path);
    }
    // Those known so far stay; flags come first.
    let mut bootstrap = config.bootstrap.take().unwrap_or_default();
    bootstrap.extend(invite.addresses.iter().cloned());
    bootstrap.extend(NodeConfig::read(state)?.bootstrap.unwrap_or_default());
    let mut seen = std::collections::BTreeSet::new();
    bootstrap.retain(|address| seen.insert(address.clone()));
    config.bootstrap = Some(bootstrap);
    config.keep(state)
}
