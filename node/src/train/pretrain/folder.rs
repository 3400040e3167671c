//! The folder of a backbone that was made, as the hub has such folders.

use crate::train::TrainError;
use candle_core::{DType, Tensor, Var};
use serde::Serialize;
use serde_json::Value;
use std::{collections::HashMap, fmt::Display, fs, path::Path};

fn refuse(path: &Path, error: impl Display) -> TrainError {
    TrainError::file(path, format!("can't be written ({error})"))
}

/// Makes the folder where it is not there.
pub(super) fn create(folder: &Path) -> Result<(), TrainError> {
    fs::create_dir_all(folder).map_err(|error| refuse(folder, error))
}

/// Writes a JSON file: the fields of `value`, and one more.
pub(super) fn write_json(path: &Path, value: &impl Serialize, (key, more): (&str, Value)) -> Result<(), TrainError> {
    let write = || -> Result<(), String> {
        let mut value = serde_json::to_value(value).map_err(|error| error.to_string())?;
        if let Some(map) = value.as_object_mut() {
            map.insert(key.into(), more);
        }
        let text = serde_json::to_string_pretty(&value).map_err(|error| error.to_string())?;
        fs::write(path, text + "\n").map_err(|error| error.to_string())
    };
    write().map_err(|error| refuse(path, error))
}

/// Writes weights in half precision.
pub(super) fn write_weights<'a>(
    folder: &Path,
    variables: impl Iterator<Item = &'a (String, Var)>,
) -> Result<(), TrainError> {
    let tensors = variables.map(|(name, variable)| Ok((name.clone(), variable.to_dtype(DType::F16)?)));
    let tensors = tensors.collect::<candle_core::Result<HashMap<String, Tensor>>>()?;
    let path = folder.join("model.safetensors");
    candle_core::safetensors::save(&tensors, &path).map_err(|error| refuse(&path, error))
}

/// Copies those of some files that are there.
pub(super) fn copy(names: &[&str], from: &Path, to: &Path) -> Result<(), TrainError> {
    for name in names.iter().filter(|name| from.join(name).is_file()) {
        fs::copy(from.join(name), to.join(name)).map_err(|error| refuse(&to.join(name), error))?;
    }
    Ok(())
}
