//! Decoders of the Llama family: one model, described by its configuration, with the files and tensor names that the
//! families (`llama`, `mistral`, `qwen2`, `qwen3`, `phi3`, `gemma2`, `gemma3_text`) have on the hub.
//! LLaMA: <https://arxiv.org/abs/2302.13971>; Mistral: <https://arxiv.org/abs/2310.06825>; Gemma 2:
//! <https://arxiv.org/abs/2408.00118>.

mod attention;
mod block;
mod config;
mod feed;
mod past;
mod rope;

pub(super) use config::FAMILIES;
pub use past::Past;

use super::{
    Backbone, BackboneError, Batch, Head, Hidden, Options, Reading, Source, Takes, Weights, block::Block, classifier,
    parse, read_text, weights::Model,
};
use crate::ops::{Linear, RmsNorm};
use candle_core::{DType, Device, Result as Computed, Tensor, bail};
use config::{Config, Written};
use std::path::Path;

/// A decoder with the head that its folder has.
pub struct Decoder {
    config: Config,
    /// `[vocabulary, d]`.
    embedding: Tensor,
    blocks: Vec<Block>,
    head: Option<OwnHead>,
    parameters: usize,
}

/// The last norm, and what reads logits from it.
struct OwnHead {
    kind: Head,
    norm: RmsNorm,
    map: Linear,
}

impl Decoder {
    /// Reads `config.json` and the weights. Which head there is, the tensors say: `score` for classes, `lm_head` for
    /// tokens, or the embedding where it is tied to the head.
    ///
    /// # Errors
    /// A configuration that is not supported, files or tensors that are missing or damaged.
    pub fn load(folder: &Path, options: Options) -> Result<Self, BackboneError> {
        let path = folder.join("config.json");
        let text = read_text(&path)?;
        let written: Written = parse(&path, &text)?;
        let mut config = written.resolve().map_err(|problem| BackboneError::file(&path, problem))?;
        let depth = config.layers.len();
        config.layers.truncate(options.depth(&path, depth)?);
        let whole = config.layers.len() == depth;

        let weights = Weights::folder(folder)?.placed(options.place()?);
        let prefix = if weights.has("model.embed_tokens.weight") { "model." } else { "" };
        let mut source = Model::new(&weights, prefix).packing();
        let mut decoder = Self::assemble(config, &mut source)?;
        decoder.parameters = source.parameters;
        if whole {
            decoder.head = decoder.own_head(&path, &text, &weights, prefix)?;
        }
        Ok(decoder)
    }

    /// Asks `source` for all weights of a decoder with a tied head that a configuration (of that file) describes.
    ///
    /// # Errors
    /// A configuration that is not supported, and those of the source.
    pub(super) fn made(
        path: &Path,
        text: &str,
        source: &mut impl Source<Error = BackboneError>,
    ) -> Result<(), BackboneError> {
        let written: Written = parse(path, text)?;
        let config = written.resolve().map_err(|problem| BackboneError::file(path, problem))?;
        block::norm(&config, source, "norm", config.width)?;
        Self::assemble(config, source).map(drop)
    }

    /// The embedding and the blocks, from the weights that `source` gives.
    fn assemble<S: Source>(config: Config, source: &mut S) -> Result<Self, S::Error> {
        let embedding = source.tensor("embed_tokens.weight", &[config.vocabulary, config.width])?;
        let layers = config.layers.iter().enumerate();
        let blocks = layers.map(|(index, layer)| block::assemble(&config, index, layer, source));
        let blocks = blocks.collect::<Result<_, S::Error>>()?;
        Ok(Self { config, embedding, blocks, head: None, parameters: 0 })
    }

    /// The head, by the tensors that there are; `text` is the configuration at `path`.
    fn own_head(
        &self,
        path: &Path,
        text: &str,
        weights: &Weights,
        prefix: &str,
    ) -> Result<Option<OwnHead>, BackboneError> {
        let (vocabulary, width) = (self.config.vocabulary, self.config.width);
        let (kind, map) = if weights.has("score.weight") {
            let names = classifier::names(path, text)?;
            let map = weights.tensor("score.weight", &[names.len(), width])?;
            (Head::Classes(names), map)
        } else if self.config.tied {
            (Head::Vocabulary, self.embedding.clone())
        } else if weights.has("lm_head.weight") {
            (Head::Vocabulary, weights.tensor("lm_head.weight", &[vocabulary, width])?)
        } else {
            return Ok(None);
        };
        let norm = block::norm(&self.config, &mut Model::new(weights, prefix), "norm", width)?;
        Ok(Some(OwnHead { kind, norm, map: Linear::new(map, None)? }))
    }

