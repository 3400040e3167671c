//! Updates and states that are too large for a message.

use super::*;
use crate::{
    charter::CodecKind,
    limits,
    manifest::Manifest,
    message::{Snapshot, StateBytes},
};
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;

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

/// What a peer does while something is fetched.
#[derive(Clone, Debug)]
enum Deed {
    Gives(usize, u32, Vec<u8>),
    GivesOther(usize, u32),
    IsSilent(usize, u32),
    Comes(usize),
    Goes(usize),
    Waits(Now),
    Asks(u32),
}

fn deed() -> impl Strategy<Value = Deed> {
    let (peer, piece) = (0..4usize, prop_oneof![4 => 0..3u32, 1 => any::<u32>()]);
    let held = prop::collection::vec(any::<u8>(), 0..3);
    prop_oneof![
        (peer.clone(), piece.clone(), held).prop_map(|(peer, piece, held)| Deed::Gives(peer, piece, held)),
        (peer.clone(), piece.clone()).prop_map(|(peer, piece)| Deed::GivesOther(peer, piece)),
        (peer.clone(), piece.clone()).prop_map(|(peer, piece)| Deed::IsSilent(peer, piece)),
        peer.clone().prop_map(Deed::Comes),
        peer.prop_map(Deed::Goes),
        (0..40_000u64).prop_map(Deed::Waits),
        piece.prop_map(Deed::Asks),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 0, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// Whatever peers do: few pieces are asked for at once, few of one peer, none of who has lied; and when they come,
    /// that is it.
    #[test]
    fn a_fetch_stays_within_its_bounds_and_ends(deeds in prop::collection::vec(deed(), 0..60)) {
        let mut world = World::new(big(4, 1), 1, 0);
        world.run_until("is in round 1", |world| world.states[0].step() == Step::Round(1));
        let Contribution::Update { groups, .. } = update(&world.charter, 2, 1, &world.states[0].view()) else { panic!() };
        let genesis = world.states[0].genesis.unwrap();
        let said = world.context.say(&identity(2), genesis, Step::Round(1), 9, Content::Update(groups)).unwrap();
        let body = said.body.clone().unwrap();
        let (blob, ids, me) = (body.digest(), world.ids.clone(), &mut world.states[0]);
        let mut now = world.now;
        let mut asked: BTreeMap<u32, (NodeId, Now)> = BTreeMap::new();
        let mut liars = BTreeSet::new();
        let note = |out: &[Output], asked: &mut BTreeMap<u32, (NodeId, Now)>, liars: &BTreeSet<NodeId>, now| {
            for output in out {
                let Output::Fetch { to, fetch } = output else { continue };
                if fetch.blob == blob {
                    assert!(!liars.contains(to), "a liar is asked again");
                    asked.insert(fetch.piece, (*to, now));
                }
            }
            asked.retain(|_, (_, since)| now < *since + limits::PIECE_TIMEOUT_MS);
            assert!(asked.len() <= limits::PIECES_ASKED_MAX);
            for id in &ids {
                let of_peer = asked.values().filter(|(to, _)| to == id).count();
                assert!(of_peer <= limits::PIECES_ASKED_OF_PEER_MAX, "{of_peer} pieces of one peer");
            }
        };
        let bytes = said.bytes.clone();
        note(&me.handle(Input::Message { ticket: 0, from: ids[2], bytes }, now), &mut asked, &liars, now);
        let piece_of = |piece: u32, change: u8, held: &[u8]| {
            let bytes = body.piece(piece).map(|bytes| bytes.iter().map(|byte| byte ^ change).collect::<Vec<_>>());
            Piece { bytes: bytes.map(ByteBuf::from), held: ByteBuf::from(held) }
        };
        for deed in deeds {
            let mut came = |from: NodeId, piece: u32, answer: Option<Piece>, me: &mut State| {
                if asked.get(&piece).is_some_and(|(to, _)| *to == from) {
                    asked.remove(&piece);
                }
                me.handle(Input::Piece { from, fetch: Fetch { blob, piece }, piece: answer }, now)
            };
            let out = match deed {
                Deed::Gives(peer, piece, held) => came(ids[peer], piece, Some(piece_of(piece, 0, &held)), me),
                Deed::GivesOther(peer, piece) => {
                    let under_way = me.fetching().any(|progress| progress.author == Some(ids[2]));
                    if body.piece(piece).is_some() && under_way {
                        liars.insert(ids[peer]);
                    }
                    came(ids[peer], piece, Some(piece_of(piece, 1, &[0xff])), me)
                }
                Deed::IsSilent(peer, piece) => came(ids[peer], piece, None, me),
                Deed::Comes(peer) => me.handle(Input::Connected(ids[peer]), now),
                Deed::Goes(peer) => {
                    asked.retain(|_, (to, _)| *to != ids[peer]);
                    // Who comes back is given another chance.
                    liars.remove(&ids[peer]);
                    me.handle(Input::Disconnected(ids[peer]), now)
                }
                Deed::Waits(ms) => {
                    now += ms;
                    me.handle(Input::Tick, now)
                }
                Deed::Asks(piece) => me.handle(Input::AskedPiece { ticket: 1, fetch: Fetch { blob, piece } }, now),
            };
            note(&out, &mut asked, &liars, now);
        }
        for piece in 0..3 {
            let answer = Some(piece_of(piece, 0, &[]));
            me.handle(Input::Piece { from: ids[3], fetch: Fetch { blob, piece }, piece: answer }, now);
        }
        let held = me.ledger.get(Step::Round(1)).and_then(|set| set.find(&said.id()));
        prop_assert!(held.is_some_and(|held| held.body == said.body));
    }
}
