//! The disk's thread: it keeps records and appends events, so that the select loop never waits for a disk.

use crate::{
    events::EventLog,
    status::Status,
    store::{Record, Store},
};
use anyhow::{Context as _, Result, bail};
use heterotune_protocol::round::Output;
use serde_json::Value;
use std::{process, str::FromStr, sync::mpsc, thread, time::Duration};
use tokio::sync::mpsc::{Receiver, Sender};

const FLUSH_POLL: Duration = Duration::from_millis(20);

/// Writes waiting: some rounds of messages and events. A disk that is further behind cannot keep up.
const QUEUE: usize = 4_096;

enum Job {
    Keep(Vec<Record>, Vec<Output>),
    Tell(Value),
    Show(Status),
    Flush(mpsc::SyncSender<()>),
}

/// Where a scenario's node dies, as by a power cut: at its n-th write of records, counted from 1 in each life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    write: u64,
    /// Whether the write is done first.
    after: bool,
}

impl FromStr for Crash {
    type Err = anyhow::Error;

    /// `3` is before the third write, `3+` after it.
    fn from_str(text: &str) -> Result<Self> {
        let (number, after) = text.strip_suffix('+').map_or((text, false), |number| (number, true));
        let write = number.parse().context("must be the number of a write, with + behind it for after the write")?;
        Ok(Self { write, after })
    }
}

/// A store whose node may be bound to die.
struct Keeper {
    store: Store,
    crash: Option<Crash>,
    /// Writes in this life.
    writes: u64,
}

impl Keeper {
    /// Does all of this, with one write for all the records in it.
    fn work(&mut self, jobs: Vec<Job>, log: &mut EventLog) -> Result<Vec<Done>> {
        let (mut records, mut kept, mut flushed) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Keep(more, outputs) => {
                    records.extend(more);
                    kept.push(Done::Kept(outputs));
                }
                Job::Tell(event) => log.tell(&event)?,
                Job::Show(status) => drop(status.write(self.store.folder())),
                Job::Flush(sender) => flushed.push(sender),
            }
        }
        // Without records an output has only kept its place in the queue.
        if !records.is_empty() {
            self.keep(&records)?;
        }
        flushed.iter().for_each(|sender| {
            let _ = sender.send(());
        });
        Ok(kept)
    }

    fn keep(&mut self, records: &[Record]) -> Result<()> {
        self.writes += 1;
        let dies = |after| self.crash.is_some_and(|crash| crash == Crash { write: self.writes, after });
        if dies(false) {
            process::abort();
        }
        self.store.keep(records)?;
        if dies(true) {
            process::abort();
        }
        Ok(())
    }
}

/// The outputs of one input, by what they wait for.
#[derive(Debug, Default)]
pub struct Sorted {
    /// What can be done at once, in order.
    pub now: Vec<Output>,
    /// What is to be written.
    pub records: Vec<Record>,
    /// What must wait until that, and all that is on its way already, is on disk; in order.
    pub later: Vec<Output>,
}

