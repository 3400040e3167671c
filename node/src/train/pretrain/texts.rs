//! Text encoders that learn to tell hidden tokens, as BERT did: <https://arxiv.org/abs/1810.04805>.

use super::{Kind, Plan, Start, draw, folder, through};
use crate::{
    backbone::{Backbone, Encoder, EncoderConfig, Source, Takes},
    data::{self, Inputs, Tokenizer},
    ops::{LayerNorm, Linear, gelu},
    train::TrainError,
};
use candle_core::{Device, Result as Computed, Tensor, Var};
use rand::{Rng, seq::index};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// The epsilon of all norms.
const EPSILON: f64 = 1e-12;
/// What the names of the head's weights begin with: only pretraining needs them.
const HEAD: &str = "cls.";
/// The fewest tokens that a context must have room for: two around a text, and some to tell one from the others.
const CONTEXT_MIN: usize = 8;
/// The files of a tokenizer.
const TOKENIZER: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

/// What to train, and on which texts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    #[serde(rename = "kind")]
    _kind: Kind,
    /// The files of texts, relative to the recipe. Labels in them are not looked at.
    texts: Vec<PathBuf>,
    /// The folder with the tokenizer's files, relative to the recipe; they are copied beside the weights.
    tokenizer: PathBuf,
    steps: usize,
    /// Pieces of texts in a step.
    batch: usize,
    rate: f64,
    /// Share of a piece's tokens that are to be told.
    mask_share: f64,
    seed: u64,
    backbone: Vec<Shape>,
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
    /// The most tokens of a text; longer ones are learnt from piece by piece.
    context: usize,
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
        if self.texts.is_empty() {
            return Some("texts must name a file".into());
        }
        self.backbone.iter().find_map(|shape| {
            let short = (shape.context < CONTEXT_MIN).then(|| format!("context must be {CONTEXT_MIN} or more"));
            // The tokenizer, which is not read yet, says how many tokens there are.
            let problem = short.or_else(|| shape.config(1).problem())?;
            Some(format!("backbone {}: {problem}", shape.name))
        })
    }

    fn student(&self, folder: &Path, shape: &Shape, rng: &mut ChaCha8Rng) -> Result<Student, TrainError> {
        let locate = |path: &Path| {
            heterotune_scenarios::locate(folder, path).map_err(|error| TrainError::Value(error.to_string()))
        };
        let folder = locate(&self.tokenizer)?;
        let tokenizer = Tokenizer::open(&folder)?;
        let special = Special::of(&tokenizer).ok_or_else(|| {
            let problem = "names no cls_token, sep_token and mask_token, which BERT has: whose tokenizer is it?";
            TrainError::file(&folder.join("special_tokens_map.json"), problem)
        })?;
        let mut pieces = Vec::new();
        for path in &self.texts {
            pieces.extend(read(&locate(path)?, &tokenizer, special, shape.context)?);
        }
        let config = shape.config(tokenizer.tokens());
        if let Some(problem) = config.problem() {
            return Err(TrainError::file(&folder.join("tokenizer.json"), problem));
        }
        Student::new(config, folder, self.plan(), special, pieces, rng)
    }
}

impl Shape {
    fn config(&self, vocabulary: usize) -> EncoderConfig {
        EncoderConfig {
            model_type: "bert".into(),
            vocab_size: vocabulary,
            hidden_size: self.width,
            num_hidden_layers: self.depth,
            num_attention_heads: self.heads,
            intermediate_size: self.intermediate,
            hidden_act: "gelu".into(),
            max_position_embeddings: self.context,
            type_vocab_size: 1,
            layer_norm_eps: EPSILON,
            pad_token_id: Some(0),
            position_embedding_type: "absolute".into(),
            is_decoder: false,
        }
    }
}

/// The special tokens of BERT.
#[derive(Clone, Copy, Debug)]
struct Special {
    first: u32,
    last: u32,
    mask: u32,
}

impl Special {
    fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let id = |name| tokenizer.special_id(name);
        Some(Self { first: id("cls_token")?, last: id("sep_token")?, mask: id("mask_token")? })
    }

    fn has(self, token: u32) -> bool {
        [self.first, self.last, self.mask].contains(&token)
    }
}

/// A file's texts in pieces of at most `context` tokens, all about equally long, each between the special tokens.
fn read(path: &Path, tokenizer: &Tokenizer, special: Special, context: usize) -> Result<Vec<Vec<u32>>, TrainError> {
    let takes = Takes::Tokens { vocabulary: tokenizer.tokens(), context: usize::MAX };
    let reader = data::Reader { takes, tokenizer: Some(tokenizer), processor: None, labels: &[] };
    let Inputs::Tokens(texts) = data::unlabelled(path, &reader)?.0 else {
        return Err(TrainError::file(path, "holds images, but text encoders learn from texts"));
    };
    let mut pieces = Vec::new();
    for text in texts {
        let own: Vec<u32> = text.into_iter().filter(|token| !special.has(*token)).collect();
        let size = own.len().div_ceil(own.len().div_ceil(context - 2).max(1)).max(1);
        let whole = |piece: &[u32]| [&[special.first], piece, &[special.last]].concat();
        pieces.extend(own.chunks(size).map(whole));
    }
    match pieces.is_empty() {
        true => Err(TrainError::file(path, "has no text to learn from")),
        false => Ok(pieces),
    }
}

