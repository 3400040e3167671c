//! All orders of events of small networks, near enough: every run that differs from the plain one (first come, first
//! served) in at most two places, where another parcel comes first, or a node dies and comes back (delay-bounded
//! scheduling: Emmi, Qadeer and Rakamaric 2011). After every event no two honest nodes may hold different seals.

use super::*;
use crate::seal::{Stage, Vote};

/// How many events back in the queue a parcel may be that comes first.
const REACH: usize = 3;

/// A place where a run differs: before this event, the parcel so far back comes first; or a node restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Overtake(usize),
    Restart(usize),
}

/// A network whose nodes seal one round, without genesis.
fn network(nodes: usize, closing: crate::charter::Closing) -> Charter {
    let mut charter = charter(nodes);
    charter.adapter.alignment = crate::charter::Alignment::Random;
    charter.adapter.readout = crate::charter::Readout::Trained;
    (charter.adapter.branches, charter.adapter.rank, charter.adapter.readout_rank) = (1, 1, 1);
    charter.rounds.quorum = crate::seal::quorum(nodes) as u16;
    (charter.rounds.total, charter.rounds.closing) = (1, closing);
    charter
}

/// What a run has come to: per honest node the seals it has told, and whether all of them have got to the end.
struct Ran {
    events: usize,
    updates: Vec<usize>,
    conflicts: usize,
}

fn run(charter: &Charter, bend: Option<Bend>, turns: &[(usize, Turn)]) -> Ran {
    let mut world = World::new(charter.clone(), 1, 0);
    world.bend = bend;
    // The liar's first words were said before it could lie: they are its to say again.
    if bend.is_some() {
        world.restart(LIAR);
    }
    let honest: Vec<usize> = (0..world.states.len()).filter(|node| bend.is_none() || *node != LIAR).collect();
    let mut events = 0;
    let done = |world: &World| honest.iter().all(|node| world.states[*node].is_finished());
    while !done(&world) {
        assert!(events < 4_000, "no end with {turns:?}");
        for (_, turn) in turns.iter().filter(|(at, _)| *at == events) {
            match turn {
                Turn::Overtake(back) if *back < world.under_way.len() => world.under_way.rotate_left(*back),
                Turn::Restart(node) => world.restart(*node),
                Turn::Overtake(_) => {}
            }
        }
        if world.under_way.is_empty() {
            world.now += 500;
            (0..world.states.len()).for_each(|node| world.tell(node, Input::Tick));
        } else {
            world.deliver(0);
        }
        events += 1;
        check(&world, &honest, turns);
    }
    let sealed = |node: &usize| {
        world.events[*node].iter().find_map(|event| match event {
            Event::Sealed { updates, .. } => Some(*updates),
            _ => None,
        })
    };
    let conflicts = honest.iter().flat_map(|node| &world.events[*node]);
    Ran {
        events,
        updates: honest.iter().filter_map(sealed).collect(),
        conflicts: conflicts.filter(|event| matches!(event, Event::Conflict { .. })).count(),
    }
}

/// One seal a round, for ever, and the same for all.
fn check(world: &World, honest: &[usize], turns: &[(usize, Turn)]) {
    let mut seals: BTreeMap<u64, Digest> = BTreeMap::new();
    for event in honest.iter().flat_map(|node| &world.events[*node]) {
        if let Event::Sealed { round, state, .. } = event {
            assert_eq!(seals.entry(*round).or_insert(*state), state, "two seals of round {round} with {turns:?}");
        }
        assert!(!matches!(event, Event::Miscomputes { .. }), "{turns:?}");
    }
}

/// Explores; every run's outcome goes to `judge`.
fn explore(charter: &Charter, bend: Option<Bend>, restarts: &[usize], judge: impl Fn(&Ran, &[(usize, Turn)])) -> usize {
    let plain = run(charter, bend, &[]);
    judge(&plain, &[]);
    let overtakes = (1..=REACH).map(Turn::Overtake);
    let kinds: Vec<Turn> = overtakes.chain(restarts.iter().map(|node| Turn::Restart(*node))).collect();
    let mut runs = 1;
    for first in 0..plain.events {
        for turn in &kinds {
            let turns = [(first, *turn)];
            judge(&run(charter, bend, &turns), &turns);
            runs += 1;
            // Of the second difference, a share that is drawn: all of them would be millions.
            let mut draws = Draws(first as u64 * 100 + runs as u64);
            let second = first + 1 + draws.below(plain.events - first);
            let turns = [(first, *turn), (second, kinds[draws.below(kinds.len())])];
            judge(&run(charter, bend, &turns), &turns);
            runs += 1;
        }
    }
    runs
}

const BOTH: [crate::charter::Closing; 2] = [crate::charter::Closing::Everyone, crate::charter::Closing::Leader];

#[test]
fn three_honest_nodes_seal_what_all_of_them_hold() {
    for closing in BOTH {
        // All three must seal, and close only with all three updates, or at the deadline.
        let runs = explore(&network(3, closing), None, &[0, 1], |ran, turns| {
            assert_eq!((&ran.updates[..], ran.conflicts), (&[3, 3, 3][..], 0), "{turns:?}");
        });
        assert!(runs > 500, "{runs}");
    }
}

