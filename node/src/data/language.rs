//! Texts for causal language models: tokens, and which of them count towards the loss.
//!
//! A row is one of these, told by its fields:
//! - `messages`, each with `role` and `content`: written by the model's chat template; what the assistant says counts
//! - `prompt` and `completion`: the completion counts
//! - `instruction`, `output` and, if there is any, `input`: written as below; the output counts
//! - `question` and `answer`: written as below; the answer counts
//! - `text`: all of it counts
//!
//! A `.txt` file is one long text. It is encoded in pieces of whole lines, some MiB each: where a tokenizer begins every
//! text with a space, a piece begins with one, too.

use super::{
    DataError, Report, Template, Tokenizer,
    files::Format,
    pieces::Pieces,
    rows::{self, Row, Value},
    text::known,
};
use std::{ops::Range, path::Path};

const EMPTY: &str = "the text is empty";

/// Tokens in a row, and which of them are predicted and count towards the loss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Whether each token, predicted from those before it, counts. The first never does.
    pub counted: Vec<bool>,
}

/// What a file holds for a language model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corpus {
    /// None longer than the context, each with something that counts.
    pub sequences: Vec<Sequence>,
    /// How many sequences were left out because nothing in them counts (such as where a prompt fills the context).
    pub dropped: usize,
}

impl Corpus {
    /// How many tokens count.
    pub fn counted(&self) -> usize {
        self.sequences.iter().flat_map(|sequence| &sequence.counted).filter(|counted| **counted).count()
    }
}

/// How text becomes sequences.
pub struct Reader<'a> {
    /// The backbone's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Its chat template.
    pub template: &'a Template,
    /// How many tokens the backbone knows.
    pub vocabulary: usize,
    /// The most tokens of a sequence.
    pub context: usize,
    /// Whether texts are joined and cut into sequences of just `context` tokens, instead of one sequence a text, cut
    /// off at `context`. A joined text sees the end of the one before it: attention is not kept apart.
    pub pack: bool,
}

