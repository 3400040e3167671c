//! A training step: forward, backward, optimiser, as a round takes them.

use super::Shape;
use crate::{
    backbone::{self, Precision, made},
    data::{Inputs, Set, Targets},
    dema,
    train::{Cache, Learner, Sets, Settings, TrainError},
    usage,
};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use heterotune_crypto::{Digest, Identity};
use heterotune_protocol::{
    charter::{Anchors, Charter, Task, Vocabulary},
    mixture::Layout,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::{collections::HashMap, fs, path::Path, time::Instant};

/// Slots S, branches M, rank r, and the width of the readout's input.
const ADAPTER: (u8, u8, u16, u16) = (3, 4, 16, 64);

/// Tokens of the language model.
const TOKENS: u32 = 32_000;

/// Classes, where classes are learnt.
const CLASSES: usize = 10;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model.
    pub shape: Shape,
    /// Steps that are timed together, after one that is not.
    pub steps: usize,
    /// Where what the frozen layers below the first slot make of the samples is kept from step to step.
    pub cache: Cache,
    /// How the frozen matrices are kept.
    pub precision: Precision,
    /// Gradient checkpointing.
    pub checkpoint: bool,
}

/// What a step took.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The model.
    pub shape: Shape,
    /// Its frozen weights.
    pub frozen: usize,
    /// The weights that are trained.
    pub trained: usize,
    /// Samples, or tokens that are learnt from, of a batch.
    pub batch: usize,
    /// The mean loss.
    pub loss: f32,
    /// Seconds of a step.
    pub seconds: f64,
    /// Seconds of a step, of all cores together.
    pub cpu_seconds: Option<f64>,
    /// The most main memory that the process has had at once, in bytes.
    pub peak_bytes: Option<u64>,
}

/// Takes steps on a made-up model and made-up samples. `folder` keeps the model, or has it from another time.
///
/// # Errors
/// A folder that can't be written to.
pub fn step(options: &Options, folder: &Path) -> Result<Step> {
    let Bench { mut learner, mixture, frozen } = bench(options, folder)?;
    learner.train(1, &mixture)?;
    learner.set_steps(options.steps);
    let (start, cpu) = (Instant::now(), usage::cpu());
    let trained = learner.train(2, &mixture)?;
    let steps = options.steps as f64;
    let used = usage::cpu().zip(cpu).map(|(after, before)| (after - before).as_secs_f64() / steps);
    Ok(Step {
        shape: options.shape,
        frozen,
        trained: learner.trained_values(&mixture)?,
        batch: trained.seen.1 / options.steps,
        loss: trained.loss,
        seconds: start.elapsed().as_secs_f64() / steps,
        cpu_seconds: used,
        peak_bytes: usage::peak(),
    })
}

/// Writes what another program needs to take the same step: beside the model, `step.safetensors` with the inputs, the
/// goals, the mixture, the gates, the private projections, the loss and its gradients.
///
/// # Errors
/// A folder that can't be written to.
pub fn write(options: &Options, folder: &Path) -> Result<()> {
    let bench = bench(options, folder)?;
    let probe = bench.learner.probe(&bench.mixture)?;
    let mut tensors: HashMap<String, Tensor> = probe.constants.into_iter().collect();
    tensors.insert("loss".into(), Tensor::new(probe.loss, &Device::Cpu)?);
    for (name, value, gradient) in probe.trained {
        tensors.insert(format!("gradient.{name}"), gradient);
        tensors.insert(name, value);
    }
    let (inputs, targets) = samples(options.shape)?;
    match inputs {
        Inputs::Pixels(pixels) => tensors.insert("inputs".into(), pixels),
        Inputs::Tokens(texts) => tensors.insert("inputs".into(), Tensor::new(texts, &Device::Cpu)?),
    };
    if let Targets::Labels(labels) = targets {
        tensors.insert("labels".into(), Tensor::new(labels, &Device::Cpu)?);
    }
    let charter = folder.join("charter.toml");
    fs::write(&charter, toml::to_string(&charter_of(options.shape))?).with_context(|| charter.display().to_string())?;
    let path = folder.join("step.safetensors");
    candle_core::safetensors::save(&tensors, &path).with_context(|| path.display().to_string())
}

