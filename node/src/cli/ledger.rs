//! `heterotune ledger`: the rounds that a node knows, and which of them are sealed.

use super::state::State;
use crate::{events, store::Store};
use anyhow::Result;
use clap::Args;
use heterotune_protocol::message::Step;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::Path};

#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    state: State,
    /// Show only the last N rounds.
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: usize,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// A round, as far as it is known.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Row {
    round: u64,
    updates: Option<u64>,
    conflicts: u64,
    sealed: bool,
    /// The digest of the sealed state.
    state: Option<String>,
    /// The digest of the mixture that this node has folded.
    mixture: Option<String>,
}

/// Rows by round.
#[derive(Default)]
struct Rows(BTreeMap<u64, Row>);

pub(super) fn run(flags: &Flags) -> Result<()> {
    let state = flags.state.folder();
    let mut rows = Rows::default();
    events::read(&state)?.for_each(|event| rows.take(&event));
    rows.add_seals(&state);
    let skipped = rows.0.len().saturating_sub(flags.last);
    let rows: Vec<Row> = rows.0.into_values().skip(skipped).collect();
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!("{:>8}  {:>7}  {:>9}  {:<6}  {:<10}  mixture", "round", "updates", "conflicts", "sealed", "state");
    let short =
        |digest: &Option<String>| digest.as_ref().map_or("-".into(), |text| text.chars().take(10).collect::<String>());
    for row in &rows {
        let updates = row.updates.map_or("-".into(), |updates| updates.to_string());
        let sealed = if row.sealed { "sealed" } else { "open" };
        let (state, mixture) = (short(&row.state), short(&row.mixture));
        println!("{:>8}  {updates:>7}  {:>9}  {sealed:<6}  {state:<10}  {mixture}", row.round, row.conflicts);
    }
    Ok(())
}

impl Rows {
    fn row(&mut self, round: u64) -> &mut Row {
        self.0.entry(round).or_insert_with(|| Row { round, ..Row::default() })
    }

    fn take(&mut self, event: &Map<String, Value>) {
        let Some(round) = event.get("round").and_then(Value::as_u64) else { return };
        let text = |key: &str| event.get(key).and_then(Value::as_str).map(str::to_string);
        let updates = event.get("updates").and_then(Value::as_u64);
        match event.get("event").and_then(Value::as_str) {
            Some("round_closed") => {
                let row = self.row(round);
                row.mixture = text("mixture_hash");
                // What is sealed is no longer what this node had folded by itself.
                row.updates = if row.sealed { row.updates } else { updates };
            }
            Some("sealed") => {
                let conflicts = event.get("conflicts").and_then(Value::as_array).map_or(0, Vec::len) as u64;
                let row = self.row(round);
                (row.sealed, row.updates, row.state, row.conflicts) = (true, updates, text("state"), conflicts);
            }
            Some("conflict") => {
                let row = self.row(round);
                row.conflicts += u64::from(!row.sealed);
            }
            _ => {}
        }
    }

    /// What the ledger holds and the log no longer does. While the node runs the ledger is locked, and the log is enough.
    fn add_seals(&mut self, state: &Path) {
        let seals = if state.join("ledger.redb").exists() {
            Store::open(state).and_then(|store| store.seals())
        } else {
            Ok(Vec::new())
        };
        for seal in seals.unwrap_or_default() {
            if let Step::Round(round) = seal.step {
                let row = self.row(round);
                (row.sealed, row.state) = (true, Some(seal.value().state.to_string()));
                row.updates = row.updates.or(Some(seal.ids.len() as u64));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_seal_has_the_last_word_on_a_round() {
        let mut rows = Rows::default();
        let events = [
            json!({"event": "round_closed", "round": 1, "updates": 3, "mixture_hash": "aa"}),
            json!({"event": "conflict", "round": 1, "author": "x"}),
            json!({"event": "sealed", "round": 1, "updates": 2, "conflicts": ["x"], "state": "bb"}),
            json!({"event": "round_closed", "round": 1, "updates": 9, "mixture_hash": "cc"}),
            json!({"event": "round_closed", "round": 2, "updates": 4, "mixture_hash": "dd"}),
            json!({"event": "conflict", "round": 2, "author": "y"}),
            json!({"event": "trained", "round": 3}),
        ];
        events.iter().for_each(|event| rows.take(event.as_object().unwrap()));
        let first = Row {
            round: 1,
            updates: Some(2),
            conflicts: 1,
            sealed: true,
            state: Some("bb".into()),
            mixture: Some("cc".into()),
        };
        let second = Row { round: 2, updates: Some(4), conflicts: 1, mixture: Some("dd".into()), ..Row::default() };
        assert_eq!(rows.0.into_values().collect::<Vec<_>>(), [first, second]);
    }
}
