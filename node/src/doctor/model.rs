//! The backbone and the data, as far as they can be judged before anything is downloaded or loaded.

use super::{Finding, Patient};
use crate::{
    backbone, data, hub,
    plan::{Shape, Work},
};
use heterotune_protocol::charter::Anchors;
use std::{fs, path::PathBuf};

/// Where the backbone is, if it is on this machine.
fn folder(patient: &Patient) -> Option<PathBuf> {
    hub::local(patient.config.backbone.as_ref()?).ok().flatten()
}

/// The backbone's folder and family.
pub(super) fn backbone(patient: &Patient) -> Finding {
    let Some(named) = &patient.config.backbone else {
        return Finding::error("backbone", "no backbone is set", set("backbone", patient));
    };
    let folder = match hub::local(named) {
        Ok(Some(folder)) => folder,
        Ok(None) => {
            let cause = format!("{named} is not on this machine yet; `run` downloads it");
            return Finding::warning("backbone", cause, format!("heterotune fetch {named}"));
        }
        Err(error) => return Finding::error("backbone", error.to_string(), set("backbone", patient)),
    };
    if !folder.is_dir() {
        return Finding::error("backbone", format!("{} is no folder", folder.display()), set("backbone", patient));
    }
    let family = match backbone::family(&folder) {
        Ok(family) => family,
        Err(error) => return Finding::error("backbone", error.to_string(), set("backbone", patient)),
    };
    let weights = ["model.safetensors", "model.safetensors.index.json"].map(|name| folder.join(name));
    if !weights.iter().any(|path| path.is_file()) {
        let cause = format!("{} has no model.safetensors", folder.display());
        return Finding::error("backbone", cause, "download the whole model: heterotune fetch hf:ORG/NAME");
    }
    Finding::ok("backbone", format!("{family} in {}", folder.display()))
}

/// The data folder: what must be in it, and the charter's own anchors.
pub(super) fn data(patient: &Patient) -> Finding {
    let Some(folder) = &patient.config.data else {
        return Finding::error("data", "no data is set", set("data", patient));
    };
    if !folder.is_dir() {
        return Finding::error("data", format!("{} is no folder", folder.display()), set("data", patient));
    }
    let anchors = match ["train", "anchors"].map(|name| data::require(folder, name)) {
        [Ok(_), Ok(anchors)] => anchors,
        [Err(error), _] | [_, Err(error)] => return Finding::error("data", error.to_string(), "put it there"),
    };
    let Some(charter) = &patient.charter else { return Finding::ok("data", folder.display().to_string()) };
    match fs::read(&anchors) {
        Ok(bytes) if Anchors::digest_of(&bytes) == charter.anchors.digest => {
            Finding::ok("data", format!("{}, with the charter's anchors", folder.display()))
        }
        Ok(_) => {
            let cause = format!("{} is not the file that the charter names", anchors.display());
            Finding::error("data", cause, "take the network's own anchors, byte for byte")
        }
        Err(error) => {
            Finding::error("data", format!("{} can't be read: {error}", anchors.display()), "make it readable")
        }
    }
}

fn set(key: &str, patient: &Patient) -> String {
    format!("--{key}, or `{key}` in {}", patient.state.join("node.toml").display())
}

/// How many bytes the node will need, from `config.json` alone; without a charter, for the frozen weights.
pub(super) fn need(patient: &Patient) -> Option<u64> {
    let (shape, options) = (Shape::read(&folder(patient)?)?, patient.config.frozen());
    let settings = patient.config.training.settings();
    match &patient.charter {
        Some(charter) => Some(shape.plan(options, &Work::new(charter, &settings))?.peak()),
        None => shape.weights(options),
    }
}
