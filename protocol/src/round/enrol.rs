//! How a node comes into a network that runs, and what others make of those who want to.
//!
//! A newcomer follows silently, by gossip and pulls, says its enrolment in the open round, and waits until that round is
//! sealed; then it is a member, or says it again. Strangers may say nothing else, and of them no more is checked and held
//! than [`limits::ENROLMENT_FLOOD_MAX`] and [`limits::ENROLMENTS_MAX`] allow.

use super::{Checkpoint, Event, Now, Output, State};
use crate::{
    admission::{Admission, Membership},
    enrolment::{Enrolment, rank},
    ledger::{Entry, Inserted},
    limits,
    message::{Content, Header, Message, Step},
    roster,
    verdict::Reason,
};
use heterotune_crypto::NodeId;
use std::sync::Arc;

impl State {
    /// The same node, with an admin's word that it may join.
    #[must_use]
    pub fn with_membership(mut self, membership: Membership) -> Self {
        self.membership = Some(membership);
        self
    }

    /// Whether a node is a member: one of the charter's, or one that a sealed round has enrolled.
    pub fn is_member(&self, node: &NodeId) -> bool {
        self.context.members.contains(node) || self.sealed().is_some_and(|state| state.enrolled.contains_key(node))
    }

    /// All members.
    pub fn members(&self) -> impl Iterator<Item = &NodeId> {
        self.context.members.iter().chain(self.sealed().into_iter().flat_map(|state| state.enrolled.keys()))
    }

    /// Who is no member says that it wants to be one: in the open round, and again as long as that is not sealed, for
    /// those who have not heard it.
    pub(super) fn say_enrolment(&mut self, now: Now, out: &mut Vec<Output>) {
        let waits_for = Step::Round(self.enrolling);
        let step = if waits_for >= self.unsealed { waits_for } else { self.step };
        let Step::Round(round @ 1..) = step else { return };
        if self.is_beyond_the_end(step) || !self.sync.may_speak() || self.is_behind() {
            return;
        }
        let content = match self.ledger.get(step).and_then(|set| set.get(&self.me)) {
            Some(Entry::Conflict(..)) => return,
            // What it has said in an earlier life.
            Some(Entry::One(said)) => said.signed.value().clone(),
            None => match self.enrolment() {
                Some(enrolment) => Content::Enrolment(enrolment),
                None => return,
            },
        };
        let Some(message) = self.say(step, content, now, out) else { return };
        if self.enrolling < round && self.insert(message.clone()) == Inserted::New {
            self.mark_dirty(step);
            out.push(Output::Keep(message.clone()));
            let (kind, bytes, payload) = (message.kind, message.bytes.len(), message.id());
            out.push(Output::Tell(Event::Published { kind, round, bytes, payload }));
        }
        self.enrolling = round;
        out.push(Output::Publish(message));
    }

    /// What lets this node in, if anything does.
    fn enrolment(&self) -> Option<Enrolment> {
        let admission = &self.context.charter.admission;
        let membership = self.membership.clone().filter(|_| *admission != Admission::Open);
        admission.admits(&self.context.network, &self.me, membership.as_ref()).ok()?;
        Some(Enrolment { membership })
    }

    /// Checks a stranger's enrolment as far as that is possible without its signatures.
    pub(super) fn check_enrolment(&mut self, from: NodeId, header: &Header, now: Now) -> Result<(), Reason> {
        let Header { step, author, id, .. } = *header;
        let is_known = self.contributors(step).is_some();
        let (Some(genesis), Some(sealed), true) = (self.genesis, self.sealed(), is_known) else {
            return Err(Reason::Early { round: step.round(), open: self.step.round() });
        };
        if roster::is_on(&self.context, sealed, step.round(), &author) {
            return Err(Reason::Enrolled { author });
        }
        if self.sealing.wants(&id) {
            return Ok(());
        }
        let rank = rank(&genesis, step, &author);
        if self.ledger.get(step).is_some_and(|set| !set.has_room_for(&rank)) {
            return Err(Reason::Crowded { round: step.round() });
        }
        if self.enrolment_floods.reach(limits::ENROLMENT_FLOOD_MAX, &from, now) {
            return Err(Reason::Flood);
        }
        self.enrolment_floods.add(from, now);
        Ok(())
    }

    /// Adds an entry to the ledger. Of enrolments those that come last give way; what the sealers may settle on is laid
    /// aside.
    pub(super) fn insert(&mut self, message: Arc<Message>) -> Inserted {
        let step = message.step;
        let set = self.ledger.set(step);
        let inserted = set.insert(message.clone());
        let mut aside = set.shed();
        if inserted == Inserted::Duplicate {
            // The third of an author's contradictions.
            aside.push(message);
        }
        if step == self.unsealed {
            aside.into_iter().for_each(|message| self.sealing.lay_aside(message, &self.me));
        }
        inserted
    }

    /// Greets the peers whom the newest sealed state has made members.
    pub(super) fn greet(&mut self, now: Now, out: &mut Vec<Output>) {
        let members: Vec<_> = self.sync.strangers().filter(|peer| self.is_member(peer)).collect();
        members.into_iter().for_each(|peer| self.connected(peer, now, out));
    }
}

/// Tells whom a sealed state has enrolled since the one before it.
pub(super) fn tell_enrolled(before: &Checkpoint, after: &Checkpoint, out: &mut Vec<Output>) {
    let new = after.enrolled.iter().filter(|(member, _)| !before.enrolled.contains_key(member));
    out.extend(new.map(|(member, round)| Output::Tell(Event::Enrolled { member: *member, round: *round })));
}
