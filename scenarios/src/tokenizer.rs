//! A backbone's tokenizer, as the program tells it: this crate reads none.

use crate::RunError;
use heterotune_crypto::Digest;
use heterotune_protocol::charter::Vocabulary;
use serde::Deserialize;
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// What `heterotune tokenizer DIR --json` prints, as far as it is looked at.
#[derive(Deserialize)]
struct Told {
    digest: Digest,
    tokens: u32,
}

/// The vocabulary of the backbone in `folder`, asked of the program at `binary`.
///
/// # Errors
/// A program that can't be started, or that can't tell.
pub(crate) fn vocabulary(binary: &Path, folder: &Path) -> Result<Vocabulary, RunError> {
    let output = Command::new(binary)
        .arg("tokenizer")
        .arg(folder)
        .arg("--json")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| RunError::Start { binary: binary.into(), source })?;
    let failed = |said: String| RunError::Tokenizer { path: folder.into(), said };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("the program said nothing");
        return Err(failed(said.to_owned()));
    }
    let told: Told = serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    Ok(Vocabulary { tokenizer: told.digest, tokens: told.tokens })
}
