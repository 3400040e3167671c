//! Backbones from the Hugging Face hub, in the hub's own cache, so that other programs share the files.
//!
//! Whatever comes over the network is checked: names by their letters, files by their size and checksum (SHA-256 where
//! the hub keeps large files, otherwise the hash of the git blob). A file gets its name in the cache only when it is whole.

mod cache;
mod client;
mod config;
mod download;
mod fetch;
mod hash;
mod model;

pub use config::Config;
pub use fetch::fetch;
pub use model::Model;

use crate::backbone::BackboneError;
use cache::Cache;
use std::{
    io,
    path::{Path, PathBuf},
};

/// How a download gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file that is coming.
    pub file: &'a str,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes that are there, of all files of this transfer.
    pub done: u64,
    /// Size in bytes of all files of this transfer.
    pub total: u64,
}

/// Why a backbone can't be had from the hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that can't be one of the hub's.
    #[error(
        "\"{0}\" names no model on the hub: write hf:ORG/NAME, or hf:ORG/NAME@REVISION with a branch, tag or commit"
    )]
    Name(String),
    /// An environment variable that can't be used.
    #[error("{name} {problem}")]
    Setting {
        /// Which variable.
        name: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is no such repository or revision.
    #[error("{endpoint} has no model {} with a revision {}; see {endpoint}/{}", model.name(), model.revision(), model.name())]
    Absent {
        /// What was asked for.
        model: Model,
        /// Who was asked.
        endpoint: String,
    },
    /// A repository that is not shown to everybody.
    #[error(
        "{endpoint} does not show {model} (status {status}): it is private or gated, or there is none; ask for access at \
         {endpoint}/{}, make a token at {endpoint}/settings/tokens, and set HF_TOKEN to it", model.name()
    )]
    Forbidden {
        /// What was asked for.
        model: Model,
        /// Who was asked.
        endpoint: String,
        /// 401 or 403.
        status: u16,
    },
    /// A repository without a file that every backbone needs.
    #[error("{model} has no {file}, so it can't be a backbone")]
    Lacks {
        /// The repository.
        model: Model,
        /// What it lacks.
        file: String,
    },
    /// A model that is not supported, or a configuration that is damaged.
    #[error("{model} can't be a backbone: {problem}")]
    Unsupported {
        /// The repository.
        model: Model,
        /// Why not.
        problem: Box<BackboneError>,
    },
    /// A file that is not in the cache, where nothing else may be used.
    #[error(
        "HF_HUB_OFFLINE is set, and {} has no {file} of {model}; run `heterotune fetch hf:{model}` without it first",
        cache.display()
    )]
    Offline {
        /// The cache.
        cache: PathBuf,
        /// The repository.
        model: Model,
        /// The first file that is missing.
        file: String,
    },
    /// No answer, or one that broke off, after several attempts.
    #[error("{url} can't be fetched ({problem}); check the network and run this again: what has come is kept")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What happened.
        problem: String,
    },
    /// An answer that the hub would not give.
    #[error("{url}: {problem}; is HF_ENDPOINT the Hugging Face hub or a mirror of it?")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// A file that is not what the hub says it is.
    #[error("{file} of {model} came damaged (its checksum is not {expected}) and has been deleted; fetch it again")]
    Checksum {
        /// The repository.
        model: Model,
        /// Which file.
        file: String,
        /// The hub's checksum.
        expected: String,
    },
    /// There is no room for a file.
    #[error("{}: the disk is full; make room, or set HF_HOME to a folder on another disk", path.display())]
    Full {
        /// Which file.
        path: PathBuf,
    },
    /// The cache can't be written or read.
    #[error("{}: {problem}; HF_HOME says where models are kept", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why not.
        problem: io::Error,
    },
}

impl HubError {
    /// For `map_err`: what the disk says of a file.
    fn disk(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |problem| match problem.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path: path.into() },
            _ => Self::Disk { path: path.into(), problem },
        }
    }

    /// Whether another attempt may end better.
    fn passes(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// The folder of a backbone: a path is taken as it is, and `hf:ORG/NAME[@REVISION]` is looked for in the cache first, then
/// fetched. What the cache holds is not looked up anew, so that a node started again has the weights that it had, with or
/// without a network; [`fetch`] takes what is newer.
///
/// # Errors
/// A model that is not there, not shown, not supported or not fetched whole.
pub fn folder(backbone: &str, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, HubError> {
    if !backbone.starts_with(Model::PREFIX) {
        return Ok(backbone.into());
    }
    cached_or_fetched(&Config::from_env()?, &backbone.parse()?, progress)
}

/// As [`folder`], but nothing is fetched: none where the cache does not hold all of it.
///
/// # Errors
/// A name or a setting that can't be one.
pub fn local(backbone: &str) -> Result<Option<PathBuf>, HubError> {
    if !backbone.starts_with(Model::PREFIX) {
        return Ok(Some(backbone.into()));
    }
    Ok(Cache::new(&Config::from_env()?, &backbone.parse()?).whole().ok())
}

fn cached_or_fetched(
    config: &Config,
    model: &Model,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, HubError> {
    match Cache::new(config, model).whole() {
        Ok(folder) => Ok(folder),
        Err(_) => fetch(config, model, progress),
    }
}

#[cfg(test)]
mod tests;
