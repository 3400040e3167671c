//! What nodes report: the lines of their event logs, followed while they are written.

use crate::RunError;
use heterotune_crypto::{Digest, NodeId};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read, Seek, SeekFrom},
    path::PathBuf,
};

/// Bytes read from a log at a time; what is more comes with the next look.
const READ_BYTES_MAX: u64 = 1 << 20;

/// How good a node is; in what, says the [`Metric`](crate::Metric).
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, Deserialize)]
pub struct Score {
    /// On the common test set.
    pub global: f64,
    /// For what the node is for. Accuracy: per class on the common test set, weighted by the node's own label shares, with
    /// its prior added. Perplexity: on the rows that it has held out.
    pub own: f64,
}

/// One line of a node's event log, as far as a run looks at it. A node may say more.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// What it carries.
    Backbone(Backbone),
    /// It can be reached at a multiaddress that ends in `/p2p/ID`.
    Listening { address: String },
    /// It has a connection to another node.
    Connected { peer: String },
    /// It has lost one.
    Disconnected { peer: String },
    /// How good it is by itself.
    Alone(Alone),
    /// Its projections are made; how well each space fits the reference.
    Aligned { fit: Vec<f64> },
    /// Round 1 can begin.
    Genesis {
        genesis_id: Digest,
        /// Whose kernels or statistics were left out.
        #[serde(default)]
        left_out: Vec<NodeId>,
    },
    /// A message that it did not take.
    Refused { from: NodeId, reason: String },
    /// Its local steps of a round are done.
    Trained { round: u64, loss: Option<f64> },
    /// A round is fused.
    RoundClosed(Closed),
    /// How good the shared mixture is on it; round 0 is the start.
    Evaluated {
        round: u64,
        #[serde(flatten)]
        score: Score,
    },
    /// The same, by the rows that settings are chosen by.
    Validated {
        round: u64,
        #[serde(flatten)]
        score: Score,
    },
    /// What its model writes.
    Sample(Sample),
    /// A round was not complete in time.
    DeadlineMissed { round: u64, missing: Vec<NodeId> },
    /// All rounds are done.
    Finished(Finished),
    /// It can't go on.
    Error { message: String },
    /// Anything else.
    #[serde(other)]
    Other,
}

/// A node's backbone and data.
#[derive(Clone, Debug, Deserialize)]
pub struct Backbone {
    /// The model's family.
    pub model_type: String,
    /// Its hidden size.
    pub width: u64,
    /// Its number of blocks.
    pub depth: u64,
    /// Its number of parameters.
    pub parameters: u64,
    /// How many values the node shares.
    pub shared_parameters: u64,
    /// The labels in its training data.
    pub classes: Vec<String>,
}

/// The best that a node can do without the network.
#[derive(Clone, Debug, serde::Serialize, Deserialize)]
pub struct Alone {
    /// The better of the two, chosen on a held-out fold of its own data.
    #[serde(flatten)]
    pub score: Score,
    /// All that were tried.
    pub best_of: BTreeMap<String, Score>,
}

/// What a node's model writes, to be read by people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub when: When,
    /// What it was given.
    pub prompt: String,
    /// How it went on.
    pub text: String,
}

/// When a sample was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Before the first round.
    Before,
    /// After the last.
    After,
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

/// A round, as one node closed it.
#[derive(Clone, Debug, Deserialize)]
pub struct Closed {
    /// Which round.
    pub round: u64,
    /// Updates in it.
    pub updates: u64,
    /// The norm of the fused update.
    pub update_norm: f64,
    /// The norm of its branches.
    pub branch_norm: f64,
    /// The mean cosine between updates.
    pub agreement: Option<f64>,
    /// Whose updates the fusion left out.
    pub left_out: Vec<NodeId>,
    /// The mixture after it.
    pub mixture_hash: Digest,
    /// Bytes sent since the start, all protocols.
    pub bytes_out: u64,
}

