//! The starting readout, honest and under attack.

use super::*;
use crate::{
    genesis::{Block, samples},
    testing::{charter, identity},
};
use heterotune_crypto::Digest;
use proptest::prelude::*;

fn accuracy(charter: &Charter, start: &Start) -> f64 {
    let labels = charter.task.labels().len();
    let scale = power_of_two(charter.codec.exponent_min);
    let codes = samples::codes(charter, 300, 999);
    let right = codes.iter().filter(|(class, code)| {
        let logit = |c: usize| {
            let product = code.iter().enumerate().map(|(row, q)| q * start.readout[row * labels + c] as f64);
            (product.sum::<f64>() + start.bias[c] as f64) * scale
        };
        (0..labels).all(|c| c == *class || logit(c) < logit(*class))
    });
    right.count() as f64 / codes.len() as f64
}

fn honest(charter: &Charter, nodes: usize) -> BTreeMap<NodeId, Statistics> {
    (0..nodes).map(|k| (identity(k).id(), samples::statistics(charter, 40, k as u64))).collect()
}

/// Replaces the statistics of nodes 6 and 7 of 8.
fn with_liars(
    charter: &Charter,
    lie: impl Fn(Vec<u32>, Vec<f64>, Vec<f64>) -> (Vec<u32>, Vec<f64>, Vec<f64>),
) -> BTreeMap<NodeId, Statistics> {
    let mut statistics = honest(charter, 8);
    for k in [6, 7] {
        let (counts, sums, gram) = samples::sums(charter, &samples::codes(charter, 40, k as u64));
        let (counts, sums, gram) = lie(counts, sums, gram);
        statistics.insert(identity(k).id(), Statistics::from_values(charter, &counts, &sums, &gram).unwrap());
    }
    statistics
}

fn liars() -> Vec<NodeId> {
    let mut liars = vec![identity(6).id(), identity(7).id()];
    liars.sort();
    liars
}

#[test]
fn it_is_the_discriminant() {
    let charter = charter(8);
    let statistics = honest(&charter, 8);
    let start = start(&charter, &statistics);
    assert!(start.left_out.is_empty());
    assert!(accuracy(&charter, &start) > 0.95);
    // Against sums of the raw codes and a plain check of A W_c = mu_c.
    let codes: Vec<_> = (0..8).flat_map(|k| samples::codes(&charter, 40, k)).collect();
    let (counts, sums, gram) = samples::sums(&charter, &codes);
    let n: f64 = counts.iter().map(|n| f64::from(*n)).sum();
    let mean = |c: usize, row: usize| sums[c * 4 + row] / f64::from(counts[c]);
    let within = |i: usize, j: usize| {
        let between: f64 = (0..3).map(|c| f64::from(counts[c]) * mean(c, i) * mean(c, j)).sum();
        (gram[i * 4 + j] - between) / n
    };
    let ridge = 0.3 * (0..4).map(|i| within(i, i)).sum::<f64>() / 4.0;
    let scale = power_of_two(charter.codec.exponent_min);
    for c in 0..3 {
        let weight = |row: usize| start.readout[row * 3 + c] as f64 * scale;
        for i in 0..4 {
            let product: f64 = (0..4).map(|j| within(i, j) * weight(j)).sum::<f64>() + ridge * weight(i);
            assert!((product - mean(c, i)).abs() < 1e-3, "{product} {}", mean(c, i));
        }
        let bias: f64 = (0..4).map(|row| weight(row) * mean(c, row)).sum::<f64>() / -2.0;
        assert!((start.bias[c] as f64 * scale - bias).abs() < 1e-3);
    }
}

#[test]
fn an_unseen_class_has_no_weights() {
    let charter = charter(4);
    let mut codes = samples::codes(&charter, 60, 1);
    codes.retain(|(class, _)| *class != 1);
    let (counts, sums, gram) = samples::sums(&charter, &codes);
    let one = Statistics::from_values(&charter, &counts, &sums, &gram).unwrap();
    let start = start(&charter, &BTreeMap::from([(identity(0).id(), one)]));
    assert_eq!(start.bias[1], -5 << 40);
    assert!((0..4).all(|row| start.readout[row * 3 + 1] == 0 && start.readout[row * 3] != 0));
}

