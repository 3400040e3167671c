//! All orders of events of small networks, near enough: every run that differs from the plain one (first come, first
//! served) in at most two places, where another parcel comes first, or a node dies and comes back (delay-bounded
//! scheduling: Emmi, Qadeer and Rakamaric 2011). After every event no two honest nodes may hold different seals.

use super::*;
use crate::{
    memo::Memo,
    seal::{List, Proposal, Value, Vote, proposer},
};
use std::{cell::RefCell, collections::BTreeSet};

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

/// What a run has come to: per honest node that has told of a seal, its updates and its view; how many contradictions
/// were noticed; and whose lists were proposed in view 0, by the views in which they would propose.
struct Ran {
    events: usize,
    updates: Vec<usize>,
    views: Vec<u32>,
    conflicts: usize,
    grounds: BTreeSet<usize>,
}

/// The nodes in the order in which they propose: that is how they are told apart here.
fn turns_of(world: &World) -> Vec<usize> {
    let genesis = world.states[0].genesis.unwrap();
    let turn = |view| proposer(&genesis, Step::Round(1), view, &world.charter.sealers).unwrap();
    (0..world.states.len() as u32).map(|view| world.index(&turn(view))).collect()
}

/// The view in which a node proposes first.
fn turn_of(context: &Context, message: &Message, node: usize) -> usize {
    let sealers = &context.charter.sealers;
    let turn =
        |view: &u32| proposer(&message.genesis, message.step, *view, sealers) == Some(context.charter.founders[node]);
    (0..sealers.len() as u32).find(turn).unwrap() as usize
}

/// The message's author says this in its place.
fn instead(context: &Context, message: &Message, content: Content) -> Vec<Vec<u8>> {
    let author = (0..).map(identity).find(|identity| identity.id() == message.author()).unwrap();
    vec![context.say(&author, message.genesis, message.step, 9, content).unwrap().bytes]
}

