//! Anti-entropy: heads tell where everybody is, pulls fetch what gossip did not bring. Delivery never depends on
//! gossip alone.

use super::{Event, Now, Output, State};
use crate::{
    limits,
    message::{Batch, Content, Head, Message, Pull, Step},
    verdict::{Reason, Verdict},
};
use heterotune_crypto::{Digest, NodeId};
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, BTreeSet};

/// What a node knows of its peers, and what it has asked them.
#[derive(Debug, Default)]
pub(super) struct Sync {
    connected: BTreeSet<NodeId>,
    /// The newest head of each member, and its sequence number.
    heads: BTreeMap<NodeId, (u64, Head)>,
    /// Pulls under way: whom, and since when.
    pulls: BTreeMap<NodeId, Now>,
    /// The peer asked last, so that the next pull goes to the next one.
    asked_last: Option<NodeId>,
    /// When the next pull is due though nobody is known to be ahead, and how long after it the next.
    pull_at: Now,
    pull_interval_ms: u64,
    head_at: Now,
    /// Goes round the closed rounds that are compared with a peer's.
    compared: usize,
    /// How often a peer's closed rounds have been compared in a step.
    comparisons: BTreeMap<NodeId, (Step, u64)>,
    /// The step in which it was told that a peer's state differs; once is enough.
    told_apart: Option<Step>,
}

impl Sync {
    pub(super) fn entered(&mut self, now: Now) {
        self.pull_interval_ms = limits::PULL_INTERVAL_MS_MIN;
        self.pull_at = now.saturating_add(self.pull_interval_ms);
    }

    pub(super) fn head(&self, member: &NodeId) -> Option<&Head> {
        self.heads.get(member).map(|(_, head)| head)
    }

    pub(super) fn unanswered(&mut self, from: &NodeId) {
        self.pulls.remove(from);
    }

    /// Whether a connected member has closed `step`.
    pub(super) fn is_behind(&self, step: Step) -> bool {
        self.ahead_of(step).next().is_some()
    }

    fn ahead_of(&self, step: Step) -> impl Iterator<Item = &NodeId> {
        self.connected.iter().filter(move |peer| self.head(peer).is_some_and(|head| head.step > step))
    }

    /// Whether a peer's closed rounds have been compared less than once each in this step.
    fn may_compare(&self, peer: &NodeId, step: Step) -> bool {
        self.comparisons.get(peer).is_none_or(|(compared, times)| *compared != step || *times < limits::HORIZON_MAX)
    }

    /// The next of `candidates` after the one asked last, in a circle.
    fn next_after_last(&self, candidates: &[NodeId]) -> Option<NodeId> {
        let after = candidates.iter().find(|peer| self.asked_last.is_some_and(|last| **peer > last));
        after.or(candidates.first()).copied()
    }
}

impl State {
    pub(super) fn connected(&mut self, peer: NodeId, now: Now, out: &mut Vec<Output>) {
        if !self.members().contains(&peer) || peer == self.identity.id() || !self.sync.connected.insert(peer) {
            return;
        }
        // What was gossiped before we met comes by a pull.
        if !self.is_finished() {
            self.pull(peer, self.step, now, out);
        }
    }

    pub(super) fn disconnected(&mut self, peer: &NodeId) {
        self.sync.connected.remove(peer);
        self.sync.pulls.remove(peer);
    }

    pub(super) fn receive_head(&mut self, message: &Message, out: &mut Vec<Output>) -> Result<(), Reason> {
        let author = message.signed.author();
        let Content::Head(head) = message.signed.value() else { return Ok(()) };
        self.check_head_genesis(head.step, message.genesis)?;
        if self.sync.heads.get(&author).is_some_and(|(sequence, _)| *sequence >= message.sequence) {
            return Err(Reason::Duplicate);
        }
        self.sync.heads.insert(author, (message.sequence, head.clone()));
        let Some(checkpoint) = self.checkpoint() else { return Ok(()) };
        if head.step == self.step && head.state != checkpoint.digest() && self.sync.told_apart != Some(self.step) {
            self.sync.told_apart = Some(self.step);
            out.push(Output::Tell(Event::StateDiffers { peer: author, round: self.step.round() }));
        }
        Ok(())
    }

    /// Tells the network where this node is.
    pub(super) fn say_head(&mut self, now: Now, out: &mut Vec<Output>) {
        self.sync.head_at = now;
        let state = self.checkpoint().map_or(Digest::ZERO, |checkpoint| checkpoint.digest());
        let head = Head { step: self.step, closed: self.closed_digest(), state };
        if let Some(message) = self.say(self.step.round(), Content::Head(head), now, out) {
            out.push(Output::Publish(message));
        }
    }

