//! A node of the world: a round machine, and what stands around it in a real one: network, disk, trainer, clock.

use super::{
    World,
    disk::Disk,
    errand::{Errand, Happening, Letter},
    liars::{Audience, CLOCK_HOURS, Kind, Liar, Whisper},
    rumours::Rumour,
    tally::{Record, Traffic},
    trainer::{Trainer, generator},
};
use heterotune_crypto::{Identity, NodeId};
use heterotune_protocol::{
    admission::Membership,
    limits,
    message::{Batch, Pull, Request, Response},
    round::{Input, Now, Output, Product, State, Ticket, Work},
    verdict::Verdict,
    wire,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// How long a fold takes, in ms, at most.
const FOLD_MS_MAX: u64 = 20;

/// How long a crashed node is away, in deadlines, and how long one that has left.
const CRASHED: (f64, f64) = (0.05, 1.0);
const LEFT: (f64, f64) = (2.0, 6.0);

/// The chances, per deadline, that a node with a backup makes one, and that it falls and starts again from it.
const BACKED_UP: f64 = 0.4;
const RESTORED: f64 = 0.2;

/// When the last newcomer comes, in deadlines a round: undisturbed, a round takes more than twice as long.
const COME: f64 = 0.06;

/// A member of the world.
pub(super) struct Node {
    index: u32,
    identity: Identity,
    /// None while it is down.
    state: Option<State>,
    /// How often it has fallen. What was planned for an earlier life does not happen.
    life: u32,
    /// It falls in the middle of what the next input brings about, for so long.
    doomed: Option<u64>,
    disk: Disk,
    /// An old copy of its disk.
    backup: Option<Disk>,
    /// It starts from that when it falls.
    restores: bool,
    trainer: Trainer,
    products: VecDeque<Product>,
    peers: BTreeSet<u32>,
    /// Questions that wait for an answer, and whom they were asked.
    asked: BTreeMap<u32, u32>,
    questions: u32,
    /// Messages that its machine has not judged yet.
    judging: BTreeMap<Ticket, (Arc<Rumour>, u32)>,
    tickets: Ticket,
    liar: Option<Liar>,
    draws: ChaCha8Rng,
    /// How far its clock is ahead.
    skew_ms: i64,
    pub(super) record: Record,
}

/// Where a node is when something happens to it: the time, the world, and a place for what it brings about.
pub(super) struct Here<'a> {
    pub(super) now: Now,
    pub(super) world: &'a World,
    pub(super) errands: &'a mut Vec<Errand>,
}

impl Here<'_> {
    fn plan(&mut self, after: u64, to: u32, what: Happening) {
        self.errands.push(Errand { at: self.now + after, to, what });
    }
}

impl Node {
    pub(super) fn new(index: u32, identity: Identity, liar: Option<Liar>, world: &World) -> Self {
        let options = &world.options;
        let mut draws = generator(options.seed, &[index.into(), 5]);
        let is = |kind| liar.as_ref().is_some_and(|liar| liar.kind() == kind);
        let most_s = if is(Kind::Clock) { 3_600.0 * CLOCK_HOURS } else { options.skew_s };
        let skew_ms = (most_s * 1_000.0 * draws.random_range(-1.0..=1.0f64)) as i64;
        Self {
            index,
            identity,
            state: None,
            life: 0,
            doomed: None,
            disk: Disk::default(),
            backup: None,
            restores: false,
            trainer: Trainer::new(options.seed, index, options.deadline_ms),
            products: VecDeque::new(),
            peers: BTreeSet::new(),
            asked: BTreeMap::new(),
            questions: 0,
            judging: BTreeMap::new(),
            tickets: 0,
            record: Record::new(liar.as_ref().is_none_or(|liar| liar.kind().is_honest())),
            liar,
            draws,
            skew_ms,
        }
    }

    fn has_backups(&self) -> bool {
        self.liar.as_ref().is_some_and(|liar| liar.kind() == Kind::Backup)
    }

    /// Who it is.
    pub(super) fn id(&self) -> NodeId {
        self.identity.id()
    }

    /// Its machine, if it is up.
    pub(super) fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    fn is_newcomer(&self, here: &Here<'_>) -> bool {
        self.index as usize >= here.world.options.nodes
    }

