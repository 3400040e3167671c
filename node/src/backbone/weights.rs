//! Weights from safetensors files, mapped into memory and checked one by one.

use super::{BackboneError, Precision, Source, parse, placement::Placement, read_text};
use crate::ops::{Linear, Packed};
use candle_core::{DType, Device, Tensor, quantized::GgmlDType};
use memmap2::Mmap;
use safetensors::{
    Dtype, SafeTensors,
    tensor::{Metadata, TensorInfo},
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    ops::Range,
    path::{Component, Path, PathBuf},
};

/// One safetensors file, or several with an index.
pub struct Weights {
    /// The file, or the index of several.
    path: PathBuf,
    shards: Vec<Shard>,
    /// Which shard a tensor is in.
    places: HashMap<String, usize>,
    /// Where tensors are put.
    placement: Placement,
}

impl Weights {
    /// Opens the weights of a model's folder: `model.safetensors`, or the files that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// As [`Weights::open`]; an index that names a file outside the folder, or a tensor that its file does not hold.
    pub fn folder(folder: &Path) -> Result<Self, BackboneError> {
        let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
        if index.exists() && !single.exists() { Self::sharded(index, folder) } else { Self::open(&single) }
    }

    /// Opens one file.
    ///
    /// # Errors
    /// A file that is missing, cut off, or no safetensors file.
    pub fn open(path: &Path) -> Result<Self, BackboneError> {
        let shard = Shard::open(path)?;
        let places = shard.metadata.tensors().into_keys().map(|name| (name, 0)).collect();
        Ok(Self { path: path.into(), shards: vec![shard], places, placement: Placement::default() })
    }

    fn sharded(index: PathBuf, folder: &Path) -> Result<Self, BackboneError> {
        /// What the index says, as far as it matters here.
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Index { weight_map } = parse(&index, &read_text(&index)?)?;
        let mut weights =
            Self { path: index, shards: Vec::new(), places: HashMap::new(), placement: Placement::default() };
        let mut numbers = HashMap::new();
        for (tensor, file) in weight_map {
            if !matches!(Path::new(&file).components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
                let problem = format!("names the file \"{file}\", but all files must be in the same folder");
                return Err(BackboneError::file(&weights.path, problem));
            }
            let number = match numbers.get(&file) {
                Some(number) => *number,
                None => {
                    weights.shards.push(Shard::open(&folder.join(&file))?);
                    numbers.insert(file.clone(), weights.shards.len() - 1);
                    weights.shards.len() - 1
                }
            };
            if weights.shards.get(number).is_none_or(|shard| shard.metadata.info(&tensor).is_none()) {
                let problem = format!("says that {file} holds {tensor}, but it does not; download both files anew");
                return Err(BackboneError::file(&weights.path, problem));
            }
            weights.places.insert(tensor, number);
        }
        Ok(weights)
    }

    /// The same weights, whose tensors are put elsewhere.
    pub(super) fn placed(self, placement: Placement) -> Self {
        Self { placement, ..self }
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// A tensor, from f32, f16 or bf16, as f32 in main memory unless it is put elsewhere.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape than `shape` or another type, or holds a value that is not finite.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, BackboneError> {
        self.rows(name, shape, 0..shape.first().copied().unwrap_or(1))
    }

    /// Some rows (along the first dimension) of the tensor that [`Weights::tensor`] gives whole.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn rows(&self, name: &str, shape: &[usize], rows: Range<usize>) -> Result<Tensor, BackboneError> {
        let (shard, info) = self.find(name).ok_or_else(|| refuse(&self.path, name, "is missing"))?;
        let refuse = |problem: String| refuse(&shard.path, name, problem);
        if info.shape != shape {
            return Err(refuse(format!("has shape {:?}, but config.json asks for {shape:?}", info.shape)));
        }
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => return Err(refuse(format!("is of type {other:?}, but only F32, F16 and BF16 are read"))),
        };
        let mut part = shape.to_vec();
        part.first_mut().into_iter().for_each(|first| *first = rows.len());
        let row = part.iter().skip(1).product::<usize>() * dtype.size_in_bytes();
        let start = shard.start + info.data_offsets.0 + rows.start * row;
        let bytes = shard.bytes.get(start..start + rows.len() * row);
        let bytes = bytes.ok_or_else(|| refuse(format!("has no rows {rows:?}")))?;
        let tensor = Tensor::from_raw_buffer(bytes, dtype, &part, &Device::Cpu)?.to_dtype(DType::F32)?;
        if !tensor.flatten_all()?.to_vec1::<f32>()?.iter().all(|value| value.is_finite()) {
            return Err(refuse("holds a value that is not a finite number".into()));
        }
        Ok(self.placement.take(&tensor)?)
    }

    fn find(&self, name: &str) -> Option<(&Shard, &TensorInfo)> {
        let shard = self.shards.get(*self.places.get(name)?)?;
        Some((shard, shard.metadata.info(name)?))
    }
}

