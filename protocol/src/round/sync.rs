//! Anti-entropy: heads tell where everybody is, pulls fetch what gossip did not bring. Delivery never depends on
//! gossip alone.

use super::{Event, Now, Output, State};
use crate::{
    limits,
    message::{Batch, Content, Head, Message, Pull, Step},
    verdict::{Reason, Verdict},
};
use heterotune_crypto::NodeId;
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, BTreeSet};

/// Ids in a pull or a batch: a message of every member, and a second one as the proof of a conflict.
const IDS_MAX: usize = 2 * limits::FOUNDERS_MAX;

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
    /// Until then nobody is asked at once: the last answer brought nothing.
    quiet_until: Now,
    /// When the next pull is due though nobody is known to be ahead, and how long after it the next.
    pull_at: Now,
    pull_interval_ms: u64,
    head_at: Now,
    /// How many closed rounds have been compared with a peer in a step.
    comparisons: BTreeMap<NodeId, (Step, usize)>,
    /// Goes round the closed rounds that are compared on the timer.
    compared: usize,
    /// The open round of the network, as far as answers have told.
    network_round: u64,
    /// Rounds that this node closed by itself, to be compared with the network's before it goes on: the network has
    /// gone on without it for longer than the horizon. None while it has not.
    reconcile: Option<BTreeSet<u64>>,
    /// The step in which it was told that a peer's state differs; once is enough.
    told_apart: Option<Step>,
}

impl Sync {
    pub(super) fn entered(&mut self, now: Now) {
        self.pull_interval_ms = limits::PULL_INTERVAL_MS_MIN;
        self.pull_at = now.saturating_add(self.pull_interval_ms);
        self.quiet_until = now;
    }

    /// Genesis has changed what heads mean.
    pub(super) fn forget_heads(&mut self) {
        self.heads.clear();
    }

    pub(super) fn head(&self, member: &NodeId) -> Option<&Head> {
        self.heads.get(member).map(|(_, head)| head)
    }

    pub(super) fn unanswered(&mut self, from: &NodeId, now: Now) {
        self.pulls.remove(from);
        self.quiet_until = now.saturating_add(limits::PULL_INTERVAL_MS_MIN);
    }

    /// Whether the network has gone on for longer than the horizon: then the open round closes as it has closed there.
    pub(super) fn is_reconciling(&self) -> bool {
        self.reconcile.is_some()
    }

    /// Whoever claimed that has had its time to prove it.
    pub(super) fn stop_reconciling(&mut self) {
        self.reconcile = None;
    }

    /// Connected members that say they have closed `step`.
    pub(super) fn ahead_of(&self, step: Step) -> Vec<NodeId> {
        let ahead = |peer: &&NodeId| self.head(peer).is_some_and(|head| head.step > step);
        self.connected.iter().filter(ahead).copied().collect()
    }

    /// The next of `candidates` after the one asked last, in a circle.
    fn next_after_last(&self, candidates: &[NodeId]) -> Option<NodeId> {
        let after = candidates.iter().find(|peer| self.asked_last.is_some_and(|last| **peer > last));
        after.or(candidates.first()).copied()
    }
}

impl State {
    /// Whether the open step is closed for the network: so many members say so that not all of them can lie.
    pub(super) fn network_is_ahead(&self) -> bool {
        self.sync.ahead_of(self.step).len() > (self.context.charter.founders.len() - 1) / 3
    }

