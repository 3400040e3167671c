//! Changing one key of a TOML file that people write in, and leaving everything else as it is.

use anyhow::{Result, bail};
use std::ops::Range;
use toml::Value;

/// `text` with `key` of `table` (none: before all tables) set to `value`: in the place of the line that sets it, or of
/// one that a `#` keeps from setting it, or in a line of its own.
///
/// # Errors
/// A value that goes over several lines, or a text that is not TOML.
pub fn set(text: &str, table: Option<&str>, key: &str, value: &Value) -> Result<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    let line = format!("{key} = {value}");
    match section(&lines, table) {
        None => lines.extend([format!("[{}]", table.unwrap_or_default()), line]),
        Some(section) => {
            let end = section.end;
            let sets = |prefix: &str, at: usize| {
                let rest = lines.get(at)?.strip_prefix(prefix)?.strip_prefix(key)?;
                rest.trim_start().starts_with('=').then_some(at)
            };
            let found = ["", "#"].iter().find_map(|prefix| section.clone().find_map(|at| sets(prefix, at)));
            match found.and_then(|at| lines.get_mut(at)) {
                Some(place) => *place = line,
                None => lines.insert(end, line),
            }
        }
    }
    let changed = lines.join("\n") + "\n";
    let read = changed.parse::<toml::Table>().ok();
    let place = read.as_ref().and_then(|read| match table {
        None => read.get(key),
        Some(table) => read.get(table)?.get(key),
    });
    if place != Some(value) {
        bail!(
            "write `{key} = {value}` there by hand{}",
            table.map(|table| format!(", under [{table}]")).unwrap_or_default()
        );
    }
    Ok(changed)
}

/// The lines of a table, without its header.
fn section(lines: &[String], table: Option<&str>) -> Option<Range<usize>> {
    let start = match table {
        None => 0,
        Some(table) => lines.iter().position(|line| line.trim_end() == format!("[{table}]"))? + 1,
    };
    let after = lines.iter().skip(start).position(|line| line.starts_with('['));
    Some(start..after.map_or(lines.len(), |after| start + after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_set_where_it_stands_or_would() {
        let text = "# a = 0\n#a = 1\nb = 2\n\n[t]\n#a = 3\n";
        let set = |text: &str, table, key, value: i64| super::set(text, table, key, &Value::Integer(value)).unwrap();
        assert_eq!(set(text, None, "a", 9), "# a = 0\na = 9\nb = 2\n\n[t]\n#a = 3\n");
        assert_eq!(set(text, None, "b", 9), "# a = 0\n#a = 1\nb = 9\n\n[t]\n#a = 3\n");
        assert_eq!(set(text, Some("t"), "a", 9), "# a = 0\n#a = 1\nb = 2\n\n[t]\na = 9\n");
        assert_eq!(set(text, None, "c", 9), "# a = 0\n#a = 1\nb = 2\n\nc = 9\n[t]\n#a = 3\n");
        assert_eq!(set("a = 1\n", Some("u"), "c", 9), "a = 1\n[u]\nc = 9\n");
        assert_eq!(set("a = 1\n[u]\n", Some("u"), "c", 9), "a = 1\n[u]\nc = 9\n");
        // The line that counts, not the example before it.
        assert_eq!(set("#a = 1\na = 2\n", None, "a", 9), "#a = 1\na = 9\n");
    }

    #[test]
    fn what_cannot_be_changed_line_by_line_is_left_alone() {
        let told = set("a = [\n  1,\n]\n", None, "a", &Value::Integer(9)).unwrap_err().to_string();
        assert!(told.contains("write `a = 9` there by hand"), "{told}");
    }
}
