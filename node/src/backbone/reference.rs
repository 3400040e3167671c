//! Small models with made-up weights whose outputs come from transformers 5.23.0 (PyTorch 2.15, eager attention).
//!
//! A file in `fixtures/` holds the configuration, the names and shapes of the tensors as `save_pretrained` wrote them, and
//! the outputs. The weights are not stored: there and here they are made by [`weight`].

use super::*;
use candle_core::{DType, Device, Var};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// What a fixture's file holds.
#[derive(Deserialize)]
pub(super) struct Reference {
    pub(super) config: Value,
    /// The processor's file; none of text models.
    pub(super) preprocessor: Option<Value>,
    /// Names and shapes.
    tensors: BTreeMap<String, Vec<usize>>,
    /// Token ids of texts; none of images, which are made by the same rule everywhere.
    ids: Option<Vec<Vec<u32>>>,
    /// The mean over the own tokens (patches) behind the last block.
    pub(super) pooled: Vec<Vec<f32>>,
    pub(super) logits: Vec<Vec<f32>>,
}

/// Value `index` of the tensor `name`: the name's FNV-1a hash plus a multiple of 2^32 / golden ratio, as a number from
/// -0.5 to 0.5; 1 more in vectors called weight, which are those of norms.
fn weight(name: &str, index: usize, vector: bool) -> f32 {
    let hash = name.bytes().fold(2_166_136_261u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    let place = hash.wrapping_add((index as u32).wrapping_mul(2_654_435_761)) >> 8;
    let centred = f64::from(place) / f64::from(1 << 24) - 0.5;
    (if vector && name.ends_with("weight") { centred + 1.0 } else { centred }) as f32
}

impl Reference {
    pub(super) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap()
    }

    /// The weights, by name.
    pub(super) fn weights(&self) -> HashMap<String, Tensor> {
        let make = |(name, shape): (&String, &Vec<usize>)| {
            let values = (0..shape.iter().product()).map(|index| weight(name, index, shape.len() == 1));
            let values: Vec<f32> = values.collect();
            (name.clone(), Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap())
        };
        self.tensors.iter().map(make).collect()
    }

    /// The model's folder.
    pub(super) fn folder(&self) -> tempfile::TempDir {
        self.folder_with(&self.weights())
    }

    /// The model's folder with other weights.
    pub(super) fn folder_with(&self, weights: &HashMap<String, Tensor>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, value: &Value| fs::write(folder.path().join(name), value.to_string()).unwrap();
        write("config.json", &self.config);
        self.preprocessor.iter().for_each(|file| write(processor::FILE, file));
        candle_core::safetensors::save(weights, folder.path().join("model.safetensors")).unwrap();
        folder
    }

    /// The model.
    pub(super) fn load(&self) -> Box<dyn Backbone> {
        load(self.folder().path(), Options::default()).unwrap()
    }

    /// The inputs of some rows. Texts are padded by `padding` to the longest of all.
    pub(super) fn batch(&self, rows: &[usize], padding: u32) -> Batch {
        let Some(texts) = &self.ids else {
            let preprocessor = self.preprocessor.as_ref().unwrap();
            let side = preprocessor["size"]["height"].as_u64().unwrap() as usize;
            let values = preprocessor["image_mean"].as_array().unwrap().len() * side * side;
            let pixels = rows.iter().flat_map(|row| (row * values..(row + 1) * values).map(|i| (i * 37 % 256) as f32));
            let pixels = Tensor::from_vec(pixels.collect::<Vec<_>>(), (rows.len(), values), &Device::Cpu);
            return Batch::Pixels(pixels.unwrap());
        };
        let longest = texts.iter().map(Vec::len).max().unwrap();
        let ids = rows.iter().flat_map(|row| {
            let text = &texts[*row];
            text.iter().copied().chain(std::iter::repeat_n(padding, longest - text.len()))
        });
        let ids = Tensor::from_vec(ids.collect::<Vec<u32>>(), (rows.len(), longest), &Device::Cpu).unwrap();
        Batch::Tokens { ids, lengths: rows.iter().map(|row| texts[*row].len()).collect() }
    }

    /// All inputs.
    pub(super) fn all(&self) -> Batch {
        self.batch(&(0..self.logits.len()).collect::<Vec<_>>(), 0)
    }

    /// Whether a loaded model says what the reference says.
    pub(super) fn check(&self, backbone: &dyn Backbone) {
        let hidden = walk(backbone, &self.all());
        close(&backbone.pool(&hidden).unwrap(), &self.pooled, 5e-5);
        close(&backbone.logits(&hidden).unwrap(), &self.logits, 5e-5);
        let names = ["no", "perhaps", "yes"].map(String::from).to_vec();
        assert_eq!(backbone.head(), Head::Classes(names));
    }
}

