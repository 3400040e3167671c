//! The quickstart's files, built into the program so that it runs from any folder.

use crate::{RunError, folder};
use std::path::Path;

/// The quickstart scenario.
pub(crate) const QUICKSTART: &str = include_str!("../quickstart.toml");

/// Macros because `include_bytes!` takes nothing but literals.
macro_rules! file {
    ($($part:literal),+) => {
        (concat!($($part),+), include_bytes!(concat!("../", $($part),+)).as_slice())
    };
}
macro_rules! backbones {
    ($($name:literal),+ $(,)?) => {
        &[$(
            file!("backbones/", $name, "/config.json"),
            file!("backbones/", $name, "/preprocessor_config.json"),
            file!("backbones/", $name, "/model.safetensors"),
        )+]
    };
}

/// Each file's path in the scenario, and its bytes.
type File = (&'static str, &'static [u8]);

const DATA: File = file!("data/digits.csv");

const BACKBONES: &[File] = backbones![
    "vit-d32-l2",
    "vit-d48-l3",
    "vit-d64-l4",
    "vit-d96-l6",
    "vit-d32-l4",
    "vit-d64-l3",
    "vit-d48-l6",
    "vit-d96-l2",
];

/// Writes what the quickstart names into `inputs`, where its relative paths then start.
pub(crate) fn write(inputs: &Path) -> Result<(), RunError> {
    BACKBONES.iter().chain([&DATA]).try_for_each(|(path, bytes)| folder::write(&inputs.join(path), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scenario;

    #[test]
    fn all_that_the_quickstart_names_is_built_in() {
        let inputs = tempfile::tempdir().unwrap();
        write(inputs.path()).unwrap();
        let scenario = Scenario::quickstart().unwrap();
        assert!(inputs.path().join(&scenario.data.file).is_file());
        for node in scenario.nodes {
            assert!(inputs.path().join(&node.backbone).join("config.json").is_file(), "{}", node.name);
        }
    }
}
