//! Those who are no members, and what they may cost.

use super::*;
use crate::{
    enrolment::rank,
    limits::{ENROLMENT_BYTES_MAX, ENROLMENT_FLOOD_MAX, ENROLMENTS_MAX, ENROLMENTS_SHED_MAX, FLOOD_MS},
};

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

/// Who is on the roster says updates, and does not enrol again.
#[test]
fn nobody_enrols_twice() {
    let mut world = world(joinable(invited()), 1, 1, 0);
    world.run_until("in round 2", |world| open(world) >= 2);
    world.switch_on(4);
    let since = |world: &World| world.states[0].sealed().and_then(|state| state.enrolled.get(&world.ids[4]).copied());
    world.run_until("on the roster", |world| since(world).is_some_and(|since| open(world) > since + 2));
    let round = open(&world);
    let again = says_in(&world, 4, round, Some(invitation(&world.context, 4, 9)));
    assert_eq!(judged_from(&mut world, 4, again), Verdict::Ignore(Reason::Enrolled { author: world.ids[4] }));
}

/// Strangers count for nothing among the neighbours; they are asked now and then, since they may be members by now.
#[test]
fn strangers_are_asked_on_the_timer_alone() {
    let mut world = alone(joinable(invited()));
    (1..4).for_each(|node| world.tell(0, Input::Disconnected(identity(node).id())));
    let stranger = identity(5).id();
    let asks = |outputs: Vec<Output>| {
        outputs.iter().any(|output| matches!(output, Output::Pull { to, .. } if *to == stranger))
    };
    let now = world.now;
    assert!(!asks(world.states[0].handle(Input::Connected(stranger), now)));
    assert!(asks(world.states[0].handle(Input::Tick, now + 20_000)));
    assert_eq!(world.states[0].sync.connected().count(), 0);
    world.states[0].handle(Input::Disconnected(stranger), now);
    assert!(!asks(world.states[0].handle(Input::Tick, now + 60_000)));
}