fn run(context: &Arc<Context>, liar: Option<(usize, Bend)>, turns: &[(usize, Turn)]) -> Ran {
    let mut world = World::within(context.clone(), 1, 0);
    let order = turns_of(&world);
    world.liar = liar.map(|(turn, bend)| (order[turn], bend));
    // The liar's first words were said before it could lie: they are its to say again.
    if let Some((liar, _)) = world.liar {
        world.restart(liar);
    }
    let is_liar = |node: &usize| liar.is_some_and(|(turn, _)| order[turn] == *node);
    let honest: Vec<usize> = (0..world.states.len()).filter(|node| !is_liar(node)).collect();
    let (mut events, mut grounds) = (0, BTreeSet::new());
    let done = |world: &World| honest.iter().all(|node| world.states[*node].is_finished());
    while !done(&world) {
        assert!(events < 4_000, "no end with {turns:?}");
        for (_, turn) in turns.iter().filter(|(at, _)| *at == events) {
            match turn {
                Turn::Overtake(back) if *back < world.under_way.len() => world.under_way.rotate_left(*back),
                Turn::Restart(turn) => world.restart(order[*turn]),
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
        if turns.is_empty() && grounds.is_empty() {
            grounds = proposed_from(&world, order[0]);
        }
    }
    let sealed = |node: &usize| {
        world.events[*node].iter().find_map(|event| match event {
            Event::Sealed { updates, view, .. } => Some((*updates, *view)),
            _ => None,
        })
    };
    let (updates, views) = honest.iter().filter_map(sealed).unzip();
    let told = honest.iter().flat_map(|node| &world.events[*node]);
    let conflicts = told.filter(|event| matches!(event, Event::Conflict { .. })).count();
    let grounds = grounds.iter().map(|node| order.iter().position(|other| other == node).unwrap()).collect();
    Ran { events, updates, views, conflicts, grounds }
}

/// Whose lists a node has proposed with in view 0, while it knows of that.
fn proposed_from(world: &World, node: usize) -> BTreeSet<usize> {
    let lists = world.states[node].sealing.said().filter_map(|message| match message.signed.value() {
        Content::Proposal(proposal) if proposal.view == 0 => Some(&proposal.lists),
        _ => None,
    });
    lists.flatten().map(|list| world.index(&world.context.open(list).unwrap().author)).collect()
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

/// Explores; every run's outcome goes to `judge`. Liar and who restarts are named by their turns.
fn explore(
    charter: &Charter,
    liar: Option<(usize, Bend)>,
    restarts: &[usize],
    judge: impl Fn(&Ran, &[(usize, Turn)]),
) -> usize {
    let context = Arc::new(Context::new(charter.clone()).unwrap().with_memo(Memo::new(4_096)));
    let plain = run(&context, liar, &[]);
    judge(&plain, &[]);
    let overtakes = (1..=REACH).map(Turn::Overtake);
    let kinds: Vec<Turn> = overtakes.chain(restarts.iter().map(|turn| Turn::Restart(*turn))).collect();
    let mut runs = 1;
    for first in 0..plain.events {
        for turn in &kinds {
            let turns = [(first, *turn)];
            judge(&run(&context, liar, &turns), &turns);
            runs += 1;
            // Of the second difference, a share that is drawn: all of them would be millions.
            let mut draws = Draws(first as u64 * 100 + runs as u64);
            let second = first + 1 + draws.below(plain.events - first);
            let turns = [(first, *turn), (second, kinds[draws.below(kinds.len())])];
            judge(&run(&context, liar, &turns), &turns);
            runs += 1;
        }
    }
    runs
}

/// The turn of a liar whose list is among the first three that reach the first proposer, in the plain order.
const LISTED: usize = 1;

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

/// One update, shown to one of the others, and never given to who asks.
#[test]
fn an_update_shown_to_some_is_in_for_all_or_for_none() {
    fn to_the_first(context: &Context, message: &Message, to: usize) -> Vec<Vec<u8>> {
        if matches!(message.signed.value(), Content::Update(_)) && turn_of(context, message, to) > 0 {
            return Vec::new();
        }
        vec![message.bytes.clone()]
    }
    /// Nor does it list it: then only one names it.
    fn unlisted(context: &Context, message: &Message, to: usize) -> Vec<Vec<u8>> {
        match message.signed.value() {
            Content::List(_) => Vec::new(),
            _ => to_the_first(context, message, to),
        }
    }
    let outcomes = RefCell::new(BTreeSet::<usize>::new());
    for (closing, lie) in
        BOTH.into_iter().flat_map(|closing| [to_the_first as Bend, unlisted].map(|lie| (closing, lie)))
    {
        let mut charter = network(4, closing);
        // Before the others have asked for it.
        charter.rounds.deadline_ms = 1_000;
        explore(&charter, Some((3, lie)), &[1], |ran, turns| {
            assert!(ran.updates.iter().all(|updates| [3, 4].contains(updates)), "{:?} {turns:?}", ran.updates);
            assert!(ran.updates.windows(2).all(|pair| pair[0] == pair[1]), "{turns:?}");
            outcomes.borrow_mut().extend(&ran.updates);
        });
    }
    assert_eq!(outcomes.into_inner(), [3, 4].into(), "one of both never came about");
}

/// Two updates by one author, each shown to some.
#[test]
fn two_updates_by_one_author_are_one_thing_for_all() {
    fn two_faced(context: &Context, message: &Message, to: usize) -> Vec<Vec<u8>> {
        let Content::Update(groups) = message.signed.value() else { return vec![message.bytes.clone()] };
        let mut groups = groups.clone();
        groups[0].exponent += i16::from(turn_of(context, message, to) == 0);
        instead(context, message, Content::Update(groups))
    }
    let outcomes = RefCell::new(BTreeSet::new());
    for closing in BOTH {
        explore(&network(4, closing), Some((3, two_faced)), &[1], |ran, turns| {
            assert!(ran.updates.windows(2).all(|pair| pair[0] == pair[1]), "{:?} {turns:?}", ran.updates);
            outcomes.borrow_mut().insert((ran.updates[0], ran.conflicts > 0));
        });
    }
    // Both ids or one of them, and it was noticed every time.
    assert_eq!(outcomes.into_inner(), [(3, true), (4, true)].into());
}

/// A sealer that votes for and against, to different nodes, from the first view on.
#[test]
fn two_votes_make_no_two_seals() {
    fn two_votes(context: &Context, message: &Message, to: usize) -> Vec<Vec<u8>> {
        let Content::Vote(vote) = message.signed.value() else { return vec![message.bytes.clone()] };
        let value = match turn_of(context, message, to) {
            0 => vote.value,
            1 => None,
            _ => vote.value.map(|value| Value { state: Digest::of("another", &[]), ..value }),
        };
        instead(context, message, Content::Vote(Vote { value, ..vote.clone() }))
    }
    for closing in BOTH {
        explore(&network(4, closing), Some((3, two_votes)), &[1], |ran, turns| {
            assert!(ran.updates.iter().all(|updates| *updates == 4), "{:?} {turns:?}", ran.updates);
        });
    }
}

/// What all honest sealers hold is sealed, and nothing else, whatever a liar lists to the first proposer; nor does that
/// cost a view.
#[test]
fn a_false_list_takes_nothing_out_and_brings_nothing_in() {
    fn lists(context: &Context, message: &Message, to: usize, lie: fn(&List) -> Vec<Digest>) -> Vec<Vec<u8>> {
        match message.signed.value() {
            Content::List(list) if turn_of(context, message, to) == 0 => {
                instead(context, message, Content::List(List { ids: lie(list) }))
            }
            _ => vec![message.bytes.clone()],
        }
    }
    fn nothing(context: &Context, message: &Message, to: usize) -> Vec<Vec<u8>> {
        lists(context, message, to, |_| Vec::new())
    }
    fn invented(context: &Context, message: &Message, to: usize) -> Vec<Vec<u8>> {
        lists(context, message, to, |list| {
            let ids: BTreeSet<_> = list.ids.iter().copied().chain([Digest::of("invented", &[])]).collect();
            ids.into_iter().collect()
        })
    }
    for (closing, lie) in BOTH.into_iter().flat_map(|closing| [(closing, nothing as Bend), (closing, invented)]) {
        explore(&network(4, closing), Some((LISTED, lie)), &[1], |ran, turns| {
            assert!(ran.updates.iter().all(|updates| *updates == 4), "{:?} {turns:?}", ran.updates);
            if turns.is_empty() {
                assert!(ran.grounds.contains(&LISTED), "the list was not used: {:?}", ran.grounds);
                assert_eq!(ran.views, [0, 0, 0]);
            }
        });
    }
}

/// A proposer whose sets or states are wrong, or whose lists are too few, costs its view and nothing else.
#[test]
fn a_lying_proposer_seals_nothing() {
    fn proposes(context: &Context, message: &Message, lie: fn(&mut Proposal)) -> Vec<Vec<u8>> {
        let Content::Proposal(proposal) = message.signed.value() else { return vec![message.bytes.clone()] };
        let mut proposal = proposal.clone();
        lie(&mut proposal);
        instead(context, message, Content::Proposal(proposal))
    }
    /// Without the lists of a quorum.
    fn omits(context: &Context, message: &Message, _: usize) -> Vec<Vec<u8>> {
        proposes(context, message, |proposal| proposal.lists.truncate(2))
    }
    /// With a set that its lists don't compute.
    fn invents(context: &Context, message: &Message, _: usize) -> Vec<Vec<u8>> {
        proposes(context, message, |proposal| proposal.value.set = Digest::of("invented", &[]))
    }
    /// Fused wrongly.
    fn misfuses(context: &Context, message: &Message, _: usize) -> Vec<Vec<u8>> {
        proposes(context, message, |proposal| proposal.value.state = Digest::of("wrong", &[]))
    }
    for (closing, lie) in
        BOTH.into_iter().flat_map(|closing| [omits as Bend, invents, misfuses].map(|lie| (closing, lie)))
    {
        explore(&network(4, closing), Some((0, lie)), &[1], |ran, turns| {
            assert!(ran.updates.iter().all(|updates| *updates == 4), "{:?} {turns:?}", ran.updates);
            assert!(ran.views.iter().all(|view| *view > 0), "{:?} {turns:?}", ran.views);
            if turns.is_empty() {
                assert!(!ran.grounds.is_empty(), "it did not propose");
                assert_eq!(ran.views, [1, 1, 1]);
            }
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
