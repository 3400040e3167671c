//! The ledger: per step, the grow-only set of valid messages. The mixture is a pure function of it.
//!
//! An author's entry goes from empty to one payload to *conflict* (two signed payloads), and never back, so the order
//! of arrival cannot matter: two nodes that hold the same messages hold the same sets. A seal ends that: from then on
//! the step's set is exactly what the sealers have agreed on.

use crate::{
    enrolment, limits,
    manifest::Blob,
    message::{Kind, Message, Step},
};
use heterotune_crypto::{Digest, Hasher, NodeId};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// What an author has said in a step.
#[derive(Clone, Debug)]
pub enum Entry {
    /// One thing.
    One(Arc<Message>),
    /// Two different things: it contributes nothing. Both are kept, as the proof to pass on.
    Conflict(Arc<Message>, Arc<Message>),
}

impl Entry {
    fn messages(&self) -> Vec<&Arc<Message>> {
        match self {
            Entry::One(message) => vec![message],
            Entry::Conflict(first, second) => vec![first, second],
        }
    }

    /// Who contributes to a step can't enrol in it: an entry is one or the other.
    fn first(&self) -> &Arc<Message> {
        match self {
            Entry::One(first) | Entry::Conflict(first, _) => first,
        }
    }

    fn is_enrolment(&self) -> bool {
        self.first().kind == Kind::Enrolment
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is the author's first in this step.
    New,
    /// It was there.
    Duplicate,
    /// It contradicts the author's first. The entry is a conflict now.
    Conflict,
}

/// The messages of one step.
#[derive(Clone, Debug, Default)]
pub struct StepSet {
    entries: BTreeMap<NodeId, Entry>,
    /// What else authors in conflict have said, where a seal names it: who comes later needs it all.
    further: BTreeMap<Digest, Arc<Message>>,
    /// How many newcomers have given way to others.
    shed: usize,
    /// Asked for with every message, and changed by few.
    digest: OnceLock<Digest>,
}

impl StepSet {
    /// Adds a message.
    pub fn insert(&mut self, message: Arc<Message>) -> Inserted {
        let author = message.author();
        match self.entries.get(&author) {
            None => {
                self.digest.take();
                self.entries.insert(author, Entry::One(message));
                Inserted::New
            }
            Some(Entry::One(first)) if first.id() == message.id() => Inserted::Duplicate,
            Some(Entry::One(first)) => {
                let conflict = Entry::Conflict(first.clone(), message);
                self.digest.take();
                self.entries.insert(author, conflict);
                Inserted::Conflict
            }
            Some(Entry::Conflict(..)) => Inserted::Duplicate,
        }
    }

    /// Adds a message that a seal names, be it the third of its author.
    pub fn insert_sealed(&mut self, message: Arc<Message>) {
        if self.insert(message.clone()) == Inserted::Duplicate && self.find(&message.id()).is_none() {
            self.further.insert(message.id(), message);
        }
    }

    /// The enrolments by their authors' ranks, conflicts included.
    fn enrolments(&self) -> BTreeMap<Digest, &Entry> {
        let rank = |message: &Message| enrolment::rank(&message.genesis, message.step, &message.author());
        let enrolments = self.entries.values().filter(|entry| entry.is_enrolment());
        enrolments.map(|entry| (rank(entry.first()), entry)).collect()
    }

    /// Whether an enrolment would be held whose author has this rank, and may make another give way.
    pub fn has_room_for(&self, rank: &Digest) -> bool {
        let held = self.enrolments();
        let may_come = held.len() < limits::ENROLMENTS_MAX || self.shed < limits::ENROLMENTS_SHED_MAX;
        held.contains_key(rank) || (may_come && held.range(..rank).count() < limits::ENROLMENTS_MAX)
    }

    /// Gives up the enrolments beyond [`limits::ENROLMENTS_MAX`], those of the highest rank. Which these are does not
    /// depend on the order of arrival: who is among the lowest of all was so among the first.
    pub fn shed(&mut self) -> Vec<Arc<Message>> {
        let last = |entry: &Entry| entry.first().author();
        let last: Vec<_> = self.enrolments().into_values().skip(limits::ENROLMENTS_MAX).map(last).collect();
        let shed: Vec<_> = last.iter().filter_map(|author| self.entries.remove(author)).collect();
        if !shed.is_empty() {
            self.digest.take();
        }
        self.shed += shed.len();
        shed.iter().flat_map(Entry::messages).cloned().collect()
    }

