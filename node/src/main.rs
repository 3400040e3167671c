//! The program `heterotune`.

use clap::Parser;
use heterotune::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("heterotune: {error:#}");
            ExitCode::FAILURE
        }
    }
}
