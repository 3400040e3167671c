//! What a run comes to.

use crate::table::{align, bytes, thousands};
use heterotune_crypto::{Digest, NodeId};
use heterotune_protocol::{
    message::{Kind, Step},
    round::{Event, Now},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::node::Node;

/// What bytes are sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// Gossip: updates, and what founders contribute to genesis.
    Contributions,
    /// Gossip: lists, proposals and votes.
    Seals,
    /// Gossip that breaks the rules.
    Lies,
    /// Heads. They are for peers alone: what all nodes say on a timer can't go to all.
    Heads,
    /// Questions to peers.
    Pulls,
    /// Answers to them.
    Answers,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Traffic::Contributions => "contributions",
            Traffic::Seals => "seals",
            Traffic::Lies => "lies",
            Traffic::Heads => "heads",
            Traffic::Pulls => "pulls",
            Traffic::Answers => "answers",
        })
    }
}

/// What one node has seen and sent.
#[derive(Default)]
pub(super) struct Record {
    pub(super) is_honest: bool,
    /// Sent, lost parcels included.
    pub(super) bytes: BTreeMap<Traffic, u64>,
    accepted: u64,
    refused: BTreeMap<String, u64>,
    conflicts: u64,
    /// Who has said two different things to it.
    contradicted_by: BTreeSet<NodeId>,
    /// When each round was closed first.
    closed_at: BTreeMap<u64, Now>,
    /// The states of the sealed rounds.
    sealed: BTreeMap<u64, Digest>,
    seal_delays_ms: Vec<u64>,
    /// It has told two states of one sealed round.
    contradicts_itself: bool,
}

impl Record {
    pub(super) fn new(is_honest: bool) -> Self {
        Self { is_honest, ..Self::default() }
    }

    pub(super) fn take(&mut self, event: Event, now: Now) {
        match event {
            Event::Received { kind: Kind::Update, .. } | Event::Published { kind: Kind::Update, .. } => {
                self.accepted += 1;
            }
            Event::Refused { reason, .. } => {
                let words = reason.split(':').next().unwrap_or_default();
                *self.refused.entry(words.into()).or_default() += 1;
            }
            Event::Conflict { author, .. } => {
                self.conflicts += 1;
                self.contradicted_by.insert(author);
            }
            Event::RoundClosed { round, .. } => {
                self.closed_at.entry(round).or_insert(now);
            }
            Event::Sealed { round, state, .. } => match self.sealed.insert(round, state) {
                Some(before) => self.contradicts_itself |= before != state,
                None => {
                    let closed_at = self.closed_at.get(&round).copied().unwrap_or(now);
                    self.seal_delays_ms.push(now - closed_at);
                }
            },
            _ => {}
        }
    }

    /// The last sealed round.
    pub(super) fn sealed(&self) -> u64 {
        self.sealed.last_key_value().map_or(0, |(round, _)| *round)
    }
}

/// The last round that a node has closed.
pub(super) fn closed(node: &Node) -> u64 {
    node.state().map_or(0, |state| match state.step() {
        Step::Round(open) => open - 1,
        Step::Kernels | Step::Statistics => 0,
    })
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Nodes, newcomers included.
    pub nodes: usize,
    /// Members that came later, by the newest sealed state of an honest node that is up, and how many of them have
    /// contributed to it.
    pub enrolled: usize,
    /// See `enrolled`.
    pub contributing: usize,
    /// Rounds that every honest node that is up at the end has closed.
    pub rounds_done: u64,
    /// Rounds that each of them has seen sealed.
    pub rounds_sealed: u64,
    /// Honest nodes that hold another state of some sealed round than most.
    pub diverged: usize,
    /// Honest nodes that have said two different things in one step.
    pub perjured: usize,
    /// Updates that nodes took in, their own included, over all nodes.
    pub accepted: u64,
    /// Messages that nodes refused, over all nodes, by the reason.
    pub refused: BTreeMap<String, u64>,
    /// Times that an honest node held two different things by one author.
    pub conflicts: u64,
    /// Bytes that a node has sent, in the mean.
    pub bytes_per_node: u64,
    /// Those, by what they were sent for.
    pub bytes_by_traffic: BTreeMap<Traffic, u64>,
    /// The same, for each update that it took in.
    pub bytes_per_node_per_accepted_update: u64,
    /// From closing a round to its seal, at one node: 0 where the seal came first.
    pub seal_delay_ms: Percentiles,
    /// The time that the computation took.
    pub wall_s: f64,
}

