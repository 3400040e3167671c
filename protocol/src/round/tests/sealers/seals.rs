//! Seals that peers give: one thing wrong with them, and they are none.

use super::*;
use crate::{
    limits,
    message::{Snapshot, StateBytes},
    seal::Seal,
    wire,
};

/// Five members of which the first four seal three rounds, and soon forget them.
fn five() -> Charter {
    let mut charter = few_rounds(5, 3);
    charter.sealers.truncate(4);
    charter.rounds.horizon = 1;
    charter
}

/// A network that has sealed all of its rounds: the first one's seal, and the snapshot for who needs that one.
fn past() -> (World, Seal, Snapshot) {
    let mut world = World::new(five(), 1, 0);
    world.run_to_the_end();
    let seal = world.disks[0].seals.iter().find(|seal| seal.step == STEP).unwrap().clone();
    let pull = Pull { step: STEP, have: Vec::new(), want: Vec::new() };
    let snapshot = *world.states[0].answer(&pull, 0).snapshot.unwrap();
    assert_eq!(seal.certificate.ballots.len(), 3);
    (world, seal, snapshot)
}

/// What `node`'s ballot in a seal's certificate would be, with its vote changed.
fn ballot_of(world: &World, seal: &Seal, node: usize, change: impl Fn(&mut Vote, &mut Digest, &mut Step)) -> Ballot {
    let Certificate { view, stage, value, .. } = seal.certificate;
    let mut vote = Vote { view, stage, value: Some(value) };
    let (mut genesis, mut step) = (world.states[0].genesis.unwrap(), seal.step);
    change(&mut vote, &mut genesis, &mut step);
    ballot(&world.context.say(&identity(node), genesis, step, 5, Content::Vote(vote)).unwrap())
}

/// All that can be wrong with a seal, with why it is refused.
fn broken(world: &World, seal: &Seal) -> Vec<(&'static str, Seal, Reason)> {
    let (unproven, other) = ("a certificate that does not verify", "a seal of another set");
    let ballots = |change: &dyn Fn(&mut Vote, &mut Digest, &mut Step)| -> Vec<Ballot> {
        (0..4).map(|node| ballot_of(world, seal, node, change)).collect()
    };
    let prevotes = ballots(&|vote, _, _| vote.stage = Stage::Prevote);
    let of_genesis = ballots(&|_, genesis, _| *genesis = Digest::of("other", &[]));
    let of_step = ballots(&|_, _, step| *step = step.next());
    let of_view = ballots(&|vote, _, _| vote.view += 1);
    let for_nothing = ballots(&|vote, _, _| vote.value = None);
    let by_no_sealer = ballot_of(world, seal, 4, |_, _, _| ());
    let mut table = Vec::new();
    let mut add = |name, what, change: &dyn Fn(&mut Seal)| {
        let mut seal = seal.clone();
        change(&mut seal);
        table.push((name, seal, Reason::Seal { what }));
    };
    let votes = |seal: &mut Seal, ballots: &[Ballot]| seal.certificate.ballots = ballots.to_vec();
    add("one vote short", unproven, &|seal| seal.certificate.ballots.truncate(2));
    add("no votes", unproven, &|seal| seal.certificate.ballots.clear());
    add("one vote twice", unproven, &|seal| seal.certificate.ballots[2] = seal.certificate.ballots[1].clone());
    add("a vote too many, twice", unproven, &|seal| {
        seal.certificate.ballots.push(seal.certificate.ballots[0].clone());
    });
    add("a vote by no sealer", unproven, &|seal| seal.certificate.ballots[2] = by_no_sealer.clone());
    add("one bit of a signature", unproven, &|seal| seal.certificate.ballots[1].signature[20] ^= 4);
    add("another sequence number", unproven, &|seal| seal.certificate.ballots[1].sequence += 1);
    add("prevotes", unproven, &|seal| votes(seal, &prevotes));
    add("prevotes, and says so", other, &|seal| {
        votes(seal, &prevotes);
        seal.certificate.stage = Stage::Prevote;
    });
    add("another genesis", unproven, &|seal| votes(seal, &of_genesis));
    add("another step", unproven, &|seal| votes(seal, &of_step));
    add("another view", unproven, &|seal| votes(seal, &of_view));
    add("votes for nothing", unproven, &|seal| votes(seal, &for_nothing));
    add("other ids", other, &|seal| seal.ids.truncate(3));
    add("ids in another order", "ids that are not in order", &|seal| seal.ids.reverse());
    add("other ids, and says so", unproven, &|seal| {
        seal.ids.truncate(3);
        seal.certificate.value.set = set_digest(&seal.ids);
    });
    add("another state", unproven, &|seal| seal.certificate.value.state = Digest::of("other", &[]));
    table
}

