//! In what two charters differ, in words.

use heterotune_protocol::charter::Charter;
use serde_json::Value;

/// The settings in which two charters differ, each as "name (here / there)".
pub fn differences(ours: &Charter, theirs: &Charter) -> Vec<String> {
    let mut found = Vec::new();
    if let (Ok(ours), Ok(theirs)) = (serde_json::to_value(ours), serde_json::to_value(theirs)) {
        compare("", &ours, &theirs, &mut found);
    }
    found
}

fn compare(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in ours {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, value, theirs.get(key).unwrap_or(&Value::Null), found);
            }
        }
        _ if ours == theirs => {}
        (Value::Array(_), _) => found.push(path.to_string()),
        _ => found.push(format!("{path} (here {ours}, there {theirs})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_crypto::{Digest, Identity};
    use heterotune_protocol::charter::{Anchors, Task};

    #[test]
    fn what_differs_is_named() {
        let founders = vec![Identity::from_seed(1, "a").id()];
        let labels = vec!["0".into(), "1".into()];
        let ours = Charter::new(
            "digits",
            founders,
            Task::ImageClassification { labels },
            Anchors { digest: Digest::ZERO, count: 128 },
        );
        let mut theirs = ours.clone();
        assert!(differences(&ours, &theirs).is_empty());
        theirs.adapter.rank = 8;
        theirs.name = "letters".into();
        assert_eq!(
            differences(&ours, &theirs),
            ["adapter.rank (here 16, there 8)", "name (here \"digits\", there \"letters\")"]
        );
    }
}