/// Sorts outputs. What this node says after something to keep, or while anything is on its way to the disk
/// (`is_writing`), waits for that, as it may follow from it; work and questions bind it to nothing. Others' messages are
/// passed on once they are kept: by then many peers have said that they have them, which saves every third copy.
pub fn sort(outputs: Vec<Output>, is_writing: bool) -> Sorted {
    let mut sorted = Sorted::default();
    for output in outputs {
        let speaks = matches!(output, Output::Publish(_) | Output::Answer { .. });
        let passes_on = matches!(output, Output::Judge { .. });
        match output {
            Output::Keep(message) => sorted.records.push(Record::Message(message)),
            Output::KeepPiece(piece) => sorted.records.push(Record::Piece(piece)),
            Output::Checkpoint(checkpoint) => sorted.records.push(Record::Checkpoint(checkpoint)),
            Output::Seal { seal, forget_before } => sorted.records.push(Record::Seal(seal, forget_before)),
            _ if speaks && is_writing => sorted.later.push(output),
            _ if (speaks || passes_on) && !sorted.records.is_empty() => sorted.later.push(output),
            _ => sorted.now.push(output),
        }
    }
    sorted
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
    /// Starts the thread; in a scenario the node may be bound to die of it.
    ///
    /// # Errors
    /// A system without room for a thread.
    pub fn start(store: Store, mut log: EventLog, done: Sender<Done>, crash: Option<Crash>) -> Result<Self> {
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let mut keeper = Keeper { store, crash, writes: 0 };
        // Who is to die at a write has each record in a write of its own.
        let at_once = if crash.is_some() { 1 } else { QUEUE };
        thread::Builder::new().name("disk".into()).spawn(move || {
            while let Ok(first) = queue.recv() {
                // What has come while the disk was busy is written together: syncing is what takes time.
                let jobs: Vec<Job> = std::iter::once(first).chain(queue.try_iter()).take(at_once).collect();
                let said = keeper.work(jobs, &mut log).unwrap_or_else(|error| vec![Done::Failed(error)]);
                if said.into_iter().any(|said| done.blocking_send(said).is_err()) {
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

    /// Writes what people look at while the node runs. A disk that is too slow for it, or full, does without.
    pub fn show(&self, status: Status) {
        let _ = self.jobs.try_send(Job::Show(status));
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

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_crypto::{Digest, Identity};
    use heterotune_protocol::{
        charter::{Anchors, Charter, Task},
        codec::{Group, Mantissas},
        message::{Content, Context, Message, Step},
        round::Work,
        verdict::Verdict,
    };
    use std::sync::Arc;

    fn message() -> Arc<Message> {
        let author = Identity::from_seed(1, "a");
        let anchors = Anchors { digest: Digest::ZERO, count: 128 };
        let charter = Charter::new(
            "test",
            vec![author.id()],
            Task::ImageClassification { labels: vec!["a".into(), "b".into()] },
            anchors,
        );
        let group = Group { exponent: 0, mantissas: Mantissas::Narrow(vec![1]) };
        let context = Context::new(charter).unwrap();
        Arc::new(context.say(&author, Digest::ZERO, Step::Round(1), 0, Content::Update(vec![group])).unwrap())
    }

    #[test]
    fn nothing_is_said_before_what_it_follows_from_is_on_disk() {
        let judge = |ticket| Output::Judge { ticket, verdict: Verdict::Accept };
        let names = |outputs: &[Output]| -> Vec<&str> {
            let name = |output: &Output| match output {
                Output::Judge { ticket: 1, .. } => "first",
                Output::Judge { .. } => "second",
                Output::Publish(_) => "publish",
                _ => "other",
            };
            outputs.iter().map(name).collect()
        };
        let work = Output::Train(Work::Statistics);
        let outputs = vec![judge(1), Output::Keep(message()), Output::Publish(message()), judge(2), work];
        let Sorted { now, records, later } = sort(outputs, false);
        assert_eq!((names(&now), records.len(), names(&later)), (vec!["first", "other"], 1, vec!["publish", "second"]));
        // What is said now may follow from what is on its way to the disk; a judgement does not.
        let speak = || vec![Output::Publish(message()), judge(1)];
        let Sorted { now, records, later } = sort(speak(), true);
        assert_eq!((names(&now), records.len(), names(&later)), (vec!["first"], 0, vec!["publish"]));
        assert_eq!(names(&sort(speak(), false).now), ["publish", "first"]);
    }

    /// What waits for the disk together is written together, and nothing is said of it before.
    #[test]
    fn what_has_come_meanwhile_is_one_write() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(folder.path(), u64::MAX).unwrap();
        let keep = |ticket| {
            let outputs = vec![Output::Judge { ticket, verdict: Verdict::Accept }];
            Job::Keep(vec![Record::Message(message())], outputs)
        };
        let said = |done: &[Done]| -> Vec<u64> {
            let outputs = done.iter().flat_map(|done| match done {
                Done::Kept(outputs) => outputs.iter(),
                Done::Failed(error) => panic!("{error}"),
            });
            outputs.map(|output| if let Output::Judge { ticket, .. } = output { *ticket } else { 0 }).collect()
        };
        let mut keeper = Keeper { store: Store::open(folder.path()).unwrap(), crash: None, writes: 0 };
        let (flushed, wait) = mpsc::sync_channel(1);
        let jobs = vec![keep(1), Job::Tell(serde_json::json!({"event": "left"})), keep(2), Job::Flush(flushed)];
        let done = keeper.work(jobs, &mut log).unwrap();
        assert_eq!((said(&done), keeper.writes), (vec![1, 2], 1));
        wait.try_recv().unwrap();
        assert_eq!(keeper.store.load().unwrap().messages, [message().bytes.clone()]);
        // What has nothing to keep waits for those before it, and writes nothing.
        let place = Job::Keep(vec![], vec![Output::Judge { ticket: 3, verdict: Verdict::Accept }]);
        assert_eq!((said(&keeper.work(vec![place], &mut log).unwrap()), keeper.writes), (vec![3], 1));
    }

    #[test]
    fn a_crash_is_before_or_after_a_write() {
        assert_eq!("3".parse::<Crash>().unwrap(), Crash { write: 3, after: false });
        assert_eq!("1+".parse::<Crash>().unwrap(), Crash { write: 1, after: true });
        assert!("".parse::<Crash>().is_err() && "+".parse::<Crash>().is_err() && "-1".parse::<Crash>().is_err());
    }
}
