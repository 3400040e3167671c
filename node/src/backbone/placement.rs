//! Where a backbone's tensors are, and of which type.

use super::{BackboneError, Options, Precision};
use candle_core::{DType, Device, Result as Computed, Tensor};

/// In main memory everything is computed in f32, and only matrices may be packed. On a GPU all of the frozen model is of
/// one type, and so are the hidden states.
#[derive(Clone, Debug)]
pub(super) struct Placement {
    device: Device,
    dtype: DType,
    /// How the matrices of linear maps are packed.
    pub(super) packing: Precision,
}

impl Default for Placement {
    fn default() -> Self {
        Self { device: Device::Cpu, dtype: DType::F32, packing: Precision::F32 }
    }
}

impl Placement {
    /// Whether that is main memory.
    pub(super) fn is_cpu(&self) -> bool {
        self.device.is_cpu()
    }

    /// A tensor there.
    pub(super) fn take(&self, tensor: &Tensor) -> Computed<Tensor> {
        tensor.to_dtype(self.dtype)?.to_device(&self.device)
    }
}

impl Options {
    /// Opens the device.
    pub(super) fn place(self) -> Result<Placement, BackboneError> {
        let device = self.device.open()?;
        match (device.is_cpu(), self.precision) {
            (true, packing) => Ok(Placement { packing, ..Placement::default() }),
            (false, Precision::F32) => Ok(Placement { device, ..Placement::default() }),
            (false, Precision::Bf16) => Ok(Placement { device, dtype: DType::BF16, ..Placement::default() }),
            (false, Precision::F16 | Precision::Q8 | Precision::Q4) => Err(BackboneError::Precision),
        }
    }
}
