//! Anti-entropy: heads tell neighbours where everybody is, pulls fetch what gossip did not bring. Delivery never
//! depends on gossip alone.

use super::{Event, Now, Output, State};
use crate::{
    limits,
    message::{Batch, Content, Head, Message, Pull, Step},
    seal::quorum,
    verdict::{Reason, Verdict},
};
use heterotune_crypto::{Digest, Hasher, NodeId};
use serde_bytes::ByteBuf;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a node knows of its peers, and what it has asked them.
#[derive(Debug, Default)]
pub(super) struct Sync {
    connected: BTreeSet<NodeId>,
    /// Peers that are no members, as far as this node knows. They are asked on the timer alone: who has been away, or is
    /// new, may know nobody else, and what is sealed anybody may tell.
    strangers: BTreeSet<NodeId>,
    /// The newest head of each neighbour.
    heads: BTreeMap<NodeId, Heard>,
    /// Pulls under way: whom, and since when.
    pulls: BTreeMap<NodeId, Now>,
    /// The peer asked last, so that the next pull goes to the next one.
    asked_last: Option<NodeId>,
    /// The same for pulls on the timer, so that whoever is asked in between decides nothing about them.
    asked_on_time: Option<NodeId>,
    /// Until then nobody is asked at once: the last answer brought nothing.
    quiet_until: Now,
    /// When the next pull is due though nothing is known to be missing, and how long after it the next.
    pull_at: Now,
    pull_interval_ms: u64,
    head_at: Now,
    /// How many unsealed rounds have been compared with a peer in a step.
    comparisons: BTreeMap<NodeId, (Step, usize)>,
    /// Goes round the unsealed steps that a peer is asked for on the timer.
    turns: BTreeMap<NodeId, u64>,
    /// The steps in which it was told that a peer's state differs; once is enough.
    told_apart: Option<Step>,
    recall: Option<Recall>,
}

/// A head, its author's open step and running number, and when it was heard.
#[derive(Debug)]
struct Heard {
    sequence: u64,
    at: Now,
    step: Step,
    head: Head,
}

/// A node that starts again first learns what it has said before: its disk may be an old one, and who says two things
/// in one step has lied. It signs nothing before enough peers have answered for every step that is not sealed, up to
/// the last that they may hold anything of.
#[derive(Debug, Default)]
struct Recall {
    /// The next step to ask a peer for.
    next: BTreeMap<NodeId, Step>,
    done: BTreeSet<NodeId>,
}

impl Sync {
    /// `again`: whether the node has run before.
    pub(super) fn new(again: bool) -> Self {
        Self { recall: again.then(Recall::default), ..Self::default() }
    }

    /// Whether the node knows what it has said before.
    pub(super) fn may_speak(&self) -> bool {
        self.recall.is_none()
    }

    /// Whether as many pulls are under way as may be.
    fn is_busy(&self) -> bool {
        self.pulls.len() >= if self.may_speak() { limits::PULLS_MAX } else { limits::RECALLS_MAX }
    }

    pub(super) fn entered(&mut self, now: Now) {
        self.pull_interval_ms = limits::PULL_INTERVAL_MS_MIN;
        self.pull_at = now.saturating_add(self.pull_interval_ms);
        self.quiet_until = now;
    }

    /// There is something to ask for.
    pub(super) fn hurry(&mut self, now: Now) {
        self.pull_at = self.pull_at.min(now);
        self.quiet_until = self.quiet_until.min(now);
    }

    /// Genesis has changed what heads mean.
    pub(super) fn forget_heads(&mut self) {
        self.heads.clear();
    }

    pub(super) fn head(&self, member: &NodeId) -> Option<(Step, &Head)> {
        self.heads.get(member).map(|heard| (heard.step, &heard.head))
    }

    pub(super) fn connected(&self) -> impl Iterator<Item = NodeId> {
        self.connected.iter().copied()
    }

    pub(super) fn strangers(&self) -> impl Iterator<Item = NodeId> {
        self.strangers.iter().copied()
    }

    pub(super) fn disconnected(&mut self, peer: &NodeId) {
        self.connected.remove(peer);
        self.strangers.remove(peer);
        self.pulls.remove(peer);
        self.comparisons.remove(peer);
        self.turns.remove(peer);
    }

    pub(super) fn unanswered(&mut self, from: &NodeId, now: Now) {
        self.pulls.remove(from);
        self.quiet_until = now.saturating_add(limits::PULL_INTERVAL_MS_MIN);
    }

    /// Connected members whose heads say this.
    fn that(&self, say: impl Fn(Step, &Head) -> bool) -> Vec<NodeId> {
        self.connected().filter(|peer| self.head(peer).is_some_and(|(step, head)| say(step, head))).collect()
    }

