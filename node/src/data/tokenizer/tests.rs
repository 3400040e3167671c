//! Real tokenizers against a reference, and a tiny one whose tokens are characters.

use super::*;
use crate::data::tests::real_data;
use serde_json::json;
use std::fs;

/// The folder of a tokenizer with a token for every printable character of ASCII (its code is its id) and four special
/// ones; texts begin with `<s>`.
fn write(folder: &Path) -> Value {
    let special = ["<unk>", "<s>", "</s>", "<|end|>"];
    let mut vocabulary: serde_json::Map<String, Value> =
        (32..127u8).map(|c| (char::from(c).into(), c.into())).collect();
    vocabulary.insert("\n".into(), 10.into());
    for (id, token) in special.iter().enumerate() {
        vocabulary.insert(token.to_string(), id.into());
    }
    let added = special.iter().enumerate().map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    });
    let bos = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let json = json!({
        "version": "1.0", "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0}, "padding": null,
        "added_tokens": added.collect::<Vec<_>>(), "normalizer": null, "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos, text("A")], "pair": [bos, text("A"), bos, text("B")],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "unk_token": "<unk>", "vocab": vocabulary, "merges": []},
    });
    fs::write(folder.join("tokenizer.json"), json.to_string()).unwrap();
    let map = json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": "<unk>"});
    fs::write(folder.join("special_tokens_map.json"), map.to_string()).unwrap();
    json
}

/// That tokenizer and its folder.
pub(in crate::data) fn characters() -> (Tokenizer, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    (Tokenizer::open(folder.path()).unwrap(), folder)
}

#[test]
fn special_tokens_are_what_the_files_say() {
    let (_, folder) = characters();
    fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [2, 3]}"#).unwrap();
    fs::write(folder.path().join("config.json"), r#"{"eos_token_id": 77}"#).unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (Some(1), Some(2), Some(0)));
    assert!(tokenizer.ends(2) && tokenizer.ends(3) && !tokenizer.ends(77));
    assert_eq!(tokenizer.tokens(), 127);
    assert_eq!(tokenizer.encode("a</s>", true).unwrap(), [1, 97, 2]);
    assert_eq!(tokenizer.encode("a", false).unwrap(), [97]);
    assert_eq!(tokenizer.encode_pair("a", "b").unwrap(), [1, 97, 1, 98]);
    assert_eq!(tokenizer.decode(&[1, 97, 98, 2]).unwrap(), "ab");
    // The configuration may ask for more than tokenizer.json does.
    let settings = r#"{"add_bos_token": true, "add_eos_token": true}"#;
    fs::write(folder.path().join("tokenizer_config.json"), settings).unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("a", true).unwrap(), [1, 97, 2]);
    assert_eq!(tokenizer.encode_within("abcdef", None, 4).unwrap(), [1, 97, 98, 2]);
}

#[test]
fn the_digest_tells_tokenizers_apart_and_not_their_files() {
    let (tokenizer, folder) = characters();
    let mut json = write(folder.path());
    let digest = |json: &Value| {
        fs::write(folder.path().join("tokenizer.json"), serde_json::to_string_pretty(json).unwrap()).unwrap();
        Tokenizer::open(folder.path()).unwrap().digest()
    };
    assert_eq!(digest(&json), tokenizer.digest());
    // Merges are written as one string by older versions, as two by newer ones.
    json["model"]["vocab"]["ab"] = 127.into();
    json["model"]["merges"] = json!(["a b"]);
    let merged = digest(&json);
    assert_ne!(merged, tokenizer.digest());
    json["model"]["merges"] = json!([["a", "b"]]);
    assert_eq!(digest(&json), merged);
    json["model"]["merges"] = json!([]);
    let unmerged = digest(&json);
    assert_ne!(unmerged, merged);
    json["model"]["vocab"]["a"] = 98.into();
    json["model"]["vocab"]["b"] = 97.into();
    assert_ne!(digest(&json), unmerged);
}

#[test]
fn missing_and_damaged_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = || Tokenizer::open(folder.path()).map(|_| ()).unwrap_err().to_string();
    assert!(refusal().contains("tokenizer.json: is missing"));
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(refusal().contains("tokenizer.json: is no tokenizer"));
    write(folder.path());
    fs::write(folder.path().join("config.json"), "{").unwrap();
    assert!(refusal().contains("config.json: is no JSON"));
}

#[test]
fn real_tokenizers_give_the_ids_of_the_reference() {
    let Some(data) = real_data() else { return };
    let mut checked = 0;
    for entry in fs::read_dir(data.join("models")).unwrap() {
        let folder = entry.unwrap().path();
        let golden: Value = serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap();
        if golden["input_ids"].is_null() {
            continue;
        }
        let tokenizer = Tokenizer::open(&folder).unwrap();
        let pairs = match golden["sentences"].as_array() {
            Some(sentences) => sentences.iter().zip(golden["input_ids"].as_array().unwrap()).collect(),
            None => vec![(&golden["prompt"], &golden["input_ids"])],
        };
        for (text, ids) in pairs {
            assert_eq!(json!(tokenizer.encode(text.as_str().unwrap(), true).unwrap()), *ids, "{}", folder.display());
            checked += 1;
        }
    }
    assert_eq!(checked, 12);

    // As transformers 5.23 has them.
    let llama = Tokenizer::open(&data.join("models/llama-stories260k")).unwrap();
    let text = "Zoë naïve 日本 🙂";
    let ids = [
        1, 410, 469, 414, 198, 174, 297, 412, 198, 178, 360, 410, 233, 154, 168, 233, 159, 175, 410, 243, 162, 156, 133,
    ];
    assert_eq!(llama.encode(text, true).unwrap(), ids);
    assert_eq!(llama.encode("</s> inside <s>", true).unwrap(), [1, 2, 410, 322, 419, 292, 411, 410, 1]);
    assert_eq!(
        llama.encode_within("Once upon a time there was a girl", None, 6).unwrap(),
        [1, 403, 407, 261, 378, 383]
    );
    for text in [text, "  two  spaces\nand a line"] {
        let ids = llama.encode(text, true).unwrap();
        assert_eq!(llama.decode(&ids).unwrap(), text);
        let mut decoding = llama.decode_stream();
        assert_eq!(ids.iter().map(|id| decoding.push(*id).unwrap()).collect::<String>(), text);
    }
    assert_eq!((llama.bos(), llama.eos(), llama.tokens()), (Some(1), Some(2), 512));

    let bert = Tokenizer::open(&data.join("models/bert-minilm-l6-v2")).unwrap();
    let pair =
        bert.encode_within(&"A man is eating food. ".repeat(3), Some("The girl is carrying a baby."), 14).unwrap();
    assert_eq!(pair, [101, 1037, 2158, 2003, 5983, 2833, 1012, 102, 1996, 2611, 2003, 4755, 1037, 102]);
    assert_eq!(bert.pad(), Some(0));

    let same = Tokenizer::open(&data.join("models/llama-ts-d48-l3")).unwrap();
    let other = Tokenizer::open(&data.join("models/llama-stories260k-b")).unwrap();
    assert_eq!(llama.digest(), same.digest());
    assert_ne!(llama.digest(), other.digest());
}
