//! Whole networks of states in one thread: messages are delivered in an order drawn from a seed, late, twice or never.

use super::*;
use crate::{
    admission::{Admission, Membership},
    charter::Charter,
    limits::{MESSAGE_BYTES_MAX, ROUND_MAX},
    message::{Content, Context, Head, Message, Step},
    seal::{Seal, Stage},
    testing::{charter, identity},
    verdict::{Reason, Verdict},
};
use heterotune_crypto::Identity;
use made_up::{Draws, made_up, update};
use pieces::forged;
use proptest::{prelude::*, test_runner::RngSeed};
use std::collections::{BTreeMap, VecDeque};

mod defences;
mod explore;
mod made_up;
mod newcomers;
mod pieces;
mod sealers;

/// Something under way to a node.
enum Parcel {
    Gossip(NodeId, Vec<u8>),
    Question(NodeId, Pull),
    Answer(NodeId, Batch),
    Fetch(NodeId, Fetch),
    Piece(NodeId, Fetch, Piece),
    Done(Contribution),
    Product(Product),
}

/// What survives a crash, kept as the node's store keeps it.
#[derive(Clone, Default)]
struct Disk {
    messages: Vec<Arc<Message>>,
    checkpoints: Vec<Checkpoint>,
    seals: Vec<Seal>,
    pieces: Vec<KeptPiece>,
}

impl Disk {
    fn seal(&mut self, seal: &Seal, forget_before: u64) {
        self.messages.retain(|kept| {
            let round = kept.step.round();
            (round == 0 || round >= forget_before) && (kept.step != seal.step || seal.ids.contains(&kept.id()))
        });
        self.checkpoints.retain(|kept| kept.round > seal.step.round());
        self.pieces.retain(|kept| kept.height > seal.step.height());
        self.seals.push(seal.clone());
    }

    fn saved(&self) -> Saved {
        let messages = self.messages.iter().map(|message| message.bytes.clone()).collect();
        let bodies = self.messages.iter().filter_map(|message| message.body.as_ref());
        let bodies = bodies.map(|body| (body.digest(), body.bytes().to_vec())).collect();
        let mut pieces: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for KeptPiece { blob, piece, bytes, .. } in self.pieces.clone() {
            pieces.entry(blob).or_default().insert(piece, bytes);
        }
        Saved { messages, bodies, pieces, checkpoints: self.checkpoints.clone(), seals: self.seals.clone() }
    }
}

struct World {
    charter: Charter,
    ids: Vec<NodeId>,
    states: Vec<State>,
    under_way: VecDeque<(usize, Parcel)>,
    events: Vec<Vec<Event>>,
    disks: Vec<Disk>,
    draws: Draws,
    now: Now,
    /// Gossip lost, of 100.
    loss: usize,
    /// A node that no parcel reaches or leaves.
    cut: Option<usize>,
    /// Nodes that are switched off.
    off: Vec<bool>,
    context: Arc<Context>,
    /// What node 1 has written to its disk, and where it dies: 2 n before the nth write, 2 n + 1 after it.
    kept: usize,
    crash: Option<usize>,
    /// The node that lies, where one does, and what it says instead of a message, to another node. Asked, it says
    /// nothing.
    liar: Option<(usize, Bend)>,
    /// How often a node has come back, and whether it then trains something else than before.
    lives: Vec<usize>,
    fickle: bool,
    /// How far a node's clock is ahead of the others'.
    ahead: Vec<Now>,
    /// What honest nodes have said in all their lives.
    said: BTreeMap<(usize, Place), Digest>,
    /// What was given to be folded: who, and per round how many updates.
    folds: Vec<(usize, Vec<(u64, usize)>)>,
    /// Who has asked for which pieces, by ticket; how often a piece has come, to whom and from whom; and who gives others
    /// than are asked for.
    asked_for: Vec<(usize, Fetch)>,
    given: BTreeMap<(usize, NodeId, Fetch), usize>,
    forger: Option<usize>,
}

/// What a node may say one thing in.
type Place = (Step, Kind, Option<u32>, Option<Stage>);

