//! Threads that can't change a result: jobs that are independent of each other, in whatever order.

use std::{
    sync::{Mutex, PoisonError},
    thread,
};

/// Does `work` on every job, on at most `threads` threads, this one among them. Which thread takes which job is left
/// to chance; `work` must not care.
pub(super) fn for_each<T: Send>(jobs: Vec<T>, threads: usize, work: impl Fn(T) + Sync) {
    let helpers = threads.min(jobs.len()).saturating_sub(1);
    let queue = Mutex::new(jobs.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let drain = || {
        while let Some(job) = next() {
            work(job);
        }
    };
    thread::scope(|scope| {
        for _ in 0..helpers {
            // One that can't be started is not missed: the others take its jobs.
            let _ = thread::Builder::new().spawn_scoped(scope, drain);
        }
        drain();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_job_is_done_once() {
        for threads in [0, 1, 2, 7, 100] {
            let sum = AtomicUsize::new(0);
            for_each((0..50).collect(), threads, |job: usize| {
                sum.fetch_add(job, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 49 * 50 / 2);
        }
        for_each(vec![], 3, |_: usize| panic!("no job"));
    }
}
