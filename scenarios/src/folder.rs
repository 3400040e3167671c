//! The output folder: taken only when it is new or ours, and by one run at a time.

use crate::RunError;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// What a run leaves behind, and what the next one in the same folder removes. Nothing else is ever touched.
const OURS: [&str; 8] = ["ablation", "charter.toml", "compare", "data", "lies", "nodes", "report.html", "summary.json"];

/// The file that shows whose folder it is, and its first line.
const MARKER: &str = "scenario.toml";
const MARKER_LINE: &str = "# Written by a heterotune scenario run, which empties and uses this folder again.\n";

/// The output folder of a run, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    marker: File,
}

impl Folder {
    /// Takes the folder at `path`. What an earlier run left in it is still there.
    pub(crate) fn take(path: &Path) -> Result<Self, RunError> {
        let marker_path = path.join(MARKER);
        let write_error = |path: &Path| {
            let path = path.to_owned();
            move |source| RunError::Write { path, source }
        };
        let read_error = |source| RunError::Read { path: path.into(), source };
        fs::create_dir_all(path).map_err(write_error(path))?;
        let is_new = fs::read_dir(path).map_err(read_error)?.next().is_none();
        if !is_new && !is_ours(&marker_path) {
            return Err(RunError::NotOurs(path.into()));
        }
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&marker_path);
        let mut marker = opened.map_err(write_error(&marker_path))?;
        marker.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => RunError::InUse(path.into()),
            fs::TryLockError::Error(source) => RunError::Write { path: marker_path.clone(), source },
        })?;
        if is_new {
            marker.write_all(MARKER_LINE.as_bytes()).map_err(write_error(&marker_path))?;
        }
        // The nodes' logs and the report name these paths, which must mean the same wherever they are read.
        Ok(Self { path: fs::canonicalize(path).map_err(read_error)?, marker })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what an earlier run left, and keeps the `source` of the scenario that is run now.
    pub(crate) fn empty(&mut self, source: &str) -> Result<(), RunError> {
        for entry in OURS.map(|name| self.path.join(name)) {
            let removed = if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) };
            match removed {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(RunError::Write { path: entry, source });
                }
                _ => {}
            }
        }
        let text = format!("{MARKER_LINE}{source}");
        // Cut last, so that it never is without its first line.
        let written = self.marker.rewind().and_then(|()| self.marker.write_all(text.as_bytes()));
        let cut = written.and_then(|()| self.marker.set_len(text.len() as u64));
        cut.map_err(|source| RunError::Write { path: self.path.join(MARKER), source })
    }
}

fn is_ours(marker: &Path) -> bool {
    let mut start = String::new();
    let read = File::open(marker).and_then(|file| file.take(MARKER_LINE.len() as u64).read_to_string(&mut start));
    read.is_ok() && start == MARKER_LINE
}

/// Writes a file, and makes the folders above it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(path, bytes)).map_err(|source| RunError::Write { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_folder_is_refused_and_ours_is_emptied() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("a/b");
        let mut taken = Folder::take(&out).unwrap();
        assert!(matches!(Folder::take(&out), Err(RunError::InUse(_))));
        taken.empty("name = \"a longer one\"").unwrap();
        write(&out.join("nodes/ada/events.jsonl"), b"old").unwrap();
        write(&out.join("notes.txt"), b"mine").unwrap();
        drop(taken);
        let mut again = Folder::take(&out).unwrap();
        assert!(out.join("nodes").exists());
        again.empty("name = \"y\"").unwrap();
        assert!(!out.join("nodes").exists());
        assert!(out.join("notes.txt").exists());
        assert!(fs::read_to_string(out.join(MARKER)).unwrap().ends_with(".\nname = \"y\""));

        let other = home.path().join("c");
        write(&other.join(MARKER), b"name = \"somebody's own\"").unwrap();
        assert!(matches!(Folder::take(&other), Err(RunError::NotOurs(_))));
    }
}
