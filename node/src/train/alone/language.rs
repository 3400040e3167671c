//! A language model by itself is a network of one: aligned to itself, every tensor its own, for up to twice as many
//! rounds as the network runs. Several learning rates are tried, each stopped where the node's held-out text is foretold
//! best; the one that is best there is its answer.

use crate::train::{Alone, Learner, Score, Settings, Snapshot, TrainError};
use heterotune_protocol::{
    charter::Charter,
    genesis::{self, Kernels},
};
use std::collections::BTreeMap;

/// The learning rates that are tried.
const RATES: [f64; 4] = [1.25e-3, 2.5e-3, 5e-3, 1e-2];

/// Rounds that bring nothing, after which a rate is given up.
const PATIENCE: usize = 4;

/// Rounds at most, where the network has no last one.
const ROUNDS_MAX: u64 = 64;

impl Learner {
    pub(super) fn network_of_one(&mut self, charter: &Charter) -> Result<Alone, TrainError> {
        let mut kernels = self.kernels()?;
        kernels.truncate(charter.adapter.slots.into());
        let refuse = |error: genesis::GenesisError| TrainError::Value(error.to_string());
        let kernels = Kernels::from_features(charter, &kernels).map_err(refuse)?;
        let me = charter.founders.first().copied().ok_or_else(|| TrainError::Value("no founders".into()))?;
        let reference = genesis::reference(charter, &BTreeMap::from([(me, kernels)]));
        let settings = self.settings;
        let (mut best_of, mut saved) = (BTreeMap::new(), Vec::new());
        for rate in RATES {
            self.align(&reference.spaces)?;
            let of_one =
                Settings { rate, branch_rate: None, readout_rate: None, projection_rate: Some(rate), ..settings };
            self.settings = of_one;
            let best = self.best_round();
            self.settings = settings;
            // A rate that is too high for this node is no answer.
            if let Ok((best, snapshot)) = best {
                if best_of.values().all(|other: &Score| best.own < other.own) {
                    saved = snapshot.encode()?;
                }
                best_of.insert(format!("rate {rate}"), best);
            }
        }
        self.private = None;
        let best = best_of.iter().min_by(|(_, a), (_, b)| a.own.total_cmp(&b.own));
        let (chosen, score) = best
            .map(|(name, score)| (name.clone(), *score))
            .ok_or_else(|| TrainError::Value("training alone diverges at every rate".into()))?;
        Ok(Alone { chosen, global: score.global, own: score.own, best_of, saved })
    }

    /// Trains round after round; gives the score of the one whose held-out text is foretold best, and what was known then.
    fn best_round(&mut self) -> Result<(Score, Snapshot), TrainError> {
        let mut mixture: Vec<Vec<f32>> =
            self.net.layout.groups().iter().map(|group| vec![0.0; group.values()]).collect();
        let mut best = Score { global: f64::INFINITY, own: f64::INFINITY };
        let mut kept = Snapshot { round: 0, mixture: mixture.clone(), private: self.save()? };
        let rounds = if self.rounds == 0 { ROUNDS_MAX } else { (2 * self.rounds).min(ROUNDS_MAX) };
        let mut idle = 0;
        for round in 1..=rounds {
            let trained = self.train(round, &mixture)?;
            for (group, delta) in mixture.iter_mut().zip(&trained.delta) {
                group.iter_mut().zip(delta).for_each(|(value, delta)| *value += delta);
            }
            // The test is only for telling how good the chosen one is; where nothing is held out it has to choose as well.
            let own = match self.own_perplexity(&mixture)? {
                Some(own) => own,
                None => self.evaluate(&mixture)?.map_or(f64::NAN, |score| score.own),
            };
            idle = if own < best.own { 0 } else { idle + 1 };
            if idle == 0 {
                best.own = own;
                kept = Snapshot { round, mixture: mixture.clone(), private: self.save()? };
            }
            if idle == PATIENCE {
                break;
            }
        }
        self.restore(&kept.private)?;
        best = self.evaluate(&kept.mixture)?.unwrap_or(best);
        Ok((best, kept))
    }
}
