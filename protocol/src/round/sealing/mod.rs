//! The seal of the first step that has none: what the sealers have said of it, and what is taken of that. What a sealer
//! says itself is in `voting`, what comes of it all in `deciding`.

mod deciding;
mod voting;

use super::{Closed, Event, Now, Output, Product, State};
use crate::{
    genesis::{Reference, Start},
    limits,
    message::{Content, Kind, Message},
    seal::{
        Ballot, Certificate, Engine, Proposal, Seal, Stage, Value, faults, proposer, quorum, set_digest, supported,
    },
    verdict::Reason,
};
use heterotune_crypto::{Digest, NodeId};
use serde_bytes::ByteBuf;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a set makes.
#[derive(Clone, Debug)]
enum Made {
    Reference(Arc<Reference>),
    Start(Arc<Start>),
    Round(Box<Closed>),
}

impl Made {
    fn digest(&self) -> Digest {
        match self {
            Made::Reference(reference) => reference.digest(),
            Made::Start(start) => super::genesis::start_digest(start),
            Made::Round(closed) => closed.digest,
        }
    }
}

/// A proposal, and the set that its lists compute.
#[derive(Debug)]
struct Heard {
    message: Arc<Message>,
    ids: Vec<Digest>,
    /// Whether the engine has it.
    weighed: bool,
}

/// A value to be found for a view, from the lists that were there when there were enough.
#[derive(Debug)]
struct Finding {
    view: u32,
    lists: Vec<Arc<Message>>,
    ids: Vec<Digest>,
}

/// All about the seal of one step.
#[derive(Debug, Default)]
pub(in crate::round) struct Sealing {
    lists: BTreeMap<NodeId, Arc<Message>>,
    proposals: BTreeMap<u32, Heard>,
    votes: BTreeMap<(u32, Stage, NodeId), Arc<Message>>,
    engine: Option<Engine>,
    finding: Option<Finding>,
    /// What sets make, by their digest.
    made: BTreeMap<Digest, (Digest, Made)>,
    /// Ids of the sets in question that this node does not hold.
    wanted: BTreeSet<Digest>,
    /// Entries of those sets that the ledger had no place for.
    aside: BTreeMap<Digest, Arc<Message>>,
    certificate: Option<Certificate>,
    decided: Option<Arc<Seal>>,
    /// Whether the disk has it already.
    is_kept: bool,
    miscomputed: bool,
    /// Sealers that have said two different things here; once is told.
    contradictory: BTreeSet<NodeId>,
}

impl Sealing {
    pub(in crate::round) fn wants(&self, id: &Digest) -> bool {
        self.wanted.contains(id)
    }

    pub(in crate::round) fn wanted(&self) -> impl Iterator<Item = &Digest> {
        self.wanted.iter()
    }

    /// Whether it has a message of the sealers, or one laid aside.
    pub(in crate::round) fn holds(&self, id: &Digest) -> bool {
        self.aside.contains_key(id) || self.said().any(|message| message.id() == *id)
    }

    /// What the sealers have said.
    pub(in crate::round) fn said(&self) -> impl Iterator<Item = &Arc<Message>> {
        let proposals = self.proposals.values().map(|heard| &heard.message);
        // Votes first: whoever takes them knows which proposals are near.
        self.lists.values().chain(self.votes.values()).chain(proposals)
    }

    pub(in crate::round) fn laid_aside(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.aside.values()
    }

    /// Keeps an entry that the ledger has no place for, if it is in one of the sets in question, or in what `me` has
    /// listed and a proposer may have settled on.
    pub(in crate::round) fn lay_aside(&mut self, message: Arc<Message>, me: &NodeId) {
        let listed = self.lists.get(me).is_some_and(|said| match said.signed.value() {
            Content::List(list) => list.ids.binary_search(&message.id()).is_ok(),
            _ => false,
        });
        if listed || self.wanted.contains(&message.id()) {
            self.keep_aside(message);
        }
    }

    pub(in crate::round) fn keep_aside(&mut self, message: Arc<Message>) {
        self.aside.insert(message.id(), message);
    }

