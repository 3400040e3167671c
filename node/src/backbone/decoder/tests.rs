//! Parity of small models with the reference implementation, continuing texts, gradients through whole blocks, and packed
//! weights.

mod folders;
mod real;

use super::*;
use crate::backbone::{Precision, load};
use candle_core::{DType, Device, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use std::{collections::HashMap, fs};

/// What the reference makes of small models of every family, with weights as [`made`] makes them.
#[derive(Deserialize)]
struct Fixtures {
    ids: Vec<u32>,
    /// Where in the text the logits are from.
    places: Vec<usize>,
    models: Vec<Fixture>,
    classes: Fixture,
}

#[derive(Deserialize)]
struct Fixture {
    name: String,
    config: serde_json::Value,
    logits: Vec<Vec<f32>>,
}

fn fixtures() -> Fixtures {
    serde_json::from_str(include_str!("../fixtures/decoders.json")).unwrap()
}

fn fixture(name: &str) -> Fixture {
    fixtures().models.into_iter().find(|fixture| fixture.name == name).unwrap()
}

/// A tensor of multiples of 1/256 from -0.5 to 0.5 (0.5 to 1.5 for norms), by a hash of its name.
fn made(name: &str, shape: &[usize]) -> Tensor {
    let hash = name.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let centre = if name.contains("norm") { 1.0 } else { 0.0 };
    let value = |index: u32| {
        let mut x = hash.wrapping_add(index.wrapping_mul(0x9E37_79B9));
        x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
        centre + (((x ^ (x >> 13)) & 0xff) as f32 - 128.0) / 256.0
    };
    let count: usize = shape.iter().product();
    Tensor::from_vec((0..count as u32).map(value).collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

/// A source of made tensors that keeps what it has given.
#[derive(Default)]
struct Maker(HashMap<String, Tensor>);

impl Source for Maker {
    type Error = candle_core::Error;

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Computed<Tensor> {
        let name = format!("model.{name}");
        let tensor = made(&name, shape);
        self.0.insert(name, tensor.clone());
        Ok(tensor)
    }
}

/// All tensors of a model, with its head of tokens.
fn tensors(config: &serde_json::Value) -> HashMap<String, Tensor> {
    let config = serde_json::from_value::<Written>(config.clone()).unwrap().resolve().unwrap();
    let (vocabulary, width, tied) = (config.vocabulary, config.width, config.tied);
    let mut maker = Maker::default();
    Decoder::assemble(config, &mut maker).unwrap();
    maker.tensor("norm.weight", &[width]).unwrap();
    let mut tensors = maker.0;
    if !tied {
        tensors.insert("lm_head.weight".into(), made("lm_head.weight", &[vocabulary, width]));
    }
    tensors
}

fn write(folder: &Path, config: &serde_json::Value, tensors: &HashMap<String, Tensor>) {
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    candle_core::safetensors::save(tensors, folder.join("model.safetensors")).unwrap();
}

/// A folder with a made model.
fn folder(config: &serde_json::Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), config, &tensors(config));
    folder
}

/// The made model of a fixture.
fn model(name: &str) -> Box<dyn Backbone> {
    load(folder(&fixture(name).config).path(), Options::default()).unwrap()
}

fn batch(texts: &[&[u32]]) -> Batch {
    let longest = texts.iter().map(|text| text.len()).max().unwrap();
    let padded = texts.iter().flat_map(|text| text.iter().copied().chain([7; 64]).take(longest));
    let ids = Tensor::from_vec(padded.collect::<Vec<u32>>(), (texts.len(), longest), &Device::Cpu).unwrap();
    Batch::Tokens { ids, lengths: texts.iter().map(|text| text.len()).collect() }
}

/// The hidden state after the last block.
fn run(backbone: &dyn Backbone, batch: &Batch) -> Hidden {
    let hidden = backbone.embed(batch).unwrap();
    (0..backbone.depth()).fold(hidden, |hidden, index| hidden.with(backbone.block(index, &hidden).unwrap()))
}

/// Logits of one text, place by place.
fn logits(backbone: &dyn Backbone, ids: &[u32]) -> Vec<Vec<f32>> {
    let logits = backbone.logits(&run(backbone, &batch(&[ids]))).unwrap();
    logits.squeeze(0).unwrap().to_vec2().unwrap()
}

fn worst(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// |a - b| / |b|, by the Euclidean norm.
fn change(ours: &[f32], theirs: &[f32]) -> f32 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>().sqrt();
    norm(&mut ours.iter().zip(theirs).map(|(a, b)| a - b)) / norm(&mut theirs.iter().copied())
}

#[test]
fn every_family_gives_the_logits_of_the_reference() {
    let Fixtures { ids, places, models, .. } = fixtures();
    for Fixture { name, config, logits: expected } in models {
        let backbone = load(folder(&config).path(), Options::default()).unwrap();
        assert_eq!(backbone.head(), Head::Vocabulary);
        assert_eq!(backbone.model_type(), config["model_type"]);
        let ours = logits(&*backbone, &ids);
        let found = places.iter().zip(&expected).map(|(place, expected)| worst(&ours[*place], expected));
        let difference = found.fold(0.0, f32::max);
        println!("{name}: worst difference {difference:e}");
        assert!(difference <= 2e-4, "{name}: {difference}");
    }
}

#[test]
fn classes_are_read_at_the_last_own_token() {
    let Fixtures { ids, classes, .. } = fixtures();
    let mut tensors = tensors(&classes.config);
    tensors.remove("lm_head.weight");
    tensors.insert("score.weight".into(), made("score.weight", &[3, 16]));
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &classes.config, &tensors);
    let backbone = load(folder.path(), Options::default()).unwrap();
    assert_eq!(backbone.head(), Head::Classes(["ant", "bee", "cat"].map(String::from).to_vec()));
    let hidden = run(&*backbone, &batch(&[&ids[..4], &[5, 6, 7, 8, 9, 10]]));
    let logits: Vec<Vec<f32>> = backbone.logits(&hidden).unwrap().to_vec2().unwrap();
    assert!(worst(&logits.concat(), &classes.logits.concat()) <= 2e-4);
}

