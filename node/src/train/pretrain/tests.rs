//! Tiny backbones from made-up images and texts.

use super::*;
use serde_json::json;
use std::{fmt::Write, fs};

/// A folder with data, a tokenizer and recipes for both kinds.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    let mut images = (0..16).map(|i| format!("p{i}")).collect::<Vec<_>>().join(",") + "\n";
    let mut texts = String::new();
    for row in 0..12 {
        let pixels = (0..16).map(|i| ((i / 8 + row) % 2 * 12 + i % 3).to_string()).collect::<Vec<_>>();
        images += &(pixels.join(",") + "\n");
        let animal = ["cat", "dog", "owl"][row % 3];
        writeln!(texts, "{}", json!({"text": format!("the {animal} sees the {animal} and sleeps"), "label": 1}))
            .unwrap();
    }
    write("x.csv", images);
    write("x.jsonl", texts);
    write("tokenizer.json", tokenizer());
    let special = json!({"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"});
    write("special_tokens_map.json", special.to_string());
    write("images.toml", IMAGES.into());
    write("texts.toml", TEXTS.into());
    folder
}

/// A tokenizer of a few words.
fn tokenizer() -> String {
    let words = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "the", "cat", "dog", "owl", "sees", "and", "sleeps"];
    let vocabulary: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(id, word)| (word.to_string(), id.into())).collect();
    let special = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let [first, last] = [special("[CLS]"), special("[SEP]")];
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {
            "type": "TemplateProcessing", "single": [first, text("A"), last],
            "pair": [first, text("A"), last, text("B"), last],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]},
            },
        },
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    })
    .to_string()
}

const IMAGES: &str = r#"
data = "x.csv"
rows = 10
split_seed = 0
rescale_factor = 0.06
steps = 40
batch = 8
rate = 1e-2
mask_share = 0.5
seed = 1

[[backbone]]
name = "a-1"
width = 8
depth = 1
heads = 2
intermediate = 16
patch = 2
image = 4
"#;

const TEXTS: &str = r#"
kind = "texts"
texts = ["x.jsonl"]
tokenizer = "."
steps = 120
batch = 8
rate = 2e-2
mask_share = 0.3
seed = 1

[[backbone]]
name = "a-1"
width = 8
depth = 2
heads = 2
intermediate = 16
context = 12
"#;

/// Makes a recipe's backbone; gives the losses of all steps and the weights' bytes.
fn made(recipe: &Path, out: &str) -> (Vec<f32>, Vec<u8>) {
    let out = recipe.parent().unwrap().join(out);
    let mut losses = Vec::new();
    let made = pretrain(recipe, &out, |progress| losses.push(progress.loss)).unwrap();
    let loaded = backbone::load(&out.join("a-1"), backbone::Options::default()).unwrap();
    assert_eq!(made[0].parameters, loaded.parameters());
    (losses, fs::read(out.join("a-1/model.safetensors")).unwrap())
}

#[test]
fn losses_fall_and_the_same_seed_makes_the_same_bytes() {
    let folder = folder();
    for name in ["images.toml", "texts.toml"] {
        let recipe = folder.path().join(name);
        let (losses, bytes) = made(&recipe, "out");
        let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
        let (first, last) = (mean(&losses[..8]), mean(&losses[losses.len() - 8..]));
        assert!(last < 0.8 * first, "{name}: {first} became {last}");
        assert_eq!(made(&recipe, "again"), (losses, bytes), "{name}");
    }
}

/// Every weight of the student is used as it is after the last step, not as it was before the first.
#[test]
fn what_is_written_is_what_was_trained() {
    let folder = folder();
    let path = folder.path().join("texts.toml");
    let recipe: texts::Recipe = read(&path).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let student = recipe.student(&path, &recipe.shapes()[0], &mut rng).unwrap();
    learn(&student, recipe.plan(), &mut rng, |_, _| ()).unwrap();
    let out = folder.path().join("out");
    student.write(&out).unwrap();
    let loaded = backbone::load(&out, backbone::Options::default()).unwrap();
    let texts = crate::data::Inputs::Tokens(vec![vec![1, 5, 6, 9, 2], vec![1, 8, 2]]).batch(&[0, 1]).unwrap();
    let trained = through(&student.encoder, student.encoder.embed(&texts).unwrap()).unwrap();
    let hidden = loaded.embed(&texts).unwrap();
    let hidden = (0..loaded.depth()).fold(hidden, |hidden, block| hidden.with(loaded.block(block, &hidden).unwrap()));
    let difference = (loaded.pool(&hidden).unwrap() - student.encoder.pool(&trained).unwrap()).unwrap();
    let largest = difference.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(largest < 0.02, "they differ by {largest}");
    assert!(crate::data::Tokenizer::open(&out).unwrap().special_id("sep_token") == Some(2));
}