    /// Who wants to be a member and has not contradicted itself, by rank.
    pub fn newcomers(&self) -> Vec<NodeId> {
        let counts = |entry: &&Entry| matches!(entry, Entry::One(_));
        self.enrolments().into_values().filter(counts).map(|entry| entry.first().author()).collect()
    }

    /// Whether the author has an entry, be it a conflict.
    pub fn has(&self, author: &NodeId) -> bool {
        self.entries.contains_key(author)
    }

    /// The author's entry.
    pub fn get(&self, author: &NodeId) -> Option<&Entry> {
        self.entries.get(author)
    }

    /// The messages that count, by author: those of authors without a conflict.
    pub fn counting(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.entries.values().filter_map(|entry| match entry {
            Entry::One(message) => Some(message),
            Entry::Conflict(..) => None,
        })
    }

    /// All messages, proofs of conflict included.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.entries.values().flat_map(Entry::messages).chain(self.further.values())
    }

    /// How many contributors have an entry, conflicts included.
    pub fn delivered(&self) -> usize {
        self.entries.values().filter(|entry| !entry.is_enrolment()).count()
    }

    /// The contributors in conflict.
    pub fn conflicts(&self) -> impl Iterator<Item = NodeId> {
        let conflicts = self.entries.values().filter(|entry| matches!(entry, Entry::Conflict(..)));
        conflicts.filter(|entry| !entry.is_enrolment()).map(|entry| entry.first().author())
    }

    /// The ids of all messages, sorted.
    pub fn ids(&self) -> Vec<Digest> {
        let mut ids: Vec<_> = self.messages().map(|message| message.id()).collect();
        ids.sort();
        ids
    }

    /// The message with this id.
    pub fn find(&self, id: &Digest) -> Option<&Arc<Message>> {
        self.messages().find(|message| message.id() == *id)
    }

    /// How many contributions count.
    pub fn len(&self) -> usize {
        self.counting().filter(|message| message.kind != Kind::Enrolment).count()
    }

    /// Whether none counts.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The set's digest: authors in order, each with its payload's digest or, whichever proof is held, a conflict.
    pub fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| self.compute_digest())
    }

    fn compute_digest(&self) -> Digest {
        let mut hasher = Hasher::new("heterotune 2026 step set");
        for (author, entry) in &self.entries {
            hasher.part(author.as_bytes());
            match entry {
                Entry::One(message) => hasher.part(message.id().as_bytes()),
                Entry::Conflict(..) => hasher.part(b"conflict"),
            }
        }
        hasher.finish()
    }
}

/// The sets of all steps that a node keeps.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    steps: BTreeMap<Step, StepSet>,
}

impl Ledger {
    /// The set of a step; empty if nothing came yet.
    pub fn set(&mut self, step: Step) -> &mut StepSet {
        self.steps.entry(step).or_default()
    }

    /// The set of a step, if it is kept.
    pub fn get(&self, step: Step) -> Option<&StepSet> {
        self.steps.get(&step)
    }

    /// Makes a step's set exactly these messages. What it held beside them is given back.
    pub fn settle(&mut self, step: Step, messages: impl Iterator<Item = Arc<Message>>) -> Vec<Arc<Message>> {
        let mut set = StepSet::default();
        for message in messages {
            set.insert_sealed(message);
        }
        let old = self.steps.insert(step, set).unwrap_or_default();
        let set = &self.steps[&step];
        old.messages().filter(|message| set.find(&message.id()).is_none()).cloned().collect()
    }

    /// The body with this digest.
    pub fn body(&self, digest: &Digest) -> Option<&Arc<Blob>> {
        let messages = self.steps.values().flat_map(StepSet::messages);
        messages.filter_map(|message| message.body.as_ref()).find(|body| body.digest() == *digest)
    }

