//! `heterotune status`: where a node is, from its event log.

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
};

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The node's state folder.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// What the log of a node's last run says.
#[derive(Default)]
struct Status {
    /// The last event of each kind.
    last: BTreeMap<String, Map<String, Value>>,
    connected: BTreeSet<String>,
    listening: BTreeSet<String>,
    refused: usize,
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let path = flags.state.join("events.jsonl");
    let file = File::open(&path).with_context(|| {
        format!(
            "cannot read {}; is {} a node's state folder, and has the node run?",
            path.display(),
            flags.state.display()
        )
    })?;
    let mut status = Status::default();
    for line in BufReader::new(file).lines() {
        // The last line may be half written.
        if let Ok(Value::Object(event)) = serde_json::from_str(&line?) {
            status.take(event);
        }
    }
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
            "started" => *self = Self::default(),
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
        println!("connected   {} members", self.connected.len());
        self.listening.iter().for_each(|address| println!("listening   {address}"));
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
        println!("refused     {} messages", self.refused);
    }

    fn json(&self) -> Value {
        serde_json::json!({
            "phase": self.phase(),
            "connected": self.connected,
            "listening": self.listening,
            "refused": self.refused,
            "last": self.last,
        })
    }
}
