//! Parity with transformers on small models of every kind and on a real one, gradients, padding, and bad folders.

use super::super::{
    Head, Precision, load,
    reference::{Reference, check_gradient, close, difference, walk},
    tests::real_data,
};
use super::*;
use candle_core::{D, DType, Device};
use serde_json::{Value, json};
use std::{collections::HashMap, fs};

fn all() -> [Reference; 3] {
    [
        include_str!("../fixtures/bert.json"),
        include_str!("../fixtures/roberta.json"),
        include_str!("../fixtures/distilbert.json"),
    ]
    .map(Reference::parse)
}

fn bert() -> Reference {
    Reference::parse(include_str!("../fixtures/bert.json"))
}

/// RoBERTa's fixture has 14 positions, of which the first two are never a token's.
#[test]
fn every_kind_says_what_the_reference_says() {
    for reference in all() {
        let backbone = reference.load();
        reference.check(&*backbone);
        assert_eq!(backbone.takes(), Takes::Tokens { vocabulary: 30, context: 12 });
    }
}

#[test]
fn prefixes_and_old_names_of_norms_change_nothing() {
    for reference in all() {
        let old = |name: &str| {
            let name = name.split_once('.').filter(|(first, _)| first.contains("bert")).map_or(name, |(_, rest)| rest);
            let beta = name.replace("LayerNorm.bias", "LayerNorm.beta");
            beta.replace("LayerNorm.weight", "LayerNorm.gamma")
        };
        let renamed: HashMap<String, Tensor> =
            reference.weights().into_iter().map(|(name, tensor)| (old(&name), tensor)).collect();
        let folder = reference.folder_with(&renamed);
        reference.check(&*load(folder.path(), Options::default()).unwrap());
    }
}

#[test]
fn padding_changes_nothing() {
    for reference in all() {
        let backbone = reference.load();
        let say = |batch: &Batch| {
            let hidden = walk(&*backbone, batch);
            Tensor::cat(&[backbone.pool(&hidden).unwrap(), backbone.logits(&hidden).unwrap()], 1).unwrap()
        };
        let padded = say(&reference.all());
        let otherwise = say(&reference.batch(&[0, 1, 2], 29)).to_vec2::<f32>().unwrap();
        assert_eq!(padded.to_vec2::<f32>().unwrap(), otherwise);
        for row in 0..3 {
            let Batch::Tokens { ids, lengths } = reference.batch(&[row], 0) else { unreachable!() };
            let alone = Batch::Tokens { ids: ids.narrow(1, 0, lengths[0]).unwrap(), lengths };
            let alone = say(&alone).to_vec2::<f32>().unwrap();
            close(&padded.narrow(0, row, 1).unwrap(), &alone, 1e-6);
        }
    }
}

#[test]
fn a_block_differentiates_as_finite_differences_do() {
    for mut reference in all() {
        if reference.config["model_type"] == "distilbert" {
            // Finite differences stumble over the corner of ReLU.
            reference.config["activation"] = json!("gelu");
        }
        check_gradient(&*reference.load(), &reference.all());
    }
}

#[test]
fn fewer_layers_leave_the_head_out() {
    let reference = bert();
    let folder = reference.folder();
    let backbone = load(folder.path(), Options { layers: Some(1), ..Options::default() }).unwrap();
    assert_eq!((backbone.depth(), backbone.head()), (1, Head::None));
    let hidden = walk(&*backbone, &reference.all());
    assert!(backbone.logits(&hidden).is_err());
    assert!(backbone.parameters() < reference.load().parameters());
}

#[test]
fn the_tensors_decide_the_head() {
    let reference = bert();
    let mut weights = reference.weights();
    weights.remove("bert.pooler.dense.weight");
    let direct = load(reference.folder_with(&weights).path(), Options::default()).unwrap();
    let hidden = walk(&*direct, &reference.all());
    assert!(difference(&direct.logits(&hidden).unwrap(), &reference.logits) > 0.01);
    weights.remove("classifier.weight");
    assert_eq!(load(reference.folder_with(&weights).path(), Options::default()).unwrap().head(), Head::None);
}

