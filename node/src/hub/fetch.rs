//! A model from the hub: which files, and in which order.

use super::{
    Config, HubError, Model, Progress,
    cache::{CONFIG, Cache, INDEX, INPUTS, WEIGHTS, shards},
    client::{Client, Description, Remote},
    download::download,
};
use crate::backbone::{self, BackboneError};
use std::path::PathBuf;

/// What a backbone has besides its configuration and its weights, if it has it.
const OPTIONAL: [&str; 7] = [
    "tokenizer.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "1_Pooling/config.json",
];

/// Brings what the cache lacks of a model, and says in which folder it is. A branch is looked up anew. The configuration
/// comes first, so that a model that is not supported costs no gigabytes; the weights come last.
///
/// # Errors
/// A model that is not there, not shown, not supported or not fetched whole. Offline: one that the cache lacks.
pub fn fetch(config: &Config, model: &Model, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, HubError> {
    let cache = Cache::new(config, model);
    if config.offline {
        let offline = |file| HubError::Offline { cache: config.cache.clone(), model: model.clone(), file };
        return cache.whole().map_err(offline);
    }
    let client = Client::new(config, model);
    let description = client.describe()?;
    let snapshot = cache.snapshot(&description.sha);
    let mut fetch = Fetch { client, cache, description, snapshot, progress };
    let configuration = fetch.need(CONFIG)?;
    fetch.transfer(configuration.as_slice())?;
    fetch.refuse_unsupported()?;
    let mut files = fetch.optional()?;
    files.extend(fetch.weights()?);
    fetch.transfer(&files)?;
    fetch.cache.name(&fetch.description.sha)?;
    Ok(fetch.snapshot)
}

/// What is being fetched.
struct Fetch<'a> {
    client: Client<'a>,
    cache: Cache,
    description: Description,
    snapshot: PathBuf,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

/// Where a file is.
enum Place {
    /// In the cache.
    Here,
    /// On the hub.
    There(Remote),
    /// It does not exist.
    Nowhere,
}

impl Fetch<'_> {
    fn place(&self, file: &str) -> Result<Place, HubError> {
        if self.snapshot.join(file).is_file() {
            return Ok(Place::Here);
        }
        if !self.description.may_have(file) {
            return Ok(Place::Nowhere);
        }
        Ok(self.client.file(&self.description.sha, file)?.map_or(Place::Nowhere, Place::There))
    }

    /// A file that must exist; none if it is here.
    fn need(&self, file: &str) -> Result<Option<Remote>, HubError> {
        match self.place(file)? {
            Place::Here => Ok(None),
            Place::There(remote) => Ok(Some(remote)),
            Place::Nowhere => Err(self.lacks(file)),
        }
    }

    fn lacks(&self, file: &str) -> HubError {
        HubError::Lacks { model: self.client.model.clone(), file: file.into() }
    }

    /// Tries to load the configuration: without weights it gets no further.
    fn refuse_unsupported(&self) -> Result<(), HubError> {
        if self.snapshot.join(WEIGHTS).exists() {
            return Ok(());
        }
        let Err(problem) = backbone::load(&self.snapshot, backbone::Options::default()) else { return Ok(()) };
        match &problem {
            BackboneError::File { path, .. } if *path == self.snapshot.join(CONFIG) => Err(self.unsupported(problem)),
            _ => Ok(()),
        }
    }

    fn unsupported(&self, problem: BackboneError) -> HubError {
        HubError::Unsupported { model: self.client.model.clone(), problem: problem.into() }
    }

    fn optional(&self) -> Result<Vec<Remote>, HubError> {
        let mut files = Vec::new();
        let mut takes_inputs = false;
        for file in OPTIONAL {
            let place = self.place(file)?;
            takes_inputs |= INPUTS.contains(&file) && !matches!(place, Place::Nowhere);
            if let Place::There(remote) = place {
                files.push(remote);
            }
        }
        if takes_inputs { Ok(files) } else { Err(self.lacks(&INPUTS.join(" and no "))) }
    }

    /// The weights that are not here: one file, or those that the index names.
    fn weights(&mut self) -> Result<Vec<Remote>, HubError> {
        match self.place(WEIGHTS)? {
            Place::Here => return Ok(Vec::new()),
            Place::There(remote) => return Ok(vec![remote]),
            Place::Nowhere => {}
        }
        let index = match self.place(INDEX)? {
            Place::Here => None,
            Place::There(remote) => Some(remote),
            Place::Nowhere => return Err(self.lacks(WEIGHTS)),
        };
        self.transfer(index.as_slice())?;
        let path = self.snapshot.join(INDEX);
        let shards = shards(&path).map_err(|problem| self.unsupported(BackboneError::File { path, problem }))?;
        shards.iter().filter_map(|shard| self.need(shard).transpose()).collect()
    }

    fn transfer(&mut self, files: &[Remote]) -> Result<(), HubError> {
        let total = files.iter().map(|remote| remote.size).sum();
        let mut before = 0;
        for remote in files {
            let mut tell = |bytes| {
                (self.progress)(Progress { file: &remote.file, size: remote.size, done: before + bytes, total })
            };
            download(&self.client, &self.cache, &self.description.sha, remote, &mut tell)?;
            before += remote.size;
        }
        Ok(())
    }
}
