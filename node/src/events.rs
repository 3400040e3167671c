//! The event log: `events.jsonl` in the state folder, one JSON object a line, append-only. It is the product's own
//! record: `status`, the scenario runner and tests read it.

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// An event log, open for appending.
pub struct EventLog {
    path: PathBuf,
    file: File,
    /// Whether the last line may be half written.
    broken: bool,
}

impl EventLog {
    /// Opens the folder's log, or starts it.
    ///
    /// # Errors
    /// A log that cannot be written.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("events.jsonl");
        let open = OpenOptions::new().create(true).append(true).read(true).open(&path);
        let mut log =
            Self { file: open.with_context(|| format!("cannot write {}", path.display()))?, path, broken: false };
        log.end_broken_line()?;
        Ok(log)
    }

    /// A node killed while it wrote leaves half a line; the next one starts on a line of its own.
    fn end_broken_line(&mut self) -> Result<()> {
        use std::io::{Read, Seek, SeekFrom};
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
        if std::mem::take(&mut self.broken) {
            bytes.insert(0, b'\n');
        }
        let appended = self.append(&bytes);
        self.broken = appended.is_err();
        appended
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| {
            format!(
                "cannot write {}; is the disk full? Nothing is lost: free some space and start again",
                self.path.display()
            )
        })
    }
}
