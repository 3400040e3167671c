//! A round of local training on the shared mixture, and how good a mixture is.

use super::{
    Accuracy, Learner, TrainError, Trained,
    learner::Private,
    score::{log_prior, losses, score},
    trunk::Samples,
};
use crate::{backbone::Hidden, ops::ensure_gradients};
use candle_core::{Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss::cross_entropy};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What the counts of classes are smoothed by where they adjust the logits of the training loss.
const SMOOTHING: f64 = 0.01;

/// `count` different rows of `rows`, in the order in which `rng` draws them; all of them where they are fewer.
pub(super) fn batch(rng: &mut ChaCha8Rng, rows: &[u32], count: usize) -> Vec<u32> {
    let mut rows = rows.to_vec();
    let count = count.min(rows.len());
    for i in 0..count {
        let j = rng.random_range(i as u64..rows.len() as u64) as usize;
        rows.swap(i, j);
    }
    rows.truncate(count);
    rows
}

/// The labels of some rows.
pub(super) fn labels_of(samples: &Samples, rows: &[u32]) -> candle_core::Result<Tensor> {
    let labels: Vec<u32> = rows.iter().filter_map(|row| samples.labels.get(*row as usize).copied()).collect();
    Tensor::new(labels, &Device::Cpu)
}

impl Learner {
    /// Trains the mixture for the settings' steps on this node's samples: Adam, begun afresh, on the cross entropy of
    /// the logits plus the log of how frequent each class is here (so that the shared readout need not learn the
    /// node's own label shares). The same arguments give the same bits.
    ///
    /// # Errors
    /// A node that is not aligned yet, a mixture of another shape, or a loss that is no longer a number.
    pub fn train(&mut self, round: u64, mixture: &[Vec<f32>]) -> Result<Trained, TrainError> {
        let private = self.private.as_ref().ok_or(TrainError::NotAligned)?;
        let tensors = self.tensors(mixture)?;
        let variables = tensors.iter().map(Var::from_tensor).collect::<candle_core::Result<Vec<_>>>()?;
        let parameters = ParamsAdamW { lr: self.settings.rate, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
        let mut optimiser = AdamW::new(variables.clone(), parameters)?;
        let prior = Tensor::new(log_prior(&self.counts(), SMOOTHING), &Device::Cpu)?;
        let rows: Vec<u32> = (0..self.train.len() as u32).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed);
        rng.set_stream(round);
        let shared: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
        let mut losses = 0.0;
        for step in 0..self.settings.steps {
            let rows = batch(&mut rng, &rows, self.settings.batch);
            let logits = self.logits(private, self.trunk.first(&self.train, &rows)?, &shared)?;
            let loss = cross_entropy(&logits.broadcast_add(&prior)?, &labels_of(&self.train, &rows)?)?;
            let value = loss.to_scalar::<f32>()?;
            if !value.is_finite() {
                return Err(TrainError::Value(format!(
                    "the loss of step {step} of round {round} is {value}; a lower rate than {} may help",
                    self.settings.rate
                )));
            }
            losses += value;
            let gradients = loss.backward()?;
            if step == 0 {
                ensure_gradients(&gradients, variables.iter().map(|variable| ("a shared tensor", variable)))?;
            }
            optimiser.step(&gradients)?;
        }
        let delta = variables
            .iter()
            .zip(&tensors)
            .map(|(after, before)| (after.as_tensor() - before)?.flatten_all()?.to_vec1::<f32>());
        Ok(Trained { delta: delta.collect::<Result<_, _>>()?, loss: losses / self.settings.steps as f32 })
    }

    /// The accuracy of a mixture on the test set; none without one.
    ///
    /// # Errors
    /// A node that is not aligned yet, or a mixture of another shape.
    pub fn evaluate(&self, mixture: &[Vec<f32>]) -> Result<Option<Accuracy>, TrainError> {
        let private = self.private.as_ref().ok_or(TrainError::NotAligned)?;
        let tensors = self.tensors(mixture)?;
        let Some(test) = &self.test else { return Ok(None) };
        Ok(Some(score(&self.all_logits(private, test, &tensors)?, &test.labels, &self.counts())))
    }

    /// The cross entropy (nats) of each of the node's held-out samples under a mixture, knowing how frequent its labels
    /// are; none without such samples.
    ///
    /// # Errors
    /// As [`Learner::evaluate`].
    pub fn held_losses(&self, mixture: &[Vec<f32>]) -> Result<Option<Vec<f64>>, TrainError> {
        let private = self.private.as_ref().ok_or(TrainError::NotAligned)?;
        let tensors = self.tensors(mixture)?;
        let Some(held) = &self.held else { return Ok(None) };
        Ok(Some(losses(&self.all_logits(private, held, &tensors)?, &held.labels, &self.counts())))
    }

    /// The logits `[n, C]` of all of some samples, row-major.
    fn all_logits(&self, private: &Private, samples: &Samples, shared: &[Tensor]) -> Result<Vec<f32>, TrainError> {
        let mut logits: Vec<f32> = Vec::new();
        for rows in samples.chunks() {
            let part = self.logits(private, self.trunk.first(samples, &rows)?, shared)?;
            logits.extend(part.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(logits)
    }

    /// Logits `[n, C]` from the hidden states of samples at the first slot.
    fn logits(&self, private: &Private, hidden: Hidden, shared: &[Tensor]) -> Result<Tensor, TrainError> {
        let [branches @ .., weight, bias] = shared else {
            return Err(TrainError::Value("a mixture without a readout".into()));
        };
        Ok(self.codes(private, hidden, branches)?.matmul(weight)?.broadcast_add(bias)?)
    }

    /// A mixture's groups as tensors.
    fn tensors(&self, mixture: &[Vec<f32>]) -> Result<Vec<Tensor>, TrainError> {
        let groups = self.layout.groups();
        let sizes: Vec<usize> = mixture.iter().map(Vec::len).collect();
        if sizes != groups.iter().map(|group| group.values()).collect::<Vec<_>>() {
            return Err(TrainError::Value(format!(
                "a mixture with groups of {sizes:?} values does not fit the charter"
            )));
        }
        let tensors = mixture.iter().zip(groups);
        Ok(tensors
            .map(|(values, group)| Tensor::from_slice(values, group.dims.as_slice(), &Device::Cpu))
            .collect::<candle_core::Result<_>>()?)
    }
}
