//! Pretraining of small backbones without labels: a vision transformer learns to paint in masked patches
//! (Masked Autoencoders Are Scalable Vision Learners, <https://arxiv.org/abs/2111.06377>, with mask tokens in the
//! encoder as in SimMIM, <https://arxiv.org/abs/2111.09886>). What it writes is a folder like those of the hub.

use super::TrainError;
use crate::{
    backbone::{self, Backbone, Config, Hidden, Pixels, Source, Vit},
    data::table,
    ops::{LayerNorm, Linear, ensure_gradients},
};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::Deserialize;
use std::{
    collections::HashMap,
    f64::consts::PI,
    fs,
    path::{Path, PathBuf},
};

/// Share of the steps in which the rate rises; it falls in the rest.
const WARM_UP: f64 = 0.3;
/// AdamW's decoupled weight decay.
const DECAY: f64 = 0.01;
/// The epsilon of all norms.
const EPSILON: f64 = 1e-5;

/// What to train, from a TOML file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    /// The CSV file of images, relative to the recipe. Labels in it are not looked at.
    data: PathBuf,
    /// Images to train on: the first so many of the file's permutation.
    rows: usize,
    /// The permutation's seed.
    split_seed: u64,
    /// What pixel values are multiplied by.
    rescale_factor: f64,
    /// Optimiser steps.
    steps: usize,
    /// Images of a step.
    batch: usize,
    /// The largest learning rate of the one cycle.
    rate: f64,
    /// Share of patches that are hidden.
    mask_share: f64,
    /// Seeds initial weights, batches and masks.
    seed: u64,
    /// What to make.
    backbone: Vec<Shape>,
}