    /// Whether most of the neighbours say this. Some of them may lie, so nothing but haste may depend on it.
    fn most(&self, say: impl Fn(Step, &Head) -> bool) -> bool {
        2 * self.that(say).len() > self.connected.len()
    }

    /// The next of `candidates` after the one asked last, in a circle.
    fn next_after_last(&self, candidates: &[NodeId]) -> Option<NodeId> {
        self.next_after(self.asked_last, candidates)
    }

    fn next_after(&self, last: Option<NodeId>, candidates: &[NodeId]) -> Option<NodeId> {
        let free = || candidates.iter().filter(|peer| !self.pulls.contains_key(peer));
        let after = free().find(|peer| last.is_some_and(|last| **peer > last));
        after.or(free().next()).copied()
    }
}

impl State {
    /// Whether most neighbours have closed the open step.
    pub(super) fn network_is_ahead(&self) -> bool {
        self.sync.most(|step, _| step > self.step)
    }

    /// Whether the open step is only to be caught up with: most neighbours have sealed it.
    pub(super) fn is_behind(&self) -> bool {
        self.sync.most(|_, head| head.unsealed > self.step)
    }

    pub(super) fn connected(&mut self, peer: NodeId, now: Now, out: &mut Vec<Output>) {
        if peer == self.me {
            return;
        }
        if !self.is_member(&peer) {
            if self.sync.strangers.len() < limits::HEADS_MAX {
                self.sync.strangers.insert(peer);
            }
            return;
        }
        self.sync.strangers.remove(&peer);
        if !self.sync.connected.insert(peer) {
            return;
        }
        // What was gossiped before we met comes by a pull.
        if !self.is_finished() {
            self.pull(peer, self.unsealed, now, out);
        }
    }

    pub(super) fn receive_head(&mut self, message: &Message, now: Now, out: &mut Vec<Output>) -> Result<(), Reason> {
        let author = message.author();
        let Content::Head(head) = message.signed.value() else { return Ok(()) };
        let heads = &mut self.sync.heads;
        if heads.len() >= limits::HEADS_MAX && !heads.contains_key(&author) && !self.sync.connected.contains(&author) {
            return Err(Reason::Relayed);
        }
        let is_fresh = |heard: &Heard| now < heard.at.saturating_add(limits::HEAD_FRESH_MS);
        let is_newer = |heard: &Heard| heard.sequence >= message.sequence && is_fresh(heard);
        if self.sync.heads.get(&author).is_some_and(is_newer) {
            return Err(Reason::Duplicate);
        }
        let comparable = head.unsealed == self.unsealed && self.unsealed.round() > 0;
        if comparable && head.state != self.sealed_digest() && self.sync.told_apart != Some(self.unsealed) {
            self.sync.told_apart = Some(self.unsealed);
            out.push(Output::Tell(Event::StateDiffers { peer: author, round: self.unsealed.round() }));
        }
        if head.unsealed > self.unsealed {
            self.sync.quiet_until = self.sync.quiet_until.min(now);
        }
        let (sequence, step, head) = (message.sequence, message.step, head.clone());
        self.sync.heads.insert(author, Heard { sequence, at: now, step, head });
        Ok(())
    }

    /// Tells the neighbours where this node is. Who is no member yet has no head: it says that it wants to be one.
    pub(super) fn say_head(&mut self, now: Now, out: &mut Vec<Output>) {
        self.sync.head_at = now;
        if !self.is_member(&self.me) {
            return self.say_enrolment(now, out);
        }
        let head = Head { unsealed: self.unsealed, sets: self.closed_sets(), state: self.sealed_digest() };
        if let Some(message) = self.say(self.step, Content::Head(head), now, out) {
            out.push(Output::Publish(message));
        }
    }

    /// The closed rounds that are not sealed, newest first.
    fn closed_rounds(&self) -> Vec<u64> {
        (self.unsealed.round().max(1)..self.step.round()).rev().collect()
    }

    /// The digest of the sets of those rounds, for heads.
    fn closed_sets(&self) -> Digest {
        let mut hasher = Hasher::new("heterotune 2026 closed sets");
        for set in self.closed_rounds().into_iter().filter_map(|round| self.ledger.get(Step::Round(round))) {
            hasher.part(set.digest().as_bytes());
        }
        hasher.finish()
    }

