//! Weights in one file and in several.

use super::*;
use std::fs;

fn tensor(seed: u8, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32 + f32::from(seed) / 4.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// A folder with tensors a, b and c in two files, and its index.
fn sharded() -> (tempfile::TempDir, serde_json::Value) {
    let folder = tempfile::tempdir().unwrap();
    let save = |file: &str, tensors: &[(&str, Tensor)]| {
        let tensors: HashMap<&str, Tensor> = tensors.iter().cloned().collect();
        candle_core::safetensors::save(&tensors, folder.path().join(file)).unwrap();
    };
    save("one.safetensors", &[("a", tensor(1, &[2, 3])), ("b", tensor(2, &[4]))]);
    save("two.safetensors", &[("c", tensor(3, &[5]))]);
    let map = serde_json::json!({"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"});
    let index = serde_json::json!({"metadata": {"total_size": 60}, "weight_map": map});
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    (folder, index)
}

fn refusal(folder: &Path) -> String {
    Weights::folder(folder).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn several_files_are_read_as_one() {
    let (folder, _) = sharded();
    let weights = Weights::folder(folder.path()).unwrap();
    let read = |name: &str, shape: &[usize]| {
        weights.tensor(name, shape).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(read("a", &[2, 3]), [0.25, 1.25, 2.25, 3.25, 4.25, 5.25]);
    assert_eq!(read("b", &[4]), [0.5, 1.5, 2.5, 3.5]);
    assert_eq!(read("c", &[5]), [0.75, 1.75, 2.75, 3.75, 4.75]);
    assert!(weights.has("c") && !weights.has("d"));
    let told = weights.tensor("d", &[1]).unwrap_err().to_string();
    assert!(told.contains("model.safetensors.index.json: tensor d is missing"), "{told}");
    let told = weights.tensor("c", &[4]).unwrap_err().to_string();
    assert!(told.contains("two.safetensors: tensor c has shape [5]"), "{told}");
}

#[test]
fn a_matrix_in_its_file_is_as_one_in_memory() {
    let (folder, _) = sharded();
    let weights = Weights::folder(folder.path()).unwrap();
    let x = tensor(5, &[2, 3]);
    for rows in [0..2, 1..2] {
        let mapped = Linear::mapped(weights.mapped("a", (2, 3), rows.clone()).unwrap().unwrap(), None).unwrap();
        let dense = Linear::new(weights.rows("a", &[2, 3], rows).unwrap(), None).unwrap();
        let [ours, theirs] = [mapped, dense].map(|map| map.forward(&x).unwrap().to_vec2::<f32>().unwrap());
        assert_eq!(ours, theirs);
    }
    let told = weights.mapped("a", (3, 3), 0..3).unwrap_err().to_string();
    assert!(told.contains("has shape [2, 3]"), "{told}");
    let file = Arc::new(map(&File::open(folder.path().join("one.safetensors")).unwrap()).unwrap());
    assert!(Mapped::new(file.clone(), file.len() - 4, (1, 1)).is_ok());
    assert!(Mapped::new(file.clone(), file.len() - 4, (1, 2)).is_err());
    assert!(Mapped::new(file.clone(), 1, (1, 1)).is_err());
    assert!(Mapped::new(file, 0, (usize::MAX, 2)).is_err());
}

#[test]
fn rows_are_those_of_the_whole() {
    let (folder, _) = sharded();
    let weights = Weights::folder(folder.path()).unwrap();
    let rows = weights.rows("a", &[2, 3], 1..2).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(rows, [[3.25, 4.25, 5.25]]);
    let embedding = weights.embedding("a", (2, 3)).unwrap();
    let ids = Tensor::new(&[1u32, 0, 1], &Device::Cpu).unwrap();
    let [first, second] = [[3.25f32, 4.25, 5.25], [0.25, 1.25, 2.25]];
    assert_eq!(embedding.rows(&ids).unwrap().to_vec2::<f32>().unwrap(), [first, second, first]);
    assert!(embedding.rows(&Tensor::new(&[9u32], &Device::Cpu).unwrap()).is_err());
    assert!(weights.rows("c", &[5], 4..500).unwrap_err().to_string().contains("has no rows 4..500"));
}

#[test]
fn an_index_that_does_not_fit_its_files_is_refused() {
    let with = |change: fn(&mut serde_json::Value)| {
        let (folder, mut index) = sharded();
        change(&mut index["weight_map"]);
        fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        refusal(folder.path())
    };
    let told = with(|map| map["c"] = "one.safetensors".into());
    assert!(told.contains("says that one.safetensors holds c, but it does not"), "{told}");
    let told = with(|map| map["d"] = "three.safetensors".into());
    assert!(told.contains("three.safetensors: can't be read"), "{told}");
    for outside in ["../one.safetensors", "/etc/one.safetensors", "in/one.safetensors", "..", ""] {
        let (folder, mut index) = sharded();
        index["weight_map"]["c"] = outside.into();
        fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        assert!(refusal(folder.path()).contains("must be in the same folder"), "{outside}");
    }
}

#[test]
fn damaged_shards_and_missing_weights_are_named() {
    let (folder, _) = sharded();
    let path = folder.path().join("two.safetensors");
    let bytes = fs::read(&path).unwrap();
    for cut in [0, 4, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert!(refusal(folder.path()).contains("two.safetensors: is not a whole safetensors file"));
    }
    assert!(refusal(tempfile::tempdir().unwrap().path()).contains("model.safetensors: can't be read"));
}
