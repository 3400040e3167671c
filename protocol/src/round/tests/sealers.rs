//! One sealer, and what the test says to it in the others' names.

use super::*;
use crate::{
    charter::{Alignment, Closing, Readout},
    ledger::StepSet,
    seal::{Ballot, Certificate, List, Proposal, Stage, Value, Vote, faults, proposer, quorum, set_digest, supported},
};
use serde_bytes::ByteBuf;

mod proposals;
mod seals;
mod votes;

const STEP: Step = Step::Round(1);

/// Some `nodes` that seal some rounds, without genesis.
fn few_rounds(nodes: usize, total: u64) -> Charter {
    let mut charter = charter(nodes);
    (charter.adapter.alignment, charter.adapter.readout) = (Alignment::Random, Readout::Trained);
    (charter.adapter.branches, charter.adapter.rank, charter.adapter.readout_rank) = (1, 1, 1);
    let rounds = &mut charter.rounds;
    (rounds.quorum, rounds.total, rounds.closing) = (quorum(nodes) as u16, total, Closing::Leader);
    charter
}

/// A network of `nodes` that seal one round, with only `me` switched on, and everybody's update with it.
fn alone(nodes: usize, me: usize) -> World {
    alone_in(few_rounds(nodes, 1), me)
}

fn alone_in(charter: Charter, me: usize) -> World {
    let nodes = charter.founders.len();
    let mut world = World::new(charter, 1, 0);
    (0..nodes).filter(|node| *node != me).for_each(|node| world.off[node] = true);
    world.under_way.retain(|(to, _)| *to == me);
    pump(&mut world);
    for node in (0..nodes).filter(|node| *node != me) {
        let mixture = world.states[me].checkpoint().unwrap().mixture.view(-40);
        let Contribution::Update { groups, .. } = update(&world.charter, node, 1, &mixture) else { unreachable!() };
        hears(&mut world, me, node, Content::Update(groups));
    }
    world
}

fn pump(world: &mut World) {
    while !world.under_way.is_empty() {
        world.deliver(0);
    }
}

fn says(world: &World, node: usize, content: Content) -> Message {
    let genesis = world.states.iter().find_map(|state| state.genesis).unwrap();
    world.context.say(&identity(node), genesis, STEP, 5, content).unwrap()
}

/// `me` is told something by `node`.
fn hears(world: &mut World, me: usize, node: usize, content: Content) -> Message {
    let message = says(world, node, content);
    told(world, me, &message);
    message
}

/// What `me` makes of a message, got from its author.
fn told(world: &mut World, me: usize, message: &Message) -> Verdict {
    let input = Input::Message { ticket: 9, from: message.author(), bytes: message.bytes.clone() };
    let outputs = world.states[me].handle(input, world.now);
    let verdict = outputs.iter().find_map(|output| match output {
        Output::Judge { ticket: 9, verdict } => Some(verdict.clone()),
        _ => None,
    });
    world.perform(me, outputs);
    pump(world);
    verdict.unwrap()
}

fn turn(world: &World, view: u32) -> usize {
    turn_in(world, STEP, view)
}

fn turn_in(world: &World, step: Step, view: u32) -> usize {
    let genesis = world.states.iter().find_map(|state| state.genesis).unwrap();
    world.index(&proposer(&genesis, step, view, &world.charter.sealers).unwrap())
}

/// The value that lists of these ids make, and those lists.
fn value(world: &World, me: usize, ids: Vec<Digest>) -> (Value, Vec<ByteBuf>) {
    let sealers = world.charter.sealers.len();
    let lists: Vec<_> =
        (0..quorum(sealers)).map(|node| says(world, node, Content::List(List { ids: ids.clone() }))).collect();
    let contents = lists.iter().map(|list| match list.signed.value() {
        Content::List(list) => list,
        _ => unreachable!(),
    });
    let ids = supported(contents, faults(sealers));
    let mut set = StepSet::default();
    ids.iter().for_each(|id| {
        set.insert(world.states[me].ledger.get(STEP).unwrap().find(id).unwrap().clone());
    });
    let base = world.states[me].sealed().unwrap().clone();
    let Product::Fold(closed) = Job::Fold(world.context.clone(), base, vec![RoundSet::new(1, &set)]).run(1) else {
        unreachable!()
    };
    let lists = lists.iter().map(|list| ByteBuf::from(list.bytes.clone())).collect();
    (Value { set: set_digest(&ids), state: closed[0].digest }, lists)
}

/// What `me` has voted, by its disk.
fn voted(world: &World, me: usize) -> BTreeMap<(u32, Stage), Option<Value>> {
    let mut votes = BTreeMap::new();
    for bytes in &world.disks[me].messages {
        let message = world.context.verify(world.context.open(&bytes.bytes).unwrap(), &bytes.bytes).unwrap();
        if let (Content::Vote(vote), true) = (message.signed.value(), message.author() == identity(me).id()) {
            assert!(votes.insert((vote.view, vote.stage), vote.value).is_none(), "{vote:?}");
        }
    }
    votes
}