    /// A job has told what a set makes.
    pub(in crate::round) fn made(&mut self, set: Digest, product: Product) {
        let made = match product {
            Product::Reference(reference) => Made::Reference(reference),
            Product::Start(start) => Made::Start(start),
            Product::Fold(closed) => match closed.into_iter().next() {
                Some(closed) => Made::Round(Box::new(closed)),
                None => return,
            },
        };
        self.made.insert(set, (made.digest(), made));
    }

    /// The view that the sealers are in, as far as this node knows: the engine's, or one that somebody honest is in.
    fn view(&self, faults: usize) -> u32 {
        let mut newest: BTreeMap<NodeId, u32> = BTreeMap::new();
        for (view, _, sealer) in self.votes.keys() {
            newest.insert(*sealer, *view);
        }
        let mut views: Vec<_> = newest.into_values().collect();
        views.sort_by(|a, b| b.cmp(a));
        let honest = views.get(faults).copied().unwrap_or(0);
        self.engine.as_ref().map_or(0, Engine::view).max(honest)
    }

    /// What a sealer has last precommitted, and in which view.
    fn lock(&self, sealer: &NodeId) -> Option<(u32, Value)> {
        self.votes.iter().rev().find_map(|((view, stage, author), message)| match message.signed.value() {
            Content::Vote(vote) if author == sealer && *stage == Stage::Precommit => Some((*view, vote.value?)),
            _ => None,
        })
    }

    /// The lists that a value was proposed with.
    fn grounds(&self, value: &Value) -> Option<Vec<ByteBuf>> {
        self.proposals.values().find_map(|heard| match heard.message.signed.value() {
            Content::Proposal(proposal) if proposal.value == *value => Some(proposal.lists.clone()),
            _ => None,
        })
    }

    /// Forgets what nobody needs any more of earlier views.
    fn prune(&mut self, view: u32, me: &NodeId) {
        let first = view.saturating_sub(limits::VIEWS_KEPT);
        // What the engine would propose again it needs the lists of.
        let valid = self.engine.as_ref().and_then(Engine::valid);
        let again = self.proposals.iter().rev().find_map(|(view, heard)| match heard.message.signed.value() {
            Content::Proposal(proposal) if Some(proposal.value) == valid => Some(*view),
            _ => None,
        });
        self.proposals.retain(|view, _| *view >= first || Some(*view) == again);
        // A sealer with an old disk must learn from the others what it is locked on.
        let sealers: BTreeSet<_> = self.votes.keys().map(|(_, _, sealer)| *sealer).collect();
        let locks: BTreeMap<_, _> = sealers.iter().filter_map(|sealer| Some((*sealer, self.lock(sealer)?.0))).collect();
        self.votes.retain(|(view, stage, sealer), _| {
            let locked = *stage == Stage::Precommit && locks.get(sealer) == Some(view);
            *view >= first || sealer == me || locked
        });
    }
}

fn ballot(message: &Message) -> Ballot {
    let signature = *message.signed.signature();
    Ballot { sealer: message.author(), sequence: message.sequence, signature }
}

impl State {
    /// Does what can be done now for the seal of the first step that has none, and for the next.
    pub(in crate::round) fn seal_on(&mut self, now: Now, out: &mut Vec<Output>) {
        while !self.is_finished() {
            let unsealed = self.unsealed;
            self.sealing.wanted.clear();
            // Of what is decided nothing more is said; after a restart that could contradict what was said before.
            if self.sealing.decided.is_none() {
                self.list(now, out);
                self.start_engine(now, out);
                self.find(now, out);
                self.weigh(now, out);
            }
            self.decide(now, out);
            if self.unsealed == unsealed {
                break;
            }
        }
    }

