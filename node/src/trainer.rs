//! The trainer's thread: it takes [`Work`] from the runtime, lets the [`Learner`] do it, and reports back.
//!
//! The work itself is done by a `Worker`, on whatever thread: networks in one process have no others.

mod report;
mod residual;
mod worker;

pub use report::Report;
pub(crate) use worker::{ALONE, Reports, Worker};

use crate::train::Learner;
use anyhow::{Context as _, Result};
use heterotune_crypto::NodeId;
use heterotune_protocol::{charter::Charter, round::Work};
use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};
use tokio::sync::mpsc::Sender;

/// candle's backward pass recurses once per operation: 2 MiB overflow at some thousand of them.
pub(crate) const STACK_BYTES: usize = 64 * 1024 * 1024;

/// The runtime's end of the trainer.
pub struct Trainer {
    queue: Arc<Queue>,
}

/// Work waiting: genesis has three pieces, and of rounds only the newest counts, so there are never more than four.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    work: VecDeque<Work>,
    closed: bool,
}

impl Queue {
    /// Adds work.
    fn push(&self, work: Work) {
        add(&mut self.lock().work, work);
        self.changed.notify_one();
    }

    /// No more work comes.
    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// The next work, waited for; none once the queue is closed.
    fn next(&self) -> Option<Work> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(work) = waiting.work.pop_front() {
                return Some(work);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds work to what is `waiting`. A round that has not begun is given up for a newer one: a node slower than its network
/// trains what is open when it gets to it.
pub(crate) fn add(waiting: &mut VecDeque<Work>, work: Work) {
    let is_round = |work: &Work| matches!(work, Work::Round { .. } | Work::Finish { .. });
    if is_round(&work) {
        waiting.retain(|work| !is_round(work));
    }
    waiting.push_back(work);
}

impl Trainer {
    /// Starts the thread: `load` makes the learner on it. An `idle` node draws updates by its id instead of training.
    ///
    /// # Errors
    /// A system without room for a thread.
    pub fn start(
        charter: Charter,
        private: PathBuf,
        with_alone: bool,
        idle: Option<NodeId>,
        reports: Sender<Report>,
        load: impl FnOnce() -> Result<Learner> + Send + 'static,
    ) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        let waiting = queue.clone();
        thread::Builder::new().name("trainer".into()).stack_size(STACK_BYTES).spawn(move || {
            let failed = (|| {
                let sink = reports.clone();
                let report = move |report| sink.blocking_send(report).ok().context("the node has stopped");
                let mut worker = Worker::new(load()?, charter, Some(private), Box::new(report));
                worker.idle = idle;
                worker.begin(with_alone)?;
                while let Some(work) = waiting.next() {
                    worker.work(work)?;
                }
                Ok(())
            })();
            if let Err(error) = failed {
                let _ = reports.blocking_send(Report::Failed(error));
            }
        })?;
        Ok(Self { queue })
    }

    /// Hands over work.
    pub fn work(&self, work: Work) {
        self.queue.push(work);
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.queue.close();
    }
}