fn place(message: &Message) -> Place {
    let (view, stage) = match message.signed.value() {
        Content::Vote(vote) => (Some(vote.view), Some(vote.stage)),
        Content::Proposal(proposal) => (Some(proposal.view), None),
        _ => (None, None),
    };
    (message.step, message.kind, view, stage)
}

type Bend = fn(&Context, &Message, usize) -> Vec<Vec<u8>>;

impl World {
    fn new(charter: Charter, seed: u64, loss: usize) -> Self {
        Self::within(Arc::new(Context::new(charter).unwrap()), seed, loss)
    }

    fn within(context: Arc<Context>, seed: u64, loss: usize) -> Self {
        Self::with_newcomers(context, 0, seed, loss)
    }

    /// A network of its founders, and newcomers who are switched off at first.
    fn with_newcomers(context: Arc<Context>, newcomers: usize, seed: u64, loss: usize) -> Self {
        let charter = context.charter.clone();
        let founders = charter.founders.len();
        let count = founders + newcomers;
        let mut world = Self {
            ids: (0..count).map(|node| identity(node).id()).collect(),
            states: Vec::new(),
            under_way: VecDeque::new(),
            events: vec![Vec::new(); count],
            disks: (0..count).map(|_| Disk::default()).collect(),
            draws: Draws(seed),
            now: 1_000,
            loss,
            cut: None,
            off: vec![false; count],
            context,
            liar: None,
            kept: 0,
            crash: None,
            lives: vec![0; count],
            fickle: false,
            ahead: vec![0; count],
            said: BTreeMap::new(),
            folds: Vec::new(),
            asked_for: Vec::new(),
            given: BTreeMap::new(),
            forger: None,
            charter,
        };
        for node in 0..count {
            world.states.push(world.born(node, Saved::default()));
            world.off[node] = node >= founders;
        }
        (0..founders).for_each(|node| world.switch_on(node));
        world
    }

    /// A node as it starts, invited where the charter does not name it.
    fn born(&self, node: usize, saved: Saved) -> State {
        let state = State::new(self.context.clone(), identity(node), saved);
        if matches!(self.charter.admission, Admission::Invited { .. })
            && !self.context.members.contains(&self.ids[node])
        {
            // In each of its lives it has a new one.
            return state.with_membership(invitation(&self.context, node, self.lives[node] as u64));
        }
        state
    }

    fn switch_on(&mut self, node: usize) {
        self.off[node] = false;
        self.tell(node, Input::Start);
        for other in 0..self.states.len() {
            if other != node && !self.off[other] {
                self.tell(node, Input::Connected(identity(other).id()));
                self.tell(other, Input::Connected(identity(node).id()));
            }
        }
    }

    /// A node dies and comes back with nothing but its disk.
    fn restart(&mut self, node: usize) {
        self.lives[node] += 1;
        let saved = self.disks[node].saved();
        self.under_way.retain(|(to, _)| *to != node);
        (0..self.states.len()).for_each(|other| self.tell(other, Input::Disconnected(identity(node).id())));
        self.states[node] = self.born(node, saved);
        self.switch_on(node);
    }

    fn tell(&mut self, node: usize, input: Input) {
        let outputs = self.states[node].handle(input, self.now + self.ahead[node]);
        self.perform(node, outputs);
    }

