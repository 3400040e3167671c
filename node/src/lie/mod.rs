//! Liars, for scenarios that ask what lies do: nodes that train like any other, but tell the others something else.
//!
//! A lie is made of a contribution after training and before the round machine signs it, so that a liar breaks no rule
//! that its peers could not break. It is a function of the contribution, the scenario's seed, and what the liar has
//! heard; one that needs others' contributions waits for those of all but as many as the charter takes to be liars.

mod values;

use crate::dema::algebra::Matrix;
use heterotune_crypto::{Digest, NodeId};
use heterotune_protocol::{
    codec::{self, Group},
    genesis::{GenesisError, Kernels, Statistics},
    message::{Content, Context, Message, Step},
    mixture::{GroupShape, Kind, Mixture},
    round::Contribution,
};
use heterotune_scenarios::Lie;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::{collections::BTreeMap, sync::Arc};
use values::Values;

/// How many times its samples a liar claims to have.
const CLAIM: u32 = 100;

/// A node's lies.
#[derive(Debug)]
pub struct Liar {
    lie: Lie,
    seed: u64,
    me: NodeId,
    context: Arc<Context>,
    /// What others have said in the steps that may still matter.
    heard: BTreeMap<(Step, NodeId), Content>,
    /// What is to be said as soon as enough is heard.
    held: Option<Contribution>,
}

impl Liar {
    /// The node `me` with this `lie`. What is random in it follows from the scenario's `seed`.
    pub fn new(lie: Lie, seed: u64, me: NodeId, context: Arc<Context>) -> Self {
        Self { lie, seed, me, context, heard: BTreeMap::new(), held: None }
    }

    /// Takes in a message that counts.
    pub fn hear(&mut self, message: &Message) {
        let (author, step) = (message.author(), message.step);
        if author != self.me && message.kind.is_entry() {
            self.heard.insert((step, author), message.signed.value().clone());
        }
    }

    /// Takes in what the node would say if it were honest.
    pub fn hold(&mut self, contribution: Contribution) {
        let step = step(&contribution);
        self.heard.retain(|(heard, _), _| *heard >= step);
        self.held = Some(contribution);
    }

    /// What it says instead, if there is anything to say and enough is heard. `base` is the network's mixture.
    pub fn tell(&mut self, base: Option<&Mixture>) -> Option<Contribution> {
        let step = step(self.held.as_ref()?);
        let others: Vec<&Content> =
            self.heard.iter().filter(|((heard, _), _)| *heard == step).map(|(_, content)| content).collect();
        if self.waits(step) && others.len() < self.honest_least() {
            return None;
        }
        let told = match self.held.take()? {
            Contribution::Kernels(kernels) => Contribution::Kernels(self.kernels(kernels)),
            Contribution::Statistics(statistics) => Contribution::Statistics(self.statistics(statistics, &others)),
            Contribution::Update { round, groups } => {
                Contribution::Update { round, groups: self.update(round, groups, &others, base) }
            }
        };
        Some(told)
    }

    /// Whether its lie is made of what others say in this step.
    fn waits(&self, step: Step) -> bool {
        match self.lie {
            Lie::Copy => step.round() > 0,
            Lie::OpposedMeans => step == Step::Statistics,
            _ => false,
        }
    }

    /// How many nodes the charter takes to be honest; another liar may wait, too.
    fn honest_least(&self) -> usize {
        let charter = &self.context.charter;
        let founders = charter.founders.len();
        let liars = founders as u64 * u64::from(charter.fusion.max_liars_ppm) / 1_000_000;
        founders - (liars as usize).clamp(1, founders)
    }

    fn kernels(&self, kernels: Kernels) -> Kernels {
        match self.lie {
            Lie::CapturedReference => self.captured().unwrap_or(kernels),
            _ => kernels,
        }
    }

    /// Kernels of as many random directions as a slot has.
    fn captured(&self) -> Result<Kernels, GenesisError> {
        let charter = &self.context.charter;
        let (anchors, rank) = (usize::from(charter.anchors.count), usize::from(charter.adapter.rank));
        let mut rng = self.rng(0);
        let mut kernel = || {
            let mut features = Matrix::zeros(anchors, rank);
            features.values_mut().iter_mut().for_each(|value| *value = rng.sample(StandardNormal));
            let means = features.means();
            let features = features.less(&means);
            let size = features.square_sum();
            features.gram().times(1.0 / size).values().to_vec()
        };
        let kernels: Vec<Vec<f64>> = (0..charter.adapter.slots).map(|_| kernel()).collect();
        Kernels::from_features(charter, &kernels)
    }

