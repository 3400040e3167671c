//! Weights from safetensors files, read and checked one by one.

use super::{BackboneError, Precision, Source, parse, placement::Placement, read_text};
use crate::ops::{Linear, Mapped, Packed};
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
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Component, Path, PathBuf},
    sync::Arc,
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
        let (matrix, part, rows) = self.locate(name, shape, rows)?;
        let mut values = Vec::with_capacity(part.iter().product());
        self.each(name, &matrix, rows, |some| values.extend_from_slice(some))?;
        Ok(self.placement.take(&Tensor::from_vec(values, part, &Device::Cpu)?)?)
    }

    /// The rows of a matrix `[rows, d]`. On the CPU they stay on the disk until they are asked for; all are read once, and
    /// checked.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn embedding(&self, name: &str, (rows, width): (usize, usize)) -> Result<Embedding, BackboneError> {
        if !self.placement.is_cpu() {
            return Ok(Embedding::Dense(self.tensor(name, &[rows, width])?));
        }
        let (matrix, _, all) = self.locate(name, &[rows, width], 0..rows)?;
        self.each(name, &matrix, all, |_| ())?;
        Ok(Embedding::OnDisk(matrix))
    }

    /// Some rows of a matrix where they are: all are read once, and checked. None where they are not f32 in main memory.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    fn mapped(
        &self,
        name: &str,
        (outputs, inputs): (usize, usize),
        rows: Range<usize>,
    ) -> Result<Option<Mapped>, BackboneError> {
        let (matrix, _, rows) = self.locate(name, &[outputs, inputs], rows)?;
        let Some((shard, _)) = self.find(name).filter(|_| matrix.dtype == DType::F32 && self.placement.is_cpu()) else {
            return Ok(None);
        };
        self.each(name, &matrix, rows.clone(), |_| ())?;
        let start = matrix.start + rows.start * inputs * size_of::<f32>();
        Ok(Mapped::new(shard.map.clone(), start, (rows.len(), inputs)).ok())
    }

    /// Calls `each` with some values after others of some rows.
    fn each(
        &self,
        name: &str,
        matrix: &OnDisk,
        rows: Range<usize>,
        mut each: impl FnMut(&[f32]),
    ) -> Result<(), BackboneError> {
        let path = || self.find(name).map_or(&self.path, |(shard, _)| &shard.path);
        let (mut at, end) = (rows.start * matrix.row, rows.end * matrix.row);
        while at < end {
            let count = PIECE.min(end - at);
            let some =
                matrix.values(at, count).map_err(|error| refuse(path(), name, format!("can't be read ({error})")))?;
            if !some.iter().all(|value| value.is_finite()) {
                return Err(refuse(path(), name, "holds a value that is not a finite number"));
            }
            each(&some);
            at += count;
        }
        Ok(())
    }

    /// Where some rows of a tensor are, and their shape.
    fn locate(
        &self,
        name: &str,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<(OnDisk, Vec<usize>, Range<usize>), BackboneError> {
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
        if rows.start > rows.end || rows.end > shape.first().copied().unwrap_or(1) {
            return Err(refuse(format!("has no rows {rows:?}")));
        }
        let mut part = shape.to_vec();
        part.first_mut().into_iter().for_each(|first| *first = rows.len());
        let row = part.iter().skip(1).product::<usize>();
        let matrix = OnDisk { file: shard.file.clone(), start: shard.start + info.data_offsets.0, dtype, row };
        Ok((matrix, part, rows))
    }

    fn find(&self, name: &str) -> Option<(&Shard, &TensorInfo)> {
        let shard = self.shards.get(*self.places.get(name)?)?;
        Some((shard, shard.metadata.info(name)?))
    }
}

fn refuse(path: &Path, tensor: &str, problem: impl Into<String>) -> BackboneError {
    BackboneError::Tensor { path: path.into(), tensor: tensor.into(), problem: problem.into() }
}

