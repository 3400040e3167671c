//! Why data can't be used.

use std::path::{Path, PathBuf};

/// Why data can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file that is missing, not readable, or not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do about it.
        problem: String,
    },
    /// A line that is not what it should be.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The tensor library refused to compute.
    #[error("the data could not be made a tensor: {0}")]
    Compute(#[from] candle_core::Error),
}

impl DataError {
    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.into(), problem: problem.into() }
    }
}
