//! One step, looked into: for benchmarks, and for other programs that take the same step.

use super::{Learner, TrainError, optimiser::AdamW};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// A step's tensors.
pub(crate) struct Probe {
    /// The loss of all training samples together.
    pub(crate) loss: f32,
    /// What is trained: name, value, gradient.
    pub(crate) trained: Vec<(String, Tensor, Tensor)>,
    /// What is not, beside the backbone: gates and projections.
    pub(crate) constants: Vec<(String, Tensor)>,
}

impl Learner {
    /// Looks into a step over all training samples from this mixture.
    ///
    /// # Errors
    /// As [`Learner::train`].
    pub(crate) fn probe(&self, mixture: &[Vec<f32>]) -> Result<Probe, TrainError> {
        let mut trainee = self.trainee(&self.net.tensors(mixture)?)?;
        let parameters = std::mem::take(&mut trainee.parameters);
        let rows: Vec<u32> = (0..self.train.len() as u32).collect();
        let loss = self.pass(&trainee, &rows, &self.prior()?)?;
        let optimiser = AdamW { parameters, moments: BTreeMap::new(), decay: 0.0, clip: None };
        let gradients = optimiser.gradients(&loss, 0)?;
        let values = optimiser.parameters.iter().map(|parameter| parameter.variable.as_tensor().detach());
        let names = optimiser.parameters.iter().map(|parameter| parameter.name.clone());
        let trained = names.zip(values).zip(gradients).map(|((name, value), gradient)| (name, value, gradient));
        let gates = self.net.gates.iter().enumerate().map(|(slot, gate)| (format!("gate.{slot}"), gate.clone()));
        let projections = trainee.private.projections.entries()?.into_iter();
        let projections =
            projections.map(|(name, shape, values)| Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?)));
        let projections = projections.collect::<Result<Vec<_>, TrainError>>()?;
        Ok(Probe { loss: loss.to_scalar()?, trained: trained.collect(), constants: gates.chain(projections).collect() })
    }

    /// How many values are trained.
    pub(crate) fn trained_values(&self, mixture: &[Vec<f32>]) -> Result<usize, TrainError> {
        let trainee = self.trainee(&self.net.tensors(mixture)?)?;
        Ok(trainee.parameters.iter().map(|parameter| parameter.variable.elem_count()).sum())
    }

    /// Takes so many steps in a round from now on.
    pub(crate) fn set_steps(&mut self, steps: usize) {
        self.settings.steps = steps;
    }
}