    fn run(&self, index: usize, hidden: &Hidden, past: Option<&mut Past>) -> Computed<Tensor> {
        let Some(block) = self.blocks.get(index) else { bail!("block {index} of {}", self.blocks.len()) };
        let tokens = hidden.values.dim(1)? + past.as_ref().map_or(0, |past| past.tokens(index));
        if tokens > self.config.context {
            bail!("a text of {tokens} tokens, but the backbone takes at most {}", self.config.context);
        }
        match past {
            Some(past) => block.forward_after(&hidden.values, index, past),
            None => block.forward(&hidden.values, None),
        }
    }
}

impl Backbone for Decoder {
    fn model_type(&self) -> &str {
        self.config.family
    }

    fn width(&self) -> usize {
        self.config.width
    }

    fn depth(&self) -> usize {
        self.blocks.len()
    }

    fn takes(&self) -> Takes {
        Takes::Tokens { vocabulary: self.config.vocabulary, context: self.config.context }
    }

    fn tokens(&self) -> usize {
        self.config.context
    }

    fn device(&self) -> &Device {
        self.embedding.device()
    }

    fn parameters(&self) -> usize {
        self.parameters
    }

    fn embed(&self, batch: &Batch) -> Computed<Hidden> {
        let Batch::Tokens { ids, lengths } = batch else { bail!("a decoder takes text, not images") };
        let (inputs, tokens) = ids.dims2()?;
        if lengths.len() != inputs || !lengths.iter().all(|length| (1..=tokens).contains(length)) {
            bail!("{inputs} texts of up to {tokens} tokens can't have the lengths {lengths:?}");
        }
        if tokens > self.config.context {
            bail!("a text of {tokens} tokens, but the backbone takes at most {}", self.config.context);
        }
        let ids = ids.flatten_all()?;
        if let Some(id) = ids.to_vec1::<u32>()?.into_iter().find(|id| *id as usize >= self.config.vocabulary) {
            bail!("token {id}, but the backbone knows {} tokens; take its own tokenizer", self.config.vocabulary);
        }
        let ids = ids.to_device(self.device())?;
        let mut values = self.embedding.index_select(&ids, 0)?.reshape((inputs, tokens, self.config.width))?;
        if let Some(scale) = self.config.embedding_scale {
            values = (values * scale)?;
        }
        let padded = lengths.iter().any(|length| *length < tokens);
        Ok(Hidden { values, lengths: padded.then(|| lengths.clone()) })
    }

    fn block(&self, index: usize, hidden: &Hidden) -> Computed<Tensor> {
        self.run(index, hidden, None)
    }

    /// The mean over a text's own tokens.
    fn pool(&self, hidden: &Hidden) -> Computed<Tensor> {
        hidden.mean(0)
    }

    fn head(&self) -> Head {
        self.head.as_ref().map_or(Head::None, |head| head.kind.clone())
    }

    /// Of the classes: at a text's last own token.
    fn logits(&self, hidden: &Hidden) -> Computed<Tensor> {
        let Some(head) = &self.head else { bail!("the backbone has no head") };
        let values = match head.kind {
            Head::Classes(_) => hidden.last()?,
            _ => hidden.values.clone(),
        };
        let logits = head.map.forward(&head.norm.forward(&values)?)?.to_dtype(DType::F32)?;
        match (&head.kind, self.config.logits_softcap) {
            (Head::Vocabulary, Some(cap)) => (logits / cap)?.tanh()? * cap,
            _ => Ok(logits),
        }
    }

    fn reading(&self, hidden: &Hidden) -> Computed<Reading> {
        let head = self.head.as_ref().filter(|head| head.kind == Head::Vocabulary);
        let Some((head, weight)) = head.and_then(|head| Some((head, head.map.weight()?))) else {
            bail!("the backbone has no head for tokens")
        };
        let values = head.norm.forward(&hidden.values)?;
        Ok(Reading { values, weight: weight.clone(), softcap: self.config.logits_softcap })
    }

    fn block_after(&self, index: usize, hidden: &Hidden, past: &mut Past) -> Computed<Tensor> {
        self.run(index, hidden, Some(past))
    }
}

#[cfg(test)]
mod tests;
