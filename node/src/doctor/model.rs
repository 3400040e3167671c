//! The backbone and the data, as far as they can be judged before anything is downloaded or loaded.

use super::{Finding, Patient};
use crate::{
    backbone::{self, Precision},
    data, hub,
};
use heterotune_protocol::charter::Anchors;
use serde::Deserialize;
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

/// What of `config.json` says how large a model is; the families name things differently.
#[derive(Deserialize)]
struct Shape {
    #[serde(alias = "dim")]
    hidden_size: u64,
    #[serde(alias = "n_layers")]
    num_hidden_layers: u64,
    #[serde(alias = "hidden_dim")]
    intermediate_size: Option<u64>,
    #[serde(default)]
    vocab_size: u64,
    num_attention_heads: Option<u64>,
    num_key_value_heads: Option<u64>,
}

/// The largest `config.json`.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// How many bytes the frozen weights take in memory, from `config.json` alone: within a tenth for the known families.
pub(super) fn weight_bytes(patient: &Patient) -> Option<u64> {
    let path = folder(patient)?.join("config.json");
    let fits = fs::metadata(&path).is_ok_and(|file| file.len() <= CONFIG_BYTES_MAX);
    let shape = serde_json::from_slice(&fits.then(|| fs::read(&path).ok()).flatten()?).ok()?;
    estimate(&shape, patient.config.layers, patient.config.precision.unwrap_or_default())
}

fn estimate(shape: &Shape, layers: Option<usize>, precision: Precision) -> Option<u64> {
    let width = shape.hidden_size;
    let feed = shape.intermediate_size.unwrap_or(4 * width);
    // Decoders share keys and values among heads, and have a gate beside the two maps of the feed-forward part.
    let shared = shape.num_key_value_heads.zip(shape.num_attention_heads).filter(|(_, heads)| *heads > 0);
    let (keys, maps) = match shared {
        Some((kept, heads)) => (width.checked_mul(kept)? / heads, 3),
        None => (width, 2),
    };
    let attention = width.checked_mul(2 * width.checked_add(keys)?)?;
    let block = attention.checked_add(width.checked_mul(feed)?.checked_mul(maps)?)?;
    let depth = layers.map_or(shape.num_hidden_layers, |layers| shape.num_hidden_layers.min(layers as u64));
    let eighths_of_a_byte = match precision {
        Precision::F32 => 32,
        Precision::F16 | Precision::Bf16 => 16,
        // With their scales.
        Precision::Q8 => 9,
        Precision::Q4 => 5,
    };
    let blocks = block.checked_mul(depth)?.checked_mul(eighths_of_a_byte)? / 8;
    blocks.checked_add(shape.vocab_size.checked_mul(width)?.checked_mul(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_estimated_from_the_configuration_alone() {
        // Qwen2.5-0.5B has 494 M weights, 136 M of them the embedding; bert-base 110 M.
        let parse = |text: &str| serde_json::from_str::<Shape>(text).unwrap();
        let qwen = parse(
            r#"{"hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864, "vocab_size": 151936,
                "num_attention_heads": 14, "num_key_value_heads": 2}"#,
        );
        let bert = parse(
            r#"{"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072, "vocab_size": 30522,
                "num_attention_heads": 12}"#,
        );
        let near = |bytes: Option<u64>, weights: f64| {
            let share = bytes.unwrap() as f64 / (4.0 * weights);
            assert!((0.9..1.1).contains(&share), "{share}");
        };
        near(estimate(&qwen, None, Precision::F32), 494e6);
        near(estimate(&bert, None, Precision::F32), 110e6);
        let halves = |layers, precision| estimate(&qwen, layers, precision).unwrap();
        assert!(halves(None, Precision::Q4) < halves(None, Precision::Q8));
        assert!(halves(Some(12), Precision::F32) < halves(None, Precision::F32));
        // A file that lies does not overflow.
        let huge = parse(r#"{"dim": 18446744073709551615, "n_layers": 18446744073709551615}"#);
        assert_eq!(estimate(&huge, None, Precision::F32), None);
    }
}
