//! JSONL: a row is a line, kept whole. Its label is `label_text` if that is a string, else `label`.

use super::{Record, Table};
use crate::RunError;
use serde_json::Value;
use std::{borrow::Cow, collections::BTreeMap, path::Path};

/// A row's fields, in an order that does not depend on how this program was built.
type Fields = BTreeMap<String, Value>;

/// The rows of `text`: with labels if these are `wanted`, with their values of a `column` if there is one.
pub(super) fn parse(path: &Path, text: &str, wanted: bool, column: Option<&str>) -> Result<Table, RunError> {
    let mut records = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let mistake = |column, message| RunError::Text { path: path.into(), line: number, column, message };
        let fields: Fields = serde_json::from_str(line).map_err(|error| {
            // It says where, too, as if this were the only line.
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            mistake(error.column().max(1), format!("not a JSON object on one line: {what}"))
        })?;
        let label = if wanted { Some(label(&fields).map_err(|message| mistake(1, message))?) } else { None };
        let group = match column {
            None => String::new(),
            Some(column) => fields.get(column).and_then(word).ok_or_else(|| {
                mistake(1, format!("the row has no \"{column}\", a string or a number, which rows are dealt by"))
            })?,
        };
        records.push(Record { line: number, label, group, bytes: line.as_bytes().to_vec() });
    }
    Ok(Table { header: String::new(), labels: None, records })
}

fn label(fields: &Fields) -> Result<String, String> {
    if let Some(Value::String(label)) = fields.get("label_text") {
        return Ok(label.clone());
    }
    let label = fields.get("label").and_then(word).filter(|label| !label.is_empty());
    label.ok_or_else(|| "the row has no label: give it \"label\", a number or a string, or \"label_text\"".into())
}

/// A string or a number, as text.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A row without the fields that have `label` in their name. A row that has none stays as it is.
pub(super) fn unlabelled(row: &[u8]) -> Cow<'_, [u8]> {
    // Rows were parsed when they were read; one that can't be tells no label if it tells nothing.
    let mut fields: Fields = serde_json::from_slice(row).unwrap_or_default();
    let all = fields.len();
    fields.retain(|name, _| !name.contains("label"));
    if fields.len() == all && all > 0 {
        return Cow::Borrowed(row);
    }
    Cow::Owned(serde_json::to_vec(&fields).unwrap_or_default())
}
