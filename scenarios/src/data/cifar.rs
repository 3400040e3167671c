//! The binary files of CIFAR-10 (Krizhevsky 2009): records of a label byte and three planes of 32 x 32 bytes.

use super::{Record, Table};
use crate::RunError;
use std::{fs, io::ErrorKind, path::Path};

const PIXELS: usize = 3 * 32 * 32;
const RECORD_BYTES: usize = 1 + PIXELS;

/// The file beside the data that names its labels.
const LABELS: &str = "labels.json";

/// The records of a file's `bytes`.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Table, RunError> {
    let mistake = |message| RunError::Data { path: path.into(), message };
    let labels = names(path)?;
    let records = bytes.chunks_exact(RECORD_BYTES);
    if !records.remainder().is_empty() {
        let size = bytes.len();
        return Err(mistake(format!(
            "its {size} bytes are no records of {RECORD_BYTES} bytes, a label and 32 x 32 x 3"
        )));
    }
    let record = |(number, bytes): (usize, &[u8])| -> Result<Record, RunError> {
        let label = usize::from(bytes.first().copied().unwrap_or_default());
        let name = labels.get(label).cloned().ok_or_else(|| {
            mistake(format!("record {number} has label {label}, but there are {} labels, from 0", labels.len()))
        })?;
        Ok(Record { line: number, label: Some(name), group: String::new(), bytes: bytes.to_vec() })
    };
    let records = (1..).zip(records).map(record).collect::<Result<Vec<_>, RunError>>()?;
    Ok(Table { header: String::new(), labels: Some(labels), records })
}

/// The names beside the file, or the digits.
fn names(path: &Path) -> Result<Vec<String>, RunError> {
    let path = path.with_file_name(LABELS);
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((0..10).map(|digit| digit.to_string()).collect()),
        Err(source) => Err(RunError::Read { path, source }),
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| RunError::Data { path, message: format!("it is no JSON list of names: {error}") }),
    }
}

/// A record whose label is 0.
pub(super) fn unlabelled(record: &[u8]) -> Vec<u8> {
    let mut record = record.to_vec();
    record.first_mut().into_iter().for_each(|label| *label = 0);
    record
}
