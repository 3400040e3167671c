//! The readout that a network starts from: a regularised linear discriminant of the exact sum of all class statistics.

use super::{
    Statistics, consistency, grid,
    linalg::{Square, cholesky, dot, solve},
};
use crate::{charter::Charter, mixture::power_of_two};
use heterotune_crypto::NodeId;
use std::collections::BTreeMap;

/// How much of the mean within-class variance is added to the diagonal.
const RIDGE: f64 = 0.3;

/// The bias of a class that nobody has: far below what any seen class gets.
const UNSEEN_BIAS: f64 = -5.0;

/// A node's samples count up to this many times the lower median of all nodes'.
const SAMPLES_CAP: u64 = 2;

/// The readout at the start, as integers in units of 2^exponent_min.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// W `[r_h, C]`, row-major.
    pub readout: Vec<i64>,
    /// b `[C]`.
    pub bias: Vec<i64>,
    /// Nodes whose statistics were left out because they contradict the others', in order of their keys.
    pub left_out: Vec<NodeId>,
}

/// The starting readout that the founders' `statistics` make. With the class means mu_c, the within-class scatter
/// Sw = (G - sum_c n_c mu_c mu_c^T) / n and A = Sw + 0.3 mean(diag Sw) I:
///
/// W_c = A^-1 mu_c, b_c = -W_c . mu_c / 2, and b_c = -5 with W_c = 0 for a class of which there is less than half a
/// sample.
///
/// The sums are exact; a node with more than twice the median number of samples is scaled down to that. Where A isn't
/// positive definite to working precision (all codes the same, or none), W is zero, as `readout = "trained"` has it,
/// and b is zero but for unseen classes. Statistics that [`Statistics::check`] refuses don't count.
pub fn start(charter: &Charter, statistics: &BTreeMap<NodeId, Statistics>) -> Start {
    let mut statistics: BTreeMap<NodeId, &Statistics> =
        statistics.iter().filter(|(_, one)| one.check(charter).is_ok()).map(|(author, one)| (*author, one)).collect();
    let mut samples: Vec<u64> = statistics.values().map(|one| one.samples()).collect();
    samples.sort_unstable();
    let median = samples.get(samples.len().saturating_sub(1) / 2).copied().unwrap_or(0);
    let mut left_out = vec![];
    if charter.fusion.statistics_screen {
        left_out = consistency::inconsistent(charter, &statistics);
        statistics.retain(|author, _| !left_out.contains(author));
    }
    let mut totals = Totals::zeros(charter);
    statistics.values().for_each(|one| totals.add(one, SAMPLES_CAP * median));
    let (weights, bias) = totals.discriminant();
    let scale = power_of_two(charter.codec.exponent_min);
    // Saturating, and 0 for what is not a number (which `discriminant` never gives).
    let fixed = |values: Vec<f64>| values.into_iter().map(|value| (value / scale).round_ties_even() as i64).collect();
    Start { readout: fixed(weights), bias: fixed(bias), left_out }
}

/// The sums over nodes, in units of 2^-16, counts too (capping makes fractions of them).
///
/// Of one node: a count is below 2^40, a sum's entry below 2^48, a Gram entry below 2^62. Times a cap below 2^35 before
/// the division: below 2^97. 64 nodes add 6 bits.
struct Totals {
    width: usize,
    counts: Vec<i128>,
    sums: Vec<i128>,
    gram: Vec<i128>,
}

impl Totals {
    fn zeros(charter: &Charter) -> Self {
        let (labels, width) = (charter.task.labels().len(), usize::from(charter.adapter.readout_rank));
        let zeros = |size| vec![0; size];
        Self { width, counts: zeros(labels), sums: zeros(labels * width), gram: zeros(grid::triangle(width)) }
    }

    /// Adds one node's statistics, scaled so that they count at most `cap` samples.
    fn add(&mut self, statistics: &Statistics, cap: u64) {
        let samples = i128::from(statistics.samples());
        let cap = samples.min(cap.into());
        let add = |totals: &mut Vec<i128>, values: Vec<i128>| {
            let scaled = values.into_iter().map(|value| grid::scale_half_even(value, cap, samples));
            totals.iter_mut().zip(scaled).for_each(|(total, value)| *total += value);
        };
        add(&mut self.counts, statistics.counts.iter().map(|count| i128::from(*count) << 16).collect());
        add(&mut self.sums, statistics.sums.integers());
        add(&mut self.gram, statistics.gram.integers());
    }

    /// W `[r_h, C]` and b `[C]`.
    fn discriminant(&self) -> (Vec<f64>, Vec<f64>) {
        let (width, labels) = (self.width, self.counts.len());
        let counts: Vec<f64> = self.counts.iter().map(|count| *count as f64 / 65536.0).collect();
        let seen: Vec<bool> = counts.iter().map(|count| *count >= 0.5).collect();
        let means: Vec<Vec<f64>> = (0..labels)
            .map(|class| {
                let sum = self.sums[class * width..(class + 1) * width].iter().map(|sum| *sum as f64 / 65536.0);
                sum.map(|sum| if seen[class] { sum / counts[class] } else { 0.0 }).collect()
            })
            .collect();
        let mut weights = vec![0.0; width * labels];
        let mut bias: Vec<f64> = seen.iter().map(|seen| if *seen { 0.0 } else { UNSEEN_BIAS }).collect();
        let Some(lower) = self.scatter(&counts, &means).and_then(|scatter| cholesky(&scatter)) else {
            return (weights, bias);
        };
        let columns: Vec<Vec<f64>> = means.iter().map(|mean| solve(&lower, mean)).collect();
        if !columns.iter().flatten().all(|value| value.is_finite()) {
            return (weights, bias);
        }
        for (class, (column, mean)) in columns.iter().zip(&means).enumerate().filter(|(class, _)| seen[*class]) {
            bias[class] = -dot(column, mean) / 2.0;
            column.iter().enumerate().for_each(|(row, value)| weights[row * labels + class] = *value);
        }
        (weights, bias)
    }

    /// A, unless there is no variance at all.
    fn scatter(&self, counts: &[f64], means: &[Vec<f64>]) -> Option<Square> {
        let samples = counts.iter().fold(0.0, |sum, count| sum + count);
        let mut scatter = Square::from_fn(self.width, |row, column| {
            let gram = self.gram[grid::triangle_at(self.width, row.min(column), row.max(column))] as f64 / 65536.0;
            let between = counts.iter().zip(means).fold(0.0, |sum, (n, mean)| sum + n * mean[row] * mean[column]);
            (gram - between) / samples
        });
        let trace = (0..self.width).fold(0.0, |sum, at| sum + scatter.at(at, at));
        let ridge = RIDGE * (trace / self.width as f64);
        // Not `ridge <= 0`: without samples it is not a number.
        if !(ridge > 0.0 && ridge.is_finite()) {
            return None;
        }
        (0..self.width).for_each(|at| scatter.set(at, at, scatter.at(at, at) + ridge));
        Some(scatter)
    }
}

#[cfg(test)]
mod tests;