    fn pull(&mut self, to: NodeId, step: Step, now: Now, out: &mut Vec<Output>) {
        if self.sync.is_busy() || self.sync.pulls.contains_key(&to) {
            return;
        }
        self.sync.pulls.insert(to, now);
        self.sync.asked_last = Some(to);
        let mut have: Vec<_> = self.ledger.get(step).map(|set| set.ids()).unwrap_or_default();
        let mut want = Vec::new();
        if step == self.unsealed {
            have.extend(self.sealing.said().chain(self.sealing.laid_aside()).map(|message| message.id()));
            want.extend(self.sealing.wanted().take(limits::SEALED_IDS_MAX));
        }
        have.extend(self.fetches.announced(step).map(|message| message.id()));
        have.truncate(limits::PULL_IDS_MAX);
        out.push(Output::Pull { to, pull: Pull { step, have, want } });
    }

    /// What peers are known to hold and this node lacks is asked for at once.
    pub(super) fn pull_if_behind(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.is_finished() || self.sync.is_busy() {
            return;
        }
        if let Some((sealer, step)) = self.next_to_recall() {
            return self.pull(sealer, step, now, out);
        }
        if now < self.sync.quiet_until || !self.sync.pulls.is_empty() {
            return;
        }
        // What is wanted anybody may hold; who only claims to be ahead does not come before the others.
        let fetched: BTreeSet<_> = self.fetches.announced(self.unsealed).map(|message| message.id()).collect();
        let ahead = if self.sealing.wanted().any(|id| !fetched.contains(id)) {
            self.sync.connected().collect()
        } else {
            self.sync.that(|_, head| head.unsealed > self.unsealed)
        };
        if let Some(peer) = self.sync.next_after_last(&ahead) {
            self.pull(peer, self.unsealed, now, out);
        } else if let Some((peer, round)) = self.next_comparison() {
            self.pull(peer, Step::Round(round), now, out);
        }
    }

    /// A peer that has yet to say what this node has said before: of a sealer, another sealer.
    fn next_to_recall(&self) -> Option<(NodeId, Step)> {
        let recall = self.sync.recall.as_ref()?;
        let open = |peer: &NodeId| self.can_recall(peer) && !recall.done.contains(peer);
        let open: Vec<_> = self.sync.connected().filter(open).collect();
        let peer = self.sync.next_after_last(&open)?;
        let next = recall.next.get(&peer).copied().unwrap_or(self.unsealed);
        Some((peer, next.max(self.unsealed)))
    }

    fn can_recall(&self, peer: &NodeId) -> bool {
        !self.is_sealer() || self.context.charter.sealers.contains(peer)
    }

    fn recalled(&mut self, from: NodeId, batch: &Batch) {
        let can = self.can_recall(&from);
        // A peer may hold more than it has opened.
        let ahead = batch.open.height().saturating_add(limits::ROUNDS_AHEAD);
        let is_last = batch.step.height() >= ahead || self.is_beyond_the_end(batch.step.next());
        let Some(recall) = &mut self.sync.recall else { return };
        let next = recall.next.get(&from).copied().unwrap_or(self.unsealed).max(self.unsealed);
        if can && batch.step >= next && !batch.more {
            recall.next.insert(from, batch.step.next());
            if is_last {
                recall.done.insert(from);
            }
        }
        self.recall_if_enough();
    }

    /// A sealer needs the word of a quorum, itself included; others that of most of their neighbours.
    fn recall_if_enough(&mut self) {
        let Some(recall) = &self.sync.recall else { return };
        let enough = if self.is_sealer() {
            recall.done.len() + 1 >= quorum(self.context.charter.sealers.len())
        } else {
            2 * recall.done.len() > self.sync.connected.len()
        };
        if enough {
            self.sync.recall = None;
        }
    }

    /// A peer in the same steps whose closed sets differ, and the next of those rounds to compare with it.
    fn next_comparison(&mut self) -> Option<(NodeId, u64)> {
        let rounds = self.closed_rounds();
        if rounds.is_empty() {
            return None;
        }
        let (step, unsealed, sets) = (self.step, self.unsealed, self.closed_sets());
        let differing = self.sync.that(|open, head| open == step && head.unsealed == unsealed && head.sets != sets);
        differing.into_iter().find_map(|peer| {
            let (compared_in, times) = self.sync.comparisons.entry(peer).or_insert((step, 0));
            if *compared_in != step {
                (*compared_in, *times) = (step, 0);
            }
            let round = *rounds.get(*times)?;
            *times += 1;
            Some((peer, round))
        })
    }

