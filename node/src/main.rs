//! The program `heterotune`.

use clap::Parser;
use heterotune::cli::Cli;
use std::{io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln!`, which panics where standard error cannot be written.
            let _ = writeln!(std::io::stderr(), "heterotune: {error:#}");
            ExitCode::FAILURE
        }
    }
}
