//! What becomes of messages: from peers, from the disk, and those that came too early.

use super::{Event, Now, Output, State};
use crate::{
    ledger::{Entry, Inserted},
    limits,
    message::{Content, Header, Kind, Message, Step},
    verdict::{Reason, Verdict},
};
use heterotune_crypto::NodeId;
use std::{collections::BTreeMap, sync::Arc};

/// What peers have cost lately: since when it is counted, and how many checks it was.
#[derive(Debug, Default)]
pub(super) struct Costs(BTreeMap<NodeId, (Now, u32)>);

impl Costs {
    pub(super) fn add(&mut self, peer: NodeId, now: Now) {
        let (since, count) = self.0.entry(peer).or_insert((now, 0));
        if now.saturating_sub(*since) > limits::FLOOD_MS {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
    }

    pub(super) fn reach(&self, most: u32, peer: &NodeId, now: Now) -> bool {
        let cost = self.0.get(peer);
        cost.is_some_and(|(since, count)| *count >= most && now.saturating_sub(*since) <= limits::FLOOD_MS)
    }

    pub(super) fn trim(&mut self) {
        if self.0.len() > limits::HEADS_MAX {
            self.0.clear();
        }
    }
}

impl State {
    /// Judges a message, and takes it in if it is valid and new.
    pub(super) fn receive(&mut self, from: NodeId, bytes: &[u8], now: Now, out: &mut Vec<Output>) -> Verdict {
        let reason = match self.try_receive(from, bytes, now, out) {
            Ok(verdict) => return verdict,
            Err(reason) => reason,
        };
        if reason != Reason::Duplicate {
            out.push(Output::Tell(Event::Refused { reason: reason.to_string(), from, bytes: bytes.len() }));
        }
        let verdict = Verdict::from(reason);
        if matches!(verdict, Verdict::Reject(_)) {
            self.floods.add(from, now);
        }
        verdict
    }

    /// Whether so much of what a peer sends fails that its messages are not looked at for a while: garbage must not
    /// cost more than a few signature checks.
    fn is_flooding(&self, from: &NodeId, now: Now) -> bool {
        self.floods.reach(limits::FLOOD_MAX, from, now)
    }

    fn try_receive(&mut self, from: NodeId, bytes: &[u8], now: Now, out: &mut Vec<Output>) -> Result<Verdict, Reason> {
        if self.is_flooding(&from, now) {
            return Err(Reason::Flood);
        }
        let opened = self.context.open_or_recall(bytes)?;
        let header = opened.header();
        let Header { kind, step, author, genesis, id } = header;
        if kind != Kind::Enrolment && !self.is_member(&author) {
            return Err(Reason::Stranger { author });
        }
        let known = self.genesis_of(step);
        if known.is_some_and(|known| known != genesis) {
            return Err(Reason::OtherGenesis { genesis });
        }
        if kind == Kind::Head {
            if author != from {
                return Err(Reason::Relayed);
            }
            // An author's entries in a step are two at most; of heads there is no end.
            if self.head_floods.reach(limits::HEAD_FLOOD_MAX, &from, now) {
                return Err(Reason::Flood);
            }
            self.head_floods.add(from, now);
            let message = self.context.verify_opened(opened, bytes)?;
            return self.receive_head(&message, now, out).map(|()| Verdict::Heard);
        }
        if step < self.unsealed {
            // What is sealed is settled: votes that come after it, and messages that it names, tell nothing new.
            let named = self.ledger.get(step).is_some_and(|set| set.find(&id).is_some());
            if !kind.is_entry() || named {
                return Err(Reason::Duplicate);
            }
        }
        self.check_window(step)?;
        let wanted = self.sealing.wants(&id);
        match self.ledger.get(step).and_then(|set| set.get(&author)) {
            Some(Entry::Conflict(..)) if kind.is_entry() && !wanted => return Err(Reason::Duplicate),
            Some(Entry::One(first)) if first.id() == id => return Err(Reason::Duplicate),
            _ if self.sealing.holds(&id) => return Err(Reason::Duplicate),
            _ => {}
        }
        let contributors = if kind.is_entry() { self.contributors(step) } else { None };
        let judgeable = known.is_some() && if kind.is_entry() { contributors.is_some() } else { step == self.unsealed };
        if kind == Kind::Enrolment {
            self.check_enrolment(from, &header, now)?;
        } else if !judgeable {
            let key = (step, kind, author);
            if self.early.contains_key(&key) {
                return Err(Reason::Duplicate);
            }
            if self.early.len() >= limits::EARLY_MAX {
                return Err(Reason::Early { round: step.round(), open: self.step.round() });
            }
            let message = self.context.verify_opened(opened, bytes)?;
            if let Content::Proposal(proposal) = message.signed.value() {
                // Else those who are ahead would reject what this node passes on.
                self.check_turn(&message, proposal)?;
                self.check_proposal(&message, proposal)?;
            }
            self.early.insert(key, (from, bytes.to_vec()));
            return Ok(Verdict::Accept);
        } else if contributors.is_some_and(|contributors| !contributors.contains(&author)) {
            return Err(Reason::NotAContributor { author });
        }
        let message = self.context.verify_opened(opened, bytes)?;
        if author == self.me {
            // Something of ours that our disk has lost.
            self.sequence = self.sequence.max(message.sequence);
        }
        if message.announces().is_some() {
            return self.take_announcement(from, message, now, out);
        }
        if kind.is_entry() {
            self.take_entry(from, message, out);
        } else {
            self.check_near(&message)?;
            self.hear(message, now, out)?;
        }
        Ok(Verdict::Accept)
    }

