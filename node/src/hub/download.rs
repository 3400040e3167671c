//! One file from the hub to the cache: goes on where an earlier attempt broke off, and keeps nothing that is damaged.

use super::{
    HubError,
    cache::Cache,
    client::{ATTEMPTS, Client, Remote, unreachable},
    hash::Hash,
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    thread,
};

const BUFFER_BYTES: usize = 1 << 18;

/// Brings a file into a commit's folder; `tell` hears how many of its bytes are there.
pub(super) fn download(
    client: &Client<'_>,
    cache: &Cache,
    commit: &str,
    remote: &Remote,
    tell: &mut dyn FnMut(u64),
) -> Result<(), HubError> {
    let _lock = cache.lock(&remote.checksum)?;
    let blob = cache.blob(&remote.checksum)?;
    if !blob.is_file() {
        let mut part = Part::open(&blob, remote)?;
        tell(part.length);
        receive_all(client, remote, &mut part, tell)?;
        part.finish(client, remote, &blob)?;
    }
    tell(remote.size);
    cache.link(&remote.checksum, commit, &remote.file)
}

fn receive_all(
    client: &Client<'_>,
    remote: &Remote,
    part: &mut Part,
    tell: &mut dyn FnMut(u64),
) -> Result<(), HubError> {
    let mut in_vain = 0;
    while part.length < remote.size {
        let before = part.length;
        let Err(error) = receive(client, remote, part, tell) else { break };
        in_vain = if part.length > before { 0 } else { in_vain + 1 };
        if !error.passes() || in_vain == ATTEMPTS {
            return Err(error);
        }
        thread::sleep(client.config.pause);
    }
    Ok(())
}

/// One attempt to get what is missing.
fn receive(client: &Client<'_>, remote: &Remote, part: &mut Part, tell: &mut dyn FnMut(u64)) -> Result<(), HubError> {
    let response = client.bytes(remote, part.length)?;
    if response.status() != 206 {
        part.restart(remote)?;
    }
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; BUFFER_BYTES];
    while part.length < remote.size {
        let most = (remote.size - part.length).min(BUFFER_BYTES as u64) as usize;
        match body.read(&mut buffer[..most]) {
            Ok(0) => return Err(unreachable(&remote.url, &"the connection was closed too early")),
            Ok(count) => part.write(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreachable(&remote.url, &error)),
        }
        tell(part.length);
    }
    Ok(())
}

/// A file that is not whole yet, under the name that all clients of the hub give it.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    hash: Hash,
}

impl Part {
    fn open(blob: &Path, remote: &Remote) -> Result<Self, HubError> {
        let mut path = OsString::from(blob);
        path.push(".incomplete");
        let path = PathBuf::from(path);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(HubError::disk(&path))?;
        let mut part = Self { path, file, length: 0, hash: Hash::new(&remote.checksum, remote.size) };
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match part.file.read(&mut buffer).map_err(HubError::disk(&part.path))? {
                0 => break,
                count => {
                    part.hash.update(&buffer[..count]);
                    part.length += count as u64;
                }
            }
        }
        if part.length > remote.size {
            part.restart(remote)?;
        }
        Ok(part)
    }

    fn restart(&mut self, remote: &Remote) -> Result<(), HubError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(HubError::disk(&self.path))?;
        self.length = 0;
        self.hash = Hash::new(&remote.checksum, remote.size);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(HubError::disk(&self.path))?;
        self.length += bytes.len() as u64;
        self.hash.update(bytes);
        Ok(())
    }

    /// Gives it its name, if it is what it should be.
    fn finish(self, client: &Client<'_>, remote: &Remote, blob: &Path) -> Result<(), HubError> {
        if self.hash.finish() != remote.checksum {
            fs::remove_file(&self.path).map_err(HubError::disk(&self.path))?;
            let (model, file, expected) = (client.model.clone(), remote.file.clone(), remote.checksum.clone());
            return Err(HubError::Checksum { model, file, expected });
        }
        // The name must not be on the disk before the bytes are.
        self.file.sync_all().and_then(|()| fs::rename(&self.path, blob)).map_err(HubError::disk(&self.path))
    }
}
