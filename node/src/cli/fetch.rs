//! `heterotune fetch`: a backbone from the Hugging Face hub.

use crate::hub::{self, Config, Model, Progress};
use anyhow::Result;
use clap::Args;
use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The model: hf:ORG/NAME, or hf:ORG/NAME@REVISION with a branch, tag or commit. HF_HOME, HF_HUB_CACHE, HF_TOKEN,
    /// HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to other programs.
    #[arg(value_name = "hf:ORG/NAME")]
    model: Model,
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let folder = hub::fetch(&Config::from_env()?, &flags.model, &mut show())?;
    println!("{}", folder.display());
    Ok(())
}

/// How often the line on a terminal changes.
const EVERY: Duration = Duration::from_millis(100);

/// Shows on standard error how a download gets on: a line that changes on a terminal, otherwise a line a file.
pub(super) fn show() -> impl FnMut(Progress<'_>) {
    let terminal = io::stderr().is_terminal();
    let mut file = String::new();
    let mut shown = Instant::now();
    move |progress| {
        let (is_next, is_last) = (progress.file != file, progress.done == progress.total);
        if is_next {
            file = progress.file.to_string();
        }
        // Standard error may be closed, which is no reason to stop.
        if terminal && (is_next || is_last || shown.elapsed() >= EVERY) {
            shown = Instant::now();
            let (done, total) = (megabytes(progress.done), megabytes(progress.total));
            let end = if is_last { "\n" } else { "" };
            let _ = write!(io::stderr(), "\r\x1b[K{done} of {total} MB  {file}{end}");
        } else if !terminal && is_next {
            let _ = writeln!(io::stderr(), "fetching {file} ({} MB)", megabytes(progress.size));
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
