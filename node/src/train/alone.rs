//! What a node can do by itself: the same backbone and the same samples, trained to convergence, without a network.
//!
//! Classification: two methods are tried. The one that does better on a held-out quarter of the node's own samples is
//! its answer. Language models: see [`language`].

mod language;

use super::{
    Alone, Learner, Score, TrainError,
    round::{batch, labels_of},
    samples::Samples,
    score::{log_prior, score},
    trunk::Trunk,
};
use crate::{
    backbone::Hidden,
    dema::{algebra::Matrix, encode},
    ops::{LayerNorm, ensure_gradients, gelu},
};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss::cross_entropy};
use heterotune_protocol::charter::Charter;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::collections::BTreeMap;

/// A regularised linear discriminant on the backbone's standardised features.
const DISCRIMINANT: &str = "discriminant";
/// A private bottleneck adapter and a linear head, trained together.
const ADAPTER: &str = "adapter";
/// The answer of a node that knows one class only.
const ONLY_CLASS: &str = "only-class";

/// The discriminant's ridge, as a share of the mean variance within classes.
const RIDGE: f64 = 0.3;
/// The adapter's steps at most. It stops earlier when its loss does not fall any more.
const STEPS_MAX: usize = 500;
/// Steps over which the loss is averaged to see whether it falls.
const WINDOW: usize = 25;
/// Samples of a step.
const BATCH: usize = 64;
/// The adapter's learning rate and decoupled weight decay.
const RATE: f64 = 3e-3;
/// See [`RATE`].
const DECAY: f64 = 0.1;

/// A classifier of a node's own: small adapters at the slots (none: the discriminant), and a linear map of standardised
/// features.
pub(super) struct Classifier {
    /// Down `[d, r]`, B `[r, r]` and Up `[r, d]` of each slot.
    slots: Vec<[Tensor; 3]>,
    /// What features are standardised by: their mean and inverse deviation, `[1, d]` each.
    mean: Tensor,
    inverse: Tensor,
    /// `[d, C]` and `[1, C]`.
    weight: Tensor,
    bias: Tensor,
}

/// How the tensors of a classifier are called in a file.
const TENSORS: [&str; 4] = ["alone.mean", "alone.inverse", "alone.weight", "alone.bias"];

impl Classifier {
    /// Logits `[n, C]`, from hidden states at the first slot.
    pub(super) fn logits(&self, trunk: &Trunk, hidden: Hidden) -> candle_core::Result<Tensor> {
        let norm = LayerNorm::plain();
        let features = trunk.features(hidden, |slot, hidden| {
            let hidden = &hidden.values;
            let Some([down, branch, up]) = self.slots.get(slot) else { return Ok(hidden.clone()) };
            let (inputs, tokens, width) = hidden.dims3()?;
            let normal = norm.forward(&hidden.to_dtype(DType::F32)?)?;
            let code = normal.reshape((inputs * tokens, width))?.matmul(down)?;
            let step = gelu(&code)?.matmul(branch)?.matmul(up)?;
            hidden + step.reshape((inputs, tokens, width))?.to_dtype(hidden.dtype())?
        })?;
        let standard = features.broadcast_sub(&self.mean)?.broadcast_mul(&self.inverse)?;
        standard.matmul(&self.weight)?.broadcast_add(&self.bias)
    }

    /// The same, no more in training.
    fn frozen(self) -> Self {
        let slots = self.slots.into_iter().map(|parts| parts.map(|part| part.detach())).collect();
        Self { slots, weight: self.weight.detach(), bias: self.bias.detach(), ..self }
    }

