//! Synthetic genesis payloads for tests.

use super::{Kernels, Statistics};
use crate::charter::Charter;

/// Repeatable numbers: splitmix64 (Steele, Lea and Flood 2014).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    /// Uniform in [-1, 1).
    pub(crate) fn signed(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Nearly normal, of unit variance: twelve uniforms.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).fold(0.0, |sum, _| sum + self.signed()) / 2.0
    }
}

/// The kernel of unit trace of centred features `[anchors, width]`.
pub(crate) fn kernel_of(features: &[Vec<f64>]) -> Vec<f64> {
    let anchors = features.len();
    let width = features[0].len();
    let mean: Vec<f64> = (0..width).map(|k| features.iter().map(|row| row[k]).sum::<f64>() / anchors as f64).collect();
    let centred: Vec<Vec<f64>> =
        features.iter().map(|row| row.iter().zip(&mean).map(|(a, b)| a - b).collect()).collect();
    let norm: f64 = centred.iter().flatten().map(|v| v * v).sum();
    let inner = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / norm;
    centred.iter().flat_map(|a| centred.iter().map(move |b| inner(a, b))).collect()
}

/// A random kernel of rank `width` at most.
pub(crate) fn kernel(anchors: usize, width: usize, seed: u64) -> Vec<f64> {
    let mut numbers = Numbers::new(seed);
    kernel_of(&(0..anchors).map(|_| (0..width).map(|_| numbers.normal()).collect()).collect::<Vec<_>>())
}

/// What a backbone that sees the same as the others would send: common features, its own rotation and noise.
pub(crate) fn kernels(charter: &Charter, seed: u64) -> Kernels {
    let anchors = usize::from(charter.anchors.count);
    let mut common = Numbers::new(1);
    let mut own = Numbers::new(1000 + seed);
    let spaces: Vec<_> = (0..charter.adapter.slots)
        .map(|_| {
            let features: Vec<Vec<f64>> = (0..anchors)
                .map(|_| (0..8).map(|k| common.normal() * 4.0 / f64::from(k + 1) + 0.3 * own.normal()).collect())
                .collect();
            kernel_of(&features)
        })
        .collect();
    Kernels::from_features(charter, &spaces).unwrap()
}

/// Labelled codes of one node: (class, code) pairs, classes around common centres.
pub(crate) fn codes(charter: &Charter, samples: usize, seed: u64) -> Vec<(usize, Vec<f64>)> {
    let (width, labels) = (usize::from(charter.adapter.readout_rank), charter.task.labels().len());
    let mut common = Numbers::new(2);
    let centres: Vec<Vec<f64>> = (0..labels).map(|_| (0..width).map(|_| common.normal()).collect()).collect();
    let mut own = Numbers::new(2000 + seed);
    (0..samples)
        .map(|_| {
            let class = own.below(labels);
            (class, centres[class].iter().map(|c| c + 0.5 * own.normal()).collect())
        })
        .collect()
}

/// The raw sums of codes: counts, class sums `[C, r_h]`, Gram `[r_h, r_h]`.
pub(crate) fn sums(charter: &Charter, codes: &[(usize, Vec<f64>)]) -> (Vec<u32>, Vec<f64>, Vec<f64>) {
    let (width, labels) = (usize::from(charter.adapter.readout_rank), charter.task.labels().len());
    let (mut counts, mut sums, mut gram) = (vec![0; labels], vec![0.0; labels * width], vec![0.0; width * width]);
    for (class, code) in codes {
        counts[*class] += 1;
        for (a, left) in code.iter().enumerate() {
            sums[class * width + a] += left;
            for (b, right) in code.iter().enumerate() {
                gram[a * width + b] += left * right;
            }
        }
    }
    (counts, sums, gram)
}

/// The statistics of `samples` honest samples.
pub(crate) fn statistics(charter: &Charter, samples: usize, seed: u64) -> Statistics {
    let (counts, sums, gram) = sums(charter, &codes(charter, samples, seed));
    Statistics::from_values(charter, &counts, &sums, &gram).unwrap()
}
