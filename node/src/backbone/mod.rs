//! Backbones: frozen pretrained models, read from a folder in the layout of the Hugging Face hub. A family is a file.

mod activation;
mod attention;
mod block;
mod classifier;
mod decoder;
mod encoder;
mod hidden;
pub(crate) mod made;
mod placement;
mod processor;
mod vision;
mod weights;

pub use decoder::{Decoder, Past};
pub(crate) use encoder::{Config as EncoderConfig, Encoder};
pub use hidden::Hidden;
pub use processor::{Pixels, Processor, Resample, Resize, processor};
pub use vision::{Config, Vit};
pub(crate) use weights::packing;
pub use weights::{Embedding, Weights};

use crate::{
    device::{DeviceChoice, DeviceError},
    ops::{LayerNorm, Linear},
};
use candle_core::{Device, Result as Computed, Tensor, bail};
use serde::Deserialize;
use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What a backbone takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Images.
    Pixels {
        /// Colours of a pixel.
        channels: usize,
        /// Height and width of an image, in pixels.
        size: usize,
    },
    /// Text.
    Tokens {
        /// How many tokens the embedding knows.
        vocabulary: usize,
        /// The most tokens of one input.
        context: usize,
    },
}

/// Inputs of a backbone, `n` at once.
#[derive(Clone, Debug)]
pub enum Batch {
    /// Raw values of images of the backbone's own size, `[n, channels x height x width]`, as the file has them.
    Pixels(Tensor),
    /// Token ids. Shorter inputs are padded at their end: what stands there changes nothing.
    Tokens {
        /// `[n, tokens]`, u32.
        ids: Tensor,
        /// How many tokens of each input are its own, from 1.
        lengths: Arc<[usize]>,
    },
}

/// What a backbone's own head, if its folder has one, says of a hidden state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// There is none.
    None,
    /// The next token's logits at every place, `[n, tokens, vocabulary]`.
    Vocabulary,
    /// Class logits `[n, classes]`, and what the classes are called.
    Classes(Vec<String>),
}

/// A vocabulary's head, and what it reads: the logits are W x, or softcap tanh(W x / softcap).
pub struct Reading {
    /// x `[n, tokens, d]`.
    pub values: Tensor,
    /// W `[vocabulary, d]`.
    pub weight: Tensor,
    /// See there.
    pub softcap: Option<f64>,
}

/// A frozen model as adapters see it: an embedding, a stack of blocks, a way to pool tokens, and the head that it was
/// trained with.
pub trait Backbone: Send + Sync {
    /// The family, as `config.json` calls it.
    fn model_type(&self) -> &str;

    /// Width d of the hidden state.
    fn width(&self) -> usize;

    /// How many blocks L there are.
    fn depth(&self) -> usize;

    /// What it takes.
    fn takes(&self) -> Takes;

    /// How many tokens the hidden state of one input has at most.
    fn tokens(&self) -> usize;

    /// Where it computes. Batches may come from main memory.
    fn device(&self) -> &Device;

    /// How many weights the embedding and the blocks have.
    fn parameters(&self) -> usize;

    /// The hidden state before the first block.
    ///
    /// # Errors
    /// Inputs of another kind or shape.
    fn embed(&self, batch: &Batch) -> Computed<Hidden>;

    /// Block `index` (from 0): the next hidden state `[n, tokens, d]`.
    ///
    /// # Errors
    /// A hidden state of another shape, or a block that does not exist.
    fn block(&self, index: usize, hidden: &Hidden) -> Computed<Tensor>;

    /// What stands for an input as a whole: `[n, tokens, d]` to `[n, d]`. What is padded does not count.
    ///
    /// # Errors
    /// A hidden state of another shape.
    fn pool(&self, hidden: &Hidden) -> Computed<Tensor>;

    /// Its own head.
    fn head(&self) -> Head {
        Head::None
    }

