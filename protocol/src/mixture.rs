//! The mixture: what the nodes of a network share. All branches of all slots and the readout, in integers.

use crate::charter::Charter;
use heterotune_crypto::{Digest, Hasher};
use serde::{Deserialize, Serialize};

/// What a tensor group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All branches of one slot, `[M, r, r]`.
    Branches {
        /// Which slot, from 0.
        slot: usize,
    },
    /// A readout's weights, `[r_h, C]`, with a column for each label or token.
    Readout,
    /// A readout's bias, `[C]`. It counts neither in the screen nor in the agreement.
    Bias,
}

/// A tensor group: what shares an exponent in an update and is fused by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupShape {
    /// What it is.
    pub kind: Kind,
    /// Its dimensions, row-major.
    pub dims: Vec<usize>,
}

impl GroupShape {
    /// How many values it has.
    pub fn values(&self) -> usize {
        self.dims.iter().product()
    }
}

/// The groups of a mixture, in their order: the branches slot by slot (none where the charter has no branches), then a
/// readout and its bias: one of the labels, or one for each vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    groups: Vec<GroupShape>,
}

impl Layout {
    /// The layout that a charter prescribes.
    pub fn new(charter: &Charter) -> Self {
        let adapter = &charter.adapter;
        let (branches, rank) = (usize::from(adapter.branches), usize::from(adapter.rank));
        let readout_rank = usize::from(adapter.readout_rank);
        let slots = if branches == 0 { 0 } else { usize::from(adapter.slots) };
        let mut groups: Vec<_> = (0..slots)
            .map(|slot| GroupShape { kind: Kind::Branches { slot }, dims: vec![branches, rank, rank] })
            .collect();
        for columns in charter.task.readouts() {
            groups.push(GroupShape { kind: Kind::Readout, dims: vec![readout_rank, columns] });
            groups.push(GroupShape { kind: Kind::Bias, dims: vec![columns] });
        }
        Self { groups }
    }

    /// The groups in order.
    pub fn groups(&self) -> &[GroupShape] {
        &self.groups
    }

    /// How many values the whole mixture has.
    pub fn values(&self) -> usize {
        self.groups.iter().map(GroupShape::values).sum()
    }
}

/// The shared state, as integers in units of 2^exponent_min of the charter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mixture {
    /// One list of values per group of the layout.
    pub groups: Vec<Vec<i64>>,
}

impl Mixture {
    /// The mixture of zeros.
    pub fn zeros(layout: &Layout) -> Self {
        Self { groups: layout.groups().iter().map(|group| vec![0; group.values()]).collect() }
    }

    /// Whether it has the layout's shape.
    pub fn fits(&self, layout: &Layout) -> bool {
        self.groups.len() == layout.groups().len()
            && self.groups.iter().zip(layout.groups()).all(|(values, group)| values.len() == group.values())
    }

    /// This mixture plus `step`, saturating, so that no sum of valid updates can wrap around.
    pub fn plus(&self, step: &[Vec<i64>]) -> Self {
        let add = |(a, b): (&Vec<i64>, &Vec<i64>)| a.iter().zip(b).map(|(a, b)| a.saturating_add(*b)).collect();
        Self { groups: self.groups.iter().zip(step).map(add).collect() }
    }

    /// The f32 view that nodes train from: each value rounded once to f64 and once to f32, times 2^exponent_min. Exact
    /// powers of two, no libm: the same bits everywhere.
    pub fn view(&self, exponent_min: i16) -> Vec<Vec<f32>> {
        let scale = power_of_two(exponent_min);
        self.groups.iter().map(|group| group.iter().map(|value| (*value as f64 * scale) as f32).collect()).collect()
    }

    /// The digest of its values.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new("heterotune 2026 mixture");
        for group in &self.groups {
            let mut bytes = vec![0; 8 * group.len()];
            let words = bytes.as_chunks_mut::<8>().0.iter_mut();
            words.zip(group).for_each(|(word, value)| *word = value.to_le_bytes());
            hasher.part(&bytes);
        }
        hasher.finish()
    }
}

/// 2^exponent, exactly, for the exponents that charters allow (f64's normal range).
pub fn power_of_two(exponent: i16) -> f64 {
    f64::from_bits(((1023 + i64::from(exponent.clamp(-1022, 1023))) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_exact() {
        assert_eq!(power_of_two(0), 1.0);
        assert_eq!(power_of_two(-40), 1.0 / (1u64 << 40) as f64);
        assert_eq!(power_of_two(10), 1024.0);
    }

    #[test]
    fn sums_saturate_and_digests_know_borders() {
        let mixture = Mixture { groups: vec![vec![i64::MAX, 1], vec![2]] };
        assert_eq!(mixture.plus(&[vec![1, 1], vec![1]]).groups, vec![vec![i64::MAX, 2], vec![3]]);
        let moved = Mixture { groups: vec![vec![i64::MAX], vec![1, 2]] };
        assert_ne!(mixture.digest(), moved.digest());
    }
}
