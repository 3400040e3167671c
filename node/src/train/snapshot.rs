//! What a node knew after a round: the mixture, and what was private to it then. Kept in the state folder so that a
//! node's model can be used, measured and exported while it runs and after it.

use super::TrainError;
use crate::dema::{DemaError, Entry, encode};
use safetensors::{Dtype, SafeTensors};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder in the state folder.
const FOLDER: &str = "rounds";

/// Rounds that are kept, besides the one in use.
const KEPT: usize = 16;

/// How the mixture's groups are called in the file.
const MIXTURE: &str = "mixture.";

/// What a node knew after a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The round; 0 for genesis.
    pub round: u64,
    /// The mixture's groups.
    pub mixture: Vec<Vec<f32>>,
    /// What was private, as [`super::Learner::save`] gives it.
    pub private: Vec<u8>,
}

impl Snapshot {
    /// The bytes of the file: the mixture's groups and the private tensors side by side.
    ///
    /// # Errors
    /// Private bytes that are not a safetensors file.
    pub fn encode(&self) -> Result<Vec<u8>, TrainError> {
        let saved = |error: safetensors::SafeTensorError| DemaError::Saved(error.to_string());
        let private = SafeTensors::deserialize(&self.private).map_err(saved)?;
        let floats = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let mut entries: Vec<Entry> =
            private.iter().map(|(name, view)| (name.into(), view.shape().to_vec(), floats(view.data()))).collect();
        for (at, group) in self.mixture.iter().enumerate() {
            entries.push((format!("{MIXTURE}{at}"), vec![group.len()], group.clone()));
        }
        Ok(encode(entries)?)
    }

    /// A snapshot from its bytes. The private tensors are checked when they are taken into use.
    ///
    /// # Errors
    /// Bytes that are damaged.
    pub fn decode(round: u64, bytes: &[u8]) -> Result<Self, TrainError> {
        let saved = |problem: String| TrainError::Dema(DemaError::Saved(problem));
        let file = SafeTensors::deserialize(bytes).map_err(|error| saved(error.to_string()))?;
        let group = |at: usize| -> Option<Vec<f32>> {
            let view = file.tensor(&format!("{MIXTURE}{at}")).ok().filter(|view| view.dtype() == Dtype::F32)?;
            Some(view.data().as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
        };
        let mixture: Vec<Vec<f32>> = (0..).map_while(group).collect();
        if !mixture.iter().flatten().all(|value| value.is_finite()) {
            return Err(saved("the mixture holds a value that is not a finite number".into()));
        }
        Ok(Self { round, mixture, private: bytes.to_vec() })
    }

    /// The file of a round.
    pub fn path(state: &Path, round: u64) -> PathBuf {
        state.join(FOLDER).join(format!("{round:08}.safetensors"))
    }

    /// The rounds that are kept, in order.
    pub fn rounds(state: &Path) -> Vec<u64> {
        let entries = fs::read_dir(state.join(FOLDER)).into_iter().flatten().flatten();
        let number = |name: &str| name.strip_suffix(".safetensors").and_then(|number| number.parse().ok());
        let mut rounds: Vec<u64> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
        rounds.sort_unstable();
        rounds
    }

    /// Reads the snapshot of a round.
    ///
    /// # Errors
    /// One that is not kept, with those that are; or a damaged file.
    pub fn read(state: &Path, round: u64) -> Result<Self, TrainError> {
        let path = Self::path(state, round);
        let bytes = fs::read(&path).map_err(|error| {
            let kept: Vec<String> = Self::rounds(state).iter().map(u64::to_string).collect();
            let kept = if kept.is_empty() { "none are".into() } else { kept.join(", ") };
            TrainError::file(&path, format!("can't be read ({error}); of the rounds, these are kept: {kept}"))
        })?;
        Self::decode(round, &bytes).map_err(|error| TrainError::file(&path, format!("is damaged ({error})")))
    }

    /// Makes the folder, and gives the rounds that need not be kept any more once `round` is, while `used` is in use.
    ///
    /// # Errors
    /// A folder that can't be made.
    pub fn make_room(state: &Path, used: Option<u64>) -> std::io::Result<Vec<PathBuf>> {
        fs::create_dir_all(state.join(FOLDER))?;
        let rounds = Self::rounds(state);
        let old = rounds.iter().take(rounds.len().saturating_sub(KEPT - 1)).filter(|round| Some(**round) != used);
        Ok(old.map(|round| Self::path(state, *round)).collect())
    }
}
