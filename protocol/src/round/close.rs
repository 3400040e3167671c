//! Contributions, and how a round closes: provisionally, by what this node holds.

use super::enrol::tell_enrolled;
use super::state::{Computing, Known};
use super::{Closed, Contribution, Event, Job, Now, Output, Product, RoundSet, State, Work};
use crate::message::{Content, Step};
use heterotune_crypto::NodeId;

impl State {
    pub(super) fn contribute(&mut self, contribution: Contribution, now: Now, out: &mut Vec<Output>) {
        let (step, content) = match contribution {
            Contribution::Kernels(kernels) => (Step::Kernels, Content::Kernels(kernels)),
            Contribution::Statistics(statistics) => (Step::Statistics, Content::Statistics(statistics)),
            Contribution::Update { round, groups } => (Step::Round(round), Content::Update(groups)),
        };
        // What was asked for in a step that is sealed since is void. So is a second contribution: an author that says
        // two things in a step has said nothing.
        let held = self.ledger.get(step).is_some_and(|set| set.has(&self.me));
        let spoken = held || self.has_announced(step);
        if spoken || self.is_silent_on(step) || self.check_window(step).is_err() || !self.sync.may_speak() {
            return;
        }
        let Some(message) = self.say(step, content, now, out) else { return };
        self.ledger.set(step).insert(message.clone());
        self.mark_dirty(step);
        out.push(Output::Keep(message.clone()));
        out.push(Output::Tell(Event::Published {
            kind: message.kind,
            round: step.round(),
            bytes: message.len(),
            payload: message.id(),
        }));
        out.push(Output::Publish(message));
    }

    /// Contributors without an entry in the open step.
    pub(super) fn missing(&mut self) -> Vec<NodeId> {
        self.missing_in(self.step)
    }

    pub(super) fn missing_in(&mut self, step: Step) -> Vec<NodeId> {
        let contributors = self.contributors(step);
        let set = self.ledger.get(step);
        let has = |member: &NodeId| set.is_some_and(|set| set.has(member));
        contributors.iter().flat_map(|all| all.iter()).filter(|member| !has(member)).copied().collect()
    }

    /// Whether the open step can close.
    pub(super) fn is_complete(&mut self, now: Now) -> bool {
        // Who contradicts itself has delivered: else it could keep a round open for ever.
        let delivered = self.ledger.get(self.step).map_or(0, |set| set.delivered());
        let quorum = match self.step {
            Step::Round(_) => usize::from(self.context.charter.rounds.quorum),
            Step::Kernels | Step::Statistics => crate::seal::quorum(self.context.charter.founders.len()),
        };
        if delivered < quorum {
            return false;
        }
        // Who has missed two deadlines in a row is not waited for until it delivers again.
        let missing = self.missing();
        let awaited = missing.iter().any(|member| self.silent.get(member).is_none_or(|missed| *missed < 2));
        let overdue = now >= self.opened_at.saturating_add(self.context.charter.rounds.deadline_ms);
        !awaited || overdue || (self.step.round() > 0 && self.network_is_ahead())
    }

    pub(super) fn note_silent(&mut self) {
        for member in self.missing() {
            *self.silent.entry(member).or_default() += 1;
        }
    }

    /// A message has come for a round: if that is closed, it is to be folded again.
    pub(super) fn mark_dirty(&mut self, step: Step) {
        let closing = step == self.step && self.computing == Some(Computing::Close);
        if step.round() > 0 && !self.leads() && (step < self.step || closing) {
            self.dirty = Some(self.dirty.map_or(step.round(), |dirty| dirty.min(step.round())));
        }
    }

    /// Closes the open round where everyone closes by itself.
    pub(super) fn close_if_complete(&mut self, now: Now, out: &mut Vec<Output>) {
        let Step::Round(round) = self.step else { return };
        if self.leads() || self.computing.is_some() || self.is_beyond_the_end(self.step) || !self.is_complete(now) {
            return;
        }
        // No round closes before the one `horizon` rounds earlier is sealed.
        let horizon = u64::from(self.context.charter.rounds.horizon);
        if round >= self.unsealed.round() + horizon {
            if self.told_waiting < round {
                self.told_waiting = round;
                out.push(Output::Tell(Event::WaitsForSeal { round, unsealed: self.unsealed.round() }));
            }
            return;
        }
        self.note_silent();
        let from = self.dirty.take().map_or(round, |dirty| dirty.min(round));
        self.fold(from, round, out);
    }