#[test]
fn without_variance_it_starts_at_zero() {
    let charter = charter(4);
    let bias = vec![-5i64 << 40; 3];
    assert_eq!(start(&charter, &BTreeMap::new()), Start { readout: vec![0; 12], bias, left_out: vec![] });
    // One sample has no scatter around its own mean.
    let (counts, sums, gram) = samples::sums(&charter, &[(2, vec![1.0, 0.0, 0.5, -1.0])]);
    let one = Statistics::from_values(&charter, &counts, &sums, &gram).unwrap();
    let start = start(&charter, &BTreeMap::from([(identity(0).id(), one)]));
    assert_eq!((start.readout, start.bias), (vec![0; 12], vec![-5 << 40, -5 << 40, 0]));
}

#[test]
fn a_node_with_many_samples_counts_as_two() {
    let charter = charter(4);
    let mut statistics = honest(&charter, 3);
    let with = |statistics: &mut BTreeMap<_, _>, factor: u32| {
        let (counts, sums, gram) = samples::sums(&charter, &samples::codes(&charter, 40, 7));
        let scaled = |values: &[f64]| values.iter().map(|v| v * f64::from(factor)).collect::<Vec<_>>();
        let counts: Vec<u32> = counts.iter().map(|n| n * factor).collect();
        let many = Statistics::from_values(&charter, &counts, &scaled(&sums), &scaled(&gram)).unwrap();
        statistics.insert(identity(3).id(), many);
        start(&charter, statistics)
    };
    let (twice, hundredfold) = (with(&mut statistics, 2), with(&mut statistics, 100));
    for (a, b) in twice.readout.iter().zip(&hundredfold.readout) {
        assert!((a - b).abs() < 1 << 30, "{a} {b}");
    }
    assert_ne!(with(&mut statistics, 1), twice);
}

#[test]
fn liars_are_left_out() {
    let mut charter = charter(8);
    let honest_alone = {
        let mut six = honest(&charter, 8);
        liars().iter().for_each(|liar| drop(six.remove(liar)));
        start(&charter, &six)
    };
    let negated = with_liars(&charter, |n, sums, gram| (n, sums.iter().map(|s| -s).collect(), gram));
    let shifted = with_liars(&charter, |mut n, mut sums, gram| {
        n.rotate_left(1);
        sums.rotate_left(4);
        let hundredfold = |values: Vec<f64>| values.iter().map(|v| v * 100.0).collect::<Vec<_>>();
        (n.iter().map(|n| n * 100).collect(), hundredfold(sums), hundredfold(gram))
    });
    for lies in [negated, shifted] {
        let screened = start(&charter, &lies);
        assert_eq!(screened.left_out, liars());
        assert_eq!(screened.readout, honest_alone.readout);
        charter.fusion.statistics_screen = false;
        let open = start(&charter, &lies);
        assert!(open.left_out.is_empty() && open.readout != honest_alone.readout);
        charter.fusion.statistics_screen = true;
    }
    // Codes of four times the energy, means as they should be.
    let loud = with_liars(&charter, |n, sums, gram| (n, sums, gram.iter().map(|g| g * 4.0).collect()));
    assert_eq!(start(&charter, &loud).left_out, liars());
}

