//! What keeps a node from being worn out, talked over or fooled: by floods, liars, late words, its own old disk and its
//! own clock.

use super::*;
use crate::{
    charter::{Alignment, Closing, Readout},
    limits::{FLOOD_MAX, FLOOD_MS, HEAD_FLOOD_MAX, HEAD_FRESH_MS},
};

/// Who contradicts itself.
const LIAR: usize = 3;

const BOTH: [Closing; 2] = [Closing::Everyone, Closing::Leader];

/// A small network without genesis.
fn small(nodes: usize) -> Charter {
    let mut charter = charter(nodes);
    (charter.adapter.alignment, charter.adapter.readout) = (Alignment::Random, Readout::Trained);
    (charter.adapter.branches, charter.adapter.rank, charter.adapter.readout_rank) = (1, 1, 1);
    charter
}

/// Node 0 in round 1. The others are switched off: what they say, the test says.
fn alone(charter: Charter) -> World {
    let mut world = World::new(charter, 1, 0);
    (1..world.states.len()).for_each(|node| world.off[node] = true);
    world.under_way.retain(|(to, _)| *to == 0);
    pump(&mut world);
    assert_eq!(world.states[0].step(), Step::Round(1));
    world
}

fn pump(world: &mut World) {
    while !world.under_way.is_empty() {
        world.deliver(0);
    }
}

