//! The heads of text classifiers. All look at the first token.

use super::{
    super::{BackboneError, classifier, weights::Model},
    config::Family,
};
use crate::ops::Linear;
use candle_core::{Result as Computed, Tensor};

/// A layer with a nonlinearity, if there is one, then the classes' logits.
pub(super) struct Head {
    dense: Option<(Linear, fn(&Tensor) -> Computed<Tensor>)>,
    classifier: Linear,
    names: Vec<String>,
}

impl Head {
    /// The tensors of a head: its layer before the classifier, and the classifier. None where the family's are not all
    /// there, which `has` says.
    pub(super) fn find(family: Family, prefix: &str, has: impl Fn(&str) -> bool) -> Option<(Option<String>, String)> {
        let pooler = format!("{prefix}pooler.dense");
        let (dense, classifier, needed) = match family {
            Family::Bert => (pooler, "classifier", false),
            Family::Roberta => ("classifier.dense".into(), "classifier.out_proj", true),
            Family::Distilbert => ("pre_classifier".into(), "classifier", true),
        };
        let there = |name: &str| has(&format!("{name}.weight"));
        let dense = there(&dense).then_some(dense);
        (there(classifier) && (dense.is_some() || !needed)).then(|| (dense, classifier.into()))
    }

    /// Reads the tensors that [`Head::find`] found, for a backbone of some width.
    pub(super) fn read(
        family: Family,
        (dense, classifier): (Option<String>, String),
        names: Vec<String>,
        width: usize,
        source: &mut Model<'_>,
    ) -> Result<Self, BackboneError> {
        let squash = if family == Family::Distilbert { Tensor::relu } else { Tensor::tanh };
        let dense = dense.map(|name| classifier::linear(source, &name, width, width)).transpose()?;
        let classifier = classifier::linear(source, &classifier, names.len(), width)?;
        Ok(Self { dense: dense.map(|dense| (dense, squash as fn(&Tensor) -> _)), classifier, names })
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