    fn perform(&mut self, node: usize, outputs: Vec<Output>) {
        let me = self.states[node].me;
        for output in outputs {
            let is_durable = matches!(output, Output::Keep(_) | Output::Checkpoint(_) | Output::Seal { .. });
            if is_durable && node == 1 {
                self.kept += 1;
                // The first of two crashes a write: it is lost, or it is the last thing that is done.
                if self.crash == Some(2 * self.kept) {
                    return self.restart(1);
                }
            }
            let is_last = is_durable && node == 1 && self.crash == Some(2 * self.kept + 1);
            match output {
                Output::Publish(message) => {
                    let is_stranger = !self.states[node].is_member(&me);
                    assert!(!is_stranger || message.kind == Kind::Enrolment, "a stranger says a {}", message.kind);
                    let lies = self.liar.is_some_and(|(liar, _)| liar == node);
                    if message.kind != Kind::Head && !lies {
                        let (place, id) = (place(&message), message.id());
                        let first = *self.said.entry((node, place)).or_insert(id);
                        assert!(first == id, "node {node} says two things: {place:?}, now {}", self.now);
                    }
                    for other in 0..self.states.len() {
                        if other == node || (self.loss > 0 && self.draws.below(100) < self.loss) {
                            continue;
                        }
                        let said = match self.liar {
                            Some((liar, bend)) if liar == node => bend(&self.context, &message, other),
                            _ => vec![message.bytes.clone()],
                        };
                        let parcels = said.into_iter().map(|bytes| (other, Parcel::Gossip(me, bytes)));
                        self.under_way.extend(parcels);
                    }
                }
                Output::Keep(message) => self.disks[node].messages.push(message),
                Output::Checkpoint(checkpoint) => self.disks[node].checkpoints.push((*checkpoint).clone()),
                Output::Seal { seal, forget_before } => self.disks[node].seal(&seal, forget_before),
                Output::Train(work) => {
                    let mind = node + if self.fickle { self.lives[node] * self.states.len() } else { 0 };
                    if let Some(done) = made_up(&self.charter, mind, &work) {
                        self.under_way.push_back((node, Parcel::Done(done)));
                    }
                }
                Output::Compute(job) => {
                    if let Job::Fold(_, _, rounds) = &job {
                        self.folds.push((node, rounds.iter().map(|set| (set.round, set.updates.len())).collect()));
                    }
                    self.under_way.push_back((node, Parcel::Product(job.run(1))));
                }
                Output::Pull { to, pull } => {
                    let to = self.index(&to);
                    self.under_way.push_back((to, Parcel::Question(me, pull)));
                }
                Output::Answer { ticket, batch } => {
                    let lies = self.liar.is_some_and(|(liar, _)| liar == node);
                    let batch = if lies { Batch { messages: Vec::new(), seal: None, ..batch } } else { batch };
                    self.under_way.push_back((ticket as usize, Parcel::Answer(me, batch)));
                }
                Output::Fetch { to, fetch } => {
                    let to = self.index(&to);
                    self.under_way.push_back((to, Parcel::Fetch(me, fetch)));
                }
                Output::Piece { ticket, piece } => {
                    let (to, fetch) = self.asked_for[ticket as usize];
                    let piece = if self.forger == Some(node) { forged(piece) } else { piece };
                    self.under_way.push_back((to, Parcel::Piece(me, fetch, piece)));
                }
                Output::KeepPiece(piece) => self.disks[node].pieces.push(piece),
                Output::Tell(event) => self.events[node].push(event),
                Output::Judge { .. } => {}
            }
            if is_last {
                return self.restart(1);
            }
        }
    }

    fn index(&self, node: &NodeId) -> usize {
        self.ids.iter().position(|id| id == node).unwrap()
    }

