//! The models that steps are measured with.

use serde::Serialize;
use serde_json::{Value, json};

/// A model's shape, and the batch that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// A language model of 15 M weights, as stories15M: 6 layers of 288, 32,000 tokens; batches of 8 x 128.
    Decoder,
    /// A text encoder of 22 M weights, as MiniLM-L6: 6 layers of 384; batches of 32 x 64.
    Encoder,
    /// A vision transformer of 22 M weights, as ViT-S/16: 12 layers of 384; batches of 8 pictures of 224 x 224.
    Vit,
}

impl Shape {
    /// `config.json`, as the hub has it.
    pub fn config(self) -> Value {
        match self {
            Self::Decoder => json!({
                "model_type": "llama", "hidden_size": 288, "num_hidden_layers": 6, "num_attention_heads": 6,
                "num_key_value_heads": 6, "intermediate_size": 768, "vocab_size": 32_000, "rope_theta": 10_000.0,
                "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": true,
            }),
            Self::Encoder => json!({
                "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
                "intermediate_size": 1_536, "vocab_size": 30_522, "max_position_embeddings": 512, "type_vocab_size": 2,
                "layer_norm_eps": 1e-12, "hidden_act": "gelu",
            }),
            Self::Vit => json!({
                "model_type": "vit", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6,
                "intermediate_size": 1_536, "image_size": 224, "patch_size": 16, "num_channels": 3, "qkv_bias": true,
                "layer_norm_eps": 1e-12, "hidden_act": "gelu",
            }),
        }
    }

    /// Samples of a batch.
    pub fn batch(self) -> usize {
        match self {
            Self::Decoder | Self::Vit => 8,
            Self::Encoder => 32,
        }
    }

    /// Tokens of a text, or values of a picture.
    pub fn values(self) -> usize {
        match self {
            Self::Decoder => 128,
            Self::Encoder => 64,
            Self::Vit => 3 * 224 * 224,
        }
    }
}
