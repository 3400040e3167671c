//! The data file: CSV rows that stay as they are, but for the label in front.

use crate::RunError;
use std::{collections::BTreeSet, fs, path::Path};

/// Labelled rows.
#[derive(Clone, Debug)]
pub struct Data {
    /// The names of the columns, as written: `label,p0,...`.
    pub header: String,
    /// The labels, in order: as numbers where all of them are, else as text.
    pub labels: Vec<String>,
    /// The rows, in the order of the file.
    pub rows: Vec<Row>,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// The place of its label in [`Data::labels`].
    pub class: usize,
    /// The line, as written.
    pub line: String,
}

impl Row {
    /// The line without its label.
    pub fn unlabelled(&self) -> &str {
        without_label(&self.line)
    }
}

/// What follows the first comma.
pub(crate) fn without_label(line: &str) -> &str {
    line.split_once(',').map_or("", |(_, rest)| rest)
}

impl Data {
    /// The data in the file at `path`.
    ///
    /// # Errors
    /// A file that can't be read, or the first line that is no row.
    pub fn from_file(path: &Path) -> Result<Self, RunError> {
        let text = fs::read_to_string(path).map_err(|source| RunError::Read { path: path.into(), source })?;
        Self::from_text(path, &text)
    }

    fn from_text(path: &Path, text: &str) -> Result<Self, RunError> {
        let mistake = |line, message: String| RunError::Text { path: path.into(), line, column: 1, message };
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty());
        let Some((number, header)) = lines.next() else {
            return Err(mistake(1, "there is no header: the first line must be label,p0,p1,...".into()));
        };
        if !header.starts_with("label,") {
            return Err(mistake(number, "not a header: the first line must be label,p0,p1,...".into()));
        }
        let columns = header.split(',').count();
        let mut labelled = Vec::new();
        for (number, line) in lines {
            let found = line.split(',').count();
            if found != columns {
                return Err(mistake(number, format!("{found} columns, but the header has {columns}")));
            }
            match line.split_once(',') {
                Some((label, _)) if !label.is_empty() => labelled.push((label, line)),
                _ => return Err(mistake(number, "the label is missing: it belongs before the first comma".into())),
            }
        }
        let labels = in_order(labelled.iter().map(|(label, _)| *label).collect());
        let class = |label| labels.iter().position(|other| *other == label).unwrap_or_default();
        let rows = labelled.iter().map(|&(label, line)| Row { class: class(label), line: line.to_owned() }).collect();
        Ok(Self { header: header.to_owned(), rows, labels: labels.into_iter().map(String::from).collect() })
    }
}

fn in_order(labels: BTreeSet<&str>) -> Vec<&str> {
    let mut labels: Vec<&str> = labels.into_iter().collect();
    if labels.iter().all(|label| label.parse::<i64>().is_ok()) {
        labels.sort_by_key(|label| label.parse::<i64>().ok());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Data, String> {
        Data::from_text(Path::new("x.csv"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_keep_their_text_and_labels_their_order() {
        let data = parse("# from somewhere\nlabel,p0,p1\n10,1,2\n9,3,4\n\n10,5,6\n").unwrap();
        assert_eq!(data.labels, ["9", "10"]);
        assert_eq!(data.rows.iter().map(|row| row.class).collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(data.rows[2].unlabelled(), "5,6");
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, said) in [
            ("", "x.csv:1:1: there is no header"),
            ("# c\n1,2\n", "x.csv:2:1: not a header"),
            ("label,p0\n1,2\n1,2,3\n", "x.csv:3:1: 3 columns, but the header has 2"),
            ("label,p0\n,2\n", "x.csv:2:1: the label is missing"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.starts_with(said), "{message}");
        }
    }
}
