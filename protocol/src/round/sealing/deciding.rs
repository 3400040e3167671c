//! What everybody makes of it: what sets make, whether a quorum has voted, and the seal.

use super::{Made, ballot};
use crate::{
    ledger::StepSet,
    message::{Content, Message, Step},
    round::{Event, Job, Now, Output, RoundSet, State, state::Computing},
    seal::{Certificate, Seal, Stage, Value, Vote, quorum, set_digest},
    verdict::Reason,
};
use heterotune_crypto::{Digest, NodeId};
use std::sync::Arc;

impl State {
    /// The digest of what a set of the unsealed step makes; none while messages are missing or it is being computed.
    pub(super) fn evaluate(&mut self, set: Digest, ids: &[Digest], out: &mut Vec<Output>) -> Option<Digest> {
        if let Some((digest, _)) = self.sealing.made.get(&set) {
            return Some(*digest);
        }
        let mut messages = StepSet::default();
        let held = self.ledger.get(self.unsealed);
        for id in ids {
            match held.and_then(|held| held.find(id)).or_else(|| self.sealing.aside.get(id)) {
                Some(message) => drop(messages.insert(message.clone())),
                None => drop(self.sealing.wanted.insert(*id)),
            }
        }
        if !self.sealing.wanted.is_empty() || self.computing.is_some() {
            return None;
        }
        let job = self.job(set, &messages)?;
        self.computing = Some(Computing::Set(set));
        out.push(Output::Compute(job));
        None
    }

    pub(super) fn job(&self, set: Digest, messages: &StepSet) -> Option<Job> {
        let context = self.context.clone();
        let said = messages.counting().map(|message| (message.author(), message.signed.value()));
        Some(match self.unsealed {
            Step::Kernels => {
                let kernels = said.filter_map(|(author, content)| match content {
                    Content::Kernels(kernels) => Some((author, kernels.clone())),
                    _ => None,
                });
                Job::Reference(context, kernels.collect())
            }
            Step::Statistics => {
                let statistics = said.filter_map(|(author, content)| match content {
                    Content::Statistics(statistics) => Some((author, statistics.clone())),
                    _ => None,
                });
                Job::Start(context, statistics.collect())
            }
            Step::Round(round) => {
                let (_, base) = self.states.first_key_value()?;
                let set = RoundSet { set, ..RoundSet::new(round, messages) };
                Job::Fold(context, base.state.clone(), vec![set])
            }
        })
    }

    /// Gives a vote to the engine, and counts it towards the seal.
    pub(super) fn count(&mut self, message: &Arc<Message>, now: Now, out: &mut Vec<Output>) {
        self.tally(message);
        let Content::Vote(vote) = message.signed.value() else { return };
        if let Some(engine) = &mut self.sealing.engine {
            let acts = engine.voted(vote, &ballot(message), now);
            self.act(acts, now, out);
        }
    }

    /// The precommits of a quorum are a certificate, whoever counts them.
    pub(super) fn tally(&mut self, message: &Message) {
        let Content::Vote(Vote { view, stage: Stage::Precommit, value: Some(value) }) = message.signed.value() else {
            return;
        };
        let same = |message: &&Arc<Message>| match message.signed.value() {
            Content::Vote(vote) => vote.value == Some(*value),
            _ => false,
        };
        let lowest = (*view, Stage::Precommit, NodeId::LOWEST);
        let highest = (*view, Stage::Precommit, NodeId::HIGHEST);
        let votes = self.sealing.votes.range(lowest..=highest).map(|(_, message)| message);
        let ballots: Vec<_> = votes.filter(same).map(|message| ballot(message)).collect();
        if ballots.len() >= quorum(self.context.charter.sealers.len()) && self.sealing.certificate.is_none() {
            let certificate = Certificate { view: *view, stage: Stage::Precommit, value: *value, ballots };
            self.sealing.certificate = Some(certificate);
        }
    }

