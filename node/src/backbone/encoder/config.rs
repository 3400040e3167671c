//! What `config.json` says of an encoder, and what its tensors are called.

use super::super::activation;
use serde::{Deserialize, Serialize};

/// The families' names in `config.json`.
pub(in crate::backbone) const MODEL_TYPES: [&str; 4] = ["bert", "roberta", "xlm-roberta", "distilbert"];

/// The families, as far as they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Bert,
    /// Its positions start after that of padding, and its head has a layer of its own.
    Roberta,
    /// Without token types, and with names of its own.
    Distilbert,
}

impl Family {
    /// What comes before the names of all tensors but those of heads, where anything does.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::Roberta => "roberta.",
            Self::Distilbert => "distilbert.",
        }
    }

    pub(super) fn names(self) -> &'static Names {
        match self {
            Self::Bert | Self::Roberta => &Names {
                layers: "encoder.layer",
                attention: [
                    "attention.self.query",
                    "attention.self.key",
                    "attention.self.value",
                    "attention.output.dense",
                ],
                attention_norm: "attention.output.LayerNorm",
                widen: "intermediate.dense",
                narrow: "output.dense",
                output_norm: "output.LayerNorm",
            },
            Self::Distilbert => &Names {
                layers: "transformer.layer",
                attention: ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"],
                attention_norm: "sa_layer_norm",
                widen: "ffn.lin1",
                narrow: "ffn.lin2",
                output_norm: "output_layer_norm",
            },
        }
    }
}

/// What a block's tensors are called.
pub(super) struct Names {
    /// All blocks.
    pub(super) layers: &'static str,
    /// Query, key, value and output.
    pub(super) attention: [&'static str; 4],
    pub(super) attention_norm: &'static str,
    pub(super) widen: &'static str,
    pub(super) narrow: &'static str,
    pub(super) output_norm: &'static str,
}

/// What `config.json` says, as far as it matters here. DistilBERT's own names are taken as well.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) model_type: String,
    /// Tokens that the embedding knows.
    pub(crate) vocab_size: usize,
    /// Width d.
    #[serde(alias = "dim")]
    pub(crate) hidden_size: usize,
    /// Blocks L.
    #[serde(alias = "n_layers")]
    pub(crate) num_hidden_layers: usize,
    /// Attention heads; they divide the width.
    #[serde(alias = "n_heads")]
    pub(crate) num_attention_heads: usize,
    /// Width of the feed-forward layer.
    #[serde(alias = "hidden_dim")]
    pub(crate) intermediate_size: usize,
    /// The feed-forward layer's nonlinearity.
    #[serde(alias = "activation", default = "gelu")]
    pub(crate) hidden_act: String,
    /// Rows of the position embedding.
    pub(crate) max_position_embeddings: usize,
    /// Rows of the token type embedding, of which only the first is used.
    #[serde(default = "two")]
    pub(crate) type_vocab_size: usize,
    /// The norms' epsilon.
    #[serde(default = "tiny")]
    pub(crate) layer_norm_eps: f64,
    /// The token that fills up shorter texts.
    pub(crate) pad_token_id: Option<usize>,
    /// How places are told apart.
    #[serde(default = "absolute")]
    pub(crate) position_embedding_type: String,
    /// Whether tokens see only those before them.
    #[serde(default)]
    pub(crate) is_decoder: bool,
}

fn gelu() -> String {
    "gelu".into()
}

fn two() -> usize {
    2
}

fn tiny() -> f64 {
    1e-12
}

fn absolute() -> String {
    "absolute".into()
}

impl Config {
    /// The family; `model_type` is one of [`MODEL_TYPES`].
    pub(super) fn family(&self) -> Family {
        match self.model_type.as_str() {
            "roberta" | "xlm-roberta" => Family::Roberta,
            "distilbert" => Family::Distilbert,
            _ => Family::Bert,
        }
    }

    /// What can't be supported, in words; sizes are held against bounds before any weight is read.
    pub(crate) fn problem(&self) -> Option<String> {
        let bounds = [
            ("vocab_size", self.vocab_size, 1 << 20),
            ("hidden_size", self.hidden_size, 8_192),
            ("num_hidden_layers", self.num_hidden_layers, 128),
            ("num_attention_heads", self.num_attention_heads, 128),
            ("intermediate_size", self.intermediate_size, 65_536),
            ("max_position_embeddings", self.max_position_embeddings, 65_536),
            ("type_vocab_size", self.type_vocab_size, 1_024),
        ];
        if let Some((name, value, most)) = bounds.into_iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            return Some(format!("{name} is {value}, but must be from 1 to {most}"));
        }
        if let Err(problem) = activation::named(&self.hidden_act) {
            return Some(problem);
        }
        if self.position_embedding_type != "absolute" {
            let kind = &self.position_embedding_type;
            return Some(format!("position_embedding_type is \"{kind}\", but only \"absolute\" is known"));
        }
        if self.is_decoder {
            return Some("is_decoder is true, but only encoders are known in this family".into());
        }
        if !(0.0..=1.0).contains(&self.layer_norm_eps) {
            return Some(format!("layer_norm_eps is {}, but must be from 0 to 1", self.layer_norm_eps));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let (width, heads) = (self.hidden_size, self.num_attention_heads);
            return Some(format!("hidden_size is {width}, which num_attention_heads, {heads}, does not divide"));
        }
        (self.first_position() >= self.max_position_embeddings).then(|| {
            let (pad, most) = (self.first_position() - 1, self.max_position_embeddings);
            format!("pad_token_id is {pad}, so max_position_embeddings, {most}, leaves no position for a token")
        })
    }

    /// The row of the position embedding that the first token gets.
    pub(super) fn first_position(&self) -> usize {
        match self.family() {
            Family::Roberta => self.pad_token_id.unwrap_or(1).saturating_add(1),
            Family::Bert | Family::Distilbert => 0,
        }
    }

    /// The most tokens of one input.
    pub(super) fn context(&self) -> usize {
        self.max_position_embeddings.saturating_sub(self.first_position())
    }
}
