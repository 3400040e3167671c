//! The doctor: what keeps a node from running, or soon may; each finding with its cause and what mends it.
//!
//! - `folder`: the state folder: whether it can be written, key, settings, charter, membership, clock
//! - `model`: backbone and data, before anything is downloaded or loaded
//! - `machine`: disk, memory, processors
//! - `reach`: this node's ports, and each bootstrap address: name, TCP and QUIC apart
//! - `visit`: what peers say to this node's version, charter, membership and clock, and whether they can call it back
//! - `meeting`: the same from a node that runs

mod folder;
mod machine;
mod meeting;
mod model;
mod reach;
mod visit;

use crate::{
    config::{NodeConfig, read_charter},
    exit::Ending,
    folder as files, net,
    status::Status,
};
use heterotune_crypto::{Identity, NodeId};
use heterotune_protocol::charter::Charter;
use libp2p::{Multiaddr, multiaddr::Protocol};
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
    // What it cannot run with is the node's own last word: a membership that has expired, a disk that cannot be written.
    let own = [folder::membership(&patient), machine::disk(&patient)];
    let own = own.into_iter().filter(|finding| finding.severity < Severity::Error);
    let all = key.into_iter().chain(own).chain([folder::clock(&patient), machine::memory(&patient)]);
    all.filter(|finding| finding.severity >= Severity::Warning).collect()
}

/// What is to be said of the membership of a state folder's node, if it has expired or soon will.
pub fn membership(state: &Path) -> Option<Finding> {
    let patient = Patient::new(state, NodeConfig::default());
    Some(folder::membership(&patient)).filter(|finding| finding.severity >= Severity::Warning)
}

/// Examines the node of a state folder, run with these flags. `offline` dials nobody; `progress` is told what takes long.
pub async fn examine(state: &Path, flags: NodeConfig, offline: bool, progress: &mut dyn FnMut(&str)) -> Diagnosis {
    let (config, settings) = folder::settings(state);
    let patient = Patient::new(state, flags.or(config));
    let mut findings = vec![
        folder::key(&patient),
        folder::options(&patient, settings),
        folder::charter(&patient),
        folder::membership(&patient),
        folder::clock(&patient),
        model::backbone(&patient),
        model::data(&patient),
        machine::disk(&patient),
        machine::memory(&patient),
        machine::device(&patient),
    ];
    let ports = reach::ports(&patient);
    let ports_free = ports.iter().all(|finding| finding.severity < Severity::Error);
    findings.extend(ports);
    if offline {
        findings.push(Finding::skipped("bootstrap", "--offline: nobody was dialled"));
        return Diagnosis { findings, ending: None };
    }
    progress("dialling addresses of peers");
    let reached = reach::bootstrap(&patient).await;
    let is_unreachable = reach::is_unreachable(&reached);
    findings.extend(reached);
    let (met, refused) = match &patient.running {
        Some(status) => (meeting::told(state, status), None),
        None if is_unreachable => (vec![Finding::skipped("peers", "no bootstrap address answers")], None),
        None => visit::visit(&patient, ports_free, progress).await,
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

/// A peer's clock, which is so many seconds ahead.
fn clock(peer: &NodeId, ahead: i64) -> Finding {
    let cause = net::difference(peer, ahead);
    match net::is_off(ahead) {
        false => Finding::ok("clock", cause),
        true => {
            let mend = "timedatectl set-ntp true on the host that is wrong: memberships expire by its clock";
            Finding::warning("clock", cause, mend)
        }
    }
}

/// What a node does that nobody can dial, at `missed` or at all: it opens a port, or goes by a relay.
fn settle(missed: Vec<String>, circuit: Option<&Multiaddr>, relay_known: bool, listen: &[Multiaddr]) -> Vec<Finding> {
    let cause = match missed.is_empty() {
        true => "nobody can dial this host: no peer has called back in time".into(),
        false => format!("nobody can dial this host: peers have tried in vain at {}", missed.join(", ")),
    };
    let open = format!(
        "forward {} to this host in the router, open it in the firewall, and name the address with --external",
        reach::port_names(listen)
    );
    let (mend, relay) = match circuit {
        Some(address) => {
            let by = format!("the network is reached through the relay {} (place reserved)", relay_name(address));
            (format!("{open}; or leave it so: {by}"), Finding::ok("relay", format!("a place is reserved: {address}")))
        }
        None if relay_known => {
            let again = "try again later, or run another node with --relay";
            (open, Finding::warning("relay", "no relay has reserved a place in time", again))
        }
        None => {
            let more = "run a node that others can dial with --relay, and name it by --peer here";
            (open, Finding::warning("relay", "no peer that is connected is a relay", more))
        }
    };
    vec![Finding::warning("dial-back", cause, mend), relay]
}

/// The relay in a circuit's address.
fn relay_name(circuit: &Multiaddr) -> String {
    let before = circuit.iter().take_while(|part| *part != Protocol::P2pCircuit);
    before.collect::<Multiaddr>().to_string()
}

#[cfg(test)]
mod tests;
