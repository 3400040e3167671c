//! Vision transformers (`model_type` "vit"): An Image is Worth 16x16 Words, <https://arxiv.org/abs/2010.11929>, with the
//! files and tensor names of `ViTModel` and `ViTForImageClassification`.

use super::{
    Backbone, BackboneError, Batch, Hidden, Options, Source, Takes, Weights, parse, read_text, weights::Model,
};
use crate::ops::{LayerNorm, Linear, gelu, softmax};
use candle_core::{D, Device, Result as Computed, Tensor, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The family's name in `config.json`.
pub(super) const MODEL_TYPE: &str = "vit";

/// What `config.json` says, as far as it matters here. Defaults are those of the hub.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The family, "vit".
    pub model_type: String,
    /// Width d.
    #[serde(default = "defaults::hidden_size")]
    pub hidden_size: usize,
    /// Blocks L.
    #[serde(default = "defaults::num_hidden_layers")]
    pub num_hidden_layers: usize,
    /// Attention heads; they divide the width.
    #[serde(default = "defaults::num_hidden_layers")]
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    #[serde(default = "defaults::intermediate_size")]
    pub intermediate_size: usize,
    /// The feed-forward layer's nonlinearity; only "gelu", the one with erf, is known.
    #[serde(default = "defaults::hidden_act")]
    pub hidden_act: String,
    /// The norms' epsilon.
    #[serde(default = "defaults::layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Height and width of an image, in pixels.
    #[serde(default = "defaults::image_size")]
    pub image_size: usize,
    /// Height and width of a patch, in pixels.
    #[serde(default = "defaults::patch_size")]
    pub patch_size: usize,
    /// Colours of a pixel.
    #[serde(default = "defaults::num_channels")]
    pub num_channels: usize,
    /// Whether queries, keys and values have a bias.
    #[serde(default = "defaults::yes")]
    pub qkv_bias: bool,
}

/// The hub's defaults.
mod defaults {
    pub(super) fn hidden_size() -> usize {
        768
    }
    pub(super) fn num_hidden_layers() -> usize {
        12
    }
    pub(super) fn intermediate_size() -> usize {
        3072
    }
    pub(super) fn hidden_act() -> String {
        "gelu".into()
    }
    pub(super) fn layer_norm_eps() -> f64 {
        1e-12
    }
    pub(super) fn image_size() -> usize {
        224
    }
    pub(super) fn patch_size() -> usize {
        16
    }
    pub(super) fn num_channels() -> usize {
        3
    }
    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn rescale_factor() -> f64 {
        1.0 / 255.0
    }
    pub(super) fn half() -> Vec<f64> {
        vec![0.5; 3]
    }
}

impl Config {
    /// What can't be supported, in words; sizes are held against bounds before any weight is read.
    pub fn problem(&self) -> Option<String> {
        let bounds = [
            ("hidden_size", self.hidden_size, 8_192),
            ("num_hidden_layers", self.num_hidden_layers, 128),
            ("num_attention_heads", self.num_attention_heads, 128),
            ("intermediate_size", self.intermediate_size, 65_536),
            ("image_size", self.image_size, 1_024),
            ("patch_size", self.patch_size, 1_024),
            ("num_channels", self.num_channels, 64),
        ];
        if let Some((name, value, most)) = bounds.into_iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            return Some(format!("{name} is {value}, but must be from 1 to {most}"));
        }
        if self.model_type != MODEL_TYPE {
            return Some(format!("model_type is \"{}\", but must be \"{MODEL_TYPE}\"", self.model_type));
        }
        if self.hidden_act != "gelu" {
            return Some(format!("hidden_act is \"{}\", but only \"gelu\" is known", self.hidden_act));
        }
        if !(0.0..=1.0).contains(&self.layer_norm_eps) {
            return Some(format!("layer_norm_eps is {}, but must be from 0 to 1", self.layer_norm_eps));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let (width, heads) = (self.hidden_size, self.num_attention_heads);
            return Some(format!("hidden_size is {width}, which num_attention_heads, {heads}, does not divide"));
        }
        if !self.image_size.is_multiple_of(self.patch_size) {
            let (image, patch) = (self.image_size, self.patch_size);
            return Some(format!("image_size is {image}, which patch_size, {patch}, does not divide"));
        }
        (self.patches() > 4_096).then(|| format!("an image has {} patches, but may have at most 4096", self.patches()))
    }

    /// Patches of an image.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Numbers of a patch.
    pub fn patch_values(&self) -> usize {
        self.num_channels * self.patch_size * self.patch_size
    }
}