    fn pull(&mut self, to: NodeId, step: Step, now: Now, out: &mut Vec<Output>) {
        if self.sync.pulls.len() >= limits::PULLS_MAX || self.sync.pulls.contains_key(&to) {
            return;
        }
        self.sync.pulls.insert(to, now);
        self.sync.asked_last = Some(to);
        let have = self.ledger.set(step).messages().map(|message| message.digest()).collect();
        out.push(Output::Pull { to, pull: Pull { step, have } });
    }

    /// While a member is known to be ahead, what it closed is fetched from it at once; and where its closed rounds
    /// differ from ours, they are compared, each once a step and peer.
    pub(super) fn pull_if_behind(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.computing || !self.sync.pulls.is_empty() {
            return;
        }
        let differing = self
            .sync
            .connected
            .iter()
            .copied()
            .find(|peer| self.differs(peer) && self.sync.may_compare(peer, self.step));
        if let Some(peer) = differing {
            let step = self.step_to_compare(&peer);
            self.pull(peer, step, now, out);
        }
        if self.released {
            return;
        }
        let ahead: Vec<_> = if self.unsure {
            self.sync.connected.iter().copied().collect()
        } else {
            self.sync.ahead_of(self.step).copied().collect()
        };
        if let Some(peer) = self.sync.next_after_last(&ahead) {
            self.pull(peer, self.step, now, out);
        }
    }

    /// On every tick: forgets pulls that nobody answers, asks the next peer when a step takes long, repeats the head.
    pub(super) fn keep_in_step(&mut self, now: Now, out: &mut Vec<Output>) {
        self.sync.pulls.retain(|_, since| now < since.saturating_add(limits::PULL_TIMEOUT_MS));
        if now >= self.sync.head_at.saturating_add(limits::HEAD_INTERVAL_MS) {
            self.say_head(now, out);
        }
        if now >= self.sync.pull_at {
            self.sync.pull_interval_ms = (2 * self.sync.pull_interval_ms).min(limits::HEAD_INTERVAL_MS);
            self.sync.pull_at = now.saturating_add(self.sync.pull_interval_ms);
            let peers: Vec<_> = self.sync.connected.iter().copied().collect();
            if let Some(peer) = self.sync.next_after_last(&peers) {
                let step = self.step_to_compare(&peer);
                self.pull(peer, step, now, out);
            }
        }
    }

    /// Whether a peer in the same step holds other sets of the closed rounds.
    fn differs(&self, peer: &NodeId) -> bool {
        self.sync.head(peer).is_some_and(|head| head.step == self.step && head.closed != self.closed_digest())
    }

    /// What to ask a peer for: where its closed sets differ from ours, one closed round after the other, else the open
    /// step.
    fn step_to_compare(&mut self, peer: &NodeId) -> Step {
        let differs =
            self.sync.head(peer).is_some_and(|head| head.step == self.step && head.closed != self.closed_digest());
        if !differs && !self.is_finished() {
            return self.step;
        }
        self.sync.compared = self.sync.compared.wrapping_add(1);
        let past: Vec<_> = self.open_past().collect();
        past.get(self.sync.compared % past.len().max(1)).map_or(self.step, |round| Step::Round(*round))
    }

    /// What we hold of a step and the asking peer lacks, as much as fits.
    pub(super) fn answer(&self, pull: &Pull) -> Batch {
        let mut batch = Batch { step: pull.step, closed: pull.step < self.step, more: false, messages: Vec::new() };
        let have: BTreeSet<_> = pull.have.iter().take(2 * limits::FOUNDERS_MAX).collect();
        let mut room = limits::RESPONSE_BYTES_MAX - limits::ENVELOPE_BYTES_MAX;
        for message in self.ledger.get(pull.step).into_iter().flat_map(|set| set.messages()) {
            if have.contains(&message.digest()) {
                continue;
            }
            // Five bytes of CBOR header to a byte string.
            match room.checked_sub(message.bytes.len() + 5) {
                Some(left) => room = left,
                None => {
                    batch.more = true;
                    break;
                }
            }
            batch.messages.push(ByteBuf::from(message.bytes.clone()));
        }
        batch
    }

    pub(super) fn answered(&mut self, from: NodeId, batch: Batch, now: Now, out: &mut Vec<Output>) {
        if self.sync.pulls.remove(&from).is_none() {
            return; // Nobody asked.
        }
        let mut wrong = false;
        for bytes in batch.messages.iter().take(2 * limits::FOUNDERS_MAX) {
            wrong |= matches!(self.receive(from, bytes, out), Verdict::Reject(_));
        }
        if batch.step != self.step || wrong {
            return;
        }
        if batch.more {
            self.pull(from, self.step, now, out);
        } else if batch.closed {
            self.released = true;
            self.unsure = true;
        } else {
            self.caught_up(out);
        }
    }
}