#[test]
fn continued_texts_have_the_logits_of_whole_ones() {
    for Fixture { name, .. } in fixtures().models {
        let backbone = model(&name);
        let ids = fixtures().ids;
        let whole = logits(&*backbone, &ids);
        let mut past = Past::default();
        // Five tokens at once, then two, then one by one.
        let mut from = 0;
        for to in [5, 7, 8, 9, 10, 11, 12] {
            let next: Vec<f32> = backbone.step(&ids[from..to], &mut past).unwrap().to_vec1().unwrap();
            let difference = worst(&next, &whole[to - 1]);
            assert!(difference <= 1e-4, "{name}: {difference} after {to} tokens");
            from = to;
        }
        assert_eq!(past.tokens(0), ids.len());
    }
}

#[test]
fn padding_changes_nothing() {
    for Fixture { name, .. } in fixtures().models {
        let backbone = model(&name);
        let ids = fixtures().ids;
        let [alone, padded] = [batch(&[&ids[..5]]), batch(&[&ids[..5], &ids])].map(|batch| run(&*backbone, &batch));
        let pooled = |hidden| backbone.pool(hidden).unwrap().get(0).unwrap().to_vec1::<f32>().unwrap();
        let (alone, padded) = (pooled(&alone), pooled(&padded));
        let largest = alone.iter().fold(0f32, |a, b| a.max(b.abs()));
        // Products of other sizes are rounded otherwise.
        assert!(worst(&alone, &padded) <= 5e-6 * largest, "{name}: {} of {largest}", worst(&alone, &padded));
    }
}

