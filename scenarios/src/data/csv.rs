//! CSV of numbers: a header, the label in the first column, `#` starts a comment line.

use super::{Record, Table};
use crate::RunError;
use std::path::Path;

/// What follows the first comma.
pub(super) fn without_label(line: &str) -> &str {
    line.split_once(',').map_or("", |(_, rest)| rest)
}

/// What follows the first comma of a row.
pub(super) fn unlabelled(row: &[u8]) -> &[u8] {
    row.iter().position(|byte| *byte == b',').and_then(|comma| row.get(comma + 1..)).unwrap_or_default()
}

/// The rows of `text`. Where labels are not `wanted`, they may be missing with their column: an empty one is put in
/// its place.
pub(super) fn parse(path: &Path, text: &str, wanted: bool) -> Result<Table, RunError> {
    let mistake = |line, message: String| RunError::Text { path: path.into(), line, column: 1, message };
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty());
    let Some((number, header)) = lines.next() else {
        return Err(mistake(1, "there is no header: the first line must be label,p0,p1,...".into()));
    };
    let has_label = header.starts_with("label,");
    if !has_label && (wanted || !header.starts_with("p0")) {
        return Err(mistake(number, "not a header: the first line must be label,p0,p1,...".into()));
    }
    let with_label = |line: &str| if has_label { line.to_owned() } else { format!(",{line}") };
    let columns = header.split(',').count();
    let mut records = Vec::new();
    for (number, line) in lines {
        let found = line.split(',').count();
        if found != columns {
            return Err(mistake(number, format!("{found} columns, but the header has {columns}")));
        }
        let label = if wanted { line.split_once(',').map(|(label, _)| label.to_owned()) } else { None };
        if wanted && label.as_ref().is_none_or(String::is_empty) {
            return Err(mistake(number, "the label is missing: it belongs before the first comma".into()));
        }
        records.push(Record { line: number, label, group: String::new(), bytes: with_label(line).into_bytes() });
    }
    Ok(Table { header: with_label(header), labels: None, records })
}