/// How long something took: half of the times, and nearly all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: u64,
    /// Exceeded by one of a hundred.
    pub p99: u64,
}

impl Percentiles {
    fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let at = |percent: usize| values.get((values.len() * percent / 100).min(values.len().saturating_sub(1)));
        Self { p50: at(50).copied().unwrap_or(0), p99: at(99).copied().unwrap_or(0) }
    }
}

impl Report {
    pub(super) fn of<'a>(nodes: impl Iterator<Item = &'a Node> + Clone, wall_s: f64) -> Self {
        let records = || nodes.clone().map(|node| &node.record);
        let honest = || records().filter(|record| record.is_honest);
        let up = || nodes.clone().filter(|node| node.record.is_honest && node.state().is_some());
        let mut refused = BTreeMap::<String, u64>::new();
        for (reason, count) in records().flat_map(|record| &record.refused) {
            *refused.entry(reason.clone()).or_default() += count;
        }
        let count = records().count();
        let newest = up().filter_map(|node| node.state()?.sealed()).max_by_key(|state| state.round);
        let (mut enrolled, mut contributing) = (0, 0);
        if let Some(state) = newest {
            // The screen remembers whoever has contributed.
            enrolled = state.enrolled.len();
            contributing = state.enrolled.keys().filter(|member| state.memory.0.contains_key(member)).count();
        }
        let mut traffic = BTreeMap::<Traffic, u64>::new();
        for (what, bytes) in records().flat_map(|record| &record.bytes) {
            *traffic.entry(*what).or_default() += bytes;
        }
        let sent: u64 = traffic.values().sum();
        let accepted: u64 = records().map(|record| record.accepted).sum();
        let states = common_states(honest());
        let contradictory: BTreeSet<_> = honest().flat_map(|record| &record.contradicted_by).collect();
        let perjured = |node: &&Node| node.record.is_honest && contradictory.contains(&node.id());
        let differs = |record: &&Record| {
            record.contradicts_itself || record.sealed.iter().any(|(round, state)| states.get(round) != Some(state))
        };
        Self {
            nodes: count,
            enrolled,
            contributing,
            rounds_done: up().map(closed).min().unwrap_or(0),
            rounds_sealed: up().map(|node| node.record.sealed()).min().unwrap_or(0),
            diverged: honest().filter(differs).count(),
            perjured: nodes.clone().filter(perjured).count(),
            accepted,
            refused,
            conflicts: honest().map(|record| record.conflicts).sum(),
            bytes_per_node: sent / count.max(1) as u64,
            bytes_by_traffic: traffic.into_iter().map(|(what, bytes)| (what, bytes / count.max(1) as u64)).collect(),
            bytes_per_node_per_accepted_update: sent / accepted.max(1),
            seal_delay_ms: Percentiles::of(honest().flat_map(|record| &record.seal_delays_ms).copied().collect()),
            wall_s,
        }
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        // Only maps with other keys than strings, and failing writers, can't be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The state that most hold of each sealed round; of two held by as many, the smaller digest.
fn common_states<'a>(records: impl Iterator<Item = &'a Record>) -> BTreeMap<u64, Digest> {
    let mut held = BTreeMap::<u64, BTreeMap<Digest, usize>>::new();
    for (round, state) in records.flat_map(|record| &record.sealed) {
        *held.entry(*round).or_default().entry(*state).or_default() += 1;
    }
    let most = |states: BTreeMap<Digest, usize>| {
        states.into_iter().rev().max_by_key(|(_, count)| *count).map_or(Digest::ZERO, |(state, _)| state)
    };
    held.into_iter().map(|(round, states)| (round, most(states))).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![
            ("nodes", thousands(self.nodes as u64)),
            ("rounds done", thousands(self.rounds_done)),
            ("rounds sealed", thousands(self.rounds_sealed)),
            ("newcomers enrolled", thousands(self.enrolled as u64)),
            ("  that have contributed", thousands(self.contributing as u64)),
            ("nodes diverged", thousands(self.diverged as u64)),
            ("nodes perjured", thousands(self.perjured as u64)),
            ("updates accepted", thousands(self.accepted)),
            ("conflicts seen", thousands(self.conflicts)),
            ("sent per node", bytes(self.bytes_per_node as f64)),
        ];
        let traffic: Vec<_> =
            self.bytes_by_traffic.iter().map(|(what, sent)| (format!("  {what}"), bytes(*sent as f64))).collect();
        rows.extend(traffic.iter().map(|(what, sent)| (what.as_str(), sent.clone())));
        rows.extend([
            ("  per update", bytes(self.bytes_per_node_per_accepted_update as f64)),
            ("seal after closing, median", format!("{} ms", thousands(self.seal_delay_ms.p50))),
            ("  99th percentile", format!("{} ms", thousands(self.seal_delay_ms.p99))),
            ("computed in", format!("{:.1} s", self.wall_s)),
        ]);
        let refused: Vec<_> = self.refused.iter().map(|(reason, count)| (reason.as_str(), thousands(*count))).collect();
        if !refused.is_empty() {
            rows.push(("messages refused", String::new()));
        }
        let cells = |(name, value): &(&str, String)| vec![(*name).to_owned(), value.clone()];
        let refused = refused.iter().map(|(reason, count)| vec![format!("  {reason}"), count.clone()]);
        let rows: Vec<_> = rows.iter().map(cells).chain(refused).collect();
        f.write_str(align(&rows, 1).trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(round: u64, state: &str) -> Event {
        let state = Digest::of(state, &[]);
        Event::Sealed { round, view: 0, updates: 1, conflicts: Vec::new(), state }
    }

    fn record(events: Vec<(Now, Event)>) -> Record {
        let mut record = Record::new(true);
        events.into_iter().for_each(|(now, event)| record.take(event, now));
        record
    }

    #[test]
    fn the_majority_is_the_measure() {
        let agreeing = [record(vec![(5, sealed(1, "a")), (9, sealed(2, "b"))]), record(vec![(7, sealed(1, "a"))])];
        let other = record(vec![(5, sealed(1, "c"))]);
        let states = common_states(agreeing.iter().chain([&other]));
        assert_eq!(states, BTreeMap::from([(1, Digest::of("a", &[])), (2, Digest::of("b", &[]))]));
        assert_eq!(agreeing[0].sealed(), 2);
        assert!(!agreeing[0].contradicts_itself);
        assert!(record(vec![(5, sealed(1, "a")), (6, sealed(1, "b"))]).contradicts_itself);
    }

    #[test]
    fn percentiles() {
        assert_eq!(Percentiles::of((1..=100).rev().collect()), Percentiles { p50: 51, p99: 100 });
        assert_eq!(Percentiles::of(vec![7]), Percentiles { p50: 7, p99: 7 });
        assert_eq!(Percentiles::of(vec![]), Percentiles::default());
    }

    #[test]
    fn refusals_are_counted_by_their_leading_words() {
        let refused = |reason: &str| {
            let from = heterotune_crypto::Identity::from_seed(0, "a").id();
            (0, Event::Refused { reason: reason.into(), from, bytes: 1 })
        };
        let record = record(vec![refused("not a member: x"), refused("not a member: y"), refused("forged: z")]);
        assert_eq!(record.refused, BTreeMap::from([("forged".into(), 1), ("not a member".into(), 2)]));
    }
}
