//! What liars say: whatever the bytes tell, out of what they have heard, under their own signatures.

use super::{
    bytes::Bytes,
    cast::{Cast, MEMBERS, STRANGERS, identity, kernels, key, statistics},
};
use heterotune_crypto::{Digest, NodeId};
use heterotune_protocol::{
    admission::Membership,
    codec::Group,
    enrolment::Enrolment,
    ledger::StepSet,
    limits,
    message::{Batch, Content, Context, Head, Message, Pull, Snapshot, StateBytes, Step},
    round::Checkpoint,
    seal::{Ballot, Certificate, List, Proposal, Seal, Stage, Value, Vote, faults, set_digest, supported},
    wire,
};
use serde_bytes::ByteBuf;
use std::{collections::BTreeMap, mem::discriminant, sync::Arc};

/// How much liars remember of each kind.
const HEARD_MAX: usize = 512;

/// What liars have heard.
pub struct Heard {
    context: Arc<Context>,
    cast: Cast,
    /// All messages, their own too.
    pub messages: Vec<Arc<Message>>,
    /// All seals.
    pub seals: Vec<Seal>,
    /// All states.
    pub states: Vec<Checkpoint>,
    sequence: u64,
}

impl Heard {
    /// Nothing yet.
    pub fn new(context: Arc<Context>, cast: Cast) -> Self {
        Self { context, cast, messages: Vec::new(), seals: Vec::new(), states: Vec::new(), sequence: 0 }
    }

    /// Remembers a message.
    pub fn hear(&mut self, message: &Arc<Message>) {
        let again = self.messages.iter().rev().take(8).any(|heard| heard.id() == message.id());
        if self.messages.len() < HEARD_MAX && !again {
            self.messages.push(message.clone());
        }
    }

    fn of(&self, step: Step) -> Vec<Arc<Message>> {
        self.messages.iter().filter(|message| message.step == step).cloned().collect()
    }

    /// What messages of a step name as genesis, as far as any has told.
    fn genesis(&self, step: Step) -> Digest {
        let like = |message: &&Arc<Message>| discriminant(&message.step) == discriminant(&step);
        self.messages.iter().rev().find(like).map_or(Digest::ZERO, |message| message.genesis)
    }

    /// A step near `step`, mostly.
    pub fn near(bytes: &mut Bytes, step: Step) -> Step {
        match bytes.byte() % 8 {
            0..=4 => step,
            5 => step.next(),
            6 => Step::Round(bytes.number()),
            _ => *bytes.pick(&[Step::Kernels, Step::Statistics, Step::Round(1)]).unwrap_or(&step),
        }
    }

    /// Liars say something about a step: one of them, or all of them the same.
    pub fn say(&mut self, bytes: &mut Bytes, author: usize, step: Step) -> Vec<Arc<Message>> {
        let mut authors = if bytes.once_in(3) { self.cast.honest..MEMBERS + STRANGERS } else { author..author + 1 };
        let Some(content) = self.content(bytes, author, step) else { return Vec::new() };
        if matches!(content, Content::Enrolment(_)) {
            authors = MEMBERS..MEMBERS + STRANGERS;
        }
        let genesis = if bytes.once_in(16) { Digest::ZERO } else { self.genesis(step) };
        let sign = |author| Some(Arc::new(self.sign(author, genesis, step, content.clone())?));
        let messages: Vec<_> = authors.filter_map(sign).collect();
        messages.iter().for_each(|message| self.hear(message));
        messages
    }

    fn sign(&mut self, author: usize, genesis: Digest, step: Step, content: Content) -> Option<Message> {
        self.sequence += 1;
        self.context.say(identity(author), genesis, step, self.sequence, content).ok()
    }

    fn content(&mut self, bytes: &mut Bytes, author: usize, step: Step) -> Option<Content> {
        let charter = &self.context.charter;
        Some(match bytes.byte() % 9 {
            0 => match if bytes.once_in(16) { Self::near(bytes, step) } else { step } {
                Step::Kernels => Content::Kernels(kernels(charter, author, bytes.byte())?),
                Step::Statistics => Content::Statistics(statistics(charter, author, bytes.byte())?),
                Step::Round(_) => Content::Update(self.update(bytes)),
            },
            1 => Content::List(self.list(bytes, step)),
            2 => {
                let value = if bytes.once_in(4) { None } else { Some(self.value(bytes, step)) };
                Content::Vote(Vote { view: bytes.below(4) as u32, stage: stage(bytes), value })
            }
            3 => Content::Proposal(self.proposal(bytes, step)),
            4 => {
                let unsealed = Self::near(bytes, step);
                Content::Head(Head { unsealed, state: self.digest(bytes), sets: self.digest(bytes) })
            }
            5 => Content::Enrolment(self.enrolment(bytes)?),
            // The same as somebody else.
            _ => bytes.pick(&self.of(step))?.signed.value().clone(),
        })
    }

