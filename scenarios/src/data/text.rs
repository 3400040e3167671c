//! Plain text, cut into pieces that are dealt as rows.

use super::{Record, Table};
use serde_json::json;

/// Pieces of at most `piece_bytes` bytes, as rows of JSONL.
pub(super) fn table(text: &str, piece_bytes: usize) -> Table {
    let record = |(line, piece): (usize, &str)| {
        let bytes = json!({ "text": piece }).to_string().into_bytes();
        Record { line, label: None, group: String::new(), bytes }
    };
    Table { header: String::new(), labels: None, records: (1..).zip(pieces(text, piece_bytes)).map(record).collect() }
}

/// All but the last `share` of a text, and that.
pub(super) fn cut(text: &str, share: f64) -> (&str, &str) {
    let wanted = (text.len() as f64 * (1.0 - share)) as usize;
    text.split_at(end(text, wanted))
}

/// The words of `text` in pieces of at most `piece_bytes` bytes, without the white space where they were cut. A word
/// that is longer is cut, too.
fn pieces(text: &str, piece_bytes: usize) -> impl Iterator<Item = &str> {
    let mut rest = text.trim_start();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at(end(rest, piece_bytes));
        rest = after.trim_start();
        Some(piece.trim_end())
    })
}

/// Where to cut `text`: before the last white space in its first `bytes`, or right behind them; within a word only where
/// there is none.
fn end(text: &str, bytes: usize) -> usize {
    if bytes >= text.len() {
        return text.len();
    }
    let behind = text.get(bytes..).is_some_and(|rest| rest.starts_with(char::is_whitespace));
    let most = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let head = text.get(..most).unwrap_or_default();
    match head.rfind(char::is_whitespace).filter(|_| !behind) {
        Some(space) if space > 0 => space,
        // Never nothing: a first character may be wider than `bytes`.
        _ if most == 0 => text.chars().next().map_or(0, char::len_utf8),
        _ => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hold_all_words_in_order() {
        let text = "  First Citizen:\nBefore we proceed any further,\n\nhear me speak. Pneumonoultramicroscopic end  ";
        for bytes in 1..60 {
            let pieces: Vec<&str> = pieces(text, bytes).collect();
            assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= bytes), "{bytes}: {pieces:?}");
            let letters = |text: &str| text.chars().filter(|letter| !letter.is_whitespace()).collect::<String>();
            assert_eq!(letters(&pieces.concat()), letters(text));
            if bytes >= 24 {
                let words = pieces.iter().flat_map(|piece| piece.split_whitespace());
                assert!(words.eq(text.split_whitespace()), "{bytes}: a word was cut in {pieces:?}");
            }
        }
        assert_eq!(pieces("one two three", 7).collect::<Vec<_>>(), ["one two", "three"]);
        assert_eq!(pieces("größe", 2).collect::<Vec<_>>(), ["gr", "ö", "ß", "e"]);
        assert_eq!(pieces("𝄞a", 1).collect::<Vec<_>>(), ["𝄞", "a"]);
    }

    #[test]
    fn a_test_is_the_end_of_the_text() {
        assert_eq!(cut("aa bb cc dd ee", 0.35), ("aa bb cc", " dd ee"));
        assert_eq!(table("aa\n\"bb\"", 10).records[0].bytes, br#"{"text":"aa\n\"bb\""}"#);
    }
}
