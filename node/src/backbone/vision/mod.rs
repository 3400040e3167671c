//! Vision transformers: ViT, <https://arxiv.org/abs/2010.11929>, DeiT, <https://arxiv.org/abs/2012.12877>, and DINOv2,
//! <https://arxiv.org/abs/2304.07193>: one model, described by its configuration, with the files and tensor names that
//! the hub has for them.

mod block;
mod config;
mod head;
mod positions;

pub use config::Config;
pub(super) use config::MODEL_TYPES;

use super::{Backbone, BackboneError, Batch, Hidden, Options, Source, Takes, Weights, block::Block, weights::Model};
use super::{Pixels, processor, read_text};
use crate::ops::Linear;
use candle_core::{DType, Device, Result as Computed, Tensor, bail};
use config::Family;
use head::Head;
use std::path::Path;

/// A vision transformer.
pub struct Vit {
    config: Config,
    scale: Tensor,
    shift: Tensor,
    patch: Linear,
    /// The tokens before the patches, `[1, specials, d]`.
    class: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    /// With the last norm, which nothing else needs.
    head: Option<Head>,
    parameters: usize,
}

impl Vit {
    /// Reads `config.json`, `preprocessor_config.json` and the weights.
    ///
    /// # Errors
    /// A configuration that is not supported, files or tensors that are missing or damaged.
    pub fn load(folder: &Path, options: Options) -> Result<Self, BackboneError> {
        let path = folder.join("config.json");
        let text = read_text(&path)?;
        let mut config = Config::read(&path, &text)?;
        let (depth, all) = (options.depth(&path, config.num_hidden_layers)?, config.num_hidden_layers);
        config.num_hidden_layers = depth;
        let pixels = Pixels::read(folder, config.num_channels)?;
        let size = input_size(folder, &config)?;
        let weights = Weights::folder(folder)?.placed(options.place()?);
        let prefix = config.family().prefix();
        let prefix = if weights.has(&format!("{prefix}embeddings.cls_token")) { prefix } else { "" };
        let mut source = Model::new(&weights, prefix).packing();
        let mut vit = Self::assemble(config, &pixels, &mut source)?;
        vit.parameters = source.parameters;
        if depth == all {
            vit.head = Head::read(&vit.config, (&path, &text), prefix, &weights)?;
        }
        if size != vit.config.image_size {
            vit.resize(size)?;
        }
        Ok(vit)
    }

    /// Takes images of another size from now on.
    fn resize(&mut self, size: usize) -> Computed<()> {
        let patch = self.config.patch_size;
        let (before, after) = (self.config.image_size / patch, size / patch);
        let positions = self.positions.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let positions = positions::interpolate(&positions, self.specials(), before, after)?;
        self.positions = self.like_weights(&positions)?;
        self.config.image_size = size;
        Ok(())
    }

    /// A tensor as the weights are kept.
    fn like_weights(&self, tensor: &Tensor) -> Computed<Tensor> {
        tensor.to_dtype(self.class.dtype())?.to_device(self.class.device())
    }

    /// How many tokens stand before the patches.
    fn specials(&self) -> usize {
        self.config.family().specials().len()
    }

    /// Puts a model together from the weights that `source` gives. It is trained where these are variables.
    ///
    /// # Errors
    /// Those of the source, and weights that do not fit.
    pub fn assemble<S: Source>(config: Config, pixels: &Pixels, source: &mut S) -> Result<Self, S::Error> {
        let (width, side) = (config.hidden_size, config.patch_size);
        let (scale, shift) = pixels.tensors(config.num_channels).map_err(candle_core::Error::Msg)?;
        let specials = config.family().specials().iter().map(|name| source.tensor(name, &[1, 1, width]));
        let class = Tensor::cat(&specials.collect::<Result<Vec<_>, S::Error>>()?, 1)?;
        let tokens = class.dim(1)? + config.patches();
        let positions = source.tensor("embeddings.position_embeddings", &[1, tokens, width])?;
        let name = "embeddings.patch_embeddings.projection";
        let weight = source.tensor(&format!("{name}.weight"), &[width, config.num_channels, side, side])?;
        let patch = Linear::new(weight.flatten_from(1)?, Some(source.tensor(&format!("{name}.bias"), &[width])?))?;
        let blocks = (0..config.num_hidden_layers).map(|index| block::assemble(&config, index, source));
        let blocks = blocks.collect::<Result<_, S::Error>>()?;
        Ok(Self { config, scale, shift, patch, class, positions, blocks, head: None, parameters: 0 })
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
        self.patch.forward(&self.like_weights(patches)?)
    }

    /// Puts the class token (and what the family has besides) before embedded patches and adds positions: `[n, patches, d]` to `[n, tokens, d]`.
    ///
    /// # Errors
    /// Another number of patches.
    pub fn place(&self, embedded: &Tensor) -> Computed<Tensor> {
        let class = self.class.broadcast_as((embedded.dim(0)?, self.specials(), self.config.hidden_size))?;
        Tensor::cat(&[&class, embedded], 1)?.broadcast_add(&self.positions)
    }
}

impl Backbone for Vit {
    fn model_type(&self) -> &str {
        &self.config.model_type
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
        self.config.patches() + self.specials()
    }

    fn device(&self) -> &Device {
        self.class.device()
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
            Some(block) => block.forward(&hidden.values, hidden.lengths.as_ref()),
            None => bail!("block {index} of {}", self.blocks.len()),
        }
    }

    /// The mean over the patches. The class token is left out: only classifiers train it, and many models are none.
    fn pool(&self, hidden: &Hidden) -> Computed<Tensor> {
        hidden.mean(self.specials())
    }

    fn head(&self) -> super::Head {
        match &self.head {
            Some(head) => super::Head::Classes(head.names().to_vec()),
            None => super::Head::None,
        }
    }

    fn logits(&self, hidden: &Hidden) -> Computed<Tensor> {
        match &self.head {
            Some(head) => head.logits(&hidden.values)?.to_dtype(DType::F32),
            None => bail!("the backbone has no head"),
        }
    }
}

/// The size of images, in pixels, as the folder's processor makes them. Only DINOv2 has positions for other sizes than the
/// configuration's.
fn input_size(folder: &Path, config: &Config) -> Result<usize, BackboneError> {
    let refuse = |problem: String| Err(BackboneError::file(&folder.join(processor::FILE), problem));
    match super::processor(folder)?.and_then(|processor| processor.output()) {
        None => Ok(config.image_size),
        Some((height, width)) if height != width => {
            refuse(format!("makes images of {height} x {width} pixels, but only square ones are known"))
        }
        Some((size, _)) if size != config.image_size && config.family() != Family::Dinov2 => {
            let must = config.image_size;
            refuse(format!("makes images of {size} x {size} pixels, but image_size in config.json is {must}"))
        }
        Some((size, _)) => match config.size_problem(size) {
            Some(problem) => refuse(format!("makes images of {size} x {size} pixels, {problem}")),
            None => Ok(size),
        },
    }
}

#[cfg(test)]
mod tests;