/// What `preprocessor_config.json` says about pixel values. Resizing is not done: inputs come in the model's size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pixels {
    /// Whether values are multiplied by the factor.
    #[serde(default = "defaults::yes")]
    pub do_rescale: bool,
    /// The factor.
    #[serde(default = "defaults::rescale_factor")]
    pub rescale_factor: f64,
    /// Whether mean and deviation are used after that.
    #[serde(default = "defaults::yes")]
    pub do_normalize: bool,
    /// A mean for every channel.
    #[serde(default = "defaults::half")]
    pub image_mean: Vec<f64>,
    /// A deviation for every channel.
    #[serde(default = "defaults::half")]
    pub image_std: Vec<f64>,
}

impl Pixels {
    /// A factor and a shift `[channels, 1]`.
    fn tensors(&self, channels: usize) -> Result<(Tensor, Tensor), String> {
        let factor = if self.do_rescale { self.rescale_factor } else { 1.0 };
        let (mean, deviation) = match self.do_normalize {
            true => (self.image_mean.clone(), self.image_std.clone()),
            false => (vec![0.0; channels], vec![1.0; channels]),
        };
        if mean.len() != channels || deviation.len() != channels {
            return Err(format!("image_mean and image_std must have {channels} numbers, one for each channel"));
        }
        let scale: Vec<f32> = deviation.iter().map(|deviation| (factor / deviation) as f32).collect();
        let shift: Vec<f32> = mean.iter().zip(&deviation).map(|(mean, std)| (-mean / std) as f32).collect();
        if !scale.iter().chain(&shift).all(|value| value.is_finite()) {
            return Err("rescale_factor, image_mean and image_std do not give finite numbers".into());
        }
        let tensor = |values| Tensor::from_vec(values, (channels, 1), &Device::Cpu).map_err(|error| error.to_string());
        Ok((tensor(scale)?, tensor(shift)?))
    }
}

/// A vision transformer without its last norm and head.
pub struct Vit {
    config: Config,
    scale: Tensor,
    shift: Tensor,
    patch: Linear,
    class: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    parameters: usize,
}

impl Vit {
    /// Reads `config.json`, `preprocessor_config.json` and `model.safetensors`.
    ///
    /// # Errors
    /// A configuration that is not supported, files or tensors that are missing or damaged.
    pub fn load(folder: &Path, options: Options) -> Result<Self, BackboneError> {
        let path = folder.join("config.json");
        let mut config: Config = parse(&path, &read_text(&path)?)?;
        if let Some(problem) = config.problem() {
            return Err(BackboneError::file(&path, problem));
        }
        config.num_hidden_layers = options.depth(&path, config.num_hidden_layers)?;
        let path = folder.join("preprocessor_config.json");
        let pixels: Pixels = parse(&path, &read_text(&path)?)?;
        pixels.tensors(config.num_channels).map_err(|problem| BackboneError::file(&path, problem))?;
        let weights = Weights::open(&folder.join("model.safetensors"))?;
        let prefix = if weights.has("vit.embeddings.cls_token") { "vit." } else { "" };
        let mut source = Model::new(&weights, prefix);
        let mut vit = Self::assemble(config, &pixels, &mut source)?;
        vit.parameters = source.parameters;
        Ok(vit)
    }

    /// Puts a model together from the weights that `source` gives. It is trained where these are variables.
    ///
    /// # Errors
    /// Those of the source, and weights that do not fit.
    pub fn assemble<S: Source>(config: Config, pixels: &Pixels, source: &mut S) -> Result<Self, S::Error> {
        let (width, side) = (config.hidden_size, config.patch_size);
        let (scale, shift) = pixels.tensors(config.num_channels).map_err(candle_core::Error::Msg)?;
        let class = source.tensor("embeddings.cls_token", &[1, 1, width])?;
        let positions = source.tensor("embeddings.position_embeddings", &[1, config.patches() + 1, width])?;
        let name = "embeddings.patch_embeddings.projection";
        let weight = source.tensor(&format!("{name}.weight"), &[width, config.num_channels, side, side])?;
        let patch = Linear::new(weight.flatten_from(1)?, Some(source.tensor(&format!("{name}.bias"), &[width])?))?;
        let blocks = (0..config.num_hidden_layers).map(|index| Block::assemble(&config, index, source));
        let blocks = blocks.collect::<Result<_, S::Error>>()?;
        Ok(Self { config, scale, shift, patch, class, positions, blocks, parameters: 0 })
    }