    /// A stranger's: without a membership, with an admin's, or with a liar's own.
    fn enrolment(&self, bytes: &mut Bytes) -> Option<Enrolment> {
        let admin = match bytes.byte() % 4 {
            0 => return Some(Enrolment { membership: None }),
            1 => identity(MEMBERS),
            _ => identity(MEMBERS - 1),
        };
        let (member, expires) = (key(MEMBERS + bytes.below(STRANGERS)), bytes.number());
        Some(Enrolment { membership: Some(Membership::sign(admin, &self.context.network, member, expires).ok()?) })
    }

    fn update(&self, bytes: &mut Bytes) -> Vec<Group> {
        let codec = &self.context.charter.codec;
        let exponents = [codec.exponent_min, codec.exponent_max, -10];
        let group = |values: usize| {
            let exponent = *bytes.pick(&exponents).unwrap_or(&0);
            let (sign, scale) = (bytes.byte(), bytes.pick(&[1, 127, (1 << 23) - 1, 3]).copied().unwrap_or(1));
            let mantissas = (0..values).map(|at| if sign >> (at % 8) & 1 == 1 { -scale } else { scale });
            Group { exponent, mantissas: mantissas.collect() }
        };
        self.context.layout.groups().iter().map(|shape| shape.values()).map(group).collect()
    }

    fn list(&self, bytes: &mut Bytes, step: Step) -> List {
        let mut ids = self.ids(bytes, step);
        if bytes.once_in(16) {
            ids.reverse();
        }
        List { ids }
    }

    /// Ids of a step: those that a list or seal names, or some of its entries and what else was said.
    fn ids(&self, bytes: &mut Bytes, step: Step) -> Vec<Digest> {
        let said = self.of(step);
        let mut entries = StepSet::default();
        for message in said.iter().filter(|message| message.kind.is_entry()) {
            entries.insert(message.clone());
        }
        let all = entries.ids();
        let mut ids = match bytes.byte() % 4 {
            0 | 1 => all,
            2 => bytes.some(&all),
            _ => bytes.some(&said).iter().map(|message| message.id()).collect(),
        };
        if bytes.once_in(8) {
            ids.push(self.digest(bytes));
        }
        ids.sort();
        ids.dedup();
        ids
    }

    /// A digest that somebody named, or nobody.
    fn digest(&self, bytes: &mut Bytes) -> Digest {
        match bytes.byte() % 4 {
            0 => bytes.pick(&self.states).map_or(Digest::ZERO, Checkpoint::digest),
            1 => bytes.pick(&self.messages).map_or(Digest::ZERO, |message| message.id()),
            2 => Digest::of("fuzz", &[&[bytes.byte()]]),
            _ => Digest::ZERO,
        }
    }

    /// A value that somebody proposed or voted for, or nobody.
    fn value(&self, bytes: &mut Bytes, step: Step) -> Value {
        let said = self.of(step);
        let named = said.iter().filter_map(|message| match message.signed.value() {
            Content::Vote(vote) => vote.value,
            Content::Proposal(proposal) => Some(proposal.value),
            _ => None,
        });
        let named: Vec<_> = named.collect();
        let made_up = bytes.once_in(4);
        match bytes.pick(&named) {
            Some(value) if !made_up => *value,
            _ => Value { set: set_digest(&self.ids(bytes, step)), state: self.digest(bytes) },
        }
    }

    fn proposal(&mut self, bytes: &mut Bytes, step: Step) -> Proposal {
        let mut lists: BTreeMap<NodeId, Arc<Message>> = BTreeMap::new();
        for message in self.of(step) {
            if matches!(message.signed.value(), Content::List(_)) {
                lists.entry(message.author()).or_insert(message);
            }
        }
        let mut lists: Vec<_> = lists.into_values().collect();
        if bytes.once_in(4) {
            lists = bytes.some(&lists);
        }
        let contents = lists.iter().filter_map(|message| match message.signed.value() {
            Content::List(list) => Some(list),
            _ => None,
        });
        let set = set_digest(&supported(contents, faults(self.context.charter.sealers.len())));
        let mut value = self.value(bytes, step);
        if !bytes.once_in(8) {
            value.set = set;
        }
        let view = bytes.below(6) as u32;
        let polka = (bytes.once_in(4) && view > 0)
            .then(|| self.certificate(step, bytes.below(view as usize) as u32, Stage::Prevote, value));
        let lists = lists.iter().map(|list| ByteBuf::from(list.bytes.clone())).collect();
        Proposal { view, value, polka, lists }
    }

    /// All votes for this that were heard, and those of the lying sealers.
    fn certificate(&mut self, step: Step, view: u32, stage: Stage, value: Value) -> Certificate {
        let vote = Vote { view, stage, value: Some(value) };
        let ballot = |message: &Message| Ballot {
            sealer: message.author(),
            sequence: message.sequence,
            signature: *message.signed.signature(),
        };
        let same = |message: &&Arc<Message>| *message.signed.value() == Content::Vote(vote.clone());
        let heard = self.of(step);
        let heard = heard.iter().filter(same).map(|message| (message.author(), ballot(message)));
        let mut ballots: BTreeMap<_, _> = heard.collect();
        let genesis = self.genesis(step);
        for liar in self.cast.honest..self.cast.sealers {
            if let Some(message) = self.sign(liar, genesis, step, Content::Vote(vote.clone())) {
                ballots.insert(message.author(), ballot(&message));
            }
        }
        Certificate { view, stage, value, ballots: ballots.into_values().collect() }
    }

