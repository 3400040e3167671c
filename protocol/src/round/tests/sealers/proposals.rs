//! Proposals that are not what they must be: refused, not voted for, or not kept.

use super::*;
use std::collections::BTreeSet;

/// A value for view 0 or 1, and what it is proposed with.
#[derive(Clone)]
struct Draft {
    step: Step,
    author: usize,
    proposal: Proposal,
}

impl Draft {
    fn says(&self, world: &World) -> Message {
        let genesis = world.states.iter().find_map(|state| state.genesis).unwrap();
        let content = Content::Proposal(self.proposal.clone());
        world.context.say(&identity(self.author), genesis, self.step, 5, content).unwrap()
    }
}

/// A list of these ids by `node`, under a genesis and of a step.
fn list(world: &World, node: usize, genesis: Digest, step: Step, ids: &[Digest]) -> ByteBuf {
    let content = Content::List(List { ids: ids.to_vec() });
    ByteBuf::from(world.context.say(&identity(node), genesis, step, 5, content).unwrap().bytes)
}

/// Prevotes of these nodes for a value in view 0.
fn polka(world: &World, step: Step, value: Value, nodes: std::ops::Range<usize>) -> Certificate {
    let genesis = world.states.iter().find_map(|state| state.genesis).unwrap();
    let (view, stage) = (0, Stage::Prevote);
    let vote = |node| {
        let content = Content::Vote(Vote { view, stage, value: Some(value) });
        ballot(&world.context.say(&identity(node), genesis, step, 5, content).unwrap())
    };
    Certificate { view, stage, value, ballots: nodes.map(vote).collect() }
}

/// A network of four that seal two rounds, and one of them whose turn is neither in view 0 nor in view 1.
fn judge() -> (World, usize) {
    let world = alone_in(few_rounds(4, 2), 0);
    let steps = [STEP, STEP.next()];
    let is_free = |node: &usize| steps.iter().all(|step| (0..2).all(|view| turn_in(&world, *step, view) != *node));
    let me = (0..4).find(is_free).unwrap();
    let mut world = alone_in(few_rounds(4, 2), me);
    wait(&mut world, me, 500);
    (world, me)
}

