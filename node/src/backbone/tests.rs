//! Parity with a reference implementation on real weights, and what happens to damaged folders.

use super::*;
use candle_core::{D, DType, Device};
use flate2::read::GzDecoder;
use std::{collections::HashMap, io::Read};

/// The folder with real models and data, or a word why the test is skipped. Where everything must be tested, it fails.
pub(crate) fn real_data() -> Option<PathBuf> {
    let folder = std::env::var_os("HETEROTUNE_DATA").map(PathBuf::from);
    if folder.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "HETEROTUNE_DATA is not set");
        println!("skipped: HETEROTUNE_DATA does not name a folder with models/ and vision/");
    }
    folder
}

#[test]
fn logits_of_real_weights_are_those_of_the_reference() {
    let Some(data) = real_data() else { return };
    #[derive(Deserialize)]
    struct Golden {
        labels: Vec<usize>,
        logits: Vec<Vec<f32>>,
    }
    let mut records = Vec::new();
    let images = fs::File::open(data.join("vision/cifar10_4k/test.bin.gz")).unwrap();
    // A record: the label, then 3 x 32 x 32 values.
    GzDecoder::new(images).take(4 * 3_073).read_to_end(&mut records).unwrap();
    for name in ["vit-cifar10-d64-l4", "vit-cifar10-d128-l6"] {
        let folder = data.join("models").join(name);
        let golden: Golden = serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap();
        let labels: Vec<usize> = records.chunks(3_073).map(|record| usize::from(record[0])).collect();
        assert_eq!(labels, golden.labels);
        let pixels: Vec<f32> = records.chunks(3_073).flat_map(|record| &record[1..]).map(|v| f32::from(*v)).collect();
        let pixels = Tensor::from_vec(pixels, (4, 3_072), &Device::Cpu).unwrap();

        let backbone = load(&folder, Options::default()).unwrap();
        let hidden = backbone.embed(&Batch::Pixels(pixels)).unwrap();
        assert_eq!(hidden.values.dims(), [4, backbone.tokens(), backbone.width()]);
        let hidden =
            (0..backbone.depth()).fold(hidden, |hidden, block| hidden.with(backbone.block(block, &hidden).unwrap()));
        assert_eq!(backbone.pool(&hidden).unwrap().dims(), [4, backbone.width()]);
        let logits = backbone.logits(&hidden).unwrap();
        let worst = reference::difference(&logits, &golden.logits);
        assert!(worst <= 2e-4, "{name} differs by {worst}");
        let best = logits.argmax(D::Minus1).unwrap().to_vec1::<u32>().unwrap();
        println!(
            "{name}: {} weights, worst difference {worst:.1e}, predictions {best:?} for {labels:?}",
            backbone.parameters()
        );
    }
}

/// A source of small multiples of 1/8 that keeps what it has given.
pub(crate) struct Made(pub(crate) HashMap<String, Tensor>);

impl Source for Made {
    type Error = candle_core::Error;

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Computed<Tensor> {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| ((i * 7 + name.len()) % 11) as f32 * 0.125 - 0.5).collect();
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
        self.0.insert(name.to_string(), tensor.clone());
        Ok(tensor)
    }
}

/// A folder with a tiny model (4 x 4 pixels, d = 8), whose files a test may then damage.
pub(crate) fn tiny() -> (tempfile::TempDir, serde_json::Value, HashMap<String, Tensor>) {
    let config = serde_json::json!({
        "model_type": "vit", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "image_size": 4, "patch_size": 2, "num_channels": 1,
    });
    let pixels =
        Pixels { do_rescale: true, rescale_factor: 0.1, do_normalize: false, image_mean: vec![], image_std: vec![] };
    let mut made = Made(HashMap::new());
    Vit::assemble(serde_json::from_value(config.clone()).unwrap(), &pixels, &mut made).unwrap();
    let tensors = made.0;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    fs::write(folder.path().join("preprocessor_config.json"), serde_json::to_string(&pixels).unwrap()).unwrap();
    write(folder.path(), &tensors);
    (folder, config, tensors)
}

fn write(folder: &Path, tensors: &HashMap<String, Tensor>) {
    candle_core::safetensors::save(tensors, folder.join("model.safetensors")).unwrap();
}

