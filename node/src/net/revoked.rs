//! What admins have taken back: the newest revocations of each, kept in `revocations.cbor` in the state folder.

use anyhow::{Context as _, Result};
use heterotune_crypto::NodeId;
use heterotune_protocol::{admission::Revocations, limits, message::Context, wire};
use std::{collections::BTreeMap, fs, path::Path};

/// The largest file: the largest revocations of every admin there can be.
const FILE_BYTES_MAX: usize = limits::ADMINS_MAX * (limits::REVOCATIONS_BYTES_MAX + 256);

/// The newest revocations of each admin, all of them verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked(BTreeMap<NodeId, Revocations>);

impl Revoked {
    /// Takes in revocations that are verified. Whether they are newer than what was known of their admin.
    pub fn insert(&mut self, revocations: Revocations) -> bool {
        if self.of(&revocations.admin).is_some_and(|held| held.number >= revocations.number) {
            return false;
        }
        self.0.insert(revocations.admin, revocations);
        true
    }

    /// The newest of an admin.
    pub fn of(&self, admin: &NodeId) -> Option<&Revocations> {
        self.0.get(admin)
    }

    /// The admin by whom `node` is revoked.
    pub fn by(&self, node: &NodeId) -> Option<NodeId> {
        self.0.values().find(|list| list.members.contains(node)).map(|list| list.admin)
    }

    /// The newest of every admin.
    pub fn iter(&self) -> impl Iterator<Item = &Revocations> {
        self.0.values()
    }

    /// The number of the newest, by admin.
    pub fn numbers(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.0.values().map(|list| (list.admin, list.number))
    }

    /// Reads the file; without one nobody is revoked yet.
    ///
    /// # Errors
    /// A file that cannot be read, is not one of revocations, or holds some that no admin of the network has signed.
    pub fn load(path: &Path, context: &Context) -> Result<Self> {
        let bytes = match fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            // What is longer is refused before it is read.
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX as u64 => Err(std::io::ErrorKind::FileTooLarge.into()),
            metadata => metadata.and_then(|_| fs::read(path)),
        };
        let bytes = bytes.with_context(|| format!("cannot read {}", path.display()))?;
        let spoilt = || format!("{} is damaged; delete it, the network tells it again", path.display());
        let mut revoked = Self::default();
        for list in wire::decode::<Vec<Revocations>>(&bytes, FILE_BYTES_MAX).with_context(spoilt)? {
            list.verify(&context.network, context.charter.admission.admins()).with_context(spoilt)?;
            revoked.insert(list);
        }
        Ok(revoked)
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_cbor(&self) -> Result<Vec<u8>> {
        Ok(wire::encode(&self.0.values().collect::<Vec<_>>(), FILE_BYTES_MAX)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn the_newest_are_kept_and_a_forged_file_is_refused() {
        let context = context_of(&["founder"], invited_by(&["admin"]));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.cbor");
        assert_eq!(Revoked::load(&path, &context).unwrap(), Revoked::default());
        let member = identity("member").id();
        let list = |number| Revocations::sign(&identity("admin"), &context.network, number, [member].into()).unwrap();
        let mut revoked = Revoked::default();
        assert!(revoked.insert(list(2)) && !revoked.insert(list(1)) && revoked.insert(list(3)));
        fs::write(&path, revoked.to_cbor().unwrap()).unwrap();
        let read = Revoked::load(&path, &context).unwrap();
        assert_eq!((read.by(&member), &read), (Some(identity("admin").id()), &revoked));
        let elsewhere = context_of(&["other"], invited_by(&["admin"]));
        assert!(Revoked::load(&path, &elsewhere).unwrap_err().to_string().contains("is damaged; delete it"));
    }
}
