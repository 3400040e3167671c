//! The doctor: what keeps a node from running, or soon may; each finding with its cause and what mends it.
//!
//! - `folder`: the state folder: key, settings, charter, membership, clock
//! - `model`: backbone and data, before anything is downloaded or loaded
//! - `machine`: disk, memory, processors
//! - `reach`: this node's ports, and each bootstrap address: name, TCP and QUIC apart
//! - `meeting`: what peers say to this node's version, charter and membership

mod folder;
mod machine;
mod meeting;
mod model;
mod reach;

use crate::{
    config::{NodeConfig, read_charter},
    exit::Ending,
    folder as files,
    status::Status,
};
use heterotune_crypto::Identity;
use heterotune_protocol::charter::Charter;
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Could not be looked at.
    Skipped,
    /// The node runs, but worse than it could, or not for long.
    Warning,
    /// The node does not run.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub severity: Severity,
    /// What was found.
    pub cause: String,
    /// What mends it: the flag, line or command; empty if nothing is to be mended.
    pub mend: String,
}

impl Finding {
    fn ok(check: &'static str, cause: impl Into<String>) -> Self {
        Self { check, severity: Severity::Ok, cause: cause.into(), mend: String::new() }
    }

    fn skipped(check: &'static str, cause: impl Into<String>) -> Self {
        Self { severity: Severity::Skipped, ..Self::ok(check, cause) }
    }

    fn warning(check: &'static str, cause: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, severity: Severity::Warning, cause: cause.into(), mend: mend.into() }
    }

    fn error(check: &'static str, cause: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, severity: Severity::Error, cause: cause.into(), mend: mend.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Ok => "ok",
            Severity::Skipped => "skipped",
            Severity::Warning => "warning",
            Severity::Error => "ERROR",
        };
        write!(f, "{severity:<7}  {:<10}  {}", self.check, self.cause)?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, "\n{:21}-> {}", "", self.mend) }
    }
}

/// All that was found.
#[derive(Debug)]
pub struct Diagnosis {
    /// In the order in which they were looked at.
    pub findings: Vec<Finding>,
    /// What running the node would end with, where that has an exit status of its own.
    pub ending: Option<Ending>,
}

/// What is known of a node while it is examined; what cannot be read is left out.
struct Patient {
    state: PathBuf,
    config: NodeConfig,
    identity: Option<Identity>,
    charter: Option<Charter>,
    /// What it tells of itself, if it runs.
    running: Option<Status>,
}

impl Patient {
    fn new(state: &Path, config: NodeConfig) -> Self {
        let charter = state.join(files::CHARTER);
        Self {
            state: state.into(),
            config,
            identity: files::read_identity(&state.join(files::IDENTITY)).ok(),
            charter: charter.exists().then(|| read_charter(&charter).ok()).flatten(),
            running: Status::read(state).ok().flatten().filter(|(_, runs)| *runs).map(|(status, _)| status),
        }
    }
}

/// What a node that starts should know: what warns of this machine and its files, without a look at the network.
pub fn quick(state: &Path, config: &NodeConfig) -> Vec<Finding> {
    let patient = Patient::new(state, config.clone());
    // Where there is no key yet one is made, and the node itself says what is wrong with a damaged one.
    let key = patient.identity.is_some().then(|| folder::key(&patient));
    let rest = [folder::clock(&patient), machine::disk(&patient), machine::memory(&patient)];
    key.into_iter().chain(rest).filter(|finding| finding.severity >= Severity::Warning).collect()
}

/// Examines the node of a state folder, run with these flags. `offline` dials nobody.
pub async fn examine(state: &Path, flags: NodeConfig, offline: bool) -> Diagnosis {
    let (config, settings) = folder::settings(state);
    let patient = Patient::new(state, flags.or(config));
    let mut findings = vec![
        folder::key(&patient),
        settings,
        folder::charter(&patient),
        folder::membership(&patient),
        folder::clock(&patient),
        model::backbone(&patient),
        model::data(&patient),
        machine::disk(&patient),
        machine::memory(&patient),
        machine::device(&patient),
    ];
    findings.extend(reach::ports(&patient));
    if offline {
        findings.push(Finding::skipped("bootstrap", "--offline: nobody was dialled"));
        return Diagnosis { findings, ending: None };
    }
    let reached = reach::bootstrap(&patient).await;
    let is_unreachable = reach::is_unreachable(&reached);
    findings.extend(reached);
    let (met, refused) = if is_unreachable {
        (vec![Finding::skipped("peers", "no bootstrap address answers")], None)
    } else {
        meeting::meet(&patient).await
    };
    findings.extend(met);
    // What is wrong here comes before what is wrong out there.
    let is_local = |finding: &&Finding| finding.severity == Severity::Error && !reach::CHECKS.contains(&finding.check);
    let ending = match findings.iter().find(is_local) {
        Some(Finding { check: "peers", .. }) => refused,
        None if is_unreachable => Some(Ending::Unreachable),
        _ => None,
    };
    Diagnosis { findings, ending }
}

#[cfg(test)]
mod tests;
