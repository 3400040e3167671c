//! Frozen matrices that stay in their file: the system keeps its pages once, for all processes that map it.

use candle_core::{Result, bail};
use memmap2::Mmap;
use std::{fmt, ops::Range, sync::Arc};

/// A matrix `[out, in]` of f32 in a mapped file.
#[derive(Clone)]
pub struct Mapped {
    file: Arc<Mmap>,
    bytes: Range<usize>,
    dims: (usize, usize),
}

impl Mapped {
    /// The matrix whose values begin at byte `start`.
    ///
    /// # Errors
    /// A matrix that is not within the file, or does not lie as values in memory must.
    pub fn new(file: Arc<Mmap>, start: usize, dims: (usize, usize)) -> Result<Self> {
        let size = dims.0.checked_mul(dims.1).and_then(|values| values.checked_mul(size_of::<f32>()));
        let Some(end) = size.and_then(|size| start.checked_add(size)) else {
            bail!("a matrix of {dims:?} is too large")
        };
        let mapped = Self { file, bytes: start..end, dims };
        match mapped.found() {
            Some(_) if cfg!(target_endian = "little") => Ok(mapped),
            _ => bail!("a matrix that can't be used where it lies in its file"),
        }
    }

    fn found(&self) -> Option<&[f32]> {
        bytemuck::try_cast_slice(self.file.get(self.bytes.clone())?).ok()
    }

    /// Row by row.
    pub(super) fn values(&self) -> &[f32] {
        self.found().unwrap_or_default()
    }

    /// Rows and columns.
    pub(super) fn dims(&self) -> (usize, usize) {
        self.dims
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Mapped({:?})", self.dims)
    }
}