    pub(super) fn take_entry(&mut self, from: NodeId, message: Arc<Message>, out: &mut Vec<Output>) {
        let (kind, step, author, round) = (message.kind, message.step, message.author(), message.step.round());
        let (bytes, payload) = (message.len(), message.id());
        let inserted = self.insert(message.clone());
        out.push(Output::Keep(message));
        out.push(Output::Tell(Event::Received { kind, round, author, from, bytes, payload }));
        self.silent.remove(&author);
        if inserted == Inserted::Conflict {
            out.push(Output::Tell(Event::Conflict { author, kind, round }));
        }
        self.mark_dirty(step);
    }

    /// Whether a step's messages still count, and whether it is near enough to keep them.
    pub(super) fn check_window(&self, step: Step) -> Result<(), Reason> {
        let (round, open) = (step.round(), self.step.round());
        if step < self.unsealed {
            return Err(Reason::Stale { round, open });
        }
        if step.height() > self.step.height().saturating_add(limits::ROUNDS_AHEAD) || self.is_beyond_the_end(step) {
            return Err(Reason::Early { round, open });
        }
        Ok(())
    }

    /// Takes in what came early and may be judged now. What is early still stays.
    pub(super) fn take_early(&mut self, now: Now, out: &mut Vec<Output>) {
        for ((_, _, _), (from, bytes)) in std::mem::take(&mut self.early) {
            self.receive(from, &bytes, now, out);
        }
    }

    fn take_saved_entry(&mut self, step: Step, message: Arc<Message>) {
        let set = self.ledger.set(step);
        if step < self.unsealed {
            return set.insert_sealed(message);
        }
        let inserted = set.insert(message.clone());
        let mut aside = set.shed();
        if inserted == Inserted::Duplicate {
            aside.push(message);
        }
        if step == self.unsealed {
            // It was wanted, and may be listed.
            aside.into_iter().for_each(|message| self.sealing.keep_aside(message));
        }
    }

    /// With the body that was kept with it.
    fn with_saved_body(&mut self, message: Arc<Message>) -> Option<Arc<Message>> {
        let Some(manifest) = message.announces() else { return Some(message) };
        let body = self.saved.bodies.remove(&manifest.digest())?;
        self.context.complete(&message, body).ok().map(Arc::new)
    }

    /// Takes in what this node's own disk holds of the steps whose genesis is known.
    pub(super) fn take_saved(&mut self, now: Now) {
        let saved = std::mem::take(&mut self.saved.messages);
        for bytes in saved {
            let Ok(opened) = self.context.open_or_recall(&bytes) else { continue };
            let Header { kind, step, genesis: said_under, .. } = opened.header();
            match self.genesis_of(step) {
                None => {
                    self.saved.messages.push(bytes);
                    continue;
                }
                Some(genesis) if genesis != said_under => continue,
                Some(_) => {}
            }
            let Ok(message) = self.context.verify_opened(opened, &bytes) else { continue };
            let Some(message) = self.with_saved_body(message) else { continue };
            let sealed_without = |id| self.seals.get(&step).is_some_and(|seal| seal.ids.binary_search(id).is_err());
            if message.author() == self.me {
                self.sequence = self.sequence.max(message.sequence);
            }
            let too_old = step < self.unsealed && !self.seals.contains_key(&step);
            if kind.is_entry() && !too_old && !sealed_without(&message.id()) {
                self.take_saved_entry(step, message);
            } else if !kind.is_entry() && step == self.unsealed {
                // Nothing is said or kept again.
                let _ = self.hear(message, now, &mut Vec::new());
            } else if !kind.is_entry() && step > self.unsealed {
                self.saved.messages.push(bytes);
            }
        }
    }
}
