//! Real pretrained models and real data: what bare models are known to reach, networks of text classifiers and of
//! language models, and what can be done with what their nodes have learnt.

mod common;

use common::process::{Ended, Process, heterotune};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder with real models and data, or a word why the test is skipped. Where everything must be tested, it fails.
fn real_data() -> Option<PathBuf> {
    let folder = std::env::var_os("HETEROTUNE_DATA").map(PathBuf::from);
    if folder.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "HETEROTUNE_DATA is not set");
        println!("skipped: HETEROTUNE_DATA does not name a folder with models/, text/ and vision/");
    }
    folder
}

/// Runs a verb with arguments.
fn verb(folder: &Path, arguments: &[&str]) -> Ended {
    let mut command = heterotune();
    command.args(arguments);
    Process::start(command, &folder.join("verb")).wait()
}

/// What a verb that must succeed prints, as JSON.
fn said(folder: &Path, arguments: &[&str]) -> Value {
    let ended = verb(folder, arguments);
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().into()
}

#[test]
fn bare_models_reach_what_they_are_known_to_reach() {
    let Some(real) = real_data() else { return };
    let home = tempfile::tempdir().unwrap();
    for (model, task, data, name, known, tolerance) in [
        ("llama-stories260k", "causal-lm", "text/tinystories_1000/test.jsonl", "perplexity", 4.1868, 0.001),
        ("llama-stories260k-b", "causal-lm", "text/tinystories_1000/test.jsonl", "perplexity", 10.0923, 0.001),
        ("vit-cifar10-d64-l4", "image-classification", "vision/cifar10_4k/test.bin.gz", "accuracy", 0.548, 0.0011),
        ("vit-cifar10-d128-l6", "image-classification", "vision/cifar10_4k/test.bin.gz", "accuracy", 0.505, 0.0011),
    ] {
        let (model, data) = (text(&real.join("models").join(model)), text(&real.join(data)));
        let found = said(home.path(), &["eval", "--backbone", &model, "--task", task, "--data", &data, "--json"]);
        let value = found[name].as_f64().unwrap();
        assert!((value - known).abs() <= tolerance, "{model}: {found}, but {known} is known");
    }
}

#[test]
fn a_language_model_goes_on_and_a_classifier_ranks() {
    let Some(real) = real_data() else { return };
    let home = tempfile::tempdir().unwrap();
    let llama = text(&real.join("models/llama-stories260k"));
    let generate = |more: &[&str]| {
        let first = ["generate", "--backbone", &llama, "--prompt", "Once upon a time", "--tokens", "40", "--json"];
        said(home.path(), &[&first[..], more].concat())["text"].as_str().unwrap().to_owned()
    };
    let greedy = generate(&["--temperature", "0"]);
    assert!(
        greedy.starts_with(", there was a little girl named Lily. She loved to play outside in the park"),
        "{greedy}"
    );
    assert_eq!(generate(&["--seed", "5"]), generate(&["--seed", "5"]));
    assert_ne!(generate(&["--seed", "5"]), generate(&["--seed", "6"]));
    let (vit, images) = (real.join("models/vit-cifar10-d64-l4"), real.join("vision/cifar10_4k/test.bin.gz"));
    let ended = verb(home.path(), &["predict", "--backbone", &text(&vit), "--data", &text(&images), "--top", "3"]);
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 1_000), "{}", ended.stderr);
    for line in ended.stdout.lines().take(20) {
        let line: Value = serde_json::from_str(line).unwrap();
        let top = line["top"].as_array().unwrap();
        let shares: Vec<f64> = top.iter().map(|pair| pair[1].as_f64().unwrap()).collect();
        assert!(shares.len() == 3 && shares.is_sorted_by(|a, b| a >= b) && shares.iter().sum::<f64>() <= 1.0 + 1e-9);
        assert_eq!(line["label"], top[0][0]);
    }
}

/// Runs a scenario file; gives its summary and its folder.
fn scenario(home: &Path, name: &str, file: &str) -> (Value, PathBuf) {
    let path = home.join(name).with_extension("toml");
    fs::write(&path, file).unwrap();
    let out = home.join(name);
    let mut command = heterotune();
    command.args(["scenario", "run", "--json"]).arg(&path).arg("--out").arg(&out);
    let ended = Process::start(command, &home.join("runner")).wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    (serde_json::from_str(&ended.stdout).unwrap(), out)
}

