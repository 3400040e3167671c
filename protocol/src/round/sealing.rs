//! The seal of the first step that has none: lists, proposals, votes, and what they lead to.

use super::{Closed, Event, Job, Now, Output, Product, RoundSet, State, state::Computing};
use crate::{
    genesis::{Reference, Start},
    ledger::StepSet,
    limits,
    message::{Content, Kind, Message, Step},
    seal::{
        Act, Ballot, Certificate, Engine, List, Proposal, Seal, Stage, Value, Vote, faults, proposer, quorum,
        set_digest, supported,
    },
    verdict::Reason,
};
use heterotune_crypto::{Digest, NodeId};
use serde_bytes::ByteBuf;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
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
pub(super) struct Sealing {
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
    miscomputed: bool,
    /// Sealers that have said two different things here; once is told.
    contradictory: BTreeSet<NodeId>,
}

impl Sealing {
    pub(super) fn wants(&self, id: &Digest) -> bool {
        self.wanted.contains(id)
    }

    pub(super) fn wanted(&self) -> impl Iterator<Item = &Digest> {
        self.wanted.iter()
    }

    /// Whether it has a message of the sealers, or one laid aside.
    pub(super) fn holds(&self, id: &Digest) -> bool {
        self.aside.contains_key(id) || self.said().any(|message| message.id() == *id)
    }

    /// What the sealers have said.
    pub(super) fn said(&self) -> impl Iterator<Item = &Arc<Message>> {
        let proposals = self.proposals.values().map(|heard| &heard.message);
        // Votes first: whoever takes them knows which proposals are near.
        self.lists.values().chain(self.votes.values()).chain(proposals)
    }

    pub(super) fn laid_aside(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.aside.values()
    }

    pub(super) fn lay_aside(&mut self, message: Arc<Message>) {
        if self.wanted.contains(&message.id()) {
            self.keep_aside(message);
        }
    }

    pub(super) fn keep_aside(&mut self, message: Arc<Message>) {
        self.aside.insert(message.id(), message);
    }

    /// A job has told what a set makes.
    pub(super) fn made(&mut self, set: Digest, product: Product) {
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
    pub(super) fn seal_on(&mut self, now: Now, out: &mut Vec<Output>) {
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

    /// A sealer that has closed the step says what it holds of it, once.
    fn list(&mut self, now: Now, out: &mut Vec<Output>) {
        let step = self.unsealed;
        let ready = self.is_sealer() && self.sync.may_speak() && !self.sealing.lists.contains_key(&self.me);
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
    fn is_ready_to_list(&mut self, now: Now) -> bool {
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

    fn start_engine(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.sealing.engine.is_some() || !self.is_sealer() || !self.sealing.lists.contains_key(&self.me) {
            return;
        }
        let Some(genesis) = self.genesis_of(self.unsealed) else { return };
        if !self.sync.may_speak() {
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

    pub(super) fn tick_engine(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.sealing.decided.is_none()
            && let Some(engine) = &mut self.sealing.engine
        {
            let acts = engine.tick(now);
            self.act(acts, now, out);
        }
    }

    fn act(&mut self, acts: Vec<Act>, now: Now, out: &mut Vec<Output>) {
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
    fn vote(&mut self, mut vote: Vote, now: Now, out: &mut Vec<Output>) -> Vec<Act> {
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
    fn is_locked_against(&self, vote: &Vote) -> bool {
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

    fn propose(&mut self, view: u32, value: Value, polka: Option<Certificate>, now: Now, out: &mut Vec<Output>) {
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
    fn find(&mut self, now: Now, out: &mut Vec<Output>) {
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
    fn weigh(&mut self, now: Now, out: &mut Vec<Output>) {
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

    /// The digest of what a set of the unsealed step makes; none while messages are missing or it is being computed.
    fn evaluate(&mut self, set: Digest, ids: &[Digest], out: &mut Vec<Output>) -> Option<Digest> {
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

    fn job(&self, set: Digest, messages: &StepSet) -> Option<Job> {
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

    /// Takes what a sealer says of the unsealed step. It is new, and its signature and shape are checked.
    pub(super) fn hear(&mut self, message: Arc<Message>, now: Now, out: &mut Vec<Output>) -> Result<(), Reason> {
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
    pub(super) fn check_near(&self, message: &Message) -> Result<(), Reason> {
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

    pub(super) fn check_turn(&self, message: &Message, proposal: &Proposal) -> Result<(), Reason> {
        let turn = proposer(&message.genesis, message.step, proposal.view, &self.context.charter.sealers);
        if turn == Some(message.author()) {
            return Ok(());
        }
        Err(Reason::Seal { what: "a proposal by somebody whose turn it is not" })
    }

    /// Whether a proposal's set is what a quorum's lists compute. That set.
    pub(super) fn check_proposal(&self, message: &Message, proposal: &Proposal) -> Result<Vec<Digest>, Reason> {
        let wrong = |what| Err(Reason::Seal { what });
        let sealers = &self.context.charter.sealers;
        let genesis = message.genesis;
        let mut lists = BTreeMap::new();
        for bytes in &proposal.lists {
            let list = self.context.verify_opened(self.context.open_or_recall(bytes)?, bytes)?;
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

    /// Gives a vote to the engine, and counts it towards the seal.
    fn count(&mut self, message: &Arc<Message>, now: Now, out: &mut Vec<Output>) {
        self.tally(message);
        let Content::Vote(vote) = message.signed.value() else { return };
        if let Some(engine) = &mut self.sealing.engine {
            let acts = engine.voted(vote, &ballot(message), now);
            self.act(acts, now, out);
        }
    }

    /// The precommits of a quorum are a certificate, whoever counts them.
    fn tally(&mut self, message: &Message) {
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
    pub(super) fn take_seal(&mut self, seal: Seal) -> Result<(), Reason> {
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

    /// Seals the step once a quorum has precommitted, its set is held, and what it makes is computed.
    fn decide(&mut self, now: Now, out: &mut Vec<Output>) {
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

    fn ids_of(&self, value: &Value) -> Option<Vec<Digest>> {
        let proposed = self.sealing.proposals.values().find_map(|heard| match heard.message.signed.value() {
            Content::Proposal(proposal) if proposal.value == *value => Some(heard.ids.clone()),
            _ => None,
        });
        let held = || self.ledger.get(self.unsealed).map(StepSet::ids).filter(|ids| set_digest(ids) == value.set);
        proposed.or_else(held)
    }

    /// The unsealed step is sealed: its set and its state are final.
    fn seal(&mut self, seal: Arc<Seal>, made: Made, now: Now, out: &mut Vec<Output>) {
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
        match made {
            Made::Reference(reference) => {
                out.push(Output::Seal { seal: seal.clone(), forget_before });
                self.referenced(&seal, reference, now, out);
            }
            Made::Start(start) => {
                out.push(Output::Seal { seal: seal.clone(), forget_before });
                self.started(&seal, &start, now, out);
            }
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
