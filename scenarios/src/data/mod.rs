//! The data files: rows that stay as they are, of which a deal knows the label.
//!
//! All rows are in one list, whatever file they came from, so that a deal is a matter of their numbers alone.

mod cifar;
mod csv;
mod jsonl;
mod source;
mod text;

use crate::{DataPlan, RunError, TaskKind};
use std::{borrow::Cow, collections::BTreeSet, ops::Range, path::Path};

/// The rows of a scenario.
#[derive(Clone, Debug)]
pub struct Data {
    /// The labels: in the order of `labels.json` where there is one; else as numbers where all of them are, else as text.
    /// None where rows have none.
    pub labels: Vec<String>,
    /// All rows, those to be dealt first.
    pub rows: Vec<Row>,
    /// The rows to be dealt, and to be parted into training and test where there is no test set.
    pub(crate) own: Range<usize>,
    /// The rows of the test set, where it is one by itself.
    pub(crate) test: Option<Range<usize>>,
    /// The public rows, where they are in a file of their own.
    pub(crate) anchors: Option<Range<usize>>,
    format: Format,
    header: String,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// The place of its label in [`Data::labels`]; 0 where there are none.
    pub class: usize,
    /// Its value in the column that rows are dealt by, if they are.
    pub group: String,
    /// As it is in its file.
    pub bytes: Vec<u8>,
}

/// A format of data files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Numbers between commas, the label first, below a header.
    Csv,
    /// A JSON object a line.
    Jsonl,
    /// Records of a label byte and 3 x 32 x 32 bytes (Krizhevsky 2009).
    Cifar,
    /// Plain text.
    Text,
}

/// A file as it was read.
struct Table {
    /// The first line of CSV.
    header: String,
    /// The names of the labels, where the file's kind says them all.
    labels: Option<Vec<String>>,
    records: Vec<Record>,
}

/// A row with its label not looked up yet.
struct Record {
    /// Where it is in the file, from 1.
    line: usize,
    /// None where it isn't wanted.
    label: Option<String>,
    group: String,
    bytes: Vec<u8>,
}

impl Format {
    /// The format that the name of a file tells.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let endings = [
            (".csv", Self::Csv),
            (".jsonl", Self::Jsonl),
            (".bin", Self::Cifar),
            (".bin.gz", Self::Cifar),
            (".txt", Self::Text),
        ];
        endings.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, format)| format)
    }

    /// The extension of the files that nodes get.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl | Self::Text => "jsonl",
            Self::Cifar => "bin",
        }
    }

    /// A row without what tells its label.
    fn unlabelled(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Csv => Cow::Borrowed(csv::unlabelled(bytes)),
            Self::Jsonl | Self::Text => jsonl::unlabelled(bytes),
            Self::Cifar => Cow::Owned(cifar::unlabelled(bytes)),
        }
    }

    /// The file at `path`; with labels, if these are `wanted`.
    fn read(self, path: &Path, plan: &DataPlan, wanted: bool) -> Result<Table, RunError> {
        match self {
            Self::Csv => csv::parse(path, &source::text(path)?, wanted),
            Self::Jsonl => jsonl::parse(path, &source::text(path)?, wanted, plan.column()),
            Self::Cifar => cifar::parse(path, &source::bytes(path)?),
            Self::Text => Ok(text::table(&source::text(path)?, plan.piece_bytes())),
        }
    }
}

