//! What nodes would measure and train, made up from the seed, the node's number, its life and the round alone.

use heterotune_crypto::Digest;
use heterotune_protocol::{
    charter::Charter,
    codec::quantise,
    genesis::{Kernels, Statistics},
    round::{Contribution, Work},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How fast the slowest node trains, beside the fastest.
const SPEEDS: f64 = 8.0;

/// The fastest node's round, in deadlines.
const FASTEST: f64 = 0.03;

/// A node's trainer: does one thing at a time; of the rounds that wait, only the newest.
pub(super) struct Trainer {
    seed: u64,
    node: u64,
    /// How often it has been stopped. No life trains quite what another did: who forgets what it has said, and trains
    /// it again, says something else.
    life: u64,
    /// How long it takes for a round.
    pace_ms: f64,
    doing: Option<Work>,
    waiting: Vec<Work>,
}

impl Trainer {
    pub(super) fn new(seed: u64, node: u32, deadline_ms: u64) -> Self {
        let mut draws = generator(seed, &[u64::from(node)]);
        let slowness = 1.0 + (SPEEDS - 1.0) * draws.random_range(0.0..1.0f64).powi(2);
        let pace_ms = FASTEST * slowness * deadline_ms as f64;
        Self { seed, node: node.into(), life: 0, pace_ms, doing: None, waiting: Vec::new() }
    }

    /// Takes work. Whether it begins with it now.
    pub(super) fn take(&mut self, work: Work) -> bool {
        if matches!(work, Work::Align(_) | Work::Finish { .. }) {
            return false;
        }
        let is_round = |work: &Work| matches!(work, Work::Round { .. });
        if is_round(&work) {
            self.waiting.retain(|work| !is_round(work));
        }
        self.waiting.push(work);
        self.begin()
    }

    fn begin(&mut self) -> bool {
        if self.doing.is_some() || self.waiting.is_empty() {
            return false;
        }
        self.doing = Some(self.waiting.remove(0));
        true
    }

    /// How long the work that has begun takes: its usual time, a fifth more or less.
    pub(super) fn time_ms(&self, draws: &mut ChaCha8Rng) -> u64 {
        (self.pace_ms * draws.random_range(0.8..1.2)).max(1.0) as u64
    }

    /// Is done with its work. What that came to, and whether the next has begun.
    pub(super) fn done(&mut self, charter: &Charter) -> (Option<Contribution>, bool) {
        let contribution = self.doing.take().and_then(|work| self.make_up(charter, &work));
        (contribution, self.begin())
    }

    /// Forgets all work: its node has fallen.
    pub(super) fn stop(&mut self) {
        self.life += 1;
        self.doing = None;
        self.waiting.clear();
    }

    fn make_up(&self, charter: &Charter, work: &Work) -> Option<Contribution> {
        match work {
            Work::Kernels => {
                let mut draws = generator(self.seed, &[self.node, 1, self.life]);
                let spaces: Vec<_> = (0..charter.adapter.slots).map(|_| kernel(charter, &mut draws)).collect();
                Kernels::from_features(charter, &spaces).ok().map(Contribution::Kernels)
            }
            Work::Statistics => {
                let mut draws = generator(self.seed, &[self.node, 2, self.life]);
                statistics(charter, &mut draws).map(Contribution::Statistics)
            }
            Work::Round { round, mixture } => {
                // All nodes want about the same, and each sees it through its own noise.
                let mut goal = generator(self.seed, &[]);
                let mut noise = generator(self.seed, &[self.node, 3, *round, self.life]);
                let mut step = |value: &f32| {
                    let goal: f32 = goal.random_range(-1.0..1.0);
                    0.2 * (goal - value) + noise.random_range(-0.1..0.1f32)
                };
                let group = |base: &Vec<f32>| quantise(&charter.codec, &base.iter().map(&mut step).collect::<Vec<_>>());
                Some(Contribution::Update { round: *round, groups: mixture.iter().map(group).collect() })
            }
            Work::Align(_) | Work::Finish { .. } => None,
        }
    }
}

/// A generator for one purpose.
pub(super) fn generator(seed: u64, purpose: &[u64]) -> ChaCha8Rng {
    let purpose: Vec<u8> = purpose.iter().flat_map(|word| word.to_le_bytes()).collect();
    let digest = Digest::of("heterotune 2026 world draws", &[&seed.to_le_bytes(), &purpose]);
    ChaCha8Rng::from_seed(*digest.as_bytes())
}

/// The kernel of random centred features, of unit trace.
fn kernel(charter: &Charter, draws: &mut ChaCha8Rng) -> Vec<f64> {
    const WIDTH: usize = 6;
    let anchors = usize::from(charter.anchors.count);
    let mut features: Vec<[f64; WIDTH]> =
        (0..anchors).map(|_| std::array::from_fn(|_| draws.random_range(-1.0..1.0))).collect();
    for column in 0..WIDTH {
        let mean = features.iter().map(|row| row[column]).sum::<f64>() / anchors as f64;
        features.iter_mut().for_each(|row| row[column] -= mean);
    }
    let dot = |a: &[f64; WIDTH], b: &[f64; WIDTH]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let trace: f64 = features.iter().map(|row| dot(row, row)).sum();
    features.iter().flat_map(|a| features.iter().map(move |b| dot(a, b) / trace)).collect()
}

/// The statistics of a few random codes of each label.
fn statistics(charter: &Charter, draws: &mut ChaCha8Rng) -> Option<Statistics> {
    const SAMPLES: usize = 5;
    let (labels, width) = (charter.task.labels().len(), usize::from(charter.adapter.readout_rank));
    let (mut sums, mut gram) = (vec![0.0; labels * width], vec![0.0; width * width]);
    for sample in 0..SAMPLES * labels {
        let code: Vec<f64> = (0..width).map(|_| draws.random_range(-1.0..1.0)).collect();
        for a in 0..width {
            sums[sample % labels * width + a] += code[a];
            (0..width).for_each(|b| gram[a * width + b] += code[a] * code[b]);
        }
    }
    Statistics::from_values(charter, &vec![SAMPLES as u32; labels], &sums, &gram).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Options;

    fn round(round: u64) -> Work {
        Work::Round { round, mixture: vec![vec![0.0; 16], vec![0.0; 4], vec![0.0; 2]] }
    }

    #[test]
    fn of_the_rounds_that_wait_it_trains_the_newest() {
        let options = Options { genesis: true, ..Options::default() };
        let charter = options.charter(&options.identities()).unwrap();
        let mut trainer = Trainer::new(0, 3, 10_000);
        assert!(trainer.take(round(1)) && !trainer.take(round(2)) && !trainer.take(round(3)));
        let is = |contribution: &Option<Contribution>, wanted: u64| matches!(contribution, Some(Contribution::Update { round, .. }) if *round == wanted);
        let (first, more) = trainer.done(&charter);
        assert!(is(&first, 1) && more);
        let (next, more) = trainer.done(&charter);
        assert!(is(&next, 3) && !more);
        for work in [Work::Kernels, Work::Statistics] {
            assert!(trainer.take(work));
            assert!(trainer.done(&charter).0.is_some());
        }
    }

    #[test]
    fn no_life_trains_what_another_did() {
        let options = Options { genesis: true, ..Options::default() };
        let charter = options.charter(&options.identities()).unwrap();
        let trained = |lives: usize, work: Work| {
            let mut trainer = Trainer::new(0, 3, 10_000);
            (0..lives).for_each(|_| trainer.stop());
            trainer.take(work);
            format!("{:?}", trainer.done(&charter).0.unwrap())
        };
        for work in [Work::Kernels, Work::Statistics, round(1)] {
            let [first, second, again] = [0, 1, 1].map(|lives| trained(lives, work.clone()));
            assert!(first != second && second == again);
        }
    }

    #[test]
    fn speeds_differ() {
        let mut paces: Vec<_> = (0..100).map(|node| Trainer::new(1, node, 10_000).pace_ms).collect();
        paces.sort_by(f64::total_cmp);
        assert!(paces[99] / paces[0] > 4.0 && paces[99] < 3_000.0);
    }
}
