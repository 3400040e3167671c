//! What is private to a node and changes while it learns: its projections, a readout of its own where it shares none,
//! and, where projections are trained, the optimiser's moments. And the form in which all that is saved.

use super::{TrainError, optimiser::Moments};
use crate::dema::{self, DemaError, Projections};
use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;

/// How the optimiser's state is called in the file.
const STEPS: &str = "moments.steps.";
/// See [`STEPS`].
const FIRST: &str = "moments.first.";
/// See [`STEPS`].
const SECOND: &str = "moments.second.";

/// A node's private state.
#[derive(Clone, Debug)]
pub(super) struct Private {
    pub(super) projections: Projections,
    /// Weight `[r_h, C]` and bias `[C]` of the vocabulary's readout, where the network has none for it.
    pub(super) readout: Option<[Tensor; 2]>,
    /// Empty where every round begins afresh.
    pub(super) moments: BTreeMap<String, Moments>,
}

/// The shapes of a node's private state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) width: usize,
    pub(super) slots: usize,
    pub(super) rank: usize,
    pub(super) readout_rank: usize,
    /// Columns of the private readout, where there is one.
    pub(super) columns: Option<usize>,
}

impl Private {
    /// The state before any training.
    pub(super) fn new(projections: Projections, shape: Shape) -> Result<Self, TrainError> {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu);
        let readout = shape.columns.map(|columns| -> candle_core::Result<_> {
            Ok([zeros(&[shape.readout_rank, columns])?, zeros(&[columns])?])
        });
        Ok(Self { projections, readout: readout.transpose()?, moments: BTreeMap::new() })
    }

    /// The same state on another device. Moments stay in main memory, where the optimiser steps.
    pub(super) fn on(mut self, device: &Device) -> candle_core::Result<Self> {
        let all = self.projections.tensors_mut().chain(self.readout.iter_mut().flatten());
        for tensor in all {
            *tensor = tensor.to_device(device)?;
        }
        Ok(self)
    }

    /// The same state, no more in training.
    pub(super) fn frozen(mut self, moments: BTreeMap<String, Moments>) -> Self {
        let freeze = |tensor: &mut Tensor| *tensor = tensor.detach();
        for projection in self.projections.slots.iter_mut().chain([&mut self.projections.readout]) {
            freeze(&mut projection.down);
            projection.up.iter_mut().for_each(freeze);
        }
        self.readout.iter_mut().flatten().for_each(freeze);
        Self { moments, ..self }
    }

    /// The bytes of a safetensors file.
    pub(super) fn encode(&self) -> Result<Vec<u8>, TrainError> {
        let mut entries = self.projections.entries()?;
        for (name, tensor) in ["own.weight", "own.bias"].into_iter().zip(self.readout.iter().flatten()) {
            entries.push((name.into(), tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1()?));
        }
        for (name, moments) in &self.moments {
            entries.push((format!("{STEPS}{name}"), vec![1], vec![moments.steps as f32]));
            entries.push((format!("{FIRST}{name}"), vec![moments.first.len()], moments.first.clone()));
            entries.push((format!("{SECOND}{name}"), vec![moments.second.len()], moments.second.clone()));
        }
        Ok(dema::encode(entries)?)
    }

    /// The state from saved bytes; tensors that are none of its own are not looked at.
    ///
    /// # Errors
    /// Bytes that are damaged, or of other shapes.
    pub(super) fn decode(bytes: &[u8], shape: Shape) -> Result<Self, TrainError> {
        let Shape { width, slots, rank, readout_rank, columns } = shape;
        let projections = Projections::decode(bytes, width, slots, rank, readout_rank)?;
        let saved = |problem: String| TrainError::Dema(DemaError::Saved(problem));
        let file = SafeTensors::deserialize(bytes).map_err(|error| saved(error.to_string()))?;
        let values = |name: &str| -> Result<Vec<f32>, TrainError> {
            let view = file.tensor(name).map_err(|_| saved(format!("tensor {name} is missing")))?;
            if view.dtype() != Dtype::F32 {
                return Err(saved(format!("tensor {name} is {:?}, but must be F32", view.dtype())));
            }
            Ok(view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        };
        let readout = columns.map(|columns| -> Result<_, TrainError> {
            let tensor = |name: &str, shape: &[usize]| -> Result<Tensor, TrainError> {
                let values = values(name)?;
                match values.len() == shape.iter().product::<usize>() && values.iter().all(|value| value.is_finite()) {
                    true => Ok(Tensor::from_vec(values, shape, &Device::Cpu)?),
                    false => Err(saved(format!("tensor {name} does not have {shape:?} finite values"))),
                }
            };
            Ok([tensor("own.weight", &[readout_rank, columns])?, tensor("own.bias", &[columns])?])
        });
        let mut moments = BTreeMap::new();
        for name in file.names().into_iter().filter_map(|name| name.strip_prefix(STEPS)) {
            let steps = values(&format!("{STEPS}{name}"))?.first().map_or(0, |steps| *steps as u32);
            let (first, second) = (values(&format!("{FIRST}{name}"))?, values(&format!("{SECOND}{name}"))?);
            if first.len() != second.len() || !first.iter().chain(&second).all(|value| value.is_finite()) {
                return Err(saved(format!("the moments of {name} do not fit each other")));
            }
            moments.insert(name.to_string(), Moments { steps, first, second });
        }
        Ok(Self { projections, readout: readout.transpose()?, moments })
    }
}