/// How a node ended.
#[derive(Clone, Debug, Deserialize)]
pub struct Finished {
    /// Rounds closed.
    pub rounds: u64,
    /// The mixture it holds.
    pub mixture_hash: Digest,
    /// Bytes sent, all protocols.
    pub bytes_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// The most memory it held.
    pub peak_rss_bytes: u64,
}

/// An event log that is being written.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    offset: u64,
    lines: usize,
    partial: Vec<u8>,
}

impl Log {
    /// The log at `path`, which need not exist yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, lines: 0, partial: Vec::new() }
    }

    /// The events that were added since the last look.
    pub(crate) fn new_events(&mut self) -> Result<Vec<Event>, RunError> {
        let read_error = |source| RunError::Read { path: self.path.clone(), source };
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened.map_err(read_error)?,
        };
        file.seek(SeekFrom::Start(self.offset)).map_err(read_error)?;
        let read = file.take(READ_BYTES_MAX).read_to_end(&mut self.partial).map_err(read_error)?;
        self.offset += read as u64;
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        let mut events = Vec::new();
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            self.lines += 1;
            events.push(serde_json::from_slice(line).map_err(|error| RunError::Event {
                path: self.path.clone(),
                line: self.lines,
                message: error.to_string(),
            })?);
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    #[test]
    fn a_log_is_followed_line_by_line() {
        let home = tempfile::tempdir().unwrap();
        let mut log = Log::new(home.path().join("events.jsonl"));
        assert!(log.new_events().unwrap().is_empty());
        let mut file = File::create(&log.path).unwrap();
        write!(
            file,
            "{{\"time_ms\":1,\"event\":\"connected\",\"peer\":\"a\",\"address\":\"b\"}}\n{{\"time_ms\":2,\"ev"
        )
        .unwrap();
        assert!(matches!(&log.new_events().unwrap()[..], [Event::Connected { peer }] if peer == "a"));
        assert!(log.new_events().unwrap().is_empty());
        writeln!(file, "ent\":\"something_new\",\"x\":1}}").unwrap();
        assert!(matches!(log.new_events().unwrap()[..], [Event::Other]));
        writeln!(file, "{{\"event\":\"trained\"}}").unwrap();
        let message = log.new_events().unwrap_err().to_string();
        assert!(message.contains("events.jsonl:3: not an event: missing field `round`"), "{message}");
    }

    #[test]
    fn the_events_of_a_round_are_read() {
        let home = tempfile::tempdir().unwrap();
        let mut log = Log::new(home.path().join("events.jsonl"));
        let hash = "ab".repeat(32);
        let lines = [
            format!(
                r#"{{"time_ms":1,"event":"round_closed","round":1,"updates":8,"update_norm":0.5,"branch_norm":0.1,"agreement":null,"left_out":["{hash}"],"mixture_hash":"{hash}","bytes_out":5,"bytes_in":6}}"#
            ),
            r#"{"time_ms":1,"event":"evaluated","round":0,"global":0.5,"own":1}"#.into(),
            r#"{"time_ms":1,"event":"alone","chosen":"a","global":0.5,"own":0.9,"best_of":{"a":{"global":0.5,"own":0.9}}}"#
                .into(),
            r#"{"time_ms":1,"event":"sample","when":"before","prompt":"Once","text":" upon","tokens":2}"#.into(),
        ];
        fs::write(&log.path, lines.join("\n") + "\n").unwrap();
        let events = log.new_events().unwrap();
        assert!(matches!(&events[0], Event::RoundClosed(closed) if closed.left_out[0].to_string() == hash));
        assert!(matches!(&events[1], Event::Evaluated { round: 0, score } if score.own == 1.0));
        assert!(matches!(&events[2], Event::Alone(alone) if alone.best_of["a"].global == 0.5));
        assert!(matches!(&events[3], Event::Sample(Sample { when: When::Before, text, .. }) if text == " upon"));
    }
}
