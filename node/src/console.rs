//! What a running node prints on standard error: events, by level.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::Write as _;

/// How much is printed; each level holds those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Only what ends the node.
    Error,
    /// And what it can go on with, but people should know.
    #[default]
    Warn,
    /// And what happens: connections, rounds, seals, accuracies.
    Info,
    /// And every message that was said, taken or refused.
    Debug,
}

/// Standard error, up to a level.
#[derive(Clone, Copy, Debug, Default)]
pub struct Console {
    level: Level,
}

impl Console {
    /// Prints what is of this level or more urgent.
    pub fn new(level: Level) -> Self {
        Self { level }
    }

    /// Prints an event of the log, if it is wanted.
    pub fn show(&self, event: &Value) {
        if self.level >= level(event) {
            say(&line(event));
        }
    }

    /// Prints a sentence that people should know.
    pub fn warn(&self, sentence: &str) {
        if self.level >= Level::Warn {
            say(sentence);
        }
    }
}

fn say(line: &str) {
    // Standard error may be closed, which is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Events that are many.
const DETAILS: [&str; 6] = ["received", "published", "refused", "round_opened", "trained", "sample"];

fn level(event: &Value) -> Level {
    let kind = event.get("event").and_then(Value::as_str).unwrap_or_default();
    if DETAILS.contains(&kind) { Level::Debug } else { Level::Info }
}

/// `round_closed round=3 updates=4 left_out=0 ..`: of lists their length, of what is nested nothing.
fn line(event: &Value) -> String {
    let mut line = event.get("event").and_then(Value::as_str).unwrap_or("event").to_string();
    for (key, value) in event.as_object().into_iter().flatten().filter(|(key, _)| *key != "event") {
        let shown = match value {
            Value::Null | Value::Object(_) => continue,
            Value::Array(list) => list.len().to_string(),
            Value::String(text) if text.contains(' ') => format!("{text:?}"),
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_f64() => format!("{:.4}", number.as_f64().unwrap_or_default()),
            other => other.to_string(),
        };
        line.push_str(&format!(" {key}={shown}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_lines_and_have_levels() {
        let event = json!({"event": "left", "agreement": 0.5, "who": ["a"], "why": "a b", "none": null});
        assert_eq!(line(&event), "left agreement=0.5000 who=1 why=\"a b\"");
        assert_eq!((level(&event), level(&json!({"event": "received"}))), (Level::Info, Level::Debug));
        assert!(Level::Warn < Level::Info && Level::default() == Level::Warn);
    }
}