/// Repeatable values in [-1, 1).
fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The worst error of a block's gradient dL/dhidden, found by finite differences at some 160 places, against its largest
/// value.
fn gradient_error(backbone: &dyn Backbone, index: usize) -> f64 {
    let shape = [2, 5, backbone.width()];
    let (start, outer) = (noise(&shape, 1), noise(&shape, 2));
    let block = |values: &Tensor| {
        let hidden = Hidden { values: values.clone(), lengths: None };
        (backbone.block(index, &hidden).unwrap() * &outer).unwrap()
    };
    let input = Var::from_tensor(&start).unwrap();
    let gradients = block(&input).sum_all().unwrap().backward().unwrap();
    let gradient: Vec<f32> = gradients.get(&input).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let start: Vec<f32> = start.flatten_all().unwrap().to_vec1().unwrap();
    let loss = |at: usize, by: f32| {
        let mut values = start.clone();
        values[at] += by;
        let terms = block(&Tensor::from_vec(values, &shape, &Device::Cpu).unwrap());
        terms.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).sum::<f64>()
    };
    let slope = |at, step: f32| (loss(at, step) - loss(at, -step)) / f64::from(2.0 * step);
    let largest = gradient.iter().fold(0f32, |a, b| a.max(b.abs()));
    let errors = gradient.iter().enumerate().step_by(gradient.len() / 160).map(|(at, gradient)| {
        // Two steps, so that what grows with the step's square falls out (Richardson).
        let difference = (4.0 * slope(at, 0.01) - slope(at, 0.02)) / 3.0;
        (f64::from(*gradient) - difference).abs()
    });
    errors.fold(0.0, f64::max) / f64::from(largest)
}

#[test]
fn gradients_through_every_familys_blocks_are_those_of_finite_differences() {
    for Fixture { name, .. } in fixtures().models {
        let backbone = model(&name);
        for index in 0..backbone.depth() {
            let error = gradient_error(&*backbone, index);
            println!("{name}, block {index}: worst relative error {error:e}");
            assert!(error <= 1e-3, "{name}, block {index}: {error}");
        }
    }
}

/// A wider model, whose rows fill the blocks of packed formats.
fn wide(width: usize) -> serde_json::Value {
    serde_json::json!({
        "model_type": "llama", "vocab_size": 32, "hidden_size": width, "intermediate_size": 2 * width,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "tie_word_embeddings": true,
    })
}

#[test]
fn packed_blocks_are_close_and_have_gradients() {
    // In a model this wide, weights of this size would drown the input: they shrink by its root.
    let shrunk = |width: usize| {
        let tensors = tensors(&wide(width)).into_iter().map(move |(name, tensor)| {
            let factor = if name.contains("norm") { 1.0 } else { 1.9 / (width as f64).sqrt() };
            (name, (tensor * factor).unwrap())
        });
        tensors.collect::<HashMap<_, _>>()
    };
    for (width, precision, most) in [
        (64, Precision::F16, 1e-3),
        (64, Precision::Bf16, 1e-2),
        (64, Precision::Q8, 2e-2),
        (64, Precision::Q4, 0.25),
        (256, Precision::Q4, 0.25),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &wide(width), &shrunk(width));
        let [full, packed] = [Precision::F32, precision]
            .map(|precision| load(folder.path(), Options { precision, ..Options::default() }).unwrap());
        assert_eq!(full.parameters(), packed.parameters());
        let input = batch(&[&fixtures().ids]);
        let [full, ours] = [&full, &packed].map(|backbone| run(&**backbone, &input).values);
        let change =
            change(&ours.flatten_all().unwrap().to_vec1().unwrap(), &full.flatten_all().unwrap().to_vec1().unwrap());
        let error = gradient_error(&*packed, 0);
        println!("{precision:?}, d = {width}: output changes by {change:e}, gradient's worst error {error:e}");
        assert!(change > 0.0 && change <= most, "{precision:?}: {change}");
        assert!(error <= 1e-3, "{precision:?}: {error}");
    }
}

#[test]
fn half_precision_files_give_what_full_ones_give() {
    let config = fixture("llama").config;
    let ids = fixtures().ids;
    let expected = logits(&*model("llama"), &ids);
    for dtype in [DType::F16, DType::BF16] {
        let folder = tempfile::tempdir().unwrap();
        let halves = tensors(&config).into_iter().map(|(name, tensor)| (name, tensor.to_dtype(dtype).unwrap()));
        write(folder.path(), &config, &halves.collect());
        // The values have at most nine bits: f16 holds them exactly, bf16 those below 1.
        let ours = logits(&*load(folder.path(), Options::default()).unwrap(), &ids);
        let most = if dtype == DType::F16 { 0.0 } else { 0.1 };
        assert!(worst(&ours.concat(), &expected.concat()) <= most);
    }
}
