//! Texts, or pairs of texts, and the classes they are in.

use super::{
    DataError, Inputs, Labelled, Report, Tokenizer,
    labels::Classes,
    rows::{self, Row},
};
use std::{borrow::Cow, path::Path};

/// The fields that hold a text, and those that hold the two of a pair.
const TEXTS: [&str; 2] = ["text", "sentence"];
const PAIRS: [[&str; 2]; 2] = [["text", "text_pair"], ["sentence1", "sentence2"]];

/// How texts become inputs.
pub(super) struct Encoder<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    /// How many tokens the backbone knows, and how many it takes at once.
    pub(super) vocabulary: usize,
    pub(super) context: usize,
}

/// The token ids of a table's texts, and their classes if `classes` are asked for.
pub(super) fn read(
    path: &Path,
    encoder: &Encoder<'_>,
    classes: Option<Classes<'_>>,
) -> Result<(Labelled, Report), DataError> {
    let (mut texts, mut labels) = (Vec::new(), Vec::new());
    let report = rows::each(path, |row| {
        let label = classes.map(|classes| classes.of(&row)).transpose()?;
        texts.push(encoder.encode(&row)?);
        labels.extend(label);
        Ok(())
    })?;
    Ok((Labelled { inputs: Inputs::Tokens(texts), labels }, report))
}

impl Encoder<'_> {
    fn encode(&self, row: &Row) -> Result<Vec<u32>, String> {
        let (first, second) = texts(row)?;
        if first.trim().is_empty() {
            return Err("the text is empty".into());
        }
        let ids = self.tokenizer.encode_within(&first, second.as_deref(), self.context)?;
        known(&ids, self.vocabulary)?;
        Ok(ids)
    }
}

/// The token ids of the beginnings of a table's texts, each from the token that begins texts, if there is one, to where
/// [`beginning`] cuts it: on every tokenizer the same characters.
pub(super) fn beginnings(path: &Path, encoder: &Encoder<'_>) -> Result<(Inputs, Report), DataError> {
    let mut beginnings = Vec::new();
    let report = rows::each(path, |row| {
        let (text, _) = texts(&row)?;
        let mut ids: Vec<u32> = encoder.tokenizer.bos().into_iter().collect();
        ids.extend(encoder.tokenizer.encode(beginning(&text, beginnings.len()), false)?);
        ids.truncate(encoder.context);
        known(&ids, encoder.vocabulary)?;
        beginnings.push(ids);
        Ok(())
    })?;
    Ok((Inputs::Tokens(beginnings), report))
}

/// Bytes that a beginning has at least and at most, if the text has as many.
const BEGINNING: [usize; 2] = [12, 160];

/// The beginning of the text in row `index`: cut off anywhere, so that together they end in as many ways as texts go on.
fn beginning(text: &str, index: usize) -> &str {
    let [least, most] = BEGINNING;
    let text = text.trim();
    // 37 x index modulo 97 visits every 97th part before any comes again.
    let spread = text.len().min(most).saturating_sub(least);
    let mut end = (least + spread * (37 * index % 97 + 1) / 97).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).map_or(text, str::trim_end)
}

/// Refuses what a backbone of so many tokens can't take.
pub(super) fn known(ids: &[u32], vocabulary: usize) -> Result<(), String> {
    match ids.iter().find(|id| **id as usize >= vocabulary) {
        _ if ids.is_empty() => Err("the text has no tokens".into()),
        Some(id) => {
            Err(format!("token {id} is unknown to the backbone, which has {vocabulary}: whose tokenizer is it?"))
        }
        None => Ok(()),
    }
}

/// The text of a row, or the two of a pair.
fn texts(row: &Row) -> Result<(Cow<'_, str>, Option<Cow<'_, str>>), String> {
    for [first, second] in PAIRS {
        if let (Some(first), Some(second)) = (row.text(first)?, row.text(second)?) {
            return Ok((first, Some(second)));
        }
    }
    for name in TEXTS {
        if let Some(text) = row.text(name)? {
            return Ok((text, None));
        }
    }
    Err("there is no field text (or sentence, or sentence1 and sentence2)".into())
}

#[cfg(test)]
mod tests {
    use super::{super::tokenizer::tests::characters, *};
    use std::fs;

    fn ids(json: &str, context: usize) -> Result<Vec<Vec<u32>>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl");
        fs::write(&path, json).unwrap();
        let (tokenizer, _folder) = characters();
        let encoder = Encoder { tokenizer: &tokenizer, vocabulary: 126, context };
        let (read, _) = read(&path, &encoder, None).map_err(|error| error.to_string())?;
        let Inputs::Tokens(texts) = read.inputs else { panic!("texts are no tokens") };
        Ok(texts)
    }

    #[test]
    fn one_text_or_a_pair_is_encoded_and_cut() {
        let [a, b, c] = [b'a', b'b', b'c'].map(u32::from);
        assert_eq!(ids(r#"{"text": "ab"}"#, 9).unwrap(), [[1, a, b]]);
        assert_eq!(ids(r#"{"sentence": "abc", "label": 7}"#, 3).unwrap(), [[1, a, b]]);
        for pair in [r#"{"text": "ab", "text_pair": "c"}"#, r#"{"sentence1": "ab", "sentence2": "c"}"#] {
            assert_eq!(ids(pair, 9).unwrap(), [[1, a, b, 1, c]]);
            assert_eq!(ids(pair, 4).unwrap(), [[1, a, 1, c]]);
        }
    }

    #[test]
    fn beginnings_end_in_many_places_and_never_within_a_character() {
        let text = "äöü € 漢字 ".repeat(40);
        let ends: Vec<usize> = (0..97).map(|index| beginning(&text, index).len()).collect();
        assert!(ends.iter().all(|end| (8..=160).contains(end)), "{ends:?}");
        assert!(ends.iter().collect::<std::collections::BTreeSet<_>>().len() > 30, "{ends:?}");
        assert_eq!([beginning("short", 5), beginning("", 3)], ["short", ""]);
        let (tokenizer, folder) = characters();
        let path = folder.path().join("x.jsonl");
        fs::write(&path, "{\"text\": \"abc\"}\n").unwrap();
        let encoder = Encoder { tokenizer: &tokenizer, vocabulary: 126, context: 9 };
        let Inputs::Tokens(texts) = beginnings(&path, &encoder).unwrap().0 else { panic!("texts are no tokens") };
        assert_eq!(texts, [[1, 97, 98, 99]]);
    }

    #[test]
    fn texts_that_are_none_are_told() {
        for (json, told) in [
            (r#"{"txt": "a"}"#, "there is no field text"),
            (r#"{"text": 5}"#, "text is no text"),
            (r#"{"text": "  "}"#, "the text is empty"),
            (r#"{"text": "~"}"#, "token 126 is unknown to the backbone, which has 126"),
            ("[1]", "is no JSON object"),
        ] {
            let refusal = ids(json, 9).unwrap_err();
            assert!(refusal.contains("line 1") && refusal.contains(told), "{refusal}");
        }
        assert!(ids(r#"{"text": "a"}"#, 1).unwrap_err().contains("leave no room"));
    }
}
