//! Text encoders: BERT, <https://arxiv.org/abs/1810.04805>, RoBERTa, <https://arxiv.org/abs/1907.11692>, and DistilBERT,
//! <https://arxiv.org/abs/1910.01108>: one encoder, described by its configuration.

mod block;
mod config;
mod head;
mod pooling;

pub(crate) use config::Config;
pub(super) use config::MODEL_TYPES;

use super::{
    Backbone, BackboneError, Batch, Embedding, Hidden, Options, Source, Takes, Weights, block::Block, weights::Model,
};
use super::{parse, read_text};
use crate::ops::{LayerNorm, Linear};
use candle_core::{DType, Device, Result as Computed, Tensor, bail};
use config::Family;
use head::Head;
use pooling::Pooling;
use std::path::Path;

/// A text encoder.
pub(crate) struct Encoder {
    config: Config,
    /// `[vocabulary, d]`.
    words: Embedding,
    /// Of every place, `[context, d]`.
    positions: Tensor,
    /// Of the first token type, `[1, d]`; DistilBERT has none.
    kind: Option<Tensor>,
    norm: LayerNorm,
    blocks: Vec<Block>,
    pooling: Pooling,
    head: Option<Head>,
    parameters: usize,
}

impl Encoder {
    /// Reads `config.json`, the weights and, where it is there, `1_Pooling/config.json`.
    ///
    /// # Errors
    /// A configuration that is not supported, files or tensors that are missing or damaged.
    pub(super) fn load(folder: &Path, options: Options) -> Result<Self, BackboneError> {
        let path = folder.join("config.json");
        let text = read_text(&path)?;
        let mut config: Config = parse(&path, &text)?;
        if let Some(problem) = config.problem() {
            return Err(BackboneError::file(&path, problem));
        }
        let (depth, all) = (options.depth(&path, config.num_hidden_layers)?, config.num_hidden_layers);
        config.num_hidden_layers = depth;
        let pooling = Pooling::read(folder)?;
        let weights = Weights::folder(folder)?.placed(options.place()?);
        let prefix = config.family().prefix();
        let prefixed = weights.has(&format!("{prefix}embeddings.word_embeddings.weight"));
        let prefix = if prefixed { prefix } else { "" };
        let old_norms = weights.has(&format!("{prefix}embeddings.LayerNorm.gamma"));

        let mut source = Checkpoint { model: Model::new(&weights, prefix).packing(), old_norms };
        let mut encoder = Self::assemble(config, &mut source)?;
        encoder.pooling = pooling;
        encoder.parameters = source.model.parameters;
        if depth == all {
            encoder.head = Head::read(&encoder.config, (&path, &text), prefix, &weights)?;
        }
        Ok(encoder)
    }

    /// Puts an encoder that pools by the mean, without a head, together from the weights that `source` gives. It is
    /// trained where these are variables.
    ///
    /// # Errors
    /// Those of the source, and weights that do not fit.
    pub(crate) fn assemble<S: Source>(config: Config, source: &mut S) -> Result<Self, S::Error> {
        let (family, width) = (config.family(), config.hidden_size);
        let words = source.embedding("embeddings.word_embeddings.weight", (config.vocab_size, width))?;
        let positions = [config.max_position_embeddings, width];
        let positions = source.tensor("embeddings.position_embeddings.weight", &positions)?;
        let positions = positions.narrow(0, config.first_position(), config.context())?;
        let kind = match family {
            Family::Distilbert => None,
            _ => {
                let kinds = [config.type_vocab_size, width];
                Some(source.tensor("embeddings.token_type_embeddings.weight", &kinds)?.narrow(0, 0, 1)?)
            }
        };
        let norm = source.layer_norm("embeddings.LayerNorm", width, config.layer_norm_eps)?;
        let blocks = (0..config.num_hidden_layers).map(|index| block::assemble(&config, family.names(), index, source));
        let blocks = blocks.collect::<Result<_, S::Error>>()?;
        let pooling = Pooling::Mean;
        Ok(Self { config, words, positions, kind, norm, blocks, pooling, head: None, parameters: 0 })
    }

    /// What the first `tokens` places add to the words there, `[tokens, d]`. It is not kept: it may be in training.
    fn places(&self, tokens: usize) -> Computed<Tensor> {
        let positions = self.positions.narrow(0, 0, tokens)?;
        match &self.kind {
            Some(kind) => positions.broadcast_add(kind),
            None => Ok(positions),
        }
    }
}

/// A checkpoint's weights. Those that come from TensorFlow call a norm's weight and bias gamma and beta.
struct Checkpoint<'a> {
    model: Model<'a>,
    old_norms: bool,
}

impl Source for Checkpoint<'_> {
    type Error = BackboneError;

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, BackboneError> {
        match name.rsplit_once("LayerNorm.") {
            Some((norm, "weight")) if self.old_norms => self.model.tensor(&format!("{norm}LayerNorm.gamma"), shape),
            Some((norm, "bias")) if self.old_norms => self.model.tensor(&format!("{norm}LayerNorm.beta"), shape),
            _ => self.model.tensor(name, shape),
        }
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize, bias: bool) -> Result<Linear, BackboneError> {
        self.model.linear(name, outputs, inputs, bias)
    }

    fn embedding(&mut self, name: &str, dims: (usize, usize)) -> Result<Embedding, BackboneError> {
        self.model.embedding(name, dims)
    }
}

impl Backbone for Encoder {
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
        Takes::Tokens { vocabulary: self.config.vocab_size, context: self.config.context() }
    }

    fn tokens(&self) -> usize {
        self.config.context()
    }

    fn device(&self) -> &Device {
        self.positions.device()
    }

    fn parameters(&self) -> usize {
        self.parameters
    }

    fn embed(&self, batch: &Batch) -> Computed<Hidden> {
        let Batch::Tokens { ids, lengths } = batch else { bail!("a text encoder takes text, not images") };
        let (inputs, tokens) = ids.dims2()?;
        if lengths.len() != inputs || !lengths.iter().all(|length| (1..=tokens).contains(length)) {
            bail!("{inputs} texts of {tokens} tokens can't have the lengths {lengths:?}");
        }
        if tokens > self.config.context() {
            bail!("a text of {tokens} tokens, but the backbone takes at most {}", self.config.context());
        }
        let ids = ids.flatten_all()?;
        let largest = ids.max(0)?.to_scalar::<u32>()?;
        if largest as usize >= self.config.vocab_size {
            bail!(
                "token {largest}, but the backbone knows {} tokens; tokenizer and backbone must belong together",
                self.config.vocab_size
            );
        }
        let words = self.words.rows(&ids)?;
        let words = words.reshape((inputs, tokens, self.config.hidden_size))?;
        let values = self.norm.forward(&words.broadcast_add(&self.places(tokens)?)?)?;
        let padded = lengths.iter().any(|length| *length < tokens);
        Ok(Hidden { values, lengths: padded.then(|| lengths.clone()) })
    }

    fn block(&self, index: usize, hidden: &Hidden) -> Computed<Tensor> {
        match self.blocks.get(index) {
            Some(block) => block.forward(&hidden.values, hidden.lengths.as_ref()),
            None => bail!("block {index} of {}", self.blocks.len()),
        }
    }

    /// What `1_Pooling/config.json` asks for, else the mean over each input's own tokens.
    fn pool(&self, hidden: &Hidden) -> Computed<Tensor> {
        self.pooling.forward(hidden)
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

#[cfg(test)]
mod tests;
