//! Pretraining of small backbones without labels, as a recipe (a TOML file) describes it: `images` by hidden patches,
//! `texts` by replaced tokens. What it writes are folders like those of the hub.

mod folder;
mod images;
mod texts;

use super::TrainError;
use crate::{
    backbone::{self, Backbone, Hidden, Source, made::initial},
    config::read_toml,
    ops::ensure_gradients,
};
use candle_core::{Result as Computed, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    f64::consts::PI,
    path::{Path, PathBuf},
};

/// Share of the steps in which the rate rises; it falls in the rest.
const WARM_UP: f64 = 0.3;
/// AdamW's decoupled weight decay.
const DECAY: f64 = 0.01;
/// The most bytes of a recipe.
const RECIPE_BYTES_MAX: usize = 1 << 20;

/// What a recipe's backbones learn from: its `kind`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Images,
    Texts,
}

/// The field that says which others there are.
#[derive(Deserialize)]
struct Any {
    #[serde(default)]
    kind: Kind,
}

/// A recipe of one kind.
trait Recipe: DeserializeOwned {
    /// A backbone's shape.
    type Shape;
    /// A backbone in training.
    type Student: Student;

    /// How all its backbones are trained.
    fn plan(&self) -> Plan;

    /// What to make.
    fn shapes(&self) -> &[Self::Shape];

    /// What a backbone, and its folder, is to be called.
    fn name(shape: &Self::Shape) -> &str;

    /// What is wrong with the recipe, or with a shape.
    fn problem(&self) -> Option<String>;

    /// A backbone with its first weights, and the data that it learns from; `path` is the recipe's.
    fn student(&self, path: &Path, shape: &Self::Shape, rng: &mut ChaCha8Rng) -> Result<Self::Student, TrainError>;
}

/// A backbone in training, with the parts that only pretraining needs, and its data.
trait Student {
    /// Everything that is trained.
    fn variables(&self) -> &[(String, Var)];

    /// The loss over a few samples, drawn by `rng`.
    fn loss(&self, rng: &mut ChaCha8Rng) -> Result<Tensor, TrainError>;

    /// Writes the backbone, without those parts.
    fn write(&self, folder: &Path) -> Result<(), TrainError>;
}

/// How backbones are trained.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Optimiser steps.
    steps: usize,
    /// Samples of a step.
    batch: usize,
    /// The largest learning rate of the one cycle.
    rate: f64,
    /// Share of a sample that is hidden or replaced.
    mask_share: f64,
    /// Seeds first weights, batches and masks.
    seed: u64,
}

/// How far a pretraining is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Which backbone.
    pub name: &'a str,
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// The loss of this step: the mean squared error of hidden patches, or the mean cross entropy of tokens that may be
    /// replaced.
    pub loss: f32,
}

/// A backbone that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Pretrained {
    /// Its name, and its folder's.
    pub name: String,
    /// How many weights it has.
    pub parameters: usize,
    /// The mean loss over the last tenth of the steps.
    pub loss: f32,
}

