//! Backbones of random weights: what a training from nothing starts with, and what benchmarks compute with.

use super::{BackboneError, Decoder, Encoder, Pixels, Source, Vit, parse};
use candle_core::{Device, Result as Computed, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::{collections::HashMap, fs, path::Path};

/// A weight's first value, by its name: norms are the identity, biases zero, matrices uniform within 1 / sqrt(inputs).
pub(crate) fn initial(name: &str, shape: &[usize], rng: &mut ChaCha8Rng) -> Computed<Tensor> {
    let count = shape.iter().product();
    let values: Vec<f32> = match name {
        _ if name.to_ascii_lowercase().contains("norm") && name.ends_with("weight") => vec![1.0; count],
        _ if name.ends_with("bias") || name == "mask" => vec![0.0; count],
        _ if name.starts_with("embeddings.") && !name.ends_with("weight") => {
            (0..count).map(|_| rng.sample::<f32, _>(StandardNormal) * 0.3).collect()
        }
        _ => {
            let inputs = shape.iter().skip(1).product::<usize>().max(1);
            let bound = (inputs as f32).powf(-0.5);
            (0..count).map(|_| rng.random_range(-bound..bound)).collect()
        }
    };
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// Random weights that are kept as they are given.
struct Made {
    rng: ChaCha8Rng,
    tensors: HashMap<String, Tensor>,
}

impl Source for Made {
    type Error = BackboneError;

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, BackboneError> {
        let tensor = initial(name, shape, &mut self.rng)?;
        self.tensors.insert(name.into(), tensor.clone());
        Ok(tensor)
    }
}

/// Writes a backbone of random weights in f32, as the configuration describes it, into a folder that is there.
///
/// # Errors
/// A configuration of no known family, or a folder that can't be written to.
pub(crate) fn write(config: &str, seed: u64, folder: &Path) -> Result<(), BackboneError> {
    let path = folder.join("config.json");
    let refuse = |error: &dyn std::fmt::Display| BackboneError::file(&path, format!("can't be written ({error})"));
    fs::write(&path, config).map_err(|error| refuse(&error))?;
    let mut source = Made { rng: ChaCha8Rng::seed_from_u64(seed), tensors: HashMap::new() };
    match super::family(folder)?.as_str() {
        known if super::vision::MODEL_TYPES.contains(&known) => {
            let (path, pixels) = (folder.join("preprocessor_config.json"), "{}\n");
            fs::write(&path, pixels).map_err(|error| refuse(&error))?;
            let pixels: Pixels = parse(&path, pixels)?;
            Vit::assemble(parse(&path, config)?, &pixels, &mut source).map(drop)?;
        }
        known if super::encoder::MODEL_TYPES.contains(&known) => {
            Encoder::assemble(parse(&path, config)?, &mut source).map(drop)?;
        }
        _ => Decoder::made(&path, config, &mut source)?,
    }
    let path = folder.join("model.safetensors");
    let refuse = |error| BackboneError::file(&path, format!("can't be written ({error})"));
    candle_core::safetensors::save(&source.tensors, &path).map_err(refuse)
}
