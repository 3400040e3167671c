//! A small network: honest nodes, whose states are driven as a runtime would, and liars, who are bytes.
//!
//! What must hold, whatever the liars do:
//! - nothing panics
//! - what a node has sealed, it never seals otherwise, be it restarted in between
//! - a node never says two different things in one place (a step's update or list, a view's proposal, a view's votes),
//!   and nothing that is not on its disk
//!
//! And where no more sealers lie than may:
//! - all honest nodes seal the same, and compute what is sealed
//! - no honest node rejects what another says or passes on

use super::{
    bytes::Bytes,
    cast::{Cast, MEMBERS, identity, key, made_up},
    liar::Heard,
};
use heterotune_crypto::Digest;
use heterotune_protocol::{
    limits,
    message::{Batch, Content, Context, Kind, Message, Pull, Step},
    round::{Checkpoint, Contribution, Event, Input, Job, Now, Output, Saved, State},
    seal::{Seal, Stage},
    verdict::Verdict,
    wire,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Choices of one life: longer ones tell little that shorter ones do not.
const CHOICES_MAX: usize = 600;

/// Messages under way; more are lost.
const UNDER_WAY_MAX: usize = 256;

/// How far the clock may jump, in ms: around every deadline that there is.
const JUMPS: [Now; 8] = [0, 1, 300, 1_000, 3_500, 10_000, 60_000, 1 << 40];

/// Where a node says one thing only: the step, the kind, and of proposals and votes the view and the stage.
type Place = (Step, Kind, u32, Option<Stage>);

/// Something under way to a node.
enum Parcel {
    Said { from: usize, bytes: Vec<u8> },
    Question { from: usize, pull: Pull },
    Answer { from: usize, batch: Batch },
    Trained(Contribution),
    Compute(Job),
}

/// A node's disk: what it held at first, and what the node has written since.
#[derive(Default)]
struct Disk {
    found: Saved,
    messages: BTreeMap<(Step, Digest), Vec<u8>>,
    checkpoints: BTreeMap<u64, Checkpoint>,
    seals: BTreeMap<Step, Seal>,
}

impl Disk {
    fn saved(&self) -> Saved {
        let mut saved = self.found.clone();
        saved.messages.extend(self.messages.values().cloned());
        saved.checkpoints.extend(self.checkpoints.values().cloned());
        saved.seals.extend(self.seals.values().cloned());
        saved
    }

    /// Writes a seal, and forgets all that may go.
    fn seal(&mut self, seal: &Seal, forget_before: u64) {
        let needed = |step: &Step| step.round() == 0 || step.round() >= forget_before;
        self.messages.retain(|(step, id), _| needed(step) && (*step != seal.step || seal.ids.contains(id)));
        self.checkpoints.retain(|round, _| *round > seal.step.round());
        self.seals.insert(seal.step, seal.clone());
        self.seals.retain(|step, _| needed(step));
    }
}

/// An honest node, and what it has done in all its lives.
struct Node {
    state: State,
    disk: Disk,
    lives: u8,
    said: BTreeMap<Place, Digest>,
    kept: BTreeSet<Digest>,
    /// Rounds and the states that were sealed after them.
    sealed: BTreeMap<u64, Digest>,
}

/// The network.
pub struct World {
    cast: Cast,
    context: Arc<Context>,
    nodes: Vec<Node>,
    under_way: VecDeque<(usize, Parcel)>,
    heard: Heard,
    now: Now,
}

impl World {
    /// A network where nobody has started yet.
    pub fn new(cast: Cast) -> Self {
        let context = cast.context();
        let heard = Heard::new(context.clone(), cast);
        Self { cast, context, nodes: Vec::new(), under_way: VecDeque::new(), heard, now: 1_000 }
    }

    /// The next honest node starts, from what is on its disk.
    pub fn start(&mut self, found: Saved) {
        let node = self.nodes.len();
        let state = State::new(self.context.clone(), identity(node).clone(), found.clone());
        let disk = Disk { found, ..Disk::default() };
        let (said, kept, sealed) = Default::default();
        self.nodes.push(Node { state, disk, lives: 0, said, kept, sealed });
        self.switch_on(node);
    }

    fn switch_on(&mut self, node: usize) {
        self.tell(node, Input::Start);
        for peer in (0..MEMBERS).filter(|peer| *peer != node) {
            self.tell(node, Input::Connected(key(peer)));
            self.tell(peer, Input::Connected(key(node)));
        }
    }

    /// A node dies, and comes back with nothing but its disk.
    fn restart(&mut self, node: usize) {
        self.under_way.retain(|(to, _)| *to != node);
        (0..self.nodes.len()).for_each(|peer| self.tell(peer, Input::Disconnected(key(node))));
        let Some(dead) = self.nodes.get_mut(node) else { return };
        dead.lives = dead.lives.wrapping_add(1);
        dead.state = State::new(self.context.clone(), identity(node).clone(), dead.disk.saved());
        self.switch_on(node);
    }

    /// Lives as the bytes say, to their end.
    pub fn live(&mut self, bytes: &mut Bytes) {
        for _ in 0..CHOICES_MAX {
            if bytes.is_empty() {
                break;
            }
            self.choose(bytes);
        }
    }

    /// Delivers in order, and lets time pass where nothing is under way.
    pub fn run(&mut self, events: usize) {
        (0..events).for_each(|_| if self.under_way.is_empty() { self.tick(1_000) } else { self.deliver(0) });
    }

    fn choose(&mut self, bytes: &mut Bytes) {
        let node = bytes.below(self.nodes.len());
        let Some(state) = self.nodes.get(node).map(|node| &node.state) else { return };
        let step = if bytes.once_in(2) { state.step() } else { state.unsealed() };
        let liars = MEMBERS - self.cast.honest;
        let peer = if liars > 0 { self.cast.honest + bytes.below(liars) } else { bytes.below(MEMBERS) };
        match bytes.byte() % 16 {
            0..=2 => self.deliver(bytes.below(self.under_way.len())),
            3..=5 => self.run(bytes.below(64)),
            6 => self.tick(*bytes.pick(&JUMPS).unwrap_or(&0)),
            7 => self.restart(node),
            8 => {
                let peer = key(bytes.below(MEMBERS));
                let connected = bytes.once_in(2);
                self.tell(node, if connected { Input::Connected(peer) } else { Input::Disconnected(peer) });
            }
            9 => self.tell(node, Input::Unanswered { from: key(bytes.below(MEMBERS)) }),
            10 if liars > 0 => {
                if let Some(batch) = on_the_wire(&self.heard.answer(bytes, step), limits::RESPONSE_BYTES_MAX) {
                    self.tell(node, Input::Answered { from: key(peer), batch });
                }
            }
            11 if liars > 0 => {
                if let Some(pull) = on_the_wire(&self.heard.ask(bytes, step), limits::REQUEST_BYTES_MAX) {
                    self.tell(node, Input::Asked { ticket: peer as u64, pull });
                }
            }
            // Something heard, again or garbled.
            12 => {
                let Some(message) = bytes.pick(&self.heard.messages) else { return };
                let mut said = message.bytes.clone();
                if bytes.once_in(2) {
                    bytes.garble(&mut said);
                }
                self.tell(node, Input::Message { ticket: 0, from: key(peer), bytes: said });
            }
            _ if liars > 0 => {
                let step = Heard::near(bytes, step);
                let said = self.heard.say(bytes, peer, step);
                let to_all = bytes.once_in(2);
                for to in (0..self.nodes.len()).filter(|to| to_all || *to == node) {
                    for message in &said {
                        let bytes = message.bytes.clone();
                        self.tell(to, Input::Message { ticket: 0, from: message.author(), bytes });
                    }
                }
            }
            _ => self.tick(300),
        }
    }

    fn tick(&mut self, ms: Now) {
        self.now = self.now.saturating_add(ms);
        (0..self.nodes.len()).for_each(|node| self.tell(node, Input::Tick));
    }

    fn deliver(&mut self, at: usize) {
        let Some((to, parcel)) = self.under_way.remove(at) else { return };
        let input = match parcel {
            Parcel::Said { from, bytes } => Input::Message { ticket: 1, from: key(from), bytes },
            Parcel::Question { from, pull } => Input::Asked { ticket: from as u64, pull },
            Parcel::Answer { from, batch } => Input::Answered { from: key(from), batch },
            Parcel::Trained(contribution) => Input::Contribution(contribution),
            Parcel::Compute(job) => Input::Computed(job.run(1)),
        };
        self.tell(to, input);
    }

    fn tell(&mut self, to: usize, input: Input) {
        let Some(node) = self.nodes.get_mut(to) else { return };
        let said = if let Input::Message { bytes, .. } = &input { bytes.clone() } else { Vec::new() };
        for output in node.state.handle(input, self.now) {
            if let Output::Judge { verdict: Verdict::Accept, .. } = output {
                self.gossip(to, &said);
            }
            self.perform(to, output);
        }
        let Some(node) = self.nodes.get(to) else { return };
        let sealed = node.state.sealed().filter(|state| state.round > 1).map(|state| (state.round - 1, state.digest()));
        sealed.into_iter().for_each(|(round, state)| self.is_sealed(to, round, state));
    }

    /// A node says something, or passes it on.
    fn gossip(&mut self, from: usize, bytes: &[u8]) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != from) {
            if self.under_way.len() < UNDER_WAY_MAX {
                self.under_way.push_back((peer, Parcel::Said { from, bytes: bytes.to_vec() }));
            }
        }
    }

    fn perform(&mut self, at: usize, output: Output) {
        let Some(node) = self.nodes.get_mut(at) else { return };
        match output {
            Output::Publish(message) => {
                check_said(node, &message);
                self.heard.hear(&message);
                self.gossip(at, &message.bytes);
            }
            Output::Keep(message) => {
                node.kept.insert(message.id());
                node.disk.messages.insert((message.step, message.id()), message.bytes.clone());
                self.heard.hear(&message);
            }
            Output::Checkpoint(state) => {
                node.disk.checkpoints.insert(state.round, (*state).clone());
                self.heard.states.push((*state).clone());
            }
            Output::Seal { seal, forget_before } => {
                node.disk.seal(&seal, forget_before);
                self.heard.seals.push((*seal).clone());
            }
            Output::Train(work) => {
                let done = made_up(&self.context.charter, at, node.lives, &work);
                self.under_way.extend(done.map(|done| (at, Parcel::Trained(done))));
            }
            Output::Compute(job) => self.under_way.push_back((at, Parcel::Compute(job))),
            Output::Pull { to, pull } => {
                let to = (0..MEMBERS).find(|peer| key(*peer) == to).unwrap_or(MEMBERS);
                self.under_way.push_back((to, Parcel::Question { from: at, pull }));
            }
            Output::Answer { ticket, batch } => {
                self.under_way.push_back((ticket as usize, Parcel::Answer { from: at, batch }));
            }
            Output::Judge { ticket: 1, verdict: Verdict::Reject(reason) } if self.cast.is_safe() => {
                panic!("an honest node passed it on: {reason}");
            }
            Output::Judge { .. } => {}
            // Nothing here is too large for a message.
            Output::Fetch { .. } | Output::Piece { .. } | Output::KeepPiece(_) => {}
            Output::Tell(Event::Sealed { round, state, .. }) => self.is_sealed(at, round, state),
            Output::Tell(Event::Miscomputes { round, .. }) => {
                assert!(!self.cast.is_safe(), "another state of round {round} is sealed than an honest node computes");
            }
            Output::Tell(_) => {}
        }
    }

    fn is_sealed(&mut self, at: usize, round: u64, state: Digest) {
        let safe = self.cast.is_safe();
        let agreeing = self.nodes.iter_mut().enumerate().filter(|(node, _)| safe || *node == at);
        for (_, node) in agreeing {
            assert_eq!(*node.sealed.entry(round).or_insert(state), state, "two seals of round {round}");
        }
    }

    /// Everything that was kept, by anybody.
    pub fn saved(&self) -> Saved {
        Saved {
            messages: self.heard.messages.iter().map(|message| message.bytes.clone()).collect(),
            checkpoints: self.heard.states.clone(),
            seals: self.heard.seals.clone(),
            ..Saved::default()
        }
    }

    /// What liars have heard.
    pub fn heard(&mut self) -> &mut Heard {
        &mut self.heard
    }
}

/// One thing in one place, and on the disk before it is said.
fn check_said(node: &mut Node, message: &Message) {
    let (view, stage) = match message.signed.value() {
        Content::Head(_) => return,
        Content::Vote(vote) => (vote.view, Some(vote.stage)),
        Content::Proposal(proposal) => (proposal.view, None),
        _ => (0, None),
    };
    let place = (message.step, message.kind, view, stage);
    assert_eq!(*node.said.entry(place).or_insert(message.id()), message.id(), "two things said: {place:?}");
    let found = || node.disk.found.messages.contains(&message.bytes);
    assert!(node.kept.contains(&message.id()) || found(), "said, but not kept: {place:?}");
}

/// What arrives of something that a liar sends.
fn on_the_wire<T: Serialize + DeserializeOwned>(value: &T, most: usize) -> Option<T> {
    wire::decode(&wire::encode(value, most).ok()?, most).ok()
}