fn wait(world: &mut World, me: usize, ms: u64) {
    for _ in 0..ms / 250 {
        world.now += 250;
        world.tell(me, Input::Tick);
        pump(world);
    }
}

fn propose(
    world: &mut World,
    me: usize,
    view: u32,
    (value, lists): &(Value, Vec<ByteBuf>),
    polka: Option<Certificate>,
) {
    let node = turn(world, view);
    assert_ne!(node, me);
    hears(world, me, node, Content::Proposal(Proposal { view, value: *value, polka, lists: lists.clone() }));
}

fn all_vote(world: &mut World, me: usize, view: u32, stage: Stage, value: Option<Value>) -> Vec<Ballot> {
    let others: Vec<_> = (0..world.states.len()).filter(|node| *node != me).collect();
    let vote = |node| ballot(&hears(world, me, node, Content::Vote(Vote { view, stage, value })));
    others.into_iter().map(vote).collect()
}

fn ballot(message: &Message) -> Ballot {
    let signature = *message.signed.signature();
    Ballot { sealer: message.author(), sequence: message.sequence, signature }
}

/// Somebody whose turn is neither in view 0 nor in view 2, with its list said.
fn listener(nodes: usize) -> (World, usize) {
    let world = alone(nodes, 0);
    let me = (0..nodes).find(|node| (0..3).all(|view| turn(&world, view) != *node)).unwrap();
    let mut world = alone(nodes, me);
    wait(&mut world, me, 500);
    (world, me)
}

/// A proposal of the last of all views does not keep the others' out.
#[test]
fn a_proposal_far_ahead_keeps_no_other_out() {
    let (mut world, me) = listener(4);
    let ids = world.states[me].ledger.get(STEP).unwrap().ids();
    let first = value(&world, me, ids);
    let liar = turn(&world, 1);
    let far = (1_000..).find(|view| turn(&world, *view) == liar).unwrap();
    propose(&mut world, me, far, &first, None);
    propose(&mut world, me, 0, &first, None);
    assert_eq!(voted(&world, me).get(&(0, Stage::Prevote)), Some(&Some(first.0)));
}

/// Who has precommitted prevotes for nothing else, even if it has died since, until a quorum has.
#[test]
fn a_lock_outlives_a_restart() {
    for dies in [false, true] {
        let (mut world, me) = listener(4);
        let ids = world.states[me].ledger.get(STEP).unwrap().ids();
        let first = value(&world, me, ids.clone());
        let second = value(&world, me, ids[1..].to_vec());
        assert_ne!(first.0, second.0);
        propose(&mut world, me, 0, &first, None);
        all_vote(&mut world, me, 0, Stage::Prevote, Some(first.0));
        assert_eq!(voted(&world, me).get(&(0, Stage::Precommit)), Some(&Some(first.0)));
        all_vote(&mut world, me, 1, Stage::Precommit, None);
        if dies {
            world.restart(me);
            // It knows what it has said once two others have answered.
            for node in (0..4).filter(|node| *node != me) {
                for step in [STEP, STEP.next()] {
                    let batch = Batch {
                        step,
                        open: STEP.next(),
                        unsealed: STEP,
                        more: false,
                        messages: vec![],
                        seal: None,
                        snapshot: None,
                    };
                    world.tell(me, Input::Answered { from: identity(node).id(), batch });
                }
            }
        }
        wait(&mut world, me, 5_000);
        propose(&mut world, me, 2, &second, None);
        wait(&mut world, me, 5_000);
        let votes = voted(&world, me);
        assert_eq!(votes.get(&(2, Stage::Prevote)), Some(&None), "{dies} {votes:?}");
    }
}

/// What a sealer is locked on it proposes when its turn comes, however many views later.
#[test]
fn who_is_locked_proposes_it_again() {
    let world = alone(7, 0);
    let (mine, me) = [(5, turn(&world, 5)), (6, turn(&world, 6))][0];
    let mut world = alone(7, me);
    wait(&mut world, me, 500);
    let ids = world.states[me].ledger.get(STEP).unwrap().ids();
    let first = value(&world, me, ids);
    propose(&mut world, me, 0, &first, None);
    all_vote(&mut world, me, 0, Stage::Prevote, Some(first.0));
    assert_eq!(voted(&world, me).get(&(0, Stage::Precommit)), Some(&Some(first.0)));
    for view in 1..=mine {
        all_vote(&mut world, me, view, Stage::Prevote, None);
    }
    let proposed = world.disks[me].messages.iter().any(|bytes| {
        let message = world.context.verify(world.context.open(&bytes.bytes).unwrap(), &bytes.bytes).unwrap();
        matches!(message.signed.value(), Content::Proposal(Proposal { view, value, polka: Some(_), .. })
            if (*view, *value) == (mine, first.0))
    });
    assert!(proposed);
}

