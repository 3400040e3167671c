//! Who comes into a network that runs.

use super::*;
use crate::{
    charter::{Alignment, Closing, Readout},
    enrolment::Enrolment,
    limits::{HORIZON_MAX, MEMBERS_MAX, MIXTURE_VALUES_MAX, STATE_BYTES_MAX},
    mixture::Mixture,
    roster, wire,
};
use std::collections::BTreeSet;

mod strangers;

const BOTH: [Closing; 2] = [Closing::Everyone, Closing::Leader];

/// A small network without genesis that newcomers may join.
fn joinable(admission: Admission) -> Charter {
    let mut charter = charter(4);
    (charter.adapter.alignment, charter.adapter.readout) = (Alignment::Random, Readout::Trained);
    (charter.adapter.branches, charter.adapter.rank, charter.adapter.readout_rank) = (1, 1, 1);
    (charter.rounds.total, charter.rounds.horizon) = (12, 2);
    charter.admission = admission;
    charter
}

fn invited() -> Admission {
    Admission::Invited { admins: vec![admin().id()] }
}

fn world(charter: Charter, newcomers: usize, seed: u64, loss: usize) -> World {
    World::with_newcomers(Arc::new(Context::new(charter).unwrap()), newcomers, seed, loss)
}

fn conflicts(world: &World) -> usize {
    world.events.iter().flatten().filter(|event| matches!(event, Event::Conflict { .. })).count()
}

fn open(world: &World) -> u64 {
    world.states[0].step().round()
}

/// Lets newcomers come, one a round from the second, and runs to the end.
fn let_them_come(world: &mut World) {
    for (round, newcomer) in (2..).zip(world.charter.founders.len()..world.states.len()) {
        world.run_until("so far", |world| open(world) >= round);
        world.switch_on(newcomer);
    }
    world.run_to_the_end();
}

/// All nodes hold all newcomers as members, have told so once, and have their updates in sealed rounds.
fn are_members(world: &World) {
    let newcomers: BTreeSet<_> = world.ids[world.charter.founders.len()..].iter().copied().collect();
    let sealed = world.states[0].sealed().unwrap();
    assert_eq!(sealed.enrolled.keys().copied().collect::<BTreeSet<_>>(), newcomers);
    for newcomer in &newcomers {
        // Evidence is of what was folded.
        assert!(sealed.memory.0.contains_key(newcomer), "enrolled in {}, and silent", sealed.enrolled[newcomer]);
        for events in &world.events {
            let told =
                events.iter().filter(|event| matches!(event, Event::Enrolled { member, .. } if member == newcomer));
            assert!(told.count() >= 1);
        }
    }
    assert!(sealed.banned.is_empty());
    for (node, state) in world.states.iter().enumerate() {
        assert_eq!(state.members().count(), world.ids.len());
        // All are asked for what they hold.
        let others = world.ids.iter().enumerate().filter(|(other, _)| *other != node).map(|(_, id)| *id);
        assert_eq!(state.sync.connected().collect::<BTreeSet<_>>(), others.collect());
        assert_eq!(state.sync.strangers().count(), 0);
    }
    let without = Checkpoint { enrolled: BTreeMap::new(), ..(**sealed).clone() };
    assert_ne!(without.digest(), sealed.digest());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 0, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// Whatever is lost or comes late: newcomers become members, and contribute.
    #[test]
    fn newcomers_become_members_and_contribute(seed: u64, loss in 0..40usize, leader: bool, genesis: bool) {
        let mut charter = joinable(if seed % 2 == 0 { invited() } else { Admission::Open });
        charter.rounds.closing = BOTH[usize::from(leader)];
        charter.rounds.total = 40;
        if genesis {
            charter.adapter = super::charter(4).adapter;
        }
        let mut world = world(charter, 2, seed, loss);
        let_them_come(&mut world);
        are_members(&world);
    }

    /// Nor does it matter if a newcomer, or who knows it, dies and comes back with its disk; and it says one thing.
    #[test]
    fn a_newcomer_may_die_at_any_time(seed: u64, at in 0..600usize, again in 0..200usize, who in 1..5usize) {
        let mut world = world(joinable(invited()), 1, seed, 10);
        world.run_until("in round 2", |world| open(world) >= 2);
        world.switch_on(4);
        for steps in [at, again] {
            (0..steps).for_each(|_| world.step());
            world.restart(who);
        }
        world.run_to_the_end();
        prop_assert!(world.states[0].is_member(&world.ids[4]));
        prop_assert_eq!(conflicts(&world), 0);
    }

    /// An old disk makes no newcomer contradict itself, be it as a stranger or as a member.
    #[test]
    fn a_newcomer_with_an_old_disk_says_one_thing(seed: u64, at in 0..400usize, more in 1..300usize) {
        let mut world = world(joinable(invited()), 1, seed, 0);
        world.fickle = true;
        world.run_until("in round 2", |world| open(world) >= 2);
        world.switch_on(4);
        world.run_until("begun", |world| !world.disks[4].messages.is_empty());
        (0..at).for_each(|_| world.step());
        let old = world.disks[4].clone();
        (0..more).for_each(|_| world.step());
        world.disks[4] = old;
        world.restart(4);
        world.run_to_the_end();
        prop_assert_eq!(conflicts(&world), 0);
    }
}