/// Makes the backbones of a recipe (a TOML file) in folders under `out`.
///
/// # Errors
/// A recipe or data that can't be used, or a folder that can't be written.
pub fn pretrain(recipe: &Path, out: &Path, progress: impl FnMut(Progress<'_>)) -> Result<Vec<Pretrained>, TrainError> {
    match read::<Any>(recipe)?.kind {
        Kind::Images => make(&read::<images::Recipe>(recipe)?, recipe, out, progress),
        Kind::Texts => make(&read::<texts::Recipe>(recipe)?, recipe, out, progress),
    }
}

fn read<T: DeserializeOwned>(recipe: &Path) -> Result<T, TrainError> {
    read_toml(recipe, RECIPE_BYTES_MAX).map_err(|error| TrainError::Value(format!("{error:#}")))
}

/// Where a file is that the recipe at `recipe` names.
fn locate(recipe: &Path, path: &Path) -> Result<PathBuf, TrainError> {
    let folder = recipe.parent().unwrap_or(Path::new("."));
    heterotune_scenarios::locate(folder, path).map_err(|error| TrainError::file(recipe, error.to_string()))
}

fn make<R: Recipe>(
    recipe: &R,
    path: &Path,
    out: &Path,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Vec<Pretrained>, TrainError> {
    let names = recipe.shapes().iter().map(R::name);
    if let Some(problem) = recipe.plan().problem().or_else(|| bad_names(names)).or_else(|| recipe.problem()) {
        return Err(TrainError::file(path, problem));
    }
    let plan = recipe.plan();
    let mut made = Vec::new();
    for (index, shape) in recipe.shapes().iter().enumerate() {
        let name = R::name(shape);
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        rng.set_stream(index as u64);
        let student = recipe.student(path, shape, &mut rng)?;
        let loss = learn(&student, plan, &mut rng, |step, loss| {
            progress(Progress { name, step, steps: plan.steps, loss });
        })?;
        let folder = out.join(name);
        student.write(&folder)?;
        let parameters = backbone::load(&folder, backbone::Options::default())?.parameters();
        made.push(Pretrained { name: name.into(), parameters, loss });
    }
    Ok(made)
}

/// What is wrong with the backbones' names.
fn bad_names<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let mut known = Vec::new();
    for name in names {
        if name.is_empty() || !name.chars().all(plain) {
            return Some(format!("\"{name}\" is no name for a folder: use a to z, 0 to 9 and -"));
        }
        if known.contains(&name) {
            return Some(format!("two backbones are called {name}; give each a name of its own"));
        }
        known.push(name);
    }
    known.is_empty().then(|| "there must be a [[backbone]]".into())
}

impl Plan {
    /// What can't be meant.
    fn problem(&self) -> Option<String> {
        if self.steps == 0 || self.batch == 0 {
            return Some("steps and batch must be more than 0".into());
        }
        if !(self.rate > 0.0 && self.rate.is_finite()) {
            return Some("rate must be more than 0".into());
        }
        (!(self.mask_share > 0.0 && self.mask_share < 1.0)).then(|| "mask_share must be between 0 and 1".into())
    }

    /// The learning rate of a step: up to the largest and down again, both by a cosine.
    fn rate_at(&self, step: usize) -> f64 {
        let done = step as f64 / self.steps as f64;
        let cosine = |from: f64, to: f64, share: f64| to + (from - to) * (1.0 + (PI * share).cos()) / 2.0;
        match done < WARM_UP {
            true => cosine(self.rate / 25.0, self.rate, done / WARM_UP),
            false => cosine(self.rate, self.rate / 250_000.0, (done - WARM_UP) / (1.0 - WARM_UP)),
        }
    }
}

/// Trains, and gives the mean loss over the last tenth of the steps.
fn learn(
    student: &impl Student,
    plan: Plan,
    rng: &mut ChaCha8Rng,
    mut progress: impl FnMut(usize, f32),
) -> Result<f32, TrainError> {
    let variables = student.variables();
    let trained = variables.iter().map(|(_, variable)| variable.clone()).collect();
    let mut optimiser = AdamW::new(trained, ParamsAdamW { weight_decay: DECAY, ..Default::default() })?;
    let mut losses = Vec::new();
    for step in 0..plan.steps {
        let loss = student.loss(rng)?;
        let value = loss.to_scalar::<f32>()?;
        if !value.is_finite() {
            return Err(TrainError::Value(format!("the loss of step {step} is {value}; use a lower rate")));
        }
        losses.push(value);
        let gradients = loss.backward()?;
        if step == 0 {
            ensure_gradients(&gradients, variables.iter().map(|(name, variable)| (name.as_str(), variable)))?;
        }
        optimiser.set_learning_rate(plan.rate_at(step));
        optimiser.step(&gradients)?;
        progress(step + 1, value);
    }
    let last = losses.len().div_ceil(10);
    Ok(losses.iter().rev().take(last).sum::<f32>() / last as f32)
}

/// The hidden state behind the last block.
fn through(backbone: &impl Backbone, hidden: Hidden) -> Computed<Hidden> {
    (0..backbone.depth()).try_fold(hidden, |hidden, block| Ok(hidden.with(backbone.block(block, &hidden)?)))
}

/// So many samples of `count`, any of them more than once.
fn draw(batch: usize, count: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    (0..batch).map(|_| rng.random_range(0..count as u64) as u32).collect()
}

/// The first values of weights, and the variables that they become.
struct Start<'a> {
    rng: &'a mut ChaCha8Rng,
    variables: Vec<(String, Var)>,
}

impl Source for Start<'_> {
    type Error = TrainError;

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, TrainError> {
        let variable = Var::from_tensor(&initial(name, shape, self.rng)?)?;
        let tensor = variable.as_tensor().clone();
        self.variables.push((name.to_string(), variable));
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests;
