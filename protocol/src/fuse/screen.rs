//! The screen: who keeps opposing the others is left out.
//!
//! One round's cosine is weak evidence once nodes pull apart, so it is remembered from round to round, and rounds in
//! which updates agree count for more than rounds in which they don't.

use super::{
    copies::Copies,
    fixed::{self, lower_median, round_fraction, saturate, to_fixed},
    tensor::Tensor,
};
use crate::{charter::Fusion, genesis::linalg::dot};
use heterotune_crypto::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The fewest senders among whom anyone can be told to be the odd one.
const SENDERS_MIN: usize = 4;

/// Below this the squared length of a sum of unit vectors is rounding noise: they cancel out and point nowhere.
const LENGTH_NEGLIGIBLE: f64 = 1e-9;

/// The screen's evidence per sender, in units of 2^-30: part of the state that nodes agree on. Negative is against.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory(pub BTreeMap<NodeId, i64>);

/// What the screen finds.
pub(super) struct Screened {
    /// The evidence after this round.
    pub(super) memory: Memory,
    /// Whether each sender's update counts.
    pub(super) kept: Vec<bool>,
}

/// Each sender's cosine to the sum of the others' unit updates, averaged over the tensors that are not biases and
/// that it has a norm in; none for a sender that has a norm in none of them. The others are those outside its family
/// of `copies` (given per tensor), in which k senders count 1/k each: nobody vouches for itself by speaking twice.
pub(super) fn cosines(tensors: &[Tensor<'_>], copies: &[Copies], senders: usize) -> Vec<Option<f64>> {
    let mut sums = vec![(0.0, 0.0); senders];
    for (tensor, copies) in tensors.iter().zip(copies).filter(|(tensor, _)| tensor.counts) {
        let families = copies.families(|at| tensor.norms[at].is_some());
        let mut shares = vec![0.0; senders];
        for family in &families {
            family.iter().for_each(|at| shares[*at] = 1.0 / family.len() as f64);
        }
        let rows: Vec<f64> = (0..senders).map(|at| dot(tensor.cosines.row(at), &shares)).collect();
        let total = dot(&rows, &shares);
        for family in &families {
            // The family's own part of its rows, and of the sums over them.
            let own = |at: &usize| family.iter().fold(0.0, |sum, j| sum + shares[*j] * tensor.cosines.at(*at, *j));
            let own_rows = family.iter().fold(0.0, |sum, at| sum + shares[*at] * rows[*at]);
            let own_total = family.iter().fold(0.0, |sum, at| sum + shares[*at] * own(at));
            // <u_i, rest>, and |rest|^2.
            let length = total - 2.0 * own_rows + own_total;
            for at in family {
                let (sum, count) = &mut sums[*at];
                if length > LENGTH_NEGLIGIBLE {
                    *sum += ((rows[*at] - own(at)) / length.sqrt()).clamp(-1.0, 1.0);
                }
                *count += 1.0;
            }
        }
    }
    sums.into_iter().map(|(sum, count)| (count > 0.0).then(|| sum / count)).collect()
}

/// Screens the senders of one round, `authors` in canonical order, by their `cosines`.
///
/// e_i += max(0, median c) c_i, and whoever has e_i < 0 is left out as long as the median e is positive: at most
/// `max_liars_ppm` of the senders, the lowest e first, ties by key. Medians are lower ones, over the senders that
/// have a cosine; with fewer than four of them nothing happens.
pub(super) fn screen(fusion: &Fusion, authors: &[NodeId], cosines: &[Option<f64>], memory: &Memory) -> Screened {
    let mut memory = memory.clone();
    let mut kept = vec![true; authors.len()];
    let judged: Vec<(usize, i64)> =
        cosines.iter().enumerate().filter_map(|(at, cosine)| Some((at, to_fixed((*cosine)?)))).collect();
    if !fusion.screen || judged.len() < SENDERS_MIN {
        return Screened { memory, kept };
    }
    let middle = lower_median(judged.iter().map(|(_, cosine)| *cosine).collect(), i64::cmp).unwrap_or(0).max(0);
    for (at, cosine) in &judged {
        // Both are at most 2^30: the product is below 2^61.
        let gain = saturate(round_fraction(i128::from(middle) * i128::from(*cosine)));
        let evidence = memory.0.entry(authors[*at]).or_default();
        *evidence = evidence.saturating_add(gain);
    }
    let evidence = |at: usize| memory.0.get(&authors[at]).copied().unwrap_or(0);
    let middle = lower_median(judged.iter().map(|(at, _)| evidence(*at)).collect(), i64::cmp).unwrap_or(0);
    if middle > 0 {
        let mut against: Vec<usize> = judged.iter().map(|(at, _)| *at).filter(|at| evidence(*at) < 0).collect();
        // Stable, and senders are in the order of their keys.
        against.sort_by_key(|at| evidence(*at));
        against.iter().take(most(authors.len(), fusion)).for_each(|at| kept[*at] = false);
    }
    Screened { memory, kept }
}

/// The charter's share of liars among so many senders, rounded down.
pub(super) fn most(senders: usize, fusion: &Fusion) -> usize {
    (senders as u64 * u64::from(fusion.max_liars_ppm) / 1_000_000) as usize
}

/// Evidence as a plain number, for reports.
pub(super) fn evidence(memory: &Memory, author: &NodeId) -> f64 {
    memory.0.get(author).copied().unwrap_or(0) as f64 / fixed::ONE as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{charter, identity};

    #[test]
    fn evidence_adds_up_by_hand() {
        let fusion = charter(8).fusion;
        let mut authors: Vec<NodeId> = (0..8).map(|at| identity(at).id()).collect();
        authors.sort();
        let mut memory = Memory(BTreeMap::from([(authors[0], -fixed::ONE), (authors[1], i64::MIN)]));
        let mut cosines = [0.5, -0.25, 0.5, 0.5, 0.5, 0.75, -1.0].map(Some).to_vec();
        cosines.push(None);
        let screened = screen(&fusion, &authors, &cosines, &memory);
        let expected = [-0.75, -((1u64 << 33) as f64), 0.25, 0.25, 0.25, 0.375, -0.5, 0.0];
        assert_eq!(screened.kept, [false, false, true, true, true, true, true, true], "two of eight, the worst");
        for (author, expected) in authors.iter().zip(expected) {
            assert_eq!(evidence(&screened.memory, author), expected);
        }
        assert!(!screened.memory.0.contains_key(&authors[7]), "no update, no entry");

        // Where most oppose each other, a round says nothing; and where most evidence is bad, it is no evidence.
        memory = screened.memory;
        let torn = screen(&fusion, &authors, &[-0.1; 8].map(Some), &memory);
        assert!(authors[..7].iter().all(|author| torn.memory.0[author] == memory.0[author]));
        let doubted = Memory(authors.iter().map(|author| (*author, -fixed::ONE)).collect());
        assert_eq!(screen(&fusion, &authors, &[0.5; 8].map(Some), &doubted).kept, [true; 8]);
    }
}
