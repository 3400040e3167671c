//! `heterotune revoke`: an admin takes memberships back.

use super::{invite::admin, state::State};
use crate::{
    config::read_charter,
    folder::{self, read_revocations, write_cbor},
};
use anyhow::{Result, bail};
use clap::Args;
use heterotune_crypto::NodeId;
use heterotune_protocol::admission::Revocations;
use std::{collections::BTreeSet, path::PathBuf};

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Whose membership is worth nothing any more; one or more.
    #[arg(value_name = "KEY", required = true)]
    members: Vec<NodeId>,
    #[command(flatten)]
    state: State,
    /// The key file of an admin of the network [default: this node's own].
    #[arg(long, value_name = "FILE")]
    admin: Option<PathBuf>,
}

/// Writes the admin's next list; the node sees it within seconds, or when it starts, and tells it to the others.
pub(super) fn run(flags: &Flags) -> Result<()> {
    let state = flags.state.folder();
    let charter = read_charter(&state.join(folder::CHARTER))?;
    if let Some(named) =
        flags.members.iter().find(|key| charter.founders.contains(key) || charter.members.contains(key))
    {
        bail!(
            "{named} is named in the charter, and so cannot be revoked; `heterotune bans add` keeps it from this node"
        );
    }
    let own = folder::read_identity(&state.join(folder::IDENTITY))?;
    let admin = admin(flags.admin.as_deref(), &charter, &own)?;
    let mut lists = read_revocations(&state)?;
    let before = lists.iter().position(|list| list.admin == admin.id()).map(|at| lists.remove(at));
    let (number, mut members) = before.map_or((0, BTreeSet::new()), |list| (list.number, list.members));
    members.extend(&flags.members);
    let list = Revocations::sign(&admin, &charter.id()?, number + 1, members)?;
    println!("{} members revoked by {}, list {}", list.members.len(), list.admin, list.number);
    lists.push(list);
    write_cbor(&state.join(folder::REVOCATIONS), &lists)?;
    Ok(())
}
