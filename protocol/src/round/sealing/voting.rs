//! What a sealer says: its list, its proposals when it is its turn, its votes.

use super::{Finding, ballot};
use crate::{
    limits,
    message::{Content, Step},
    round::{Now, Output, State},
    seal::{Act, Certificate, Engine, List, Proposal, Stage, Value, Vote, faults, quorum, set_digest, supported},
};
use heterotune_crypto::NodeId;
use serde_bytes::ByteBuf;
use std::collections::VecDeque;

impl State {
    /// A sealer that has closed the step says what it holds of it, once.
    pub(super) fn list(&mut self, now: Now, out: &mut Vec<Output>) {
        let step = self.unsealed;
        let ready = self.is_sealer()
            && !self.is_silent_on(step)
            && self.sync.may_speak()
            && !self.sealing.lists.contains_key(&self.me);
        if !ready || !self.is_ready_to_list(now) {
            return;
        }
        if self.leads() && step.round() > 0 {
            self.note_silent();
        }
        let ids = self.ledger.set(step).ids();
        let Some(message) = self.say(step, Content::List(List { ids }), now, out) else { return };
        self.sealing.lists.insert(self.me, message.clone());
        out.push(Output::Keep(message.clone()));
        out.push(Output::Publish(message));
    }

    /// Where everyone closes by itself, late updates have until the close of the next round.
    pub(super) fn is_ready_to_list(&mut self, now: Now) -> bool {
        let Step::Round(round) = self.unsealed else { return self.is_complete(now) };
        if self.leads() {
            return self.is_complete(now);
        }
        let last = self.is_beyond_the_end(Step::Round(round + 1));
        // With a horizon of one the next round cannot close before this seal.
        let waits = self.context.charter.rounds.horizon == 1;
        self.step > self.unsealed
            && (last
                || self.step > Step::Round(round + 1)
                || self.missing_in(self.unsealed).is_empty()
                || (waits && self.is_complete(now)))
    }

    /// Sealers that have not listed what they hold of the unsealed step.
    pub(in crate::round) fn silent_sealers(&self) -> Vec<NodeId> {
        let sealers = self.context.charter.sealers.iter();
        sealers.filter(|sealer| !self.sealing.lists.contains_key(sealer)).copied().collect()
    }

    pub(super) fn start_engine(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.sealing.engine.is_some() || !self.is_sealer() || !self.sealing.lists.contains_key(&self.me) {
            return;
        }
        let Some(genesis) = self.genesis_of(self.unsealed) else { return };
        if !self.sync.may_speak() || self.is_silent_on(self.unsealed) {
            return;
        }
        // A restarted sealer's engine locks again only on what it can judge by the time it hears the votes.
        if let Some((_, value)) = self.sealing.lock(&self.me)
            && let Some(ids) = self.ids_of(&value)
            && self.evaluate(value.set, &ids, out).is_none()
        {
            return;
        }
        let charter = &self.context.charter;
        let patience = (charter.rounds.deadline_ms / 3).clamp(limits::PATIENCE_MS_MIN, limits::PATIENCE_MS_MAX);
        let mut engine = Engine::new(genesis, self.unsealed, &charter.sealers, self.me, patience);
        let mut acts = engine.start(now);
        // In the order of views, so that a restarted sealer is locked on what it was locked on.
        let ordered: Vec<_> = self.sealing.votes.values().cloned().collect();
        self.sealing.engine = Some(engine);
        self.act(std::mem::take(&mut acts), now, out);
        self.weigh(now, out);
        ordered.iter().for_each(|message| self.count(message, now, out));
    }

    pub(in crate::round) fn tick_engine(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.sealing.decided.is_none()
            && let Some(engine) = &mut self.sealing.engine
        {
            let acts = engine.tick(now);
            self.act(acts, now, out);
        }
    }

    pub(super) fn act(&mut self, acts: Vec<Act>, now: Now, out: &mut Vec<Output>) {
        let mut acts = VecDeque::from(acts);
        while let Some(act) = acts.pop_front() {
            let more = match act {
                Act::Vote(vote) => self.vote(vote, now, out),
                Act::Propose { view, value, polka } => {
                    self.propose(view, value, polka, now, out);
                    Vec::new()
                }
                Act::Find { view } => {
                    self.sealing.finding = Some(Finding { view, lists: Vec::new(), ids: Vec::new() });
                    Vec::new()
                }
                Act::Entered { view } => {
                    self.sealing.finding = None;
                    self.sealing.prune(view, &self.me);
                    Vec::new()
                }
            };
            acts.extend(more);
        }
    }