/// What takes steps.
struct Bench {
    learner: Learner,
    mixture: Vec<Vec<f32>>,
    frozen: usize,
}

fn bench(options: &Options, folder: &Path) -> Result<Bench> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    if !folder.join("model.safetensors").exists() {
        made::write(&options.shape.config().to_string(), 1, folder)?;
    }
    let backbone = backbone::load(folder, backbone::Options { precision: options.precision, ..Default::default() })?;
    let charter = charter_of(options.shape);
    let (width, frozen) = (backbone.width(), backbone.parameters());
    let (inputs, targets) = samples(options.shape)?;
    let anchors = match &inputs {
        Inputs::Pixels(pixels) => Inputs::Pixels(pixels.narrow(0, 0, 1)?),
        Inputs::Tokens(texts) => Inputs::Tokens(texts.iter().take(1).cloned().collect()),
    };
    let sets = Sets { anchors, train: Set { inputs, targets }, test: None, held: None, validation: None };
    let settings = Settings {
        steps: 1,
        batch: options.shape.batch(),
        cache: options.cache,
        checkpoint: options.checkpoint,
        ..Settings::default()
    };
    let mut learner = Learner::new(backbone, Some(Digest::ZERO), sets, &charter, settings)?;
    learner.restore(&projections(width)?)?;
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let groups = Layout::new(&charter);
    let mixture = groups.groups().iter().map(|group| noise(group.values(), 0.05, &mut rng)).collect();
    Ok(Bench { learner, mixture, frozen })
}

/// The network that a shape's steps are for.
pub(crate) fn charter_of(shape: Shape) -> Charter {
    let task = match shape {
        Shape::Decoder => Task::CausalLm { vocabularies: vec![Vocabulary { tokenizer: Digest::ZERO, tokens: TOKENS }] },
        Shape::Encoder => Task::TextClassification { labels: labels() },
        Shape::Vit => Task::ImageClassification { labels: labels() },
    };
    let founders = vec![Identity::from_seed(1, "bench").id()];
    let mut charter = Charter::new("bench", founders, task, Anchors { digest: Digest::ZERO, count: 128 });
    let adapter = &mut charter.adapter;
    (adapter.slots, adapter.branches, adapter.rank, adapter.readout_rank) = ADAPTER;
    charter
}

fn labels() -> Vec<String> {
    (0..CLASSES).map(|label| label.to_string()).collect()
}

/// A batch.
fn samples(shape: Shape) -> Result<(Inputs, Targets)> {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (batch, values) = (shape.batch(), shape.values());
    let mut texts = |vocabulary: u32| -> Vec<Vec<u32>> {
        (0..batch).map(|_| (0..values).map(|_| rng.random_range(0..vocabulary)).collect()).collect()
    };
    let labels = Targets::Labels((0..batch).map(|row| (row % CLASSES) as u32).collect());
    Ok(match shape {
        Shape::Decoder => (Inputs::Tokens(texts(TOKENS)), Targets::Next(vec![vec![true; values]; batch])),
        Shape::Encoder => (Inputs::Tokens(texts(30_522)), labels),
        Shape::Vit => {
            let pixels = (0..batch * values).map(|_| rng.random_range(0f32..255.0)).collect();
            let pixels = Tensor::from_vec(pixels, (batch, values), &Device::Cpu);
            (Inputs::Pixels(pixels?), labels)
        }
    })
}

/// Random private projections, as they are saved.
fn projections(width: usize) -> Result<Vec<u8>, TrainError> {
    let (slots, _, rank, readout) = ADAPTER;
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut entries = Vec::new();
    let mut put = |name: String, shape: Vec<usize>, scale: f32| {
        entries.push((name, shape.clone(), noise(shape.iter().product(), scale, &mut rng)));
    };
    let spaces = (0..slots).map(|slot| (format!("slot.{slot}"), usize::from(rank)));
    for (name, rank) in spaces.chain([("readout".into(), usize::from(readout))]) {
        put(format!("{name}.mean"), vec![width], 0.1);
        put(format!("{name}.down"), vec![width, rank], 0.1);
        if name != "readout" {
            put(format!("{name}.up"), vec![rank, width], 0.1);
        }
    }
    Ok(dema::encode(entries)?)
}

fn noise(values: usize, scale: f32, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..values).map(|_| rng.random_range(-scale..scale)).collect()
}