    /// Whether a round's updates no longer count for those who are ahead.
    pub(super) fn is_beyond_horizon(&self, round: u64) -> bool {
        round.saturating_add(u64::from(self.context.charter.rounds.horizon)) < self.sync.network_round
    }

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
        let comparable = head.step == self.step && self.is_settled() && self.step.round() > 0;
        if comparable && head.state != self.state_digest && self.sync.told_apart != Some(self.step) {
            self.sync.told_apart = Some(self.step);
            out.push(Output::Tell(Event::StateDiffers { peer: author, round: self.step.round() }));
        }
        Ok(())
    }

    /// Tells the network where this node is.
    pub(super) fn say_head(&mut self, now: Now, out: &mut Vec<Output>) {
        self.sync.head_at = now;
        let head = Head { step: self.step, closed: self.closed_digest(), state: self.state_digest };
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

    /// What peers are known to hold and this node lacks is asked for at once: closed rounds that differ, each once a
    /// step and peer; and the open step, while the network is ahead.
    pub(super) fn pull_if_behind(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.computing || !self.sync.pulls.is_empty() || now < self.sync.quiet_until {
            return;
        }
        if let Some(round) = self.sync.reconcile.as_ref().and_then(|rounds| rounds.first().copied()) {
            let connected: Vec<_> = self.sync.connected.iter().copied().collect();
            if let Some(peer) = self.sync.next_after_last(&connected) {
                self.pull(peer, Step::Round(round), now, out);
            }
        } else if let Some((peer, round)) = self.next_comparison() {
            self.pull(peer, Step::Round(round), now, out);
        } else if !self.released {
            let ahead = if self.unsure {
                self.sync.connected.iter().copied().collect()
            } else if self.network_is_ahead() {
                self.sync.ahead_of(self.step)
            } else {
                Vec::new()
            };
            if let Some(peer) = self.sync.next_after_last(&ahead) {
                self.pull(peer, self.step, now, out);
            }
        }
    }

    /// A peer in the same step whose closed sets differ, and the next of those rounds to compare with it.
    fn next_comparison(&mut self) -> Option<(NodeId, u64)> {
        let (step, closed) = (self.step, self.closed_digest());
        let past: Vec<_> = self.open_past().collect();
        let heads = self.sync.connected.iter().filter_map(|peer| Some((*peer, self.sync.head(peer)?)));
        let differing: Vec<_> =
            heads.filter(|(_, head)| head.step == step && head.closed != closed).map(|(peer, _)| peer).collect();
        differing.into_iter().find_map(|peer| {
            let (compared_in, times) = self.sync.comparisons.entry(peer).or_insert((step, 0));
            if *compared_in != step {
                (*compared_in, *times) = (step, 0);
            }
            let round = *past.get(*times)?;
            *times += 1;
            Some((peer, round))
        })
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
                let step = self.step_to_ask_for(&peer);
                self.pull(peer, step, now, out);
            }
        }
    }

    /// What to ask a peer for on the timer: where its closed sets differ from ours, one closed round after the other,
    /// else the open step.
    fn step_to_ask_for(&mut self, peer: &NodeId) -> Step {
        let closed = self.closed_digest();
        let differs = self.sync.head(peer).is_some_and(|head| head.step == self.step && head.closed != closed);
        if !differs && !self.is_finished() {
            return self.step;
        }
        self.sync.compared = self.sync.compared.wrapping_add(1);
        let past: Vec<_> = self.open_past().collect();
        past.get(self.sync.compared % past.len().max(1)).map_or(self.step, |round| Step::Round(*round))
    }

    /// What we hold of a step and the asking peer lacks, as much as fits.
    pub(super) fn answer(&self, pull: &Pull) -> Batch {
        let set = self.ledger.get(pull.step);
        let ids = set.into_iter().flat_map(|set| set.messages()).map(|message| message.digest()).collect();
        let mut batch = Batch { step: pull.step, open: self.step, ids, more: false, messages: Vec::new() };
        let have: BTreeSet<_> = pull.have.iter().take(IDS_MAX).collect();
        // An id takes 34 bytes, a byte string's header five.
        let mut room = limits::RESPONSE_BYTES_MAX - limits::ENVELOPE_BYTES_MAX - 34 * IDS_MAX;
        for message in set.into_iter().flat_map(|set| set.messages()) {
            if have.contains(&message.digest()) {
                continue;
            }
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
        self.sync.pulls.remove(&from);
        let (mut new, mut wrong) = (false, false);
        for bytes in batch.messages.iter().take(IDS_MAX) {
            match self.receive(from, bytes, out) {
                Verdict::Accept => new = true,
                Verdict::Reject(_) => wrong = true,
                Verdict::Ignore(_) => {}
            }
        }
        if !new {
            self.sync.quiet_until = now.saturating_add(limits::PULL_INTERVAL_MS_MIN);
        }
        if wrong {
            return;
        }
        self.sync.network_round = self.sync.network_round.max(batch.open.round());
        if batch.more {
            if new {
                self.pull(from, batch.step, now, out);
            }
        } else if batch.step < self.step {
            self.reconciled(&batch, out);
        } else if batch.step > self.step {
            // This node has gone on meanwhile, and so knows better.
        } else if batch.open > batch.step {
            self.sync.quiet_until = now;
            self.closed_elsewhere(from, &batch, now, out);
        } else {
            self.sync.reconcile = None;
            self.caught_up(out);
        }
    }

    /// A peer has closed the open step, and we hold all that it held.
    fn closed_elsewhere(&mut self, from: NodeId, batch: &Batch, now: Now, out: &mut Vec<Output>) {
        if !self.unsure {
            (self.unsure, self.unsure_since) = (true, now);
        }
        if let Step::Round(round) = batch.step {
            if self.is_beyond_horizon(round) {
                let past = self.open_past().collect();
                if !self.sync.reconcile.get_or_insert(past).is_empty() {
                    return;
                }
                self.adopt(batch, out);
            }
            let open = batch.open.round();
            if open > round + limits::ROUNDS_KEPT && self.ledger.set(batch.step).delivered() < self.quorum() {
                out.push(Output::Tell(Event::TooFarBehind { peer: from, round, open }));
            }
        }
        self.released = true;
    }

    /// A peer has answered for a round that is closed here.
    fn reconciled(&mut self, batch: &Batch, out: &mut Vec<Output>) {
        let round = batch.step.round();
        let waiting = self.sync.reconcile.as_ref().is_some_and(|rounds| rounds.contains(&round));
        if waiting && self.is_beyond_horizon(round) && batch.open > batch.step {
            self.adopt(batch, out);
            self.sync.quiet_until = 0;
            if let Some(rounds) = &mut self.sync.reconcile {
                rounds.remove(&round);
            }
        }
    }

    /// Takes a peer's set of a round that the network has closed for good. What we hold and it lacks came too late:
    /// our own update, signed when we were cut off.
    fn adopt(&mut self, batch: &Batch, out: &mut Vec<Output>) {
        let ids: BTreeSet<_> = batch.ids.iter().take(IDS_MAX).collect();
        for message in self.ledger.set(batch.step).retain(|message| ids.contains(&message.digest())) {
            self.mark_dirty(batch.step);
            out.push(Output::Forget(message));
        }
    }
}