fn refuse(path: &Path, tensor: &str, problem: impl Into<String>) -> BackboneError {
    BackboneError::Tensor { path: path.into(), tensor: tensor.into(), problem: problem.into() }
}

/// One file.
struct Shard {
    path: PathBuf,
    bytes: Mmap,
    /// Where the tensors' bytes begin.
    start: usize,
    metadata: Metadata,
}

impl Shard {
    fn open(path: &Path) -> Result<Self, BackboneError> {
        let refuse = |error: std::io::Error| BackboneError::file(path, format!("can't be read ({error})"));
        let file = File::open(path).map_err(refuse)?;
        let bytes = map(&file).map_err(refuse)?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| {
            BackboneError::file(path, format!("is not a whole safetensors file ({error}); download it anew"))
        })?;
        // Before the header stands its length, in 8 bytes.
        Ok(Self { path: path.into(), start: 8 + header, bytes, metadata })
    }
}

/// SAFETY: the map is read only and private to this process. Who cuts the file off while its tensors are being read
/// ends the process (SIGBUS); that is the price of not copying weights that are larger than the memory.
#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<Mmap> {
    unsafe { Mmap::map(file) }
}

/// The weights of one model in the files: names have a prefix, and only so much is counted as is asked for.
pub(super) struct Model<'a> {
    weights: &'a Weights,
    prefix: &'a str,
    precision: Precision,
    /// How many weights were read.
    pub(super) parameters: usize,
}

impl<'a> Model<'a> {
    /// The tensors whose names start with `prefix`, none of them packed.
    pub(super) fn new(weights: &'a Weights, prefix: &'a str) -> Self {
        Self { weights, prefix, precision: Precision::F32, parameters: 0 }
    }

    /// The same, with the matrices of linear maps packed as the weights' placement has it.
    pub(super) fn packing(self) -> Self {
        Self { precision: self.weights.placement.packing, ..self }
    }

    /// Rows of the matrix `name`.weight as a map, and with `bias` those of `name`.bias.
    fn part(
        &mut self,
        name: &str,
        (outputs, inputs): (usize, usize),
        rows: Range<usize>,
        bias: bool,
    ) -> Result<Linear, BackboneError> {
        let [weight_name, bias_name] = ["weight", "bias"].map(|part| format!("{}{name}.{part}", self.prefix));
        self.parameters += rows.len() * (inputs + usize::from(bias));
        let bias = || bias.then(|| self.weights.rows(&bias_name, &[outputs], rows.clone())).transpose();
        match format(self.precision, inputs) {
            None => {
                let weight = self.weights.rows(&weight_name, &[outputs, inputs], rows.clone())?;
                Ok(Linear::new(weight, bias()?)?)
            }
            Some(format) => {
                let weight = self.packed(&weight_name, (outputs, inputs), &rows, format)?;
                Ok(Linear::packed(weight, bias()?)?)
            }
        }
    }

    /// Rows of a matrix `[outputs, inputs]`, packed.
    fn packed(
        &self,
        name: &str,
        (outputs, inputs): (usize, usize),
        part: &Range<usize>,
        format: GgmlDType,
    ) -> Result<Packed, BackboneError> {
        Packed::new((part.len(), inputs), format, |rows| {
            let rows = part.start + rows.start..part.start + rows.end;
            let values = self.weights.rows(name, &[outputs, inputs], rows)?;
            if format == GgmlDType::F16 && values.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? > F16_MAX {
                let problem = "holds a value too large for f16 (take another precision)";
                return Err(refuse(&self.weights.path, name, problem));
            }
            Ok(values)
        })
    }
}

/// The largest finite f16.
const F16_MAX: f32 = 65_504.0;

/// How a matrix with rows of so many values is packed; not at all for f32.
fn format(precision: Precision, inputs: usize) -> Option<GgmlDType> {
    match precision {
        Precision::F32 => None,
        Precision::Bf16 => Some(GgmlDType::BF16),
        Precision::Q8 if inputs.is_multiple_of(32) => Some(GgmlDType::Q8_0),
        Precision::Q4 if inputs.is_multiple_of(256) => Some(GgmlDType::Q4K),
        Precision::Q4 if inputs.is_multiple_of(32) => Some(GgmlDType::Q4_0),
        Precision::F16 | Precision::Q8 | Precision::Q4 => Some(GgmlDType::F16),
    }
}

impl Source for Model<'_> {
    type Error = BackboneError;

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, BackboneError> {
        self.parameters += shape.iter().product::<usize>();
        self.weights.tensor(&format!("{}{name}", self.prefix), shape)
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize, bias: bool) -> Result<Linear, BackboneError> {
        self.part(name, (outputs, inputs), 0..outputs, bias)
    }

    fn linear_rows(&mut self, name: &str, dims: (usize, usize), rows: Range<usize>) -> Result<Linear, BackboneError> {
        self.part(name, dims, rows, false)
    }
}

#[cfg(test)]
mod tests;
