//! Weights from a safetensors file, checked one by one.

use super::{BackboneError, Source};
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The largest weights file: 2 G weights of 4 bytes, far beyond what trains on a CPU.
const WEIGHTS_BYTES_MAX: u64 = 8 << 30;

/// The bytes of a safetensors file.
pub struct Weights {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Weights {
    /// Reads a whole file.
    ///
    /// # Errors
    /// A file that is missing, too large, cut off, or no safetensors file.
    pub fn open(path: &Path) -> Result<Self, BackboneError> {
        let refuse = |error: std::io::Error| BackboneError::file(path, format!("can't be read ({error})"));
        if fs::metadata(path).map_err(refuse)?.len() > WEIGHTS_BYTES_MAX {
            return Err(BackboneError::file(path, "is larger than 8 GiB; take a smaller backbone"));
        }
        let weights = Self { path: path.into(), bytes: fs::read(path).map_err(refuse)? };
        weights.view()?;
        Ok(weights)
    }

    fn view(&self) -> Result<SafeTensors<'_>, BackboneError> {
        SafeTensors::deserialize(&self.bytes).map_err(|error| {
            BackboneError::file(&self.path, format!("is not a whole safetensors file ({error}); download it anew"))
        })
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.view().is_ok_and(|view| view.tensor(name).is_ok())
    }

    /// A tensor as f32, from f32, f16 or bf16.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape than `shape` or another type, or holds a value that is not finite.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, BackboneError> {
        let refuse = |problem: String| BackboneError::Tensor { path: self.path.clone(), tensor: name.into(), problem };
        let view = self.view()?;
        let tensor = view.tensor(name).map_err(|_| refuse("is missing".into()))?;
        if tensor.shape() != shape {
            return Err(refuse(format!("has shape {:?}, but config.json asks for {shape:?}", tensor.shape())));
        }
        let dtype = match tensor.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => return Err(refuse(format!("is of type {other:?}, but only F32, F16 and BF16 are read"))),
        };
        let tensor = Tensor::from_raw_buffer(tensor.data(), dtype, shape, &Device::Cpu)?.to_dtype(DType::F32)?;
        if !tensor.flatten_all()?.to_vec1::<f32>()?.iter().all(|value| value.is_finite()) {
            return Err(refuse("holds a value that is not a finite number".into()));
        }
        Ok(tensor)
    }
}

/// The weights of one model in the file: names have a prefix, and only so much is counted as is asked for.
pub(super) struct Model<'a> {
    weights: &'a Weights,
    prefix: &'a str,
    /// How many weights were read.
    pub(super) parameters: usize,
}

impl<'a> Model<'a> {
    /// The tensors whose names start with `prefix`.
    pub(super) fn new(weights: &'a Weights, prefix: &'a str) -> Self {
        Self { weights, prefix, parameters: 0 }
    }
}

impl Source for Model<'_> {
    type Error = BackboneError;

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, BackboneError> {
        self.parameters += shape.iter().product::<usize>();
        self.weights.tensor(&format!("{}{name}", self.prefix), shape)
    }
}
