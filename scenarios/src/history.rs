//! What one node has reported so far, put together.

use crate::{
    Metric,
    events::{Alone, Backbone, Closed, Event, Finished, Sample, Score},
};
use heterotune_crypto::{Digest, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// The report of one node.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The node's name.
    pub name: String,
    /// Its backbone, once loaded.
    pub backbone: Option<Backbone>,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Whom it is connected to.
    pub peers: BTreeSet<String>,
    /// How good it is by itself.
    pub alone: Option<Alone>,
    /// How well each of its spaces fits the reference.
    pub fit: Option<Vec<f64>>,
    /// The genesis it agreed to.
    pub genesis: Option<Digest>,
    /// Whose kernels or statistics it left out.
    pub left_out: Vec<NodeId>,
    /// Whose messages it refused: who sent them, and the first reason.
    pub refused: BTreeMap<NodeId, String>,
    /// Who was waited for in vain, in any round.
    pub missed: BTreeSet<NodeId>,
    /// The loss of local training, by round.
    pub losses: BTreeMap<u64, f64>,
    /// The rounds it closed.
    pub rounds: BTreeMap<u64, Closed>,
    /// How good it is with the shared mixture, by round; 0 is the start.
    pub scores: BTreeMap<u64, Score>,
    /// The same by the rows that settings are chosen by, where there are such.
    pub validated: BTreeMap<u64, Score>,
    /// What its model wrote.
    pub samples: Vec<Sample>,
    /// How it ended.
    pub finished: Option<Finished>,
}

/// What a node reports when the run must fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It says that it can't go on.
    Error(String),
    /// A round was not complete in time.
    DeadlineMissed { round: u64, missing: Vec<NodeId> },
}

impl History {
    /// Of a node that has not reported anything.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Takes in one event.
    pub(crate) fn add(&mut self, event: Event) -> Result<(), Trouble> {
        match event {
            Event::Other => {}
            Event::Backbone(backbone) => self.backbone = Some(backbone),
            Event::Listening { address } => self.addresses.push(address),
            Event::Connected { peer } => drop(self.peers.insert(peer)),
            Event::Disconnected { peer } => drop(self.peers.remove(&peer)),
            Event::Alone(alone) => self.alone = Some(alone),
            Event::Aligned { fit } => self.fit = Some(fit),
            Event::Genesis { genesis_id, left_out } => (self.genesis, self.left_out) = (Some(genesis_id), left_out),
            Event::Refused { from, reason } => drop(self.refused.entry(from).or_insert(reason)),
            Event::Trained { round, loss } => self.losses.extend(loss.map(|loss| (round, loss))),
            Event::RoundClosed(closed) => drop(self.rounds.insert(closed.round, closed)),
            Event::Evaluated { round, score } => drop(self.scores.insert(round, score)),
            Event::Validated { round, score } => drop(self.validated.insert(round, score)),
            Event::Sample(sample) => self.samples.push(sample),
            Event::Finished(finished) => self.finished = Some(finished),
            Event::DeadlineMissed { round, missing } => {
                self.missed.extend(missing.iter().filter(|_| round > 0));
                return Err(Trouble::DeadlineMissed { round, missing });
            }
            Event::Error { message } => return Err(Trouble::Error(message)),
        }
        Ok(())
    }

    /// The bytes it sent in `round`; genesis counts to round 1.
    pub fn bytes_sent_in(&self, round: u64) -> u64 {
        let sent_by = |round| self.rounds.get(&round).map_or(0, |closed| closed.bytes_out);
        sent_by(round).saturating_sub(round.checked_sub(1).map_or(0, sent_by))
    }

    /// The mean of what counts of some nodes' evaluations.
    pub(crate) fn mean_score(nodes: &[Self], metric: Metric) -> Score {
        let scores = || nodes.iter().filter_map(|node| metric.result(&node.scores));
        let (global, own) = (scores().map(|score| score.global), scores().map(|score| score.own));
        Score { global: metric.mean(global).unwrap_or_default(), own: metric.mean(own).unwrap_or_default() }
    }

    /// The mean of some nodes' evaluations after `round`; none where none has one.
    pub(crate) fn mean_score_after(nodes: &[Self], round: u64, metric: Metric) -> Option<Score> {
        let scores = || nodes.iter().filter_map(|node| node.scores.get(&round));
        let (global, own) = (scores().map(|score| score.global), scores().map(|score| score.own));
        Some(Score { global: metric.mean(global)?, own: metric.mean(own)? })
    }
}

/// The mean of some numbers; none have none.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}