    /// Delivers one parcel out of order, or lets time pass if none is under way.
    fn step(&mut self) {
        if self.under_way.is_empty() || self.draws.below(20) == 0 {
            self.now += 300;
            (0..self.states.len())
                .filter(|node| !self.off[*node])
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|node| self.tell(node, Input::Tick));
            return;
        }
        let at = self.draws.below(self.under_way.len());
        self.deliver(at);
    }

    /// Delivers a parcel.
    fn deliver(&mut self, at: usize) {
        let Some((to, parcel)) = self.under_way.remove(at) else { return };
        let from_outside = match &parcel {
            Parcel::Gossip(from, _) | Parcel::Question(from, _) | Parcel::Answer(from, _) => Some(self.index(from)),
            Parcel::Fetch(from, _) | Parcel::Piece(from, ..) => Some(self.index(from)),
            Parcel::Done(_) | Parcel::Product(_) => None,
        };
        let is_cut = self.cut.is_some_and(|cut| from_outside.is_some_and(|from| from == cut || to == cut));
        if self.off[to] || is_cut {
            return;
        }
        match parcel {
            Parcel::Gossip(from, bytes) => self.tell(to, Input::Message { ticket: 0, from, bytes }),
            Parcel::Question(from, pull) => {
                let ticket = self.index(&from) as u64;
                self.tell(to, Input::Asked { ticket, pull });
            }
            Parcel::Answer(from, batch) => self.tell(to, Input::Answered { from, batch }),
            Parcel::Fetch(from, fetch) => {
                self.asked_for.push((self.index(&from), fetch));
                self.tell(to, Input::AskedPiece { ticket: self.asked_for.len() as u64 - 1, fetch });
            }
            Parcel::Piece(from, fetch, piece) => {
                *self.given.entry((to, from, fetch)).or_default() += usize::from(piece.bytes.is_some());
                self.tell(to, Input::Piece { from, fetch, piece: Some(piece) });
            }
            Parcel::Done(contribution) => self.tell(to, Input::Contribution(contribution)),
            Parcel::Product(product) => self.tell(to, Input::Computed(product)),
        }
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("never {what}; the steps are {:?}", self.states.iter().map(State::step).collect::<Vec<_>>());
    }

    fn run_to_the_end(&mut self) -> Digest {
        self.run_until("finished with one state", |world| {
            let on: Vec<_> =
                world.states.iter().zip(&world.off).filter(|(_, off)| !**off).map(|(state, _)| state).collect();
            let digest = on[0].checkpoint().map(|checkpoint| checkpoint.digest());
            on.iter()
                .all(|state| state.is_finished() && state.checkpoint().map(|checkpoint| checkpoint.digest()) == digest)
        });
        let on = self.states.iter().zip(&self.off).find(|(_, off)| !**off).unwrap().0;
        on.checkpoint().unwrap().digest()
    }
}

/// Who may invite.
fn admin() -> Identity {
    Identity::from_seed(7, "admin")
}

fn invitation(context: &Context, node: usize, expires: u64) -> Membership {
    Membership::sign(&admin(), &context.network, identity(node).id(), expires).unwrap()
}

