//! Which class a label means.

use super::rows::{Row, Value};
use std::borrow::Cow;

/// The names of classes, in the order of their indices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Classes<'a> {
    names: &'a [String],
}

impl<'a> Classes<'a> {
    pub(super) fn new(names: &'a [String]) -> Self {
        Self { names }
    }

    /// Whether the names are the placeholders that models come with: LABEL_0, LABEL_1, ..
    fn are_placeholders(self) -> bool {
        self.names.iter().enumerate().all(|(index, name)| *name == format!("LABEL_{index}"))
    }

    /// The class of a row: by `label_text` if it has one and the classes have names of their own, else by `label`.
    pub(super) fn of(self, row: &Row) -> Result<u32, String> {
        let by_name = row.get("label_text").filter(|_| !self.are_placeholders());
        let label = by_name.or_else(|| row.get("label")).or_else(|| row.get("label_text"));
        self.index(label.ok_or("there is no field label")?)
    }

    /// The class that a label means: by its name, first as it is, then whatever its case, else by its number.
    pub(super) fn index(self, label: &Value) -> Result<u32, String> {
        let text: Cow<'_, str> = match label {
            Value::Text(text) => text.trim().into(),
            Value::Integer(number) => number.to_string().into(),
            Value::Real(number) if number.fract() == 0.0 => format!("{number:.0}").into(),
            Value::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| "the label is not UTF-8")?.trim().into(),
            _ => return Err("the label is neither a name nor a whole number".into()),
        };
        let named = self.named(&text).or_else(|| text.parse().ok().filter(|number| *number < self.names.len()));
        let index = named.ok_or_else(|| format!("\"{}\" is none of the labels ({})", shortened(&text), self.list()))?;
        u32::try_from(index).map_err(|_| "there are too many labels".into())
    }

    fn named(self, text: &str) -> Option<usize> {
        if let Some(exact) = self.names.iter().position(|name| name == text) {
            return Some(exact);
        }
        let lower = text.to_lowercase();
        let mut alike = self.names.iter().enumerate().filter(|(_, name)| name.to_lowercase() == lower);
        let first = alike.next().map(|(index, _)| index);
        first.filter(|_| alike.next().is_none())
    }

    fn list(self) -> String {
        let shown = self.names.iter().take(20).map(String::as_str).collect::<Vec<_>>().join(", ");
        match self.names.len().saturating_sub(20) {
            0 => shown,
            more => format!("{shown} and {more} more"),
        }
    }
}

/// The beginning of a text that may be long.
fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(names: &[&str], fields: &[(&str, Value)]) -> Result<u32, String> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let row = Row(fields.iter().map(|(name, value)| (name.to_string(), value.clone())).collect());
        Classes::new(&names).of(&row)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn labels_are_names_or_numbers() {
        let named = ["ham", "Spam"];
        // The file's own numbers may be in another order: its names count.
        assert_eq!(index(&named, &[("label", Value::Integer(0)), ("label_text", text("Spam"))]), Ok(1));
        assert_eq!(index(&named, &[("label", text("SPAM"))]), Ok(1));
        assert_eq!(index(&named, &[("label", text(" 1 "))]), Ok(1));
        assert_eq!(index(&named, &[("label", Value::Real(1.0))]), Ok(1));
        assert_eq!(index(&named, &[("label_text", Value::Bytes(b"ham".to_vec()))]), Ok(0));
        let placeholders = ["LABEL_0", "LABEL_1"];
        assert_eq!(index(&placeholders, &[("label", Value::Integer(1)), ("label_text", text("spam"))]), Ok(1));
        assert_eq!(index(&placeholders, &[("label_text", text("label_1"))]), Ok(1));
        // A number that is a name is that name, wherever it stands.
        assert_eq!(index(&["1", "0"], &[("label", Value::Integer(0))]), Ok(1));
        assert_eq!(index(&["a", "A", "b"], &[("label", text("A"))]), Ok(1));
    }

    #[test]
    fn other_labels_are_refused() {
        let names = ["x", "y"];
        for (fields, told) in [
            (vec![("label", text("z"))], "\"z\" is none of the labels (x, y)"),
            (vec![("label", Value::Integer(2))], "\"2\" is none"),
            (vec![("label", Value::Integer(-1))], "\"-1\" is none"),
            (vec![("label", Value::Real(0.5))], "neither a name nor a whole number"),
            (vec![("label", Value::Integer(0)), ("label_text", text("z"))], "\"z\" is none"),
            (vec![("text", text("x"))], "there is no field label"),
            (vec![("label", Value::Null)], "there is no field label"),
        ] {
            let refusal = index(&names, &fields).unwrap_err();
            assert!(refusal.contains(told), "{refusal}");
        }
        assert!(index(&["a", "A"], &[("label", text("ä"))]).is_err());
    }
}
