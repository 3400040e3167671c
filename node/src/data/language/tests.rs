//! What counts, how texts are joined and cut, and real texts.

use super::*;
use crate::data::{self, tests::real_data, tokenizer::tests::characters};
use proptest::prelude::*;
use std::fs;

const CHATML: &str = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}<|end|>{% endfor %}\
    {% if add_generation_prompt %}a:{% endif %}";

fn read(name: &str, contents: &[u8], context: usize, pack: bool) -> Result<Corpus, String> {
    let (tokenizer, folder) = characters();
    fs::write(folder.path().join("chat_template.jinja"), CHATML).unwrap();
    let template = Template::open(folder.path(), &tokenizer).unwrap();
    let reader = Reader { tokenizer: &tokenizer, template: &template, vocabulary: 127, context, pack };
    let path = folder.path().join(name);
    fs::write(&path, contents).unwrap();
    data::language(&path, &reader).map(|(corpus, _)| corpus).map_err(|error| error.to_string())
}

/// A sequence as text, what counts in brackets.
fn shown(sequence: &Sequence) -> String {
    assert_eq!(sequence.tokens.len(), sequence.counted.len());
    let (mut text, mut inside) = (String::new(), false);
    for (token, counted) in sequence.tokens.iter().zip(&sequence.counted) {
        if *counted != inside {
            text.push(if *counted { '[' } else { ']' });
            inside = *counted;
        }
        match token {
            0..4 => text += ["<unk>", "<s>", "</s>", "<|end|>"][*token as usize],
            token => text.push(char::from(*token as u8)),
        }
    }
    text + if inside { "]" } else { "" }
}

fn rows(json: &str, context: usize, pack: bool) -> Vec<String> {
    read("x.jsonl", json.as_bytes(), context, pack).unwrap().sequences.iter().map(shown).collect()
}

