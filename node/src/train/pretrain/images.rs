//! Vision transformers that learn to paint in hidden patches (Masked Autoencoders Are Scalable Vision Learners,
//! <https://arxiv.org/abs/2111.06377>, with mask tokens in the encoder as in SimMIM, <https://arxiv.org/abs/2111.09886>).

use super::{Kind, Plan, Start, draw, folder, locate, through};
use crate::{
    backbone::{Config, Hidden, Pixels, Source, Takes, Vit},
    data::{self, Inputs, table},
    ops::{LayerNorm, Linear},
    train::TrainError,
};
use candle_core::{Device, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// The epsilon of all norms.
const EPSILON: f64 = 1e-5;

/// What to train, and on which images.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    #[serde(default, rename = "kind")]
    _kind: Kind,
    /// The file of images, relative to the recipe. Labels in it are not looked at.
    data: PathBuf,
    /// Images to train on: the first so many of the file's permutation.
    rows: usize,
    /// The permutation's seed.
    split_seed: u64,
    /// Colours of a pixel.
    #[serde(default = "one")]
    channels: usize,
    /// What pixel values are multiplied by.
    rescale_factor: f64,
    steps: usize,
    batch: usize,
    rate: f64,
    /// Share of patches that are hidden.
    mask_share: f64,
    seed: u64,
    backbone: Vec<Shape>,
}

fn one() -> usize {
    1
}

/// One backbone's shape.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shape {
    name: String,
    width: usize,
    depth: usize,
    heads: usize,
    intermediate: usize,
    patch: usize,
    image: usize,
}

impl super::Recipe for Recipe {
    type Shape = Shape;
    type Student = Student;

    fn plan(&self) -> Plan {
        let Self { steps, batch, rate, mask_share, seed, .. } = *self;
        Plan { steps, batch, rate, mask_share, seed }
    }

    fn shapes(&self) -> &[Shape] {
        &self.backbone
    }

    fn name(shape: &Shape) -> &str {
        &shape.name
    }

    fn problem(&self) -> Option<String> {
        if self.rows == 0 {
            return Some("rows must be more than 0".into());
        }
        let problem =
            |shape: &Shape| Some(format!("backbone {}: {}", shape.name, shape.config(self.channels).problem()?));
        self.backbone.iter().find_map(problem)
    }

    fn student(&self, recipe: &Path, shape: &Shape, rng: &mut ChaCha8Rng) -> Result<Student, TrainError> {
        let config = shape.config(self.channels);
        let pixels = Pixels {
            do_rescale: true,
            rescale_factor: self.rescale_factor,
            do_normalize: false,
            image_mean: vec![0.0; self.channels],
            image_std: vec![1.0; self.channels],
        };
        let path = locate(recipe, &self.data)?;
        let images = read(&path, &config)?;
        let count = images.dim(0)?;
        if count < self.rows {
            return Err(TrainError::file(&path, format!("has {count} rows, but the recipe trains on {}", self.rows)));
        }
        let order = heterotune_scenarios::split(count, self.split_seed);
        let rows: Vec<u32> = order.into_iter().take(self.rows).filter_map(|row| u32::try_from(row).ok()).collect();
        let images = images.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?;
        Student::new(config, pixels, self.plan(), &images, rng)
    }
}

/// All images of a file: a table of pixels, whose labels are not looked at, or any other form that data may have.
fn read(path: &Path, config: &Config) -> Result<Tensor, TrainError> {
    let (channels, size) = (config.num_channels, config.image_size);
    if path.extension().is_some_and(|extension| extension == "csv") {
        return Ok(table::parse(path, &table::bytes(path)?, channels * size * size, table::Labels::Ignored)?.pixels);
    }
    let takes = Takes::Pixels { channels, size };
    let reader = data::Reader { takes, tokenizer: None, processor: None, labels: &[] };
    match data::unlabelled(path, &reader)?.0 {
        Inputs::Pixels(pixels) => Ok(pixels),
        Inputs::Tokens(_) => Err(TrainError::file(path, "holds text, but vision transformers learn from images")),
    }
}