#[test]
fn classes_without_names_are_two() {
    let mut reference = bert();
    reference.config["id2label"] = Value::Null;
    let mut weights = reference.weights();
    for name in ["classifier.weight", "classifier.bias"] {
        let two = weights[name].narrow(0, 0, 2).unwrap().contiguous().unwrap();
        weights.insert(name.into(), two);
    }
    let backbone = load(reference.folder_with(&weights).path(), Options::default()).unwrap();
    assert_eq!(backbone.head(), Head::Classes(["LABEL_0", "LABEL_1"].map(String::from).to_vec()));
}

#[test]
fn the_folder_says_how_texts_are_pooled() {
    let reference = bert();
    let folder = reference.folder();
    let pooling = folder.path().join("1_Pooling");
    fs::create_dir(&pooling).unwrap();
    let write = |value: Value| fs::write(pooling.join("config.json"), value.to_string()).unwrap();
    write(json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}));
    let backbone = load(folder.path(), Options::default()).unwrap();
    let hidden = walk(&*backbone, &reference.all());
    let first = hidden.values.narrow(1, 0, 1).unwrap().squeeze(1).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(backbone.pool(&hidden).unwrap().to_vec2::<f32>().unwrap(), first);
    write(json!({"pooling_mode_max_tokens": true}));
    let refusal = load(folder.path(), Options::default()).map(|_| ()).unwrap_err().to_string();
    assert!(refusal.contains("max_tokens") && refusal.contains("1_Pooling"), "{refusal}");
}

#[test]
fn configurations_that_are_not_supported_are_refused_before_weights_are_read() {
    let reference = Reference::parse(include_str!("../fixtures/roberta.json"));
    let folder = reference.folder();
    fs::write(folder.path().join("model.safetensors"), "nothing").unwrap();
    for (key, value, told) in [
        ("model_type", json!("t5"), "model_type is \"t5\""),
        ("hidden_act", json!("silu"), "hidden_act is \"silu\""),
        ("position_embedding_type", json!("relative_key"), "position_embedding_type is \"relative_key\""),
        ("is_decoder", json!(true), "is_decoder"),
        ("num_attention_heads", json!(3), "does not divide"),
        ("vocab_size", json!(1_000_000_000), "vocab_size is 1000000000"),
        ("max_position_embeddings", json!(2), "leaves no position"),
        ("pad_token_id", json!(u64::MAX), "leaves no position"),
        ("layer_norm_eps", json!(2.0), "layer_norm_eps"),
        ("hidden_size", Value::Null, "is not a configuration"),
    ] {
        let mut config = reference.config.clone();
        config[key] = value;
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let refusal = load(folder.path(), Options::default()).map(|_| ()).unwrap_err().to_string();
        assert!(refusal.contains(told) && refusal.contains("config.json"), "{refusal}");
    }
}

