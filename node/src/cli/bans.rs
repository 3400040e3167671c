//! `heterotune bans`: whom this node has nothing to do with.

use super::state::State;
use crate::{
    events::unix_ms,
    net::{Ban, Bans},
    store::write_atomically,
};
use anyhow::{Result, bail};
use clap::Subcommand;
use heterotune_crypto::NodeId;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show who is banned, why and since when.
    List {
        #[command(flatten)]
        state: State,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ban a peer: this node does not talk to it any more. The network's agreement is not touched.
    Add {
        /// Whose key.
        key: NodeId,
        /// Why.
        #[arg(long, value_name = "TEXT", default_value = "by hand")]
        reason: String,
        #[command(flatten)]
        state: State,
    },
    /// Lift a ban. Whom the network has banned for saying two things stays banned there.
    Lift {
        /// Whose key.
        key: NodeId,
        #[command(flatten)]
        state: State,
    },
}

pub(super) fn run(verb: &Verb) -> Result<()> {
    let now = unix_ms() / 1_000;
    match verb {
        Verb::List { state, json } => {
            let bans = Bans::load(&path(state))?;
            if *json {
                println!("{}", String::from_utf8_lossy(&bans.to_json()?));
                return Ok(());
            }
            println!("{} banned", bans.iter().count());
            for Ban { peer, reason, since, .. } in bans.iter() {
                println!("{peer}  {} days  {reason}", now.saturating_sub(*since) / 86_400);
            }
            Ok(())
        }
        Verb::Add { key, reason, state } => {
            let ban = Ban { peer: *key, reason: reason.clone(), proof: None, since: now };
            change(&path(state), |bans| bans.insert(ban), || format!("{key} is banned already"))
        }
        Verb::Lift { key, state } => change(
            &path(state),
            |bans| bans.remove(key),
            || format!("{key} is not banned; `heterotune bans list` shows who is"),
        ),
    }
}

fn path(state: &State) -> PathBuf {
    state.folder().join("bans.json")
}

/// Changes the file, where there is something to change; a running node sees that within seconds.
fn change(path: &Path, edit: impl FnOnce(&mut Bans) -> bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    let mut bans = Bans::load(path)?;
    if !edit(&mut bans) {
        bail!("{}", otherwise());
    }
    write_atomically(path, &bans.to_json()?, false)
}