impl Shape {
    fn config(&self, channels: usize) -> Config {
        Config {
            model_type: "vit".into(),
            hidden_size: self.width,
            num_hidden_layers: self.depth,
            num_attention_heads: self.heads,
            intermediate_size: self.intermediate,
            hidden_act: "gelu".into(),
            layer_norm_eps: EPSILON,
            image_size: self.image,
            patch_size: self.patch,
            num_channels: channels,
            qkv_bias: true,
            use_swiglu_ffn: false,
        }
    }
}

/// A vision transformer in training.
pub(super) struct Student {
    vit: Vit,
    config: Config,
    pixels: Pixels,
    plan: Plan,
    variables: Vec<(String, Var)>,
    /// What stands for a hidden patch, `[d]`.
    mask: Tensor,
    norm: LayerNorm,
    decoder: Linear,
    /// `[n, patches, values of a patch]`.
    patches: Tensor,
}

impl Student {
    fn new(
        config: Config,
        pixels: Pixels,
        plan: Plan,
        images: &Tensor,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, TrainError> {
        let (width, values) = (config.hidden_size, config.patch_values());
        let mut start = Start { rng, variables: Vec::new() };
        let vit = Vit::assemble(config.clone(), &pixels, &mut start)?;
        let norm = start.layer_norm("layernorm", width, EPSILON)?;
        let mask = start.tensor("mask", &[width])?;
        let decoder = start.linear("decoder", values, width, true)?;
        let patches = vit.patches(images)?;
        Ok(Self { vit, config, pixels, plan, variables: start.variables, mask, norm, decoder, patches })
    }

    /// The mean squared error over the patches that `hidden` `[n, patches, 1]` marks with ones.
    fn painted(&self, patches: &Tensor, hidden: &Tensor) -> candle_core::Result<Tensor> {
        let embedded = self.vit.project(patches)?.broadcast_mul(&(1.0 - hidden)?)?;
        let embedded = (embedded + hidden.broadcast_mul(&self.mask)?)?;
        let placed = Hidden { values: self.vit.place(&embedded)?, lengths: None };
        let tokens = through(&self.vit, placed)?.values;
        let painted = self.decoder.forward(&self.norm.forward(&tokens.narrow(1, 1, patches.dim(1)?)?)?)?;
        let error = (painted - patches)?.sqr()?.mean_keepdim(2)?;
        (error * hidden)?.sum_all()? / hidden.sum_all()?.to_scalar::<f32>()?.max(1.0) as f64
    }
}

impl super::Student for Student {
    fn variables(&self) -> &[(String, Var)] {
        &self.variables
    }

    fn loss(&self, rng: &mut ChaCha8Rng) -> Result<Tensor, TrainError> {
        let (count, places, _) = self.patches.dims3()?;
        let Plan { batch, mask_share, .. } = self.plan;
        let rows = draw(batch, count, rng);
        let hidden = (0..batch * places).map(|_| f32::from(rng.random_bool(mask_share)));
        let hidden = Tensor::from_vec(hidden.collect::<Vec<f32>>(), (batch, places, 1), &Device::Cpu)?;
        let patches = self.patches.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?;
        Ok(self.painted(&patches, &hidden)?)
    }

    fn write(&self, to: &Path) -> Result<(), TrainError> {
        folder::create(to)?;
        folder::write_json(&to.join("config.json"), &self.config, ("architectures", json!(["ViTModel"])))?;
        let processor = ("image_processor_type", json!("ViTImageProcessor"));
        folder::write_json(&to.join("preprocessor_config.json"), &self.pixels, processor)?;
        let kept = self.variables.iter().filter(|(name, _)| name != "mask" && !name.starts_with("decoder."));
        folder::write_weights(to, kept)
    }
}