impl Data {
    /// The data that a plan names, whose paths are where the files are.
    ///
    /// # Errors
    /// A file that can't be read, or the first mistake in one.
    pub fn read(plan: &DataPlan, task: TaskKind) -> Result<Self, RunError> {
        let unknown = |path: &Path| RunError::Data { path: path.into(), message: "its format is not known".into() };
        let read = |path: &Path, wanted| {
            let format = Format::of(path).ok_or_else(|| unknown(path))?;
            let table = format.read(path, plan, wanted)?;
            if table.records.is_empty() {
                return Err(RunError::Data { path: path.into(), message: "it has no rows".into() });
            }
            Ok(table)
        };
        let format = Format::of(&plan.file).ok_or_else(|| unknown(&plan.file))?;
        let (own, test) = match &plan.test {
            None if format == Format::Text => {
                let text = source::text(&plan.file)?;
                let (own, test) = text::cut(&text, plan.test_share());
                let table = |text| text::table(text, plan.piece_bytes());
                (table(own), Some((&plan.file, table(test))))
            }
            None => (read(&plan.file, task.has_labels())?, None),
            Some(test) => (read(&plan.file, task.has_labels())?, Some((test, read(test, task.has_labels())?))),
        };
        let labels = match (&own.labels, task.has_labels()) {
            (_, false) => Vec::new(),
            (Some(labels), true) => labels.clone(),
            (None, true) => in_order(own.records.iter().filter_map(|record| record.label.as_deref()).collect()),
        };
        let mut data = Self { labels, rows: vec![], own: 0..0, test: None, anchors: None, format, header: own.header };
        data.own = data.add(&plan.file, own.records)?;
        if let Some((path, test)) = test {
            data.compare(path, &plan.file, &test.header, &data.header)?;
            if test.labels.is_some_and(|labels| labels != data.labels) {
                let message = format!("its labels.json says other labels than that of {}", plan.file.display());
                return Err(RunError::Data { path: path.clone(), message });
            }
            data.test = Some(data.add(path, test.records)?);
        }
        if let Some(path) = &plan.anchors_file {
            let anchors = read(path, false)?;
            data.compare(path, &plan.file, csv::without_label(&anchors.header), csv::without_label(&data.header))?;
            data.anchors = Some(data.add(path, anchors.records)?);
        }
        Ok(data)
    }

    /// Adds rows, and says which they are.
    fn add(&mut self, path: &Path, records: Vec<Record>) -> Result<Range<usize>, RunError> {
        let start = self.rows.len();
        for Record { line, label, group, bytes } in records {
            let class = match label.filter(|_| !self.labels.is_empty()) {
                None => 0,
                Some(label) => self.labels.iter().position(|other| *other == label).ok_or_else(|| {
                    let message = format!("the label {label} is not among those of the training data");
                    RunError::Text { path: path.into(), line, column: 1, message }
                })?,
            };
            self.rows.push(Row { class, group, bytes });
        }
        Ok(start..self.rows.len())
    }

    /// Headers must be alike.
    fn compare(&self, path: &Path, file: &Path, header: &str, other: &str) -> Result<(), RunError> {
        if header == other {
            return Ok(());
        }
        let message = format!("its columns are not those of {}", file.display());
        Err(RunError::Data { path: path.into(), message })
    }

    /// The extension of the files that nodes get.
    pub(crate) fn extension(&self) -> &'static str {
        self.format.extension()
    }

    /// The file of some rows, with labels.
    pub(crate) fn file(&self, rows: &[usize]) -> Vec<u8> {
        self.write(&self.header, rows, |bytes| Cow::Borrowed(bytes))
    }

    /// The file of some rows, without labels.
    pub(crate) fn unlabelled_file(&self, rows: &[usize]) -> Vec<u8> {
        self.write(csv::without_label(&self.header), rows, |bytes| self.format.unlabelled(bytes))
    }

    fn write<'a>(&'a self, header: &str, rows: &[usize], row: impl Fn(&'a [u8]) -> Cow<'a, [u8]>) -> Vec<u8> {
        let end: &[u8] = if self.format == Format::Cifar { b"" } else { b"\n" };
        let mut file = Vec::new();
        if self.format == Format::Csv {
            file.extend_from_slice(header.as_bytes());
            file.extend_from_slice(end);
        }
        for bytes in rows.iter().filter_map(|index| self.rows.get(*index)).map(|of| row(&of.bytes)) {
            file.extend_from_slice(&bytes);
            file.extend_from_slice(end);
        }
        file
    }
}

fn in_order(labels: BTreeSet<&str>) -> Vec<String> {
    let mut labels: Vec<&str> = labels.into_iter().collect();
    if labels.iter().all(|label| label.parse::<i64>().is_ok()) {
        labels.sort_by_key(|label| label.parse::<i64>().ok());
    }
    labels.into_iter().map(String::from).collect()
}

#[cfg(test)]
mod tests;