/// Also of the next step, which can't be voted on yet: it is passed on, and those who are ahead would reject it.
#[test]
fn a_bad_proposal_is_rejected() {
    for step in [STEP, STEP.next()] {
        let (mut world, me) = judge();
        let genesis = world.states[me].genesis.unwrap();
        let ids = world.states[me].ledger.get(STEP).unwrap().ids();
        let list = |node, genesis, step, ids: &[Digest]| list(&world, node, genesis, step, ids);
        let lists: Vec<_> = (0..4).map(|node| list(node, genesis, step, &ids)).collect();
        let (value, _) = value(&world, me, ids.clone());
        let [first, second] = [0, 1].map(|view| {
            let proposal = Proposal { view, value, polka: None, lists: lists[..3].to_vec() };
            Draft { step, author: turn_in(&world, step, view), proposal }
        });
        let proven = |polka| {
            let mut draft = second.clone();
            draft.proposal.polka = Some(polka);
            draft
        };
        let with = |change: &dyn Fn(&mut Proposal)| {
            let mut draft = first.clone();
            change(&mut draft.proposal);
            draft
        };
        // Named by one list of three, and by two: not enough, and enough.
        let more: Vec<_> =
            ids.iter().copied().chain([Digest::of("more", &[])]).collect::<BTreeSet<_>>().into_iter().collect();
        let one_names = with(&|bad| {
            bad.lists[2] = list(2, genesis, step, &more);
            bad.value.set = set_digest(&more);
        });
        let two_name = with(&|bad| {
            bad.lists[2] = list(2, genesis, step, &[]);
            bad.value.set = set_digest(&[]);
        });
        let last = |list: ByteBuf| with(&|proposal| proposal.lists[2] = list.clone());
        let full = polka(&world, step, value, 0..3);
        let mut forged = full.clone();
        forged.ballots[1].signature[9] ^= 1;
        let mut of_another = polka(&world, step, Value { state: Digest::ZERO, ..value }, 0..3);
        let other_votes = of_another.clone();
        of_another.value = value;
        let late = Certificate { view: 1, ..full.clone() };
        let vote = Content::Vote(Vote { view: 0, stage: Stage::Prevote, value: None });
        let vote = world.context.say(&identity(2), genesis, step, 5, vote).unwrap();
        let mut broken = lists[2].clone();
        *broken.last_mut().unwrap() ^= 1;

        let unsound = |what| Reason::Seal { what };
        let (set, few) = (unsound("a set that its lists do not compute"), unsound("the lists of less than a quorum"));
        let (two, other) = (unsound("two lists by one sealer"), unsound("a list of another step"));
        let (polka_short, polka_other) =
            (unsound("a proof of votes that does not verify"), unsound("a proof of other votes"));
        let table = [
            ("an invented set", with(&|bad| bad.value.set = Digest::of("invented", &[])), set.clone()),
            ("a set without one", with(&|bad| bad.value.set = set_digest(&ids[1..])), set.clone()),
            ("a set with what one list names", one_names, set.clone()),
            ("a set without what two lists name", two_name, set),
            ("lists one short", with(&|bad| bad.lists.truncate(2)), few.clone()),
            ("no lists", with(&|bad| bad.lists.clear()), few),
            ("one list twice", last(lists[1].clone()), two.clone()),
            ("another list of one sealer", last(list(1, genesis, step, &ids[1..])), two),
            ("a list of another genesis", last(list(2, Digest::ZERO, step, &ids)), other.clone()),
            ("a list of another step", last(list(2, genesis, step.next(), &ids)), other.clone()),
            ("a vote for a list", last(ByteBuf::from(vote.bytes.clone())), other),
            ("a forged list", last(broken), Reason::Forged),
            (
                "not its turn",
                Draft { author: second.author, ..first.clone() },
                unsound("a proposal by somebody whose turn it is not"),
            ),
            ("a proof one vote short", proven(polka(&world, step, value, 0..2)), polka_short.clone()),
            ("a forged proof", proven(forged), polka_short.clone()),
            ("a proof by other votes", proven(of_another), polka_short),
            ("a proof for another", proven(other_votes), polka_other.clone()),
            ("a proof of this view", proven(late), polka_other.clone()),
            (
                "a proof of the wrong stage",
                proven(Certificate { stage: Stage::Precommit, ..full.clone() }),
                polka_other,
            ),
        ];
        let held = |world: &World| (world.states[me].sealing.said().count(), world.states[me].early.len());
        let before = held(&world);
        for (name, draft, reason) in table {
            // So slowly that nobody is taken for a flood.
            world.now += 1_000;
            let message = draft.says(&world);
            assert_eq!(told(&mut world, me, &message), Verdict::Reject(reason), "{name}, {step}");
            assert_eq!(held(&world), before, "{name}, {step}");
        }
        let good = first.says(&world);
        assert_eq!(told(&mut world, me, &good), Verdict::Accept);
        if step == STEP {
            assert_eq!(voted(&world, me).get(&(0, Stage::Prevote)), Some(&Some(value)));
            let good = proven(full).says(&world);
            assert_eq!(told(&mut world, me, &good), Verdict::Accept);
        }
    }
}

/// A sealer votes for what it has computed itself, and for nothing else.
#[test]
fn a_wrong_state_gets_no_vote() {
    for wrong in [false, true] {
        let (mut world, me) = listener(4);
        let ids = world.states[me].ledger.get(STEP).unwrap().ids();
        let (mut value, lists) = value(&world, me, ids);
        if wrong {
            value.state = Digest::of("wrong", &[]);
        }
        propose(&mut world, me, 0, &(value, lists), None);
        assert_eq!(voted(&world, me), [((0, Stage::Prevote), Some(value).filter(|_| !wrong))].into());
        // Nor does it follow the others where they vote for it.
        all_vote(&mut world, me, 0, Stage::Prevote, Some(value));
        wait(&mut world, me, 5_000);
        assert_eq!(voted(&world, me).get(&(0, Stage::Precommit)), Some(&Some(value).filter(|_| !wrong)), "{wrong}");
    }
}

/// Who proposes in all of its turns, to the last, takes no more room than for those near the current view.
#[test]
fn proposals_far_ahead_are_not_kept() {
    let (mut world, me) = listener(4);
    let ids = world.states[me].ledger.get(STEP).unwrap().ids();
    let (value, lists) = value(&world, me, ids);
    let liar = turn(&world, 1);
    for view in (0..1_000).filter(|view| view % 4 == 1) {
        assert_eq!(turn(&world, view), liar);
        let proposal = Proposal { view, value, polka: None, lists: lists.clone() };
        let message = says(&world, liar, Content::Proposal(proposal));
        let near = view <= crate::limits::VIEWS_KEPT;
        let expected = if near { Verdict::Accept } else { Verdict::Ignore(Reason::Duplicate) };
        assert_eq!(told(&mut world, me, &message), expected, "{view}");
    }
    let is_proposal = |message: &&Arc<Message>| matches!(message.signed.value(), Content::Proposal(_));
    assert_eq!(world.states[me].sealing.said().filter(is_proposal).count(), 1);
}
