//! Tokenizers, as a backbone's folder has them.

use super::{DataError, files};
use heterotune_crypto::{Digest, Hasher};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};
use tokenizers::{
    DecoderWrapper, Encoding, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    TruncationParams,
};

/// Text to token ids and back.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// What special tokens are called (`bos_token`, ..), and how they are written.
    special: BTreeMap<String, String>,
    bos: Option<u32>,
    eos: Vec<u32>,
    pad: Option<u32>,
    adds_bos: bool,
    adds_eos: bool,
    tokens: usize,
    digest: Digest,
}

/// A text's tokens, and which of its bytes each stands for (none for those that were added).
pub(super) struct Pieces {
    pub(super) ids: Vec<u32>,
    pub(super) spans: Vec<(usize, usize)>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and what `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json`
    /// and `config.json` say of special tokens.
    ///
    /// # Errors
    /// Files that are missing or damaged.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join("tokenizer.json");
        let bytes = files::optional(&path)?.ok_or_else(|| {
            DataError::file(&path, "is missing; text needs the tokenizer.json that belongs to the backbone")
        })?;
        let refuse = |error: tokenizers::Error| DataError::file(&path, format!("is no tokenizer ({error})"));
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(refuse)?;
        inner.with_truncation(None).map_err(refuse)?.with_padding(None);

        let read = |name: &str| Ok::<_, DataError>(files::json(&folder.join(name))?.unwrap_or_default());
        let (settings, map) = (read("tokenizer_config.json")?, read("special_tokens_map.json")?);
        let (generation, config) = (read("generation_config.json")?, read("config.json")?);
        let special = special(&[&settings, &map]);
        let id = |name: &str| special.get(name).and_then(|token| inner.token_to_id(token));
        let first = |name: &str| [&generation, &config].iter().find_map(|file| ids(&file[name]).first().copied());
        let mut eos: Vec<u32> = id("eos_token").into_iter().collect();
        let others = [&generation, &config].map(|file| ids(&file["eos_token_id"]));
        for other in others.into_iter().find(|ids| !ids.is_empty()).unwrap_or_default() {
            if !eos.contains(&other) {
                eos.push(other);
            }
        }
        let flag = |name: &str| settings[name].as_bool() == Some(true);
        let vocabulary = inner.get_vocab(true);
        let tokens = vocabulary.values().max().map_or(0, |id| *id as usize + 1);
        Ok(Self {
            bos: id("bos_token").or_else(|| first("bos_token_id")),
            pad: id("pad_token").or_else(|| first("pad_token_id")),
            adds_bos: flag("add_bos_token"),
            adds_eos: flag("add_eos_token"),
            digest: digest(&inner),
            inner,
            special,
            eos,
            tokens,
        })
    }

    /// The tokens of a text; with `special` those around it as well, as the tokenizer says.
    ///
    /// # Errors
    /// A text that the tokenizer can't encode.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, String> {
        Ok(self.pieces(text, special)?.ids)
    }

    /// The tokens of two texts that belong together, with the special ones between and around them.
    ///
    /// # Errors
    /// A text that the tokenizer can't encode.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Vec<u32>, String> {
        self.encode_within(first, Some(second), usize::MAX)
    }

    /// The tokens of a text, or of two, with the special ones; where they are more than `length`, the longer text is
    /// cut at its end, and the special tokens stay.
    ///
    /// # Errors
    /// A text that the tokenizer can't encode, or a length with no room for text.
    pub fn encode_within(&self, first: &str, second: Option<&str>, length: usize) -> Result<Vec<u32>, String> {
        let encode = |text: &str| self.inner.encode_fast(text, false).map_err(refused);
        let (first, second) = (encode(first)?, second.map(encode).transpose()?);
        let added =
            self.around(&self.process(Encoding::default(), second.as_ref().map(|_| Encoding::default()))?).ids.len();
        let room = length.checked_sub(added).filter(|room| *room > 0);
        let max_length = room.ok_or_else(|| format!("{length} tokens leave no room for text"))?;
        let cut = TruncationParams { max_length, ..TruncationParams::default() };
        let (first, second) = tokenizers::truncate_encodings(first, second, &cut).map_err(refused)?;
        Ok(self.around(&self.process(first, second)?).ids)
    }

    /// As [`Tokenizer::encode`], with the bytes that the tokens stand for.
    pub(super) fn pieces(&self, text: &str, special: bool) -> Result<Pieces, String> {
        let encoding = self.inner.encode(text, special).map_err(refused)?;
        if special {
            return Ok(self.around(&encoding));
        }
        Ok(Pieces { ids: encoding.get_ids().to_vec(), spans: encoding.get_offsets().to_vec() })
    }

    fn process(&self, first: Encoding, second: Option<Encoding>) -> Result<Encoding, String> {
        self.inner.post_process(first, second, true).map_err(refused)
    }

    /// With the first and last token that `tokenizer_config.json` asks for, where `tokenizer.json` has not put them.
    fn around(&self, encoding: &Encoding) -> Pieces {
        let mut pieces = Pieces { ids: encoding.get_ids().to_vec(), spans: encoding.get_offsets().to_vec() };
        if let Some(bos) = self.bos.filter(|bos| self.adds_bos && pieces.ids.first() != Some(bos)) {
            pieces.ids.insert(0, bos);
            pieces.spans.insert(0, (0, 0));
        }
        if let Some(eos) = self.eos().filter(|eos| self.adds_eos && pieces.ids.last() != Some(eos)) {
            pieces.ids.push(eos);
            pieces.spans.push((0, 0));
        }
        pieces
    }

    /// The text of tokens, without the special ones.
    ///
    /// # Errors
    /// Tokens that the tokenizer can't decode.
    pub fn decode(&self, ids: &[u32]) -> Result<String, String> {
        self.inner.decode(ids, true).map_err(refused)
    }

    /// The text of tokens that come one by one.
    pub fn decode_stream(&self) -> Decoding<'_> {
        Decoding { stream: self.inner.decode_stream(true) }
    }

    /// The token that begins a text, if there is one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, if there is one.
    pub fn eos(&self) -> Option<u32> {
        self.eos.first().copied()
    }

    /// Whether a model that gives this token has nothing more to say. Chat models have several such tokens.
    pub fn ends(&self, id: u32) -> bool {
        self.eos.contains(&id)
    }

    /// The token that fills up shorter texts, if there is one.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// How many token ids there are: one more than the highest.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The special token of that name (`mask_token`, ..), if the files name it.
    pub fn special_id(&self, name: &str) -> Option<u32> {
        self.special.get(name).and_then(|token| self.inner.token_to_id(token))
    }

    /// What special tokens are called, and how they are written.
    pub(super) fn special(&self) -> &BTreeMap<String, String> {
        &self.special
    }

    /// BLAKE3 over what defines the ids: vocabulary, merges or scores, added tokens. Two folders with the same
    /// tokenizer agree, however their files are written.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// The text of tokens that come one by one: a character may take several tokens.