fn refusal(folder: &Path) -> String {
    load(folder, Options::default()).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn prefix_and_half_precision_change_nothing() {
    let (folder, _, tensors) = tiny();
    let input = Tensor::arange(0f32, 32.0, &Device::Cpu).unwrap().reshape((2, 16)).unwrap();
    let output = || {
        let backbone = load(folder.path(), Options::default()).unwrap();
        let hidden = backbone.embed(&Batch::Pixels(input.clone())).unwrap();
        backbone.pool(&hidden.with(backbone.block(0, &hidden).unwrap())).unwrap().to_vec2::<f32>().unwrap()
    };
    let expected = output();
    // The weights are small multiples of 1/8, so they survive half precision exactly.
    for dtype in [DType::F16, DType::BF16] {
        let halves = tensors.iter().map(|(name, tensor)| (format!("vit.{name}"), tensor.to_dtype(dtype).unwrap()));
        write(folder.path(), &halves.collect());
        assert_eq!(output(), expected);
    }
}

#[test]
fn configurations_that_are_not_supported_are_refused_before_weights_are_read() {
    let (folder, config, _) = tiny();
    fs::write(folder.path().join("model.safetensors"), "nothing").unwrap();
    for (key, value, told) in [
        ("model_type", serde_json::json!("resnet"), "model_type is \"resnet\""),
        ("hidden_act", serde_json::json!("silu"), "hidden_act is \"silu\""),
        ("num_attention_heads", serde_json::json!(3), "does not divide"),
        ("hidden_size", serde_json::json!(1_000_000_000), "hidden_size is 1000000000"),
        ("num_hidden_layers", serde_json::json!(0), "num_hidden_layers is 0"),
        ("patch_size", serde_json::json!(3), "patch_size, 3, does not divide"),
        ("image_size", serde_json::json!("big"), "is not a configuration"),
        ("layer_norm_eps", serde_json::json!(-1.0), "layer_norm_eps"),
    ] {
        let mut config = config.clone();
        config[key] = value;
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let refusal = refusal(folder.path());
        assert!(refusal.contains(told) && refusal.contains("config.json"), "{refusal}");
    }
}

#[test]
fn missing_files_are_named() {
    for name in ["config.json", "preprocessor_config.json", "model.safetensors"] {
        let (folder, _, _) = tiny();
        fs::remove_file(folder.path().join(name)).unwrap();
        assert!(refusal(folder.path()).contains(name));
    }
}

#[test]
fn damaged_weights_are_named_by_file_and_tensor() {
    let name = "encoder.layer.0.output.dense.weight";
    type Damage = fn(&mut HashMap<String, Tensor>);
    let cases: [(Damage, &str); 4] = [
        (|all| drop(all.remove("encoder.layer.0.output.dense.weight")), "is missing"),
        (
            |all| {
                let wrong = all["encoder.layer.0.output.dense.weight"].t().unwrap().contiguous().unwrap();
                all.insert("encoder.layer.0.output.dense.weight".into(), wrong);
            },
            "has shape [16, 8]",
        ),
        (
            |all| {
                let wrong = (&all["encoder.layer.0.output.dense.weight"] * f64::NAN).unwrap();
                all.insert("encoder.layer.0.output.dense.weight".into(), wrong);
            },
            "not a finite number",
        ),
        (
            |all| {
                let wrong = all["encoder.layer.0.output.dense.weight"].to_dtype(DType::F64).unwrap();
                all.insert("encoder.layer.0.output.dense.weight".into(), wrong);
            },
            "is of type F64",
        ),
    ];
    for (damage, told) in cases {
        let (folder, _, mut tensors) = tiny();
        damage(&mut tensors);
        write(folder.path(), &tensors);
        let refusal = refusal(folder.path());
        assert!(refusal.contains(told) && refusal.contains(name) && refusal.contains("model.safetensors"), "{refusal}");
    }
}

#[test]
fn cut_and_garbled_weights_are_refused() {
    let (folder, _, _) = tiny();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for cut in [0, 4, 100, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert!(refusal(folder.path()).contains("is not a whole safetensors file"));
    }
    fs::write(&path, [0xff; 64]).unwrap();
    assert!(refusal(folder.path()).contains("is not a whole safetensors file"));
}

#[test]
fn inputs_of_another_size_are_refused() {
    let (folder, _, _) = tiny();
    let backbone = load(folder.path(), Options::default()).unwrap();
    assert!(backbone.embed(&Batch::Pixels(Tensor::zeros((2, 15), DType::F32, &Device::Cpu).unwrap())).is_err());
    let values = Tensor::zeros((2, 5, 8), DType::F32, &Device::Cpu).unwrap();
    assert!(backbone.block(2, &Hidden { values, lengths: None }).is_err());
}
