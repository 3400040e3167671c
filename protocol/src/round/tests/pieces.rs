//! Updates and states that are too large for a message.

use super::*;
use crate::{
    charter::CodecKind,
    limits,
    manifest::Manifest,
    message::{Snapshot, StateBytes},
};
use serde_bytes::ByteBuf;

/// Nodes whose updates take three pieces a slot.
fn big(nodes: usize, slots: u8) -> Charter {
    let mut charter = strict(nodes);
    charter.anchors.count = 66;
    (charter.adapter.slots, charter.adapter.branches, charter.adapter.rank) = (slots, 16, 64);
    charter.codec.kind = CodecKind::F32;
    charter.rounds.total = 2;
    charter
}

/// Another piece in place of the one that was asked for.
pub(super) fn forged(piece: Piece) -> Piece {
    let other = |bytes: ByteBuf| ByteBuf::from(bytes.iter().map(|byte| byte ^ 1).collect::<Vec<_>>());
    Piece { bytes: piece.bytes.map(other), ..piece }
}

/// How often each node has got each piece.
fn times_given(world: &World) -> BTreeMap<(usize, Fetch), usize> {
    let mut times = BTreeMap::new();
    for ((to, _, fetch), given) in &world.given {
        *times.entry((*to, *fetch)).or_default() += given;
    }
    times
}

#[test]
fn big_updates_come_in_pieces_from_several_peers_once() {
    let undisturbed = World::new(big(4, 1), 1, 0).run_to_the_end();
    for (seed, loss) in [(2, 0), (3, 30)] {
        let mut world = World::new(big(4, 1), seed, loss);
        assert_eq!(world.run_to_the_end(), undisturbed);
        let times = times_given(&world);
        // Three others, two rounds, three nodes' updates a node, three pieces each.
        assert_eq!((times.len(), times.values().max()), (4 * 2 * 3 * 3, Some(&1)));
        let author_of = |fetch: &Fetch| {
            let bodies = world.disks.iter().flat_map(|disk| &disk.messages);
            bodies
                .filter(|message| message.body.as_ref().is_some_and(|body| body.digest() == fetch.blob))
                .map(|message| message.author())
                .next()
        };
        let by_others =
            world.given.iter().filter(|((_, from, fetch), given)| **given > 0 && author_of(fetch) != Some(*from));
        assert!(by_others.count() > 0, "all pieces came from their authors");
        for node in 0..4 {
            let received = |event: &&Event| matches!(event, Event::Received { kind: Kind::Update, .. });
            assert_eq!(world.events[node].iter().filter(received).count(), 2 * 3);
        }
    }
}

#[test]
fn a_node_that_starts_again_goes_on_with_the_pieces_it_has() {
    let undisturbed = World::new(big(3, 2), 1, 0).run_to_the_end();
    let mut world = World::new(big(3, 2), 5, 0);
    world.run_until("has some of a round's pieces", |world| world.disks[1].pieces.len() == 4);
    let kept: Vec<_> = world.disks[1].pieces.iter().map(|kept| Fetch { blob: kept.blob, piece: kept.piece }).collect();
    world.restart(1);
    assert_eq!(world.run_to_the_end(), undisturbed);
    let times = times_given(&world);
    for fetch in kept {
        assert_eq!(times[&(1, fetch)], 1, "{fetch:?} was fetched again");
    }
    // With the round they are done with.
    assert!(world.disks.iter().all(|disk| disk.pieces.is_empty()));
    // What a node keeps it can start from.
    (0..3).for_each(|node| world.restart(node));
    assert_eq!(world.run_to_the_end(), undisturbed);
}

#[test]
fn who_gives_other_bytes_is_asked_no_more() {
    let mut world = World::new(big(4, 1), 4, 0);
    world.forger = Some(2);
    // Its own update nobody has but it.
    world.charter.rounds.quorum = 3;
    world.run_until("has been refused", |world| {
        let refused = |event: &Event| matches!(event, Event::Refused { from, .. } if *from == world.ids[2]);
        world.events.iter().any(|events| events.iter().any(refused))
    });
    (0..2_000).for_each(|_| world.step());
    // It is not the authors that are blamed.
    assert!(world.states.iter().all(|state| state.fetches.spoiled.is_empty()));
    world.forger = None;
    world.now += limits::FLOOD_MS;
    // Who was refused once for a thing is not asked for it again; who came by it otherwise passes it on.
    world.restart(0);
    world.restart(1);
    world.restart(3);
    world.run_to_the_end();
}

/// What `author` announces in round 1, and is no update.
fn garbage(world: &World, author: usize) -> Message {
    let manifest = Manifest::of(&vec![7; limits::PAYLOAD_BYTES_MAX + 10]);
    let genesis = world.states[0].genesis.unwrap();
    world.context.say(&identity(author), genesis, Step::Round(1), 9, Content::Announced(manifest)).unwrap()
}