    /// Forgets the rounds before `first`. Genesis is kept for ever.
    pub fn forget_before(&mut self, first: u64) {
        self.steps.retain(|step, _| step.round() == 0 || step.round() >= first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admission::Membership,
        enrolment::Enrolment,
        message::{Content, Context, Head},
        testing::{charter, identity},
    };
    use proptest::{prelude::*, test_runner::RngSeed};

    fn says(author: usize, what: u64) -> Arc<Message> {
        let context = Context::new(charter(4)).unwrap();
        let head = Head { unsealed: Step::Round(what), sets: Digest::ZERO, state: Digest::ZERO };
        let content = Content::Head(head);
        Arc::new(context.say(&identity(author), Digest::ZERO, Step::Round(1), what, content).unwrap())
    }

    #[test]
    fn the_digest_follows_every_change() {
        let mut set = StepSet::default();
        let mut digests = vec![set.digest()];
        for (author, what) in [(0, 1), (1, 1), (0, 2)] {
            set.insert(says(author, what));
            digests.push(set.digest());
        }
        digests.dedup();
        assert_eq!(digests.len(), 4);
        assert_eq!(set.clone().digest(), set.digest());
    }

    #[test]
    fn an_entry_goes_from_one_to_conflict_and_never_back() {
        let mut set = StepSet::default();
        assert_eq!(set.insert(says(0, 1)), Inserted::New);
        assert_eq!(set.insert(says(0, 1)), Inserted::Duplicate);
        assert_eq!(set.insert(says(0, 2)), Inserted::Conflict);
        assert_eq!(set.insert(says(0, 1)), Inserted::Duplicate);
        assert_eq!(set.insert(says(1, 1)), Inserted::New);
        assert_eq!((set.len(), set.messages().count()), (1, 3));
    }

    /// Of `author` in an open network, and what two things it says.
    fn enrols(context: &Context, author: usize, renewed: bool) -> Arc<Message> {
        let member = identity(author).id();
        let membership = renewed.then(|| Membership::sign(&identity(0), &context.network, member, 1).unwrap());
        let content = Content::Enrolment(Enrolment { membership });
        Arc::new(context.say(&identity(author), Digest::ZERO, Step::Round(1), 1, content).unwrap())
    }

    #[test]
    fn enrolments_are_no_contributions() {
        let context = Context::new(charter(4)).unwrap();
        let mut set = StepSet::default();
        [(5, false), (6, false), (6, true)].iter().for_each(|(author, renewed)| {
            set.insert(enrols(&context, *author, *renewed));
        });
        assert_eq!((set.delivered(), set.len(), set.conflicts().count()), (0, 0, 0));
        assert_eq!((set.newcomers(), set.messages().count()), (vec![identity(5).id()], 3));
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

        /// However many come, and in whatever order, conflicts among them: the same are held.
        #[test]
        fn the_same_newcomers_are_held_in_any_order(said in prop::collection::vec((4..28usize, any::<bool>()), 0..80), keys in prop::collection::vec(any::<u64>(), 80)) {
            let context = Context::new(charter(4)).unwrap();
            let collect = |said: &[(usize, bool)]| {
                let mut set = StepSet::default();
                set.insert(says(0, 1));
                let mut shed = 0;
                for (author, renewed) in said {
                    set.insert(enrols(&context, *author, *renewed));
                    shed += set.shed().len();
                }
                (set.digest(), set.newcomers(), set.ids().len(), set.len(), shed > 0)
            };
            let mut keyed: Vec<_> = keys.iter().zip(&said).collect();
            keyed.sort();
            let other: Vec<_> = keyed.into_iter().map(|(_, said)| *said).collect();
            let (one, other) = (collect(&said), collect(&other));
            prop_assert_eq!((&one.0, &one.1, one.2, one.3), (&other.0, &other.1, other.2, other.3));
            let authors: std::collections::BTreeSet<_> = said.iter().map(|(author, _)| author).collect();
            prop_assert_eq!(one.4, authors.len() > limits::ENROLMENTS_MAX);
        }

        #[test]
        fn the_order_of_arrival_does_not_matter(mut said in prop::collection::vec((0..4usize, 0..3u64), 0..12), swaps in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 12)) {
            let collect = |said: &[(usize, u64)]| {
                let mut set = StepSet::default();
                said.iter().for_each(|(author, what)| { set.insert(says(*author, *what)); });
                (set.digest(), set.len())
            };
            let before = collect(&said);
            if !said.is_empty() {
                for (a, b) in swaps {
                    let (a, b) = (a.index(said.len()), b.index(said.len()));
                    said.swap(a, b);
                }
            }
            prop_assert_eq!(before, collect(&said));
        }
    }
}
