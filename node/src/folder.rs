//! The small files of a state folder, which are read while a node runs and has its ledger locked.

use crate::store::write_atomically;
use anyhow::{Context as _, Result, bail};
use heterotune_crypto::Identity;
use heterotune_protocol::{
    admission::{Membership, Revocations},
    limits, wire,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fs, path::Path};

/// The file of a node's secret key.
pub const IDENTITY: &str = "identity.key";

/// The file of the charter that a state folder belongs to.
pub const CHARTER: &str = "charter.toml";

/// The file of the membership that a node was invited with: canonical CBOR of a
/// [`heterotune_protocol::admission::Membership`].
pub const MEMBERSHIP: &str = "membership.cbor";

/// The file of the revocations that a node knows, one list an admin: canonical CBOR of a list of
/// [`heterotune_protocol::admission::Revocations`].
pub const REVOCATIONS: &str = "revocations.cbor";

/// The identity in a key file. A node that runs has its folder locked, but not its key.
///
/// # Errors
/// A file that cannot be read, or is no key file.
pub fn read_identity(path: &Path) -> Result<Identity> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let digest: heterotune_crypto::Digest = text.trim().parse().ok().with_context(|| {
        format!("{} is not a key file (64 hexadecimal digits); restore it from a backup", path.display())
    })?;
    Ok(Identity::from_secret(*digest.as_bytes()))
}

/// The membership in a state folder, if the node has joined by one.
///
/// # Errors
/// A file that cannot be read, or holds something else.
pub fn read_membership(folder: &Path) -> Result<Option<Membership>> {
    read_cbor(&folder.join(MEMBERSHIP), MEMBERSHIP_FILE_BYTES_MAX)
}

/// The revocations in a state folder.
///
/// # Errors
/// A file that cannot be read, or holds something else.
pub fn read_revocations(folder: &Path) -> Result<Vec<Revocations>> {
    Ok(read_cbor(&folder.join(REVOCATIONS), REVOCATIONS_FILE_BYTES_MAX)?.unwrap_or_default())
}

/// Writes a membership or a list of revocations into its file.
///
/// # Errors
/// A value that is too large, or a file that cannot be written.
pub fn write_cbor<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes =
        wire::encode(value, REVOCATIONS_FILE_BYTES_MAX).with_context(|| format!("cannot write {}", path.display()))?;
    write_atomically(path, &bytes, false)
}

/// A key, a number, another key and a signature, with their names.
const MEMBERSHIP_FILE_BYTES_MAX: usize = 1_024;

/// Every admin's list, each with its key and signature.
const REVOCATIONS_FILE_BYTES_MAX: usize = limits::ADMINS_MAX * (limits::REVOCATIONS_BYTES_MAX + 512);

fn read_cbor<T: Serialize + DeserializeOwned>(path: &Path, most: usize) -> Result<Option<T>> {
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    if size > most as u64 {
        bail!("{} has {size} bytes, more than the {most} that it may have; remove it", path.display());
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value = wire::decode(&bytes, most).with_context(|| format!("{} is damaged; remove it", path.display()))?;
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_protocol::charter::NetworkId;

    #[test]
    fn an_invitation_is_read_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_membership(folder.path()).unwrap(), None);
        let (admin, network) = (Identity::from_seed(1, "admin"), NetworkId(heterotune_crypto::Digest::ZERO));
        let invitation = Membership::sign(&admin, &network, admin.id(), u64::MAX).unwrap();
        let path = folder.path().join("membership.cbor");
        fs::write(&path, wire::encode(&invitation, MEMBERSHIP_FILE_BYTES_MAX).unwrap()).unwrap();
        assert_eq!(read_membership(folder.path()).unwrap(), Some(invitation));
        for spoilt in [&b"nonsense"[..], &[0; 2 * MEMBERSHIP_FILE_BYTES_MAX]] {
            fs::write(&path, spoilt).unwrap();
            let told = read_membership(folder.path()).unwrap_err().to_string();
            assert!(told.contains("remove it"), "{told}");
        }
    }
}
