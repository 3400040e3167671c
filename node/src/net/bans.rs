//! The peers that this node has nothing more to do with: `bans.json` in the state folder, for people to read and edit.

use anyhow::{Context as _, Result, bail};
use heterotune_crypto::{Digest, NodeId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};

/// Bans at most: one of every member of the largest network.
const BANS_MAX: usize = heterotune_protocol::limits::MEMBERS_MAX;

/// The largest file: 512 bytes a ban.
const FILE_BYTES_MAX: u64 = 512 * BANS_MAX as u64;

/// A peer that is not let in, whatever it shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// Who.
    pub peer: NodeId,
    /// Why, in words.
    pub reason: String,
    /// The ids of the two messages that prove it, if two do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<[Digest; 2]>,
    /// Since when, in seconds since 1970 (UTC).
    pub since: u64,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bans(BTreeMap<NodeId, Ban>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    bans: Vec<Ban>,
}

impl Bans {
    /// Adds a ban. Whether its peer had none; the first counts.
    pub fn insert(&mut self, ban: Ban) -> bool {
        if self.0.len() >= BANS_MAX || self.0.contains_key(&ban.peer) {
            return false;
        }
        self.0.insert(ban.peer, ban).is_none()
    }

    /// Lifts a ban. Whether there was one.
    pub fn remove(&mut self, peer: &NodeId) -> bool {
        self.0.remove(peer).is_some()
    }

    /// All bans, by peer.
    pub fn iter(&self) -> impl Iterator<Item = &Ban> {
        self.0.values()
    }

    /// A peer's ban.
    pub fn get(&self, peer: &NodeId) -> Option<&Ban> {
        self.0.get(peer)
    }

    /// Reads the file; without one there are no bans.
    ///
    /// # Errors
    /// A file that cannot be read, is too large, or is not one of bans: whom a person has banned must not come in by a
    /// misplaced comma.
    pub fn load(path: &Path) -> Result<Self> {
        let size = match fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            metadata => metadata.with_context(|| format!("cannot read {}", path.display()))?.len(),
        };
        if size > FILE_BYTES_MAX {
            bail!("{} has {size} bytes, more than the {FILE_BYTES_MAX} that it may have; shorten it", path.display());
        }
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: File = serde_json::from_slice(&text).with_context(|| {
            format!("{} is not a list of bans; mend or delete it (without it nobody is banned)", path.display())
        })?;
        let mut bans = Self::default();
        for ban in file.bans {
            bans.insert(ban);
        }
        Ok(bans)
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(&File { bans: self.0.values().cloned().collect() })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_crypto::Identity;

    #[test]
    fn bans_are_kept_and_a_broken_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bans.json");
        assert_eq!(Bans::load(&path).unwrap(), Bans::default());
        let peer = Identity::from_seed(1, "liar").id();
        let ban = Ban { peer, reason: "it lies".into(), proof: Some([Digest::ZERO; 2]), since: 7 };
        let mut bans = Bans::default();
        assert!(bans.insert(ban.clone()));
        assert!(!bans.insert(Ban { reason: "again".into(), ..ban.clone() }));
        assert_eq!(bans.iter().collect::<Vec<_>>(), [&ban]);
        assert!(bans.remove(&peer) && !bans.remove(&peer) && bans.insert(ban.clone()));
        fs::write(&path, bans.to_json().unwrap()).unwrap();
        assert_eq!(Bans::load(&path).unwrap().get(&peer), Some(&ban));
        fs::write(&path, "{\"bans\": [,]}").unwrap();
        let told = Bans::load(&path).unwrap_err().to_string();
        assert!(told.contains("bans.json is not a list of bans"), "{told}");
    }
}