    /// Plans what happens to it whatever it does.
    pub(super) fn be_born(&mut self, here: &mut Here<'_>) {
        let mut after = self.draws.random_range(0..here.world.tick_ms);
        if self.is_newcomer(here) {
            let options = &here.world.options;
            let last = COME * options.rounds as f64 * options.deadline_ms as f64;
            after += (self.draws.random_range(0.0..1.0) * last) as u64;
        }
        here.plan(after, self.index, Happening::Wake);
        for at in here.world.mesh.changes() {
            here.errands.push(Errand { at, to: self.index, what: Happening::Relink });
        }
        if here.world.options.crash + here.world.options.churn > 0.0 || self.has_backups() {
            let after = self.draws.random_range(0..here.world.options.deadline_ms);
            here.plan(after, self.index, Happening::Fate);
        }
    }

    /// Something happens to it.
    pub(super) fn meet(&mut self, what: Happening, here: &mut Here<'_>) {
        if what.from().is_some_and(|from| !here.world.mesh.is_joined(here.now, from, self.index)) {
            return;
        }
        match what {
            Happening::Wake => self.wake(here),
            Happening::Fate => self.draw_fate(here),
            _ if self.state.is_none() => {}
            Happening::Relink => self.relink(here),
            Happening::Tick { life } if life == self.life => self.tick(here),
            Happening::Trained { life } if life == self.life => self.trained(here),
            Happening::Computed { life } if life == self.life => {
                if let Some(product) = self.products.pop_front() {
                    self.tell(Input::Computed(product), here);
                }
            }
            Happening::Tick { .. } | Happening::Trained { .. } | Happening::Computed { .. } => {}
            Happening::Timeout { question } => {
                if let Some(peer) = self.asked.remove(&question) {
                    self.tell(Input::Unanswered { from: here.world.ids[peer as usize] }, here);
                }
            }
            Happening::Dial { from } => {
                if here.world.mesh.peers(here.now, self.index).contains(&from) {
                    self.call(from, Happening::Dialled { from: self.index }, here);
                    self.meet_peer(from, here);
                }
            }
            Happening::Dialled { from } => self.meet_peer(from, here),
            Happening::HungUp { from } => self.lose_peer(from, here),
            Happening::Gossip { from, rumour } => self.hear(from, rumour, here),
            Happening::Question { from, letter } => {
                if let Ok(Request::Pull(pull)) = wire::decode(&letter.bytes, limits::REQUEST_BYTES_MAX) {
                    // The ticket says whom the answer is for.
                    let ticket = u64::from(from) << 32 | u64::from(letter.question);
                    self.tell(Input::Asked { ticket, pull }, here);
                }
            }
            Happening::Answer { from, letter } => {
                if self.asked.remove(&letter.question).is_some()
                    && let Ok(Response::Batch(batch)) = wire::decode(&letter.bytes, limits::RESPONSE_BYTES_MAX)
                {
                    self.tell(Input::Answered { from: here.world.ids[from as usize], batch }, here);
                }
            }
        }
    }

    fn wake(&mut self, here: &mut Here<'_>) {
        let (context, options) = (here.world.context.clone(), &here.world.options);
        let network = context.network;
        let mut state = State::new(context, self.identity.clone(), self.disk.saved());
        if self.is_newcomer(here) && !options.open {
            let invitation = Membership::sign(&options.admin(), &network, self.id(), u64::MAX);
            state = invitation.into_iter().fold(state, State::with_membership);
        }
        self.state = Some(state);
        self.tell(Input::Start, here);
        let after = self.draws.random_range(1..=here.world.tick_ms);
        here.plan(after, self.index, Happening::Tick { life: self.life });
        self.relink(here);
    }

    /// Once a deadline: does it fall, and for how long?
    fn draw_fate(&mut self, here: &mut Here<'_>) {
        let options = &here.world.options;
        here.plan(options.deadline_ms, self.index, Happening::Fate);
        let (mut crashes, leaves) = (self.draws.random_bool(options.crash), self.draws.random_bool(options.churn));
        if self.has_backups() {
            if self.draws.random_bool(BACKED_UP) && !self.disk.is_empty() {
                self.backup = Some(self.disk.clone());
            }
            self.restores = self.draws.random_bool(RESTORED);
            crashes |= self.restores;
        }
        let (least, most) = if leaves { LEFT } else { CRASHED };
        if self.state.is_some() && (crashes || leaves) {
            let away = self.draws.random_range(least..most) * options.deadline_ms as f64;
            // Who comes back calls after its peers have seen it go.
            self.doomed = Some((away as u64).max(options.delay.high_ms + 1));
        }
    }

