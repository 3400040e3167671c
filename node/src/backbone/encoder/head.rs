//! The heads of text classifiers. All look at the first token.

use super::{
    super::{BackboneError, Weights, classifier, weights::Model},
    config::{Config, Family},
};
use crate::ops::Linear;
use candle_core::{Result as Computed, Tensor};
use std::path::Path;

/// A nonlinearity.
type Squash = fn(&Tensor) -> Computed<Tensor>;

/// A layer with a nonlinearity, if there is one, then the classes' logits.
pub(super) struct Head {
    dense: Option<(Linear, Squash)>,
    classifier: Linear,
    names: Vec<String>,
}

impl Head {
    /// The head of a backbone whose tensors' names start with `prefix`, if the weights hold one; `text` is the
    /// `config.json` at `path`.
    pub(super) fn read(
        config: &Config,
        (path, text): (&Path, &str),
        prefix: &str,
        weights: &Weights,
    ) -> Result<Option<Self>, BackboneError> {
        let pooler = format!("{prefix}pooler.dense");
        // The layer before the classifier, its nonlinearity, whether no head is without it, and the classifier.
        let (dense, squash, needed, classifier): (&str, Squash, bool, &str) = match config.family() {
            Family::Bert => (&pooler, Tensor::tanh, false, "classifier"),
            Family::Roberta => ("classifier.dense", Tensor::tanh, true, "classifier.out_proj"),
            Family::Distilbert => ("pre_classifier", Tensor::relu, true, "classifier"),
        };
        let has = |name: &str| weights.has(&format!("{name}.weight"));
        if !has(classifier) || needed && !has(dense) {
            return Ok(None);
        }
        let (width, mut source) = (config.hidden_size, Model::new(weights, ""));
        let names = classifier::names(path, text)?;
        let dense = has(dense).then(|| classifier::linear(&mut source, dense, width, width)).transpose()?;
        let classifier = classifier::linear(&mut source, classifier, names.len(), width)?;
        Ok(Some(Self { dense: dense.map(|dense| (dense, squash)), classifier, names }))
    }

    /// What the classes are called.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// `[n, tokens, d]` to `[n, classes]`.
    pub(super) fn logits(&self, hidden: &Tensor) -> Computed<Tensor> {
        let first = hidden.narrow(1, 0, 1)?.squeeze(1)?;
        match &self.dense {
            Some((dense, squash)) => self.classifier.forward(&squash(&dense.forward(&first)?)?),
            None => self.classifier.forward(&first),
        }
    }
}
