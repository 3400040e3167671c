//! Backbones: frozen pretrained models, read from a folder in the layout of the Hugging Face hub. A family is a file.

mod vit;
mod weights;

pub use vit::{Config, Pixels, Source, Vit};
pub use weights::Weights;

use candle_core::{Result as Computed, Tensor};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A frozen model as adapters see it: an embedding, a stack of blocks, and a way to pool tokens.
pub trait Backbone: Send {
    /// The family, as `config.json` calls it.
    fn model_type(&self) -> &'static str;

    /// Width d of the hidden state.
    fn width(&self) -> usize;

    /// How many blocks L there are.
    fn depth(&self) -> usize;

    /// How many tokens the hidden state of one input has.
    fn tokens(&self) -> usize;

    /// How many numbers one input has.
    fn inputs(&self) -> usize;

    /// How many weights the embedding and the blocks have.
    fn parameters(&self) -> usize;

    /// The hidden state `[n, tokens, d]` before the first block, from raw inputs `[n, inputs]`.
    ///
    /// # Errors
    /// Inputs of another shape.
    fn embed(&self, inputs: &Tensor) -> Computed<Tensor>;

    /// Block `index` (from 0), `[n, tokens, d]` to `[n, tokens, d]`.
    ///
    /// # Errors
    /// A hidden state of another shape, or a block that does not exist.
    fn block(&self, index: usize, hidden: &Tensor) -> Computed<Tensor>;

    /// What stands for an input as a whole: `[n, tokens, d]` to `[n, d]`.
    ///
    /// # Errors
    /// A hidden state of another shape.
    fn pool(&self, hidden: &Tensor) -> Computed<Tensor>;
}

/// Why a backbone can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackboneError {
    /// A file that is missing, not readable, or not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do about it.
        problem: String,
    },
    /// A tensor that is missing or not what the configuration says.
    #[error("{}: tensor {tensor} {problem}; download the file anew, or take the config.json that belongs to it", path.display())]
    Tensor {
        /// Which file.
        path: PathBuf,
        /// Which tensor in it.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// The tensor library refused to compute.
    #[error("the backbone could not be computed: {0}")]
    Compute(#[from] candle_core::Error),
}

impl BackboneError {
    fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.into(), problem: problem.into() }
    }
}

/// Reads the backbone in `folder` (`config.json`, `model.safetensors` and what the family needs besides).
///
/// # Errors
/// A family that is not known, a configuration that is not supported, files that are missing or damaged.
pub fn load(folder: &Path) -> Result<Box<dyn Backbone>, BackboneError> {
    /// The one field that every configuration has.
    #[derive(Deserialize)]
    struct Family {
        model_type: String,
    }
    let path = folder.join("config.json");
    let text = read_text(&path)?;
    let family: Family = parse(&path, &text)?;
    match family.model_type.as_str() {
        vit::MODEL_TYPE => Ok(Box::new(Vit::load(folder)?)),
        other => Err(BackboneError::file(
            &path,
            format!("model_type is \"{other}\", but only \"{}\" can be a backbone so far", vit::MODEL_TYPE),
        )),
    }
}

/// The largest configuration file: the label lists of the largest classifiers take about 1 MB.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

fn read_text(path: &Path) -> Result<String, BackboneError> {
    let refuse = |error: std::io::Error| {
        BackboneError::file(
            path,
            format!("can't be read ({error}); a backbone is a folder as the Hugging Face hub has it"),
        )
    };
    if fs::metadata(path).map_err(refuse)?.len() > CONFIG_BYTES_MAX {
        return Err(BackboneError::file(
            path,
            format!("is larger than {CONFIG_BYTES_MAX} bytes, so it is no configuration"),
        ));
    }
    fs::read_to_string(path).map_err(refuse)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, BackboneError> {
    serde_json::from_str(text).map_err(|error| BackboneError::file(path, format!("is not a configuration: {error}")))
}

#[cfg(test)]
pub(crate) mod tests;
