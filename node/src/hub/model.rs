//! Names of models on the hub.

use super::HubError;
use hf_hub::{Repo, RepoType};
use std::{fmt, str::FromStr};

/// A model on the hub, written `hf:ORG/NAME` or `hf:ORG/NAME@REVISION` (a branch, tag or commit; `main` if none is given).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    name: String,
    revision: String,
}

impl Model {
    /// What tells a model on the hub from a path.
    pub const PREFIX: &'static str = "hf:";

    const MAIN: &'static str = "main";

    /// `ORG/NAME`; models of the hub's first days have no `ORG/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    pub(super) fn repo(&self) -> Repo {
        Repo::with_revision(self.name.clone(), RepoType::Model, self.revision.clone())
    }
}

/// Whether a text can be a part of a URL and the name of a file, and nothing else.
pub(super) fn plain(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    (1..=128).contains(&text.len()) && text.chars().all(letter) && !text.starts_with(['.', '-'])
}

/// Whether it is a commit's hash.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}

impl FromStr for Model {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let refuse = || HubError::Name(text.into());
        let rest = text.strip_prefix(Self::PREFIX).ok_or_else(refuse)?;
        let (name, revision) = rest.split_once('@').unwrap_or((rest, Self::MAIN));
        // The cache writes a slash as two dashes, so a name can't have them.
        let named = name.split('/').count() <= 2 && name.split('/').all(plain) && !name.contains("--");
        if !named || !revision.split('/').all(plain) {
            return Err(refuse());
        }
        Ok(Self { name: name.into(), revision: revision.into() })
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.revision == Self::MAIN { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}