    /// The own head's logits as f32, from the hidden state after the last block.
    ///
    /// # Errors
    /// A hidden state of another shape, or a backbone without a head.
    fn logits(&self, _hidden: &Hidden) -> Computed<Tensor> {
        bail!("the backbone has no head")
    }

    /// What the logits of a [`Head::Vocabulary`] are made from, for those who do not want them all at once.
    ///
    /// # Errors
    /// A hidden state of another shape, or a backbone without such a head.
    fn reading(&self, _hidden: &Hidden) -> Computed<Reading> {
        bail!("the backbone has no head for tokens")
    }

    /// As [`Backbone::block`] for tokens that come after those whose keys and values `past` holds; afterwards it holds
    /// theirs too. Texts are continued by walking the blocks with one `past`, with whatever belongs between them.
    ///
    /// # Errors
    /// As [`Backbone::block`]; more tokens than the context; a backbone whose head is not [`Head::Vocabulary`].
    fn block_after(&self, _index: usize, _hidden: &Hidden, _past: &mut Past) -> Computed<Tensor> {
        bail!("the backbone does not continue texts")
    }

    /// The next token's logits `[vocabulary]` after some more tokens of a text, from the blocks alone. Whoever puts
    /// adapters between the blocks does the same by [`Backbone::block_after`].
    ///
    /// # Errors
    /// As [`Backbone::block_after`]; no tokens. `past` is of no use after an error.
    fn step(&self, ids: &[u32], past: &mut Past) -> Computed<Tensor> {
        let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let hidden = self.embed(&Batch::Tokens { lengths: [ids.dim(1)?].into(), ids })?;
        let hidden = (0..self.depth())
            .try_fold(hidden, |hidden, index| Computed::Ok(hidden.with(self.block_after(index, &hidden, past)?)))?;
        let last = hidden.values.narrow(1, hidden.values.dim(1)? - 1, 1)?;
        self.logits(&Hidden { values: last, lengths: None })?.flatten_all()
    }
}

/// How a backbone is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Only the first so many blocks; a head is left out then.
    pub layers: Option<usize>,
    /// How the frozen matrices of the blocks are kept in memory.
    pub precision: Precision,
    /// What computes.
    pub device: DeviceChoice,
}

impl Options {
    /// How many of `depth` blocks to take; `config` is named where there are fewer than asked for.
    fn depth(self, config: &Path, depth: usize) -> Result<usize, BackboneError> {
        match self.layers {
            None => Ok(depth),
            Some(layers) if (1..=depth).contains(&layers) => Ok(layers),
            Some(layers) => {
                let problem = format!("has {depth} layers, so layers must be from 1 to {depth}, not {layers}");
                Err(BackboneError::file(config, problem))
            }
        }
    }
}

/// How frozen matrices are kept in memory. On the CPU everything is computed in f32. A GPU takes f32 and bf16, and
/// computes hidden states in the same type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Four bytes a weight.
    #[default]
    F32,
    /// Two bytes.
    F16,
    /// Two bytes, with the range of f32.
    Bf16,
    /// About one byte, in blocks of 32 with a scale (GGUF's Q8_0).
    Q8,
    /// About half a byte, in blocks of 256 with scales (GGUF's Q4_K; Q4_0 where rows are no multiple of 256).
    Q4,
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "q8" => Ok(Self::Q8),
            "q4" => Ok(Self::Q4),
            _ => Err("must be f32, f16, bf16, q8 or q4".into()),
        }
    }
}

/// Where a model's weights come from: a file, or a generator of first values.
pub trait Source {
    /// What can go wrong.
    type Error: From<candle_core::Error>;

    /// The tensor of that name (without the family's prefix) and shape.
    ///
    /// # Errors
    /// A tensor that is missing or damaged.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, Self::Error>;

