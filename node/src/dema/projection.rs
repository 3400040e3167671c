//! A node's private projections, and the form in which they are saved.

use super::DemaError;
use crate::ops::Linear;
use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::BTreeMap;

/// The way into a space that all nodes have in common, and for slots the way back.
#[derive(Clone, Debug)]
pub struct Projection {
    /// The anchors' mean feature mu `[d]`.
    pub mean: Tensor,
    /// Down of a slot, or P of the readout: `[d, r]`.
    pub down: Tensor,
    /// Up `[r, d]`; none at the readout.
    pub up: Option<Tensor>,
}

impl Projection {
    /// The map from a normalised feature to its code, (x - mu) Down, frozen.
    ///
    /// # Errors
    /// Tensors that do not fit each other.
    pub fn encoder(&self) -> candle_core::Result<Linear> {
        let shift = self.mean.unsqueeze(0)?.matmul(&self.down)?.squeeze(0)?.neg()?;
        Linear::new(self.down.t()?.contiguous()?, Some(shift))
    }
}

/// All private projections of a node.
#[derive(Clone, Debug)]
pub struct Projections {
    /// One for each slot.
    pub slots: Vec<Projection>,
    /// The readout's.
    pub readout: Projection,
}

impl Projections {
    /// All tensors, to be replaced by the same ones elsewhere.
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        let all = self.slots.iter_mut().chain([&mut self.readout]);
        all.flat_map(|projection| [&mut projection.mean, &mut projection.down].into_iter().chain(&mut projection.up))
    }

    /// What is saved of them: names, shapes and values.
    ///
    /// # Errors
    /// None that are known.
    pub fn entries(&self) -> Result<Vec<Entry>, DemaError> {
        let mut entries = Vec::new();
        let mut put = |name: String, tensor: &Tensor| -> Result<(), DemaError> {
            entries.push((name, tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1()?));
            Ok(())
        };
        let named = self.slots.iter().enumerate().map(|(slot, projection)| (format!("slot.{slot}"), projection));
        for (name, projection) in named.chain([("readout".into(), &self.readout)]) {
            put(format!("{name}.mean"), &projection.mean)?;
            put(format!("{name}.down"), &projection.down)?;
            if let Some(up) = &projection.up {
                put(format!("{name}.up"), up)?;
            }
        }
        Ok(entries)
    }

    /// Projections from saved bytes, for a backbone of width `width` and a network of `slots` slots of width `rank`
    /// and a readout of width `readout_rank`.
    ///
    /// # Errors
    /// Bytes that are damaged, or of other shapes.
    pub fn decode(
        bytes: &[u8],
        width: usize,
        slots: usize,
        rank: usize,
        readout_rank: usize,
    ) -> Result<Self, DemaError> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| DemaError::Saved(error.to_string()))?;
        let get = |name: String, shape: &[usize]| -> Result<Tensor, DemaError> {
            let view = file.tensor(&name).map_err(|_| DemaError::Saved(format!("tensor {name} is missing")))?;
            if view.shape() != shape || view.dtype() != Dtype::F32 {
                let (found, dtype) = (view.shape(), view.dtype());
                return Err(DemaError::Saved(format!(
                    "tensor {name} is {dtype:?} {found:?}, but must be F32 {shape:?}"
                )));
            }
            let (chunks, _) = view.data().as_chunks::<4>();
            let values: Vec<f32> = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            if !values.iter().all(|value| value.is_finite()) {
                return Err(DemaError::Saved(format!("tensor {name} holds a value that is not a finite number")));
            }
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
        };
        let projection = |name: &str, rank: usize, up: bool| -> Result<Projection, DemaError> {
            Ok(Projection {
                mean: get(format!("{name}.mean"), &[width])?,
                down: get(format!("{name}.down"), &[width, rank])?,
                up: up.then(|| get(format!("{name}.up"), &[rank, width])).transpose()?,
            })
        };
        let slots = (0..slots).map(|slot| projection(&format!("slot.{slot}"), rank, true)).collect::<Result<_, _>>()?;
        Ok(Self { slots, readout: projection("readout", readout_rank, false)? })
    }
}

/// A saved tensor: its name, shape and values.
pub type Entry = (String, Vec<usize>, Vec<f32>);

/// The bytes of a safetensors file with these f32 tensors.
///
/// # Errors
/// A shape that does not fit its values.
pub fn encode(entries: Vec<Entry>) -> Result<Vec<u8>, DemaError> {
    let bytes = entries.into_iter().map(|(name, shape, values)| (name, shape, le_bytes(&values)));
    let bytes: Vec<_> = bytes.collect();
    let refuse = |error: safetensors::SafeTensorError| DemaError::Saved(error.to_string());
    let views = bytes.iter().map(|(name, shape, bytes)| {
        Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(refuse)?))
    });
    let views = views.collect::<Result<BTreeMap<_, _>, DemaError>>()?;
    safetensors::serialize(views, None).map_err(refuse)
}

/// Values as files hold them: little-endian.
pub(crate) fn le_bytes(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; 4 * values.len()];
    bytes.as_chunks_mut::<4>().0.iter_mut().zip(values).for_each(|(word, value)| *word = value.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], start: f32) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor::from_vec((0..count).map(|i| start + i as f32).collect(), shape, &Device::Cpu).unwrap()
    }

    fn example() -> Projections {
        let slot = Projection { mean: tensor(&[3], 0.5), down: tensor(&[3, 2], 1.0), up: Some(tensor(&[2, 3], 2.0)) };
        Projections {
            slots: vec![slot],
            readout: Projection { mean: tensor(&[3], 3.0), down: tensor(&[3, 4], 4.0), up: None },
        }
    }

    #[test]
    fn what_is_saved_comes_back() {
        let bytes = encode(example().entries().unwrap()).unwrap();
        let back = Projections::decode(&bytes, 3, 1, 2, 4).unwrap();
        assert_eq!(encode(back.entries().unwrap()).unwrap(), bytes);
    }

    #[test]
    fn damage_and_other_shapes_are_refused() {
        let bytes = encode(example().entries().unwrap()).unwrap();
        for (width, slots, rank, readout_rank) in [(4, 1, 2, 4), (3, 2, 2, 4), (3, 1, 3, 4), (3, 1, 2, 5)] {
            assert!(Projections::decode(&bytes, width, slots, rank, readout_rank).is_err());
        }
        assert!(Projections::decode(&bytes[..bytes.len() - 1], 3, 1, 2, 4).is_err());
        let mut broken = bytes.clone();
        let end = broken.len();
        broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(Projections::decode(&broken, 3, 1, 2, 4).is_err());
    }
}