#[test]
fn what_is_to_be_learnt_counts() {
    for (row, told) in [
        (r#"{"text": "ab"}"#, "<s>[ab]"),
        (r#"{"prompt": "p ", "completion": "c"}"#, "<s>p [c</s>]"),
        (r#"{"instruction": "i", "input": "x", "output": "o"}"#, "<s>Task: i\n\nInput: x\n\nAnswer: [o</s>]"),
        (r#"{"instruction": "i", "input": "", "output": "o</s>"}"#, "<s>Task: i\n\nAnswer: [o</s>]"),
        (r#"{"question": "q", "answer": "a"}"#, "<s>Question: q\nAnswer: [a</s>]"),
        (
            r#"{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"},
                {"role": "user", "content": "v"}, {"role": "assistant", "content": "w"}]}"#,
            "u:x<|end|>a:[y<|end|>]u:v<|end|>a:[w<|end|>]",
        ),
    ] {
        assert_eq!(rows(&row.replace('\n', ""), 99, false), [told]);
    }
}

#[test]
fn rows_without_anything_to_learn_are_told() {
    for (row, told) in [
        (r#"{"txt": "ab"}"#, "there is no field text"),
        (r#"{"text": ""}"#, "the text is empty"),
        (r#"{"prompt": "p", "completion": " "}"#, "what is to be learnt is empty"),
        (r#"{"completion": "c"}"#, "there is no field prompt"),
        (r#"{"messages": "hi"}"#, "messages is no list"),
        (r#"{"messages": ["hi"]}"#, "message 1 is no object"),
        (r#"{"messages": [{"role": "user", "content": "x"}]}"#, "the assistant says nothing"),
    ] {
        let refusal = read("x.jsonl", row.as_bytes(), 9, false).unwrap_err();
        assert!(refusal.contains(told) && refusal.contains("line 1"), "{refusal}");
    }
    assert!(read("x.txt", b"\xff", 9, false).unwrap_err().contains("is not UTF-8"));
    assert!(read("x.txt", b"a", 1, false).unwrap_err().contains("less than two tokens"));
}

#[test]
fn texts_are_cut_or_joined() {
    let two = "{\"text\": \"abcd\"}\n{\"text\": \"ef\"}\n";
    assert_eq!(rows(two, 4, false), ["<s>[abc]", "<s>[ef]"]);
    assert_eq!(rows(two, 4, true), ["<s>[abc]", "d<s>[ef]"]);
    // A prompt that fills the context leaves nothing to learn.
    let long = read("x.jsonl", br#"{"prompt": "abcdefgh", "completion": "c"}"#, 4, false).unwrap();
    assert_eq!((long.sequences.len(), long.dropped), (0, 1));
    // A plain text is cut in pieces in either case.
    let plain = read("x.txt", b"abcdefghi\n", 4, false).unwrap();
    assert_eq!(plain.sequences.iter().map(shown).collect::<Vec<_>>(), ["<s>[abc]", "d[efg]", "h[i\n]"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Joined and cut again, every token is in its place; the first of a block and the first of a text never count, and
    /// a block without one that counts is left out.
    #[test]
    fn joining_keeps_every_token(texts in prop::collection::vec("[a-z ]{0,9}[a-z]", 1..8), context in 2usize..12) {
        let json: String = texts.iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n").collect();
        let corpus = read("x.jsonl", json.as_bytes(), context, true).unwrap();
        let all: Vec<u32> = texts.iter().flat_map(|text| [1].into_iter().chain(text.bytes().map(u32::from))).collect();
        let blocks = all.chunks(context).map(|block| Sequence {
            tokens: block.to_vec(),
            counted: block.iter().enumerate().map(|(at, token)| at > 0 && *token != 1).collect(),
        });
        let (kept, left_out): (Vec<_>, Vec<_>) = blocks.partition(|block| block.counted.contains(&true));
        prop_assert_eq!(corpus, Corpus { sequences: kept, dropped: left_out.len() });
    }
}

#[test]
fn a_text_of_several_pieces_is_read_as_one() {
    let (_, folder) = characters();
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"add_eos_token": true}"#).unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    let template = Template::open(folder.path(), &tokenizer).unwrap();
    let reader = Reader { tokenizer: &tokenizer, template: &template, vocabulary: 127, context: 1 << 20, pack: true };
    let text = "abcdefg\n".repeat((5 << 20) / 8);
    let path = folder.path().join("x.txt");
    fs::write(&path, &text).unwrap();
    let (corpus, report) = data::language(&path, &reader).unwrap();
    let joined: Vec<u32> = corpus.sequences.iter().flat_map(|block| block.tokens.clone()).collect();
    let wanted: Vec<u32> = [1].into_iter().chain(text.bytes().map(u32::from)).chain([2]).collect();
    assert!(joined == wanted);
    // All but the first of each sequence.
    assert_eq!((corpus.sequences.len(), corpus.counted(), report.rows), (6, wanted.len() - 6, 1));

    fs::write(&path, "\n \n").unwrap();
    assert!(data::language(&path, &reader).unwrap_err().to_string().contains("the text is empty"));
}

#[test]
fn real_stories_have_as_many_tokens_as_the_reference_counts() {
    let Some(data) = real_data() else { return };
    let folder = data.join("models/llama-stories260k");
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let template = Template::open(&folder, &tokenizer).unwrap();
    let reader = |context, pack| Reader { tokenizer: &tokenizer, template: &template, vocabulary: 512, context, pack };
    let stories = data.join("text/tinystories_1000/test.jsonl");
    let (corpus, report) = data::language(&stories, &reader(512, false)).unwrap();
    assert_eq!((report.rows, corpus.sequences.len(), corpus.dropped), (100, 100, 0));
    assert_eq!(corpus.counted(), 46_701);

    let (corpus, _) = data::language(&data.join("text/tinyshakespeare/input.txt"), &reader(128, true)).unwrap();
    let joined: Vec<u32> = corpus.sequences.iter().flat_map(|block| block.tokens.clone()).collect();
    let text = fs::read_to_string(data.join("text/tinyshakespeare/input.txt")).unwrap();
    assert_eq!(tokenizer.decode(&joined).unwrap(), text);

    for (file, rows) in
        [("gsm8k/test.jsonl", 1_319), ("alpaca_5000/train.jsonl", 5_000), ("self_instruct_seed/train.jsonl", 175)]
    {
        let (corpus, report) = data::language(&data.join("text").join(file), &reader(512, false)).unwrap();
        println!(
            "{report}; {} sequences, {} dropped, {} tokens",
            corpus.sequences.len(),
            corpus.dropped,
            corpus.counted()
        );
        assert_eq!(report.rows, rows);
        assert_eq!(corpus.sequences.len() + corpus.dropped + report.bad_rows, rows);
    }
}
