//! `heterotune doctor`: what keeps a node from running, or soon may.

use super::state::State;
use crate::{
    config::NodeConfig,
    doctor::{self, Severity},
};
use anyhow::{Result, bail};
use clap::Args;
use std::io::IsTerminal as _;

#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    config: NodeConfig,
    /// Look at this machine only, and dial nobody.
    #[arg(long)]
    offline: bool,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(flags: Flags) -> Result<()> {
    let state = flags.state.folder();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let terminal = std::io::stderr().is_terminal();
    let show = |what: &str| {
        if terminal {
            eprint!("\r{what:<60}\r");
        }
    };
    let diagnosis = runtime.block_on(doctor::examine(&state, flags.config, flags.offline, &mut { show }));
    show("");
    runtime.shutdown_background();
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&diagnosis.findings)?);
    } else {
        diagnosis.findings.iter().for_each(|finding| println!("{finding}"));
    }
    if let Some(ending) = diagnosis.ending {
        return Err(ending.into());
    }
    match diagnosis.findings.iter().filter(|finding| finding.severity == Severity::Error).count() {
        0 => Ok(()),
        1 => bail!("one thing keeps this node from running"),
        errors => bail!("{errors} things keep this node from running"),
    }
}