    /// Takes a seal that a peer or the disk gives, if it is one.
    pub(in crate::round) fn take_seal(&mut self, seal: Seal) -> Result<(), Reason> {
        if seal.step != self.unsealed || self.sealing.decided.is_some() {
            return Ok(());
        }
        seal.check()?;
        let genesis = self.genesis_of(seal.step).unwrap_or(Digest::ZERO);
        if !self.context.certifies(&genesis, seal.step, &seal.certificate) {
            return Err(Reason::Seal { what: "a certificate that does not verify" });
        }
        self.sealing.decided = Some(Arc::new(seal));
        Ok(())
    }

    /// Takes a seal of this node's own disk.
    pub(in crate::round) fn take_kept_seal(&mut self, seal: Seal) {
        self.sealing.is_kept = self.take_seal(seal).is_ok() && self.sealing.decided.is_some();
    }

    /// Whether the step's seal was found on the disk, where what this node said of it may have given way to the seal: it
    /// would not know what it must not contradict.
    pub(in crate::round) fn is_silent_on(&self, step: Step) -> bool {
        step == self.unsealed && self.sealing.is_kept
    }

    /// Seals the step once a quorum has precommitted, its set is held, and what it makes is computed.
    pub(super) fn decide(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.sealing.decided.is_none()
            && let Some(certificate) = &self.sealing.certificate
            && let Some(ids) = self.ids_of(&certificate.value)
        {
            let seal = Seal { step: self.unsealed, ids, certificate: certificate.clone() };
            self.sealing.decided = Some(Arc::new(seal));
        }
        let Some(seal) = self.sealing.decided.clone() else { return };
        let Some(computed) = self.evaluate(seal.value().set, &seal.ids, out) else { return };
        if computed != seal.value().state {
            if !std::mem::replace(&mut self.sealing.miscomputed, true) {
                let (round, sealed) = (self.unsealed.round(), seal.value().state);
                out.push(Output::Tell(Event::Miscomputes { round, sealed, computed }));
            }
            return;
        }
        let Some((_, made)) = self.sealing.made.remove(&seal.value().set) else { return };
        self.seal(seal, made, now, out);
    }

    pub(super) fn ids_of(&self, value: &Value) -> Option<Vec<Digest>> {
        let proposed = self.sealing.proposals.values().find_map(|heard| match heard.message.signed.value() {
            Content::Proposal(proposal) if proposal.value == *value => Some(heard.ids.clone()),
            _ => None,
        });
        let held = || self.ledger.get(self.unsealed).map(StepSet::ids).filter(|ids| set_digest(ids) == value.set);
        proposed.or_else(held)
    }

    /// The unsealed step is sealed: its set and its state are final.
    pub(super) fn seal(&mut self, seal: Arc<Seal>, made: Made, now: Now, out: &mut Vec<Output>) {
        let step = self.unsealed;
        let sealing = std::mem::take(&mut self.sealing);
        let held = self.ledger.get(step);
        let find = |id: &Digest| held.and_then(|held| held.find(id)).or_else(|| sealing.aside.get(id)).cloned();
        let messages: Vec<_> = seal.ids.iter().filter_map(find).collect();
        self.ledger.settle(step, messages.into_iter());
        let set = self.ledger.set(step);
        let (updates, conflicts) = (set.len(), set.conflicts().collect());
        self.seals.insert(step, seal.clone());
        self.unsealed = step.next();
        if let Step::Round(round) = step {
            let (view, state) = (seal.certificate.view, seal.value().state);
            out.push(Output::Tell(Event::Sealed { round, view, updates, conflicts, state }));
        }
        self.trim();
        let forget_before = self.first_kept();
        // What is on the disk is not written again: a node that dies whenever it has written something still gets on.
        if matches!(step, Step::Kernels | Step::Statistics) && !sealing.is_kept {
            out.push(Output::Seal { seal: seal.clone(), forget_before });
        }
        match made {
            Made::Reference(reference) => self.referenced(&seal, reference, now, out),
            Made::Start(start) => self.started(&seal, &start, now, out),
            Made::Round(closed) => {
                // First what is sealed, then its seal: a node that dies in between computes the state again.
                let record = Output::Seal { seal, forget_before };
                self.settle(*closed, record, now, out);
            }
        }
        self.take_early(now, out);
        // What was said of the next step before this one was sealed here.
        self.sync.hurry(now);
    }
}