/// The hidden state behind the last block.
pub(super) fn walk(backbone: &dyn Backbone, batch: &Batch) -> Hidden {
    let hidden = backbone.embed(batch).unwrap();
    (0..backbone.depth()).fold(hidden, |hidden, block| hidden.with(backbone.block(block, &hidden).unwrap()))
}

/// The largest difference between a matrix and what it should be; what is no number is the largest.
pub(super) fn difference(ours: &Tensor, theirs: &[Vec<f32>]) -> f32 {
    let ours = ours.to_vec2::<f32>().unwrap();
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.iter().zip(theirs).flat_map(|(ours, theirs)| {
        assert_eq!(ours.len(), theirs.len());
        ours.iter().zip(theirs)
    });
    pairs.map(|(ours, theirs)| (ours - theirs).abs()).max_by(f32::total_cmp).unwrap_or(0.0)
}

/// Fails where [`difference`] is more than `most`.
pub(super) fn close(ours: &Tensor, theirs: &[Vec<f32>], most: f32) {
    let worst = difference(ours, theirs);
    assert!(worst <= most, "differs by {worst}, may by {most}");
}

/// The gradient that block 0 passes back to its input, against finite differences, for the inputs `batch`.
pub(super) fn check_gradient(backbone: &dyn Backbone, batch: &Batch) {
    let hidden = backbone.embed(batch).unwrap();
    let shape = hidden.values.dims().to_vec();
    let count = hidden.values.elem_count();
    let outer: Vec<f32> = (0..count).map(|index| weight("outer", index, false)).collect();
    let outer = Tensor::from_vec(outer, shape.as_slice(), &Device::Cpu).unwrap();
    let start = hidden.values.flatten_all().unwrap().to_vec1::<f32>().unwrap();

    let input = Var::from_tensor(&hidden.values).unwrap();
    let output = backbone.block(0, &hidden.with(input.as_tensor().clone())).unwrap();
    let gradients = (output * &outer).unwrap().sum_all().unwrap().backward().unwrap();
    let ours = gradients.get(&input).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();

    let loss = |index: usize, by: f32| -> f64 {
        let mut values = start.clone();
        values[index] += by;
        let values = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap();
        let output = backbone.block(0, &hidden.with(values)).unwrap();
        let product = (output.to_dtype(DType::F64).unwrap() * outer.to_dtype(DType::F64).unwrap()).unwrap();
        product.sum_all().unwrap().to_scalar().unwrap()
    };
    // Fourth order, so that the step may be large against the rounding of f32.
    let step = 0.02f32;
    let slope = |index: usize| {
        let around = |by: f32| loss(index, by) - loss(index, -by);
        (8.0 * around(step) - around(2.0 * step)) / (12.0 * f64::from(step))
    };
    let largest = ours.iter().fold(0f64, |largest, gradient| largest.max(f64::from(gradient.abs())));
    assert!(largest > 0.01, "no gradient to speak of");
    let errors = ours.iter().enumerate().map(|(index, ours)| (f64::from(*ours) - slope(index)).abs() / largest);
    let worst = errors.max_by(f64::total_cmp).unwrap_or(f64::NAN);
    println!("{}: gradient of {count} values, worst relative error {worst:.1e}", backbone.model_type());
    assert!(worst <= 1e-3, "the gradient is off by {worst} of its largest value");
}