/// One backbone's shape.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    name: String,
    width: usize,
    depth: usize,
    heads: usize,
    intermediate: usize,
    patch: usize,
    image: usize,
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
    /// The mean squared error of masked patches in this step.
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
pub fn pretrain(
    recipe: &Path,
    out: &Path,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Vec<Pretrained>, TrainError> {
    let text =
        fs::read_to_string(recipe).map_err(|error| TrainError::file(recipe, format!("can't be read ({error})")))?;
    let plan: Recipe = toml::from_str(&text).map_err(|error| TrainError::file(recipe, error.to_string()))?;
    let configs = plan.configs().map_err(|problem| TrainError::file(recipe, problem))?;
    let pixels = Pixels {
        do_rescale: true,
        rescale_factor: plan.rescale_factor,
        do_normalize: false,
        image_mean: vec![0.0],
        image_std: vec![1.0],
    };
    let path = recipe.parent().unwrap_or(Path::new(".")).join(&plan.data);
    let bytes = table::bytes(&path)?;
    let mut made = Vec::new();
    for (index, (shape, config)) in plan.backbone.iter().zip(configs).enumerate() {
        let images = table::parse(&path, &bytes, config.image_size * config.image_size, table::Labels::Ignored)?.pixels;
        let count = images.dim(0)?;
        if count < plan.rows {
            return Err(TrainError::file(&path, format!("has {count} rows, but the recipe trains on {}", plan.rows)));
        }
        let order = heterotune_scenarios::split(count, plan.split_seed);
        let rows: Vec<u32> = order.into_iter().take(plan.rows).filter_map(|row| u32::try_from(row).ok()).collect();
        let images = images.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?;
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        rng.set_stream(index as u64);
        let mut student = Student::new(config.clone(), &pixels, &mut rng)?;
        let loss = student.learn(&plan, &images, &mut rng, |step, loss| {
            progress(Progress { name: &shape.name, step, steps: plan.steps, loss });
        })?;
        let folder = out.join(&shape.name);
        student.write(&folder, &config, &pixels)?;
        let parameters = backbone::load(&folder, backbone::Options::default())?.parameters();
        made.push(Pretrained { name: shape.name.clone(), parameters, loss });
    }
    Ok(made)
}

impl Recipe {
    /// The configurations of all backbones, or what is wrong with the recipe.
    fn configs(&self) -> Result<Vec<Config>, String> {
        if self.rows == 0 || self.steps == 0 || self.batch == 0 || self.backbone.is_empty() {
            return Err("rows, steps and batch must be more than 0, and there must be a [[backbone]]".into());
        }
        if !(self.rate > 0.0 && self.mask_share > 0.0 && self.mask_share < 1.0) {
            return Err("rate must be more than 0, and mask_share between 0 and 1".into());
        }
        self.backbone.iter().map(Shape::config).collect()
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

impl Shape {
    fn config(&self) -> Result<Config, String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err(format!("\"{}\" is no name for a folder: use a to z, 0 to 9 and -", self.name));
        }
        let config = Config {
            model_type: "vit".into(),
            hidden_size: self.width,
            num_hidden_layers: self.depth,
            num_attention_heads: self.heads,
            intermediate_size: self.intermediate,
            hidden_act: "gelu".into(),
            layer_norm_eps: EPSILON,
            image_size: self.image,
            patch_size: self.patch,
            num_channels: 1,
            qkv_bias: true,
            use_swiglu_ffn: false,
        };
        match config.problem() {
            Some(problem) => Err(format!("backbone {}: {problem}", self.name)),
            None => Ok(config),
        }
    }
}

/// A backbone in training, with the parts that only pretraining needs.
struct Student {
    vit: Vit,
    variables: Vec<(String, Var)>,
    mask: Tensor,
    norm: LayerNorm,
    decoder: Linear,
}

impl Student {
    fn new(config: Config, pixels: &Pixels, rng: &mut ChaCha8Rng) -> Result<Self, TrainError> {
        let (width, values) = (config.hidden_size, config.patch_values());
        let mut start = Start { rng, variables: Vec::new() };
        let vit = Vit::assemble(config, pixels, &mut start)?;
        let norm = start.layer_norm("layernorm", width, EPSILON)?;
        let mask = start.tensor("mask", &[width])?;
        let decoder = start.linear("decoder", values, width, true)?;
        Ok(Self { vit, variables: start.variables, mask, norm, decoder })
    }

    /// Trains, and gives the mean loss over the last tenth of the steps.
    fn learn(
        &mut self,
        plan: &Recipe,
        images: &Tensor,
        rng: &mut ChaCha8Rng,
        mut progress: impl FnMut(usize, f32),
    ) -> Result<f32, TrainError> {
        let patches = self.vit.patches(images)?;
        let (count, places, _) = patches.dims3()?;
        let variables = self.variables.iter().map(|(_, variable)| variable.clone()).collect();
        let mut optimiser = AdamW::new(variables, ParamsAdamW { weight_decay: DECAY, ..Default::default() })?;
        let mut losses = Vec::new();
        for step in 0..plan.steps {
            let rows: Vec<u32> = (0..plan.batch).map(|_| rng.random_range(0..count as u64) as u32).collect();
            let hidden = (0..plan.batch * places).map(|_| f32::from(rng.random_bool(plan.mask_share)));
            let hidden = Tensor::from_vec(hidden.collect::<Vec<f32>>(), (plan.batch, places, 1), &Device::Cpu)?;
            let batch = patches.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?;
            let loss = self.loss(&batch, &hidden)?;
            let value = loss.to_scalar::<f32>()?;
            if !value.is_finite() {
                return Err(TrainError::Value(format!("the loss of step {step} is {value}; use a lower rate")));
            }
            losses.push(value);
            let gradients = loss.backward()?;
            if step == 0 {
                ensure_gradients(&gradients, self.variables.iter().map(|(name, variable)| (name.as_str(), variable)))?;
            }
            optimiser.set_learning_rate(plan.rate_at(step));
            optimiser.step(&gradients)?;
            progress(step + 1, value);
        }
        let last = losses.len().div_ceil(10);
        Ok(losses.iter().rev().take(last).sum::<f32>() / last as f32)
    }

    /// The mean squared error over the patches that `hidden` `[n, patches, 1]` marks with ones.
    fn loss(&self, patches: &Tensor, hidden: &Tensor) -> candle_core::Result<Tensor> {
        let embedded = self.vit.project(patches)?.broadcast_mul(&(1.0 - hidden)?)?;
        let embedded = (embedded + hidden.broadcast_mul(&self.mask)?)?;
        let placed = Hidden { values: self.vit.place(&embedded)?, lengths: None };
        let tokens = (0..self.vit.depth()).try_fold(placed, |hidden, block| -> candle_core::Result<Hidden> {
            Ok(hidden.with(self.vit.block(block, &hidden)?))
        })?;
        let tokens = tokens.values;
        let painted = self.decoder.forward(&self.norm.forward(&tokens.narrow(1, 1, patches.dim(1)?)?)?)?;
        let error = (painted - patches)?.sqr()?.mean_keepdim(2)?;
        (error * hidden)?.sum_all()? / hidden.sum_all()?.to_scalar::<f32>()?.max(1.0) as f64
    }

    /// Writes the folder; weights in half precision, without the decoder.
    fn write(&self, folder: &Path, config: &Config, pixels: &Pixels) -> Result<(), TrainError> {
        let refuse = |path: &Path, error: String| TrainError::file(path, format!("can't be written ({error})"));
        fs::create_dir_all(folder).map_err(|error| refuse(folder, error.to_string()))?;
        let json =
            |name: &str, value: Result<serde_json::Value, serde_json::Error>, kind: (&str, serde_json::Value)| {
                let path = folder.join(name);
                let write = || -> Result<(), String> {
                    let mut value = value.map_err(|error| error.to_string())?;
                    if let Some(map) = value.as_object_mut() {
                        map.insert(kind.0.into(), kind.1);
                    }
                    let text = serde_json::to_string_pretty(&value).map_err(|error| error.to_string())?;
                    fs::write(&path, text + "\n").map_err(|error| error.to_string())
                };
                write().map_err(|error| refuse(&path, error))
            };
        json("config.json", serde_json::to_value(config), ("architectures", serde_json::json!(["ViTModel"])))?;
        let processor = ("image_processor_type", serde_json::json!("ViTImageProcessor"));
        json("preprocessor_config.json", serde_json::to_value(pixels), processor)?;
        let kept = self.variables.iter().filter(|(name, _)| name != "mask" && !name.starts_with("decoder."));
        let tensors = kept.map(|(name, variable)| Ok((name.clone(), variable.to_dtype(DType::F16)?)));
        let tensors = tensors.collect::<candle_core::Result<HashMap<String, Tensor>>>()?;
        let path = folder.join("model.safetensors");
        candle_core::safetensors::save(&tensors, &path).map_err(|error| refuse(&path, error.to_string()))
    }
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

/// A weight's first value, by its name: norms are the identity, biases zero, matrices uniform within 1 / sqrt(inputs).
fn initial(name: &str, shape: &[usize], rng: &mut ChaCha8Rng) -> candle_core::Result<Tensor> {
    let count = shape.iter().product();
    let values: Vec<f32> = match name {
        _ if name.contains("layernorm") && name.ends_with("weight") => vec![1.0; count],
        _ if name.ends_with("bias") || name == "mask" => vec![0.0; count],
        _ if name.starts_with("embeddings.") && !name.ends_with("weight") => {
            (0..count).map(|_| rng.sample::<f32, _>(StandardNormal) * 0.3).collect()
        }
        _ => {
            let inputs = shape.iter().skip(1).product::<usize>().max(1);
            let bound = (inputs as f32).powf(-0.5);
            (0..count).map(|_| rng.random_range(-bound..bound)).collect()
        }
    };
    Tensor::from_vec(values, shape, &Device::Cpu)
}
