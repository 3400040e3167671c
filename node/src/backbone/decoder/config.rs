//! What `config.json` says of a decoder: read as it is written, and resolved into what the blocks need.

use super::rope::Rope;
use crate::ops::{Activation, Rotary};
use serde::{Deserialize, Deserializer};

/// The families' names in `config.json`.
pub(in crate::backbone) const FAMILIES: [&str; 7] =
    ["llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text"];

/// A configuration as it is written.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Written {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    /// Gemma's name of `hidden_act`.
    hidden_activation: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    sliding_window: Option<Option<usize>>,
    use_sliding_window: Option<bool>,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
    use_bidirectional_attention: Option<bool>,
    query_pre_attn_scalar: Option<f64>,
    #[serde(default, deserialize_with = "given")]
    attn_logit_softcapping: Option<Option<f64>>,
    #[serde(default, deserialize_with = "given")]
    final_logit_softcapping: Option<Option<f64>>,
    quantization_config: Option<serde::de::IgnoredAny>,
    #[serde(flatten)]
    rope: Rope,
}

/// Tells a field that is null from one that is not there.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A configuration in which nothing is left open.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) family: &'static str,
    /// Tokens of the embedding.
    pub(super) vocabulary: usize,
    /// The most tokens of a text.
    pub(super) context: usize,
    /// Width d.
    pub(super) width: usize,
    /// Width of the feed-forward layer.
    pub(super) inner: usize,
    pub(super) heads: usize,
    /// Heads of keys and values.
    pub(super) groups: usize,
    /// Values of a head.
    pub(super) size: usize,
    /// The norms' epsilon.
    pub(super) epsilon: f64,
    pub(super) activation: Activation,
    /// What queries' and keys' products are multiplied by.
    pub(super) scale: f32,
    /// Of attention scores.
    pub(super) softcap: Option<f32>,
    /// Of logits.
    pub(super) logits_softcap: Option<f64>,
    /// What embedded tokens are multiplied by.
    pub(super) embedding_scale: Option<f64>,
    /// Biases of queries, keys and values.
    pub(super) qkv_bias: bool,
    /// Bias of the attention's output.
    pub(super) output_bias: bool,
    /// Biases of the feed-forward layer.
    pub(super) mlp_bias: bool,
    /// Whether matrices with the same input are kept as one.
    pub(super) fused: bool,
    /// Whether queries and keys are normalised, head by head.
    pub(super) head_norms: bool,
    /// Whether norms' weights are kept as differences from one, and stand behind attention and feed-forward layer too.
    pub(super) gemma: bool,
    /// Whether the embedding is the head's matrix.
    pub(super) tied: bool,
    /// What differs from block to block.
    pub(super) layers: Vec<Layer>,
}

/// One block's attention.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) window: Option<usize>,
    pub(super) rotary: Rotary,
}

impl Written {
    /// The configuration with everything resolved, or what can't be used.
    pub(super) fn resolve(self) -> Result<Config, String> {
        let family = FAMILIES.into_iter().find(|family| *family == self.model_type);
        let family = family.ok_or_else(|| format!("model_type is \"{}\", which is no decoder's", self.model_type))?;
        self.check_sizes()?;
        self.check_numbers()?;
        self.check_options()?;
        let gemma = self.gemma();
        let bias = self.attention_bias.unwrap_or(false);
        let size = self.size();
        let scalar = self.query_pre_attn_scalar.filter(|_| gemma).unwrap_or(if gemma { 256.0 } else { size as f64 });
        let softcap = self.attn_logit_softcapping.unwrap_or((family == "gemma2").then_some(50.0));
        let logits_softcap = self.final_logit_softcapping.unwrap_or((family == "gemma2").then_some(30.0));
        Ok(Config {
            family,
            vocabulary: self.vocab_size,
            context: self.max_position_embeddings,
            width: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            groups: self.groups(),
            size,
            epsilon: self.epsilon(),
            activation: self.activation(gemma)?,
            scale: scalar.powf(-0.5) as f32,
            softcap: softcap.map(|cap| cap as f32),
            logits_softcap,
            embedding_scale: gemma.then(|| f64::from((self.hidden_size as f32).sqrt())),
            qkv_bias: bias || family == "qwen2",
            output_bias: bias,
            mlp_bias: self.mlp_bias.unwrap_or(false),
            fused: family == "phi3",
            head_norms: matches!(family, "qwen3" | "gemma3_text"),
            gemma,
            tied: self.tie_word_embeddings.unwrap_or(gemma),
            layers: self.layers(family)?,
        })
    }

    fn gemma(&self) -> bool {
        matches!(self.model_type.as_str(), "gemma2" | "gemma3_text")
    }

    fn size(&self) -> usize {
        self.head_dim.unwrap_or_else(|| self.hidden_size.checked_div(self.num_attention_heads).unwrap_or(0))
    }