#[test]
fn garbage_is_fetched_once() {
    let mut charter = big(3, 1);
    charter.rounds.deadline_ms = 1_000_000;
    let mut world = World::new(charter, 1, 0);
    world.run_until("is in round 1", |world| world.states[0].step() == Step::Round(1));
    let (liar, mut out) = (identity(2).id(), Vec::new());
    let announcement = garbage(&world, 2);
    let hear = |world: &mut World| {
        let input = Input::Message { ticket: 0, from: liar, bytes: announcement.bytes.clone() };
        world.states[0].handle(input, world.now)
    };
    let fetches = |out: &[Output]| out.iter().filter(|output| matches!(output, Output::Fetch { .. })).count();
    out.extend(hear(&mut world));
    // Two at once of who has told of it.
    assert!(fetches(&out) >= 2, "{out:?}");
    assert!(matches!(&hear(&mut world)[0], Output::Judge { verdict: Verdict::Ignore(Reason::Duplicate), .. }));
    let manifest = announcement.announces().unwrap();
    for piece in 0..manifest.pieces.len() as u32 {
        let fetch = Fetch { blob: manifest.digest(), piece };
        let length = (limits::PAYLOAD_BYTES_MAX + 10 - piece as usize * limits::PIECE_BYTES).min(limits::PIECE_BYTES);
        let answer = Piece { bytes: Some(ByteBuf::from(vec![7; length])), held: ByteBuf::from(vec![0xff]) };
        out = world.states[0].handle(Input::Piece { from: liar, fetch, piece: Some(answer) }, world.now);
    }
    let refused = |output: &Output| matches!(output, Output::Tell(Event::Refused { .. }));
    assert!(out.iter().any(refused), "{out:?}");
    // Neither it nor anything else of who said so; nor does it count as said.
    let again = hear(&mut world);
    let spoiled =
        |output: &Output| matches!(output, Output::Judge { verdict: Verdict::Ignore(Reason::Spoiled { .. }), .. });
    assert!(again.iter().any(spoiled), "{again:?}");
    assert_eq!(fetches(&again), 0);
    assert!(!world.states[0].ledger.get(Step::Round(1)).is_some_and(|set| set.has(&liar)));
}

#[test]
fn what_no_update_of_the_network_can_be_is_not_fetched() {
    let mut world = World::new(charter(3), 1, 0);
    world.run_until("are in round 1", |world| world.states.iter().all(|state| state.step() == Step::Round(1)));
    let bytes = garbage(&world, 2).bytes;
    let out = world.states[0].handle(Input::Message { ticket: 0, from: identity(2).id(), bytes }, world.now);
    let verdicts: Vec<_> = out.iter().filter(|output| matches!(output, Output::Judge { .. })).collect();
    assert!(matches!(verdicts[..], [Output::Judge { verdict: Verdict::Reject(Reason::Manifest(_)), .. }]), "{out:?}");
}

/// Four that have sealed all rounds, and a fifth that has been away since the first.
fn behind() -> World {
    let mut charter = big(5, 6);
    (charter.rounds.quorum, charter.rounds.deadline_ms, charter.rounds.horizon) = (4, 3_000, 1);
    charter.rounds.total = 5;
    charter.sealers.truncate(4);
    let mut world = World::new(charter, 1, 0);
    world.run_until("have begun", |world| world.states.iter().all(|state| state.step() == Step::Round(1)));
    world.off[4] = true;
    (0..4).for_each(|node| world.tell(node, Input::Disconnected(identity(4).id())));
    world.run_until("are done", |world| world.states[..4].iter().all(State::is_finished));
    world
}

#[test]
fn a_big_state_comes_in_pieces() {
    let mut world = behind();
    world.restart(4);
    world.run_to_the_end();
    let snapshot = world.events[4].iter().any(|event| matches!(event, Event::Snapshot { .. }));
    let fetching = world.events[4].iter().any(|event| matches!(event, Event::Fetching { author: None, .. }));
    assert!(snapshot && fetching);
}

/// Whoever offers what is no state, or does not give what it offers, delays the others by seconds.
#[test]
fn states_that_are_none_are_not_waited_for() {
    let mut world = behind();
    let pull = Pull { step: Step::Round(1), have: Vec::new(), want: Vec::new() };
    let honest = world.states[0].answer(&pull, world.now);
    let garbage = vec![7; limits::STATE_INLINE_BYTES_MAX + 1];
    let manifest = Manifest::of(&garbage);
    let seal = honest.snapshot.as_ref().unwrap().seal.clone();
    let state = StateBytes::Announced(manifest.clone());
    let bent = Batch { snapshot: Some(Box::new(Snapshot { seal, state })), ..honest.clone() };
    let ids = world.ids.clone();
    let (one, other) = (ids[1], ids[2]);
    let now = world.now;
    let me = &mut world.states[4];
    [one, other].into_iter().for_each(|peer| drop(me.handle(Input::Connected(peer), now)));
    let asks = |out: &[Output], blob: Digest| {
        out.iter().any(|output| matches!(output, Output::Fetch { fetch, .. } if fetch.blob == blob))
    };
    let offers =
        |me: &mut State, from, batch: &Batch, now| me.handle(Input::Answered { from, batch: batch.clone() }, now);
    assert!(asks(&offers(me, one, &bent, now), manifest.digest()));
    let Some(Snapshot { state: StateBytes::Announced(whole), .. }) = honest.snapshot.as_deref() else { panic!() };
    // One at a time, but for one that does not get on.
    assert!(!asks(&offers(me, other, &honest, now + 1), whole.digest()));
    let later = now + limits::FETCH_STALL_MS;
    drop(me.handle(Input::Tick, later));
    assert!(asks(&offers(me, other, &honest, later + 250), whole.digest()));
    // Who gives all of what is no state is not asked for another.
    let later = later + 250 + limits::FETCH_STALL_MS;
    assert!(asks(&offers(me, one, &bent, later), manifest.digest()));
    for (piece, bytes) in (0..).zip(garbage.chunks(limits::PIECE_BYTES)) {
        let piece_of = Piece { bytes: Some(ByteBuf::from(bytes)), held: ByteBuf::new() };
        let fetch = Fetch { blob: manifest.digest(), piece };
        drop(me.handle(Input::Piece { from: one, fetch, piece: Some(piece_of) }, later));
    }
    assert!(me.fetching().all(|progress| progress.author.is_some()));
    assert!(!asks(&offers(me, one, &bent, later + 1), manifest.digest()));
    assert!(asks(&offers(me, other, &honest, later + 1), whole.digest()));
}
