//! The event log: `events.jsonl` in the state folder, one JSON object a line, append-only. It is the product's own
//! record: `status`, the scenario runner and tests read it. A log that has grown to [`BYTES_MAX`] becomes
//! `events.jsonl.1`, in place of the one before, and a new one begins with what a reader must know.

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long a log grows, in bytes: some thousands of rounds. Two are kept.
pub const BYTES_MAX: u64 = 64 << 20;

/// Events that say what a run is; the last of each begins a new log.
const LASTING: [&str; 3] = ["started", "backbone", "genesis"];

/// A state folder's log, and the one before it.
fn paths(folder: &Path) -> [PathBuf; 2] {
    ["events.jsonl.1", "events.jsonl"].map(|name| folder.join(name))
}

/// The events in a state folder, oldest first. Half a line, which a node killed while it wrote leaves, is left out.
///
/// # Errors
/// A folder without a log, or a log that cannot be read.
pub fn read(folder: &Path) -> Result<impl Iterator<Item = Map<String, Value>>> {
    let [before, path] = paths(folder);
    let file = File::open(&path).with_context(|| {
        format!("cannot read {}; is {} a node's state folder, and has the node run?", path.display(), folder.display())
    })?;
    // As long as it is now: what is no file, as a device, has no end.
    let bytes = |file: File| {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        BufReader::new(file.take(length))
    };
    let files = File::open(before).ok().into_iter().chain([file]);
    let lines = files.flat_map(move |file| bytes(file).split(b'\n').map_while(Result::ok));
    Ok(lines.filter_map(|line| serde_json::from_slice(&line).ok()))
}

/// The last bytes of a log that are looked at for its last event: the longest line has some 20 KB.
const TAIL_BYTES: u64 = 64 * 1024;

/// The last event in a state folder, if there is a log.
pub fn last(folder: &Path) -> Option<Map<String, Value>> {
    let [_, path] = paths(folder);
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(length.min(TAIL_BYTES)).read_to_end(&mut tail).ok()?;
    tail.rsplit(|byte| *byte == b'\n').find_map(|line| serde_json::from_slice(line).ok())
}

/// An event log, open for appending.
pub struct EventLog {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    bytes: u64,
    most: u64,
    /// The last line of each of the events that a new log begins with.
    lasting: BTreeMap<&'static str, Vec<u8>>,
    /// Whether the last line may be half written.
    broken: bool,
}

impl EventLog {
    /// Opens the folder's log, or starts it; it grows to `most` bytes.
    ///
    /// # Errors
    /// A log that cannot be written.
    pub fn open(folder: &Path, most: u64) -> Result<Self> {
        let [_, path] = paths(folder);
        let file = Self::open_file(&path)?;
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        let folder = folder.to_path_buf();
        let mut log = Self { folder, path, file, bytes, most, lasting: BTreeMap::new(), broken: false };
        log.end_broken_line()?;
        Ok(log)
    }

    fn open_file(path: &Path) -> Result<File> {
        let open = OpenOptions::new().create(true).append(true).read(true).open(path);
        open.with_context(|| format!("cannot write {}", path.display()))
    }

    /// A node killed while it wrote leaves half a line; the next one starts on a line of its own.
    fn end_broken_line(&mut self) -> Result<()> {
        let mut last = [b'\n'];
        if self.file.seek(SeekFrom::End(-1)).is_ok() {
            let _ = self.file.read(&mut last);
        }
        if last != [b'\n'] {
            self.append(b"\n")?;
        }
        Ok(())
    }

    /// Appends an event: an object with a field `event`, to which the time is added.
    ///
    /// # Errors
    /// A disk that is full or broken.
    pub fn tell(&mut self, event: &impl Serialize) -> Result<()> {
        let mut line = Map::new();
        line.insert("time_ms".into(), unix_ms().into());
        if let Value::Object(fields) = serde_json::to_value(event)? {
            line.extend(fields);
        }
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        if let Some(Value::String(kind)) = line.get("event")
            && let Some(kind) = LASTING.into_iter().find(|lasting| lasting == kind)
        {
            self.lasting.insert(kind, bytes.clone());
        }
        if self.bytes > 0 && self.bytes + bytes.len() as u64 > self.most {
            self.begin_anew()?;
        }
        if std::mem::take(&mut self.broken) {
            bytes.insert(0, b'\n');
        }
        let appended = self.append(&bytes);
        self.broken = appended.is_err();
        appended
    }

    fn begin_anew(&mut self) -> Result<()> {
        let [before, path] = paths(&self.folder);
        fs::rename(&path, &before).with_context(|| format!("cannot rename {}", path.display()))?;
        (self.file, self.bytes, self.broken) = (Self::open_file(&path)?, 0, false);
        let lasting: Vec<u8> = self.lasting.values().flatten().copied().collect();
        self.append(&lasting)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).with_context(|| {
            format!(
                "cannot write {}; is the disk full? Nothing is lost: free some space and start again",
                self.path.display()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_long_log_is_two_files_and_reads_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(folder.path(), 2_000).unwrap();
        log.tell(&json!({"event": "started", "node": "a"})).unwrap();
        for round in 0..200 {
            log.tell(&json!({"event": "round_opened", "round": round})).unwrap();
        }
        drop(log);
        let [before, now] = paths(folder.path()).map(|path| fs::metadata(path).unwrap().len());
        assert!((1_900..=2_000).contains(&before) && (1..=2_000).contains(&now), "{before} and {now} bytes");
        let events: Vec<_> = read(folder.path()).unwrap().collect();
        let rounds: Vec<_> = events.iter().filter_map(|event| event.get("round")?.as_u64()).collect();
        // The newest, without a gap, and what the run is comes first in either file.
        assert!(rounds.len() > 30 && rounds.windows(2).all(|two| two[1] == two[0] + 1) && rounds.last() == Some(&199));
        assert_eq!(events.iter().filter(|event| event["event"] == "started").count(), 2);
        assert_eq!(events[0]["event"], "started");
        // A node that starts again goes on where the log is.
        let mut log = EventLog::open(folder.path(), 2_000).unwrap();
        log.tell(&json!({"event": "left"})).unwrap();
        assert_eq!(read(folder.path()).unwrap().last().unwrap()["event"], "left");
        assert_eq!(last(folder.path()).unwrap()["event"], "left");
    }

    #[test]
    fn half_a_line_ends_before_the_next_event() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("events.jsonl"), "{\"event\": \"left\"}\n{\"eve").unwrap();
        EventLog::open(folder.path(), BYTES_MAX).unwrap().tell(&json!({"event": "started"})).unwrap();
        let kinds: Vec<_> = read(folder.path()).unwrap().map(|event| event["event"].clone()).collect();
        assert_eq!(kinds, ["left", "started"]);
        fs::write(folder.path().join("events.jsonl"), "{\"event\": \"left\"}\n{\"eve").unwrap();
        assert_eq!(last(folder.path()).unwrap()["event"], "left");
        assert_eq!(last(&folder.path().join("none")), None);
        assert!(read(&folder.path().join("none")).err().unwrap().to_string().contains("has the node run?"));
    }
}
