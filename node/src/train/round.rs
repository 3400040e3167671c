//! A round of local training on the shared mixture, and how good a mixture is.

use super::{
    Learner, Score, TrainError, Trained,
    model::{Batch, Model, Parts},
    optimiser::{AdamW, Parameter, Schedule},
    private::Private,
    samples::Samples,
    score::{log_prior, losses, perplexity, score},
};
use candle_core::{Device, Tensor, Var};
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
    let labels: Vec<u32> = rows.iter().filter_map(|row| samples.labels().get(*row as usize).copied()).collect();
    Tensor::new(labels, &Device::Cpu)
}

/// What is trained in a round: variables in place of tensors.
pub(super) struct Trainee {
    pub(super) parameters: Vec<Parameter>,
    parts: Parts,
    pub(super) private: Private,
}

impl Trainee {
    /// Makes a variable of `tensor`.
    fn train(&mut self, name: String, tensor: &Tensor, rate: f64) -> candle_core::Result<Tensor> {
        let variable = Var::from_tensor(tensor)?;
        let tensor = variable.as_tensor().clone();
        self.parameters.push(Parameter { name, variable, rate });
        Ok(tensor)
    }
}

impl Learner {
    /// Trains the mixture for the settings' steps on this node's samples. Where projections stay, Adam begins afresh in
    /// every round; where they are trained, its state is kept with them. The same arguments and the same private state
    /// give the same bits.
    ///
    /// # Errors
    /// A node that is not aligned yet, a mixture of another shape, a loss that is no longer a number, or a tensor that
    /// gets no gradient.
    pub fn train(&mut self, round: u64, mixture: &[Vec<f32>]) -> Result<Trained, TrainError> {
        let before = self.net.tensors(mixture)?;
        let mut trainee = self.trainee(&before)?;
        let mut optimiser = AdamW {
            parameters: std::mem::take(&mut trainee.parameters),
            moments: std::mem::take(&mut trainee.private.moments),
            decay: self.settings.decay,
            clip: self.settings.clip,
        };
        let done = round.saturating_sub(1).saturating_mul(self.settings.steps as u64);
        let total = (self.settings.cosine && self.rounds > 0).then(|| self.rounds * self.settings.steps as u64);
        let schedule = Schedule { warm_up: self.settings.warm_up, total };
        let prior = self.prior()?;
        let rows: Vec<u32> = (0..self.train.len() as u32).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed);
        rng.set_stream(round);
        let (mut losses, mut seen) = (0.0, (0, 0));
        for step in 0..self.settings.steps {
            let mut gradients: Vec<Tensor> = Vec::new();
            for _ in 0..self.settings.accumulate {
                let rows = batch(&mut rng, &rows, self.settings.batch);
                let loss = self.pass(&trainee, &rows, &prior)?;
                let value = loss.to_scalar::<f32>()?;
                if !value.is_finite() {
                    return Err(self.diverged(value, step, round, &rows));
                }
                losses += value / self.settings.accumulate as f32;
                seen.0 += rows.len();
                seen.1 += self.train.goals.count(&rows);
                let made = optimiser.gradients(&(loss / self.settings.accumulate as f64)?, step)?;
                gradients = match gradients.is_empty() {
                    true => made,
                    false => gradients.iter().zip(&made).map(|(a, b)| a + b).collect::<candle_core::Result<_>>()?,
                };
            }
            optimiser.step(&gradients, schedule.factor(done + step as u64))?;
        }
        let after = self.net.whole(&trainee.parts, &before);
        let delta = after.iter().zip(&before).map(|(after, before)| (after - before)?.flatten_all()?.to_vec1::<f32>());
        let delta = delta.collect::<candle_core::Result<_>>()?;
        if self.trains_privately() {
            self.private = Some(trainee.private.frozen(optimiser.moments));
        }
        Ok(Trained { delta, loss: losses / self.settings.steps as f32, seen })
    }

    /// The loss of some rows under what is trained.
    pub(super) fn pass(&self, trainee: &Trainee, rows: &[u32], prior: &Tensor) -> Result<Tensor, TrainError> {
        let model = self.net.model(&trainee.private)?;
        let hidden = self.net.trunk.first(&self.train, rows)?;
        Ok(self.net.loss(&model, &trainee.parts, hidden, Batch { samples: &self.train, rows, prior })?)
    }

    /// The log of how frequent each class is here.
    pub(super) fn prior(&self) -> candle_core::Result<Tensor> {
        Tensor::new(log_prior(&self.counts(), SMOOTHING), self.net.device())
    }

    fn diverged(&self, loss: f32, step: usize, round: u64, rows: &[u32]) -> TrainError {
        let some: Vec<String> = rows.iter().take(8).map(|row| (row + 1).to_string()).collect();
        let more = if rows.len() > some.len() { ", .." } else { "" };
        TrainError::Diverged(format!(
            "the loss of step {step} of round {round} is {loss}, over the training samples {}{more}; a lower rate than {}, or a clip, may help",
            some.join(", "),
            self.settings.rate
        ))
    }

    /// Variables for all that is trained, and the parts and projections that they are in.
    pub(super) fn trainee(&self, mixture: &[Tensor]) -> Result<Trainee, TrainError> {
        let private = self.private.clone().ok_or(TrainError::NotAligned)?;
        let parts = self.net.parts(mixture, &private)?;
        let mut trainee = Trainee { parameters: Vec::new(), parts, private };
        let settings = &self.settings;
        let branch_rate = settings.branch_rate.unwrap_or(settings.rate);
        // A readout that is shared is the mean of many; one of the node's own is not, and takes smaller steps.
        let readout_rate = settings.readout_rate.filter(|_| self.net.readout.is_some()).unwrap_or(settings.rate);
        for slot in 0..trainee.parts.branches.len() {
            let tensor = trainee.parts.branches[slot].clone();
            trainee.parts.branches[slot] = trainee.train(format!("branches.{slot}"), &tensor, branch_rate)?;
        }
        for (at, name) in ["readout.weight", "readout.bias"].into_iter().enumerate() {
            let tensor = trainee.parts.readout[at].clone();
            trainee.parts.readout[at] = trainee.train(name.into(), &tensor, readout_rate)?;
        }
        if self.net.readout.is_none() {
            trainee.private.readout = Some(trainee.parts.readout.clone());
        }
        if let Some(rate) = self.projection_rate() {
            // Without branches nothing goes through the slots' projections. The readout's stays as it was fitted: a shared
            // readout means the same to all only where all encode for it alike.
            for slot in 0..trainee.parts.branches.len() {
                let projection = trainee.private.projections.slots[slot].clone();
                let down = trainee.train(format!("slot.{slot}.down"), &projection.down, rate)?;
                let up = projection.up.as_ref().map(|up| trainee.train(format!("slot.{slot}.up"), up, rate));
                let up = up.transpose()?;
                trainee.private.projections.slots[slot] = crate::dema::Projection { down, up, ..projection };
            }
        }
        Ok(trainee)
    }

    /// How good a mixture is on the test set; none without one.
    ///
    /// # Errors
    /// A node that is not aligned yet, or a mixture of another shape.
    pub fn evaluate(&self, mixture: &[Vec<f32>]) -> Result<Option<Score>, TrainError> {
        self.score_on(self.test.as_ref(), mixture)
    }

    /// How good it is on the samples by which settings are chosen; none without such.
    ///
    /// # Errors
    /// As [`Learner::evaluate`].
    pub fn validate(&self, mixture: &[Vec<f32>]) -> Result<Option<Score>, TrainError> {
        self.score_on(self.validation.as_ref(), mixture)
    }

    fn score_on(&self, samples: Option<&Samples>, mixture: &[Vec<f32>]) -> Result<Option<Score>, TrainError> {
        let (model, parts) = self.ready(mixture)?;
        let Some(test) = samples else { return Ok(None) };
        if self.net.foretells() {
            let global = perplexity(&self.net.token_losses(&model, &parts, test)?);
            return Ok(Some(Score { global, own: self.own_perplexity(mixture)?.unwrap_or(global) }));
        }
        Ok(Some(score(&self.net.all_logits(&model, &parts, test)?, test.labels(), &self.counts())))
    }

    /// The perplexity of the node's own held-out text; none where it has none.
    ///
    /// # Errors
    /// As [`Learner::evaluate`].
    pub(super) fn own_perplexity(&self, mixture: &[Vec<f32>]) -> Result<Option<f64>, TrainError> {
        let Some(held) = &self.held else { return Ok(None) };
        let (model, parts) = self.ready(mixture)?;
        Ok(Some(perplexity(&self.net.token_losses(&model, &parts, held)?)))
    }

    /// The cross entropy (nats; of a text: of its mean token) of each of the node's held-out samples under a mixture,
    /// knowing how frequent its labels are; none without such samples.
    ///
    /// # Errors
    /// As [`Learner::evaluate`].
    pub fn held_losses(&self, mixture: &[Vec<f32>]) -> Result<Option<Vec<f64>>, TrainError> {
        let (model, parts) = self.ready(mixture)?;
        let Some(held) = &self.held else { return Ok(None) };
        if self.net.foretells() {
            let losses = self.net.token_losses(&model, &parts, held)?;
            return Ok(Some(losses.into_iter().map(|(sum, count)| sum / count.max(1) as f64).collect()));
        }
        Ok(Some(losses(&self.net.all_logits(&model, &parts, held)?, held.labels(), &self.counts())))
    }

    /// The model, and a mixture's parts for it.
    pub(super) fn ready(&self, mixture: &[Vec<f32>]) -> Result<(Model, Parts), TrainError> {
        let private = self.private.as_ref().ok_or(TrainError::NotAligned)?;
        self.net.ready(private, mixture)
    }
}
