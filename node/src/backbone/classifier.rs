//! What the heads of classifiers have in common.

use super::{BackboneError, Source, parse};
use crate::ops::Linear;
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};

/// The classes' names, from `text`, the `config.json` at `path`. Where it names none, there are two, as in the hub.
pub(super) fn names(path: &Path, text: &str) -> Result<Vec<String>, BackboneError> {
    #[derive(Deserialize)]
    struct Labels {
        id2label: Option<BTreeMap<usize, String>>,
    }
    let Labels { id2label } = parse(path, text)?;
    let Some(labels) = id2label else { return Ok((0..2).map(|class| format!("LABEL_{class}")).collect()) };
    if labels.is_empty() || !labels.keys().copied().eq(0..labels.len()) {
        return Err(BackboneError::file(path, "id2label must name the classes 0, 1, 2 and so on, none left out"));
    }
    Ok(labels.into_values().collect())
}

/// The map `name`.weight `[outputs, inputs]`, `name`.bias `[outputs]` in full precision, as heads are kept.
pub(super) fn linear<S: Source>(source: &mut S, name: &str, outputs: usize, inputs: usize) -> Result<Linear, S::Error> {
    let weight = source.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
    let bias = source.tensor(&format!("{name}.bias"), &[outputs])?;
    Ok(Linear::new(weight, Some(bias))?)
}
