//! What must hold in every run, whatever the scenario.

use crate::history::History;
use heterotune_crypto::Digest;
use heterotune_protocol::charter::Charter;

/// Something that must hold and does not. It means a defect in HeteroTune, not in the scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Two nodes hold different mixtures.
    #[error("the nodes disagree: after round {round}, {one} holds mixture {} and {other} holds {}", hashes.0.short(), hashes.1.short())]
    Disagreement {
        /// After which round.
        round: u64,
        /// One node.
        one: String,
        /// The other.
        other: String,
        /// What each holds.
        hashes: (Digest, Digest),
    },
    /// Two nodes start from different geneses.
    #[error("the nodes disagree on genesis: {one} has {}, {other} has {}", ids.0.short(), ids.1.short())]
    Genesis {
        /// One node.
        one: String,
        /// The other.
        other: String,
        /// What each has.
        ids: (Digest, Digest),
    },
    /// A round that was not closed, or without somebody's update.
    #[error("node {node} closed round {round} with {updates} updates instead of {nodes}")]
    Incomplete {
        /// Who closed it.
        node: String,
        /// Which round.
        round: u64,
        /// How many updates were in it.
        updates: u64,
        /// How many nodes there are.
        nodes: usize,
    },
    /// Branches are shared, and did not change.
    #[error("the branches did not learn in round {0}: the norm of their update is zero or no number")]
    DeadBranches(u64),
    /// A round that changed nothing.
    #[error("round {0} ended with the mixture of the round before: nothing was learned in it")]
    Standstill(u64),
    /// A node that ended with another mixture than that of its last round.
    #[error("node {0} ended with another mixture than that of its last round")]
    LateChange(String),
}

/// Checks one round that all nodes have closed.
///
/// # Errors
/// The first thing that does not hold.
pub fn round(round: u64, charter: &Charter, nodes: &[History]) -> Result<(), Violation> {
    let Some((one, reference)) = nodes.first().and_then(|node| Some((node, node.rounds.get(&round)?))) else {
        return incomplete(round, nodes.first(), nodes.len());
    };
    for node in nodes {
        let Some(closed) = node.rounds.get(&round) else { return incomplete(round, Some(node), nodes.len()) };
        if closed.mixture_hash != reference.mixture_hash {
            return Err(Violation::Disagreement {
                round,
                one: one.name.clone(),
                other: node.name.clone(),
                hashes: (reference.mixture_hash, closed.mixture_hash),
            });
        }
        // More than there are nodes where liars, who are not looked at here, have sent theirs too.
        if closed.updates < nodes.len() as u64 {
            return incomplete(round, Some(node), nodes.len());
        }
    }
    if charter.adapter.branches > 0 && !(reference.branch_norm > 0.0 && reference.branch_norm.is_finite()) {
        return Err(Violation::DeadBranches(round));
    }
    let before = round.checked_sub(1).and_then(|before| one.rounds.get(&before));
    if before.is_some_and(|before| before.mixture_hash == reference.mixture_hash) {
        return Err(Violation::Standstill(round));
    }
    Ok(())
}

/// Checks that all nodes start from the same genesis.
///
/// # Errors
/// Two that don't.
pub fn genesis(nodes: &[History]) -> Result<(), Violation> {
    let mut known = nodes.iter().filter_map(|node| Some((node, node.genesis?)));
    let Some((one, first)) = known.next() else { return Ok(()) };
    match known.find(|(_, id)| *id != first) {
        None => Ok(()),
        Some((other, id)) => {
            Err(Violation::Genesis { one: one.name.clone(), other: other.name.clone(), ids: (first, id) })
        }
    }
}

/// Checks a whole run that has ended.
///
/// # Errors
/// The first thing that does not hold.
pub fn finished(charter: &Charter, nodes: &[History]) -> Result<(), Violation> {
    genesis(nodes)?;
    (1..=charter.rounds.total).try_for_each(|number| round(number, charter, nodes))?;
    for node in nodes {
        let last = node.rounds.get(&charter.rounds.total).map(|closed| closed.mixture_hash);
        if node.finished.as_ref().map(|finished| finished.mixture_hash) != last {
            return Err(Violation::LateChange(node.name.clone()));
        }
    }
    Ok(())
}

fn incomplete(round: u64, node: Option<&History>, nodes: usize) -> Result<(), Violation> {
    let updates = node.and_then(|node| node.rounds.get(&round)).map_or(0, |closed| closed.updates);
    Err(Violation::Incomplete { node: node.map(|node| node.name.clone()).unwrap_or_default(), round, updates, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_good_run_passes_and_each_defect_is_found() {
        let (charter, good) = (testing::charter(2, 3), testing::histories(2, 3));
        assert_eq!(finished(&charter, &good), Ok(()));

        let broken = |change: &dyn Fn(&mut Vec<History>)| {
            let mut nodes = good.clone();
            change(&mut nodes);
            finished(&charter, &nodes).unwrap_err()
        };
        let other = Digest::of("test", &[b"other"]);
        assert!(matches!(
            broken(&|nodes| nodes[1].rounds.get_mut(&2).unwrap().mixture_hash = other),
            Violation::Disagreement { round: 2, .. }
        ));
        assert!(matches!(broken(&|nodes| nodes[1].genesis = Some(other)), Violation::Genesis { .. }));
        assert!(matches!(
            broken(&|nodes| nodes[1].rounds.get_mut(&1).unwrap().updates = 1),
            Violation::Incomplete { round: 1, updates: 1, .. }
        ));
        assert!(matches!(
            broken(&|nodes| drop(nodes[0].rounds.remove(&3))),
            Violation::Incomplete { round: 3, updates: 0, .. }
        ));
        assert_eq!(
            broken(&|nodes| nodes.iter_mut().for_each(|node| node.rounds.get_mut(&1).unwrap().branch_norm = 0.0)),
            Violation::DeadBranches(1)
        );
        let still = |node: &mut History| {
            let hash = node.rounds[&1].mixture_hash;
            node.rounds.get_mut(&2).unwrap().mixture_hash = hash;
        };
        assert_eq!(broken(&|nodes| nodes.iter_mut().for_each(still)), Violation::Standstill(2));
        assert_eq!(
            broken(&|nodes| nodes[1].finished.as_mut().unwrap().mixture_hash = other),
            Violation::LateChange("node-1".into())
        );
    }
}