    /// The bytes of a safetensors file.
    fn encode(&self) -> Result<Vec<u8>, TrainError> {
        let named = TENSORS.into_iter().map(String::from).zip([&self.mean, &self.inverse, &self.weight, &self.bias]);
        let slots = self.slots.iter().enumerate().flat_map(|(slot, parts)| {
            ["down", "branch", "up"]
                .into_iter()
                .zip(parts)
                .map(move |(name, part)| (format!("alone.{slot}.{name}"), part))
        });
        let entries = named
            .chain(slots)
            .map(|(name, tensor)| Ok((name, tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1()?)));
        Ok(encode(entries.collect::<candle_core::Result<_>>()?)?)
    }

    /// A classifier from its bytes, for features of width `width` and so many classes; none where they hold none.
    pub(super) fn decode(
        bytes: &[u8],
        width: usize,
        classes: usize,
        device: &Device,
    ) -> Result<Option<Self>, TrainError> {
        let tensors = candle_core::safetensors::load_buffer(bytes, device)?;
        let get = |name: &str| tensors.get(name).cloned();
        let [Some(mean), Some(inverse), Some(weight), Some(bias)] = TENSORS.map(get) else { return Ok(None) };
        let slot = |slot: usize| {
            let [down, branch, up] = ["down", "branch", "up"].map(|name| get(&format!("alone.{slot}.{name}")));
            Some([down?, branch?, up?])
        };
        let slots: Vec<[Tensor; 3]> = (0..).map_while(slot).collect();
        let fits = mean.dims() == [1, width] && weight.dims() == [width, classes] && inverse.dims() == mean.dims();
        match fits && bias.dims() == [1, classes] && slots.iter().all(|[down, ..]| down.dims().first() == Some(&width))
        {
            true => Ok(Some(Self { slots, mean, inverse, weight, bias })),
            false => Err(TrainError::Value("what the node reached alone belongs to another backbone".into())),
        }
    }
}

impl Learner {
    /// Trains alone and tells how good that is; none without a test set.
    ///
    /// # Errors
    /// Only where the backbone can't be computed.
    pub fn alone(&mut self, charter: &Charter) -> Result<Option<Alone>, TrainError> {
        match &self.test {
            Some(_) if self.net.foretells() => self.network_of_one(charter).map(Some),
            Some(test) => self.classify_alone(test).map(Some),
            None => Ok(None),
        }
    }