/// A scenario of questions and what they ask for, few of them labelled and unevenly, with these nodes and their network.
fn questions(nodes_and_network: &str) -> String {
    let same = r#"
        name = "questions"
        seed = 1
        [task]
        kind = "text-classification"
        [data]
        file = "$HETEROTUNE_DATA/text/trec6/train.jsonl"
        test = "$HETEROTUNE_DATA/text/trec6/test.jsonl"
        test_rows = 100
        split_seed = 0
        anchors = 64
        labelled_per_node = 60
        alpha = 0.1
        min_per_class = 2
        classes_per_node = [1, 5]
    "#;
    let training = "[train]\nsteps = 2\nbatch = 16\nrate = 0.001\n";
    [same, nodes_and_network, training].concat()
}

#[test]
fn text_classifiers_of_different_depths_learn_together() {
    let Some(real) = real_data() else { return };
    let home = tempfile::tempdir().unwrap();
    let file = questions(
        r#"
        [[node]]
        name = "ada"
        backbone = "$HETEROTUNE_DATA/models/bert-minilm-l6-v2"
        layers = 1
        [[node]]
        name = "blaise"
        backbone = "$HETEROTUNE_DATA/models/bert-minilm-l6-v2"
        layers = 2
        [[node]]
        name = "carl"
        backbone = "$HETEROTUNE_DATA/models/bert-minilm-l6-v2"
        layers = 3
        precision = "q4"
        [network]
        adapter = { slots = 1, branches = 2, rank = 8, readout_rank = 48 }
        rounds = { total = 2, deadline_ms = 120000 }
    "#,
    );
    let (summary, out) = scenario(home.path(), "questions", &file);
    assert_eq!(summary["metric"], "accuracy");
    let mean = |key: &str| summary["mean"][key].as_f64().unwrap();
    assert!(mean("network_global") > mean("alone_global") + 0.1, "{}", summary["mean"]);

    // What the runner reports is what the node's state folder gives.
    let (model, state) = (text(&real.join("models/bert-minilm-l6-v2")), text(&out.join("nodes/ada")));
    let test = text(&out.join("data/ada/test.jsonl"));
    let eval = |more: &[&str]| {
        let of = ["eval", "--backbone", &model, "--layers", "1", "--state", &state, "--json"];
        let on = ["--task", "text-classification", "--data", &test];
        said(home.path(), &[&of[..], &on, more].concat())["accuracy"].as_f64().unwrap()
    };
    let ada = &summary["nodes"][0];
    assert_eq!(eval(&[]), ada["network"]["global"].as_f64().unwrap());
    assert_eq!(eval(&["--round", "2"]), eval(&[]));
    assert_eq!(eval(&["--alone"]), ada["alone"]["global"].as_f64().unwrap());
    let of = ["--backbone", &model, "--layers", "1", "--state", &state];
    let missing = verb(
        home.path(),
        &[&["eval", "--task", "text-classification", "--data", &test, "--round", "7"], &of[..]].concat(),
    );
    assert!(missing.code == Some(1) && missing.stderr.contains("these are kept: 0, 1, 2"), "{}", missing.stderr);

    let exported = home.path().join("exported");
    let export = ["export", "--out", exported.to_str().unwrap()];
    assert_eq!(verb(home.path(), &[&export[..], &of].concat()).code, Some(0));
    let config: Value = serde_json::from_slice(&fs::read(exported.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!((&config["after_blocks"], &config["rank"]), (&serde_json::json!([1]), &serde_json::json!(8)));
    assert!(fs::read_to_string(exported.join("README.md")).unwrap().contains("slot.s.down"));
    let merged = verb(home.path(), &[&["export", "--merged", "--out", "x"], &of[..]].concat());
    assert!(merged.stderr.contains("branches are nonlinear"), "{}", merged.stderr);
}

#[test]
fn language_models_with_two_tokenizers_learn_together() {
    let Some(real) = real_data() else { return };
    let home = tempfile::tempdir().unwrap();
    let file = r#"
        name = "verses"
        seed = 1
        [task]
        kind = "causal-lm"
        readouts = ["$HETEROTUNE_DATA/models/llama-stories260k"]
        [data]
        file = "$HETEROTUNE_DATA/text/tinyshakespeare/input.txt"
        test_share = 0.1
        test_rows = 24
        split_seed = 0
        anchors_file = "$HETEROTUNE_DATA/text/tinystories_1000/train.jsonl"
        anchors = 64
        partition = "iid"
        labelled_per_node = 16
        held_per_node = 8
        [[node]]
        name = "ada"
        backbone = "$HETEROTUNE_DATA/models/llama-ts-d48-l3"
        [[node]]
        name = "blaise"
        backbone = "$HETEROTUNE_DATA/models/llama-ts-d64-l4"
        [[node]]
        name = "carl"
        backbone = "$HETEROTUNE_DATA/models/llama-aidreams230k"
        [network]
        adapter = { slots = 2, branches = 1, rank = 8, readout_rank = 8, readout = "trained" }
        rounds = { total = 3, deadline_ms = 120000 }
        [train]
        steps = 4
        batch = 4
        length = 200
        rate = 0.004
        readout_rate = 0.01
    "#;
    let (summary, out) = scenario(home.path(), "verses", file);
    assert_eq!(summary["metric"], "perplexity");
    let log = &summary["round_log"];
    let global = |round: usize| log[round]["network_global"].as_f64().unwrap();
    assert!(global(2) < 0.9 * global(0), "{log}");
    let nodes = summary["nodes"].as_array().unwrap();
    assert!(nodes.iter().all(|node| node["mixture_hash"] == nodes[0]["mixture_hash"]));
    let state = |name: &str| out.join("nodes").join(name);
    let events = |name: &str| fs::read_to_string(state(name).join("events.jsonl")).unwrap();
    for (name, shares) in [("ada", true), ("carl", false)] {
        assert!(events(name).contains(&format!("\"shares_readout\":{shares}")), "{name}");
        assert!(events(name).contains("\"when\":\"before\"") && events(name).contains("\"when\":\"after\""));
    }
    // The pieces are shorter than what is learnt from at once, so that the context makes no difference.
    for (name, model) in [("ada", "llama-ts-d48-l3"), ("carl", "llama-aidreams230k")] {
        let (model, state) = (text(&real.join("models").join(model)), text(&state(name)));
        let test = text(&out.join("data").join(name).join("test.jsonl"));
        let of = ["--backbone", &model, "--state", &state, "--json"];
        let on = ["eval", "--task", "causal-lm", "--data", &test, "--round", "3"];
        let found = said(home.path(), &[&on[..], &of].concat())["perplexity"].as_f64().unwrap();
        let evaluated = events(name).lines().rfind(|line| line.contains("\"evaluated\"")).unwrap().to_owned();
        let evaluated = serde_json::from_str::<Value>(&evaluated).unwrap()["global"].as_f64().unwrap();
        assert!((found / evaluated - 1.0).abs() < 1e-3, "{name}: {found} is not {evaluated}");
        let generate = ["generate", "--prompt", "My lord", "--tokens", "8", "--temperature", "0"];
        assert!(said(home.path(), &[&generate[..], &of].concat())["tokens"].as_u64().unwrap() > 0);
    }
}

#[test]
fn a_text_encoder_of_ones_own_learns_with_one_of_another_width() {
    if real_data().is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let file = questions(
        r#"
        [[node]]
        name = "ada"
        backbone = "$HETEROTUNE_DATA/models/bert-minilm-l6-v2"
        layers = 1
        [[node]]
        name = "blaise"
        backbone = "backbones/tiny"
        [network]
        adapter = { slots = 1, branches = 2, rank = 8, readout_rank = 32 }
        rounds = { total = 2, deadline_ms = 120000 }
    "#,
    );
    let path = home.path().join("early.toml");
    fs::write(&path, &file).unwrap();
    let early = verb(home.path(), &["scenario", "run", &text(&path), "--out", &text(&home.path().join("early"))]);
    assert!(early.code == Some(1) && early.stderr.contains("`heterotune pretrain` makes"), "{}", early.stderr);

    let questions = ["What city is this ?", "Who wrote the book ?", "How many people live there ?", "Why is it so ?"];
    let lines = questions.iter().map(|question| serde_json::json!({"text": question}).to_string() + "\n");
    fs::write(home.path().join("texts.jsonl"), lines.collect::<String>()).unwrap();
    let recipe = home.path().join("recipe.toml");
    let shape = "name = \"tiny\"\nwidth = 48\ndepth = 1\nheads = 2\nintermediate = 96\ncontext = 32\n";
    let training = "steps = 20\nbatch = 8\nrate = 1e-3\nmask_share = 0.2\nseed = 1\n";
    let tokenizer = "tokenizer = \"$HETEROTUNE_DATA/models/bert-minilm-l6-v2\"\n";
    let head = "kind = \"texts\"\ntexts = [\"texts.jsonl\"]\n";
    fs::write(&recipe, [head, tokenizer, training, "[[backbone]]\n", shape].concat()).unwrap();
    let made = verb(home.path(), &["pretrain", &text(&recipe)]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);

    let (summary, out) = scenario(home.path(), "widths", &file);
    let nodes = summary["nodes"].as_array().unwrap();
    assert_eq!([&nodes[0]["width"], &nodes[1]["width"]], [384, 48]);
    assert_eq!(nodes[0]["mixture_hash"], nodes[1]["mixture_hash"]);
    let mean = |key: &str| summary["mean"][key].as_f64().unwrap();
    assert!(mean("network_global") > mean("alone_global"), "{}", summary["mean"]);
    let (model, state) = (text(&home.path().join("backbones/tiny")), text(&out.join("nodes/blaise")));
    let test = text(&out.join("data/blaise/test.jsonl"));
    let of = ["eval", "--backbone", &model, "--state", &state, "--json", "--task", "text-classification"];
    let found = said(home.path(), &[&of[..], &["--data", &test]].concat());
    assert_eq!(found["accuracy"], nodes[1]["network"]["global"]);
}

#[test]
fn bad_models_and_data_are_refused_in_one_sentence() {
    let Some(real) = real_data() else { return };
    let home = tempfile::tempdir().unwrap();
    let (good, model) = (real.join("models/llama-stories260k"), home.path().join("model"));
    let fresh = || {
        let _ = fs::remove_dir_all(&model);
        fs::create_dir_all(&model).unwrap();
        for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            fs::write(model.join(name), fs::read(good.join(name)).unwrap()).unwrap();
        }
    };
    let data = home.path().join("x.jsonl");
    fs::write(&data, "{\"text\": \"Once upon a time\"}\n").unwrap();
    let refuses = |task: &str, keywords: &[&str]| {
        let ended = verb(home.path(), &["eval", "--backbone", &text(&model), "--task", task, "--data", &text(&data)]);
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{}", ended.stderr);
        keywords.iter().for_each(|word| assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr));
    };
    fresh();
    let whole = fs::read(model.join("model.safetensors")).unwrap();
    fs::write(model.join("model.safetensors"), &whole[..whole.len() - 9]).unwrap();
    refuses("causal-lm", &["model.safetensors", "not a whole safetensors file"]);
    fresh();
    fs::remove_file(model.join("tokenizer.json")).unwrap();
    refuses("causal-lm", &["tokenizer.json"]);
    for (from, to, told) in [
        ("\"vocab_size\": 512", "\"vocab_size\": 500", "model.embed_tokens.weight has shape [512, 64]"),
        ("\"num_hidden_layers\": 5", "\"num_hidden_layers\": 6", "model.layers.5"),
        ("\"model_type\": \"llama\"", "\"model_type\": \"mamba\"", "model_type is \"mamba\""),
        ("\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2}", "yarn"),
    ] {
        fresh();
        let config = fs::read_to_string(model.join("config.json")).unwrap();
        assert!(config.contains(from));
        fs::write(model.join("config.json"), config.replace(from, to)).unwrap();
        refuses("causal-lm", &[told]);
    }
    fresh();
    fs::write(&data, "").unwrap();
    refuses("causal-lm", &["x.jsonl", "empty"]);
    fs::write(&data, b"{\"text\": \"\xff\xfe\"}\n").unwrap();
    refuses("causal-lm", &["x.jsonl"]);
    fs::write(&data, "{\"txt\": \"Once\"}\n").unwrap();
    refuses("causal-lm", &["x.jsonl", "line 1", "no field text"]);
    refuses("text-classification", &["no names of classes"]);
    refuses("image-classification", &["takes text, not images"]);
    let missing = ["eval", "--backbone", "nowhere", "--task", "causal-lm", "--data", "x"];
    assert!(verb(home.path(), &missing).stderr.contains("nowhere"));
}