/// Pieces of which some tokens are hidden, and what these were.
struct Masked {
    pieces: Inputs,
    /// Places among all, `piece x longest + token`.
    places: Vec<u32>,
    tokens: Vec<u32>,
}

/// A text encoder in training, with BERT's head: a layer, then the embedding of tokens once more.
pub(super) struct Student {
    pub(super) encoder: Encoder,
    config: EncoderConfig,
    /// Where the tokenizer's files are.
    tokenizer: PathBuf,
    plan: Plan,
    special: Special,
    pub(super) pieces: Vec<Vec<u32>>,
    variables: Vec<(String, Var)>,
    dense: Linear,
    norm: LayerNorm,
    output: Linear,
}

impl Student {
    fn new(
        config: EncoderConfig,
        tokenizer: PathBuf,
        plan: Plan,
        special: Special,
        pieces: Vec<Vec<u32>>,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, TrainError> {
        let width = config.hidden_size;
        let mut start = Start { rng, variables: Vec::new() };
        let encoder = Encoder::assemble(config.clone(), &mut start)?;
        let dense = start.linear(&format!("{HEAD}dense"), width, width, true)?;
        let norm = start.layer_norm(&format!("{HEAD}LayerNorm"), width, EPSILON)?;
        let bias = start.tensor(&format!("{HEAD}bias"), &[config.vocab_size])?;
        let output = Linear::new(encoder.words().clone(), Some(bias))?;
        let variables = start.variables;
        Ok(Self { encoder, config, tokenizer, plan, special, pieces, variables, dense, norm, output })
    }

    /// Hides some tokens of each piece, one or more: of ten chosen ones about eight become the mask and one becomes any
    /// token, so that tokens that are seen mean something too.
    fn mask(&self, rows: &[u32], rng: &mut ChaCha8Rng) -> Masked {
        let mut pieces: Vec<Vec<u32>> = rows.iter().filter_map(|row| self.pieces.get(*row as usize)).cloned().collect();
        let longest = pieces.iter().map(Vec::len).max().unwrap_or(0);
        let (mut places, mut tokens) = (Vec::new(), Vec::new());
        for (row, piece) in pieces.iter_mut().enumerate() {
            let own = piece.len().saturating_sub(2);
            let count = ((own as f64 * self.plan.mask_share).round() as usize).clamp(1, own.max(1));
            for at in index::sample(rng, own, count.min(own)) {
                let Some(token) = piece.get_mut(at + 1) else { continue };
                places.push((row * longest + at + 1) as u32);
                tokens.push(*token);
                match rng.random_range(0..10) {
                    0..8 => *token = self.special.mask,
                    8 => *token = rng.random_range(0..self.config.vocab_size as u64) as u32,
                    _ => {}
                }
            }
        }
        Masked { pieces: Inputs::Tokens(pieces), places, tokens }
    }

    /// The mean cross entropy of the hidden tokens.
    fn told(&self, masked: &Masked) -> Computed<Tensor> {
        let all: Vec<u32> = (0..masked.pieces.len() as u32).collect();
        let hidden = through(&self.encoder, self.encoder.embed(&masked.pieces.batch(&all)?)?)?;
        let places = Tensor::new(masked.places.as_slice(), &Device::Cpu)?;
        let hidden = hidden.values.flatten(0, 1)?.index_select(&places, 0)?;
        let logits = self.output.forward(&self.norm.forward(&gelu(&self.dense.forward(&hidden)?)?)?)?;
        candle_nn::loss::cross_entropy(&logits, &Tensor::new(masked.tokens.as_slice(), &Device::Cpu)?)
    }
}

impl super::Student for Student {
    fn variables(&self) -> &[(String, Var)] {
        &self.variables
    }

    fn loss(&self, rng: &mut ChaCha8Rng) -> Result<Tensor, TrainError> {
        let rows = draw(self.plan.batch, self.pieces.len(), rng);
        Ok(self.told(&self.mask(&rows, rng))?)
    }

    fn write(&self, to: &Path) -> Result<(), TrainError> {
        folder::create(to)?;
        folder::write_json(&to.join("config.json"), &self.config, ("architectures", json!(["BertModel"])))?;
        folder::copy(&TOKENIZER, &self.tokenizer, to)?;
        folder::write_weights(to, self.variables.iter().filter(|(name, _)| !name.starts_with(HEAD)))
    }
}
