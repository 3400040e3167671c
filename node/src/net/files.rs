//! What of the network outlives the process, in the state folder: `peers.json`, `bans.json`, `revocations.cbor`.

use super::{NetEvent, Network, bans::Bans, revoked::Revoked};
use crate::store::write_atomically;
use anyhow::Result;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

/// How often new addresses are written, and the bans are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Where the files are, and when they were looked at last.
#[derive(Debug)]
pub(super) struct Files {
    folder: Option<PathBuf>,
    /// When the bans that are known were written.
    bans_of: Option<SystemTime>,
    /// When the revocations that are known were written.
    revocations_of: Option<SystemTime>,
    next: Instant,
}

impl Files {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        let mut files = Self { folder, bans_of: None, revocations_of: None, next: Instant::now() + INTERVAL };
        files.bans_of = files.bans().and_then(|path| modified(&path));
        files.revocations_of = files.revocations().and_then(|path| modified(&path));
        files
    }

    pub(super) fn peers(&self) -> Option<PathBuf> {
        self.path("peers.json")
    }

    pub(super) fn bans(&self) -> Option<PathBuf> {
        self.path("bans.json")
    }

    pub(super) fn revocations(&self) -> Option<PathBuf> {
        self.path("revocations.cbor")
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(name))
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

impl Network {
    pub(super) fn look_after_files(&mut self, now: Instant) {
        if now < self.files.next {
            return;
        }
        self.files.next = now + INTERVAL;
        if let Err(error) = self.reload() {
            self.events
                .push_back(NetEvent::Notice(format!("{error:#}; until then bans and revocations are as they were")));
        }
        if let Some(path) = self.files.peers()
            && let Some(bytes) = self.peers.changes()
        {
            // Hints, which the next life can do without: nobody waits for the disk.
            tokio::task::spawn_blocking(move || drop(write_atomically(&path, &bytes, false)));
        }
    }

    /// Reads `bans.json` and `revocations.cbor` again, if somebody has changed them.
    ///
    /// # Errors
    /// A file that cannot be read; what it held before still counts. It is told once.
    pub fn reload(&mut self) -> Result<()> {
        self.reload_bans().and(self.reload_revocations())
    }

    fn reload_bans(&mut self) -> Result<()> {
        let Some(path) = self.files.bans() else { return Ok(()) };
        let written = modified(&path);
        if written == self.files.bans_of {
            return Ok(());
        }
        self.files.bans_of = written;
        self.door.set_bans(Bans::load(&path)?);
        self.send_away();
        Ok(())
    }

    /// Takes in what an admin of this node has written beside it; peers are told with the next hello.
    fn reload_revocations(&mut self) -> Result<()> {
        let Some(path) = self.files.revocations() else { return Ok(()) };
        let written = modified(&path);
        if written == self.files.revocations_of {
            return Ok(());
        }
        self.files.revocations_of = written;
        for list in Revoked::load(&path, self.door.context())?.iter() {
            self.door.revoke(list.clone())?;
        }
        self.send_away();
        Ok(())
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    /// A disk that is full or broken.
    pub fn close(&mut self) -> Result<()> {
        let (Some(path), Some(bytes)) = (self.files.peers(), self.peers.changes()) else { return Ok(()) };
        write_atomically(&path, &bytes, false)
    }

    pub(super) fn keep_bans(&mut self) {
        let Some(path) = self.files.bans() else { return };
        let kept = self.door.bans().to_json().and_then(|bytes| write_atomically(&path, &bytes, false));
        self.files.bans_of = modified(&path);
        self.tell_failure(kept);
    }

    pub(super) fn keep_revocations(&mut self) {
        let Some(path) = self.files.revocations() else { return };
        // What has been written there since is not lost.
        let read = self.reload_revocations();
        self.tell_failure(read);
        let kept = self.door.revoked().to_cbor().and_then(|bytes| write_atomically(&path, &bytes, false));
        self.files.revocations_of = modified(&path);
        self.tell_failure(kept);
    }

    fn tell_failure(&mut self, kept: Result<()>) {
        if let Err(error) = kept {
            self.events.push_back(NetEvent::Notice(format!("{error:#}")));
        }
    }
}

/// The clock by which memberships expire and addresses age.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