    fn classify_alone(&self, test: &Samples) -> Result<Alone, TrainError> {
        let counts = self.counts();
        if counts.iter().filter(|count| **count > 0).count() < 2 {
            let logits: Vec<f32> = counts.iter().map(|count| *count as f32).collect();
            let accuracy = score(&logits.repeat(test.len()), test.labels(), &counts);
            let best_of = BTreeMap::from([(ONLY_CLASS.into(), accuracy)]);
            let width = self.net.trunk.backbone.width();
            let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu);
            let constant = Classifier {
                slots: Vec::new(),
                mean: zeros((1, width))?,
                inverse: zeros((1, width))?,
                weight: zeros((width, logits.len()))?,
                bias: Tensor::new(logits, &Device::Cpu)?.unsqueeze(0)?,
            };
            return Ok(Alone {
                saved: constant.encode()?,
                chosen: ONLY_CLASS.into(),
                global: accuracy.global,
                own: accuracy.own,
                best_of,
            });
        }
        let (kept, held) = self.hold_out(&counts);
        let trial = |method: &str| -> Result<f64, TrainError> {
            Ok(self.score_model(&self.fit(method, &kept)?, &self.train, &held, &counts)?.own)
        };
        let chosen = if trial(ADAPTER)? > trial(DISCRIMINANT)? { ADAPTER } else { DISCRIMINANT };
        let (everything, whole_test) = (all(&self.train), all(test));
        let (mut best_of, mut saved) = (BTreeMap::new(), Vec::new());
        for method in [ADAPTER, DISCRIMINANT] {
            let model = self.fit(method, &everything)?;
            if method == chosen {
                saved = model.encode()?;
            }
            best_of.insert(method.to_string(), self.score_model(&model, test, &whole_test, &counts)?);
        }
        let accuracy = best_of.get(chosen).copied().unwrap_or_default();
        Ok(Alone { chosen: chosen.into(), global: accuracy.global, own: accuracy.own, best_of, saved })
    }

    /// Splits the training rows: a quarter of every class that has enough, at least one row, is held out.
    fn hold_out(&self, counts: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed);
        let rows = batch(&mut rng, &all(&self.train), usize::MAX);
        let mut quota: Vec<u32> = counts.iter().map(|count| count / 4).collect();
        if quota.iter().all(|quota| *quota == 0) {
            let most = counts.iter().max().copied().unwrap_or(0);
            quota.iter_mut().zip(counts).filter(|(_, count)| **count == most).take(1).for_each(|(quota, _)| *quota = 1);
        }
        let label = |row: &u32| self.train.labels().get(*row as usize).copied().unwrap_or(0) as usize;
        rows.into_iter().partition(|row| match quota.get_mut(label(row)) {
            Some(left) if *left > 0 => {
                *left -= 1;
                false
            }
            _ => true,
        })
    }

    fn fit(&self, method: &str, rows: &[u32]) -> Result<Classifier, TrainError> {
        if method == ADAPTER { self.fit_adapter(rows) } else { self.fit_discriminant(rows) }
    }

    fn score_model(
        &self,
        model: &Classifier,
        samples: &Samples,
        rows: &[u32],
        counts: &[u32],
    ) -> Result<Score, TrainError> {
        let mut logits: Vec<f32> = Vec::new();
        for rows in rows.chunks(super::samples::CHUNK) {
            let part = model.logits(&self.net.trunk, self.net.trunk.first(samples, rows)?)?;
            logits.extend(part.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(score(&logits, &labels_of(samples, rows)?.to_vec1::<u32>()?, counts))
    }

    /// The features of the frozen backbone, standardised over `rows`: features, mean and inverse deviation.
    fn standard(&self, rows: &[u32]) -> Result<(Tensor, Tensor, Tensor), TrainError> {
        let parts = rows.chunks(super::samples::CHUNK).map(|rows| {
            self.net.trunk.features(self.net.trunk.first(&self.train, rows)?, |_, hidden| Ok(hidden.values.clone()))
        });
        let features = Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let mean = features.mean_keepdim(0)?;
        let centred = features.broadcast_sub(&mean)?;
        let freedom = (rows.len() as f64 - 1.0).max(1.0);
        let inverse = ((centred.sqr()?.sum_keepdim(0)? / freedom)?.sqrt()? + 1e-3)?.recip()?;
        Ok((centred.broadcast_mul(&inverse)?, mean, inverse))
    }

    /// W = (Sw + 0.3 mean(diag Sw) I)^-1 mu, b = -W mu / 2, with Sw the covariance within classes.
    fn fit_discriminant(&self, rows: &[u32]) -> Result<Classifier, TrainError> {
        let (features, mean, inverse) = self.standard(rows)?;
        let features = Matrix::from_tensor(&features)?;
        let labels: Vec<u32> = labels_of(&self.train, rows)?.to_vec1()?;
        let (classes, width) = (self.labels().len(), features.columns());
        let mut means = Matrix::zeros(classes, width);
        let mut counts = vec![0f64; classes];
        for (row, label) in features.iter().zip(&labels) {
            counts.get_mut(*label as usize).into_iter().for_each(|count| *count += 1.0);
            let mean = means.iter_mut().nth(*label as usize);
            mean.into_iter().flatten().zip(row).for_each(|(mean, value)| *mean += value);
        }
        means
            .iter_mut()
            .zip(&counts)
            .for_each(|(mean, count)| mean.iter_mut().for_each(|mean| *mean /= count.max(1.0)));
        let mut within = features;
        for (row, label) in within.iter_mut().zip(&labels) {
            let mean = means.iter().nth(*label as usize);
            row.iter_mut().zip(mean.into_iter().flatten()).for_each(|(value, mean)| *value -= mean);
        }
        let covariance = within.transposed().gram().times(1.0 / labels.len() as f64);
        // Where every class has a single sample nothing varies within classes; the means alone decide then.
        let amount = (RIDGE * covariance.diagonal_mean()).max(1e-6);
        let weight = covariance.ridged(amount).solve(&means.transposed());
        let halves = means.iter().zip(weight.transposed().iter().map(<[f64]>::to_vec).collect::<Vec<_>>());
        let bias = halves.zip(&counts).map(|((mean, weight), count)| match *count {
            0.0 => -1e3,
            _ => -0.5 * mean.iter().zip(&weight).map(|(a, b)| (a * b) as f32).sum::<f32>(),
        });
        let bias = Tensor::new(bias.collect::<Vec<f32>>(), self.net.device())?.unsqueeze(0)?;
        let weight = weight.to_tensor()?.to_device(self.net.device())?;
        Ok(Classifier { slots: Vec::new(), mean, inverse, weight, bias })
    }

    /// At every slot h += gelu(LN(h) Down) B Up, all three trained, and a linear head on standardised features. Up
    /// starts at zero, B at the identity, Down at random.
    fn fit_adapter(&self, rows: &[u32]) -> Result<Classifier, TrainError> {
        let (_, mean, inverse) = self.standard(rows)?;
        let (width, rank, classes) =
            (self.net.trunk.backbone.width(), usize::from(self.net.shape.rank), self.labels().len());
        let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed);
        let mut names = Vec::new();
        let mut variables = Vec::new();
        let mut add = |name: &'static str, tensor: Tensor| -> candle_core::Result<Tensor> {
            let variable = Var::from_tensor(&tensor)?;
            let tensor = variable.as_tensor().clone();
            names.push(name);
            variables.push(variable);
            Ok(tensor)
        };
        let device = self.net.device();
        let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, device);
        let mut slots = Vec::new();
        for _ in 0..self.net.trunk.slots() {
            let scale = (width as f64).powf(-0.5);
            let down = (0..width * rank).map(|_| (rng.sample::<f64, _>(StandardNormal) * scale) as f32);
            let down = Tensor::from_vec(down.collect::<Vec<_>>(), (width, rank), device)?;
            let branch = Tensor::eye(rank, DType::F32, device)?;
            slots.push([add("Down", down)?, add("B", branch)?, add("Up", zeros((rank, width))?)?]);
        }
        let (weight, bias) =
            (add("the head", zeros((width, classes))?)?, add("the head's bias", zeros((1, classes))?)?);
        let model = Classifier { slots, mean, inverse, weight, bias };
        let parameters = ParamsAdamW { lr: RATE, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: DECAY };
        let mut optimiser = AdamW::new(variables.clone(), parameters)?;
        let prior = Tensor::new(log_prior(&self.counts(), 0.01), device)?;
        let (mut sum, mut least) = (0.0, f32::INFINITY);
        for step in 0..STEPS_MAX {
            let rows = batch(&mut rng, rows, BATCH);
            let hidden = self.net.trunk.first(&self.train, &rows)?;
            let logits = model.logits(&self.net.trunk, hidden)?.broadcast_add(&prior)?;
            let loss = cross_entropy(&logits, &labels_of(&self.train, &rows)?.to_device(device)?)?;
            sum += loss.to_scalar::<f32>()?;
            let gradients = loss.backward()?;
            if step == 0 {
                ensure_gradients(&gradients, names.iter().copied().zip(&variables))?;
            }
            optimiser.step(&gradients)?;
            if (step + 1) % WINDOW == 0 {
                if sum > 0.99 * least {
                    break;
                }
                (sum, least) = (0.0, least.min(sum));
            }
        }
        Ok(model.frozen())
    }
}

/// All row numbers of some samples.
fn all(samples: &Samples) -> Vec<u32> {
    (0..samples.len() as u32).collect()
}