/// Values that are read at once.
const PIECE: usize = 1 << 18;

/// A matrix in a file.
#[derive(Clone, Debug)]
pub struct OnDisk {
    file: Arc<File>,
    /// The first value's place, in bytes.
    start: usize,
    dtype: DType,
    /// Values of a row.
    row: usize,
}

impl OnDisk {
    /// Some values, from the one with this number on.
    fn values(&self, first: usize, count: usize) -> io::Result<Vec<f32>> {
        let size = self.dtype.size_in_bytes();
        let mut bytes = vec![0; count * size];
        self.file.read_exact_at(&mut bytes, (self.start + first * size) as u64)?;
        let values = Tensor::from_raw_buffer(&bytes, self.dtype, &[count], &Device::Cpu);
        values.and_then(|values| values.to_dtype(DType::F32)?.to_vec1()).map_err(io::Error::other)
    }
}

/// What stands for each token, `[vocabulary, d]`.
pub enum Embedding {
    /// All of it, in memory.
    Dense(Tensor),
    /// In the model's file: a text asks for few rows of many, and the system keeps those in its cache, for all nodes of a
    /// host together.
    OnDisk(OnDisk),
}

impl Embedding {
    /// The rows of some tokens, `[ids, d]`.
    ///
    /// # Errors
    /// A file that can't be read any more.
    pub fn rows(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(tensor) => tensor.index_select(&ids.to_device(tensor.device())?, 0),
            Self::OnDisk(matrix) => {
                let ids = ids.to_vec1::<u32>()?;
                let mut values = Vec::with_capacity(ids.len() * matrix.row);
                for id in &ids {
                    values.extend(matrix.values(*id as usize * matrix.row, matrix.row)?);
                }
                Tensor::from_vec(values, (ids.len(), matrix.row), &Device::Cpu)
            }
        }
    }
}

/// One file.
struct Shard {
    path: PathBuf,
    file: Arc<File>,
    map: Arc<Mmap>,
    /// Where the tensors' bytes begin.
    start: usize,
    metadata: Metadata,
}

impl Shard {
    fn open(path: &Path) -> Result<Self, BackboneError> {
        let refuse = |error: std::io::Error| BackboneError::file(path, format!("can't be read ({error})"));
        let file = File::open(path).map_err(refuse)?;
        let map = map(&file).map_err(refuse)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| {
            BackboneError::file(path, format!("is not a whole safetensors file ({error}); download it anew"))
        })?;
        // Before the header stands its length, in 8 bytes.
        Ok(Self { path: path.into(), file: file.into(), map: map.into(), start: 8 + header, metadata })
    }
}

/// SAFETY: the map is read only, and what is read of it is checked against the file's length. Who changes a model's file
/// while it is in use changes the model, and who cuts it off ends the process (SIGBUS), as with all programs that map
/// weights; downloads put a new file in place of the old one, which changes nothing.
#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Mmap> {
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
        match packing(self.precision, inputs) {
            None => match self.weights.mapped(&weight_name, (outputs, inputs), rows.clone())? {
                Some(weight) => Ok(Linear::mapped(weight, bias()?)?),
                None => {
                    let weight = self.weights.rows(&weight_name, &[outputs, inputs], rows.clone())?;
                    Ok(Linear::new(weight, bias()?)?)
                }
            },
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
pub(crate) fn packing(precision: Precision, inputs: usize) -> Option<GgmlDType> {
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

    fn embedding(&mut self, name: &str, dims: (usize, usize)) -> Result<Embedding, BackboneError> {
        self.parameters += dims.0 * dims.1;
        self.weights.embedding(&format!("{}{name}", self.prefix), dims)
    }

    fn linear_rows(
        &mut self,
        name: &str,
        dims: (usize, usize),
        rows: Range<usize>,
        bias: bool,
    ) -> Result<Linear, BackboneError> {
        self.part(name, dims, rows, bias)
    }
}

#[cfg(test)]
mod tests;
