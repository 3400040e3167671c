//! Parity with the reference implementation on real weights.

use super::*;
use crate::backbone::tests::real_data;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Golden {
    input_ids: Vec<u32>,
    last_logits: Vec<f32>,
    greedy_ids: Option<Vec<u32>>,
}

/// The real decoders and what the reference makes of them, where there is real data.
fn real_models() -> Vec<(PathBuf, Golden)> {
    let Some(data) = real_data() else { return Vec::new() };
    let folders = fs::read_dir(data.join("models")).unwrap().map(|entry| entry.unwrap().path());
    let decoders = folders.filter(|folder| folder.file_name().unwrap().to_string_lossy().starts_with("llama-"));
    let golden = |folder: &PathBuf| serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let models: Vec<_> = decoders.map(|folder| (folder.clone(), golden(&folder))).collect();
    assert_eq!(models.len(), 8);
    models
}

#[test]
fn real_weights_give_the_logits_of_the_reference() {
    for (folder, golden) in real_models() {
        let backbone = load(&folder, Options::default()).unwrap();
        let last = logits(&*backbone, &golden.input_ids).pop().unwrap();
        let difference = worst(&last, &golden.last_logits);
        println!("{}: {} weights, worst difference {difference:e}", folder.display(), backbone.parameters());
        assert!(difference <= 2e-4, "{}: {difference}", folder.display());
    }
}

#[test]
fn real_weights_continue_texts_as_the_reference_does() {
    for (folder, golden) in real_models() {
        let Some(greedy) = golden.greedy_ids else { continue };
        let backbone = load(&folder, Options::default()).unwrap();
        let mut past = Past::default();
        let mut ids = golden.input_ids.clone();
        let mut next = ids.clone();
        while ids.len() < greedy.len() {
            let logits = backbone.step(&next, &mut past).unwrap();
            next = vec![logits.argmax(0).unwrap().to_scalar().unwrap()];
            ids.extend(&next);
        }
        assert_eq!(ids, greedy, "{}", folder.display());
    }
}

#[test]
fn packed_real_weights_give_almost_the_same_logits() {
    for (folder, golden) in real_models() {
        for (precision, most) in
            [(Precision::F16, 1e-3), (Precision::Bf16, 1e-2), (Precision::Q8, 2e-2), (Precision::Q4, 0.3)]
        {
            let backbone = load(&folder, Options { precision, ..Options::default() }).unwrap();
            let last = logits(&*backbone, &golden.input_ids).pop().unwrap();
            let change = change(&last, &golden.last_logits);
            println!("{}, {precision:?}: logits change by {change:e}", folder.display());
            assert!(change <= most, "{}, {precision:?}: {change}", folder.display());
        }
    }
}
