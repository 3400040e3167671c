//! Charter settings in a scenario: laid over the defaults, each mistake pinned to its key.

use heterotune_protocol::charter::{Charter, CharterError};
use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

/// What a scenario can't choose: it follows from its seed, nodes and data.
const NOT_SETTINGS: [&str; 6] = ["protocol", "name", "nonce", "founders", "task", "anchors"];

/// A key's path, and what is wrong with its value.
type Mistake = (Vec<String>, String);

/// `charter` with the settings in `tables`, the later ones over the earlier.
pub(crate) fn apply<'a>(charter: Charter, tables: impl Iterator<Item = &'a Table>) -> Result<Charter, Mistake> {
    tables.flat_map(leaves).try_fold(charter, |charter, (path, value)| {
        // One at a time: serde says what is wrong with a table's value, but not where it is.
        if path.first().is_some_and(|key| NOT_SETTINGS.contains(&key.as_str())) || path == ["adapter", "seed"] {
            return Err((path, "is set by the runner: leave it out".into()));
        }
        let mut table = Table::try_from(&charter).map_err(|error| (path.clone(), error.to_string()))?;
        set(&mut table, &path, value);
        table.try_into().map_err(|error: toml::de::Error| (path, error.message().trim().to_owned()))
    })
}

/// `charter` with the settings in `table`, checked, mistakes with `base` before their path.
pub(crate) fn check(charter: Charter, table: &Table, base: &[String]) -> Result<Charter, Mistake> {
    let below = |path: Vec<String>| base.iter().cloned().chain(path).collect::<Vec<_>>();
    let charter = apply(charter, [table].into_iter()).map_err(|(path, message)| (below(path), message))?;
    match charter.check() {
        Ok(()) => Ok(charter),
        Err(CharterError::Range { field, value, must }) => {
            Err((below(field.split('.').map(String::from).collect()), format!("is {value}, but must be {must}")))
        }
        Err(error) => Err((below(Vec::new()), error.to_string())),
    }
}

/// The line and column, both from 1, of the byte at `offset`.
pub(crate) fn position(source: &str, offset: usize) -> (usize, usize) {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.rsplit('\n').next().unwrap_or(before);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Where `key` stands in `source`; a number in it is a place in a list. Where it is not written, the place of the
/// table that it belongs to.
pub(crate) fn offset(source: &str, key: &[String]) -> usize {
    let Ok(document) = DeTable::parse(source) else { return 0 };
    let root = DeValue::Table(document.into_inner());
    let (mut offset, mut value) = (0, &root);
    for part in key {
        let below = match value {
            DeValue::Table(entries) => {
                entries.get_key_value(part.as_str()).map(|(key, below)| (key.span().start, below))
            }
            DeValue::Array(items) => {
                let item = part.parse().ok().and_then(|index: usize| items.get(index));
                item.map(|item| (item.span().start, item))
            }
            _ => None,
        };
        let Some((start, below)) = below else { break };
        (offset, value) = (start, below.get_ref());
    }
    offset
}

/// All values of a table with their paths.
fn leaves(table: &Table) -> Vec<(Vec<String>, Value)> {
    let below = |(key, value): (&String, &Value)| match value {
        Value::Table(inner) => leaves(inner)
            .into_iter()
            .map(|(mut path, value)| {
                path.insert(0, key.clone());
                (path, value)
            })
            .collect(),
        other => vec![(vec![key.clone()], other.clone())],
    };
    table.iter().flat_map(below).collect()
}

fn set(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => drop(table.insert(key.clone(), value)),
        [key, rest @ ..] => {
            let inner = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
            match inner {
                Value::Table(inner) => set(inner, rest, value),
                // A table where a value belongs: serde will say so.
                other => *other = Value::Table(Table::from_iter([(rest.join("."), value)])),
            }
        }
    }
}