#[test]
fn weights_and_labels_that_do_not_fit_are_refused() {
    let reference = bert();
    let refusal = |change: &dyn Fn(&mut HashMap<String, Tensor>, &mut Value)| {
        let (mut weights, mut config) = (reference.weights(), reference.config.clone());
        change(&mut weights, &mut config);
        let folder = reference.folder_with(&weights);
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        load(folder.path(), Options::default()).map(|_| ()).unwrap_err().to_string()
    };
    let words = "bert.embeddings.word_embeddings.weight";
    for (told, refusal) in [
        (words, refusal(&|_, config| config["vocab_size"] = json!(31))),
        ("embeddings.word_embeddings.weight is missing", refusal(&|weights, _| drop(weights.remove(words)))),
        ("is missing", refusal(&|weights, _| drop(weights.remove("bert.encoder.layer.1.output.LayerNorm.bias")))),
        ("is missing", refusal(&|weights, _| drop(weights.remove("bert.pooler.dense.bias")))),
        ("has shape [24", refusal(&|_, config| config["intermediate_size"] = json!(32))),
        ("classifier.weight has shape [3, 16]", refusal(&|_, config| config["id2label"] = json!({"0": "a", "1": "b"}))),
        ("classifier.weight has shape [3, 16]", refusal(&|_, config| config["id2label"] = Value::Null)),
        ("id2label", refusal(&|_, config| config["id2label"] = json!({"0": "a", "1": "b", "3": "c"}))),
        ("id2label", refusal(&|_, config| config["id2label"] = json!({}))),
        ("is not a configuration", refusal(&|_, config| config["id2label"] = json!({"zero": "a"}))),
    ] {
        assert!(refusal.contains(told), "{refusal}");
    }
    let folder = reference.folder();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(load(folder.path(), Options::default()).is_err());
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let backbone = bert().load();
    let refused = |ids: &[u32], lengths: &[usize]| {
        let ids = Tensor::from_vec(ids.to_vec(), (lengths.len(), ids.len() / lengths.len()), &Device::Cpu).unwrap();
        backbone.embed(&Batch::Tokens { ids, lengths: lengths.into() }).unwrap_err().to_string()
    };
    assert!(refused(&[1, 30], &[2]).contains("token 30"));
    assert!(refused(&[1, u32::MAX], &[1]).contains("token 4294967295"));
    assert!(refused(&[1, 2], &[3]).contains("lengths [3]"));
    assert!(refused(&[1, 2], &[0]).contains("lengths [0]"));
    assert!(refused(&[1; 13], &[13]).contains("at most 12"));
    let pixels = Tensor::zeros((1, 3), DType::F32, &Device::Cpu).unwrap();
    assert!(backbone.embed(&Batch::Pixels(pixels)).is_err());
    let hidden = walk(&*backbone, &bert().all());
    assert!(backbone.block(2, &hidden).is_err());
}

#[test]
fn real_sentences_are_embedded_as_by_the_reference() {
    let Some(data) = real_data() else { return };
    #[derive(serde::Deserialize)]
    struct Golden {
        input_ids: Vec<Vec<u32>>,
        mean_pooled_normalised: Vec<Vec<f32>>,
    }
    let folder = data.join("models/bert-minilm-l6-v2");
    let golden: Golden = serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let backbone = load(&folder, Options::default()).unwrap();
    let embed_by = |backbone: &dyn Backbone, texts: &[Vec<u32>]| {
        let batch = crate::data::Inputs::Tokens(texts.to_vec()).batch(&(0..texts.len() as u32).collect::<Vec<_>>());
        let pooled = backbone.pool(&walk(backbone, &batch.unwrap())).unwrap();
        let norm = pooled.sqr().unwrap().sum_keepdim(D::Minus1).unwrap().sqrt().unwrap();
        pooled.broadcast_div(&norm).unwrap()
    };
    let embed = |texts: &[Vec<u32>]| embed_by(&*backbone, texts);
    let together = embed(&golden.input_ids);
    let mut worst = difference(&together, &golden.mean_pooled_normalised);
    for (text, expected) in golden.input_ids.iter().zip(&golden.mean_pooled_normalised) {
        worst = worst.max(difference(&embed(std::slice::from_ref(text)), std::slice::from_ref(expected)));
    }
    let (first, second) = (together.get(0).unwrap(), together.get(1).unwrap());
    let cosine = (first * second).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    println!("MiniLM: {} weights, worst difference {worst:.1e}, cosine {cosine:.4}", backbone.parameters());
    assert!(worst <= 1e-3, "differs by {worst}");
    assert!((cosine - 0.7553).abs() < 1e-3, "{cosine}");

    for (precision, least) in
        [(Precision::F16, 0.9999), (Precision::Bf16, 0.999), (Precision::Q8, 0.999), (Precision::Q4, 0.95)]
    {
        let packed = load(&folder, Options { precision, ..Options::default() }).unwrap();
        let cosines = (embed_by(&*packed, &golden.input_ids) * &together).unwrap().sum(D::Minus1).unwrap();
        let cosine = cosines.min(0).unwrap().to_scalar::<f32>().unwrap();
        println!("MiniLM kept as {precision:?}: least cosine with f32 {cosine:.5}");
        assert!(cosine >= least, "{precision:?}: {cosine}");
    }
}
