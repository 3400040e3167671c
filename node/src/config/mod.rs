//! Files that people write: read, checked, and refused in one sentence that says what, where and how to mend it.

mod edit;
mod network;
mod node;
mod training;

pub use edit::set;
pub use node::{NodeConfig, TEMPLATE};
pub use training::Training;

use anyhow::{Context as _, Result, bail};
use heterotune_protocol::{charter::Charter, limits};
use serde::{Deserialize, de::DeserializeOwned};
use std::{fs, path::Path};

/// Reads a TOML file of at most `most` bytes.
///
/// # Errors
/// A file that is missing, too large or not TOML of this form, with line and column.
pub fn read_toml<T: DeserializeOwned>(path: &Path, most: usize) -> Result<T> {
    let size = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if size > most as u64 {
        bail!("{} has {size} bytes, more than the {most} that such a file may have", path.display());
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        anyhow::anyhow!("{}, line {line}, column {column}: {message}", path.display())
    })
}

/// Line and column, from 1, of a byte in a text.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// TOML is a little longer than CBOR: keys in hexadecimal, comments.
const TOML_BYTES_MAX: usize = 4 * limits::CHARTER_BYTES_MAX;

/// Reads and checks a charter.
///
/// # Errors
/// As [`read_toml`], or a setting out of range.
pub fn read_charter(path: &Path) -> Result<Charter> {
    /// What charters of all versions have.
    #[derive(Deserialize)]
    struct Version {
        protocol: Option<i64>,
    }
    let version = read_toml::<Version>(path, TOML_BYTES_MAX)?.protocol;
    if let Some(other) = version.filter(|version| *version != i64::from(limits::PROTOCOL_VERSION)) {
        bail!(
            "{} is a charter of version {other} of the protocol, and this program speaks version {}; take the \
             network's newer charter, or the program of its version",
            path.display(),
            limits::PROTOCOL_VERSION
        );
    }
    let charter: Charter = read_toml(path, TOML_BYTES_MAX)?;
    charter.check().with_context(|| format!("in {}", path.display()))?;
    Ok(charter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_line_and_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("charter.toml");
        let error = |text: &str| {
            fs::write(&path, text).unwrap();
            read_charter(&path).unwrap_err().to_string()
        };
        assert!(
            error("protocol = 1\nname = \n").contains("charter.toml, line 2, column 8"),
            "{}",
            error("protocol = 1\nname = \n")
        );
        assert!(error("protocol = 1\ncolour = 1\n").contains("version 1 of the protocol, and this program speaks"));
        assert!(error("colour = 1\n").contains("unknown field `colour`"));
        assert!(read_charter(&folder.path().join("none.toml")).unwrap_err().to_string().starts_with("cannot read"));
    }
}