fn strict(nodes: usize) -> Charter {
    let mut charter = charter(nodes);
    charter.rounds.quorum = nodes as u16;
    // Nothing closes without somebody.
    charter.rounds.deadline_ms = 10_000_000;
    charter
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 0, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// Neither order, nor loss, nor repetition matter once all updates are in.
    #[test]
    fn all_nodes_end_with_the_same_state(seed: u64, loss in 0..70usize) {
        let undisturbed = World::new(strict(4), 1, 0).run_to_the_end();
        prop_assert_eq!(World::new(strict(4), seed, loss).run_to_the_end(), undisturbed);
    }

    /// A node that dies at any instant and comes back with its disk ends where it would have ended.
    #[test]
    fn a_restarted_node_resumes(seed: u64, at in 0..400usize, again in 0..200usize) {
        let undisturbed = World::new(strict(3), 1, 0).run_to_the_end();
        let mut world = World::new(strict(3), seed, 20);
        (0..at).for_each(|_| world.step());
        world.restart(1);
        (0..again).for_each(|_| world.step());
        world.restart(1);
        prop_assert_eq!(world.run_to_the_end(), undisturbed);
        let conflicts = world.events.iter().flatten().filter(|event| matches!(event, Event::Conflict { .. })).count();
        prop_assert_eq!(conflicts, 0);
    }

    /// Rounds close at their deadline with the quorum, and a member that comes back catches up.
    #[test]
    fn the_quorum_goes_on_without_an_absent_member(seed: u64) {
        let mut charter = charter(4);
        charter.rounds.quorum = 3;
        charter.rounds.total = 6;
        let mut world = World::new(charter, seed, 10);
        world.run_until("in round 2", |world| world.states.iter().all(|state| state.step() >= Step::Round(2)));
        world.off[3] = true;
        (0..3).for_each(|node| world.tell(node, Input::Disconnected(identity(3).id())));
        world.run_until("in round 5", |world| world.states[..3].iter().all(|state| state.step() >= Step::Round(5)));
        world.restart(3);
        world.run_to_the_end();
        let missed = world.events[..3].iter().flatten().filter(|event| matches!(event, Event::DeadlineMissed { .. })).count();
        prop_assert!(missed >= 1, "nobody noticed that a member was absent");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// A member cut off for longer than the horizon, with an update that nobody got, takes the network's state.
    #[test]
    fn who_was_cut_off_for_long_comes_back_to_the_same_state(seed: u64) {
        let mut charter = charter(4);
        (charter.rounds.quorum, charter.rounds.total, charter.rounds.horizon) = (3, 8, 2);
        let mut world = World::new(charter, seed, 0);
        world.run_until("in round 2", |world| world.states.iter().all(|state| state.step() >= Step::Round(2)));
        // Links break just after it has signed: its messages reach nobody, and nobody's reach it.
        world.cut = Some(3);
        (0..3).for_each(|node| {
            world.tell(node, Input::Disconnected(identity(3).id()));
            world.tell(3, Input::Disconnected(identity(node).id()));
        });
        world.run_until("in round 7", |world| world.states[..3].iter().all(|state| state.step() >= Step::Round(7)));
        world.cut = None;
        (0..3).for_each(|node| {
            world.tell(node, Input::Connected(identity(3).id()));
            world.tell(3, Input::Connected(identity(node).id()));
        });
        world.run_to_the_end();
        world.restart(3);
        world.run_to_the_end();
    }
}

/// One member that claims to be far ahead stops nobody.
#[test]
fn one_head_stops_nobody() {
    let mut world = World::new(strict(4), 5, 0);
    world.run_until("in round 1", |world| world.states.iter().all(|state| state.step() >= Step::Round(1)));
    let context = Context::new(world.charter.clone()).unwrap();
    let far = Step::Round(ROUND_MAX);
    let head = Content::Head(Head { unsealed: far, sets: Digest::ZERO, state: Digest::ZERO });
    let lie = context.say(&identity(3), world.states[0].genesis.unwrap(), far, u64::MAX, head).unwrap().bytes;
    (0..3).for_each(|node| world.tell(node, Input::Message { ticket: 0, from: identity(3).id(), bytes: lie.clone() }));
    world.run_to_the_end();
}

/// A node in round 1 of a network of two, and the other's identity.
fn in_round_one() -> World {
    let mut charter = charter(2);
    charter.rounds.quorum = 1;
    charter.rounds.total = 5;
    charter.rounds.horizon = 1;
    let mut world = World::new(charter, 3, 0);
    world.run_until("in round 1", |world| world.states.iter().all(|state| state.step() == Step::Round(1)));
    world
}

fn judged(world: &mut World, bytes: Vec<u8>) -> Verdict {
    judged_from(world, 1, bytes)
}

/// What node 0 makes of what another sends on.
fn judged_from(world: &mut World, from: usize, bytes: Vec<u8>) -> Verdict {
    let from = identity(from).id();
    let outputs = world.states[0].handle(Input::Message { ticket: 9, from, bytes }, world.now);
    let judge = outputs.iter().find_map(|output| match output {
        Output::Judge { ticket: 9, verdict } => Some(verdict.clone()),
        _ => None,
    });
    world.perform(0, outputs);
    judge.unwrap()
}

fn says(world: &World, round: u64, node: usize, groups: Vec<Group>) -> Vec<u8> {
    let genesis = world.states[0].genesis.unwrap();
    let context = Context::new(world.charter.clone()).unwrap();
    let content = Content::Update(groups);
    context.say(&identity(node), genesis, Step::Round(round), 99, content).unwrap().bytes
}

fn groups(world: &World, seed: usize) -> Vec<Group> {
    let mixture = world.states[0].checkpoint().unwrap().mixture.view(-40);
    match update(&world.charter, seed, 1, &mixture) {
        Contribution::Update { groups, .. } => groups,
        _ => unreachable!(),
    }
}

#[test]
fn two_things_said_in_one_step_are_a_conflict_whichever_comes_first() {
    let (mut one, mut other) = (in_round_one(), in_round_one());
    let (first, second) = (says(&one, 1, 1, groups(&one, 5)), says(&one, 1, 1, groups(&one, 6)));
    for (world, order) in [(&mut one, [&first, &second]), (&mut other, [&second, &first])] {
        world.under_way.clear();
        for bytes in order {
            assert_eq!(judged(world, bytes.clone()), Verdict::Accept);
        }
    }
    let digest = |world: &World| world.states[0].ledger.get(Step::Round(1)).unwrap().digest();
    assert_eq!(digest(&one), digest(&other));
    assert!(one.states[0].ledger.get(Step::Round(1)).unwrap().counting().all(|m| m.author() != identity(1).id()));
}

#[test]
fn what_does_not_belong_is_refused_and_changes_nothing() {
    let mut world = in_round_one();
    let before = world.states[0].checkpoint().unwrap().digest();
    let good = says(&world, 1, 1, groups(&world, 5));

    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(judged(&mut world, forged), Verdict::Reject(Reason::Forged));
    let stranger = says(&world, 1, 7, groups(&world, 5));
    assert!(matches!(judged(&mut world, stranger), Verdict::Reject(Reason::NotAMember { .. })));
    let last = says(&world, ROUND_MAX, 1, groups(&world, 5));
    assert!(matches!(judged(&mut world, last), Verdict::Ignore(Reason::Early { .. })));
    let never = says(&world, ROUND_MAX + 1, 1, groups(&world, 5));
    assert!(matches!(judged(&mut world, never), Verdict::Reject(Reason::Malformed(_))));
    let early = says(&world, 9, 1, groups(&world, 5));
    assert!(matches!(judged(&mut world, early), Verdict::Ignore(Reason::Early { round: 9, open: 1 })));
    let mut few = groups(&world, 5);
    few.pop();
    let misshapen = says(&world, 1, 1, few);
    assert!(matches!(judged(&mut world, misshapen), Verdict::Reject(Reason::Update(_))));
    assert!(matches!(judged(&mut world, vec![0; MESSAGE_BYTES_MAX + 1]), Verdict::Reject(Reason::Malformed(_))));
    assert!(matches!(judged(&mut world, good[..good.len() - 1].to_vec()), Verdict::Reject(Reason::Malformed(_))));
    let trailing = [&good[..], &[0]].concat();
    assert!(matches!(judged(&mut world, trailing), Verdict::Reject(Reason::Malformed(_))));

    let mut elsewhere = world.charter.clone();
    elsewhere.nonce = 1;
    let context = Context::new(elsewhere).unwrap();
    let content = Content::Update(groups(&world, 5));
    let replayed =
        context.say(&identity(1), world.states[0].genesis.unwrap(), Step::Round(1), 99, content.clone()).unwrap().bytes;
    assert!(matches!(judged(&mut world, replayed), Verdict::Reject(Reason::OtherNetwork { .. })));
    let context = Context::new(world.charter.clone()).unwrap();
    let replayed = context.say(&identity(1), Digest::ZERO, Step::Round(1), 99, content).unwrap().bytes;
    assert!(matches!(judged(&mut world, replayed), Verdict::Ignore(Reason::OtherGenesis { .. })));
    assert_eq!(world.states[0].checkpoint().unwrap().digest(), before);

    assert_eq!(judged(&mut world, good.clone()), Verdict::Accept);
    assert_eq!(judged(&mut world, good.clone()), Verdict::Ignore(Reason::Duplicate));
    world.run_until("in round 4", |world| world.states[0].step() == Step::Round(4));
    assert!(matches!(judged(&mut world, good), Verdict::Ignore(Reason::Stale { round: 1, open: 4 })));
}

proptest! {
    /// No bytes make the machine panic, and none but a member's signed ones are accepted.
    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), flips in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4)) {
        let mut world = in_round_one();
        prop_assert!(matches!(judged(&mut world, bytes), Verdict::Reject(_)));
        let mut near = says(&world, 1, 1, groups(&world, 5));
        let whole = near.clone();
        flips.iter().for_each(|(at, with)| { let at = at.index(near.len()); near[at] ^= with; });
        if near != whole {
            prop_assert!(judged(&mut world, near) != Verdict::Accept);
        }
    }
}

#[test]
fn all_keys_of_the_world_are_different() {
    let keys: BTreeMap<_, _> = (0..8).map(|node| (identity(node).id(), node)).collect();
    assert_eq!(keys.len(), 8);
}
