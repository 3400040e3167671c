//! Many worlds, one a seed: the search for one in which something breaks that must never break.

use super::{Options, Report, WorldError, simulate};
use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

impl Report {
    /// Whether nothing is broken that must hold in every world: all honest nodes have sealed the same states, and none
    /// has said two different things.
    pub fn is_sound(&self) -> bool {
        self.diverged == 0 && self.perjured == 0
    }
}

/// Simulates the world that `options` makes of each seed, each on one of `threads`, and tells what came of it; in no
/// particular order.
///
/// # Errors
/// The first options that make no world.
pub fn simulate_seeds(
    seeds: Range<u64>,
    threads: usize,
    options: impl Fn(u64) -> Options + Sync,
    tell: impl Fn(&Options, &Report) + Sync,
) -> Result<(), WorldError> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if !seeds.contains(&seed) {
                return Ok(());
            }
            let options = Options { threads: 1, ..options(seed) };
            tell(&options, &simulate(&options)?);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        // A worker that panics takes this thread with it.
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
