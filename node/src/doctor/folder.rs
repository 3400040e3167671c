//! The state folder: whether it can be written, key, settings, charter, membership, clock.

use super::{Finding, Patient, Severity};
use crate::{
    config::{NodeConfig, read_charter},
    events::{self, unix_ms},
    folder, invite,
};
use std::path::Path;

/// A membership that expires sooner is worth a word, in seconds.
const SOON_S: u64 = 7 * 86_400;

/// The clock must not stand further before what this node has logged, in ms.
const BACK_MS: u64 = 60_000;

/// 1 January 2026, in ms: no node is older.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// The key file, and who else can read it.
pub(super) fn key(patient: &Patient) -> Finding {
    let path = patient.state.join(folder::IDENTITY);
    if !path.exists() {
        let mend = format!("heterotune init --state {}", patient.state.display());
        return Finding::error("key", format!("{} is not there", path.display()), mend);
    }
    let identity = match folder::read_identity(&path) {
        Ok(identity) => identity,
        Err(error) => return Finding::error("key", format!("{error:#}"), "restore it from a backup"),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).map_or(0, |file| file.permissions().mode() & 0o777);
        if mode & 0o077 != 0 {
            let cause =
                format!("{} has mode {mode:04o}: others on this machine can read the secret key", path.display());
            return Finding::error("key", cause, format!("chmod 600 {}", path.display()));
        }
    }
    Finding::ok("key", identity.id().to_string())
}

/// `node.toml`, and what it says.
pub(super) fn settings(state: &Path) -> (NodeConfig, Finding) {
    let path = NodeConfig::path(state);
    match NodeConfig::read(state) {
        Ok(config) if path.exists() => (config, Finding::ok("settings", path.display().to_string())),
        Ok(config) => {
            let cause = format!("{} is not there: flags say everything", path.display());
            (config, Finding::warning("settings", cause, format!("heterotune init --state {}", state.display())))
        }
        Err(error) => {
            let mend = "mend that line; `heterotune init` in another folder writes one with all keys explained";
            (NodeConfig::default(), Finding::error("settings", format!("{error:#}"), mend))
        }
    }
}

/// What `node.toml` and the flags say together, if the file can be read.
pub(super) fn options(patient: &Patient, settings: Finding) -> Finding {
    match patient.config.network() {
        Err(error) if settings.severity < Severity::Error => {
            Finding::error("settings", format!("{error:#}"), "--psk FILE or --max-connections N, or node.toml")
        }
        _ => settings,
    }
}

/// The charter.
pub(super) fn charter(patient: &Patient) -> Finding {
    let path = patient.state.join(folder::CHARTER);
    if !path.exists() {
        let cause = format!("{} is not there: this node is in no network yet", path.display());
        return Finding::error(
            "charter",
            cause,
            "heterotune join INVITE, or heterotune charter new to begin a network",
        );
    }
    match read_charter(&path).and_then(|charter| Ok((charter.id()?, charter.name))) {
        Ok((network, name)) => Finding::ok("charter", format!("{network} ({name})")),
        Err(error) => Finding::error(
            "charter",
            format!("{error:#}"),
            "take the charter that the other nodes have, by an invite of one of them",
        ),
    }
}

/// Whether this node may be in the network.
pub(super) fn membership(patient: &Patient) -> Finding {
    let (Some(charter), Some(identity)) = (&patient.charter, &patient.identity) else {
        return Finding::skipped("membership", "no charter or no key");
    };
    let (node, now) = (identity.id(), unix_ms() / 1_000);
    let invite = format!("ask an admin of the network for heterotune invite --for {node}, then heterotune join INVITE");
    let membership = match folder::read_membership(&patient.state) {
        Ok(membership) => membership,
        Err(error) => return Finding::error("membership", format!("{error:#}"), invite),
    };
    match (invite::admits(charter, membership.as_ref(), &node, now), membership) {
        (Err(error), _) => Finding::error("membership", error.to_string(), invite),
        (Ok(()), Some(membership)) if membership.expires < now + SOON_S => {
            let hours = membership.expires.saturating_sub(now) / 3_600;
            let cause = format!("expires in {} days and {} hours", hours / 24, hours % 24);
            Finding::warning("membership", cause, invite)
        }
        (Ok(()), Some(membership)) => {
            let days = membership.expires.saturating_sub(now) / 86_400;
            Finding::ok("membership", format!("invited, for {days} more days"))
        }
        (Ok(()), None) => Finding::ok("membership", "the charter lets it in"),
    }
}

/// The clock: against the calendar, and against what this node has logged before.
pub(super) fn clock(patient: &Patient) -> Finding {
    let now = unix_ms();
    let mend = "set this machine's clock: timedatectl set-ntp true";
    if now < EPOCH_MS {
        return Finding::error("clock", "the clock stands before the year 2026, so every membership looks valid", mend);
    }
    let last = events::last(&patient.state).and_then(|event| event.get("time_ms")?.as_u64());
    match last {
        Some(last) if last > now + BACK_MS => {
            let hours = (last - now) as f64 / 3.6e6;
            let cause = format!("the clock stands {hours:.1} hours before what this node logged last");
            Finding::warning("clock", cause, mend)
        }
        _ => Finding::ok("clock", "not before what this node logged last"),
    }
}
