//! The machine's state, and how messages, contributions and closes change it.

use super::{Checkpoint, Contribution, Event, Input, Job, Now, Output, Product, RoundSet, Work, sync::Sync};
use crate::{
    charter::{Alignment, Readout},
    genesis::{Reference, Start},
    ledger::{Entry, Inserted, Ledger},
    limits,
    message::{Content, Context, Head, Message, Step},
    mixture::Mixture,
    verdict::{Reason, Verdict},
};
use heterotune_crypto::{Digest, Hasher, Identity, NodeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a node finds on its disk when it starts again.
#[derive(Debug, Default)]
pub struct Saved {
    /// The messages that it kept.
    pub messages: Vec<Vec<u8>>,
    /// The last states that it kept.
    pub checkpoints: Vec<Checkpoint>,
}

/// A member of a network.
#[derive(Debug)]
pub struct State {
    pub(super) context: Arc<Context>,
    pub(super) identity: Identity,
    /// The open step. After the last round it stays at one round more.
    pub(super) step: Step,
    pub(super) opened_at: Now,
    /// How often the open step's deadline has passed.
    deadlines: u64,
    /// What signatures of the open step name as genesis.
    pub(super) genesis: Digest,
    /// The digest of the first half of genesis, once it is known.
    first_half: Option<Digest>,
    reference: Option<Arc<Reference>>,
    left_out: Vec<NodeId>,
    pub(super) ledger: Ledger,
    /// Verified messages of a step whose genesis is not known here yet: at most one an author and step.
    early: BTreeMap<(Step, NodeId), (NodeId, Vec<u8>)>,
    /// The state before each of the last rounds, by round.
    pub(super) checkpoints: BTreeMap<u64, Arc<Checkpoint>>,
    /// The digest of the newest of them.
    pub(super) state_digest: Digest,
    /// The round that the trainer was last asked to train.
    asked: u64,
    /// The first closed round that has got a late update since.
    dirty: Option<u64>,
    /// Rounds, or a genesis step, that a job is computing now.
    pub(super) computing: bool,
    /// A peer has closed the open step, and we hold all that it held.
    pub(super) released: bool,
    /// The network may be ahead of what this node knows (it was away): it trains no round before a peer has said that
    /// it is open. An update for a closed round would reopen it for everybody.
    pub(super) unsure: bool,
    pub(super) unsure_since: Now,
    /// Deadlines in a row that a member has missed.
    silent: BTreeMap<NodeId, u64>,
    sequence: u64,
    saved: Saved,
    pub(super) sync: Sync,
}

impl State {
    /// A member that starts, or starts again with what it had saved.
    pub fn new(context: Arc<Context>, identity: Identity, saved: Saved) -> Self {
        Self {
            context,
            identity,
            step: Step::Kernels,
            opened_at: 0,
            deadlines: 0,
            genesis: Digest::ZERO,
            first_half: None,
            reference: None,
            left_out: Vec::new(),
            ledger: Ledger::default(),
            early: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            state_digest: Digest::ZERO,
            asked: 0,
            dirty: None,
            computing: false,
            released: false,
            unsure: !saved.messages.is_empty(),
            unsure_since: 0,
            silent: BTreeMap::new(),
            sequence: 0,
            saved,
            sync: Sync::default(),
        }
    }

    /// Takes an input at a time; says what to do.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Start => self.start(now, &mut out),
            Input::Tick => self.tick(now, &mut out),
            Input::Message { ticket, from, bytes } => {
                let verdict = self.receive(from, &bytes, &mut out);
                out.push(Output::Judge { ticket, verdict });
                self.close_if_complete(now, &mut out);
            }
            Input::Contribution(contribution) => {
                self.contribute(contribution, now, &mut out);
                self.close_if_complete(now, &mut out);
            }
            Input::Computed(product) => self.computed(product, now, &mut out),
            Input::Connected(peer) => self.connected(peer, now, &mut out),
            Input::Disconnected(peer) => self.disconnected(&peer),
            Input::Asked { ticket, pull } => out.push(Output::Answer { ticket, batch: self.answer(&pull) }),
            Input::Answered { from, batch } => {
                self.answered(from, batch, now, &mut out);
                self.close_if_complete(now, &mut out);
            }
            Input::Unanswered { from } => self.sync.unanswered(&from, now),
        }
        self.pull_if_behind(now, &mut out);
        out
    }

    /// The open step.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Whether the last round is closed.
    pub fn is_finished(&self) -> bool {
        let total = self.context.charter.rounds.total;
        matches!(self.step, Step::Round(round) if total > 0 && round > total)
    }

    /// Whether all that has come for closed rounds is folded in.
    pub fn is_settled(&self) -> bool {
        !self.computing && self.dirty.is_none()
    }

    /// Members that are not known to have closed the last round with the same state.
    pub fn unfinished(&self) -> Vec<NodeId> {
        let mine = self.identity.id();
        let agrees = |head: &Head| head.step >= self.step && head.state == self.state_digest;
        let done = |member: &NodeId| *member == mine || self.sync.head(member).is_some_and(agrees);
        self.context.charter.founders.iter().filter(|member| !done(member)).copied().collect()
    }

    /// The state that the closed rounds made, once genesis is done.
    pub fn checkpoint(&self) -> Option<&Arc<Checkpoint>> {
        self.checkpoints.last_key_value().map(|(_, checkpoint)| checkpoint)
    }

    fn start(&mut self, now: Now, out: &mut Vec<Output>) {
        match self.context.charter.adapter.alignment {
            Alignment::Anchors => self.enter(Step::Kernels, now, out),
            Alignment::Random => {
                self.first_half = Some(Digest::ZERO);
                out.push(Output::Train(Work::Align(None)));
                self.after_first_half(now, out);
            }
        }
    }

    fn after_first_half(&mut self, now: Now, out: &mut Vec<Output>) {
        match self.context.charter.adapter.readout {
            Readout::Statistics => {
                self.genesis = self.first_half.unwrap_or(Digest::ZERO);
                self.enter(Step::Statistics, now, out);
            }
            Readout::Trained => self.found(Mixture::zeros(&self.context.layout), Digest::ZERO, now, out),
        }
    }

    /// Genesis is done: the network has its id and its first mixture.
    fn found(&mut self, mixture: Mixture, second_half: Digest, now: Now, out: &mut Vec<Output>) {
        let first_half = self.first_half.unwrap_or(Digest::ZERO);
        let parts: [&[u8]; 2] = [first_half.as_bytes(), second_half.as_bytes()];
        self.genesis = Digest::of("heterotune 2026 genesis", &parts);
        out.push(Output::Tell(Event::Genesis {
            genesis_id: self.genesis,
            left_out: std::mem::take(&mut self.left_out),
        }));
        self.sync.forget_heads();
        let first = Checkpoint { round: 1, genesis: self.genesis, mixture, memory: Default::default() };
        self.checkpoints.insert(1, Arc::new(first));
        for checkpoint in std::mem::take(&mut self.saved.checkpoints) {
            if checkpoint.genesis == self.genesis && checkpoint.mixture.fits(&self.context.layout) {
                self.checkpoints.insert(checkpoint.round, Arc::new(checkpoint));
            }
        }
        let open = self.checkpoints.last_key_value().map_or(1, |(round, _)| *round);
        self.trim(open);
        self.step = Step::Round(open);
        for bytes in std::mem::take(&mut self.saved.messages) {
            self.replay(&bytes);
        }
        // A late update may have been kept and not yet folded in when the node stopped: all that can change is folded
        // again, at the next close.
        self.dirty = self.checkpoints.first_key_value().map(|(round, _)| *round).filter(|first| *first < open);
        self.enter(Step::Round(open), now, out);
    }

    /// Opens a step: takes in what came early or was saved, then asks for this node's own contribution.
    fn enter(&mut self, step: Step, now: Now, out: &mut Vec<Output>) {
        self.step = step;
        self.opened_at = now;
        self.unsure_since = now;
        self.deadlines = 0;
        self.released = false;
        self.sync.entered(now);
        let saved = std::mem::take(&mut self.saved.messages);
        self.saved.messages = saved.into_iter().filter(|bytes| !self.replay(bytes)).collect();
        for ((_, _), (from, bytes)) in std::mem::take(&mut self.early) {
            // What is early still goes back into `early`; what is wrong now is told as refused.
            self.receive(from, &bytes, out);
        }
        if let Step::Round(round) = step {
            let mixture = self.view();
            if self.is_finished() {
                out.push(Output::Train(Work::Finish { round, mixture }));
            } else {
                out.push(Output::Tell(Event::RoundOpened { round }));
                self.ask_for_own(Work::Round { round, mixture }, out);
            }
        } else if step == Step::Kernels {
            self.ask_for_own(Work::Kernels, out);
        } else {
            self.ask_for_own(Work::Statistics, out);
        }
        self.say_head(now, out);
        self.close_if_complete(now, out);
    }

    /// Asks the trainer, unless this node has spoken in this step before: then it says the same again.
    fn ask_for_own(&mut self, work: Work, out: &mut Vec<Output>) {
        let own = self.ledger.get(self.step).and_then(|set| set.get(&self.identity.id()));
        match (own, &work) {
            (Some(Entry::One(message)), _) => out.push(Output::Publish(message.clone())),
            (Some(Entry::Conflict(..)), _) => {}
            (None, Work::Round { .. }) if self.is_behind() => {}
            (None, Work::Round { round, .. }) => {
                self.asked = *round;
                out.push(Output::Train(work));
            }
            (None, _) => out.push(Output::Train(work)),
        }
    }

    /// Whether the open round is only to be caught up with.
    fn is_behind(&self) -> bool {
        let alone = self.context.charter.founders.len() == 1;
        self.network_is_ahead() || (self.unsure && !alone)
    }

    /// A peer says that the open step is open for it too: this node is up to date.
    pub(super) fn caught_up(&mut self, out: &mut Vec<Output>) {
        self.unsure = false;
        self.ask_again(out);
    }

    /// Asks for the open round's training if that has been put off and needn't be any more.
    fn ask_again(&mut self, out: &mut Vec<Output>) {
        if let Step::Round(round) = self.step
            && self.asked < round
            && !self.computing
            && !self.is_finished()
            && !self.ledger.get(self.step).is_some_and(|set| set.has(&self.identity.id()))
        {
            let mixture = self.view();
            self.ask_for_own(Work::Round { round, mixture }, out);
        }
    }

    /// The f32 view of the newest mixture.
    fn view(&self) -> Vec<Vec<f32>> {
        let exponent = self.context.charter.codec.exponent_min;
        self.checkpoint().map(|checkpoint| checkpoint.mixture.view(exponent)).unwrap_or_default()
    }

    /// Takes in a message from this node's own disk. Whether it belonged to the open step, or an earlier one.
    fn replay(&mut self, bytes: &[u8]) -> bool {
        let Ok(opened) = self.context.open_or_recall(bytes) else { return true };
        let (kind, round, _, genesis) = opened.header();
        let Some(step) = kind.step(round) else { return true };
        if step > self.step && step.round() <= self.step.round() {
            return false;
        }
        if self.step.round() == 0 && step.round() > 0 {
            return false;
        }
        if self.expected_genesis(step) != Some(genesis) {
            return true;
        }
        if let Ok(message) = self.context.verify_opened(opened, bytes) {
            if message.signed.author() == self.identity.id() {
                self.sequence = self.sequence.max(message.sequence);
            }
            self.ledger.set(step).insert(message);
        }
        true
    }

    /// What messages of a step must name as genesis, if this node knows it yet.
    fn expected_genesis(&self, step: Step) -> Option<Digest> {
        match step {
            Step::Kernels => Some(Digest::ZERO),
            Step::Statistics => self.first_half,
            Step::Round(_) => (self.step.round() > 0).then_some(self.genesis),
        }
    }

    /// Judges a message, and takes it in if it is valid and new.
    pub(super) fn receive(&mut self, from: NodeId, bytes: &[u8], out: &mut Vec<Output>) -> Verdict {
        let verdict = match self.try_receive(from, bytes, out) {
            Ok(()) => return Verdict::Accept,
            Err(reason) => Verdict::from(reason),
        };
        if let Verdict::Reject(reason) | Verdict::Ignore(reason) = &verdict
            && *reason != Reason::Duplicate
        {
            out.push(Output::Tell(Event::Refused { reason: reason.to_string(), from, bytes: bytes.len() }));
        }
        verdict
    }

    fn try_receive(&mut self, from: NodeId, bytes: &[u8], out: &mut Vec<Output>) -> Result<(), Reason> {
        let opened = self.context.open_or_recall(bytes)?;
        let (kind, round, author, genesis) = opened.header();
        let Some(step) = kind.step(round) else {
            let message = self.context.verify_opened(opened, bytes)?;
            return self.receive_head(&message, out);
        };
        let known = self.expected_genesis(step);
        if known.is_some() {
            self.check_window(step)?;
        }
        match self.ledger.get(step).and_then(|set| set.get(&author)) {
            Some(Entry::Conflict(..)) => return Err(Reason::Duplicate),
            Some(Entry::One(first)) if first.signed.payload() == opened.payload() => return Err(Reason::Duplicate),
            _ => {}
        }
        if known.is_none() && self.early.contains_key(&(step, author)) {
            return Err(Reason::Duplicate);
        }
        if known.is_none() && step.round() > limits::ROUNDS_AHEAD {
            return Err(Reason::Early { round, open: self.step.round() });
        }
        if known.is_some_and(|known| known != genesis) {
            return Err(Reason::OtherGenesis { genesis });
        }
        let message = self.context.verify_opened(opened, bytes)?;
        if known.is_none() {
            self.early.insert((step, author), (from, bytes.to_vec()));
            return Ok(());
        }
        let inserted = self.ledger.set(step).insert(message.clone());
        out.push(Output::Keep(message.clone()));
        out.push(Output::Tell(Event::Received {
            kind,
            round,
            author,
            from,
            bytes: bytes.len(),
            payload: message.digest(),
        }));
        self.silent.remove(&author);
        if inserted == Inserted::Conflict {
            out.push(Output::Tell(Event::Conflict { author, kind, round }));
        }
        self.mark_dirty(step);
        Ok(())
    }

    /// Whether a step is closed, or a job is closing it.
    fn is_closed(&self, step: Step) -> bool {
        step < self.step || (step == self.step && self.computing)
    }

    /// A message has come for a round: if that is closed, it is to be folded again.
    pub(super) fn mark_dirty(&mut self, step: Step) {
        if step.round() > 0 && self.is_closed(step) {
            self.dirty = Some(self.dirty.map_or(step.round(), |dirty| dirty.min(step.round())));
        }
    }

    /// Whether a step's messages still count, or count already.
    fn check_window(&self, step: Step) -> Result<(), Reason> {
        let (round, open) = (step.round(), self.step.round());
        if round == 0 {
            // Genesis is never refolded.
            return if self.is_closed(step) { Err(Reason::Stale { round, open }) } else { Ok(()) };
        }
        let rounds = &self.context.charter.rounds;
        if round.saturating_add(u64::from(rounds.horizon)) < open {
            return Err(Reason::Stale { round, open });
        }
        let last = if rounds.total > 0 { rounds.total } else { u64::MAX };
        if round > open.saturating_add(limits::ROUNDS_AHEAD).min(last) {
            return Err(Reason::Early { round, open });
        }
        Ok(())
    }

    /// Signs something, with a sequence number above all before it. The clock makes it grow across restarts too.
    pub(super) fn say(
        &mut self,
        round: u64,
        content: Content,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Option<Arc<Message>> {
        self.sequence = now.max(self.sequence.saturating_add(1));
        match self.context.say(&self.identity, self.genesis, round, self.sequence, content) {
            Ok(message) => Some(Arc::new(message)),
            Err(error) => {
                out.push(Output::Tell(Event::Unsayable { reason: error.to_string() }));
                None
            }
        }
    }

    fn contribute(&mut self, contribution: Contribution, now: Now, out: &mut Vec<Output>) {
        let (step, content) = match contribution {
            Contribution::Kernels(kernels) => (Step::Kernels, Content::Kernels(kernels)),
            Contribution::Statistics(statistics) => (Step::Statistics, Content::Statistics(statistics)),
            Contribution::Update { round, groups } => (Step::Round(round), Content::Update(groups)),
        };
        // What was asked for in a genesis step that has closed since, or for a round beyond the horizon, is void. So
        // is a second contribution: an author that says two things in a step has said nothing.
        let late = step.round() > 0 && self.is_beyond_horizon(step.round());
        if late || self.check_window(step).is_err() || self.ledger.set(step).has(&self.identity.id()) {
            return;
        }
        let Some(message) = self.say(step.round(), content, now, out) else { return };
        self.ledger.set(step).insert(message.clone());
        self.mark_dirty(step);
        out.push(Output::Keep(message.clone()));
        out.push(Output::Tell(Event::Published {
            kind: message.kind,
            round: message.round,
            bytes: message.bytes.len(),
            payload: message.digest(),
        }));
        out.push(Output::Publish(message));
    }

    /// Members without an entry in the open step.
    fn missing(&self) -> Vec<NodeId> {
        let set = self.ledger.get(self.step);
        let has = |member: &NodeId| set.is_some_and(|set| set.has(member));
        self.context.charter.founders.iter().filter(|member| !has(member)).copied().collect()
    }

    /// Whether the open step can close.
    fn is_complete(&self, now: Now) -> bool {
        let missing = self.missing();
        let Step::Round(_) = self.step else { return missing.is_empty() };
        if self.sync.is_reconciling() && !self.released {
            return false;
        }
        // Who contradicts itself has delivered: else it could keep a round open for ever.
        if self.ledger.get(self.step).map_or(0, |set| set.delivered()) < self.quorum() {
            return false;
        }
        // Who has missed two deadlines in a row is not waited for until it delivers again.
        let awaited = missing.iter().any(|member| self.silent.get(member).is_none_or(|missed| *missed < 2));
        let overdue = now >= self.opened_at.saturating_add(self.context.charter.rounds.deadline_ms);
        !awaited || overdue || self.released
    }

    pub(super) fn quorum(&self) -> usize {
        self.context.charter.rounds.quorum.into()
    }

    pub(super) fn close_if_complete(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.computing {
            return;
        }
        let job = match self.step {
            // Nothing closes any more, but late updates are still folded in.
            Step::Round(round) if self.is_finished() => match self.dirty.take() {
                Some(dirty) => self.fold_job(dirty, round - 1),
                None => None,
            },
            _ if !self.is_complete(now) => None,
            Step::Round(round) => {
                for member in self.missing() {
                    *self.silent.entry(member).or_default() += 1;
                }
                let from = self.dirty.take().map_or(round, |dirty| dirty.min(round));
                self.fold_job(from, round)
            }
            Step::Kernels | Step::Statistics => Some(self.genesis_job()),
        };
        if let Some(job) = job {
            self.computing = true;
            out.push(Output::Compute(job));
        }
    }

    fn fold_job(&mut self, from: u64, to: u64) -> Option<Job> {
        // Late updates of rounds whose base is forgotten no longer count; the window has refused them already.
        let from = from.max(*self.checkpoints.first_key_value()?.0);
        let base = self.checkpoints.get(&from)?.clone();
        let set = |round| {
            let updates = self.ledger.get(Step::Round(round)).map(|set| set.counting().cloned().collect());
            RoundSet { round, updates: updates.unwrap_or_default() }
        };
        Some(Job::Fold(self.context.clone(), base, (from..=to).map(set).collect()))
    }

    fn genesis_job(&mut self) -> Job {
        let context = self.context.clone();
        let (mut kernels, mut statistics) = (BTreeMap::new(), BTreeMap::new());
        for message in self.ledger.set(self.step).counting() {
            match message.signed.value() {
                Content::Kernels(said) => drop(kernels.insert(message.signed.author(), said.clone())),
                Content::Statistics(said) => drop(statistics.insert(message.signed.author(), said.clone())),
                Content::Update(_) | Content::Head(_) => {}
            }
        }
        if self.step == Step::Kernels { Job::Reference(context, kernels) } else { Job::Start(context, statistics) }
    }

    fn computed(&mut self, product: Product, now: Now, out: &mut Vec<Output>) {
        self.computing = false;
        match product {
            Product::Reference(reference) => {
                let (set, made) = (self.ledger.set(Step::Kernels).digest(), reference.digest());
                let parts: [&[u8]; 2] = [set.as_bytes(), made.as_bytes()];
                self.first_half = Some(Digest::of("heterotune 2026 genesis, first half", &parts));
                self.left_out.extend(&reference.left_out);
                self.reference = Some(reference.clone());
                out.push(Output::Train(Work::Align(Some(reference))));
                self.after_first_half(now, out);
            }
            Product::Start(Start { readout, bias, left_out }) => {
                let mut mixture = Mixture::zeros(&self.context.layout);
                let count = mixture.groups.len();
                for (group, start) in mixture.groups.iter_mut().skip(count - 2).zip([readout, bias]) {
                    *group = start;
                }
                self.left_out.extend(left_out);
                let (set, made) = (self.ledger.set(Step::Statistics).digest(), mixture.digest());
                let parts: [&[u8]; 2] = [set.as_bytes(), made.as_bytes()];
                self.found(mixture, Digest::of("heterotune 2026 genesis, second half", &parts), now, out);
            }
            Product::Fold(closed) => {
                for fold in closed {
                    self.folded(fold, out);
                }
                let open = self.checkpoints.last_key_value().map_or(1, |(round, _)| *round);
                self.trim(open);
                if Step::Round(open) == self.step {
                    // Only the past has changed: the finished network has taken in a late update.
                    out.push(Output::Train(Work::Finish { round: open, mixture: self.view() }));
                    self.say_head(now, out);
                } else {
                    self.enter(Step::Round(open), now, out);
                }
            }
        }
    }

    fn folded(&mut self, closed: super::Closed, out: &mut Vec<Output>) {
        let after = closed.after;
        out.push(Output::Tell(Event::RoundClosed {
            round: after.round - 1,
            updates: closed.report.updates,
            update_norm: closed.report.update_norm,
            branch_norm: closed.branch_norm,
            agreement: closed.report.agreement,
            left_out: closed.report.left_out,
            standings: closed.report.senders,
            mixture_hash: after.mixture.digest(),
        }));
        let forget_before = after.round.saturating_sub(limits::ROUNDS_KEPT);
        self.checkpoints.insert(after.round, after.clone());
        out.push(Output::Checkpoint { checkpoint: after, forget_before });
    }

    /// Forgets the states beyond the horizon, and the messages that no peer will ask for.
    fn trim(&mut self, open: u64) {
        self.state_digest = self.checkpoint().map_or(Digest::ZERO, |checkpoint| checkpoint.digest());
        let first = open.saturating_sub(u64::from(self.context.charter.rounds.horizon));
        self.checkpoints.retain(|round, _| *round >= first);
        self.ledger.forget_before(open.saturating_sub(limits::ROUNDS_KEPT));
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.is_finished() && !self.computing {
            let deadline = self.context.charter.rounds.deadline_ms.saturating_mul(self.deadlines + 1);
            if now >= self.opened_at.saturating_add(deadline) {
                self.deadlines += 1;
                let missing = self.missing();
                out.push(Output::Tell(Event::DeadlineMissed { round: self.step.round(), missing }));
            }
        }
        if self.unsure && now >= self.unsure_since.saturating_add(self.context.charter.rounds.deadline_ms) {
            // Who claimed to be ahead has had its time to prove it.
            self.unsure = false;
            self.sync.stop_reconciling();
        }
        self.ask_again(out);
        self.close_if_complete(now, out);
        self.keep_in_step(now, out);
    }

    /// The members.
    pub(super) fn members(&self) -> BTreeSet<NodeId> {
        self.context.charter.founders.iter().copied().collect()
    }

    /// The rounds that late updates may still change, newest first.
    pub(super) fn open_past(&self) -> impl Iterator<Item = u64> {
        let open = self.step.round();
        let first = open.saturating_sub(u64::from(self.context.charter.rounds.horizon)).max(1);
        (first..open).rev()
    }

    /// The digest of the sets of those rounds, for heads.
    pub(super) fn closed_digest(&self) -> Digest {
        let mut hasher = Hasher::new("heterotune 2026 closed sets");
        for set in self.open_past().filter_map(|round| self.ledger.get(Step::Round(round))) {
            hasher.part(set.digest().as_bytes());
        }
        hasher.finish()
    }

    /// Checks that a head that names another genesis is told apart.
    pub(super) fn check_head_genesis(&self, step: Step, genesis: Digest) -> Result<(), Reason> {
        match self.expected_genesis(step) {
            Some(known) if known != genesis => Err(Reason::OtherGenesis { genesis }),
            _ => Ok(()),
        }
    }
}
