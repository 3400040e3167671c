//! What became of the rows of a file: none is dropped without a word.

use super::DataError;
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// How many bad rows are shown one by one.
const SHOWN_MAX: usize = 10;
/// A file with more than one bad row in so many is refused.
const ROWS_PER_BAD_ROW: usize = 100;

/// What became of the rows of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which file, or folder of images.
    pub path: PathBuf,
    /// How many rows it has, good or bad.
    pub rows: usize,
    /// How many of them could not be used.
    pub bad_rows: usize,
    /// The first ten of those: their lines (from 1), and what is wrong with them.
    pub bad: Vec<(usize, String)>,
}

impl Report {
    /// Of a file whose rows come one by one.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.into(), rows: 0, bad_rows: 0, bad: Vec::new() }
    }

    /// Notes what became of one row.
    pub(super) fn note(&mut self, line: usize, row: Result<(), String>) {
        self.rows += 1;
        let Err(problem) = row else { return };
        self.bad_rows += 1;
        if self.bad.len() < SHOWN_MAX {
            self.bad.push((line, problem));
        }
    }

    /// The report, if there were rows and nearly all of them could be used.
    pub(super) fn finish(self) -> Result<Self, DataError> {
        if self.rows == 0 {
            return Err(DataError::file(&self.path, "is empty"));
        }
        match self.bad.first() {
            Some((line, problem)) if self.bad_rows * ROWS_PER_BAD_ROW > self.rows => {
                let (bad, rows) = (self.bad_rows, self.rows);
                let problem = format!(
                    "{bad} of {rows} rows can't be used, more than 1 %; mend or remove them; the first is line {line}: \
                     {problem}"
                );
                Err(DataError::file(&self.path, problem))
            }
            _ => Ok(self),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: {} rows", self.path.display(), self.rows)?;
        for (line, problem) in &self.bad {
            write!(to, "\n{}, line {line}: {problem}; left out", self.path.display())?;
        }
        match self.bad_rows - self.bad.len() {
            0 => Ok(()),
            more => write!(to, "\n{}: {more} more rows left out", self.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: usize, bad: usize) -> Result<Report, DataError> {
        let mut report = Report::new(Path::new("x.jsonl"));
        for row in 0..rows {
            report.note(row + 1, if row < bad { Err("is odd".into()) } else { Ok(()) });
        }
        report.finish()
    }

    #[test]
    fn a_few_bad_rows_are_shown_and_many_stop() {
        let told = report(1_200, 12).unwrap().to_string();
        assert!(told.starts_with("x.jsonl: 1200 rows\nx.jsonl, line 1: is odd; left out\n"), "{told}");
        assert!(told.ends_with("line 10: is odd; left out\nx.jsonl: 2 more rows left out"), "{told}");
        assert_eq!(report(100, 1).unwrap().bad_rows, 1);
        let told = report(100, 2).unwrap_err().to_string();
        assert!(told.contains("2 of 100 rows") && told.contains("line 1: is odd"), "{told}");
        assert!(report(0, 0).unwrap_err().to_string().contains("x.jsonl: is empty"));
    }
}
