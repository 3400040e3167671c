//! `heterotune status`: where a node is, from its event log.

use super::{
    peers::{self, age, bytes},
    state::Question,
};
use crate::{
    doctor::{self, Finding},
    events, status,
};
use anyhow::Result;
use heterotune_protocol::round::Progress;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What the log of a node's last run says.
#[derive(Default)]
struct Status {
    /// The last event of each kind.
    last: BTreeMap<String, Map<String, Value>>,
    connected: BTreeSet<String>,
    listening: BTreeSet<String>,
    refused: usize,
    /// What the node has written beside its log, and whether it runs.
    now: Option<(status::Status, bool)>,
    /// That its membership has expired, or soon will.
    membership: Option<Finding>,
}

pub(super) fn run(flags: &Question) -> Result<()> {
    let state = flags.state.folder();
    let mut status = Status::default();
    events::read(&state)?.for_each(|event| status.take(event));
    status.now = status::Status::read(&state)?;
    status.membership = doctor::membership(&state);
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&status.json())?)
    } else {
        status.print()
    }
    Ok(())
}

impl Status {
    fn take(&mut self, event: Map<String, Value>) {
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        match text("event").as_str() {
            // A new log begins with the same line again.
            "started" if self.last.get("started") != Some(&event) => *self = Self::default(),
            "connected" => drop(self.connected.insert(text("peer"))),
            "disconnected" => drop(self.connected.remove(&text("peer"))),
            "listening" => drop(self.listening.insert(text("address"))),
            "refused" => self.refused += 1,
            _ => {}
        }
        self.last.insert(text("event"), event);
    }

    fn field(&self, event: &str, field: &str) -> String {
        match self.last.get(event).and_then(|event| event.get(field)) {
            None => "-".into(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) if number.is_f64() => format!("{:.3}", number.as_f64().unwrap_or_default()),
            Some(other) => other.to_string(),
        }
    }

    fn phase(&self) -> String {
        let has = |event: &str| self.last.contains_key(event);
        if has("error") {
            format!("stopped: {}", self.field("error", "message"))
        } else if has("finished") {
            format!("finished after {} rounds", self.field("finished", "rounds"))
        } else if has("left") || has("stopped") {
            "stopped".into()
        } else if matches!(self.now, Some((_, false))) {
            "gone without a word: it was killed, or its host was; start it again".into()
        } else if has("round_opened") {
            format!("in round {}", self.field("round_opened", "round"))
        } else {
            "aligning with the other founders".into()
        }
    }

    fn print(&self) {
        println!("node        {}", self.field("started", "node"));
        println!("network     {}", self.field("started", "network"));
        println!("phase       {}", self.phase());
        println!(
            "backbone    {} {} x {}",
            self.field("backbone", "model_type"),
            self.field("backbone", "width"),
            self.field("backbone", "depth")
        );
        if let Some(Finding { cause, mend, .. }) = &self.membership {
            println!("membership  {cause} -> {mend}");
        }
        println!("connected   {} peers", self.connected.len());
        self.listening.iter().for_each(|address| println!("listening   {address}"));
        if self.last.contains_key("misfit") {
            println!("turned away {}: {}", self.field("misfit", "peer"), self.field("misfit", "reason"));
        }
        println!(
            "last round  {}: {} updates, agreement {}",
            self.field("round_closed", "round"),
            self.field("round_closed", "updates"),
            self.field("round_closed", "agreement")
        );
        println!(
            "last seal   round {}: {} updates, state {}",
            self.field("sealed", "round"),
            self.field("sealed", "updates"),
            self.field("sealed", "state")
        );
        let told_at = |event: &str| self.last.get(event).and_then(|event| event.get("time_ms")?.as_u64());
        if let Some(Value::Array(silent)) = self.last.get("seal_overdue").and_then(|event| event.get("silent"))
            && told_at("seal_overdue") > told_at("sealed")
        {
            let round = self.field("seal_overdue", "round");
            println!("waiting     for the seal of round {round}: nothing comes from {} sealers", silent.len());
        }
        println!("accuracy    {} global, {} own", self.field("evaluated", "global"), self.field("evaluated", "own"));
        if let Some(judged) = self.last.get("judged") {
            let newest = self.field("judged", "round");
            match judged.get("accepted") {
                Some(Value::Bool(true)) => println!("in use      the mixture of round {newest}"),
                _ => println!(
                    "in use      the mixture of round {}: by the node's held-out samples that of round {newest} is worse (loss {} against {})",
                    self.field("judged", "uses"),
                    self.field("judged", "loss"),
                    self.field("judged", "best")
                ),
            }
        }
        println!("mixture     {}", self.field("round_closed", "mixture_hash"));
        println!("training    {} a second", self.field("trained", "per_second"));
        println!("refused     {} messages", self.refused);
        self.print_now();
    }

    fn print_now(&self) {
        let Some((now, true)) = &self.now else { return };
        println!("dropped     {} messages", now.dropped);
        println!("traffic     {} out, {} in", bytes(now.traffic.bytes_out), bytes(now.traffic.bytes_in));
        for Progress { author, round, held, bytes: all } in &now.fetching {
            let what = author.map_or("the state".into(), |author| format!("the update of {}", author.short()));
            println!("fetching    {what} of round {round}: {} of {}", bytes(*held), bytes(*all));
        }
        println!("seen        {} ago", age(events::unix_ms().saturating_sub(now.time_ms)));
        if !now.peers.is_empty() {
            println!();
            peers::table(now);
        }
    }

    fn json(&self) -> Value {
        serde_json::json!({
            "phase": self.phase(),
            "connected": self.connected,
            "listening": self.listening,
            "refused": self.refused,
            "membership": self.membership,
            "last": self.last,
            "running": self.now.as_ref().is_some_and(|(_, runs)| *runs),
            "now": self.now.as_ref().map(|(now, _)| now),
        })
    }
}
