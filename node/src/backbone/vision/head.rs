//! The heads of image classifiers. All look at normalised hidden states.

use super::{
    super::{BackboneError, Source, Weights, classifier, parse, weights::Model},
    config::{Config, Family},
};
use crate::ops::{LayerNorm, Linear};
use candle_core::{Result as Computed, Tensor};
use serde::Deserialize;
use std::path::Path;

/// The last norm and what comes behind it.
pub(super) struct Head {
    norm: LayerNorm,
    kind: Kind,
    names: Vec<String>,
}

enum Kind {
    /// On the first token, behind a layer with tanh where there is one.
    First { pooler: Option<Linear>, classifier: Linear },
    /// One on the first token and one on the second: what they say on average (DeiT's teacher).
    Two { class: Linear, distillation: Linear },
    /// On the first token and the mean of the patches, side by side.
    Beside(Linear),
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
        let (family, width, mut source) = (config.family(), config.hidden_size, Model::new(weights, ""));
        let two = family == Family::Deit && weights.has("cls_classifier.weight");
        let classifier = if two { "cls_classifier" } else { "classifier" };
        if !weights.has(&format!("{classifier}.weight")) {
            return Ok(None);
        }
        let names = classifier::names(path, text)?;
        let mut map = |name: &str, inputs| classifier::linear(&mut source, name, names.len(), inputs);
        let kind = match family {
            _ if two => {
                Kind::Two { class: map("cls_classifier", width)?, distillation: map("distillation_classifier", width)? }
            }
            Family::Dinov2 => Kind::Beside(map("classifier", 2 * width)?),
            Family::Vit | Family::Deit => {
                let classifier = map("classifier", width)?;
                let name = format!("{prefix}pooler.dense");
                let pooled = family == Family::Vit && weights.has(&format!("{name}.weight"));
                if pooled {
                    ensure_tanh(path, text)?;
                }
                let pooler = pooled.then(|| classifier::linear(&mut source, &name, width, width)).transpose()?;
                Kind::First { pooler, classifier }
            }
        };
        let norm = source.layer_norm(&format!("{prefix}layernorm"), width, config.layer_norm_eps)?;
        Ok(Some(Self { norm, kind, names }))
    }

    /// What the classes are called.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// `[n, tokens, d]` to `[n, classes]`.
    pub(super) fn logits(&self, hidden: &Tensor) -> Computed<Tensor> {
        let hidden = self.norm.forward(hidden)?;
        let token = |index| hidden.narrow(1, index, 1)?.squeeze(1);
        match &self.kind {
            Kind::First { pooler: None, classifier } => classifier.forward(&token(0)?),
            Kind::First { pooler: Some(pooler), classifier } => {
                classifier.forward(&pooler.forward(&token(0)?)?.tanh()?)
            }
            Kind::Two { class, distillation } => {
                (class.forward(&token(0)?)? + distillation.forward(&token(1)?)?)? / 2.0
            }
            Kind::Beside(classifier) => {
                let patches = hidden.narrow(1, 1, hidden.dim(1)?.saturating_sub(1))?.mean(1)?;
                classifier.forward(&Tensor::cat(&[&token(0)?, &patches], 1)?)
            }
        }
    }
}

/// Refuses a layer before the classifier with another nonlinearity.
fn ensure_tanh(path: &Path, text: &str) -> Result<(), BackboneError> {
    #[derive(Deserialize)]
    struct Pooler {
        pooler_act: Option<String>,
    }
    let Pooler { pooler_act } = parse(path, text)?;
    match pooler_act {
        Some(other) if other != "tanh" => {
            Err(BackboneError::file(path, format!("pooler_act is \"{other}\", but only \"tanh\" is known")))
        }
        _ => Ok(()),
    }
}
