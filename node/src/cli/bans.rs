//! `heterotune bans`: whom this node has nothing to do with.

use super::state::State;
use crate::{events::unix_ms, store::write_atomically};
use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use heterotune_crypto::NodeId;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

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

/// The largest file that is read.
const BYTES_MAX: u64 = 16 << 20;

pub(super) fn run(verb: &Verb) -> Result<()> {
    match verb {
        Verb::List { state, json } => {
            let bans = read(&path(&state.folder()))?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&bans)?);
                return Ok(());
            }
            let text = |ban: &Value, key: &str| {
                ban.get(key).map(|value| value.to_string().replace('"', "")).unwrap_or_default()
            };
            println!("{} banned", bans.len());
            for ban in &bans {
                let days = (unix_ms() / 1_000)
                    .saturating_sub(ban.get("since").and_then(Value::as_u64).unwrap_or_default())
                    / 86_400;
                println!("{}  {days} days  {}", text(ban, "peer"), text(ban, "reason"));
            }
            Ok(())
        }
        Verb::Add { key, reason, state } => {
            let path = path(&state.folder());
            let mut bans = read(&path)?;
            if bans.iter().any(|ban| is(ban, key)) {
                bail!("{key} is banned already");
            }
            bans.push(json!({"peer": key, "reason": reason, "since": unix_ms() / 1_000}));
            write(&path, bans)
        }
        Verb::Lift { key, state } => {
            let path = path(&state.folder());
            let mut bans = read(&path)?;
            let before = bans.len();
            bans.retain(|ban| !is(ban, key));
            if bans.len() == before {
                bail!("{key} is not banned; `heterotune bans list` shows who is");
            }
            write(&path, bans)
        }
    }
}

fn path(state: &Path) -> PathBuf {
    state.join("bans.json")
}

fn is(ban: &Value, key: &NodeId) -> bool {
    ban.get("peer").and_then(Value::as_str) == Some(&key.to_string())
}

/// `{"bans": [{"peer", "reason", "proof", "since"}]}`; what else a ban says is kept.
fn read(path: &Path) -> Result<Vec<Value>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        metadata if metadata.as_ref().is_ok_and(|file| file.len() > BYTES_MAX) => {
            bail!("{} has more than {BYTES_MAX} bytes; shorten it", path.display())
        }
        _ => {}
    }
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut file: Value = serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    match file.get_mut("bans").map(Value::take) {
        Some(Value::Array(bans)) => Ok(bans),
        _ => bail!("{} is not a list of bans; mend or delete it (without it nobody is banned)", path.display()),
    }
}

fn write(path: &Path, bans: Vec<Value>) -> Result<()> {
    write_atomically(path, &serde_json::to_vec_pretty(&json!({"bans": bans}))?, false)?;
    println!("a running node takes it in on `kill -HUP`, others when they start");
    Ok(())
}
