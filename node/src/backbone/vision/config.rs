//! What `config.json` says of a vision transformer, and what its tensors are called.

use super::super::{BackboneError, activation, parse};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The families' names in `config.json`.
pub(in crate::backbone) const MODEL_TYPES: [&str; 3] = ["vit", "deit", "dinov2"];

/// The most patches of an image.
const PATCHES_MAX: usize = 4_096;

/// The families, as far as they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Vit,
    /// With a second token before the patches, for distillation.
    Deit,
    /// With layer scales, positions for every size, and names of its own.
    Dinov2,
}

impl Family {
    /// What comes before the names of all tensors but those of heads, where anything does.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Vit => "vit.",
            Self::Deit => "deit.",
            Self::Dinov2 => "dinov2.",
        }
    }

    /// The tokens before the patches.
    pub(super) fn specials(self) -> &'static [&'static str] {
        match self {
            Self::Vit | Self::Dinov2 => &["embeddings.cls_token"],
            Self::Deit => &["embeddings.cls_token", "embeddings.distillation_token"],
        }
    }

    pub(super) fn names(self) -> &'static Names {
        match self {
            Self::Vit | Self::Deit => &Names {
                norms: ["layernorm_before", "layernorm_after"],
                scales: None,
                feed: ["intermediate.dense", "output.dense"],
            },
            Self::Dinov2 => &Names {
                norms: ["norm1", "norm2"],
                scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
                feed: ["mlp.fc1", "mlp.fc2"],
            },
        }
    }
}

/// What a block's tensors are called, as far as the families differ.
pub(super) struct Names {
    /// The norms before attention and before the feed-forward layer.
    pub(super) norms: [&'static str; 2],
    /// What the results of these two are multiplied by.
    pub(super) scales: Option<[&'static str; 2]>,
    /// The feed-forward layer's two maps.
    pub(super) feed: [&'static str; 2],
}

/// What `config.json` says, as far as it matters here. Defaults are those of the hub.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The family: "vit", "deit" or "dinov2".
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
    /// The feed-forward layer's nonlinearity.
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
    /// Whether the feed-forward layer is gated (SwiGLU), as in the largest DINOv2.
    #[serde(default, skip_serializing)]
    pub use_swiglu_ffn: bool,
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
}

/// What DINOv2 says otherwise, and its own defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Dinov2 {
    /// Width of the feed-forward layer, in widths of the hidden state.
    mlp_ratio: f64,
    layer_norm_eps: f64,
    patch_size: usize,
}

impl Default for Dinov2 {
    fn default() -> Self {
        Self { mlp_ratio: 4.0, layer_norm_eps: 1e-6, patch_size: 14 }
    }
}

impl Config {
    /// From `text`, the file at `path`.
    pub(super) fn read(path: &Path, text: &str) -> Result<Self, BackboneError> {
        let mut config: Self = parse(path, text)?;
        if config.family() == Family::Dinov2 {
            let Dinov2 { mlp_ratio, layer_norm_eps, patch_size } = parse(path, text)?;
            let wide = (config.hidden_size as f64 * mlp_ratio) as usize;
            // A gated layer has three matrices instead of two, so it is two thirds as wide, in steps of eight.
            let gated = || ((wide as f64 * 2.0 / 3.0) as usize).div_ceil(8) * 8;
            config.intermediate_size = if config.use_swiglu_ffn { gated() } else { wide };
            (config.layer_norm_eps, config.patch_size) = (layer_norm_eps, patch_size);
        }
        match config.problem() {
            Some(problem) => Err(BackboneError::file(path, problem)),
            None => Ok(config),
        }
    }

    /// The family; `model_type` is one of [`MODEL_TYPES`].
    pub(super) fn family(&self) -> Family {
        match self.model_type.as_str() {
            "deit" => Family::Deit,
            "dinov2" => Family::Dinov2,
            _ => Family::Vit,
        }
    }

    /// What can't be supported, in words; sizes are held against bounds before any weight is read.
    pub fn problem(&self) -> Option<String> {
        let bounds = [
            ("hidden_size", self.hidden_size, 8_192),
            ("num_hidden_layers", self.num_hidden_layers, 128),
            ("num_attention_heads", self.num_attention_heads, 128),
            ("the feed-forward layer's width (intermediate_size or mlp_ratio)", self.intermediate_size, 65_536),
            ("image_size", self.image_size, 1_024),
            ("patch_size", self.patch_size, 1_024),
            ("num_channels", self.num_channels, 64),
        ];
        if let Some((name, value, most)) = bounds.into_iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            return Some(format!("{name} is {value}, but must be from 1 to {most}"));
        }
        if let Err(problem) = activation::named(&self.hidden_act) {
            return Some(problem);
        }
        if self.use_swiglu_ffn && self.family() != Family::Dinov2 {
            return Some(format!("use_swiglu_ffn is true, which \"{}\" does not know", self.model_type));
        }
        if !(0.0..=1.0).contains(&self.layer_norm_eps) {
            return Some(format!("layer_norm_eps is {}, but must be from 0 to 1", self.layer_norm_eps));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let (width, heads) = (self.hidden_size, self.num_attention_heads);
            return Some(format!("hidden_size is {width}, which num_attention_heads, {heads}, does not divide"));
        }
        self.size_problem(self.image_size).map(|problem| format!("image_size is {}, {problem}", self.image_size))
    }

    /// Why images can't be `size` pixels high and wide.
    pub(super) fn size_problem(&self, size: usize) -> Option<String> {
        if size == 0 || !size.is_multiple_of(self.patch_size) {
            return Some(format!("which patch_size, {}, does not divide", self.patch_size));
        }
        let patches = (size / self.patch_size).saturating_pow(2);
        (patches > PATCHES_MAX).then(|| format!("so {patches} patches, but there may be at most {PATCHES_MAX}"))
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
