//! What the environment says about the hub, in the variables that all of its clients know.

use super::HubError;
use std::{env, ffi::OsString, fs, path::PathBuf, time::Duration};

/// Where models come from and where they are kept.
#[derive(Clone)]
pub struct Config {
    /// The cache: `HF_HUB_CACHE`, or `hub` in `HF_HOME`, which is `~/.cache/huggingface` if it is not set.
    pub cache: PathBuf,
    /// The hub's address, without a slash at its end: `HF_ENDPOINT`.
    pub endpoint: String,
    /// Who is asking: `HF_TOKEN`, or what the file `token` in `HF_HOME` (or `HF_TOKEN_PATH`) holds.
    pub token: Option<String>,
    /// Only the cache is used: `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// How long to wait before another attempt.
    pub pause: Duration,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// A variable that can't be used, or no home folder.
    pub fn from_env() -> Result<Self, HubError> {
        Self::read(|name| env::var_os(name).filter(|value| !value.is_empty()), env::home_dir())
    }

    pub(super) fn read(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Result<Self, HubError> {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|caches| caches.join("huggingface")))
            .or_else(|| home.map(|home| home.join(".cache/huggingface")))
            .ok_or(HubError::Setting { name: "HF_HOME", problem: "must be set, since there is no home folder" })?;
        Ok(Self {
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            endpoint: endpoint(text("HF_ENDPOINT", &variable)?)?,
            token: token(
                text("HF_TOKEN", &variable)?
                    .or_else(|| fs::read_to_string(path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"))).ok()),
            )?,
            offline: text("HF_HUB_OFFLINE", &variable)?
                .is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())),
            pause: Duration::from_secs(1),
        })
    }
}

fn text(name: &'static str, variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<String>, HubError> {
    let value = variable(name).map(OsString::into_string).transpose();
    value.map_err(|_| HubError::Setting { name, problem: "is no text" })
}

fn endpoint(value: Option<String>) -> Result<String, HubError> {
    let value = value.unwrap_or_else(|| "https://huggingface.co".into());
    if !value.starts_with("https://") && !value.starts_with("http://") {
        return Err(HubError::Setting { name: "HF_ENDPOINT", problem: "must begin with https:// or http://" });
    }
    Ok(value.trim_end_matches('/').into())
}

/// A token is sent in a header, where not every character may stand.
fn token(value: Option<String>) -> Result<Option<String>, HubError> {
    let value = value.map(|value| value.trim().to_string()).filter(|value| !value.is_empty());
    match &value {
        Some(value) if !value.chars().all(|c| c.is_ascii_graphic()) => Err(HubError::Setting {
            name: "HF_TOKEN",
            problem: "(or the token file) holds no token: it must be one word, such as hf_abc",
        }),
        _ => Ok(value),
    }
}
