//! What nodes would measure and train, made up.

use super::{Contribution, Kernels, Statistics, Work};
use crate::{charter::Charter, codec::quantise};

/// A small generator of repeatable numbers (Steele, Lea and Flood 2014: SplitMix64).
pub(super) struct Draws(pub(super) u64);

impl Draws {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// From -1 to 1.
    pub(super) fn value(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// What a node would measure and train, made up from its number and the round alone.
pub(super) fn made_up(charter: &Charter, node: usize, work: &Work) -> Option<Contribution> {
    let anchors = usize::from(charter.anchors.count);
    let mut draws = Draws(node as u64 * 1_000 + 1);
    match work {
        Work::Kernels => {
            let mut kernel = || {
                let mut features: Vec<f64> = (0..anchors * 6).map(|_| draws.value()).collect();
                for column in 0..6 {
                    let mean = (0..anchors).map(|row| features[row * 6 + column]).sum::<f64>() / anchors as f64;
                    (0..anchors).for_each(|row| features[row * 6 + column] -= mean);
                }
                let norm: f64 = features.iter().map(|value| value * value).sum();
                let dot = |a: usize, b: usize| (0..6).map(|c| features[a * 6 + c] * features[b * 6 + c]).sum::<f64>();
                (0..anchors * anchors).map(|at| dot(at / anchors, at % anchors) / norm).collect()
            };
            let spaces: Vec<Vec<f64>> = (0..charter.adapter.slots).map(|_| kernel()).collect();
            Some(Contribution::Kernels(Kernels::from_features(charter, &spaces).unwrap()))
        }
        Work::Statistics => {
            let (labels, width) = (charter.task.labels().len(), usize::from(charter.adapter.readout_rank));
            let (mut sums, mut gram) = (vec![0.0; labels * width], vec![0.0; width * width]);
            for sample in 0..5 * labels {
                let code: Vec<f64> = (0..width).map(|_| draws.value()).collect();
                for a in 0..width {
                    sums[sample % labels * width + a] += code[a];
                    (0..width).for_each(|b| gram[a * width + b] += code[a] * code[b]);
                }
            }
            Some(Contribution::Statistics(Statistics::from_values(charter, &vec![5; labels], &sums, &gram).unwrap()))
        }
        Work::Round { round, mixture } => Some(update(charter, node, *round, mixture)),
        Work::Align(_) | Work::Finish { .. } => None,
    }
}

/// A round's update of a node.
pub(super) fn update(charter: &Charter, node: usize, round: u64, mixture: &[Vec<f32>]) -> Contribution {
    let mut draws = Draws(node as u64 * 1_000_000 + round);
    let group = |base: &Vec<f32>| {
        let delta: Vec<f32> = base.iter().map(|value| draws.value() as f32 * 0.1 - value * 0.01).collect();
        quantise(&charter.codec, &delta)
    };
    Contribution::Update { round, groups: mixture.iter().map(group).collect() }
}