/// `me` is given these by node 1; what was refused of it.
fn given(world: &mut World, me: usize, seal: Option<Seal>, snapshot: Option<Snapshot>) -> Vec<String> {
    let batch = Batch {
        step: STEP,
        open: STEP.next(),
        unsealed: STEP.next(),
        more: false,
        messages: vec![],
        seal: seal.map(Box::new),
        snapshot: snapshot.map(Box::new),
    };
    let before = world.events[me].len();
    world.tell(me, Input::Answered { from: identity(1).id(), batch });
    pump(world);
    let refused = world.events[me][before..].iter().filter_map(|event| match event {
        Event::Refused { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    refused.collect()
}

fn sealed(world: &World, me: usize) -> Vec<(u64, Digest)> {
    let told = world.events[me].iter().filter_map(|event| match event {
        Event::Sealed { round, state, .. } => Some((*round, *state)),
        _ => None,
    });
    told.collect()
}

/// Given to a sealer, and to one that is none.
#[test]
fn a_seal_without_a_quorum_is_none() {
    let (past, seal, _) = past();
    for me in [0, 4] {
        let mut world = alone_in(five(), me);
        for (name, bad, reason) in broken(&past, &seal) {
            assert_eq!(given(&mut world, me, Some(bad), None), [reason.to_string()], "{name}");
            assert_eq!((world.states[me].unsealed(), sealed(&world, me)), (STEP, vec![]), "{name}");
        }
        assert!(given(&mut world, me, Some(seal.clone()), None).is_empty());
        assert_eq!(sealed(&world, me), [(1, seal.value().state)]);
        assert_eq!(world.states[me].unsealed(), STEP.next());
    }
}

/// The same with the state beside it: it is taken from anybody, so all hangs on its seal.
#[test]
fn a_snapshot_without_a_seal_is_none() {
    let (past, _, snapshot) = past();
    let Snapshot { seal, state } = &snapshot;
    assert!(seal.step > STEP);
    let another = |change: &dyn Fn(&mut Checkpoint)| {
        let StateBytes::Here(state) = state else { panic!("a small state is announced") };
        let mut state: Checkpoint = wire::decode(state, limits::STATE_BYTES_MAX).unwrap();
        change(&mut state);
        Snapshot {
            seal: seal.clone(),
            state: StateBytes::Here(wire::encode(&state, limits::STATE_BYTES_MAX).unwrap().into()),
        }
    };
    let mut table: Vec<_> = broken(&past, seal)
        .into_iter()
        .map(|(name, seal, reason)| (name, Snapshot { seal, state: state.clone() }, reason))
        .collect();
    let what = "a snapshot of another state";
    let mut add = |name, snapshot| table.push((name, snapshot, Reason::Seal { what }));
    add("one value", another(&|state| state.mixture.groups[0][0] += 1));
    add(
        "a ban",
        another(&|state| {
            state.banned.insert(identity(2).id(), 1);
        }),
    );
    add("another round", another(&|state| state.round += 1));
    for me in [0, 4] {
        let mut world = alone_in(five(), me);
        let before = world.states[me].sealed().unwrap().digest();
        for (name, bad, reason) in table.clone() {
            assert_eq!(given(&mut world, me, None, Some(bad)), [reason.to_string()], "{name}");
            assert_eq!((world.states[me].unsealed(), sealed(&world, me)), (STEP, vec![]), "{name}");
            assert_eq!(world.states[me].sealed().unwrap().digest(), before, "{name}");
        }
        assert!(given(&mut world, me, None, Some(snapshot.clone())).is_empty());
        assert_eq!(sealed(&world, me), [(seal.step.round(), seal.value().state)]);
        assert!(world.states[me].is_finished());
    }
}