fn forged(mut bytes: Vec<u8>) -> Vec<u8> {
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

fn head(world: &World, node: usize, sequence: u64) -> Vec<u8> {
    let step = world.states[0].step();
    let head = Content::Head(Head { unsealed: step, sets: Digest::ZERO, state: Digest::ZERO });
    world.context.say(&identity(node), world.states[0].genesis.unwrap(), step, sequence, head).unwrap().bytes
}

fn conflicts(world: &World) -> usize {
    world.events.iter().flatten().filter(|event| matches!(event, Event::Conflict { .. })).count()
}

/// Who sends what does not verify is not listened to for a while. What it would have said comes from others.
#[test]
fn garbage_costs_a_few_checks() {
    let mut world = alone(small(4));
    let good = says(&world, 1, 1, groups(&world, 5));
    for time in 0..2 {
        for _ in 0..FLOOD_MAX {
            let garbage = forged(says(&world, 1, 1, groups(&world, 6)));
            assert_eq!(judged_from(&mut world, 1, garbage), Verdict::Reject(Reason::Forged), "{time}");
        }
        assert_eq!(judged_from(&mut world, 1, good.clone()), Verdict::Ignore(Reason::Flood), "{time}");
        world.now += FLOOD_MS;
        assert_eq!(judged_from(&mut world, 1, good.clone()), Verdict::Ignore(Reason::Flood), "{time}");
        world.now += 1;
    }
    for _ in 1..FLOOD_MAX {
        let garbage = forged(says(&world, 1, 1, groups(&world, 6)));
        assert_eq!(judged_from(&mut world, 1, garbage), Verdict::Reject(Reason::Forged));
    }
    assert_eq!(judged_from(&mut world, 1, good.clone()), Verdict::Accept);
    let garbage = forged(says(&world, 1, 1, groups(&world, 6)));
    assert_eq!(judged_from(&mut world, 1, garbage), Verdict::Reject(Reason::Forged));
    let other = says(&world, 1, 3, groups(&world, 7));
    assert_eq!(judged_from(&mut world, 1, other.clone()), Verdict::Ignore(Reason::Flood));
    assert_eq!(judged_from(&mut world, 2, other), Verdict::Accept);
}

/// No signature is checked of what is refused for a cheaper reason.
#[test]
fn what_is_cheap_is_checked_first() {
    let in_round_four = |seed| {
        let mut charter = small(4);
        (charter.rounds.contributors, charter.rounds.quorum) = (3, 3);
        (charter.rounds.horizon, charter.rounds.total) = (1, 9);
        let mut world = World::new(charter, seed, 0);
        world.run_until("in round 4", |world| world.states[0].step() == Step::Round(4));
        let drawn = world.states[0].contributors(Step::Round(4))?;
        let (drawn, undrawn): (Vec<usize>, Vec<usize>) = (1..4).partition(|node| drawn.contains(&identity(*node).id()));
        let said = world.states[0].ledger.get(Step::Round(4));
        let drawn = drawn.into_iter().find(|node| said.is_none_or(|said| !said.has(&identity(*node).id())))?;
        Some((drawn, *undrawn.first()?, world))
    };
    // Where node 0 is drawn, and somebody else is who has said nothing yet.
    let (drawn, undrawn, mut world) = (3..20).find_map(in_round_four).unwrap();

    let old = says(&world, 1, drawn, groups(&world, 5));
    assert_eq!(judged(&mut world, forged(old)), Verdict::Ignore(Reason::Stale { round: 1, open: 4 }));
    let far = says(&world, 7, drawn, groups(&world, 5));
    assert_eq!(judged(&mut world, forged(far)), Verdict::Ignore(Reason::Early { round: 7, open: 4 }));
    let held = says(&world, 4, drawn, groups(&world, 5));
    assert_eq!(judged(&mut world, held.clone()), Verdict::Accept);
    assert_eq!(judged(&mut world, forged(held)), Verdict::Ignore(Reason::Duplicate));
    let relayed = head(&world, 2, 1_000_000);
    assert_eq!(judged(&mut world, forged(relayed)), Verdict::Ignore(Reason::Relayed));
    // An honest member that is not drawn, too, and what it has signed.
    let (other, author) = (says(&world, 4, undrawn, groups(&world, 5)), identity(undrawn).id());
    for bytes in [forged(other.clone()), other] {
        assert_eq!(judged(&mut world, bytes), Verdict::Ignore(Reason::NotAContributor { author }));
    }
    let new = says(&world, 4, drawn, groups(&world, 6));
    assert_eq!(judged(&mut world, forged(new)), Verdict::Reject(Reason::Forged));
}

/// Heads are for neighbours alone, the newest counts, and a neighbour's many heads cost no more than some.
#[test]
fn heads_are_few_and_at_first_hand() {
    let mut world = alone(small(4));
    let (newer, older) = (head(&world, 1, 5_001), head(&world, 1, 5_000));
    assert_eq!(judged_from(&mut world, 2, newer.clone()), Verdict::Ignore(Reason::Relayed));
    assert_eq!(judged_from(&mut world, 1, newer.clone()), Verdict::Heard);
    assert_eq!(judged_from(&mut world, 1, newer), Verdict::Ignore(Reason::Duplicate));
    assert_eq!(judged_from(&mut world, 1, older.clone()), Verdict::Ignore(Reason::Duplicate));
    // Who says nothing newer for so long has had its clock set back.
    world.now += HEAD_FRESH_MS + 1;
    assert_eq!(judged_from(&mut world, 1, older), Verdict::Heard);

    let many = |world: &mut World| {
        let verdicts = (0..2 * HEAD_FLOOD_MAX).map(|more| {
            let bytes = head(world, 2, world.now + 10_000 + u64::from(more));
            judged_from(world, 2, bytes)
        });
        let verdicts: Vec<_> = verdicts.collect();
        let (heard, rest) = verdicts.split_at(HEAD_FLOOD_MAX as usize);
        assert!(heard.iter().all(|verdict| *verdict == Verdict::Heard));
        assert!(rest.iter().all(|verdict| *verdict == Verdict::Ignore(Reason::Flood)));
    };
    many(&mut world);
    let another = head(&world, 3, 9_000);
    assert_eq!(judged_from(&mut world, 3, another), Verdict::Heard);
    let update = says(&world, 1, 2, groups(&world, 5));
    assert_eq!(judged_from(&mut world, 2, update), Verdict::Accept);
    world.now += FLOOD_MS + 1;
    many(&mut world);
}

/// Who shows two updates to everybody contributes to no later round, and nobody waits for it.
#[test]
fn who_contradicts_itself_is_banned() {
    fn both(context: &Context, message: &Message, _: usize) -> Vec<Vec<u8>> {
        let Content::Update(groups) = message.signed.value() else { return vec![message.bytes.clone()] };
        let mut groups = groups.clone();
        groups[0].exponent += 1;
        let other = context.say(&identity(LIAR), message.genesis, message.step, 9, Content::Update(groups)).unwrap();
        vec![message.bytes.clone(), other.bytes]
    }
    let mut charter = small(4);
    (charter.rounds.horizon, charter.rounds.total) = (1, 5);
    charter.rounds.deadline_ms = 10_000_000;
    let mut world = World::new(charter, 2, 0);
    world.liar = Some((LIAR, both));
    let liar = identity(LIAR).id();
    world.run_until("in round 3", |world| world.states.iter().all(|state| state.step() >= Step::Round(3)));
    for node in 0..3 {
        let round = world.states[node].step();
        assert_eq!(world.states[node].sealed().unwrap().banned.get(&liar), Some(&1));
        assert!(!world.states[node].contributors(round).unwrap().contains(&liar));
    }
    let update = says(&world, world.states[0].step().round(), LIAR, groups(&world, 5));
    let refused = Verdict::Ignore(Reason::NotAContributor { author: liar });
    assert_eq!(judged_from(&mut world, LIAR, update), refused);
    world.off[LIAR] = true;
    (0..LIAR).for_each(|node| world.tell(node, Input::Disconnected(liar)));
    world.run_to_the_end();
    let told: Vec<_> = world.events[..LIAR].iter().flatten().collect();
    assert!(!told.iter().any(|event| matches!(event, Event::DeadlineMissed { .. })), "after {} ms", world.now);
    let last = |event: &&&Event| matches!(event, Event::Sealed { round: 5, updates: 3, .. });
    assert_eq!(told.iter().filter(last).count(), 3);
}

/// A late update costs nothing when it comes, and one fold with the next close.
#[test]
fn a_late_update_is_folded_in_once() {
    let mut charter = small(4);
    charter.rounds.horizon = 3;
    let mut world = alone(charter);
    let [one, two, late] = [1, 2, 3].map(|node| says(&world, 1, node, groups(&world, node)));
    assert_eq!(judged_from(&mut world, 1, one), Verdict::Accept);
    assert_eq!(judged_from(&mut world, 2, two), Verdict::Accept);
    world.now += world.charter.rounds.deadline_ms;
    world.tell(0, Input::Tick);
    pump(&mut world);
    assert_eq!((world.states[0].step(), &world.folds[..]), (Step::Round(2), &[(0, vec![(1, 3)])][..]));

    assert_eq!(judged_from(&mut world, 3, late), Verdict::Accept);
    for _ in 0..4 {
        world.now += 250;
        world.tell(0, Input::Tick);
        pump(&mut world);
    }
    assert_eq!((world.states[0].step(), world.folds.len()), (Step::Round(2), 1));

    for node in 1..4 {
        let update = says(&world, 2, node, groups(&world, node));
        assert_eq!(judged_from(&mut world, node, update), Verdict::Accept);
    }
    pump(&mut world);
    assert_eq!((world.states[0].step(), &world.folds[1..]), (Step::Round(3), &[(0, vec![(1, 4), (2, 4)])][..]));
    let closed = |event: &&Event| matches!(event, Event::RoundClosed { round: 1, .. });
    assert_eq!(world.events[0].iter().filter(closed).count(), 2);
}

/// A node that trains something else in each of its lives, and dies before or after any of its writes, says one thing.
#[test]
fn who_dies_at_any_write_says_nothing_else_later() {
    for closing in BOTH {
        let mut charter = strict(3);
        (charter.rounds.total, charter.rounds.closing) = (2, closing);
        let mut undisturbed = World::new(charter.clone(), 1, 0);
        undisturbed.run_to_the_end();
        for crash in 2..2 * undisturbed.kept + 2 {
            let mut world = World::new(charter.clone(), 1, 0);
            (world.fickle, world.crash) = (true, Some(crash));
            world.run_to_the_end();
            assert_eq!(conflicts(&world), 0, "crash {crash}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// The same at any instant, where messages are lost.
    #[test]
    fn who_trains_something_else_after_each_crash_says_one_thing(seed: u64, at in 0..400usize, again in 0..200usize) {
        let mut world = World::new(strict(3), seed, 20);
        world.fickle = true;
        for steps in [at, again] {
            (0..steps).for_each(|_| world.step());
            world.restart(1);
        }
        world.run_to_the_end();
        prop_assert_eq!(conflicts(&world), 0);
    }
}

/// How much node 1 has said.
fn said(world: &World) -> usize {
    world.said.keys().filter(|(node, _)| *node == 1).count()
}

/// Node 1 dies once all it has said has arrived, and comes back with an old disk.
fn go_back(world: &mut World, old: Disk) {
    let me = identity(1).id();
    world.off[1] = true;
    let is_mine = |(_, parcel): &(usize, Parcel)| matches!(parcel, Parcel::Gossip(from, _) if *from == me);
    while let Some(at) = world.under_way.iter().position(is_mine) {
        world.deliver(at);
    }
    world.disks[1] = old;
    world.restart(1);
    // The others are slow: until it knows what it has said, they learn nothing but its questions.
    let asks = |(to, parcel): &(usize, Parcel)| {
        *to == 1 || matches!(parcel, Parcel::Question(from, _) | Parcel::Gossip(from, _) if *from == me)
    };
    for _ in 0..200 {
        let Some(at) = world.under_way.iter().position(asks) else { break };
        world.deliver(at);
    }
    world.run_to_the_end();
    assert_eq!(conflicts(world), 0);
}

/// A node that comes back with an old copy of its disk, after what it had said has arrived, says nothing else.
#[test]
fn an_old_disk_makes_nobody_say_two_things() {
    for closing in BOTH {
        for seed in 0..24 {
            println!("{closing:?}, seed {seed}");
            let mut charter = small(4);
            if seed % 3 == 0 {
                charter.adapter = super::charter(4).adapter;
            }
            (charter.rounds.total, charter.rounds.closing) = (4, closing);
            let mut world = World::new(charter, seed, 0);
            world.fickle = true;
            // Of an empty disk nobody can tell that it is an old one.
            world.run_until("begun", |world| !world.disks[1].messages.is_empty());
            (0..9 * seed).for_each(|_| world.step());
            let old = world.disks[1].clone();
            let enough = said(&world) + 1 + seed as usize % 5;
            world.run_until("said more", |world| said(world) >= enough || world.states[1].is_finished());
            go_back(&mut world, old);
        }
    }
}

/// Not even who was ahead of all others: what it had said is, to them, of steps that have not begun.
#[test]
fn an_old_disk_of_who_was_ahead_makes_it_say_nothing_else() {
    fn be_first(world: &mut World, much: usize) {
        while said(world) < much && !world.states[1].is_finished() {
            match world.under_way.iter().position(|(to, _)| *to == 1) {
                Some(at) => world.deliver(at),
                None if world.under_way.is_empty() => world.step(),
                None => world.deliver(0),
            }
        }
    }
    for closing in BOTH {
        for (first, more) in (1..20).flat_map(|first| [(first, 1), (first, 3)]) {
            println!("{closing:?}, {first} and {more}");
            let mut charter = super::charter(4);
            charter.rounds.closing = closing;
            let mut world = World::new(charter, 1, 0);
            world.fickle = true;
            be_first(&mut world, first);
            let old = world.disks[1].clone();
            be_first(&mut world, first + more);
            go_back(&mut world, old);
        }
    }
}

/// A node that starts again with a clock three hours slow is heard all the same.
#[test]
fn a_clock_set_back_silences_nobody() {
    const HOURS: Now = 3 * 3_600_000;
    let mut world = World::new(strict(3), 4, 0);
    world.ahead[1] = HOURS;
    world.run_until("in round 2", |world| world.states.iter().all(|state| state.step() == Step::Round(2)));
    // While all wait for node 2, node 1 says nothing but heads.
    world.off[2] = true;
    let waited = world.now + 60_000;
    world.run_until("waited", |world| world.now >= waited);
    world.ahead[1] = 0;
    world.restart(1);
    world.restart(2);
    world.run_to_the_end();
    let ended = world.now;
    world.run_until("known to all", |world| world.states.iter().all(|state| state.unfinished().is_empty()));
    assert!(world.now < ended + HEAD_FRESH_MS + 30_000, "after {} ms", world.now - ended);
}

#[test]
fn who_waits_for_a_seal_says_for_whom() {
    let mut charter = small(4);
    charter.rounds.closing = Closing::Leader;
    let deadline = charter.rounds.deadline_ms;
    let mut world = alone(charter);
    for member in 1..4 {
        let update = says(&world, 1, member, groups(&world, 5));
        assert_eq!(judged(&mut world, update), Verdict::Accept);
    }
    pump(&mut world);
    let overdue = |world: &World| -> Vec<(u64, Vec<NodeId>)> {
        let overdue = |event: &Event| match event {
            Event::SealOverdue { round, silent } => Some((*round, silent.clone())),
            _ => None,
        };
        world.events[0].iter().filter_map(overdue).collect()
    };
    assert_eq!(overdue(&world), []);
    world.now += deadline;
    world.tell(0, Input::Tick);
    let silent: Vec<_> = (1..4).map(|member| identity(member).id()).collect();
    assert_eq!(overdue(&world), [(1, silent)]);
}
