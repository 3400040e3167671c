//! The disk's thread: it keeps records and appends events, so that the select loop never waits for a disk.

use crate::{
    events::EventLog,
    store::{Record, Store},
};
use anyhow::Result;
use heterotune_protocol::round::Output;
use serde_json::Value;
use std::{sync::mpsc, thread};
use tokio::sync::mpsc::Sender;

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

    /// Appends an event to the log.
    ///
    /// # Errors
    /// As [`Disk::keep`].
    pub fn tell(&self, event: Value) -> Result<()> {
        self.send(Job::Tell(event))
    }

    /// Waits until everything so far is written. For the very end only.
    pub fn flush(&self) {
        let (flushed, wait) = mpsc::sync_channel(1);
        if self.send(Job::Flush(flushed)).is_ok() {
            let _ = wait.recv();
        }
    }

    fn send(&self, job: Job) -> Result<()> {
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => anyhow::anyhow!("the disk cannot keep up with the network"),
            mpsc::TrySendError::Disconnected(_) => anyhow::anyhow!("the disk has failed"),
        })
    }
}
