//! Rows of tables, one at a time: JSONL, CSV with a header, Parquet, and plain text a line a row.

use super::{DataError, Report, files, files::Format, parquet};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{
    borrow::Cow,
    cell::Cell,
    io::{self, BufRead, Read},
    path::Path,
    rc::Rc,
};

/// The most bytes of a row: a photograph, or a long book.
pub(super) const ROW_BYTES_MAX: usize = 64 << 20;

/// What a field of a row holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Row(Row),
}

/// Named fields, in the file's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row(pub(super) Vec<(String, Value)>);

impl Row {
    /// The field of that name, if it is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value).filter(|value| **value != Value::Null)
    }

    /// The text of that name, if the field is there.
    pub(super) fn text(&self, name: &str) -> Result<Option<Cow<'_, str>>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.into())),
            Some(Value::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text.into())),
                Err(_) => Err(format!("{name} is not UTF-8")),
            },
            Some(_) => Err(format!("{name} is no text")),
        }
    }

    /// As [`Row::text`], where the field must be there.
    pub(super) fn required(&self, name: &str) -> Result<Cow<'_, str>, String> {
        self.text(name)?.ok_or_else(|| format!("there is no field {name}"))
    }

    /// How many bytes it takes, names included.
    pub(super) fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.size()).sum()
    }
}

impl Value {
    fn size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(values) => values.iter().map(Self::size).sum(),
            Self::Row(row) => row.size(),
        }
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(integer) => Self::Integer(integer),
                None => Self::Real(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Array(values) => Self::List(values.into_iter().map(Self::from).collect()),
            serde_json::Value::Object(fields) => {
                Self::Row(Row(fields.into_iter().map(|(name, value)| (name, value.into())).collect()))
            }
        }
    }
}

/// As chat templates see it.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => to.serialize_none(),
            Self::Bool(value) => to.serialize_bool(*value),
            Self::Integer(value) => to.serialize_i64(*value),
            Self::Real(value) => to.serialize_f64(*value),
            Self::Text(text) => to.serialize_str(text),
            Self::Bytes(bytes) => to.serialize_bytes(bytes),
            Self::List(values) => to.collect_seq(values),
            Self::Row(row) => row.serialize(to),
        }
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

/// A row with its line (in Parquet: its number), or what is wrong with it. The outer error ends the file.
pub(super) type Numbered = Result<(usize, Result<Row, String>), DataError>;

/// Gives every row of a table to `take`, which says what is wrong with it.
///
/// # Errors
/// A file that can't be read, is empty, or has too many bad rows.
pub(super) fn each(path: &Path, mut take: impl FnMut(Row) -> Result<(), String>) -> Result<Report, DataError> {
    let mut report = Report::new(path);
    for numbered in rows(path)? {
        let (line, row) = numbered?;
        report.note(line, row.and_then(&mut take));
    }
    report.finish()
}

/// The rows of a table.
fn rows(path: &Path) -> Result<Box<dyn Iterator<Item = Numbered>>, DataError> {
    match Format::of(path)? {
        Format::Jsonl => Ok(Box::new(lines(path, |line| {
            let json: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(line).map_err(|error| format!("is no JSON object ({error})"))?;
            Ok(Row(json.into_iter().map(|(name, value)| (name, value.into())).collect()))
        })?)),
        Format::Text => Ok(Box::new(lines(path, |line| Ok(Row(vec![("text".into(), Value::Text(line.into()))])))?)),
        Format::Csv => Ok(Box::new(csv(path)?)),
        Format::Parquet => Ok(Box::new(parquet::rows(path)?)),
        Format::Cifar | Format::Idx | Format::Images => {
            Err(DataError::file(path, "holds images, but text is needed: a .jsonl, .csv, .parquet or .txt file"))
        }
    }
}

/// What `parse` makes of the lines that are not blank.
fn lines<F: Fn(&str) -> Result<Row, String>>(
    path: &Path,
    parse: F,
) -> Result<impl Iterator<Item = Numbered> + use<F>, DataError> {
    let mut reader = files::open(path)?;
    let path = path.to_path_buf();
    let mut number = 0;
    Ok(std::iter::from_fn(move || {
        loop {
            number += 1;
            let line = match line(&mut reader) {
                Ok(line) => line?,
                Err(error) => return Some(Err(files::unreadable(&path, &error))),
            };
            let row = match line.as_deref().map(std::str::from_utf8) {
                Ok(Ok(line)) => match line.trim_start_matches('\u{feff}').trim() {
                    "" => continue,
                    line => parse(line),
                },
                Ok(Err(_)) => Err("is not UTF-8".into()),
                Err(problem) => Err(problem.to_string()),
            };
            return Some(Ok((number, row)));
        }
    }))
}

/// The next line, if there is one; the bytes of one that is too long are skipped.
fn line(reader: &mut Box<dyn BufRead>) -> io::Result<Option<Result<Vec<u8>, String>>> {
    let mut bytes = Vec::new();
    reader.take(ROW_BYTES_MAX as u64 + 1).read_until(b'\n', &mut bytes)?;
    if bytes.len() > ROW_BYTES_MAX {
        reader.skip_until(b'\n')?;
        return Ok(Some(Err(format!("is longer than {ROW_BYTES_MAX} bytes"))));
    }
    Ok((!bytes.is_empty()).then_some(Ok(bytes)))
}

/// The rows below the header.
fn csv(path: &Path) -> Result<impl Iterator<Item = Numbered> + use<>, DataError> {
    let left = Rc::new(Cell::new(ROW_BYTES_MAX));
    let metered = Metered { reader: files::open(path)?, left: left.clone() };
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(metered);
    let refuse = {
        let path = path.to_path_buf();
        move |error: csv::Error| DataError::file(&path, format!("can't be read as a table ({error})"))
    };
    let header: Vec<String> = reader.headers().map_err(&refuse)?.iter().map(|name| name.trim().to_string()).collect();
    let mut record = csv::ByteRecord::new();
    Ok(std::iter::from_fn(move || {
        left.set(ROW_BYTES_MAX);
        match reader.read_byte_record(&mut record) {
            Ok(false) => None,
            Ok(true) => {
                let line = record.position().map_or(0, |position| usize::try_from(position.line()).unwrap_or(0));
                Some(Ok((line, csv_row(&header, &record))))
            }
            Err(error) => Some(Err(refuse(error))),
        }
    }))
}

fn csv_row(header: &[String], record: &csv::ByteRecord) -> Result<Row, String> {
    if record.len() != header.len() {
        return Err(format!("has {} fields, but the header has {}", record.len(), header.len()));
    }
    let field = |(name, bytes): (&String, &[u8])| {
        let text = std::str::from_utf8(bytes).map_err(|_| format!("{name} is not UTF-8"))?;
        Ok((name.clone(), Value::Text(text.into())))
    };
    header.iter().zip(record.iter()).map(field).collect::<Result<_, _>>().map(Row)
}

/// A reader that fails where a row does not end: a quote that is never closed would else take in the whole file.
struct Metered {
    reader: Box<dyn BufRead>,
    left: Rc<Cell<usize>>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let left = self.left.get().checked_sub(read);
        let told = || io::Error::other(format!("a row is longer than {ROW_BYTES_MAX} bytes: is a quote not closed?"));
        self.left.set(left.ok_or_else(told)?);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