    /// Rescaled pixels `[n, patches, values of a patch]`, from raw ones `[n, channels x height x width]`.
    ///
    /// # Errors
    /// Inputs of another shape.
    pub fn patches(&self, inputs: &Tensor) -> Computed<Tensor> {
        let (images, values) = inputs.dims2()?;
        let expected = self.config.num_channels * self.config.image_size * self.config.image_size;
        if values != expected {
            bail!("an image of {values} values, but the backbone takes {expected}");
        }
        let (channels, patch) = (self.config.num_channels, self.config.patch_size);
        let grid = self.config.image_size / patch;
        inputs
            .reshape((images, channels, values / channels))?
            .broadcast_mul(&self.scale)?
            .broadcast_add(&self.shift)?
            .reshape(vec![images, channels, grid, patch, grid, patch])?
            .permute(vec![0, 2, 4, 1, 3, 5])?
            .reshape((images, grid * grid, self.config.patch_values()))
    }

    /// Patches, embedded one by one: `[n, patches, values of a patch]` to `[n, patches, d]`.
    ///
    /// # Errors
    /// Patches of another shape.
    pub fn project(&self, patches: &Tensor) -> Computed<Tensor> {
        self.patch.forward(patches)
    }

    /// Puts the class token before embedded patches and adds positions: `[n, patches, d]` to `[n, tokens, d]`.
    ///
    /// # Errors
    /// Another number of patches.
    pub fn place(&self, embedded: &Tensor) -> Computed<Tensor> {
        let class = self.class.broadcast_as((embedded.dim(0)?, 1, self.config.hidden_size))?;
        Tensor::cat(&[&class, embedded], 1)?.broadcast_add(&self.positions)
    }
}

impl Backbone for Vit {
    fn model_type(&self) -> &str {
        MODEL_TYPE
    }

    fn width(&self) -> usize {
        self.config.hidden_size
    }

    fn depth(&self) -> usize {
        self.blocks.len()
    }

    fn takes(&self) -> Takes {
        Takes::Pixels { channels: self.config.num_channels, size: self.config.image_size }
    }

    fn tokens(&self) -> usize {
        self.config.patches() + 1
    }

    fn parameters(&self) -> usize {
        self.parameters
    }

    fn embed(&self, batch: &Batch) -> Computed<Hidden> {
        let Batch::Pixels(pixels) = batch else { bail!("a vision transformer takes images, not text") };
        Ok(Hidden { values: self.place(&self.project(&self.patches(pixels)?)?)?, lengths: None })
    }

    fn block(&self, index: usize, hidden: &Hidden) -> Computed<Tensor> {
        match self.blocks.get(index) {
            Some(block) => block.forward(&hidden.values),
            None => bail!("block {index} of {}", self.blocks.len()),
        }
    }

    /// The mean over the patches. The class token is left out: only classifiers train it, and many models are none.
    fn pool(&self, hidden: &Hidden) -> Computed<Tensor> {
        hidden.mean(1)
    }
}

/// One pre-norm transformer block.
struct Block {
    heads: usize,
    norm_before: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm_after: LayerNorm,
    widen: Linear,
    narrow: Linear,
}

impl Block {
    fn assemble<S: Source>(config: &Config, index: usize, source: &mut S) -> Result<Self, S::Error> {
        let (width, inner, epsilon) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let name = |name: &str| format!("encoder.layer.{index}.{name}");
        Ok(Self {
            heads: config.num_attention_heads,
            query: source.linear(&name("attention.attention.query"), width, width, config.qkv_bias)?,
            key: source.linear(&name("attention.attention.key"), width, width, config.qkv_bias)?,
            value: source.linear(&name("attention.attention.value"), width, width, config.qkv_bias)?,
            output: source.linear(&name("attention.output.dense"), width, width, true)?,
            widen: source.linear(&name("intermediate.dense"), inner, width, true)?,
            narrow: source.linear(&name("output.dense"), width, inner, true)?,
            norm_before: source.layer_norm(&name("layernorm_before"), width, epsilon)?,
            norm_after: source.layer_norm(&name("layernorm_after"), width, epsilon)?,
        })
    }

    fn forward(&self, hidden: &Tensor) -> Computed<Tensor> {
        let hidden = (hidden + self.attend(&self.norm_before.forward(hidden)?)?)?;
        let inner = gelu(&self.widen.forward(&self.norm_after.forward(&hidden)?)?)?;
        hidden + self.narrow.forward(&inner)?
    }

    fn attend(&self, x: &Tensor) -> Computed<Tensor> {
        let (images, tokens, width) = x.dims3()?;
        let size = width / self.heads;
        let split = |y: Tensor| y.reshape((images, tokens, self.heads, size))?.transpose(1, 2)?.contiguous();
        let query = (split(self.query.forward(x)?)? * (size as f64).powf(-0.5))?;
        let (key, value) = (split(self.key.forward(x)?)?, split(self.value.forward(x)?)?);
        let weights = softmax(&query.matmul(&key.transpose(D::Minus2, D::Minus1)?)?)?;
        self.output.forward(&weights.matmul(&value)?.transpose(1, 2)?.reshape((images, tokens, width))?)
    }
}