    /// Folds closed rounds again after a seal has changed what they start from.
    pub(super) fn refold(&mut self, out: &mut Vec<Output>) {
        let last = self.step.round().saturating_sub(1);
        if self.computing.is_none()
            && let Some(dirty) = self.dirty.filter(|dirty| *dirty <= last)
        {
            self.dirty = None;
            self.fold(dirty, last, out);
        }
    }

    fn fold(&mut self, from: u64, to: u64, out: &mut Vec<Output>) {
        let from = from.max(self.unsealed.round());
        let Some(base) = self.states.get(&from) else { return };
        let empty = Default::default();
        let sets = (from..=to).map(|round| RoundSet::new(round, self.ledger.get(Step::Round(round)).unwrap_or(&empty)));
        out.push(Output::Compute(Job::Fold(self.context.clone(), base.state.clone(), sets.collect())));
        self.computing = Some(Computing::Close);
    }

    pub(super) fn computed(&mut self, product: Product, now: Now, out: &mut Vec<Output>) {
        match (self.computing.take(), product) {
            (Some(Computing::Set(set)), product) => {
                // A snapshot may have come meanwhile.
                let answers = match &product {
                    Product::Reference(_) => self.unsealed == Step::Kernels,
                    Product::Start(_) => self.unsealed == Step::Statistics,
                    Product::Fold(closed) => {
                        closed.first().is_some_and(|closed| closed.set == set && closed.before == self.sealed_digest())
                    }
                };
                if answers {
                    self.sealing.made(set, product);
                }
            }
            (Some(Computing::Close), Product::Fold(closed)) => self.folded(closed, now, out),
            _ => {}
        }
    }

    fn folded(&mut self, closed: Vec<Closed>, now: Now, out: &mut Vec<Output>) {
        let Some(first) = closed.first() else { return };
        let from = first.after.round - 1;
        if self.states.get(&from).is_none_or(|base| base.digest != first.before) {
            // A seal has come meanwhile.
            self.dirty = Some(self.unsealed.round()).filter(|round| *round < self.step.round());
            return;
        }
        if Step::Round(from) == self.unsealed {
            self.sealing.made(first.set, Product::Fold(vec![first.clone()]));
        }
        for fold in closed {
            self.close(fold, out);
        }
        let open = self.states.last_key_value().map_or(1, |(round, _)| *round);
        if Step::Round(open) > self.step {
            self.enter(Step::Round(open), now, out);
        }
    }

    fn close(&mut self, closed: Closed, out: &mut Vec<Output>) {
        out.push(Output::Tell(closed_event(&closed)));
        out.push(Output::Checkpoint(closed.after.clone()));
        self.states.insert(closed.after.round, Known { state: closed.after, digest: closed.digest });
    }

    /// Takes the sealed state after a round: what was folded on another one is to be folded again.
    pub(super) fn settle(&mut self, closed: Closed, seal: Output, now: Now, out: &mut Vec<Output>) {
        let next = closed.after.round;
        let known = Known { state: closed.after.clone(), digest: closed.digest };
        let same = self.states.get(&next).is_some_and(|provisional| provisional.digest == closed.digest);
        if let Some(before) = self.sealed() {
            tell_enrolled(before, &closed.after, out);
        }
        self.states.retain(|round, _| *round > next || (*round == next && same));
        self.dirty = self.dirty.filter(|dirty| *dirty >= next);
        if !same {
            out.push(Output::Tell(closed_event(&closed)));
            out.push(Output::Checkpoint(closed.after));
            self.states.insert(next, known);
            self.dirty = Some(next).filter(|next| *next < self.step.round());
        }
        out.push(seal);
        self.greet(now, out);
        if self.is_finished() {
            self.finish(now, out);
        } else if self.step < Step::Round(next) {
            self.enter(Step::Round(next), now, out);
        } else {
            self.refold(out);
        }
    }

    /// The last round is sealed.
    pub(super) fn finish(&mut self, now: Now, out: &mut Vec<Output>) {
        self.step = self.unsealed;
        self.dirty = None;
        out.push(Output::Train(Work::Finish { round: self.step.round(), mixture: self.view() }));
        self.say_head(now, out);
    }
}

fn closed_event(closed: &Closed) -> Event {
    Event::RoundClosed {
        round: closed.after.round - 1,
        updates: closed.report.updates,
        update_norm: closed.report.update_norm,
        branch_norm: closed.branch_norm,
        agreement: closed.report.agreement,
        left_out: closed.report.left_out.clone(),
        standings: closed.report.senders.clone(),
        mixture_hash: closed.mixture,
    }
}
