//! Plain text of any length, piece by piece.

use super::{DataError, files};
use std::{
    io::{BufRead, Read as _},
    path::{Path, PathBuf},
};

/// The most bytes of a piece. A tokenizer takes about 60 bytes of memory for each.
const PIECE_BYTES: usize = 4 << 20;

/// A text file in pieces that end where a line ends, or where there is no such place at least between characters.
pub(super) struct Pieces {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    most: usize,
    /// What was read, and comes in the next piece.
    rest: Vec<u8>,
}

impl Pieces {
    /// Opens a file, unpacked where its name ends in `.gz`.
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        Ok(Self::new(path, files::open(path)?, PIECE_BYTES))
    }

    fn new(path: &Path, reader: Box<dyn BufRead>, most: usize) -> Self {
        Self { path: path.into(), reader, most, rest: Vec::new() }
    }

    /// The next piece; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, DataError> {
        let mut piece = std::mem::take(&mut self.rest);
        let room = self.most.saturating_sub(piece.len());
        let read = self.reader.by_ref().take(room as u64).read_to_end(&mut piece);
        read.map_err(|error| files::unreadable(&self.path, &error))?;
        if piece.len() == self.most {
            self.rest = piece.split_off(end(&piece));
        }
        Ok((!piece.is_empty()).then_some(piece))
    }
}

/// Where to cut: behind the last line break, else before the last character, which may not be whole.
fn end(bytes: &[u8]) -> usize {
    let line = bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
    let character = || bytes.iter().rposition(|byte| byte & 0xc0 != 0x80).filter(|at| *at > 0);
    line.or_else(character).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &'static [u8], most: usize) -> Vec<&'static str> {
        let mut pieces = Pieces::new(Path::new("x.txt"), Box::new(text), most);
        let mut at = 0;
        let next = || {
            let length = pieces.next().unwrap()?.len();
            at += length;
            Some(std::str::from_utf8(&text[at - length..at]).unwrap())
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn pieces_end_with_lines_or_at_least_characters_and_leave_nothing_out() {
        assert_eq!(pieces(b"ab\ncd\nef", 7), ["ab\ncd\n", "ef"]);
        assert_eq!(pieces(b"ab\ncd\nef\n", 3), ["ab\n", "cd\n", "ef\n"]);
        assert_eq!(pieces("aé漢字".as_bytes(), 5), ["aé", "漢", "字"]);
        assert_eq!(pieces(b"a\nbcdefg", 4), ["a\n", "bcd", "efg"]);
        assert_eq!(pieces(b"abc", 4), ["abc"]);
        assert!(pieces(b"", 4).is_empty());
    }
}