pub struct Decoding<'a> {
    stream: tokenizers::DecodeStream<
        'a,
        ModelWrapper,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >,
}

impl Decoding<'_> {
    /// What the next token adds to the text; nothing while a character is not whole.
    ///
    /// # Errors
    /// Tokens that the tokenizer can't decode.
    pub fn push(&mut self, id: u32) -> Result<String, String> {
        Ok(self.stream.step(id).map_err(refused)?.unwrap_or_default())
    }
}

fn refused(error: tokenizers::Error) -> String {
    format!("the tokenizer refused it ({error})")
}

/// The fields of files that are called `.._token`; a token is a string, or an object with `content`.
fn special(files: &[&Value]) -> BTreeMap<String, String> {
    let fields = files.iter().rev().filter_map(|file| file.as_object()).flatten();
    let named = fields.filter(|(name, _)| name.ends_with("_token"));
    named
        .filter_map(|(name, token)| {
            let written = token.as_str().or_else(|| token["content"].as_str())?;
            Some((name.clone(), written.to_string()))
        })
        .collect()
}

/// An id, or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(values) => values.iter().filter_map(id).collect(),
        other => id(other).into_iter().collect(),
    }
}

fn digest(tokenizer: &tokenizers::Tokenizer) -> Digest {
    let mut hasher = Hasher::new("heterotune 2026 tokenizer");
    let vocabulary = tokenizer.get_vocab(true);
    let mut vocabulary: Vec<(u32, &str)> = vocabulary.iter().map(|(token, id)| (*id, token.as_str())).collect();
    vocabulary.sort_unstable();
    for (id, token) in vocabulary {
        hasher.part(&id.to_le_bytes());
        hasher.part(token.as_bytes());
    }
    // The library writes every model in one form, whatever form it was read from.
    let model = serde_json::to_value(tokenizer.get_model()).unwrap_or_default();
    hasher.part(model["type"].as_str().unwrap_or_default().as_bytes());
    let (merges, scores) = (model["merges"].as_array(), model["vocab"].as_array());
    for pair in [merges, scores].into_iter().flatten().flatten() {
        hasher.part(pair.to_string().as_bytes());
    }
    let mut added: Vec<_> = tokenizer.get_added_tokens_decoder().into_iter().collect();
    added.sort_unstable_by_key(|(id, _)| *id);
    hasher.part(b"added");
    for (id, token) in added {
        hasher.part(&id.to_le_bytes());
        hasher.part(token.content.as_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
pub(super) mod tests;
