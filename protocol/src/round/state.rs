//! The machine's state, and what happens in what order.

use super::{
    Checkpoint, Event, Input, Now, Output, Work, fetch::Fetches, receive::Costs, sealing::Sealing, sync::Sync,
};
use crate::{
    admission::Membership,
    charter::Closing,
    ledger::{Entry, Ledger},
    message::{Content, Context, Kind, Message, Step},
    roster,
    seal::Seal,
};
use heterotune_crypto::{Digest, Identity, NodeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a node finds on its disk when it starts again.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// The messages that it kept.
    pub messages: Vec<Vec<u8>>,
    /// What those only announce, by the digest of its manifest.
    pub bodies: BTreeMap<Digest, Vec<u8>>,
    /// Pieces of what it was fetching, by the digest of the manifest.
    pub pieces: BTreeMap<Digest, BTreeMap<u32, Vec<u8>>>,
    /// The last states that it kept.
    pub checkpoints: Vec<Checkpoint>,
    /// The seals that it kept.
    pub seals: Vec<Seal>,
}

impl Saved {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.checkpoints.is_empty() && self.seals.is_empty()
    }
}

/// A state of the mixture, and its digest.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) state: Arc<Checkpoint>,
    pub(super) digest: Digest,
}

/// What a job under way is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Computing {
    /// To close the open round, or to fold closed ones again.
    Close,
    /// To know what a set makes of the first step that is not sealed.
    Set(Digest),
}

/// A member of a network.
#[derive(Debug)]
pub struct State {
    pub(super) context: Arc<Context>,
    pub(super) identity: Identity,
    pub(super) me: NodeId,
    /// The open step. After the last round it stays at one round more.
    pub(super) step: Step,
    pub(super) opened_at: Now,
    /// How often the open step's deadline has passed.
    deadlines: u64,
    /// The first step that is not sealed; at most the open one.
    pub(super) unsealed: Step,
    /// What messages of the second half of genesis name as genesis, and what those of rounds do, once it is known.
    pub(super) first_half: Option<Digest>,
    pub(super) genesis: Option<Digest>,
    /// Whom the first half of genesis has left out.
    pub(super) left_out: Vec<NodeId>,
    pub(super) ledger: Ledger,
    /// Verified messages of steps that are not known well enough yet to judge them.
    pub(super) early: BTreeMap<(Step, Kind, NodeId), (NodeId, Vec<u8>)>,
    /// The states before rounds: the first is sealed, those after it are provisional.
    pub(super) states: BTreeMap<u64, Known>,
    /// The seals of genesis and of the last rounds.
    pub(super) seals: BTreeMap<Step, Arc<Seal>>,
    contributors: BTreeMap<u64, Arc<BTreeSet<NodeId>>>,
    /// The round that the trainer was last asked to train.
    pub(super) asked: u64,
    /// The first closed round that has changed since it was folded.
    pub(super) dirty: Option<u64>,
    pub(super) computing: Option<Computing>,
    /// Deadlines in a row that a member has missed.
    pub(super) silent: BTreeMap<NodeId, u64>,
    /// The round that it was told of to wait for a seal.
    pub(super) told_waiting: u64,
    pub(super) sequence: u64,
    /// What lets this node in, where the charter does not name it, and the round in which it last said that it wants to
    /// be a member.
    pub(super) membership: Option<Membership>,
    pub(super) enrolling: u64,
    pub(super) saved: Saved,
    pub(super) sync: Sync,
    pub(super) sealing: Sealing,
    pub(super) fetches: Fetches,
    /// What failed verification, by who sent it on; whose heads were verified, and strangers' enrolments.
    pub(super) floods: Costs,
    pub(super) head_floods: Costs,
    pub(super) enrolment_floods: Costs,
}

impl State {
    /// A member that starts, or starts again with what it had saved.
    pub fn new(context: Arc<Context>, identity: Identity, saved: Saved) -> Self {
        let sync = Sync::new(!saved.is_empty());
        Self {
            me: identity.id(),
            context,
            identity,
            step: Step::Kernels,
            opened_at: 0,
            deadlines: 0,
            unsealed: Step::Kernels,
            first_half: None,
            genesis: None,
            left_out: Vec::new(),
            ledger: Ledger::default(),
            early: BTreeMap::new(),
            states: BTreeMap::new(),
            seals: BTreeMap::new(),
            contributors: BTreeMap::new(),
            asked: 0,
            dirty: None,
            computing: None,
            silent: BTreeMap::new(),
            told_waiting: 0,
            sequence: 0,
            membership: None,
            enrolling: 0,
            saved,
            sync,
            sealing: Sealing::default(),
            fetches: Fetches::default(),
            floods: Costs::default(),
            head_floods: Costs::default(),
            enrolment_floods: Costs::default(),
        }
    }

