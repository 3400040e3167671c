//! The hub's cache on disk: `models--ORG--NAME/{refs, blobs, snapshots}`. A snapshot is the folder of a commit, whose files
//! are links to blobs; a blob's name is its checksum.

use super::{Config, HubError, Model, model::is_commit, model::plain};
use hf_hub::{Cache as HubCache, CacheRepo};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// What turns an input into what a backbone takes: each has one of these.
pub(super) const INPUTS: [&str; 2] = ["tokenizer.json", "preprocessor_config.json"];

/// The largest index: those of models with a hundred thousand tensors take 10 MB.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// The part of the cache that belongs to one model.
pub(super) struct Cache {
    root: PathBuf,
    folder: String,
    model: Model,
    repo: CacheRepo,
}

impl Cache {
    pub(super) fn new(config: &Config, model: &Model) -> Self {
        let repo = HubCache::new(config.cache.clone()).repo(model.repo());
        Self { root: config.cache.clone(), folder: model.repo().folder_name(), model: model.clone(), repo }
    }

    /// The folder of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.pointer_path(commit)
    }

    /// The model's folder, if all that a backbone needs is there; otherwise the first file that is not.
    pub(super) fn whole(&self) -> Result<PathBuf, String> {
        let named = self.repo.get(CONFIG).and_then(|path| path.parent().map(Path::to_path_buf));
        let revision = self.model.revision();
        let folder = named.or_else(|| is_commit(revision).then(|| self.snapshot(revision))).ok_or(CONFIG)?;
        let has = |name: &str| folder.join(name).is_file();
        if !has(CONFIG) {
            return Err(CONFIG.into());
        }
        if !has(WEIGHTS) {
            let shards = shards(&folder.join(INDEX)).map_err(|_| WEIGHTS)?;
            if let Some(missing) = shards.into_iter().find(|shard| !has(shard)) {
                return Err(missing);
            }
        }
        if INPUTS.into_iter().any(has) { Ok(folder) } else { Err(INPUTS.join(" or ")) }
    }

    /// Says that the revision is this commit.
    pub(super) fn name(&self, commit: &str) -> Result<(), HubError> {
        if is_commit(self.model.revision()) {
            return Ok(());
        }
        let refs = self.root.join(&self.folder).join("refs").join(self.model.revision());
        self.repo.create_ref(commit).map_err(HubError::disk(&refs))
    }

    /// Where the bytes with that checksum belong; its folder is made.
    pub(super) fn blob(&self, checksum: &str) -> Result<PathBuf, HubError> {
        let path = self.repo.blob_path(checksum);
        make_parent(&path)?;
        Ok(path)
    }

    /// Waits until no other process (of whatever program) is fetching the blob. The lock lasts as long as the file is open.
    pub(super) fn lock(&self, checksum: &str) -> Result<File, HubError> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{checksum}.lock"));
        make_parent(&path)?;
        let file = File::create(&path).map_err(HubError::disk(&path))?;
        match file.lock() {
            // Some network disks have no locks.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(HubError::disk(&path)(error)),
            _ => Ok(file),
        }
    }

    /// Puts a blob into a commit's folder: by a link, or where the disk has none by moving it.
    pub(super) fn link(&self, checksum: &str, commit: &str, file: &str) -> Result<(), HubError> {
        let pointer = self.snapshot(commit).join(file);
        if pointer.is_file() {
            return Ok(());
        }
        make_parent(&pointer)?;
        // A link whose blob has been deleted.
        if pointer.is_symlink() {
            fs::remove_file(&pointer).map_err(HubError::disk(&pointer))?;
        }
        let up = "../".repeat(2 + file.matches('/').count());
        symlink(Path::new(&format!("{up}blobs/{checksum}")), &pointer)
            .or_else(|_| fs::rename(self.repo.blob_path(checksum), &pointer))
            .map_err(HubError::disk(&pointer))
    }
}

/// The files that an index names.
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    if fs::metadata(index).map_err(|error| error.to_string())?.len() > INDEX_BYTES_MAX {
        return Err(format!("is larger than {INDEX_BYTES_MAX} bytes, so it is no index"));
    }
    let text = fs::read(index).map_err(|error| error.to_string())?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| format!("is no index: {error}"))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    match names.iter().find(|name| !plain(name) || !name.ends_with(".safetensors")) {
        Some(name) => Err(format!("names \"{name}\", which can't be a file with weights")),
        None if names.is_empty() => Err("names no files".into()),
        None => Ok(names),
    }
}

fn make_parent(path: &Path) -> Result<(), HubError> {
    path.parent().map_or(Ok(()), |parent| fs::create_dir_all(parent).map_err(HubError::disk(parent)))
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_target: &Path, _link: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