    fn seal(&mut self, bytes: &mut Bytes, step: Step, state: Option<Digest>) -> Seal {
        let ids = self.ids(bytes, step);
        let state = state.unwrap_or_else(|| self.value(bytes, step).state);
        let value = Value { set: set_digest(&ids), state };
        let certificate = self.certificate(step, bytes.below(4) as u32, Stage::Precommit, value);
        let mut seal = Seal { step, ids, certificate };
        if bytes.once_in(8) {
            alter_seal(bytes, &mut seal);
        }
        seal
    }

    fn snapshot(&mut self, bytes: &mut Bytes) -> Option<Snapshot> {
        let mut state = bytes.pick(&self.states)?.clone();
        state.round = state.round.saturating_add(bytes.below(4) as u64);
        (0..bytes.below(4)).for_each(|_| alter_state(bytes, &mut state));
        let step = Step::Round(state.round.saturating_sub(1));
        let seal = self.seal(bytes, step, Some(state.digest()));
        let mut state = wire::encode(&state, limits::STATE_BYTES_MAX).ok()?;
        if bytes.once_in(8) {
            bytes.garble(&mut state);
        }
        Some(Snapshot { seal, state: StateBytes::Here(state.into()) })
    }

    /// What a liar answers to a pull.
    pub fn answer(&mut self, bytes: &mut Bytes, step: Step) -> Batch {
        let step = Self::near(bytes, step);
        let (open, unsealed) = (Self::near(bytes, step), Self::near(bytes, step));
        let mut messages: Vec<ByteBuf> = Vec::new();
        for _ in 0..bytes.below(8) {
            messages.extend(bytes.pick(&self.messages).map(|message| ByteBuf::from(message.bytes.clone())));
        }
        let more = bytes.once_in(4);
        let (mut seal, mut snapshot) = (None, None);
        match bytes.byte() % 4 {
            0 => seal = bytes.pick(&self.seals).cloned().map(Box::new),
            1 => seal = Some(Box::new(self.seal(bytes, step, None))),
            2 => snapshot = self.snapshot(bytes).map(Box::new),
            _ => {}
        }
        Batch { step, open, unsealed, more, messages, seal, snapshot }
    }

    /// What a liar asks for.
    pub fn ask(&self, bytes: &mut Bytes, step: Step) -> Pull {
        let step = Self::near(bytes, step);
        Pull { step, have: self.ids(bytes, step), want: self.ids(bytes, step) }
    }
}

fn stage(bytes: &mut Bytes) -> Stage {
    if bytes.once_in(2) { Stage::Precommit } else { Stage::Prevote }
}

/// Changes a seal somewhere.
pub fn alter_seal(bytes: &mut Bytes, seal: &mut Seal) {
    let certificate = &mut seal.certificate;
    match bytes.byte() % 8 {
        0 => seal.step = Heard::near(bytes, seal.step),
        1 => drop(seal.ids.pop()),
        2 => seal.ids.push(Digest::of("fuzz", &[&[bytes.byte()]])),
        3 => certificate.stage = stage(bytes),
        4 => certificate.view = bytes.number() as u32,
        5 => drop(certificate.ballots.pop()),
        6 => certificate.value.state = Digest::of("fuzz", &[&[bytes.byte()]]),
        _ => certificate.ballots.extend(certificate.ballots.first().cloned()),
    }
}

/// Changes a state somewhere.
pub fn alter_state(bytes: &mut Bytes, state: &mut Checkpoint) {
    let who = match bytes.below(MEMBERS + 2) {
        MEMBERS => NodeId::LOWEST,
        member if member < MEMBERS => key(member),
        _ => NodeId::from_bytes([bytes.byte(); 32]),
    };
    let any = |bytes: &mut Bytes| match bytes.byte() % 4 {
        0 => i64::MIN,
        1 => i64::MAX,
        _ => (bytes.number() as i64).wrapping_sub(8),
    };
    match bytes.byte() % 8 {
        0 => state.round = bytes.number(),
        1 => {
            let group = bytes.byte();
            let value = any(bytes);
            let groups = state.mixture.groups.iter_mut().enumerate();
            groups.filter(|(at, _)| group >> at & 1 == 1).for_each(|(_, values)| values.fill(value));
        }
        2 => drop(state.mixture.groups.pop()),
        3 => drop(state.memory.0.insert(who, any(bytes))),
        4 => drop(state.banned.insert(who, bytes.number())),
        5 if bytes.once_in(2) => drop(state.enrolled.insert(who, bytes.number())),
        5 => state.past.clear(),
        6 => state.past.push(Digest::of("fuzz", &[&[bytes.byte()]])),
        _ => state.genesis = Digest::of("fuzz", &[&[bytes.byte()]]),
    }
}
