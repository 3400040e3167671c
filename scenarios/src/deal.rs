//! The deal: who gets which labelled rows.
//!
//! Each node draws its own distribution over the classes from a Dirichlet distribution, then its labels from that.
//! With a small alpha most nodes know only a few classes, which is what makes learning together worth it.

use crate::{Data, RunError, Scenario, data, folder, split};
use heterotune_protocol::charter::Anchors;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};
use std::path::Path;

/// Draws before a deal is said not to exist. A usual one takes a few; ten thousand take a second.
const DRAWS_MAX: u64 = 10_000;

/// Rows, dealt.
#[derive(Clone, Debug)]
pub struct Deal {
    /// The labels, in the order of [`Share::per_class`].
    pub labels: Vec<String>,
    /// Which draw it was, from 1: the first that met the scenario's conditions.
    pub draw: u64,
    /// What each node got, in the scenario's order.
    pub shares: Vec<Share>,
    /// The public rows.
    pub anchors: Vec<usize>,
    /// The common test set's rows.
    pub test: Vec<usize>,
}

/// What one node got.
#[derive(Clone, Debug)]
pub struct Share {
    /// The node.
    pub name: String,
    /// Its labelled rows.
    pub rows: Vec<usize>,
    /// How many of each class.
    pub per_class: Vec<usize>,
    /// Labelled rows that it does not train on.
    pub held: Vec<usize>,
}

impl Share {
    /// How many classes the node knows.
    pub fn classes(&self) -> usize {
        self.per_class.iter().filter(|count| **count > 0).count()
    }

    /// Takes rows to hold out of what is `left` of each class, its classes as frequent as among those it trains on.
    fn hold(&mut self, rows: usize, left: &mut [Vec<usize>], rng: &mut ChaCha8Rng) {
        let weights: Vec<f64> = self.per_class.iter().map(|count| *count as f64).collect();
        self.held = (0..rows).filter_map(|_| take(left, weigh(&weights, rng)).map(|(_, row)| row)).collect();
    }
}

impl Deal {
    /// Deals `data` out as the scenario says.
    ///
    /// # Errors
    /// Too little data, or no deal that meets the conditions.
    pub fn draw(scenario: &Scenario, data: &Data, seed: u64) -> Result<Self, RunError> {
        let plan = &scenario.data;
        let (anchors, needed) = (
            usize::from(plan.anchors),
            plan.labelled_per_node.saturating_add(plan.held_per_node).saturating_mul(scenario.nodes.len()),
        );
        let order = split(data.rows.len(), plan.split_seed);
        let Some((training, test)) = order.split_at_checked(plan.train).filter(|(_, test)| !test.is_empty()) else {
            return Err(RunError::Deal(format!(
                "{} rows leave none for the test after {} for training",
                order.len(),
                plan.train
            )));
        };
        let (labelled, anchors) = training.split_at(training.len().saturating_sub(anchors));
        if needed > labelled.len() {
            return Err(RunError::Deal(format!(
                "the nodes need {needed} labelled rows, and there are {}",
                labelled.len()
            )));
        }
        // From the end of each class's rows the next is taken.
        let mut by_class = vec![Vec::new(); data.labels.len()];
        for (row, index) in labelled.iter().rev().filter_map(|index| Some((data.rows.get(*index)?, *index))) {
            by_class.get_mut(row.class).into_iter().for_each(|rows| rows.push(index));
        }
        let [fewest, most] = plan.classes_per_node;
        for draw in 1..=DRAWS_MAX {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(draw);
            let mut left = by_class.clone();
            let mut shares: Vec<Share> = scenario
                .nodes
                .iter()
                .map(|node| share(&node.name, plan.labelled_per_node, plan.alpha, &mut left, &mut rng))
                .collect();
            let enough = (0..data.labels.len()).all(|class| {
                shares.iter().filter_map(|share| share.per_class.get(class)).sum::<usize>() >= plan.min_per_class
            });
            if enough && shares.iter().all(|share| (fewest..=most).contains(&share.classes())) {
                shares.iter_mut().for_each(|share| share.hold(plan.held_per_node, &mut left, &mut rng));
                let (anchors, test) = (anchors.to_vec(), test.to_vec());
                return Ok(Self { labels: data.labels.clone(), draw, shares, anchors, test });
            }
        }
        Err(RunError::Deal(format!(
            "in {DRAWS_MAX} draws, none had {} labels of every class and {fewest} to {most} classes a node",
            plan.min_per_class
        )))
    }

    /// Writes `NAME/{train,anchors,test}.csv`, and `held.csv` where something is held out, below `folder` for every
    /// node, and says which anchors these are.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn write(&self, data: &Data, folder: &Path) -> Result<Anchors, RunError> {
        let file = |header: &str, rows: &[usize], line: fn(&data::Row) -> &str| {
            let rows = rows.iter().filter_map(|index| data.rows.get(*index)).map(line);
            [header].into_iter().chain(rows).flat_map(|line| [line, "\n"]).collect::<String>()
        };
        let anchors = file(data::without_label(&data.header), &self.anchors, data::Row::unlabelled);
        let test = file(&data.header, &self.test, |row| &row.line);
        for share in &self.shares {
            let folder = folder.join(&share.name);
            folder::write(&folder.join("train.csv"), file(&data.header, &share.rows, |row| &row.line).as_bytes())?;
            if !share.held.is_empty() {
                folder::write(&folder.join("held.csv"), file(&data.header, &share.held, |row| &row.line).as_bytes())?;
            }
            folder::write(&folder.join("anchors.csv"), anchors.as_bytes())?;
            folder::write(&folder.join("test.csv"), test.as_bytes())?;
        }
        let count = u16::try_from(self.anchors.len()).unwrap_or(u16::MAX);
        Ok(Anchors { digest: Anchors::digest_of(anchors.as_bytes()), count })
    }
}

