//! The disk's thread: it keeps records and appends events, so that the select loop never waits for a disk.

use crate::{
    events::EventLog,
    store::{Record, Store},
};
use anyhow::{Result, bail};
use heterotune_protocol::round::Output;
use serde_json::Value;
use std::{sync::mpsc, thread, time::Duration};
use tokio::sync::mpsc::{Receiver, Sender};

const FLUSH_POLL: Duration = Duration::from_millis(20);

/// Writes waiting: some rounds of messages and events. A disk that is further behind cannot keep up.
const QUEUE: usize = 4_096;

enum Job {
    Keep(Vec<Record>, Vec<Output>),
    Tell(Value),
    Flush(mpsc::SyncSender<()>),
}

/// What the disk says back.
#[derive(Debug)]
pub enum Done {
    /// Records are on disk; these outputs waited for that.
    Kept(Vec<Output>),
    /// The disk is full or broken.
    Failed(anyhow::Error),
}

/// The runtime's end of the disk.
pub struct Disk {
    jobs: mpsc::SyncSender<Job>,
}

impl Disk {
    /// Starts the thread.
    ///
    /// # Errors
    /// A system without room for a thread.
    pub fn start(store: Store, mut log: EventLog, done: Sender<Done>) -> Result<Self> {
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        thread::Builder::new().name("disk".into()).spawn(move || {
            for job in queue {
                let result = match job {
                    // Without records it only keeps its place in the queue.
                    Job::Keep(records, outputs) if records.is_empty() => Ok(Some(outputs)),
                    Job::Keep(records, outputs) => store.keep(&records).map(|()| Some(outputs)),
                    Job::Tell(event) => log.tell(&event).map(|()| None),
                    Job::Flush(flushed) => {
                        let _ = flushed.send(());
                        Ok(None)
                    }
                };
                let said = match result {
                    Ok(None) => continue,
                    Ok(Some(outputs)) => Done::Kept(outputs),
                    Err(error) => Done::Failed(error),
                };
                if done.blocking_send(said).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Keeps records, then gives `outputs` back.
    ///
    /// # Errors
    /// A disk that cannot keep up, or has failed.
    pub fn keep(&self, records: Vec<Record>, outputs: Vec<Output>) -> Result<()> {
        self.send(Job::Keep(records, outputs))
    }

    /// Appends an event to the log. A disk too slow for its log loses events, not the node.
    ///
    /// # Errors
    /// A disk that has failed.
    pub fn tell(&self, event: Value) -> Result<()> {
        match self.jobs.try_send(Job::Tell(event)) {
            Ok(()) | Err(mpsc::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::TrySendError::Disconnected(_)) => bail!("the disk has failed"),
        }
    }

    /// Waits until everything so far is written, and gives the first failure among what the disk says meanwhile. For
    /// the very end only.
    ///
    /// # Errors
    /// What the disk could not write.
    pub fn flush(&self, done: &mut Receiver<Done>) -> Result<()> {
        let (flushed, wait) = mpsc::sync_channel(1);
        if self.send(Job::Flush(flushed)).is_err() {
            return Ok(());
        }
        let mut result = Ok(());
        loop {
            let finished = !matches!(wait.recv_timeout(FLUSH_POLL), Err(mpsc::RecvTimeoutError::Timeout));
            // The disk waits, too, while nobody takes what it says.
            while let Ok(said) = done.try_recv() {
                if let (Done::Failed(error), true) = (said, result.is_ok()) {
                    result = Err(error);
                }
            }
            if finished {
                return result;
            }
        }
    }

    fn send(&self, job: Job) -> Result<()> {
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => anyhow::anyhow!("the disk cannot keep up with the network"),
            mpsc::TrySendError::Disconnected(_) => anyhow::anyhow!("the disk has failed"),
        })
    }
}
