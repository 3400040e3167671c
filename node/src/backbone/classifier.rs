//! What the heads of classifiers have in common.

use super::{BackboneError, Source, Weights, parse};
use crate::ops::Linear;
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};

/// The most classes of a head.
const CLASSES_MAX: usize = 65_536;

/// The classes' names, from `text`, the `config.json` at `path`, for the classifier `name`: as many as its weight has
/// rows. Where none are named, they are called LABEL_0, LABEL_1 and so on, as in the hub.
pub(super) fn names(path: &Path, text: &str, weights: &Weights, name: &str) -> Result<Vec<String>, BackboneError> {
    #[derive(Deserialize)]
    struct Labels {
        id2label: Option<BTreeMap<usize, String>>,
    }
    let classes = weights.shape(&format!("{name}.weight")).and_then(|shape| shape.first().copied()).unwrap_or(0);
    if !(1..=CLASSES_MAX).contains(&classes) {
        let problem = format!("belongs to weights with {classes} classes, but there must be 1 to {CLASSES_MAX}");
        return Err(BackboneError::file(path, problem));
    }
    let Labels { id2label } = parse(path, text)?;
    let Some(labels) = id2label else { return Ok((0..classes).map(|class| format!("LABEL_{class}")).collect()) };
    if !labels.keys().copied().eq(0..classes) {
        let named = labels.len();
        let problem = format!("id2label must name the {classes} classes of {name} from 0 on, but names {named} others");
        return Err(BackboneError::file(path, problem));
    }
    Ok(labels.into_values().collect())
}

/// The map `name`.weight `[outputs, inputs]`, `name`.bias `[outputs]` in full precision, as heads are kept.
pub(super) fn linear<S: Source>(source: &mut S, name: &str, outputs: usize, inputs: usize) -> Result<Linear, S::Error> {
    let weight = source.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
    let bias = source.tensor(&format!("{name}.bias"), &[outputs])?;
    Ok(Linear::new(weight, Some(bias))?)
}
