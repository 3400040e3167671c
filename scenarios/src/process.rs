//! One node's process. It never outlives this one.

use crate::{RunError, events::Log};
use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a node has to end by itself once its stdin is closed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at something that another process does.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A running node. Its stdin is a pipe that is held open for its life: when it closes, because this is dropped or
/// because this process is gone, however it went, the node ends.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    stderr_log: PathBuf,
    /// Its event log.
    pub(crate) events: Log,
}

impl Process {
    /// Starts `binary` with `arguments`; its logs go to `folder`.
    pub(crate) fn start(binary: &Path, name: &str, folder: &Path, arguments: Vec<OsString>) -> Result<Self, RunError> {
        let write_error = |path: &Path| {
            let path = path.to_owned();
            move |source| RunError::Write { path, source }
        };
        fs::create_dir_all(folder).map_err(write_error(folder))?;
        let log = |name: &str| {
            let path = folder.join(name);
            File::create(&path).map_err(write_error(&path))
        };
        let child = Command::new(binary)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(log("stdout.log")?)
            .stderr(log("stderr.log")?)
            .spawn()
            .map_err(|source| RunError::Start { binary: binary.into(), source })?;
        let events = Log::new(folder.join("events.jsonl"));
        Ok(Self { name: name.into(), child, stderr_log: folder.join("stderr.log"), events })
    }

    /// How it ended, if it did. An error to ask counts as not ended: the next look asks again.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Where it writes what went wrong.
    pub(crate) fn log(&self) -> PathBuf {
        self.stderr_log.clone()
    }

    /// Its end as an error.
    pub(crate) fn died(&self, status: ExitStatus) -> RunError {
        let text = fs::read(&self.stderr_log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut last: Vec<&str> = text.lines().rev().map(str::trim).filter(|line| !line.is_empty()).take(2).collect();
        last.reverse();
        let said = if last.is_empty() { "nothing".into() } else { last.join(" / ") };
        RunError::Died { node: self.name.clone(), status: status.to_string(), said, log: self.log() }
    }

    /// Asks it to end, by closing its stdin.
    pub(crate) fn ask_to_end(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Gives it until `asked` plus some patience to end.
    pub(crate) fn wait_for_end(&mut self, asked: Instant) {
        while self.ended().is_none() && asked.elapsed() < STOP_PATIENCE {
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