    /// It dies: all but the disk is lost.
    fn fall(&mut self, away_ms: u64, here: &mut Here<'_>) {
        self.state = None;
        self.life += 1;
        if std::mem::take(&mut self.restores)
            && let Some(backup) = &self.backup
        {
            self.disk = backup.clone();
        }
        self.trainer.stop();
        self.products.clear();
        self.asked.clear();
        self.judging.clear();
        here.world.rumours.forgotten_by(self.index);
        for peer in std::mem::take(&mut self.peers) {
            self.call(peer, Happening::HungUp { from: self.index }, here);
        }
        here.plan(away_ms, self.index, Happening::Wake);
    }

    /// Drops the peers that it is not linked to any more, and calls the others.
    fn relink(&mut self, here: &mut Here<'_>) {
        let linked = here.world.mesh.peers(here.now, self.index);
        let lost: Vec<u32> = self.peers.iter().filter(|peer| !linked.contains(peer)).copied().collect();
        lost.into_iter().for_each(|peer| self.lose_peer(peer, here));
        for peer in linked.iter().filter(|peer| !self.peers.contains(peer)).copied().collect::<Vec<_>>() {
            self.call(peer, Happening::Dial { from: self.index }, here);
        }
    }

    fn meet_peer(&mut self, peer: u32, here: &mut Here<'_>) {
        if self.peers.insert(peer) {
            self.tell(Input::Connected(here.world.ids[peer as usize]), here);
        }
    }

    fn lose_peer(&mut self, peer: u32, here: &mut Here<'_>) {
        if self.peers.remove(&peer) {
            self.tell(Input::Disconnected(here.world.ids[peer as usize]), here);
        }
    }

    fn tick(&mut self, here: &mut Here<'_>) {
        here.plan(here.world.tick_ms, self.index, Happening::Tick { life: self.life });
        if let Some(liar) = &mut self.liar {
            let whispers = liar.tick(here.now + here.world.tick_ms + here.world.options.delay.high_ms);
            self.whisper(whispers, here);
        }
        self.tell(Input::Tick, here);
    }

    fn trained(&mut self, here: &mut Here<'_>) {
        let (contribution, more) = self.trainer.done(&here.world.context.charter);
        if more {
            self.train_on(here);
        }
        if let Some(mut contribution) = contribution {
            self.liar.iter_mut().for_each(|liar| liar.bend(&mut contribution));
            self.tell(Input::Contribution(contribution), here);
        }
    }

    fn train_on(&mut self, here: &mut Here<'_>) {
        let after = self.trainer.time_ms(&mut self.draws);
        here.plan(after, self.index, Happening::Trained { life: self.life });
    }

    fn hear(&mut self, from: u32, rumour: Arc<Rumour>, here: &mut Here<'_>) {
        if !rumour.is_news_to(self.index) {
            return;
        }
        self.liar.iter_mut().for_each(|liar| liar.hear(&rumour.bytes));
        self.tickets += 1;
        let bytes = rumour.bytes.clone();
        self.judging.insert(self.tickets, (rumour, from));
        let from = here.world.ids[from as usize];
        self.tell(Input::Message { ticket: self.tickets, from, bytes }, here);
    }

    /// Tells its machine, and does what that says. A crash strikes between two of these things, whichever they are.
    fn tell(&mut self, input: Input, here: &mut Here<'_>) {
        let Some(state) = &mut self.state else { return };
        let outputs = state.handle(input, here.now.saturating_add_signed(self.skew_ms));
        let doomed = self.doomed.take();
        let done = doomed.map_or(outputs.len(), |_| self.draws.random_range(0..=outputs.len() as u64) as usize);
        for (at, output) in outputs.into_iter().enumerate() {
            // The log may run ahead of the disk.
            if at < done || matches!(output, Output::Tell(_)) {
                self.perform(output, here);
            }
        }
        if let Some(away_ms) = doomed {
            self.fall(away_ms, here);
        }
    }

