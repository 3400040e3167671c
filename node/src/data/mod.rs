//! Samples: what files hold, in the form that a backbone takes.
//!
//! # Layout
//! - [`find`]: which file of a data folder; `rows`, `parquet`: tables row by row; `report`: what became of the rows
//! - `text`, `labels`: texts and their classes; `pieces`: long texts; [`language`](mod@language), [`Template`]: texts for language models;
//!   [`Tokenizer`]
//! - `image`, `binary`, `resize`: images; `table`: CSV files of pixel values
//!
//! Every row that can't be used is in the [`Report`], and a file with more than 1 % of them is refused.

mod binary;
mod error;
mod files;
mod image;
mod labels;
pub mod language;
mod parquet;
mod pieces;
mod report;
mod resize;
mod rows;
pub(crate) mod table;
mod template;
mod text;
mod tokenizer;

pub use error::DataError;
pub use files::{Format, find, require};
pub use report::Report;
pub use template::Template;
pub use tokenizer::{Decoding, Tokenizer};

use crate::backbone::{Batch, Processor, Takes};
use candle_core::{Device, Result, Tensor};
use labels::Classes;
use std::path::Path;

/// Inputs of samples, as a backbone takes them.
#[derive(Clone, Debug)]
pub enum Inputs {
    /// Raw pixel values `[n, channels x height x width]`.
    Pixels(Tensor),
    /// Token ids, at least one each.
    Tokens(Vec<Vec<u32>>),
}

/// Samples to learn from or to be measured by.
#[derive(Clone, Debug)]
pub struct Set {
    /// What goes in.
    pub inputs: Inputs,
    /// What should come out.
    pub targets: Targets,
}

/// What should come out for each sample.
#[derive(Clone, Debug)]
pub enum Targets {
    /// Nothing: the samples are anchors.
    None,
    /// The index of its label.
    Labels(Vec<u32>),
    /// Its own tokens, each after those before it, where these say so: the first never counts.
    Next(Vec<Vec<bool>>),
}

/// Inputs and their labels.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// The inputs.
    pub inputs: Inputs,
    /// The index of each input's label; empty where there are none.
    pub labels: Vec<u32>,
}