    fn groups(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn epsilon(&self) -> f64 {
        self.rms_norm_eps.unwrap_or(1e-6)
    }

    /// Refuses sizes that make no sense.
    fn check_sizes(&self) -> Result<(), String> {
        let (heads, groups) = (self.num_attention_heads, self.groups());
        let bounds = [
            ("vocab_size", self.vocab_size, 1 << 21),
            ("hidden_size", self.hidden_size, 1 << 16),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("num_hidden_layers", self.num_hidden_layers, 1_024),
            ("num_attention_heads", heads, 1_024),
            ("num_key_value_heads", groups, 1_024),
            ("head_dim", self.size(), 1 << 12),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 24),
            ("sliding_window", self.sliding_window.flatten().unwrap_or(1), 1 << 30),
            ("sliding_window_pattern", self.sliding_window_pattern.unwrap_or(1), 1_024),
        ];
        if let Some((name, value, most)) = bounds.into_iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            return Err(format!("{name} is {value}, but must be from 1 to {most}"));
        }
        if !heads.is_multiple_of(groups) {
            return Err(format!(
                "num_attention_heads is {heads}, which num_key_value_heads, {groups}, does not divide"
            ));
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(heads) {
            let width = self.hidden_size;
            return Err(format!("hidden_size is {width}, which num_attention_heads, {heads}, does not divide"));
        }
        Ok(())
    }

    /// Refuses other numbers that make no sense.
    fn check_numbers(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.epsilon()) {
            return Err(format!("rms_norm_eps is {}, but must be from 0 to 1", self.epsilon()));
        }
        let positive = [
            ("query_pre_attn_scalar", self.query_pre_attn_scalar),
            ("attn_logit_softcapping", self.attn_logit_softcapping.flatten()),
            ("final_logit_softcapping", self.final_logit_softcapping.flatten()),
        ];
        match positive.into_iter().find(|(_, value)| value.is_some_and(|value| !(value.is_finite() && value > 0.0))) {
            Some((name, value)) => Err(format!("{name} is {}, but must be more than 0", value.unwrap_or_default())),
            None => Ok(()),
        }
    }

    /// Refuses what would have to be computed otherwise.
    fn check_options(&self) -> Result<(), String> {
        let refused = [
            ("use_sliding_window", self.use_sliding_window == Some(true)),
            ("use_bidirectional_attention", self.use_bidirectional_attention == Some(true)),
            ("quantization_config", self.quantization_config.is_some()),
            ("attn_logit_softcapping", self.attn_logit_softcapping.flatten().is_some() && self.model_type != "gemma2"),
            ("final_logit_softcapping", self.final_logit_softcapping.flatten().is_some() && !self.gemma()),
        ];
        match refused.into_iter().find(|(_, is)| *is) {
            Some((name, _)) => {
                let family = &self.model_type;
                Err(format!("{name} is set, which is not supported with model_type \"{family}\"; take another model"))
            }
            None => Ok(()),
        }
    }

    fn activation(&self, gemma: bool) -> Result<Activation, String> {
        // Gemma's first configurations say "gelu" in hidden_act and mean the other one, as hidden_activation says.
        let name = if gemma { self.hidden_activation.as_ref() } else { self.hidden_act.as_ref() };
        match name.map_or(if gemma { "gelu_pytorch_tanh" } else { "silu" }, String::as_str) {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
            other => Err(format!("hidden_act is \"{other}\", but only \"silu\" and \"gelu_pytorch_tanh\" are known")),
        }
    }

    fn layers(&self, family: &str) -> Result<Vec<Layer>, String> {
        let theta = (family == "gemma3_text").then_some(1_000_000.0);
        let full = self.rope.full(self.size(), theta)?;
        let local = if family == "gemma3_text" { self.rope.local(self.size())? } else { full.clone() };
        let window = match family {
            "mistral" | "phi3" => self.sliding_window.flatten(),
            "gemma2" | "gemma3_text" => self.sliding_window.unwrap_or(Some(4_096)),
            _ => None,
        };
        let slides = self.slides(family)?;
        Ok(slides
            .into_iter()
            .map(|slides| match slides {
                true => Layer { window, rotary: local.clone() },
                false => Layer { window: None, rotary: full.clone() },
            })
            .collect())
    }

    /// Which layers see a window only.
    fn slides(&self, family: &str) -> Result<Vec<bool>, String> {
        let depth = self.num_hidden_layers;
        if let Some(kinds) = self.layer_types.as_ref().filter(|_| !matches!(family, "mistral" | "phi3")) {
            let slides = kinds.iter().map(|kind| match kind.as_str() {
                "full_attention" => Ok(false),
                "sliding_attention" => Ok(true),
                other => Err(format!("layer_types has \"{other}\", but only full and sliding attention are known")),
            });
            let slides = slides.collect::<Result<Vec<_>, _>>()?;
            return match slides.len() {
                len if len == depth => Ok(slides),
                len => Err(format!("layer_types names {len} layers, but num_hidden_layers is {depth}")),
            };
        }
        let every = match family {
            "mistral" | "phi3" => return Ok(vec![true; depth]),
            "gemma2" => 2,
            "gemma3_text" => self.sliding_window_pattern.unwrap_or(6),
            _ => return Ok(vec![false; depth]),
        };
        Ok((1..=depth).map(|layer| !layer.is_multiple_of(every)).collect())
    }
}