    /// On every tick: forgets pulls that nobody answers, asks the next peer when a step takes long, repeats the head.
    pub(super) fn keep_in_step(&mut self, now: Now, out: &mut Vec<Output>) {
        self.sync.pulls.retain(|_, since| now < since.saturating_add(limits::PULL_TIMEOUT_MS));
        self.recall_if_enough();
        if now >= self.sync.head_at.saturating_add(limits::HEAD_INTERVAL_MS) {
            self.say_head(now, out);
        }
        if now >= self.sync.pull_at && !self.is_finished() {
            self.sync.pull_interval_ms = (2 * self.sync.pull_interval_ms).min(limits::HEAD_INTERVAL_MS);
            self.sync.pull_at = now.saturating_add(self.sync.pull_interval_ms);
            let peers: Vec<_> = self.sync.connected.union(&self.sync.strangers).copied().collect();
            if let Some(peer) = self.sync.next_after(self.sync.asked_on_time, &peers) {
                self.sync.asked_on_time = Some(peer);
                // Every other time what is to be sealed; in between the open step, and those before it.
                let turn = self.sync.turns.entry(peer).or_default();
                *turn += 1;
                let between = self.step.height() - self.unsealed.height() + 1;
                let back = *turn / 2 % between;
                let mut step = self.unsealed;
                if *turn % 2 == 1 {
                    (0..between - 1 - back).for_each(|_| step = step.next());
                }
                self.pull(peer, step, now, out);
            }
        }
    }

    /// What we hold of a step and the asking peer lacks, as much as fits.
    pub(super) fn answer(&mut self, pull: &Pull, now: Now) -> Batch {
        let mut batch = Batch {
            step: pull.step,
            open: self.step,
            unsealed: self.unsealed,
            more: false,
            messages: Vec::new(),
            seal: self.seals.get(&pull.step).map(|seal| Box::new((**seal).clone())),
            snapshot: None,
        };
        if pull.step < self.unsealed && batch.seal.is_none() && pull.step.round() > 0 {
            batch.snapshot = self.snapshot(now).map(Box::new);
            return batch;
        }
        let have: BTreeSet<_> = pull.have.iter().take(limits::PULL_IDS_MAX).collect();
        let want: BTreeSet<_> = pull.want.iter().take(limits::SEALED_IDS_MAX).collect();
        let entries = self.ledger.get(pull.step).into_iter().flat_map(|set| set.messages());
        let current = pull.step == self.unsealed;
        let aside = self.sealing.laid_aside().filter(|message| current && want.contains(&message.id()));
        let said = self.sealing.said().filter(|_| current);
        let lacking = |message: &&Arc<Message>| !have.contains(&message.id());
        let mut messages: Vec<_> = entries.chain(aside).chain(said).filter(lacking).collect();
        messages.sort_by_key(|message| !want.contains(&message.id()));
        let mut room = limits::RESPONSE_BYTES_MAX - limits::SEAL_BYTES_MAX;
        for message in messages {
            // A byte string's header takes five bytes.
            match room.checked_sub(message.bytes.len() + 5) {
                Some(left) => room = left,
                None => {
                    batch.more = true;
                    break;
                }
            }
            batch.messages.push(ByteBuf::from(message.bytes.clone()));
        }
        // What is early here may be what the peer itself has said, and forgotten.
        for ((_, _, _), (_, bytes)) in self.early.iter().filter(|((step, _, _), _)| *step == pull.step) {
            let lacks = self.context.open_or_recall(bytes).is_ok_and(|opened| !have.contains(&opened.header().id));
            match room.checked_sub(bytes.len() + 5).filter(|_| lacks) {
                Some(left) => room = left,
                None => continue,
            }
            batch.messages.push(ByteBuf::from(bytes.clone()));
        }
        batch
    }

    pub(super) fn answered(&mut self, from: NodeId, batch: Batch, now: Now, out: &mut Vec<Output>) {
        self.sync.pulls.remove(&from);
        let unsealed = self.unsealed;
        let (mut new, mut wrong) = (false, false);
        for bytes in batch.messages.iter().take(limits::PULL_IDS_MAX) {
            match self.receive(from, bytes, now, out) {
                Verdict::Accept | Verdict::Heard => new = true,
                Verdict::Reject(_) => wrong = true,
                Verdict::Ignore(_) => {}
            }
        }
        if let Some(seal) = batch.seal.clone() {
            new |= seal.step == self.unsealed;
            if let Err(reason) = self.take_seal(*seal) {
                wrong = true;
                out.push(Output::Tell(Event::Refused { reason: reason.to_string(), from, bytes: 0 }));
            }
        }
        if let Some(snapshot) = &batch.snapshot {
            match self.take_snapshot(from, snapshot, now, out) {
                Ok(taken) => new |= taken,
                Err(reason) => {
                    wrong = true;
                    out.push(Output::Tell(Event::Refused { reason: reason.to_string(), from, bytes: 0 }));
                }
            }
        }
        if !new {
            self.sync.quiet_until = now.saturating_add(limits::PULL_INTERVAL_MS_MIN);
        }
        if wrong {
            return;
        }
        if unsealed == self.unsealed {
            self.recalled(from, &batch);
        }
        if batch.more && new {
            self.pull(from, batch.step, now, out);
        }
    }
}