    /// Takes what a sealer says of the unsealed step. It is new, and its signature and shape are checked.
    pub(in crate::round) fn hear(
        &mut self,
        message: Arc<Message>,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Result<(), Reason> {
        let author = message.author();
        let contradiction = Err(Reason::Equivocation { author });
        let mut far = false;
        match message.signed.value() {
            Content::List(_) => {
                if self.sealing.lists.contains_key(&author) {
                    self.tell_contradiction(&message, out);
                    return contradiction;
                }
                self.sealing.lists.insert(author, message.clone());
            }
            Content::Proposal(proposal) => {
                self.check_turn(&message, proposal)?;
                if self.sealing.proposals.contains_key(&proposal.view) {
                    self.tell_contradiction(&message, out);
                    return contradiction;
                }
                let ids = self.check_proposal(&message, proposal)?;
                let heard = Heard { message: message.clone(), ids, weighed: false };
                self.sealing.proposals.insert(proposal.view, heard);
            }
            Content::Vote(vote) => {
                let key = (vote.view, vote.stage, author);
                if self.sealing.votes.contains_key(&key) {
                    self.tell_contradiction(&message, out);
                    return contradiction;
                }
                let of_author: Vec<_> =
                    self.sealing.votes.keys().filter(|(_, _, sealer)| *sealer == author).copied().collect();
                if of_author.len() >= 2 * limits::VIEWS_AHEAD_MAX && author != self.me {
                    if key < of_author[0] {
                        return Err(Reason::Duplicate);
                    }
                    self.sealing.votes.remove(&of_author[0]);
                }
                self.sealing.votes.insert(key, message.clone());
                self.count(&message, now, out);
                // A liar may vote in all views, to the last; on disk only what is near takes room.
                let view = self.sealing.engine.as_ref().map_or(0, Engine::view);
                far = vote.view > view.saturating_add(limits::VIEWS_AHEAD_MAX as u32);
            }
            _ => return Ok(()),
        }
        if self.is_sealer() && (author == self.me || (message.kind != Kind::List && !far)) {
            out.push(Output::Keep(message));
        }
        Ok(())
    }

    /// Of proposals only those near the view that the sealers are in are taken from others: a liar may propose in all of
    /// its turns, to the last.
    pub(in crate::round) fn check_near(&self, message: &Message) -> Result<(), Reason> {
        let Content::Proposal(proposal) = message.signed.value() else { return Ok(()) };
        let view = self.sealing.view(faults(self.context.charter.sealers.len()));
        if proposal.view.abs_diff(view) > limits::VIEWS_KEPT { Err(Reason::Duplicate) } else { Ok(()) }
    }

    fn tell_contradiction(&mut self, message: &Message, out: &mut Vec<Output>) {
        let (author, kind, round) = (message.author(), message.kind, message.step.round());
        if self.sealing.contradictory.insert(author) {
            out.push(Output::Tell(Event::Conflict { author, kind, round }));
        }
    }

    pub(in crate::round) fn check_turn(&self, message: &Message, proposal: &Proposal) -> Result<(), Reason> {
        let turn = proposer(&message.genesis, message.step, proposal.view, &self.context.charter.sealers);
        if turn == Some(message.author()) {
            return Ok(());
        }
        Err(Reason::Seal { what: "a proposal by somebody whose turn it is not" })
    }

    /// Whether a proposal's set is what a quorum's lists compute. That set.
    pub(in crate::round) fn check_proposal(
        &self,
        message: &Message,
        proposal: &Proposal,
    ) -> Result<Vec<Digest>, Reason> {
        let wrong = |what| Err(Reason::Seal { what });
        let sealers = &self.context.charter.sealers;
        let genesis = message.genesis;
        let mut lists = BTreeMap::new();
        for bytes in &proposal.lists {
            let list = match self.sealing.lists.values().find(|held| held.bytes == **bytes) {
                // Verified when it came.
                Some(held) => held.clone(),
                None => self.context.verify_opened(self.context.open_or_recall(bytes)?, bytes)?,
            };
            if list.step != message.step || list.genesis != genesis || list.kind != Kind::List {
                return wrong("a list of another step");
            }
            if lists.insert(list.author(), list).is_some() {
                return wrong("two lists by one sealer");
            }
        }
        if lists.len() < quorum(sealers.len()) {
            return wrong("the lists of less than a quorum");
        }
        let contents = lists.values().filter_map(|message| match message.signed.value() {
            Content::List(list) => Some(list),
            _ => None,
        });
        let ids = supported(contents, faults(sealers.len()));
        if ids.len() > limits::SEALED_IDS_MAX || set_digest(&ids) != proposal.value.set {
            return wrong("a set that its lists do not compute");
        }
        if proposal.polka.as_ref().is_some_and(|polka| !self.context.certifies(&genesis, message.step, polka)) {
            return wrong("a proof of votes that does not verify");
        }
        Ok(ids)
    }
}