    fn statistics(&self, own: Statistics, others: &[&Content]) -> Statistics {
        let values = Values::of(&self.context, &own);
        let told = match self.lie {
            Lie::ShiftedLabels => values.shifted(CLAIM).encode(&self.context),
            Lie::NegatedMeans => values.times(-1.0).encode(&self.context),
            Lie::OpposedMeans => {
                let others = others.iter().filter_map(|content| match content {
                    Content::Statistics(statistics) => Some(Values::of(&self.context, statistics)),
                    _ => None,
                });
                let pooled = others.reduce(Values::plus).unwrap_or_else(|| values.clone());
                // As many samples of each class as it has in all. Where means are so long that no codes can have -3
                // times them, as much as passes.
                let each = own.counts.iter().sum::<u32>().max(1);
                let opposed = |factor| pooled.of_each(each).times(factor).encode(&self.context);
                [-3.0, -2.0, -1.0].into_iter().map(opposed).find(Result::is_ok).unwrap_or_else(|| Ok(own.clone()))
            }
            _ => return own,
        };
        told.unwrap_or(own)
    }

    fn update(&self, round: u64, own: Vec<Group>, others: &[&Content], base: Option<&Mixture>) -> Vec<Group> {
        let codec = &self.context.charter.codec;
        let quantise = |values: Vec<f32>| codec::quantise(codec, &values);
        let times = |factor: f32| own.iter().map(|group| quantise(scaled(&group.view(), factor))).collect();
        match self.lie {
            Lie::SignFlip => times(-10.0),
            Lie::Scale => times(100.0),
            Lie::Noise => {
                let mut rng = self.rng(round);
                own.iter().map(|group| quantise(noise(&group.view(), 10.0, &mut rng))).collect()
            }
            Lie::OutOfRange => {
                own.into_iter().map(|group| Group { exponent: codec.exponent_max + 1, ..group }).collect()
            }
            Lie::Collusion => match base {
                Some(base) => self.towards_shifted(base).into_iter().map(quantise).collect(),
                None => own,
            },
            Lie::Copy => {
                let first = others.iter().find_map(|content| match content {
                    Content::Update(groups) => Some(groups.clone()),
                    _ => None,
                });
                first.unwrap_or(own)
            }
            _ => own,
        }
    }

    /// The step from the mixture to the one whose readout calls each class the next.
    fn towards_shifted(&self, base: &Mixture) -> Vec<Vec<f32>> {
        let labels = self.context.charter.task.labels().len();
        let view = base.view(self.context.charter.codec.exponent_min);
        let step = |(group, values): (&GroupShape, Vec<f32>)| {
            if matches!(group.kind, Kind::Branches { .. }) {
                return vec![0.0; values.len()];
            }
            let shifted = values.chunks(labels).flat_map(|row| (0..labels).map(|at| row[(at + labels - 1) % labels]));
            shifted.zip(&values).map(|(shifted, value)| shifted - value).collect()
        };
        self.context.layout.groups().iter().zip(view).map(step).collect()
    }

    /// Random numbers of this liar and round.
    fn rng(&self, round: u64) -> ChaCha8Rng {
        let parts: [&[u8]; 3] = [&self.seed.to_le_bytes(), self.me.as_bytes(), &round.to_le_bytes()];
        ChaCha8Rng::from_seed(*Digest::of("heterotune 2026 scenario lie", &parts).as_bytes())
    }
}

fn step(contribution: &Contribution) -> Step {
    match contribution {
        Contribution::Kernels(_) => Step::Kernels,
        Contribution::Statistics(_) => Step::Statistics,
        Contribution::Update { round, .. } => Step::Round(*round),
    }
}

fn scaled(values: &[f32], factor: f32) -> Vec<f32> {
    values.iter().map(|value| value * factor).collect()
}

/// Noise `factor` times as long as `values`.
fn noise(values: &[f32], factor: f32, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let noise: Vec<f32> = values.iter().map(|_| rng.sample(StandardNormal)).collect();
    let norm = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
    scaled(&noise, factor * norm(values) / norm(&noise).max(f32::MIN_POSITIVE))
}

#[cfg(test)]
mod tests;
