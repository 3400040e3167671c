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

/// What is looked for in the rows of a file.
#[derive(Clone, Copy)]
struct Wanted {
    /// Whether each must have a label.
    labels: bool,
    /// Whether each must have the column that rows are dealt by, if they are.
    column: bool,
}

impl Table {
    /// The labels of a file of labelled rows, in order.
    fn labels(&self) -> Vec<String> {
        let of_rows = || in_order(self.records.iter().filter_map(|record| record.label.as_deref()).collect());
        self.labels.clone().unwrap_or_else(of_rows)
    }
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

    /// The file at `path`.
    fn read(self, path: &Path, plan: &DataPlan, wanted: Wanted) -> Result<Table, RunError> {
        match self {
            Self::Csv => csv::parse(path, &source::text(path)?, wanted),
            Self::Jsonl => jsonl::parse(path, &source::text(path)?, wanted, plan.column()),
            Self::Cifar => cifar::parse(path, &source::bytes(path)?, wanted),
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
        let labels = task.has_labels();
        let wanted = Wanted { labels, column: true };
        let mut test = match &plan.test {
            Some(path) => Some((path, read(path, plan, Wanted { column: false, ..wanted })?)),
            None => None,
        };
        let own = match Format::of(&plan.file) {
            Some(Format::Text) if test.is_none() => {
                let text = source::text(&plan.file)?;
                let (own, end) = text::cut(&text, plan.test_share());
                let table = |text| text::table(text, plan.piece_bytes());
                test = Some((&plan.file, table(end)));
                table(own)
            }
            _ => read(&plan.file, plan, wanted)?,
        };
        let labels = if labels { own.labels() } else { Vec::new() };
        let format = Format::of(&plan.file).unwrap_or(Format::Text);
        let mut data = Self { labels, rows: vec![], own: 0..0, test: None, anchors: None, format, header: own.header };
        data.own = data.add(&plan.file, own.records)?;
        if let Some((path, test)) = test {
            compare(path, &plan.file, "columns", &test.header, &data.header)?;
            if let Some(labels) = test.labels.filter(|_| task.has_labels()) {
                compare(path, &plan.file, "labels, by the labels.json beside it,", &labels, &data.labels)?;
            }
            data.test = Some(data.add(path, test.records)?);
        }
        if let Some(path) = &plan.anchors_file {
            let anchors = read(path, plan, Wanted { labels: false, column: false })?;
            let header = csv::without_label(&data.header);
            compare(path, &plan.file, "columns", csv::without_label(&anchors.header), header)?;
            data.anchors = Some(data.add(path, anchors.records)?);
        }
        Ok(data)
    }

    /// Adds rows, and says which they are.
    fn add(&mut self, path: &Path, records: Vec<Record>) -> Result<Range<usize>, RunError> {
        let start = self.rows.len();
        for Record { line, label, group, bytes } in records {
            let class = match label {
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

    /// The extension of the files that nodes get.
    pub(crate) fn extension(&self) -> &'static str {
        self.format.extension()
    }

    /// The file of some rows, with labels.
    pub(crate) fn file(&self, rows: &[usize]) -> Vec<u8> {
        self.write(&self.header, rows, Cow::Borrowed)
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

/// The file at `path`, which must have rows.
fn read(path: &Path, plan: &DataPlan, wanted: Wanted) -> Result<Table, RunError> {
    let mistake = |message: &str| RunError::Data { path: path.into(), message: message.into() };
    let format = Format::of(path).ok_or_else(|| mistake("its format is not known"))?;
    let table = format.read(path, plan, wanted)?;
    if table.records.is_empty() { Err(mistake("it has no rows")) } else { Ok(table) }
}

/// What two files must have in common.
fn compare<T: PartialEq + ?Sized>(path: &Path, file: &Path, what: &str, one: &T, other: &T) -> Result<(), RunError> {
    if one == other {
        return Ok(());
    }
    let message = format!("its {what} are not those of {}", file.display());
    Err(RunError::Data { path: path.into(), message })
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
