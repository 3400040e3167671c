//! The screen of class statistics: whoever contradicts the others' class means is left out.

use super::{SCREEN_FOUNDERS_MIN, Statistics};
use crate::charter::Charter;
use heterotune_crypto::NodeId;
use std::collections::BTreeMap;

/// The smallest score with which a node stays in. Measured on two suites of 8 nodes, 2 of which attach sums to other
/// labels, negate means or send everybody's at -3 times: with it the readout is as good as the honest six's alone.
const SCORE_MIN: f64 = 0.3;

/// How many times the median trace per sample a node's Gram matrix may have.
const TRACE_RATIO_MAX: f64 = 3.0;

/// The fewest others that must share a class with a node before they can outvote it. Under strong label skew a node
/// may share its classes with one or two others, by a few samples; leaving it out on their word took a whole class
/// from the network (digits, Dirichlet 0.1, 40 labels: 72 % instead of 83 %).
const WITNESSES_MIN: usize = 3;

/// The nodes that contradict the others: whose score is below [`SCORE_MIN`], or whose codes have more than
/// [`TRACE_RATIO_MAX`] times the median energy per sample.
///
/// s_ij is the mean cosine between the class means of i and j over the classes that both hold, weighted by
/// sqrt(min(n_i, n_j)); a node's score is the lower median of its s_ij. One that shares classes with fewer than
/// [`WITNESSES_MIN`] others has no score and is judged by its energy alone. One is left out at a time, whom most others
/// contradict first, and who is left out is no witness any more: two liars among the few that share a class with an
/// honest node would take it out with them (digits, Dirichlet 0.1, 40 labels, two liars: 5 points). Fewer than four
/// nodes are trusted, and if fewer than half would remain, nobody is left out.
pub(super) fn inconsistent(charter: &Charter, statistics: &BTreeMap<NodeId, &Statistics>) -> Vec<NodeId> {
    let width = usize::from(charter.adapter.readout_rank);
    let nodes: Vec<Node> = statistics.values().map(|statistics| Node::new(statistics, width)).collect();
    let energies: Vec<f64> = nodes.iter().map(|node| node.energy).collect();
    let energy_most = TRACE_RATIO_MAX * lower_median(energies).unwrap_or(0.0);
    let agreements: Vec<Vec<Option<f64>>> =
        nodes.iter().map(|node| nodes.iter().map(|other| node.agreement(other)).collect()).collect();
    let mut outs: Vec<bool> = nodes.iter().map(|node| node.energy > energy_most).collect();
    let few = |out: usize| 2 * (nodes.len() - out) < nodes.len();
    let mut doubted = doubted(&agreements, &outs);
    if nodes.len() < SCREEN_FOUNDERS_MIN || few(outs.iter().filter(|out| **out).count() + doubted.len()) {
        return vec![];
    }
    // The lower score, then the higher key on ties.
    let order = |a: &Doubted, b: &Doubted| a.against.cmp(&b.against).then(b.score.total_cmp(&a.score));
    while let Some(worst) = doubted.into_iter().max_by(order) {
        outs[worst.at] = true;
        doubted = self::doubted(&agreements, &outs);
    }
    if few(outs.iter().filter(|out| **out).count()) {
        return vec![];
    }
    statistics.keys().zip(outs).filter(|(_, out)| *out).map(|(author, _)| *author).collect()
}

/// A node whose score is too low.
struct Doubted {
    /// Which.
    at: usize,
    /// How many others contradict it.
    against: usize,
    score: f64,
}

/// The nodes that are not out and whose score is too low, with those for witnesses that are not out.
fn doubted(agreements: &[Vec<Option<f64>>], outs: &[bool]) -> Vec<Doubted> {
    let doubted = |at: usize| {
        let others = agreements[at].iter().enumerate().filter(|(other, _)| *other != at && !outs[*other]);
        let agreements: Vec<f64> = others.filter_map(|(_, agreement)| *agreement).collect();
        let (witnesses, against) = (agreements.len(), agreements.iter().filter(|one| **one < SCORE_MIN).count());
        let score = lower_median(agreements).filter(|score| witnesses >= WITNESSES_MIN && *score < SCORE_MIN)?;
        Some(Doubted { at, against, score })
    };
    (0..outs.len()).filter(|at| !outs[*at]).filter_map(doubted).collect()
}

/// What one node's statistics say of each class and of its codes.
struct Node {
    /// Samples, and the unit vector along the sum of codes (zero where that is), per class.
    classes: Vec<(u32, Vec<f64>)>,
    /// The trace of the Gram matrix, per sample.
    energy: f64,
}

impl Node {
    fn new(statistics: &Statistics, width: usize) -> Self {
        let sums = statistics.sums.integers();
        let classes = statistics.counts.iter().zip(sums.chunks_exact(width));
        Self {
            classes: classes.map(|(count, sum)| (*count, unit(sum))).collect(),
            energy: statistics.trace(width) as f64 / statistics.samples() as f64,
        }
    }

    /// s_ij, where the two share a class.
    fn agreement(&self, other: &Self) -> Option<f64> {
        let (mut weights, mut sum) = (0.0, 0.0);
        for ((count, mine), (others, theirs)) in self.classes.iter().zip(&other.classes) {
            let weight = f64::from(*count.min(others)).sqrt();
            weights += weight;
            sum += weight * super::linalg::dot(mine, theirs);
        }
        (weights > 0.0).then(|| sum / weights)
    }
}

/// `vector` at length 1, or zero. Its squares are summed exactly: entries of checked sums are below 2^48 (a count
/// below 2^24 times a code below 2^6 in units of 2^-16, and slack), 128 squares of them below 2^103.
fn unit(vector: &[i128]) -> Vec<f64> {
    let norm = (vector.iter().map(|entry| entry * entry).sum::<i128>() as f64).sqrt();
    vector.iter().map(|entry| if norm > 0.0 { *entry as f64 / norm } else { 0.0 }).collect()
}

/// The lower of the middle values.
fn lower_median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}
