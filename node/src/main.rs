//! The program `heterotune`.

use clap::Parser;
use heterotune::{cli::Cli, exit};
use std::{env, io::Write as _, process::ExitCode, thread};

fn main() -> ExitCode {
    settle_threads();
    settle_memory();
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads our output has seen enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln!`, which panics where standard error cannot be written.
            let _ = writeln!(std::io::stderr(), "heterotune: {error:#}");
            ExitCode::from(exit::status(&error))
        }
    }
}

/// Settles how many threads compute, where the user has not. The tensor library has a pool of its own, whose threads
/// wait for each other in busy loops: on a machine with other work (more nodes, say) that costs two thirds of the time.
/// With one thread there it waits for nobody; matrix products and our own operations share rayon's threads. It also
/// reads /proc/cpuinfo at every matrix product, unless it is told how many those are.
#[allow(unsafe_code)]
fn settle_threads() {
    let cores = thread::available_parallelism().map_or(1, usize::from).to_string();
    for (name, value) in [("CANDLE_NUM_THREADS", "1"), ("RAYON_NUM_THREADS", &cores)] {
        if env::var_os(name).is_none() {
            // SAFETY: this is the first thing that the program does, so that no other thread reads the environment.
            unsafe { env::set_var(name, value) }
        }
    }
}

/// Keeps freed memory for what comes next. A training step frees and asks for the same hundreds of megabytes again and
/// again; given back to the system in between, every page of it is made and cleared anew, which took a third of a step.
#[allow(unsafe_code)]
fn settle_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // Older versions refuse a map threshold above 32 MiB, and then keep the one before.
    for (what, bytes) in
        [(libc::M_MMAP_THRESHOLD, 32 << 20), (libc::M_MMAP_THRESHOLD, 1 << 30), (libc::M_TRIM_THRESHOLD, 1 << 30)]
    {
        // SAFETY: no other thread is there yet; the call changes numbers of the allocator's alone.
        unsafe { libc::mallopt(what, bytes) };
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.downcast_ref::<std::io::Error>().is_some_and(is)
}