impl Inputs {
    /// Tokens of the longest text; none of images.
    pub fn longest(&self) -> Option<u64> {
        match self {
            Self::Pixels(_) => None,
            Self::Tokens(texts) => texts.iter().map(Vec::len).max().map(|tokens| tokens as u64),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Pixels(pixels) => pixels.dims().first().copied().unwrap_or(0),
            Self::Tokens(texts) => texts.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The inputs of some rows, in their order; text is padded to the longest of them.
    ///
    /// # Errors
    /// A row that does not exist.
    pub fn batch(&self, rows: &[u32]) -> Result<Batch> {
        match self {
            Self::Pixels(pixels) => Ok(Batch::Pixels(pixels.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?)),
            Self::Tokens(texts) => {
                let texts: Vec<&Vec<u32>> = rows.iter().filter_map(|row| texts.get(*row as usize)).collect();
                let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
                let padded = texts
                    .iter()
                    .flat_map(|text| text.iter().copied().chain(std::iter::repeat_n(0, longest - text.len())));
                let ids = Tensor::from_vec(padded.collect::<Vec<u32>>(), (rows.len(), longest), &Device::Cpu)?;
                Ok(Batch::Tokens { ids, lengths: texts.iter().map(|text| text.len()).collect() })
            }
        }
    }
}

/// What a file's samples must become.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// What the backbone takes.
    pub takes: Takes,
    /// Its tokenizer, if it takes text.
    pub tokenizer: Option<&'a Tokenizer>,
    /// How images are brought to its size; without one they must have it.
    pub processor: Option<Processor>,
    /// The names of the classes, in the order of their indices.
    pub labels: &'a [String],
}

/// Reads samples and their classes, in whatever form the path's name tells.
///
/// # Errors
/// A file that is damaged or of the wrong kind, or has too many bad rows.
pub fn classification(path: &Path, reader: &Reader<'_>) -> std::result::Result<(Labelled, Report), DataError> {
    if reader.labels.is_empty() {
        return Err(DataError::file(path, "can't be read as classes, as there are no names of classes"));
    }
    reader.read(path, Some(Classes::new(reader.labels)))
}

/// Reads samples without classes; a table's labels are not looked at, but a table of pixels must have none.
///
/// # Errors
/// A file that is damaged or of the wrong kind, or has too many bad rows.
pub fn unlabelled(path: &Path, reader: &Reader<'_>) -> std::result::Result<(Inputs, Report), DataError> {
    let (samples, report) = reader.read(path, None)?;
    Ok((samples.inputs, report))
}

/// Reads the beginnings of texts, cut off at the same characters for every tokenizer: what language models are aligned
/// by, each at its last token.
///
/// # Errors
/// A file that is damaged or of the wrong kind, or has too many bad rows.
pub fn beginnings(path: &Path, reader: &Reader<'_>) -> std::result::Result<(Inputs, Report), DataError> {
    match (reader.takes, reader.tokenizer) {
        (Takes::Tokens { vocabulary, context }, Some(tokenizer)) => {
            text::beginnings(path, &text::Encoder { tokenizer, vocabulary, context })
        }
        _ => Err(DataError::file(path, "can't be read as texts, as the backbone takes none")),
    }
}

/// Reads texts for a causal language model: see [`language`](mod@language).
///
/// # Errors
/// A file that is damaged or of the wrong kind, or has too many bad rows.
pub fn language(
    path: &Path,
    reader: &language::Reader<'_>,
) -> std::result::Result<(language::Corpus, Report), DataError> {
    reader.read(path)
}

/// How many samples the file at `path` holds, whatever backbone they are for.
///
/// # Errors
/// A file that is damaged, has too many bad rows, or is a folder.
pub fn count(path: &Path) -> std::result::Result<usize, DataError> {
    match Format::of(path)? {
        Format::Csv if table::has_pixels(path)? => table::count(path),
        Format::Csv | Format::Jsonl | Format::Parquet | Format::Text => {
            rows::each(path, |_| Ok(())).map(|report| report.rows - report.bad_rows)
        }
        Format::Cifar => binary::cifar_count(path),
        Format::Idx => binary::idx_count(path),
        Format::Images => Err(DataError::file(path, "is a folder; a single file is needed, such as .bin or .parquet")),
    }
}

impl Reader<'_> {
    fn read(&self, path: &Path, classes: Option<Classes<'_>>) -> std::result::Result<(Labelled, Report), DataError> {
        let table = Format::of(path)? == Format::Csv && table::has_pixels(path)?;
        match self.takes {
            Takes::Pixels { channels, size } if table => {
                let expected = classes.map_or(table::Labels::Absent, |_| table::Labels::OneOf(self.labels));
                let table = table::parse(path, &table::bytes(path)?, channels * size * size, expected)?;
                let rows = table.pixels.dim(0)?;
                let report = Report { path: path.into(), rows, bad_rows: 0, bad: Vec::new() };
                Ok((Labelled { inputs: Inputs::Pixels(table.pixels), labels: table.labels }, report))
            }
            Takes::Pixels { channels, size } => {
                let shape = image::Shape { channels, size, processor: self.processor };
                let (pixels, labels, report) = image::read(path, shape, classes)?;
                Ok((Labelled { inputs: Inputs::Pixels(pixels), labels }, report))
            }
            Takes::Tokens { .. } if table => Err(DataError::file(path, "is a table of pixels, but text is needed")),
            Takes::Tokens { vocabulary, context } => {
                let Some(tokenizer) = self.tokenizer else {
                    return Err(DataError::file(
                        path,
                        "can't be read, as the backbone takes text but has no tokenizer",
                    ));
                };
                let encoder = text::Encoder { tokenizer, vocabulary, context };
                text::read(path, &encoder, classes)
            }
        }
    }
}

#[cfg(test)]
mod tests;