#[test]
fn liars_do_not_take_out_who_shares_its_classes_with_few_others() {
    let charter = charter(8);
    let of = |classes: &[usize], seed: u64, sign: f64| {
        let mut codes = samples::codes(&charter, 60, seed);
        codes.retain(|(class, _)| classes.contains(class));
        codes.iter_mut().flat_map(|(_, code)| code).for_each(|q| *q *= sign);
        let (counts, sums, gram) = samples::sums(&charter, &codes);
        Statistics::from_values(&charter, &counts, &sums, &gram).unwrap()
    };
    // Five know classes 0 and 1, one knows 2, which it shares with one of them and with both liars.
    let mut statistics: BTreeMap<_, _> = (0..4).map(|k| (identity(k).id(), of(&[0, 1], k as u64, 1.0))).collect();
    statistics.insert(identity(4).id(), of(&[0, 1, 2], 4, 1.0));
    statistics.insert(identity(5).id(), of(&[2], 5, 1.0));
    for liar in 6..8 {
        statistics.insert(identity(liar).id(), of(&[0, 1, 2], liar as u64, -1.0));
    }
    assert_eq!(start(&charter, &statistics).left_out, liars());
}

#[test]
fn who_shares_no_class_is_kept_and_a_minority_leaves_nobody_out() {
    let charter = charter(8);
    let of_class = |class: usize, seed: u64, sign: f64| {
        let mut codes = samples::codes(&charter, 60, seed);
        codes.retain(|(c, _)| *c == class);
        codes.iter_mut().flat_map(|(_, code)| code).for_each(|q| *q *= sign);
        let (counts, sums, gram) = samples::sums(&charter, &codes);
        Statistics::from_values(&charter, &counts, &sums, &gram).unwrap()
    };
    let mut statistics: BTreeMap<_, _> = (0..5).map(|k| (identity(k).id(), of_class(0, k as u64, 1.0))).collect();
    statistics.insert(identity(5).id(), of_class(1, 5, -1.0));
    assert!(start(&charter, &statistics).left_out.is_empty());
    // Two against two: each has two opponents and one friend, so all four score low.
    let torn = (0..4).map(|k| (identity(k).id(), of_class(0, k as u64, if k < 2 { 1.0 } else { -1.0 }))).collect();
    assert!(start(&charter, &torn).left_out.is_empty());
}

#[test]
fn every_machine_gets_these_bits() {
    let charter = charter(8);
    let start = start(&charter, &honest(&charter, 5));
    let bytes: Vec<u8> = start.readout.iter().chain(&start.bias).flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(
        Digest::of("test", &[&bytes]).to_string(),
        "9550de15bcc162d5ac20672bb6e5068978d86e7dd8f6ab4046f04be9f4d7efa2"
    );
}

proptest! {
    #[test]
    fn nothing_that_passes_makes_it_panic(
        nodes in prop::collection::vec(
            (any::<[u32; 3]>(), any::<[i8; 12]>(), any::<[i8; 10]>(), 0i16..=32, 0i16..=32, any::<[i32; 22]>()), 1..7),
        wide: bool,
    ) {
        // Arbitrary bytes hardly ever pass the checks, so half of them are drawn where they may.
        let charter = charter(8);
        let block = |exponent, values: &[i32]| Block {
            exponent,
            values: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        let mut passed = 0;
        let statistics: BTreeMap<_, _> = nodes.iter().enumerate().map(|(k, (counts, sums, gram, e, f, raw))| {
            let mut gram: Vec<i32> = gram.iter().map(|g| i32::from(*g) / 4).collect();
            (0..4).for_each(|row| gram[grid::triangle_at(4, row, row)] = 40);
            let one = if wide {
                Statistics { counts: counts.to_vec(), sums: block(e - 16, &raw[..12]), gram: block(f - 16, &raw[12..]) }
            } else {
                let sums: Vec<i32> = sums.iter().map(|s| i32::from(*s) / 32).collect();
                let counts = counts.iter().map(|n| 1 + n % (1 << 24)).collect();
                Statistics { counts, sums: block(-16, &sums), gram: block(-16, &gram) }
            };
            passed += usize::from(one.check(&charter).is_ok());
            (identity(k).id(), one)
        }).collect();
        prop_assert!(wide || passed == nodes.len());
        let start = start(&charter, &statistics);
        prop_assert_eq!((start.readout.len(), start.bias.len()), (12, 3));
    }
}