#[test]
fn every_weight_has_a_gradient() {
    let folder = folder();
    let path = folder.path().join("texts.toml");
    let recipe: texts::Recipe = read(&path).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let student = recipe.student(&path, &recipe.shapes()[0], &mut rng).unwrap();
    let gradients = student.loss(&mut rng).unwrap().backward().unwrap();
    assert_eq!(student.variables().len(), 5 + 2 * 16 + 6);
    for (name, variable) in student.variables() {
        let size = gradients.get(variable).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        // A key's bias adds the same to all scores of a query.
        assert!(size > 1e-7 || name.ends_with("key.bias"), "the gradient of {name} is {size}");
    }
}

#[test]
fn long_texts_are_learnt_from_in_pieces() {
    let folder = folder();
    let text = |words: usize| json!({"text": "cat ".repeat(words)}).to_string() + "\n";
    fs::write(folder.path().join("x.jsonl"), text(10) + &text(11) + &text(1)).unwrap();
    let path = folder.path().join("texts.toml");
    let recipe: texts::Recipe = read(&path).unwrap();
    let student = recipe.student(&path, &recipe.shapes()[0], &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let sizes: Vec<usize> = student.pieces.iter().map(Vec::len).collect();
    assert_eq!(sizes, [12, 8, 7, 3]);
    assert!(student.pieces.iter().all(|piece| piece[0] == 1 && piece.ends_with(&[2])));
}

#[test]
fn bad_recipes_are_refused_in_one_sentence() {
    let folder = folder();
    let bad = folder.path().join("bad.toml");
    let refused = |text: &str, (from, to): (&str, &str), told: &str| {
        assert!(text.contains(from), "{from}");
        fs::write(&bad, text.replacen(from, to, 1)).unwrap();
        let error = pretrain(&bad, &folder.path().join("bad"), |_| ()).unwrap_err().to_string();
        assert!(error.contains(told) && !error.contains('\n'), "{error}");
    };
    for text in [IMAGES, TEXTS] {
        for (change, told) in [
            (("seed = 1", "seed = 1\ncolour = 1"), "column 1: unknown field `colour`"),
            (
                ("heads = 2", "heads = 3"),
                "backbone a-1: hidden_size is 8, which num_attention_heads, 3, does not divide",
            ),
            (("a-1", "../a"), "is no name for a folder"),
            (("steps = ", "steps = 0 #"), "steps and batch must be more than 0"),
            (("rate = ", "rate = -"), "rate must be more than 0"),
            (("mask_share = ", "mask_share = 1"), "mask_share must be between 0 and 1"),
        ] {
            refused(text, change, told);
        }
        let shape = text.split_once("[[backbone]]").unwrap().1;
        refused(text, ("[[backbone]]", &format!("[[backbone]]{shape}[[backbone]]")), "two backbones are called a-1");
    }
    refused(IMAGES, ("data = ", "kind = \"sounds\"\ndata = "), "unknown variant `sounds`");
    refused(IMAGES, ("rows = 10", "rows = 13"), "x.csv: has 12 rows");
    refused(IMAGES, ("rows = 10", "rows = 0"), "rows must be more than 0");
    for (change, told) in [
        (("kind = \"texts\"", ""), "unknown field"),
        (("texts = [\"x.jsonl\"]", "texts = []"), "texts must name a file"),
        (("x.jsonl", "y.jsonl"), "y.jsonl: can't be read"),
        (("x.jsonl", "x.csv"), "x.csv: is a table of pixels"),
        (("tokenizer = \".\"", "tokenizer = \"nowhere\""), "tokenizer.json: is missing"),
        (("context = 12", "context = 7"), "backbone a-1: context must be 8 or more"),
    ] {
        refused(TEXTS, change, told);
    }
    fs::write(folder.path().join("special_tokens_map.json"), "{}").unwrap();
    refused(TEXTS, ("seed = 1", "seed = 2"), "special_tokens_map.json: names no cls_token");
}