    fn perform(&mut self, output: Output, here: &mut Here<'_>) {
        match output {
            Output::Judge { ticket, verdict } => {
                if let Some((rumour, from)) = self.judging.remove(&ticket)
                    && verdict == Verdict::Accept
                    && rumour.traffic != Traffic::Heads
                    && self.liar.as_ref().is_none_or(Liar::passes_on)
                {
                    self.spread(&rumour, Audience::All, Some(from), here);
                }
            }
            Output::Publish(message) => {
                let whispers = match &mut self.liar {
                    Some(liar) => liar.say(message),
                    None => vec![Whisper::of(&message, Audience::All)],
                };
                self.whisper(whispers, here);
            }
            Output::Keep(message) => self.disk.keep(message),
            Output::Checkpoint(checkpoint) => self.disk.checkpoint(checkpoint),
            Output::Seal { seal, forget_before } => self.disk.seal(seal, forget_before),
            Output::Train(work) => self.train(work, here),
            Output::Compute(job) => {
                self.products.push_back(here.world.folds.run(job));
                let after = self.draws.random_range(1..=FOLD_MS_MAX);
                // Products come in the order in which they were asked for, whichever took longer.
                here.plan(after, self.index, Happening::Computed { life: self.life });
            }
            // The world's mixtures are small: nothing in it is fetched in pieces.
            Output::Fetch { .. } | Output::Piece { .. } | Output::KeepPiece(_) => {}
            Output::Pull { to, pull } => self.pull(here.world.index.get(&to).copied(), pull, here),
            Output::Answer { ticket, batch } => self.answer(ticket, batch, here),
            Output::Tell(event) => {
                if let Some(liar) = &mut self.liar {
                    let whispers = liar.see(&event, here.now);
                    self.whisper(whispers, here);
                }
                self.record.take(event, here.now);
            }
        }
    }

    fn train(&mut self, work: Work, here: &mut Here<'_>) {
        if self.trainer.take(work) {
            self.train_on(here);
        }
    }

    fn whisper(&mut self, whispers: Vec<Whisper>, here: &mut Here<'_>) {
        for Whisper { bytes, traffic, to } in whispers {
            let rumour = match traffic {
                Traffic::Heads => Rumour::local(bytes),
                _ => here.world.rumours.say(bytes, traffic, here.now),
            };
            // It has heard itself.
            rumour.is_news_to(self.index);
            self.spread(&rumour, to, None, here);
        }
    }

    /// Sends a rumour to its peers, but not back to whom it came from.
    fn spread(&mut self, rumour: &Arc<Rumour>, to: Audience, not_to: Option<u32>, here: &mut Here<'_>) {
        let peers = std::mem::take(&mut self.peers);
        for peer in peers.iter().copied().filter(|peer| Some(*peer) != not_to && to.includes(*peer)) {
            let what = Happening::Gossip { from: self.index, rumour: rumour.clone() };
            self.send(peer, rumour.traffic, rumour.bytes.len(), what, here);
        }
        self.peers = peers;
    }

    fn pull(&mut self, to: Option<u32>, pull: Pull, here: &mut Here<'_>) {
        let (Some(to), Ok(bytes)) = (to, wire::encode(&Request::Pull(pull), limits::REQUEST_BYTES_MAX)) else { return };
        self.questions = self.questions.wrapping_add(1);
        let question = self.questions;
        self.asked.insert(question, to);
        here.plan(here.world.timeout_ms, self.index, Happening::Timeout { question });
        if here.world.options.anti_entropy && self.peers.contains(&to) {
            let (size, letter) = (bytes.len(), Box::new(Letter { question, bytes }));
            self.send(to, Traffic::Pulls, size, Happening::Question { from: self.index, letter }, here);
        }
    }

    fn answer(&mut self, ticket: Ticket, batch: Batch, here: &mut Here<'_>) {
        let batch = match &mut self.liar {
            Some(liar) => liar.answer(batch),
            None => Some(batch),
        };
        let bytes = batch.map(|batch| wire::encode(&Response::Batch(batch), limits::RESPONSE_BYTES_MAX));
        if let Some(Ok(bytes)) = bytes {
            let (to, question) = ((ticket >> 32) as u32, ticket as u32);
            let (size, letter) = (bytes.len(), Box::new(Letter { question, bytes }));
            self.send(to, Traffic::Answers, size, Happening::Answer { from: self.index, letter }, here);
        }
    }

    /// Sends a parcel, which may be lost.
    fn send(&mut self, to: u32, traffic: Traffic, bytes: usize, what: Happening, here: &mut Here<'_>) {
        *self.record.bytes.entry(traffic).or_default() += bytes as u64;
        if !self.draws.random_bool(here.world.options.loss) {
            self.call(to, what, here);
        }
    }

    /// Sends what is not lost: connections notice.
    fn call(&mut self, to: u32, what: Happening, here: &mut Here<'_>) {
        let delay = here.world.options.delay;
        here.plan(self.draws.random_range(delay.low_ms..=delay.high_ms), to, what);
    }
}