/// It contributes as soon as the round that has enrolled it is a horizon away, and no sooner.
#[test]
fn a_member_contributes_a_horizon_later() {
    let mut world = world(joinable(invited()), 1, 1, 0);
    let_them_come(&mut world);
    let newcomer = world.ids[4];
    let since = world.states[0].sealed().unwrap().enrolled[&newcomer];
    let rounds = world.events[4].iter().filter_map(|event| match event {
        Event::Published { kind: Kind::Update, round, .. } => Some(*round),
        _ => None,
    });
    assert_eq!(rounds.collect::<Vec<_>>(), (since + 3..=12).collect::<Vec<_>>());
    // It says no second one before the first has come to nothing.
    let mut waits_for = 0;
    for event in &world.events[4] {
        match event {
            Event::Published { kind: Kind::Enrolment, round, .. } => {
                assert_eq!(waits_for, 0, "in round {round}");
                waits_for = *round;
            }
            Event::Sealed { round, .. } if *round >= waits_for => waits_for = 0,
            _ => {}
        }
    }
}

/// A member that came later is banned as others are when it contradicts itself; a stranger that does only stays out of
/// that round.
#[test]
fn who_contradicts_itself_contributes_nothing() {
    /// The last round in which its enrolments contradict each other.
    const FICKLE: u64 = 4;
    fn both(context: &Context, message: &Message, _: usize) -> Vec<Vec<u8>> {
        let other = match message.signed.value() {
            Content::Update(groups) => {
                let mut groups = groups.clone();
                groups[0].exponent += 1;
                Content::Update(groups)
            }
            Content::Enrolment(_) if message.step <= Step::Round(FICKLE) => {
                Content::Enrolment(Enrolment { membership: Some(invitation(context, 4, 2)) })
            }
            _ => return vec![message.bytes.clone()],
        };
        let other = context.say(&identity(4), message.genesis, message.step, u64::MAX, other).unwrap();
        vec![message.bytes.clone(), other.bytes]
    }
    let mut charter = joinable(invited());
    charter.rounds.horizon = 1;
    let mut world = world(charter, 1, 2, 0);
    world.run_until("in round 2", |world| open(world) >= 2);
    world.liar = Some((4, both));
    world.switch_on(4);
    world.run_until("over", |world| world.states[..4].iter().all(State::is_finished));
    let (sealed, liar) = (world.states[0].sealed().unwrap(), world.ids[4]);
    let since = sealed.enrolled[&liar];
    assert!(since > FICKLE, "enrolled in {since}");
    let banned = sealed.banned[&liar];
    assert_eq!(banned, since + 2, "in its first round");
    let contributors = |round| roster::contributors(&world.context, sealed, sealed.digest(), round);
    assert!(!contributors(13).unwrap().contains(&liar));
    assert!(roster::is_on(&world.context, sealed, 13, &liar), "nor does it enrol again");
}

/// A newcomer may have no peers but such that have come themselves, whom it can't know yet.
#[test]
fn newcomers_bring_newcomers() {
    for genesis in [false, true] {
        let mut charter = joinable(invited());
        // Timers are slow beside these rounds.
        charter.rounds.total = 80;
        if genesis {
            charter.adapter = super::charter(4).adapter;
        }
        let mut world = world(charter, 2, 5, 0);
        world.run_until("in round 2", |world| open(world) >= 2);
        world.switch_on(4);
        world.run_until("enrolled", |world| world.states[..4].iter().all(|state| state.is_member(&world.ids[4])));
        world.run_until("far ahead", |world| open(world) >= 9);
        world.off[5] = false;
        world.tell(5, Input::Start);
        world.tell(5, Input::Connected(world.ids[4]));
        world.tell(4, Input::Connected(world.ids[5]));
        world.run_to_the_end();
        let sealed = world.states[0].sealed().unwrap();
        assert!(sealed.memory.0.contains_key(&world.ids[5]), "enrolled: {:?}", sealed.enrolled);
    }
}

/// The roster is read off any sealed state that is new enough: all give the same.
#[test]
fn every_state_knows_the_same_roster() {
    let mut world = world(joinable(invited()), 2, 3, 0);
    let mut states = BTreeMap::new();
    let mut came = 0;
    while !world.states[0].is_finished() {
        if open(&world) >= 2 && came < 2 {
            world.switch_on(4 + came);
            came += 1;
        }
        let sealed = world.states[0].sealed().unwrap().clone();
        states.insert(sealed.round, sealed);
        world.step();
    }
    let mut sizes = BTreeSet::new();
    for round in 1..=12 {
        let know =
            states.values().filter(|state| (round..round + 3).contains(&(state.round + 2)) || state.round == round);
        let rosters: BTreeSet<_> = know
            .filter_map(|state| roster::contributors(&world.context, state, state.digest(), round))
            .map(|roster| roster.iter().copied().collect::<Vec<_>>())
            .collect();
        assert_eq!(rosters.len(), 1, "round {round}");
        sizes.extend(rosters.iter().map(Vec::len));
    }
    assert_eq!((sizes.first(), sizes.last()), (Some(&4), Some(&6)));
}

/// The largest state there can be fits into what it is read with, and into an answer.
#[test]
fn the_largest_state_fits() {
    let key = |number: usize| NodeId::from_bytes(*Digest::of("test", &[&number.to_le_bytes()]).as_bytes());
    let members = || (0..MEMBERS_MAX).map(key);
    let mut state = Checkpoint::first(Digest::ZERO, Mixture { groups: vec![vec![i64::MIN; MIXTURE_VALUES_MAX]] });
    state.round = ROUND_MAX;
    state.enrolled = members().map(|member| (member, ROUND_MAX)).collect();
    state.banned = state.enrolled.clone();
    state.memory.0 = members().map(|member| (member, i64::MIN)).collect();
    state.past = vec![Digest::ZERO; HORIZON_MAX as usize];
    let bytes = wire::encode(&state, STATE_BYTES_MAX).unwrap();
    assert!(bytes.len() + 16 * 1_024 > STATE_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(wire::decode::<Checkpoint>(&bytes, STATE_BYTES_MAX).unwrap(), state);
}
