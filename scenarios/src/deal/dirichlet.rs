//! Each node draws its own distribution over the classes from a Dirichlet distribution, then its labels from that.
//!
//! With a small alpha most nodes know only a few classes, which is what makes learning together worth it.

use super::Share;
use crate::{Data, RunError};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};

/// Draws before a deal is said not to exist. A usual one takes a few; ten thousand take a second.
const DRAWS_MAX: u64 = 10_000;

/// What the deal must be.
pub(super) struct Conditions {
    /// The Dirichlet concentration of a node's classes.
    pub(super) alpha: f64,
    /// The least labels of any class in the whole network.
    pub(super) min_per_class: usize,
    /// The least and the most classes of a node.
    pub(super) classes_per_node: [usize; 2],
    /// Rows that a node trains on.
    pub(super) rows: usize,
    /// Rows that a node holds out.
    pub(super) held: usize,
}

impl Conditions {
    /// Deals the `labelled` rows out to nodes of these `names`; says which draw it was, from 1.
    pub(super) fn draw(
        &self,
        data: &Data,
        labelled: &[usize],
        names: &[&str],
        seed: u64,
    ) -> Result<(u64, Vec<Share>), RunError> {
        // From the end of each class's rows the next is taken.
        let mut by_class = vec![Vec::new(); data.labels.len()];
        for (row, index) in labelled.iter().rev().filter_map(|index| Some((data.rows.get(*index)?, *index))) {
            by_class.get_mut(row.class).into_iter().for_each(|rows| rows.push(index));
        }
        let [fewest, most] = self.classes_per_node;
        for draw in 1..=DRAWS_MAX {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(draw);
            let mut left = by_class.clone();
            let mut shares: Vec<Share> =
                names.iter().map(|name| share(name, self.rows, self.alpha, &mut left, &mut rng)).collect();
            let enough = (0..data.labels.len()).all(|class| {
                shares.iter().filter_map(|share| share.per_class.get(class)).sum::<usize>() >= self.min_per_class
            });
            if enough && shares.iter().all(|share| (fewest..=most).contains(&share.classes())) {
                shares.iter_mut().for_each(|share| hold(share, self.held, &mut left, &mut rng));
                return Ok((draw, shares));
            }
        }
        Err(RunError::Deal(format!(
            "in {DRAWS_MAX} draws, none had {} labels of every class and {fewest} to {most} classes a node",
            self.min_per_class
        )))
    }
}

/// One node's share, taken out of what is `left` of each class.
fn share(name: &str, rows: usize, alpha: f64, left: &mut [Vec<usize>], rng: &mut ChaCha8Rng) -> Share {
    // Gamma variates, normalised, are a Dirichlet draw; `weigh` normalises.
    let weights: Vec<f64> = match Gamma::new(alpha, 1.0) {
        Ok(gamma) => left.iter().map(|_| gamma.sample(rng)).collect(),
        Err(_) => vec![1.0; left.len()],
    };
    let mut share = Share { name: name.into(), per_class: vec![0; left.len()], ..Share::default() };
    for _ in 0..rows {
        if let Some((class, row)) = take(left, weigh(&weights, rng)) {
            share.rows.push(row);
            share.per_class.get_mut(class).into_iter().for_each(|count| *count += 1);
        }
    }
    share
}

/// Takes rows to hold out of what is `left` of each class, its classes as frequent as among those it trains on.
fn hold(share: &mut Share, rows: usize, left: &mut [Vec<usize>], rng: &mut ChaCha8Rng) {
    let weights: Vec<f64> = share.per_class.iter().map(|count| *count as f64).collect();
    share.held = (0..rows).filter_map(|_| take(left, weigh(&weights, rng)).map(|(_, row)| row)).collect();
}

/// The next row of a class, or of the fullest where that class is used up; none where all are.
fn take(left: &mut [Vec<usize>], class: usize) -> Option<(usize, usize)> {
    let fullest = || (0..left.len()).max_by_key(|class| left.get(*class).map_or(0, Vec::len)).unwrap_or_default();
    let class = if left.get(class).is_some_and(|rows| !rows.is_empty()) { class } else { fullest() };
    Some((class, left.get_mut(class)?.pop()?))
}

/// A place in `weights`, each as likely as it is heavy.
fn weigh(weights: &[f64], rng: &mut ChaCha8Rng) -> usize {
    let mut point = rng.random::<f64>() * weights.iter().sum::<f64>();
    let passed = |weight: &f64| {
        point -= weight;
        point < 0.0
    };
    weights.iter().position(passed).unwrap_or(weights.len().saturating_sub(1))
}
