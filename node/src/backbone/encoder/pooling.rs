//! What stands for a text as a whole, by the file that Sentence Transformers puts into a folder:
//! <https://arxiv.org/abs/1908.10084>.

use super::super::{BackboneError, Hidden, parse, read_text};
use candle_core::{Result as Computed, Tensor};
use serde_json::{Map, Value};
use std::path::Path;

/// What stands for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The mean over its tokens.
    Mean,
    /// Its first token, the one of the class.
    First,
}

impl Pooling {
    /// What `1_Pooling/config.json` in `folder` asks for; the mean where there is no such file.
    pub(super) fn read(folder: &Path) -> Result<Self, BackboneError> {
        let path = folder.join("1_Pooling").join("config.json");
        if !path.exists() {
            return Ok(Self::Mean);
        }
        let config: Map<String, Value> = parse(&path, &read_text(&path)?)?;
        Self::named(&config).map_err(|problem| BackboneError::file(&path, problem))
    }

    /// Older files have a yes or no for every mode (`pooling_mode_mean_tokens`), newer ones the mode's name.
    fn named(config: &Map<String, Value>) -> Result<Self, String> {
        let named = config.get("pooling_mode").and_then(Value::as_str);
        let chosen = config.iter().filter(|(_, value)| **value == Value::Bool(true));
        let chosen = chosen.filter_map(|(key, _)| key.strip_prefix("pooling_mode_"));
        let modes: Vec<&str> = named.into_iter().chain(chosen).collect();
        match modes.as_slice() {
            ["mean" | "mean_tokens"] => Ok(Self::Mean),
            ["cls" | "cls_token"] => Ok(Self::First),
            other => Err(format!("asks for pooling by [{}], but only cls or mean is known", other.join(", "))),
        }
    }

    /// `[n, tokens, d]` to `[n, d]`.
    pub(super) fn forward(self, hidden: &Hidden) -> Computed<Tensor> {
        match self {
            Self::Mean => hidden.mean(0),
            Self::First => hidden.values.narrow(1, 0, 1)?.squeeze(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn modes_are_read_in_both_forms_and_others_refused() {
        let read = |value: Value| Pooling::named(value.as_object().unwrap());
        let old = |mean, cls, max| {
            json!({
                "word_embedding_dimension": 8, "include_prompt": true, "pooling_mode_mean_tokens": mean,
                "pooling_mode_cls_token": cls, "pooling_mode_max_tokens": max,
            })
        };
        assert_eq!(read(old(true, false, false)), Ok(Pooling::Mean));
        assert_eq!(read(old(false, true, false)), Ok(Pooling::First));
        assert_eq!(read(json!({"pooling_mode": "mean"})), Ok(Pooling::Mean));
        assert_eq!(read(json!({"pooling_mode": "cls"})), Ok(Pooling::First));
        for (file, told) in [
            (old(false, false, true), "[max_tokens]"),
            (old(true, false, true), "max_tokens"),
            (old(false, false, false), "[]"),
            (json!({"pooling_mode": "lasttoken"}), "[lasttoken]"),
        ] {
            let refusal = read(file).unwrap_err();
            assert!(refusal.contains(told), "{refusal}");
        }
    }
}