/// One update, shown to half of the others, and never given to who asks.
#[test]
fn an_update_shown_to_some_is_in_for_all_or_for_none() {
    fn to_the_first(_: &Context, message: &Message, to: usize) -> Vec<Vec<u8>> {
        if matches!(message.signed.value(), Content::Update(_)) && to > 0 {
            return Vec::new();
        }
        vec![message.bytes.clone()]
    }
    for closing in BOTH {
        explore(&network(4, closing), Some(to_the_first), &[1], |ran, turns| {
            assert!(ran.updates.iter().all(|updates| [3, 4].contains(updates)), "{:?} {turns:?}", ran.updates);
            assert!(ran.updates.windows(2).all(|pair| pair[0] == pair[1]), "{turns:?}");
        });
    }
}

/// Two updates by one author, each shown to some.
#[test]
fn two_updates_by_one_author_are_one_thing_for_all() {
    fn two_faced(context: &Context, message: &Message, to: usize) -> Vec<Vec<u8>> {
        let Content::Update(groups) = message.signed.value() else { return vec![message.bytes.clone()] };
        let mut groups = groups.clone();
        groups[0].exponent += i16::from(to == 1);
        let other = context.say(&identity(LIAR), message.genesis, message.step, 9, Content::Update(groups)).unwrap();
        vec![other.bytes]
    }
    for closing in BOTH {
        explore(&network(4, closing), Some(two_faced), &[2], |ran, turns| {
            assert!(ran.updates.windows(2).all(|pair| pair[0] == pair[1]), "{:?} {turns:?}", ran.updates);
        });
    }
}

/// A sealer that votes for and against, to different nodes; and lists to some what it does not to others.
#[test]
fn two_votes_make_no_two_seals() {
    fn two_votes(context: &Context, message: &Message, to: usize) -> Vec<Vec<u8>> {
        let say = |content| {
            let said = context.say(&identity(LIAR), message.genesis, message.step, 9, content).unwrap();
            vec![said.bytes]
        };
        match message.signed.value() {
            Content::Vote(vote) if to == 1 => say(Content::Vote(Vote { value: None, ..vote.clone() })),
            Content::Vote(vote) if to == 2 && vote.stage == Stage::Precommit => {
                let value = vote.value.map(|value| crate::seal::Value { state: Digest::of("another", &[]), ..value });
                say(Content::Vote(Vote { value, ..vote.clone() }))
            }
            Content::List(_) if to == 1 => say(Content::List(crate::seal::List { ids: Vec::new() })),
            _ => vec![message.bytes.clone()],
        }
    }
    for closing in BOTH {
        explore(&network(4, closing), Some(two_votes), &[0], |ran, turns| {
            assert!(ran.updates.iter().all(|updates| *updates == 4), "{:?} {turns:?}", ran.updates);
        });
    }
}

/// A proposer whose sets or states are wrong, or whose lists are too few, costs its view and nothing else.
#[test]
fn a_lying_proposer_seals_nothing() {
    fn misproposes(context: &Context, message: &Message, to: usize) -> Vec<Vec<u8>> {
        let Content::Proposal(proposal) = message.signed.value() else { return vec![message.bytes.clone()] };
        let mut proposal = proposal.clone();
        match to {
            // Fused wrongly.
            0 => proposal.value.state = Digest::of("wrong", &[]),
            // With a set that its lists don't compute.
            1 => proposal.value.set = Digest::of("invented", &[]),
            // Without the lists of a quorum.
            _ => proposal.lists.truncate(1),
        }
        let content = Content::Proposal(proposal);
        vec![context.say(&identity(LIAR), message.genesis, message.step, 9, content).unwrap().bytes]
    }
    for closing in BOTH {
        explore(&network(4, closing), Some(misproposes), &[1], |ran, turns| {
            assert!(ran.updates.iter().all(|updates| *updates == 4), "{:?} {turns:?}", ran.updates);
        });
    }
}

/// A node that dies before or after any of its writes, with what it was about to do undone, loses no round and says
/// nothing twice.
#[test]
fn a_node_may_die_at_every_write() {
    for closing in BOTH {
        let mut charter = strict(3);
        (charter.rounds.total, charter.rounds.closing) = (2, closing);
        let mut undisturbed = World::new(charter.clone(), 1, 0);
        let state = undisturbed.run_to_the_end();
        assert!(undisturbed.kept > 20, "{}", undisturbed.kept);
        for crash in 2..2 * undisturbed.kept + 2 {
            let mut world = World::new(charter.clone(), 1, 0);
            world.crash = Some(crash);
            assert_eq!(world.run_to_the_end(), state, "crash {crash}");
            let told: Vec<_> = world.events.iter().flatten().collect();
            assert!(!told.iter().any(|event| matches!(event, Event::Conflict { .. })), "crash {crash}");
        }
    }
}

/// A node that comes back with an old copy of its disk signs nothing that contradicts what it has signed since.
#[test]
fn an_old_backup_makes_nobody_contradict_itself() {
    for closing in BOTH {
        for (seed, taken_at) in (0..12).map(|seed| (seed, 20 + 23 * seed as usize)) {
            let mut charter = charter(4);
            (charter.rounds.total, charter.rounds.closing) = (5, closing);
            let mut world = World::new(charter, seed, 10);
            (0..taken_at).for_each(|_| world.step());
            let backup = world.disks[1].clone();
            (0..60 + 11 * taken_at % 200).for_each(|_| world.step());
            world.disks[1] = backup;
            world.restart(1);
            world.run_to_the_end();
            let told: Vec<_> = world.events.iter().flatten().collect();
            assert!(!told.iter().any(|event| matches!(event, Event::Conflict { .. })), "{closing:?}, seed {seed}");
        }
    }
}
