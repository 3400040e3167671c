//! What a folder may hold, and what is refused.

use super::*;
use serde_json::json;

type Tensors = HashMap<String, Tensor>;

fn llama() -> (serde_json::Value, Tensors) {
    let config = fixture("llama").config;
    let tensors = tensors(&config);
    (config, tensors)
}

fn loaded(config: &serde_json::Value, tensors: &Tensors, options: Options) -> Result<Box<dyn Backbone>, BackboneError> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), config, tensors);
    load(folder.path(), options)
}

fn refusal(config: &serde_json::Value, tensors: &Tensors) -> String {
    loaded(config, tensors, Options::default()).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn the_tensors_decide_the_head_and_prefixes_change_nothing() {
    let (mut config, mut tensors) = llama();
    let ids = fixtures().ids;
    let expected = logits(&*model("llama"), &ids);
    let bare = tensors.iter().map(|(name, tensor)| (name.replace("model.", ""), tensor.clone())).collect();
    assert_eq!(logits(&*loaded(&config, &bare, Options::default()).unwrap(), &ids), expected);

    tensors.remove("lm_head.weight");
    assert_eq!(loaded(&config, &tensors, Options::default()).unwrap().head(), Head::None);
    tensors.insert("score.weight".into(), made("score.weight", &[2, 16]));
    let labels = Head::Classes(vec!["LABEL_0".into(), "LABEL_1".into()]);
    assert_eq!(loaded(&config, &tensors, Options::default()).unwrap().head(), labels);
    config["id2label"] = json!({"0": "no", "2": "yes"});
    assert!(refusal(&config, &tensors).contains("id2label"));
    config["id2label"] = json!({"0": "no", "1": "yes", "2": "perhaps"});
    assert!(refusal(&config, &tensors).contains("score.weight has shape [2, 16]"));
    tensors.remove("score.weight");
    config["tie_word_embeddings"] = json!(true);
    assert_eq!(loaded(&config, &tensors, Options::default()).unwrap().head(), Head::Vocabulary);
}

#[test]
fn a_model_in_several_files_is_as_one_in_one() {
    let (config, mut tensors) = llama();
    let ids = fixtures().ids;
    let expected = logits(&*loaded(&config, &tensors, Options::default()).unwrap(), &ids);
    let folder = tempfile::tempdir().unwrap();
    let first: Tensors = tensors.extract_if(|name, _| name.contains("self_attn")).collect();
    let map = [(&first, "1.safetensors"), (&tensors, "2.safetensors")].into_iter().flat_map(|(tensors, file)| {
        candle_core::safetensors::save(tensors, folder.path().join(file)).unwrap();
        tensors.keys().map(move |name| (name.clone(), json!(file)))
    });
    let index = json!({"weight_map": map.collect::<serde_json::Map<_, _>>()});
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    for precision in [Precision::F32, Precision::F16] {
        let backbone = load(folder.path(), Options { precision, ..Options::default() }).unwrap();
        assert_eq!(logits(&*backbone, &ids), expected);
    }
    fs::remove_file(folder.path().join("1.safetensors")).unwrap();
    let refusal = load(folder.path(), Options::default()).map(|_| ()).unwrap_err().to_string();
    assert!(refusal.contains("1.safetensors: can't be read"), "{refusal}");
}

#[test]
fn cut_models_have_no_head() {
    let (config, tensors) = llama();
    let options = |layers| Options { layers: Some(layers), ..Options::default() };
    let whole = loaded(&config, &tensors, options(2)).unwrap();
    let cut = loaded(&config, &tensors, options(1)).unwrap();
    assert_eq!((cut.depth(), cut.head()), (1, Head::None));
    assert_eq!((whole.depth(), whole.head()), (2, Head::Vocabulary));
    assert!(cut.parameters() < whole.parameters());
    assert!(cut.logits(&run(&*cut, &batch(&[&[1, 2]]))).is_err());
    assert!(cut.step(&[1, 2], &mut Past::default()).is_err());
    let refused = loaded(&config, &tensors, options(3)).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("layers must be from 1 to 2"), "{refused}");
}