/// Three things by one author, all of them sealed: who comes later gets all three, also from who has died since.
#[test]
fn all_that_is_sealed_can_be_had() {
    let (mut world, me) = listener(4);
    let liar = turn(&world, 1);
    let mixture = world.states[me].checkpoint().unwrap().mixture.view(-40);
    let mut set = world.states[me].ledger.get(STEP).unwrap().clone();
    let mut more = Vec::new();
    for round in [2, 3] {
        let Contribution::Update { groups, .. } = update(&world.charter, liar, round, &mixture) else { unreachable!() };
        more.push(Arc::new(hears(&mut world, me, liar, Content::Update(groups))));
    }
    more.iter().for_each(|message| set.insert_sealed(message.clone()));
    let ids = set.ids();
    assert_eq!(ids.len(), 6);
    let base = world.states[me].sealed().unwrap().clone();
    let Product::Fold(closed) = Job::Fold(world.context.clone(), base, vec![RoundSet::new(1, &set)]).run(1) else {
        unreachable!()
    };
    let value = Value { set: set_digest(&ids), state: closed[0].digest };
    let ballots = (0..4).map(|node| {
        let vote = Vote { view: 0, stage: Stage::Precommit, value: Some(value) };
        ballot(&says(&world, node, Content::Vote(vote)))
    });
    let certificate = Certificate { view: 0, stage: Stage::Precommit, value, ballots: ballots.collect() };
    let seal = Some(crate::seal::Seal { step: STEP, ids, certificate });
    let batch = Batch {
        step: STEP,
        open: STEP.next(),
        unsealed: STEP,
        more: false,
        messages: vec![],
        seal: seal.map(Box::new),
        snapshot: None,
    };
    let from = identity(liar).id();
    world.tell(me, Input::Answered { from, batch: batch.clone() });
    let messages = vec![ByteBuf::from(more[1].bytes.clone())];
    world.tell(me, Input::Answered { from, batch: Batch { messages, ..batch } });
    pump(&mut world);
    for _ in 0..2 {
        assert!(world.states[me].is_finished());
        let all = Pull { step: STEP, have: Vec::new(), want: Vec::new() };
        let updates = world.states[me].answer(&all, 0).messages.len();
        assert_eq!(updates, 6);
        world.restart(me);
        pump(&mut world);
    }
}

/// With a horizon of one, too, the quorum seals without an absent member.
#[test]
fn the_shortest_horizon_waits_for_nobody_for_ever() {
    let mut charter = charter(4);
    (charter.rounds.quorum, charter.rounds.total, charter.rounds.horizon) = (3, 3, 1);
    let mut world = World::new(charter, 5, 0);
    world.run_until("in round 1", |world| world.states.iter().all(|state| state.step() >= Step::Round(1)));
    world.off[3] = true;
    (0..3).for_each(|node| world.tell(node, Input::Disconnected(identity(3).id())));
    world.run_to_the_end();
}

/// Who claims to be far ahead, and is asked for that again and again, keeps nobody else from being asked.
#[test]
fn all_are_asked_though_one_claims_to_be_ahead() {
    let (mut world, me) = listener(4);
    for liar in (0..4).filter(|node| *node != me) {
        let mut asked = std::collections::BTreeSet::new();
        let others: Vec<_> = (0..4).filter(|node| *node != me).map(|node| identity(node).id()).collect();
        for peer in &others {
            world.states[me].handle(Input::Connected(*peer), world.now);
        }
        let genesis = world.states[me].genesis.unwrap();
        let far = Step::Round(ROUND_MAX);
        let head = Content::Head(Head { unsealed: far, sets: Digest::ZERO, state: Digest::ZERO });
        let from = identity(liar).id();
        let bytes = world.context.say(&identity(liar), genesis, far, u64::MAX, head).unwrap().bytes;
        let mut outputs = world.states[me].handle(Input::Message { ticket: 0, from, bytes }, world.now);
        for _ in 0..200 {
            world.now += 250;
            outputs.extend(world.states[me].handle(Input::Tick, world.now));
            for output in std::mem::take(&mut outputs) {
                if let Output::Pull { to, pull } = output {
                    asked.insert(to);
                    let open = if to == from { far } else { STEP };
                    let (step, unsealed) = (pull.step, open);
                    let batch =
                        Batch { step, open, unsealed, more: false, messages: vec![], seal: None, snapshot: None };
                    outputs.extend(world.states[me].handle(Input::Answered { from: to, batch }, world.now));
                }
            }
        }
        assert_eq!(asked.len(), 3, "{liar}");
        others.iter().for_each(|peer| drop(world.states[me].handle(Input::Disconnected(*peer), world.now)));
    }
}