    /// Votes, unless that would contradict what this node has said before, or may have: after a restart it goes on
    /// where it was, and below its last vote it says nothing.
    pub(super) fn vote(&mut self, mut vote: Vote, now: Now, out: &mut Vec<Output>) -> Vec<Act> {
        let (at, me) = ((vote.view, vote.stage), self.me);
        if self.is_locked_against(&vote) {
            vote.value = None;
        }
        let message = if let Some(said) = self.sealing.votes.get(&(at.0, at.1, me)) {
            said.clone()
        } else {
            let mut mine = self.sealing.votes.keys().filter(|(_, _, sealer)| *sealer == me);
            if mine.any(|(view, stage, _)| (*view, *stage) > at) {
                return Vec::new();
            }
            let Some(message) = self.say(self.unsealed, Content::Vote(vote), now, out) else { return Vec::new() };
            self.sealing.votes.insert((at.0, at.1, me), message.clone());
            out.push(Output::Keep(message.clone()));
            message
        };
        out.push(Output::Publish(message.clone()));
        self.tally(&message);
        let Content::Vote(vote) = message.signed.value() else { return Vec::new() };
        let ballot = ballot(&message);
        self.sealing.engine.as_mut().map(|engine| engine.voted(vote, &ballot, now)).unwrap_or_default()
    }

    /// Whether a prevote is for something else than this node has precommitted, without the proof that a quorum has
    /// prevoted for it since. The engine knows, but for what a restart can make it forget.
    pub(super) fn is_locked_against(&self, vote: &Vote) -> bool {
        let (Stage::Prevote, Some(value)) = (vote.stage, vote.value) else { return false };
        let Some((locked_in, locked_on)) = self.sealing.lock(&self.me) else { return false };
        let proven = self.sealing.proposals.get(&vote.view).is_some_and(|heard| match heard.message.signed.value() {
            Content::Proposal(Proposal { value: proposed, polka: Some(polka), .. }) => {
                *proposed == value && polka.view >= locked_in
            }
            _ => false,
        });
        locked_on != value && !proven
    }

    pub(super) fn propose(
        &mut self,
        view: u32,
        value: Value,
        polka: Option<Certificate>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if let Some(said) = self.sealing.proposals.get(&view) {
            return out.push(Output::Publish(said.message.clone()));
        }
        let found = self.sealing.finding.take().filter(|finding| finding.view == view && polka.is_none());
        let lists = match found {
            Some(finding) => finding.lists.iter().map(|list| ByteBuf::from(list.bytes.clone())).collect(),
            None => match self.sealing.grounds(&value) {
                Some(lists) => lists,
                None => return,
            },
        };
        let proposal = Proposal { view, value, polka, lists };
        let Some(message) = self.say(self.unsealed, Content::Proposal(proposal), now, out) else { return };
        if self.hear(message.clone(), now, out).is_ok() {
            out.push(Output::Publish(message));
        }
    }

    /// The proposer computes a value from the lists of a quorum.
    pub(super) fn find(&mut self, now: Now, out: &mut Vec<Output>) {
        let sealers = self.context.charter.sealers.len();
        let Some(finding) = &mut self.sealing.finding else { return };
        if finding.lists.is_empty() {
            if self.sealing.lists.len() < quorum(sealers) {
                return;
            }
            finding.lists = self.sealing.lists.values().cloned().collect();
            let lists = finding.lists.iter().filter_map(|message| match message.signed.value() {
                Content::List(list) => Some(list),
                _ => None,
            });
            finding.ids = supported(lists, faults(sealers));
        }
        let (view, ids) = (finding.view, finding.ids.clone());
        let set = set_digest(&ids);
        if let Some(state) = self.evaluate(set, &ids, out) {
            let propose = |engine: &mut Engine| engine.propose(view, Value { set, state }, now);
            let acts = self.sealing.engine.as_mut().map(propose).unwrap_or_default();
            self.act(acts, now, out);
            self.sealing.finding = None;
        }
    }

    /// Gives the engine the proposals that this node has recomputed.
    pub(super) fn weigh(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.sealing.engine.is_none() {
            return;
        }
        let open = self.sealing.proposals.iter().filter(|(_, heard)| !heard.weighed);
        let open: Vec<_> = open.map(|(_, heard)| (heard.message.clone(), heard.ids.clone())).collect();
        for (message, ids) in open {
            let Content::Proposal(proposal) = message.signed.value() else { continue };
            let Some(state) = self.evaluate(proposal.value.set, &ids, out) else { continue };
            if let Some(heard) = self.sealing.proposals.get_mut(&proposal.view) {
                heard.weighed = true;
            }
            let Proposal { view, value, polka, .. } = proposal;
            let valid = state == value.state;
            let weigh = |engine: &mut Engine| engine.proposed(*view, *value, polka.as_ref(), valid, now);
            let acts = self.sealing.engine.as_mut().map(weigh).unwrap_or_default();
            self.act(acts, now, out);
        }
    }
}
