//! Updates that nobody has trained: what a round costs beside training is measured with them.

use super::Trained;
use heterotune_crypto::{Digest, NodeId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How far from zero a value is at the most.
const SIZE: f32 = 1e-3;

/// What `node` says it has learnt in a round from a mixture of this shape: numbers drawn by its id and the round's number,
/// so that no two nodes, and no two rounds, say the same.
pub(crate) fn drawn(node: &NodeId, round: u64, mixture: &[Vec<f32>]) -> Trained {
    let seed = Digest::of("heterotune 2026 idle update", &[node.as_bytes(), &round.to_le_bytes()]);
    let mut rng = ChaCha8Rng::from_seed(*seed.as_bytes());
    let mut group = |values: &Vec<f32>| values.iter().map(|_| rng.random_range(-SIZE..SIZE)).collect();
    Trained { delta: mixture.iter().map(&mut group).collect(), loss: 0.0, seen: (0, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_crypto::Identity;

    #[test]
    fn every_node_draws_something_else_in_every_round_and_the_same_again() {
        let [one, other] = ["one", "other"].map(|name| Identity::from_seed(1, name).id());
        let shape = [vec![0.0; 100], vec![7.0; 3]];
        let drawn = |node, round| drawn(node, round, &shape).delta;
        let first = drawn(&one, 1);
        assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [100, 3]);
        assert!(first.iter().flatten().all(|value| value.abs() <= SIZE && *value != 0.0));
        assert_eq!(drawn(&one, 1), first);
        assert!(drawn(&other, 1) != first && drawn(&one, 2) != first);
    }
}
