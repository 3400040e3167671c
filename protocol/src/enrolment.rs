//! How a node becomes a member of a network that runs: it says so in a round, and the seal of that round enrols it.
//!
//! An enrolment is an entry of the ledger, as an update is. Who says it must be admitted by the charter
//! ([`crate::admission`]), which is a pure function of the charter and of its bytes. Of each round's newcomers only the
//! first [`limits::ENROLMENTS_MAX`] come in, in an order drawn for the round; the others say it again in a later one.

use crate::{admission::Membership, limits, message::Context, message::Step};
use heterotune_crypto::{Digest, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// "I want to be a member", said by who is none yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The admin's word for its author; none where anyone may join.
    pub membership: Option<Membership>,
}

/// A newcomer's place among those of a step: the lowest come first. In every round it is another one.
pub fn rank(genesis: &Digest, step: Step, newcomer: &NodeId) -> Digest {
    let parts: [&[u8]; 3] = [genesis.as_bytes(), &step.height().to_le_bytes(), newcomer.as_bytes()];
    Digest::of("heterotune 2026 newcomer", &parts)
}

/// The members beside the charter's after `round`: those `enrolled` before it, and of its `newcomers`, in their order,
/// as many as come into a round and as there is room for.
pub fn enrol(
    context: &Context,
    enrolled: &BTreeMap<NodeId, u64>,
    round: u64,
    newcomers: &[NodeId],
) -> BTreeMap<NodeId, u64> {
    let room = limits::MEMBERS_MAX.saturating_sub(context.members.len() + enrolled.len());
    let is_new = |node: &&NodeId| !context.members.contains(node) && !enrolled.contains_key(node);
    let come_in = newcomers.iter().filter(is_new).take(limits::ENROLMENTS_MAX.min(room));
    let mut enrolled = enrolled.clone();
    enrolled.extend(come_in.map(|newcomer| (*newcomer, round)));
    enrolled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{charter, identity};

    fn key(number: u64) -> NodeId {
        NodeId::from_bytes(*Digest::of("test", &[&number.to_le_bytes()]).as_bytes())
    }

    #[test]
    fn so_many_come_in_and_nobody_twice() {
        let context = Context::new(charter(3)).unwrap();
        let newcomers: Vec<_> = (0..20).map(key).collect();
        let before = BTreeMap::from([(key(1), 4)]);
        let with_members: Vec<_> = [identity(0).id()].into_iter().chain(newcomers.clone()).collect();
        let after = enrol(&context, &before, 7, &with_members);
        let expected: BTreeMap<_, _> =
            [(key(1), 4), (key(0), 7)].into_iter().chain((2..17).map(|at| (key(at), 7))).collect();
        assert_eq!(after, expected);
    }

    #[test]
    fn there_is_an_end_to_members() {
        let context = Context::new(charter(3)).unwrap();
        let full: BTreeMap<_, _> = (0..limits::MEMBERS_MAX as u64 - 4).map(|at| (key(at), 1)).collect();
        let newcomers = [1 << 20, 1 << 21].map(key);
        let after = enrol(&context, &full, 2, &newcomers);
        assert_eq!((after.len(), after.get(&newcomers[0])), (full.len() + 1, Some(&2)));
        assert_eq!(enrol(&context, &after, 3, &newcomers), after);
    }

    #[test]
    fn each_round_has_its_own_order() {
        let order = |round| {
            let mut keys: Vec<_> = (0..8).map(key).collect();
            keys.sort_by_key(|key| rank(&Digest::ZERO, Step::Round(round), key));
            keys
        };
        assert_ne!(order(1), order(2));
        assert_eq!(order(1), order(1));
    }
}