#[test]
fn both_wordings_of_the_rotation_mean_the_same() {
    let ids = fixtures().ids;
    for (name, new) in [
        ("llama-linear", json!({"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})),
        ("phi3", json!({"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5})),
        (
            "gemma3_text",
            json!({
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            }),
        ),
    ] {
        let old = fixture(name).config;
        let mut config = old.clone();
        for key in ["rope_theta", "rope_scaling", "rope_local_base_freq", "partial_rotary_factor"] {
            config.as_object_mut().unwrap().remove(key);
        }
        config["rope_parameters"] = new;
        assert_eq!(
            logits(&*load(folder(&config).path(), Options::default()).unwrap(), &ids),
            logits(&*model(name), &ids)
        );
    }
}

#[test]
fn configurations_that_are_not_supported_are_refused_before_weights_are_read() {
    let cases = [
        ("llama", "hidden_act", json!("relu"), "hidden_act is \"relu\""),
        ("llama", "num_key_value_heads", json!(3), "does not divide"),
        ("llama", "hidden_size", json!(1_000_000_000), "hidden_size is 1000000000"),
        ("llama", "num_hidden_layers", json!(0), "num_hidden_layers is 0"),
        ("llama", "head_dim", json!(5), "must be an even number"),
        ("llama", "rms_norm_eps", json!(-1.0), "rms_norm_eps"),
        ("llama", "rope_theta", json!(0.0), "rope_theta is 0"),
        ("llama", "rope_scaling", json!({"type": "dynamic", "factor": 2.0}), "the rope type is \"dynamic\""),
        ("llama", "rope_scaling", json!({"rope_type": "linear"}), "factor of the rotary embedding is missing"),
        ("llama", "rope_scaling", json!({"rope_type": "llama3", "factor": 2.0}), "low_freq_factor"),
        ("llama", "quantization_config", json!({"quant_method": "gptq"}), "quantization_config"),
        ("llama", "attn_logit_softcapping", json!(3.0), "attn_logit_softcapping"),
        ("llama", "vocab_size", json!("many"), "is not a configuration"),
        ("mistral", "sliding_window", json!(0), "sliding_window is 0"),
        ("qwen2", "use_sliding_window", json!(true), "use_sliding_window is set"),
        ("phi3", "rope_scaling", json!({"type": "longrope", "short_factor": [1.0]}), "the rope type is \"longrope\""),
        ("gemma2", "layer_types", json!(["full_attention"]), "layer_types names 1 layers"),
        ("gemma2", "layer_types", json!(["full_attention", "chunked_attention"]), "chunked_attention"),
        ("gemma2", "final_logit_softcapping", json!(-1.0), "must be more than 0"),
        ("gemma3_text", "sliding_window_pattern", json!(0), "sliding_window_pattern is 0"),
        ("gemma3_text", "use_bidirectional_attention", json!(true), "use_bidirectional_attention"),
    ];
    for (name, key, value, told) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut config = fixture(name).config;
        config[key] = value;
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let refusal = load(folder.path(), Options::default()).map(|_| ()).unwrap_err().to_string();
        assert!(refusal.contains(told) && refusal.contains("config.json"), "{name}, {key}: {refusal}");
    }
}

#[test]
fn damaged_weights_are_named_by_file_and_tensor() {
    let name = "model.layers.1.mlp.down_proj.weight";
    let (config, tensors) = llama();
    let damaged = |damage: fn(&Tensor) -> Option<Tensor>| {
        let mut tensors = tensors.clone();
        let tensor = damage(&tensors.remove(name).unwrap());
        tensors.extend(tensor.map(|tensor| (name.to_string(), tensor)));
        refusal(&config, &tensors)
    };
    let refusals = [
        (damaged(|_| None), "is missing"),
        (damaged(|tensor| Some(tensor.t().unwrap().contiguous().unwrap())), "has shape [24, 16]"),
        (damaged(|tensor| Some((tensor * f64::NAN).unwrap())), "not a finite number"),
        (damaged(|tensor| Some(tensor.to_dtype(DType::F64).unwrap())), "is of type F64"),
    ];
    for (refusal, told) in refusals {
        assert!(refusal.contains(told) && refusal.contains(name) && refusal.contains("model.safetensors"), "{refusal}");
    }
}

#[test]
fn values_that_half_precision_does_not_hold_are_refused() {
    let (config, mut tensors) = llama();
    let name = "model.layers.1.mlp.down_proj.weight";
    tensors.insert(name.into(), (&tensors[name] * 1e6).unwrap());
    let load = |precision| loaded(&config, &tensors, Options { precision, ..Options::default() }).map(|_| ());
    assert!(load(Precision::Bf16).is_ok());
    assert!(load(Precision::F16).unwrap_err().to_string().contains("too large for f16"));
}

#[test]
fn an_embedding_of_another_vocabulary_is_refused() {
    let (mut config, tensors) = llama();
    config["vocab_size"] = json!(33);
    let refusal = refusal(&config, &tensors);
    assert!(refusal.contains("embed_tokens.weight has shape [32, 16]") && refusal.contains("[33, 16]"), "{refusal}");
}

#[test]
fn a_truncated_file_is_refused() {
    let folder = folder(&fixture("llama").config);
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let refusal = load(folder.path(), Options::default()).map(|_| ()).unwrap_err().to_string();
    assert!(refusal.contains("is not a whole safetensors file"), "{refusal}");
}

#[test]
fn inputs_of_another_kind_are_refused() {
    let backbone = model("llama");
    assert!(backbone.embed(&Batch::Pixels(made("pixels", &[1, 4]))).is_err());
    assert!(backbone.embed(&batch(&[&[1, 2], &[]])).is_err());
    let told = backbone.embed(&batch(&[&[1, 32]])).unwrap_err().to_string();
    assert!(told.contains("token 32") && told.contains("32 tokens"), "{told}");
    let long = [1; 65];
    assert!(backbone.embed(&batch(&[&long])).unwrap_err().to_string().contains("at most 64"));
    let mut past = Past::default();
    backbone.step(&long[..64], &mut past).unwrap();
    assert!(backbone.step(&[1], &mut past).unwrap_err().to_string().contains("at most 64"));
    assert!(backbone.block(2, &run(&*backbone, &batch(&[&[1]]))).is_err());
}