    /// The map `name`.weight `[outputs, inputs]` and, with `bias`, `name`.bias `[outputs]`, in whatever precision the
    /// source keeps matrices.
    ///
    /// # Errors
    /// As [`Source::tensor`].
    fn linear(&mut self, name: &str, outputs: usize, inputs: usize, bias: bool) -> Result<Linear, Self::Error> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = bias.then(|| self.tensor(&format!("{name}.bias"), &[outputs])).transpose()?;
        Ok(Linear::new(weight, bias)?)
    }

    /// The tensor of that name, `[vocabulary, d]`, of which single rows will be asked for.
    ///
    /// # Errors
    /// As [`Source::tensor`].
    fn embedding(&mut self, name: &str, (rows, width): (usize, usize)) -> Result<Embedding, Self::Error> {
        Ok(Embedding::Dense(self.tensor(name, &[rows, width])?))
    }

    /// Rows of the matrix `name`.weight of these dimensions (outputs, inputs), and with `bias` of `name`.bias, as a map:
    /// some families keep several maps as one.
    ///
    /// # Errors
    /// As [`Source::tensor`].
    fn linear_rows(
        &mut self,
        name: &str,
        dims: (usize, usize),
        rows: Range<usize>,
        bias: bool,
    ) -> Result<Linear, Self::Error> {
        let part = |tensor: Tensor| tensor.narrow(0, rows.start, rows.len());
        let weight = part(self.tensor(&format!("{name}.weight"), &[dims.0, dims.1])?)?;
        let bias = bias.then(|| self.tensor(&format!("{name}.bias"), &[dims.0])).transpose()?;
        Ok(Linear::new(weight, bias.map(part).transpose()?)?)
    }

    /// The normalisation `name`.weight, `name`.bias `[width]`.
    ///
    /// # Errors
    /// As [`Source::tensor`].
    fn layer_norm(&mut self, name: &str, width: usize, epsilon: f64) -> Result<LayerNorm, Self::Error> {
        let weight = self.tensor(&format!("{name}.weight"), &[width])?;
        let bias = self.tensor(&format!("{name}.bias"), &[width])?;
        Ok(LayerNorm::affine(weight, bias, epsilon)?)
    }
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
    /// The device can't be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A precision that no GPU computes with.
    #[error("precisions f16, q8 and q4 are for the CPU only; on a GPU take f32 or bf16")]
    Precision,
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
pub fn load(folder: &Path, options: Options) -> Result<Box<dyn Backbone>, BackboneError> {
    let family = family(folder)?;
    match family.as_str() {
        known if vision::MODEL_TYPES.contains(&known) => Ok(Box::new(Vit::load(folder, options)?)),
        known if encoder::MODEL_TYPES.contains(&known) => Ok(Box::new(encoder::Encoder::load(folder, options)?)),
        _ => Ok(Box::new(Decoder::load(folder, options)?)),
    }
}

/// Whether models of a family encode texts.
pub(crate) fn encodes_text(family: &str) -> bool {
    encoder::MODEL_TYPES.contains(&family)
}

/// Whether models of a family are decoders.
pub(crate) fn decodes(family: &str) -> bool {
    decoder::FAMILIES.contains(&family)
}

/// The family of the backbone in `folder`, as its `config.json` calls it. No weights are read.
///
/// # Errors
/// A family that is not known, or a configuration that is missing or damaged.
pub fn family(folder: &Path) -> Result<String, BackboneError> {
    /// The one field that every configuration has.
    #[derive(Deserialize)]
    struct Family {
        model_type: String,
    }
    let path = folder.join("config.json");
    let Family { model_type } = parse(&path, &read_text(&path)?)?;
    let known = [&vision::MODEL_TYPES[..], &encoder::MODEL_TYPES, &decoder::FAMILIES].concat();
    if known.contains(&model_type.as_str()) {
        return Ok(model_type);
    }
    let known = known.join(", ");
    Err(BackboneError::file(&path, format!("model_type is \"{model_type}\", but a backbone is one of: {known}")))
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
mod reference;
#[cfg(test)]
pub(crate) mod tests;
