//! The whole rule once more, in plain f64 over explicit vectors: what the integers are compared with.

use crate::charter::{Align, Fusion, Norms};

/// One tensor group of all senders.
pub(super) struct Group {
    pub(super) bias: bool,
    pub(super) updates: Vec<Vec<f64>>,
}

/// The step per group, the evidence, and who is kept.
pub(super) struct Twin {
    pub(super) step: Vec<Vec<f64>>,
    pub(super) evidence: Vec<f64>,
    pub(super) kept: Vec<bool>,
}

pub(super) fn fuse(fusion: &Fusion, groups: &[Group], evidence: &[f64]) -> Twin {
    let (evidence, kept) = screen(fusion, groups, evidence);
    let step = groups.iter().map(|group| step(fusion, &group.updates, &kept)).collect();
    Twin { step, evidence, kept }
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn norm(a: &[f64]) -> f64 {
    inner(a, a).sqrt()
}

fn times(a: &[f64], factor: f64) -> Vec<f64> {
    a.iter().map(|v| v * factor).collect()
}

fn add(a: &mut [f64], b: &[f64], factor: f64) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += factor * b);
}

fn lower_median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

fn screen(fusion: &Fusion, groups: &[Group], evidence: &[f64]) -> (Vec<f64>, Vec<bool>) {
    let senders = evidence.len();
    let mut cosines = vec![vec![]; senders];
    for group in groups.iter().filter(|group| !group.bias) {
        for i in (0..senders).filter(|i| norm(&group.updates[*i]) > 0.0) {
            let mut rest = vec![0.0; group.updates[i].len()];
            for (j, other) in group.updates.iter().enumerate() {
                if j != i && norm(other) > 0.0 {
                    add(&mut rest, other, 1.0 / norm(other));
                }
            }
            let lengths = norm(&rest) * norm(&group.updates[i]);
            cosines[i].push(if norm(&rest) > 1e-4 { inner(&rest, &group.updates[i]) / lengths } else { 0.0 });
        }
    }
    let mean = |list: &Vec<f64>| list.iter().sum::<f64>() / list.len() as f64;
    let judged: Vec<usize> = (0..senders).filter(|i| !cosines[*i].is_empty()).collect();
    let (mut evidence, mut kept) = (evidence.to_vec(), vec![true; senders]);
    if judged.len() < 4 || !fusion.screen {
        return (evidence, kept);
    }
    let informative = lower_median(judged.iter().map(|i| mean(&cosines[*i])).collect()).max(0.0);
    judged.iter().for_each(|i| evidence[*i] += informative * mean(&cosines[*i]));
    if lower_median(judged.iter().map(|i| evidence[*i]).collect()) > 0.0 {
        let mut against: Vec<usize> = judged.into_iter().filter(|i| evidence[*i] < 0.0).collect();
        against.sort_by(|a, b| evidence[*a].total_cmp(&evidence[*b]));
        let most = senders * fusion.max_liars_ppm as usize / 1_000_000;
        against.iter().take(most).for_each(|i| kept[*i] = false);
    }
    (evidence, kept)
}

fn step(fusion: &Fusion, updates: &[Vec<f64>], kept: &[bool]) -> Vec<f64> {
    let values = updates.first().map_or(0, Vec::len);
    let norms: Vec<f64> = updates.iter().map(|update| norm(update)).filter(|norm| *norm > 0.0).collect();
    let limit = if norms.len() > 2 { lower_median(norms) } else { f64::INFINITY };
    let clipped: Vec<Vec<f64>> = updates
        .iter()
        .zip(kept)
        .filter(|(update, kept)| **kept && norm(update) > 0.0)
        .map(|(update, _)| times(update, (limit / norm(update)).min(1.0)))
        .collect();
    let mean = |list: &[Vec<f64>]| {
        let mut sum = vec![0.0; values];
        list.iter().for_each(|update| add(&mut sum, update, 1.0 / list.len() as f64));
        sum
    };
    let given = match fusion.norms {
        Norms::Kept => clipped.clone(),
        Norms::Equal => clipped.iter().map(|update| times(update, 1.0 / norm(update))).collect(),
    };
    let aligned = match fusion.align {
        Align::None => mean(&given),
        Align::Pcgrad => mean(&given.iter().map(|one| pcgrad(one, &given)).collect::<Vec<_>>()),
        Align::Nash => nash(&clipped, values),
    };
    let length = norm(&aligned);
    if length > 0.0 { times(&aligned, norm(&mean(&clipped)) / length) } else { aligned }
}

fn pcgrad(one: &[f64], all: &[Vec<f64>]) -> Vec<f64> {
    let mut result = one.to_vec();
    for other in all {
        add(&mut result, other, -inner(one, other).min(0.0) / inner(other, other));
    }
    result
}

/// Coordinate descent instead of Newton: a_i is the positive root of M_ii a^2 + (sum of the others) a = 1.
fn nash(updates: &[Vec<f64>], values: usize) -> Vec<f64> {
    let units: Vec<Vec<f64>> = updates.iter().map(|update| times(update, 1.0 / norm(update))).collect();
    let mut weights = vec![1.0; units.len()];
    for _ in 0..20_000 {
        for i in 0..units.len() {
            let others: f64 =
                (0..units.len()).filter(|j| *j != i).map(|j| inner(&units[i], &units[j]) * weights[j]).sum();
            weights[i] = 2.0 / (others + (others * others + 4.0 * 1.001).sqrt());
        }
    }
    let mut sum = vec![0.0; values];
    units.iter().zip(weights).for_each(|(unit, weight)| add(&mut sum, unit, weight));
    sum
}