/// One node's share, taken out of what is `left` of each class.
fn share(name: &str, rows: usize, alpha: f64, left: &mut [Vec<usize>], rng: &mut ChaCha8Rng) -> Share {
    // Gamma variates, normalised, are a Dirichlet draw; `weigh` normalises.
    let weights: Vec<f64> = match Gamma::new(alpha, 1.0) {
        Ok(gamma) => left.iter().map(|_| gamma.sample(rng)).collect(),
        Err(_) => vec![1.0; left.len()],
    };
    let mut share = Share { name: name.into(), rows: Vec::new(), per_class: vec![0; left.len()], held: Vec::new() };
    for _ in 0..rows {
        if let Some((class, row)) = take(left, weigh(&weights, rng)) {
            share.rows.push(row);
            share.per_class.get_mut(class).into_iter().for_each(|count| *count += 1);
        }
    }
    share
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded;
    use std::{collections::BTreeSet, fs};

    fn quickstart() -> (Scenario, Data, tempfile::TempDir) {
        let inputs = tempfile::tempdir().unwrap();
        embedded::write(inputs.path()).unwrap();
        let scenario = Scenario::quickstart().unwrap();
        let data = Data::from_file(&inputs.path().join(&scenario.data.file)).unwrap();
        (scenario, data, inputs)
    }

    #[test]
    fn every_seed_meets_the_conditions_and_no_row_goes_to_two() {
        let (mut scenario, data, _inputs) = quickstart();
        for seed in 0..20 {
            let deal = Deal::draw(&scenario, &data, seed).unwrap();
            assert_eq!((deal.anchors.len(), deal.test.len()), (128, 597));
            let rows: Vec<usize> = deal.shares.iter().flat_map(|share| share.rows.clone()).collect();
            assert_eq!(rows.len(), 320);
            let all: BTreeSet<usize> = rows.iter().chain(&deal.anchors).chain(&deal.test).copied().collect();
            assert_eq!(all.len(), 320 + 128 + 597);
            assert!(deal.shares.iter().all(|share| (1..=8).contains(&share.classes())));
            for class in 0..10 {
                assert!(deal.shares.iter().map(|share| share.per_class[class]).sum::<usize>() >= 5);
            }
        }
        let without = Deal::draw(&scenario, &data, 1).unwrap();
        scenario.data.held_per_node = 20;
        let with = Deal::draw(&scenario, &data, 1).unwrap();
        for (with, without) in with.shares.iter().zip(&without.shares) {
            assert_eq!((&with.rows, with.held.len()), (&without.rows, 20));
        }
        let all = with.shares.iter().flat_map(|share| share.rows.iter().chain(&share.held));
        assert_eq!(all.collect::<BTreeSet<_>>().len(), 8 * 60, "no row is dealt twice");
        let rows = |seed| Deal::draw(&scenario, &data, seed).unwrap().shares[0].rows.clone();
        assert_eq!(rows(1), rows(1));
        assert_ne!(rows(1), rows(2));
    }

    #[test]
    fn an_impossible_deal_is_an_error() {
        let (mut scenario, data, _inputs) = quickstart();
        scenario.data.min_per_class = 33;
        assert!(Deal::draw(&scenario, &data, 1).unwrap_err().to_string().contains("10000 draws"));
        scenario.data.labelled_per_node = 135;
        assert!(Deal::draw(&scenario, &data, 1).unwrap_err().to_string().contains("need 1080 labelled rows"));
        scenario.data.train = 1_797;
        assert!(Deal::draw(&scenario, &data, 1).unwrap_err().to_string().contains("none for the test"));
    }

    #[test]
    fn files_hold_what_was_dealt() {
        let (scenario, data, inputs) = quickstart();
        let deal = Deal::draw(&scenario, &data, 1).unwrap();
        let anchors = deal.write(&data, inputs.path()).unwrap();
        let read = |path: &str| fs::read_to_string(inputs.path().join(path)).unwrap();
        assert_eq!(anchors.count, 128);
        assert_eq!(anchors.digest, Anchors::digest_of(read("hedy/anchors.csv").as_bytes()));
        assert_eq!(read("ada/anchors.csv"), read("hedy/anchors.csv"));
        assert!(read("ada/anchors.csv").starts_with("p0,p1,"));
        assert!(read("ada/train.csv").starts_with("label,p0,p1,"));
        assert_eq!(read("ada/train.csv").lines().count(), 41);
        assert_eq!(read("ada/test.csv").lines().count(), 598);
    }
}
