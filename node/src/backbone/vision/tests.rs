//! Parity with transformers on small models of every kind, gradients, and bad folders.

use super::super::{
    Head, load,
    reference::{Reference, check_gradient, walk},
};
use super::*;
use candle_core::Device;
use serde_json::{Value, json};
use std::fs;

fn all() -> [Reference; 6] {
    [
        include_str!("../fixtures/vit.json"),
        include_str!("../fixtures/vit-pooler.json"),
        include_str!("../fixtures/deit.json"),
        include_str!("../fixtures/deit-teacher.json"),
        include_str!("../fixtures/dinov2.json"),
        include_str!("../fixtures/dinov2-swiglu.json"),
    ]
    .map(Reference::parse)
}

fn refusal(folder: &Path) -> String {
    load(folder, Options::default()).map(|_| ()).unwrap_err().to_string()
}

/// DINOv2's fixtures have images of another size than their positions: 12 instead of 20 pixels, and 20 instead of 12.
#[test]
fn every_kind_says_what_the_reference_says() {
    for reference in all() {
        let backbone = reference.load();
        reference.check(&*backbone);
        let side = reference.preprocessor.as_ref().unwrap()["size"]["height"].as_u64().unwrap() as usize;
        let channels = reference.config["num_channels"].as_u64().unwrap() as usize;
        assert_eq!(backbone.takes(), Takes::Pixels { channels, size: side });
        let specials = if backbone.model_type() == "deit" { 2 } else { 1 };
        assert_eq!(backbone.tokens(), (side / 4).pow(2) + specials);
    }
}

#[test]
fn prefixes_change_nothing() {
    for reference in all() {
        let prefix = format!("{}.", reference.config["model_type"].as_str().unwrap());
        let bare = |name: String| name.strip_prefix(&prefix).map(String::from).unwrap_or(name);
        let weights = reference.weights().into_iter().map(|(name, tensor)| (bare(name), tensor)).collect();
        reference.check(&*load(reference.folder_with(&weights).path(), Options::default()).unwrap());
    }
}

#[test]
fn a_block_differentiates_as_finite_differences_do() {
    for reference in all() {
        check_gradient(&*reference.load(), &reference.batch(&[0], 0));
    }
}

#[test]
fn the_tensors_decide_the_head_and_fewer_layers_leave_it_out() {
    for reference in all() {
        let folder = reference.folder();
        let cut = load(folder.path(), Options { layers: Some(1), ..Options::default() }).unwrap();
        assert_eq!((cut.depth(), cut.head()), (1, Head::None));
        assert!(cut.logits(&walk(&*cut, &reference.all())).is_err());

        let mut weights = reference.weights();
        weights.retain(|name, _| !name.contains("classifier") && !name.contains("layernorm."));
        let headless = load(reference.folder_with(&weights).path(), Options::default()).unwrap();
        assert_eq!(headless.head(), Head::None);
        assert_eq!(headless.parameters(), reference.load().parameters());
    }
}

#[test]
fn images_of_another_size_than_the_positions_are_refused_where_transformers_refuses_them() {
    for (reference, side, told) in [
        (include_str!("../fixtures/vit.json"), 12, Some("image_size in config.json is 8")),
        (include_str!("../fixtures/deit.json"), 4, Some("image_size in config.json is 8")),
        (include_str!("../fixtures/dinov2.json"), 10, Some("patch_size, 4, does not divide")),
        (include_str!("../fixtures/dinov2.json"), 1_000, Some("there may be at most 4096")),
        (include_str!("../fixtures/dinov2.json"), 24, None),
    ] {
        let mut reference = Reference::parse(reference);
        reference.preprocessor = reference.preprocessor.map(|mut file| {
            file["size"] = json!({"shortest_edge": side + 2});
            file["crop_size"] = json!(side);
            file
        });
        match told {
            Some(told) => {
                let refusal = refusal(reference.folder().path());
                let named =
                    refusal.contains(&format!("{side} x {side}")) && refusal.contains("preprocessor_config.json");
                assert!(refusal.contains(told) && named, "{refusal}");
            }
            None => assert_eq!(reference.load().takes(), Takes::Pixels { channels: 3, size: side }),
        }
    }
    let mut reference = Reference::parse(include_str!("../fixtures/vit.json"));
    reference.preprocessor.as_mut().unwrap()["size"] = json!({"height": 8, "width": 12});
    assert!(refusal(reference.folder().path()).contains("8 x 12"));
}

#[test]
fn options_and_labels_that_are_not_known_are_refused() {
    for (reference, key, value, told) in [
        (include_str!("../fixtures/dinov2.json"), "hidden_act", json!("silu"), "hidden_act is \"silu\""),
        (include_str!("../fixtures/dinov2.json"), "mlp_ratio", json!(-1), "mlp_ratio"),
        (include_str!("../fixtures/dinov2.json"), "mlp_ratio", json!(1e300), "mlp_ratio"),
        (include_str!("../fixtures/dinov2.json"), "use_swiglu_ffn", json!(true), "mlp.weights_in."),
        (include_str!("../fixtures/vit.json"), "use_swiglu_ffn", json!(true), "use_swiglu_ffn"),
        (include_str!("../fixtures/vit.json"), "qkv_bias", json!(true), "query.bias is missing"),
        (include_str!("../fixtures/vit-pooler.json"), "pooler_act", json!("relu"), "pooler_act is \"relu\""),
        (include_str!("../fixtures/deit.json"), "id2label", json!({"0": "a"}), "classifier.weight has shape [3, 16]"),
        (include_str!("../fixtures/deit-teacher.json"), "id2label", json!({"1": "a"}), "id2label"),
        (include_str!("../fixtures/vit.json"), "num_channels", json!(3), "image_mean"),
        (include_str!("../fixtures/vit.json"), "image_size", json!(12), "image_size in config.json is 12"),
    ] {
        let mut reference = Reference::parse(reference);
        reference.config[key] = value;
        let refusal = refusal(reference.folder().path());
        assert!(refusal.contains(told), "{key}: {refusal}");
    }
}

#[test]
fn a_missing_or_damaged_processor_is_named() {
    let mut reference = Reference::parse(include_str!("../fixtures/dinov2.json"));
    for file in [Value::Null, json!({"size": "big"}), json!({"size": 12, "resample": 9})] {
        reference.preprocessor = Some(file);
        assert!(refusal(reference.folder().path()).contains("preprocessor_config.json"));
    }
    let folder = reference.folder();
    fs::remove_file(folder.path().join("preprocessor_config.json")).unwrap();
    assert!(refusal(folder.path()).contains("preprocessor_config.json"));
}

#[test]
fn text_is_refused() {
    let backbone = Reference::parse(include_str!("../fixtures/vit.json")).load();
    let ids = Tensor::zeros((1, 4), candle_core::DType::U32, &Device::Cpu).unwrap();
    assert!(backbone.embed(&Batch::Tokens { ids, lengths: [4].into() }).is_err());
}
