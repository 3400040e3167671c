//! Text encoders that learn to tell which tokens of a text were replaced by others: ELECTRA,
//! <https://arxiv.org/abs/2003.10555>, with other texts' tokens in place of a generator's. In the few hundred steps that
//! a small encoder gets, telling hidden tokens as BERT did (<https://arxiv.org/abs/1810.04805>) teaches it less: every
//! token says something here, not one of seven, and there is no softmax over the whole vocabulary.

use super::{Kind, Plan, Start, draw, folder, locate, through};
use crate::{
    backbone::{Backbone, Encoder, EncoderConfig, Source, Takes},
    data::{self, Inputs, Tokenizer},
    ops::{LayerNorm, Linear, gelu},
    train::TrainError,
};
use candle_core::{Device, Result as Computed, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// The epsilon of all norms.
const EPSILON: f64 = 1e-12;
/// What the names of the head's weights begin with: only pretraining needs them.
const HEAD: &str = "cls.";
/// Tokens of a piece that are not its text's: one before, one after.
const AROUND: usize = 2;
/// Whether a token is another than it was.
const CLASSES: usize = 2;
/// The fewest tokens that a context must have room for.
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
    /// Share of tokens that are replaced.
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

    fn student(&self, recipe: &Path, shape: &Shape, rng: &mut ChaCha8Rng) -> Result<Student, TrainError> {
        let folder = locate(recipe, &self.tokenizer)?;
        let tokenizer = Tokenizer::open(&folder)?;
        let special = Special::of(&tokenizer).ok_or_else(|| {
            let problem = "names no cls_token and sep_token, which BERT has: whose tokenizer is it?";
            TrainError::file(&folder.join("special_tokens_map.json"), problem)
        })?;
        let mut pieces = Vec::new();
        for path in &self.texts {
            pieces.extend(read(&locate(recipe, path)?, &tokenizer, special, shape.context)?);
        }
        let config = shape.config(tokenizer.tokens());
        if let Some(problem) = config.problem() {
            return Err(TrainError::file(&folder.join("tokenizer.json"), problem));
        }
        Student::new(config, folder, self.plan(), pieces, rng)
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

/// What stands before and after a text.
#[derive(Clone, Copy, Debug)]
struct Special {
    first: u32,
    last: u32,
}

impl Special {
    fn of(tokenizer: &Tokenizer) -> Option<Self> {
        Some(Self { first: tokenizer.special_id("cls_token")?, last: tokenizer.special_id("sep_token")? })
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
        let own: Vec<u32> = text.into_iter().filter(|token| ![special.first, special.last].contains(token)).collect();
        let size = own.len().div_ceil(own.len().div_ceil(context - AROUND).max(1)).max(1);
        let whole = |piece: &[u32]| [&[special.first], piece, &[special.last]].concat();
        pieces.extend(own.chunks(size).map(whole));
    }
    match pieces.is_empty() {
        true => Err(TrainError::file(path, "has no text to learn from")),
        false => Ok(pieces),
    }
}

/// Pieces of which some tokens are replaced.
struct Replaced {
    pieces: Inputs,
    /// Where all tokens of texts stand, `piece x longest + token`.
    places: Vec<u32>,
    /// Which of them are others than they were: 1, else 0.
    others: Vec<u32>,
}

/// A text encoder in training.
pub(super) struct Student {
    pub(super) encoder: Encoder,
    config: EncoderConfig,
    /// Where the tokenizer's files are.
    tokenizer: PathBuf,
    plan: Plan,
    /// Token ids; the first and the last are no text's.
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
        pieces: Vec<Vec<u32>>,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, TrainError> {
        let width = config.hidden_size;
        let mut start = Start { rng, variables: Vec::new() };
        let encoder = Encoder::assemble(config.clone(), &mut start)?;
        let dense = start.linear(&format!("{HEAD}dense"), width, width, true)?;
        let norm = start.layer_norm(&format!("{HEAD}LayerNorm"), width, EPSILON)?;
        let output = start.linear(&format!("{HEAD}output"), CLASSES, width, true)?;
        Ok(Self { encoder, config, tokenizer, plan, pieces, variables: start.variables, dense, norm, output })
    }

    /// Some pieces, with tokens of others in the place of some of theirs. What is drawn may be what was there.
    fn replace(&self, rows: &[u32], rng: &mut ChaCha8Rng) -> Replaced {
        let mut pieces: Vec<Vec<u32>> = rows.iter().filter_map(|row| self.pieces.get(*row as usize)).cloned().collect();
        let longest = pieces.iter().map(Vec::len).max().unwrap_or(0);
        let (mut places, mut others) = (Vec::new(), Vec::new());
        for (row, piece) in pieces.iter_mut().enumerate() {
            let own = piece.len().saturating_sub(AROUND);
            for (at, token) in piece.iter_mut().enumerate().skip(1).take(own) {
                let before = *token;
                if rng.random_bool(self.plan.mask_share) {
                    *token = self.any_token(rng).unwrap_or(before);
                }
                places.push((row * longest + at) as u32);
                others.push(u32::from(*token != before));
            }
        }
        Replaced { pieces: Inputs::Tokens(pieces), places, others }
    }

    /// A token of any text: frequent ones come often.
    fn any_token(&self, rng: &mut ChaCha8Rng) -> Option<u32> {
        let piece = self.pieces.get(rng.random_range(0..self.pieces.len() as u64) as usize)?;
        let own = piece.len().saturating_sub(AROUND) as u64;
        piece.get(1 + rng.random_range(0..own) as usize).copied()
    }

    /// The mean cross entropy over all tokens of texts.
    fn told(&self, replaced: &Replaced) -> Computed<Tensor> {
        let all: Vec<u32> = (0..replaced.pieces.len() as u32).collect();
        let hidden = through(&self.encoder, self.encoder.embed(&replaced.pieces.batch(&all)?)?)?;
        let places = Tensor::new(replaced.places.as_slice(), &Device::Cpu)?;
        let hidden = hidden.values.flatten(0, 1)?.index_select(&places, 0)?;
        let logits = self.output.forward(&self.norm.forward(&gelu(&self.dense.forward(&hidden)?)?)?)?;
        candle_nn::loss::cross_entropy(&logits, &Tensor::new(replaced.others.as_slice(), &Device::Cpu)?)
    }
}

impl super::Student for Student {
    fn variables(&self) -> &[(String, Var)] {
        &self.variables
    }

    fn loss(&self, rng: &mut ChaCha8Rng) -> Result<Tensor, TrainError> {
        let rows = draw(self.plan.batch, self.pieces.len(), rng);
        Ok(self.told(&self.replace(&rows, rng))?)
    }

    fn write(&self, to: &Path) -> Result<(), TrainError> {
        folder::create(to)?;
        folder::write_json(&to.join("config.json"), &self.config, ("architectures", json!(["BertModel"])))?;
        folder::copy(&TOKENIZER, &self.tokenizer, to)?;
        folder::write_weights(to, self.variables.iter().filter(|(name, _)| !name.starts_with(HEAD)))
    }
}
