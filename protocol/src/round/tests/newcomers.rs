//! Who comes into a network that runs, and who does not.

use super::*;
use crate::{
    charter::{Alignment, Closing, Readout},
    enrolment::{Enrolment, rank},
    limits::{
        ENROLMENT_BYTES_MAX, ENROLMENT_FLOOD_MAX, ENROLMENTS_MAX, ENROLMENTS_SHED_MAX, FLOOD_MS, HORIZON_MAX,
        MEMBERS_MAX, MIXTURE_VALUES_MAX, STATE_BYTES_MAX,
    },
    mixture::Mixture,
    roster, wire,
};
use std::collections::BTreeSet;

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
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// Whatever is lost or comes late: newcomers become members, and contribute.
    #[test]
    fn newcomers_become_members_and_contribute(seed: u64, loss in 0..40usize, leader: bool, genesis: bool) {
        let mut charter = joinable(if seed % 2 == 0 { invited() } else { Admission::Open });
        charter.rounds.closing = BOTH[usize::from(leader)];
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

/// Node 0 in round 1, alone: what others say, the test says.
fn alone(charter: Charter) -> World {
    let mut world = world(charter, 0, 1, 0);
    (1..4).for_each(|node| world.off[node] = true);
    world.under_way.retain(|(to, _)| *to == 0);
    while !world.under_way.is_empty() {
        world.deliver(0);
    }
    assert_eq!(open(&world), 1);
    world
}

/// A node's enrolment in a round.
fn says_in(world: &World, node: usize, round: u64, membership: Option<Membership>) -> Vec<u8> {
    let (genesis, content) = (world.states[0].genesis.unwrap(), Content::Enrolment(Enrolment { membership }));
    world.context.say(&identity(node), genesis, Step::Round(round), 9, content).unwrap().bytes
}

fn invites(world: &World, node: usize, round: u64) -> Vec<u8> {
    says_in(world, node, round, Some(invitation(&world.context, node, 1)))
}

fn held(world: &World) -> Vec<NodeId> {
    world.states[0].ledger.get(Step::Round(1)).map(|set| set.newcomers()).unwrap_or_default()
}

fn reason(verdict: Verdict) -> String {
    match verdict {
        Verdict::Reject(reason) => format!("reject: {reason}"),
        Verdict::Ignore(reason) => format!("ignore: {reason}"),
        verdict => format!("{verdict:?}"),
    }
}

#[test]
fn strangers_come_in_by_an_admin_s_word_alone() {
    let mut world = alone(joinable(invited()));
    let mut elsewhere = world.charter.clone();
    elsewhere.nonce = 9;
    let elsewhere = Context::new(elsewhere).unwrap();
    let own = Membership::sign(&identity(5), &world.context.network, identity(5).id(), 1).unwrap();
    let claimed = Membership { admin: admin().id(), ..own.clone() };
    let worthless = [
        (None, "has no membership"),
        (Some(invitation(&world.context, 6, 1)), "each node needs its own"),
        (Some(invitation(&elsewhere, 5, 1)), "does not verify for this network"),
        (Some(own), "who is no admin"),
        (Some(claimed), "does not verify for this network"),
    ];
    for (membership, why) in worthless {
        let bytes = says_in(&world, 5, 1, membership);
        let told = reason(judged(&mut world, bytes));
        assert!(told.starts_with("reject: not admitted") && told.contains(why), "{told}");
    }
    let mut forged = invites(&world, 5, 1);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(judged(&mut world, forged), Verdict::Reject(Reason::Forged));
    let update = says(&world, 1, 5, groups(&world, 5));
    assert_eq!(judged(&mut world, update), Verdict::Ignore(Reason::Stranger { author: identity(5).id() }));
    let head = Content::Head(Head { unsealed: Step::Round(1), sets: Digest::ZERO, state: Digest::ZERO });
    let head = world.context.say(&identity(5), world.states[0].genesis.unwrap(), Step::Round(1), 9, head).unwrap();
    assert_eq!(judged_from(&mut world, 5, head.bytes), Verdict::Ignore(Reason::Stranger { author: identity(5).id() }));
    assert!(held(&world).is_empty());
    assert!(world.disks[0].messages.iter().all(|message| message.kind != Kind::Enrolment));
    let invited = invites(&world, 5, 1);
    assert_eq!(judged(&mut world, invited), Verdict::Accept);
    assert_eq!(held(&world), [identity(5).id()]);
}

/// Where the charter names all, strangers are what they were before.
#[test]
fn an_allowlist_knows_no_strangers() {
    let mut world = alone(joinable(Admission::Allowlist));
    for membership in [None, Some(invitation(&world.context, 5, 1))] {
        let bytes = says_in(&world, 5, 1, membership);
        assert_eq!(judged(&mut world, bytes), Verdict::Reject(Reason::NotAMember { author: identity(5).id() }));
    }
}

/// No signature is checked of what is refused for a cheaper reason.
#[test]
fn what_is_cheap_is_checked_first() {
    let mut world = alone(joinable(Admission::Open));
    let forged = |mut bytes: Vec<u8>| {
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let member = forged(says_in(&world, 1, 1, None));
    assert_eq!(judged(&mut world, member), Verdict::Ignore(Reason::Enrolled { author: identity(1).id() }));
    let far = forged(says_in(&world, 5, 4, None));
    assert_eq!(judged(&mut world, far), Verdict::Ignore(Reason::Early { round: 4, open: 1 }));
    let mut envelope = world.context.open(&says_in(&world, 5, 1, None)).unwrap();
    envelope.payload = vec![0; ENROLMENT_BYTES_MAX + 1];
    let long = wire::encode(&envelope, MESSAGE_BYTES_MAX).unwrap();
    assert!(matches!(judged(&mut world, long), Verdict::Reject(Reason::Malformed(_))));
    let held = says_in(&world, 5, 1, None);
    assert_eq!(judged(&mut world, held.clone()), Verdict::Accept);
    assert_eq!(judged(&mut world, forged(held)), Verdict::Ignore(Reason::Duplicate));
}

/// Of a flood of strangers as many are held as may be, the same ones in any order; one peer's cost no more than some
/// checks, and updates still come in.
#[test]
fn a_flood_of_strangers_is_bounded() {
    let mut one = alone(joinable(Admission::Open));
    let mut other = alone(joinable(Admission::Open));
    let strangers: Vec<_> = (4..4 + 3 * ENROLMENTS_MAX).collect();
    let genesis = one.states[0].genesis.unwrap();
    let mut first: Vec<_> = strangers.iter().map(|node| identity(*node).id()).collect();
    first.sort_by_key(|node| rank(&genesis, Step::Round(1), node));
    first.truncate(ENROLMENTS_MAX);
    let backwards: Vec<_> = strangers.iter().rev().copied().collect();
    for (world, order) in [(&mut one, &strangers), (&mut other, &backwards)] {
        for node in order {
            let bytes = says_in(world, *node, 1, None);
            let verdict = judged_from(world, 1 + node % 3, bytes);
            assert!(matches!(verdict, Verdict::Accept | Verdict::Ignore(Reason::Crowded { round: 1 })), "{verdict:?}");
        }
        assert_eq!(held(world), first);
    }
    // Who is not among the first is refused unread.
    let last = strangers.iter().find(|node| !first.contains(&identity(**node).id())).unwrap();
    let mut forged = says_in(&one, *last, 1, None);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(judged(&mut one, forged), Verdict::Ignore(Reason::Crowded { round: 1 }));
    let set = |world: &World| world.states[0].ledger.get(Step::Round(1)).unwrap().digest();
    assert_eq!(set(&one), set(&other));

    // They are not awaited, nor do they make a quorum.
    one.now += one.charter.rounds.deadline_ms;
    one.tell(0, Input::Tick);
    assert!(one.under_way.iter().all(|(to, _)| *to != 0) && one.folds.is_empty());
    for node in 1..3 {
        let update = says(&one, 1, node, groups(&one, node));
        assert_eq!(judged_from(&mut one, node, update), Verdict::Accept);
    }
    one.tell(0, Input::Tick);
    assert_eq!(one.folds, [(0, vec![(1, 3)])]);
    while let Some(at) = one.under_way.iter().position(|(to, _)| *to == 0) {
        one.deliver(at);
    }
    let enrolled = &one.states[0].checkpoint().unwrap().enrolled;
    assert_eq!(*enrolled, first.iter().map(|node| (*node, 1)).collect());
}

/// Whose strangers are many is not listened to about strangers for a while; its other messages are.
#[test]
fn one_peer_s_strangers_cost_a_few_checks() {
    let mut world = alone(joinable(invited()));
    // The same stranger contradicts itself again and again: its membership is renewed.
    let says = |world: &mut World, from: usize, round: u64, expires: u64| {
        let node = 5 + expires as usize % ENROLMENTS_MAX;
        let bytes = says_in(world, node, round, Some(invitation(&world.context, node, expires)));
        judged_from(world, from, bytes)
    };
    let mut checked = 0;
    for round in 1..=3 {
        for expires in 0..4 * ENROLMENTS_MAX as u64 {
            checked += u64::from(says(&mut world, 1, round, expires) == Verdict::Accept);
        }
    }
    // Two things of each in a round: the others tell nothing.
    assert_eq!(checked, 6 * ENROLMENTS_MAX as u64);
    let set = world.states[0].ledger.get(Step::Round(1)).unwrap();
    assert_eq!((set.messages().count(), set.newcomers(), set.len()), (1 + 2 * ENROLMENTS_MAX, Vec::new(), 1));

    let mut world = alone(joinable(Admission::Open));
    let genesis = world.states[0].genesis.unwrap();
    let mut strangers: Vec<_> = (10..10 + 2 * ENROLMENT_FLOOD_MAX as usize).collect();
    // The worst order: each comes before all others so far.
    strangers.sort_by_key(|node| rank(&genesis, Step::Round(1), &identity(*node).id()));
    let verdicts: Vec<_> = strangers
        .iter()
        .rev()
        .map(|node| {
            let bytes = says_in(&world, *node, 1, None);
            judged_from(&mut world, 1, bytes)
        })
        .collect();
    let (heard, rest) = verdicts.split_at(ENROLMENT_FLOOD_MAX as usize);
    assert!(heard.iter().all(|verdict| *verdict == Verdict::Accept));
    assert!(rest.iter().all(|verdict| *verdict == Verdict::Ignore(Reason::Flood)));
    let update = super::says(&world, 1, 1, groups(&world, 1));
    assert_eq!(judged_from(&mut world, 1, update), Verdict::Accept);
    let bytes = says_in(&world, strangers[0], 1, None);
    assert_eq!(judged_from(&mut world, 2, bytes), Verdict::Accept);
    world.now += FLOOD_MS + 1;
    let bytes = says_in(&world, strangers[1], 1, None);
    assert_eq!(judged_from(&mut world, 1, bytes), Verdict::Accept);
}

/// What a sealer has listed it holds until the step is sealed, whoever comes first since: a proposer may have settled on
/// it, and nobody else may have it.
#[test]
fn what_is_listed_is_held() {
    let mut charter = joinable(Admission::Open);
    charter.rounds.closing = Closing::Leader;
    let mut world = alone(charter);
    let genesis = world.states[0].genesis.unwrap();
    let mut strangers: Vec<_> = (4..4 + 2 * ENROLMENTS_MAX).collect();
    strangers.sort_by_key(|node| rank(&genesis, Step::Round(1), &identity(*node).id()));
    let (first, last) = strangers.split_at(ENROLMENTS_MAX);
    let says_all = |world: &mut World, nodes: &[usize]| {
        nodes.iter().for_each(|node| {
            let bytes = says_in(world, *node, 1, None);
            assert_eq!(judged_from(world, 1 + node % 3, bytes), Verdict::Accept);
        });
    };
    says_all(&mut world, last);
    let listed = held(&world);
    for node in 1..4 {
        let update = says(&world, 1, node, groups(&world, node));
        assert_eq!(judged_from(&mut world, node, update), Verdict::Accept);
    }
    let lists = |world: &World| world.disks[0].messages.iter().filter(|message| message.kind == Kind::List).count();
    assert_eq!(lists(&world), 1);
    says_all(&mut world, first);
    assert_eq!(held(&world).len(), ENROLMENTS_MAX);
    let holds = |world: &World| -> BTreeSet<NodeId> {
        world.states[0].sealing.laid_aside().map(|message| message.author()).collect()
    };
    assert_eq!(holds(&world), listed.iter().copied().collect());
    // And so after a restart.
    world.restart(0);
    assert_eq!(holds(&world), listed.iter().copied().collect());
}

/// A member that came later is banned as others are when it contradicts itself; a stranger that does only stays out of
/// that round.
#[test]
fn who_contradicts_itself_contributes_nothing() {
    fn both(context: &Context, message: &Message, _: usize) -> Vec<Vec<u8>> {
        let other = match message.signed.value() {
            Content::Update(groups) => {
                let mut groups = groups.clone();
                groups[0].exponent += 1;
                Content::Update(groups)
            }
            Content::Enrolment(_) if message.step == Step::Round(2) => {
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
    assert!(since > 2, "enrolled in {since}");
    let banned = sealed.banned[&liar];
    assert_eq!(banned, since + 2, "in its first round");
    let contributors = |round| roster::contributors(&world.context, sealed, sealed.digest(), round);
    assert!(!contributors(13).unwrap().contains(&liar));
    assert!(roster::is_on(&world.context, sealed, 13, &liar), "nor does it enrol again");
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

/// Nor do many peers' strangers cost more than some in a round, be they in the worst order.
#[test]
fn a_round_s_strangers_cost_so_much() {
    let mut world = alone(joinable(Admission::Open));
    let genesis = world.states[0].genesis.unwrap();
    let mut strangers: Vec<_> = (10..10 + ENROLMENTS_MAX + ENROLMENTS_SHED_MAX + 20).collect();
    strangers.sort_by_key(|node| rank(&genesis, Step::Round(1), &identity(*node).id()));
    let verdicts = strangers.iter().rev().map(|node| {
        let bytes = says_in(&world, *node, 1, None);
        judged_from(&mut world, 1 + node % 3, bytes)
    });
    let verdicts: Vec<_> = verdicts.collect();
    let (heard, rest) = verdicts.split_at(ENROLMENTS_MAX + ENROLMENTS_SHED_MAX);
    assert!(heard.iter().all(|verdict| *verdict == Verdict::Accept));
    assert!(rest.iter().all(|verdict| *verdict == Verdict::Ignore(Reason::Crowded { round: 1 })));
    // Who is held may still contradict itself.
    let node = strangers[30];
    let other = says_in(&world, node, 1, Some(invitation(&world.context, node, 1)));
    world.now += FLOOD_MS + 1;
    assert_eq!(judged(&mut world, other), Verdict::Accept);
    assert_eq!(held(&world).len(), ENROLMENTS_MAX - 1);
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
