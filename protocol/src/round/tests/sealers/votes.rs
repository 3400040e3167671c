//! How many votes of a sealer are kept.

use super::*;
use crate::limits::VIEWS_AHEAD_MAX;

fn kept<'a>(messages: impl Iterator<Item = &'a Arc<Message>>, author: usize) -> usize {
    let is_vote = |message: &Message| matches!(message.signed.value(), Content::Vote(_));
    messages.filter(|message| is_vote(message) && message.author() == identity(author).id()).count()
}

/// Who votes in a thousand views, upwards or downwards, takes a bounded room, and the others seal in the current one.
#[test]
fn votes_far_ahead_take_little_room_and_shut_nobody_out() {
    let upwards: Vec<u32> = (1..=1_000).collect();
    let downwards: Vec<u32> = upwards.iter().rev().copied().collect();
    for views in [upwards, downwards] {
        let (mut world, me) = listener(4);
        let ids = world.states[me].ledger.get(STEP).unwrap().ids();
        let first = value(&world, me, ids);
        let liar = turn(&world, 1);
        for view in views {
            for stage in [Stage::Prevote, Stage::Precommit] {
                hears(&mut world, me, liar, Content::Vote(Vote { view, stage, value: Some(first.0) }));
            }
            assert!(kept(world.states[me].sealing.said(), liar) <= 2 * VIEWS_AHEAD_MAX);
        }
        // Its disk too: those near the current view at most.
        assert!(kept(world.disks[me].messages.iter(), liar) <= 2 * VIEWS_AHEAD_MAX);
        assert_eq!(voted(&world, me), BTreeMap::new());

        propose(&mut world, me, 0, &first, None);
        let others: Vec<_> = (0..4).filter(|node| ![me, liar].contains(node)).collect();
        for stage in [Stage::Prevote, Stage::Precommit] {
            assert_eq!(voted(&world, me).get(&(0, stage)), Some(&Some(first.0)));
            for node in &others {
                let vote = says(&world, *node, Content::Vote(Vote { view: 0, stage, value: Some(first.0) }));
                assert_eq!(told(&mut world, me, &vote), Verdict::Accept);
            }
        }
        assert!(world.states[me].is_finished());
    }
}