    /// Takes an input at a time; says what to do.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Start => self.start(now, &mut out),
            Input::Tick => self.tick(now, &mut out),
            Input::Message { ticket, from, bytes } => {
                let verdict = self.receive(from, &bytes, now, &mut out);
                out.push(Output::Judge { ticket, verdict });
            }
            Input::Contribution(contribution) => self.contribute(contribution, now, &mut out),
            Input::Computed(product) => self.computed(product, now, &mut out),
            Input::Connected(peer) => self.connected(peer, now, &mut out),
            Input::Disconnected(peer) => {
                self.sync.disconnected(&peer);
                self.fetches.disconnected(&peer);
            }
            Input::Asked { ticket, pull } => out.push(Output::Answer { ticket, batch: self.answer(&pull, now) }),
            Input::Answered { from, batch } => self.answered(from, batch, now, &mut out),
            Input::Unanswered { from } => self.sync.unanswered(&from, now),
            Input::AskedPiece { ticket, fetch } => {
                out.push(Output::Piece { ticket, piece: self.give_piece(fetch, now) });
            }
            Input::Piece { from, fetch, piece } => self.piece_came(from, fetch, piece, now, &mut out),
        }
        self.fetch_on(now, &mut out);
        self.close_if_complete(now, &mut out);
        self.seal_on(now, &mut out);
        self.pull_if_behind(now, &mut out);
        out
    }

    /// The open step.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The first step that is not sealed.
    pub fn unsealed(&self) -> Step {
        self.unsealed
    }

    /// Whether the last round is sealed.
    pub fn is_finished(&self) -> bool {
        self.is_beyond_the_end(self.unsealed)
    }

    pub(super) fn is_beyond_the_end(&self, step: Step) -> bool {
        let total = self.context.charter.rounds.total;
        matches!(step, Step::Round(round) if total > 0 && round > total)
    }

    /// Members that are not known to have sealed the last round with the same state.
    pub fn unfinished(&self) -> Vec<NodeId> {
        let (unsealed, digest) = (self.unsealed, self.sealed_digest());
        let done = |member: &NodeId| {
            self.sync.head(member).is_some_and(|(_, head)| head.unsealed >= unsealed && head.state == digest)
        };
        let others = self.members().filter(|member| **member != self.me);
        others.filter(|member| !done(member)).copied().collect()
    }

    /// The state that the closed rounds made, once genesis is done. Provisional until the node is finished.
    pub fn checkpoint(&self) -> Option<&Arc<Checkpoint>> {
        self.states.last_key_value().map(|(_, known)| &known.state)
    }

    /// The state that the sealed rounds made, once genesis is done.
    pub fn sealed(&self) -> Option<&Arc<Checkpoint>> {
        self.states.first_key_value().map(|(_, known)| &known.state)
    }

    pub(super) fn sealed_digest(&self) -> Digest {
        self.states.first_key_value().map_or(Digest::ZERO, |(_, known)| known.digest)
    }

    /// The f32 view of the newest mixture.
    pub(super) fn view(&self) -> Vec<Vec<f32>> {
        let exponent = self.context.charter.codec.exponent_min;
        self.checkpoint().map(|checkpoint| checkpoint.mixture.view(exponent)).unwrap_or_default()
    }

    pub(super) fn leads(&self) -> bool {
        self.context.charter.rounds.closing == Closing::Leader
    }

    pub(super) fn is_sealer(&self) -> bool {
        self.context.charter.sealers.contains(&self.me)
    }

    /// Who can have an entry in a step, as far as that is known yet.
    pub(super) fn contributors(&mut self, step: Step) -> Option<Arc<BTreeSet<NodeId>>> {
        if let Some(known) = self.contributors.get(&step.round()) {
            return Some(known.clone());
        }
        let drawn = match step {
            Step::Kernels | Step::Statistics => Arc::new(self.context.charter.founders.iter().copied().collect()),
            Step::Round(round) => {
                let (_, newest) = self.states.first_key_value()?;
                roster::contributors(&self.context, &newest.state, newest.digest, round)?
            }
        };
        self.contributors.insert(step.round(), drawn.clone());
        Some(drawn)
    }

    /// What messages of a step must name as genesis, if this node knows it yet.
    pub(super) fn genesis_of(&self, step: Step) -> Option<Digest> {
        match step {
            Step::Kernels => Some(Digest::ZERO),
            Step::Statistics => self.first_half,
            Step::Round(_) => self.genesis,
        }
    }

    /// Opens a step: takes in what came early or was saved, then asks for this node's own contribution.
    pub(super) fn enter(&mut self, step: Step, now: Now, out: &mut Vec<Output>) {
        self.step = step;
        self.opened_at = now;
        self.deadlines = 0;
        self.sync.entered(now);
        self.take_saved(now);
        self.take_early(now, out);
        if let Step::Round(round) = step
            && !self.is_beyond_the_end(step)
        {
            out.push(Output::Tell(Event::RoundOpened { round }));
        }
        self.ask_for_own(out);
        self.say_head(now, out);
    }

    /// Asks the trainer for the open step's contribution, once, if there is to be one. Who has spoken in this step
    /// before says the same again.
    pub(super) fn ask_for_own(&mut self, out: &mut Vec<Output>) {
        let height = self.step.height();
        if self.asked > height || self.is_beyond_the_end(self.step) || !self.sync.may_speak() || self.is_behind() {
            return;
        }
        if !self.contributors(self.step).is_some_and(|contributors| contributors.contains(&self.me)) {
            return;
        }
        self.asked = height + 1;
        match self.ledger.get(self.step).and_then(|set| set.get(&self.me)) {
            Some(Entry::One(message)) => out.push(Output::Publish(message.clone())),
            Some(Entry::Conflict(..)) => {}
            None if self.has_announced(self.step) => {}
            None => out.push(Output::Train(match self.step {
                Step::Kernels => Work::Kernels,
                Step::Statistics => Work::Statistics,
                Step::Round(round) => Work::Round { round, mixture: self.view() },
            })),
        }
    }

    /// Signs something, with a sequence number above all before it. The clock makes it grow across restarts too.
    pub(super) fn say(
        &mut self,
        step: Step,
        content: Content,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Option<Arc<Message>> {
        let genesis = self.genesis_of(step)?;
        self.sequence = now.max(self.sequence.saturating_add(1));
        match self.context.say(&self.identity, genesis, step, self.sequence, content) {
            Ok(message) => Some(Arc::new(message)),
            Err(error) => {
                out.push(Output::Tell(Event::Unsayable { reason: error.to_string() }));
                None
            }
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.is_beyond_the_end(self.step) && self.computing.is_none() {
            let deadline = self.context.charter.rounds.deadline_ms.saturating_mul(self.deadlines + 1);
            if now >= self.opened_at.saturating_add(deadline) {
                self.deadlines += 1;
                let missing = self.missing();
                out.push(Output::Tell(match missing.is_empty() {
                    false => Event::DeadlineMissed { round: self.step.round(), missing },
                    true => Event::SealOverdue { round: self.unsealed.round(), silent: self.silent_sealers() },
                }));
            }
        }
        self.ask_for_own(out);
        self.tick_engine(now, out);
        self.keep_in_step(now, out);
    }

    /// Forgets what nobody will ask for any more.
    pub(super) fn trim(&mut self) {
        let first = self.first_kept();
        self.ledger.forget_before(first);
        self.seals.retain(|step, _| step.round() == 0 || step.round() >= first);
        let unsealed = self.unsealed.round();
        self.contributors.retain(|round, _| *round >= unsealed);
        let earliest = self.unsealed;
        self.early.retain(|(step, _, _), _| *step >= earliest);
        self.fetches.trim(earliest);
        self.floods.trim();
        self.head_floods.trim();
        self.enrolment_floods.trim();
    }

    /// The first round whose messages are kept for peers; who is further behind takes a snapshot.
    pub(super) fn first_kept(&self) -> u64 {
        self.unsealed.round().saturating_sub(u64::from(self.context.charter.rounds.horizon))
    }
}