impl Reader<'_> {
    /// Reads a table, or a plain text.
    pub(super) fn read(&self, path: &Path) -> Result<(Corpus, Report), DataError> {
        if self.context < 2 {
            return Err(DataError::file(path, "can't be read in sequences of less than two tokens"));
        }
        let mut texts = Vec::new();
        let mut take = |text: Sequence| {
            known(&text.tokens, self.vocabulary)?;
            texts.push(text);
            Ok(())
        };
        if Format::of(path)? == Format::Text {
            let mut report = Report::new(path);
            report.note(1, self.plain(path)?.and_then(take));
            let report = report.finish()?;
            return Ok((self.joined(&texts), report));
        }
        let report = rows::each(path, |row| take(self.sequence(&row)?))?;
        Ok((if self.pack { self.joined(&texts) } else { self.cut(texts) }, report))
    }

    fn sequence(&self, row: &Row) -> Result<Sequence, String> {
        if let Some(messages) = row.get("messages") {
            return self.chat(messages);
        }
        if row.get("completion").is_some() {
            return self.completion(&row.required("prompt")?, &row.required("completion")?);
        }
        if row.get("instruction").is_some() {
            return self.completion(&instruction(row)?, &row.required("output")?);
        }
        if row.get("question").is_some() {
            return self
                .completion(&format!("Question: {}\nAnswer: ", row.required("question")?), &row.required("answer")?);
        }
        let text = row.text("text")?.ok_or(
            "there is no field text (or messages, prompt and completion, instruction and output, question and answer)",
        )?;
        self.document(&text)
    }

    /// A text by itself.
    fn document(&self, text: &str) -> Result<Sequence, String> {
        if text.trim().is_empty() {
            return Err(EMPTY.into());
        }
        Ok(self.whole(self.tokenizer.encode(text, true)?))
    }

    /// A file's text, however long; the inner error says what is wrong with it.
    fn plain(&self, path: &Path) -> Result<Result<Sequence, String>, DataError> {
        let (mut pieces, mut tokens, mut blank) = (Pieces::open(path)?, Vec::new(), true);
        while let Some(piece) = pieces.next()? {
            let Ok(piece) = String::from_utf8(piece) else { return Ok(Err("is not UTF-8".into())) };
            blank &= piece.trim().is_empty();
            match self.tokenizer.encode(&piece, tokens.is_empty()) {
                Ok(more) => {
                    // The end that the first piece was given belongs behind the last.
                    let end = tokens.pop_if(|last| Some(*last) == self.tokenizer.eos());
                    tokens.extend(more.into_iter().chain(end));
                }
                Err(problem) => return Ok(Err(problem)),
            }
        }
        Ok(if blank { Err(EMPTY.into()) } else { Ok(self.whole(tokens)) })
    }

    /// The tokens of a text, which all count. Where the tokenizer marks neither its beginning nor its end, and texts are
    /// joined, the end is marked.
    fn whole(&self, mut tokens: Vec<u32>) -> Sequence {
        let marked = self.tokenizer.bos().is_some_and(|bos| tokens.first() == Some(&bos));
        if self.pack && !marked {
            self.end(&mut tokens);
        }
        let counted = (0..tokens.len()).map(|at| at > 0).collect();
        Sequence { tokens, counted }
    }

    /// A prompt and what is to follow it, which counts, and so does the end.
    fn completion(&self, prompt: &str, completion: &str) -> Result<Sequence, String> {
        if completion.trim().is_empty() {
            return Err("what is to be learnt is empty".into());
        }
        let text = format!("{prompt}{completion}");
        let learnt = prompt.len()..text.len();
        let mut sequence = self.marked(&text, true, std::slice::from_ref(&learnt))?;
        if self.end(&mut sequence.tokens) {
            sequence.counted.push(true);
        } else if let Some(last) = sequence.counted.last_mut() {
            *last = true;
        }
        Ok(sequence)
    }

    /// A conversation: what the assistant says counts. Where that is, is found by writing the conversation up to
    /// before and after each of its turns; what a template writes differently once more follows does not count.
    fn chat(&self, messages: &Value) -> Result<Sequence, String> {
        let Value::List(messages) = messages else { return Err("messages is no list".into()) };
        let turns = turns(messages)?;
        if turns.is_empty() {
            return Err("the assistant says nothing in it".into());
        }
        let text = self.template.render(messages, false)?;
        let span = |turn: usize| {
            let before = self.template.render(messages.get(..turn).unwrap_or_default(), true)?;
            let after = self.template.render(messages.get(..=turn).unwrap_or_default(), false)?;
            Ok(common(&text, &before)..common(&text, &after))
        };
        let spans = turns.into_iter().map(span).collect::<Result<Vec<_>, String>>()?;
        self.marked(&text, false, &spans)
    }

    /// The tokens of a text, of which those that stand for bytes in `counted` count.
    fn marked(&self, text: &str, special: bool, counted: &[Range<usize>]) -> Result<Sequence, String> {
        let pieces = self.tokenizer.pieces(text, special)?;
        let counts = |(start, end): &(usize, usize)| counted.iter().any(|part| *start < part.end && *end > part.start);
        let counted = pieces.spans.iter().enumerate().map(|(at, span)| at > 0 && counts(span)).collect();
        Ok(Sequence { tokens: pieces.ids, counted })
    }

    /// Puts the end-of-text token at the end, if there is one and it is not there.
    fn end(&self, tokens: &mut Vec<u32>) -> bool {
        let eos = self.tokenizer.eos().filter(|eos| tokens.last() != Some(eos));
        tokens.extend(eos);
        eos.is_some()
    }

    /// One sequence a text, the end cut off where it is too long.
    fn cut(&self, texts: Vec<Sequence>) -> Corpus {
        let mut corpus = Corpus::default();
        for mut text in texts {
            text.tokens.truncate(self.context);
            text.counted.truncate(self.context);
            corpus.push(text);
        }
        corpus
    }

    /// All texts in a row, in sequences of `context` tokens; the last may be shorter.
    fn joined(&self, texts: &[Sequence]) -> Corpus {
        let mut corpus = Corpus::default();
        let mut block = Sequence::default();
        for (token, counted) in texts.iter().flat_map(|text| text.tokens.iter().zip(&text.counted)) {
            block.counted.push(*counted && !block.tokens.is_empty());
            block.tokens.push(*token);
            if block.tokens.len() == self.context {
                corpus.push(std::mem::take(&mut block));
            }
        }
        if !block.tokens.is_empty() {
            corpus.push(block);
        }
        corpus
    }
}

impl Corpus {
    fn push(&mut self, sequence: Sequence) {
        if sequence.counted.contains(&true) { self.sequences.push(sequence) } else { self.dropped += 1 }
    }
}

/// An instruction, and what it is about if there is anything.
fn instruction(row: &Row) -> Result<String, String> {
    let task = row.required("instruction")?;
    Ok(match row.text("input")?.filter(|input| !input.trim().is_empty()) {
        Some(input) => format!("Task: {task}\n\nInput: {input}\n\nAnswer: "),
        None => format!("Task: {task}\n\nAnswer: "),
    })
}

/// Which of the messages are the assistant's.
fn turns(messages: &[Value]) -> Result<Vec<usize>, String> {
    let mut turns = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let Value::Row(message) = message else { return Err(format!("message {} is no object", at + 1)) };
        if message.required("role")? == "assistant" {
            turns.push(at);
        }
    }
    Ok(turns)
}

/// How many bytes two texts have in common at their beginnings, in whole characters.
fn common(one: &str, other: &str) -> usize {
    let alike = one.char_indices().zip(other.chars()).find(|((_, one), other)| one != other);
    alike.map_or(one.len().min(other.len()), |((at, _), _)| at)
}

#[cfg(test)]
mod tests;
