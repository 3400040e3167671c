//! The long computations, as values: pure, and fit for another thread.

use crate::{
    codec::Group,
    fuse::{self, Memory, Report, Sender},
    genesis::{self, Kernels, Reference, Start, Statistics},
    message::{Content, Context, Message},
    mixture::{Kind, Mixture, power_of_two},
};
use heterotune_crypto::{Digest, Hasher, NodeId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// The state before a round: what folding starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The round that starts here.
    pub round: u64,
    /// The genesis it descends from.
    pub genesis: Digest,
    /// The mixture.
    pub mixture: Mixture,
    /// The screen's evidence.
    pub memory: Memory,
}

impl Checkpoint {
    /// The digest of all of it.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new("heterotune 2026 state");
        hasher.part(&self.round.to_le_bytes());
        hasher.part(self.genesis.as_bytes());
        hasher.part(self.mixture.digest().as_bytes());
        for (author, evidence) in &self.memory.0 {
            hasher.part(author.as_bytes());
            hasher.part(&evidence.to_le_bytes());
        }
        hasher.finish()
    }
}

/// The counting updates of a round.
#[derive(Clone, Debug)]
pub struct RoundSet {
    /// The round.
    pub round: u64,
    /// Its updates.
    pub updates: Vec<Arc<Message>>,
}

/// A computation.
#[derive(Clone, Debug)]
pub enum Job {
    /// The reference, from all founders' kernels.
    Reference(Arc<Context>, BTreeMap<NodeId, Kernels>),
    /// The starting readout, from all founders' statistics.
    Start(Arc<Context>, BTreeMap<NodeId, Statistics>),
    /// Rounds in a row, from the state before the first of them.
    Fold(Arc<Context>, Arc<Checkpoint>, Vec<RoundSet>),
}

/// What a computation gives.
#[derive(Clone, Debug)]
pub enum Product {
    /// Of [`Job::Reference`].
    Reference(Arc<Reference>),
    /// Of [`Job::Start`].
    Start(Start),
    /// Of [`Job::Fold`].
    Fold(Vec<Closed>),
}

/// A folded round.
#[derive(Clone, Debug)]
pub struct Closed {
    /// The state after it: the checkpoint of the next round.
    pub after: Arc<Checkpoint>,
    /// What fusion did.
    pub report: Report,
    /// L2 norm of all branches afterwards.
    pub branch_norm: f64,
}

impl Job {
    /// Computes. The result does not depend on `threads`.
    pub fn run(self, threads: usize) -> Product {
        match self {
            Job::Reference(context, kernels) => {
                Product::Reference(Arc::new(genesis::reference(&context.charter, &kernels)))
            }
            Job::Start(context, statistics) => Product::Start(genesis::start(&context.charter, &statistics)),
            Job::Fold(context, mut state, rounds) => {
                let mut closed = Vec::with_capacity(rounds.len());
                for round in &rounds {
                    let folded = fold(&context, &state, round, threads);
                    state = folded.after.clone();
                    closed.push(folded);
                }
                Product::Fold(closed)
            }
        }
    }
}

fn fold(context: &Context, before: &Checkpoint, round: &RoundSet, threads: usize) -> Closed {
    let sender = |message: &'_ Arc<Message>| match message.signed.value() {
        Content::Update(groups) => Some((message.signed.author(), message.digest(), groups.clone())),
        _ => None,
    };
    let decoded: Vec<(NodeId, Digest, Vec<Group>)> = round.updates.iter().filter_map(sender).collect();
    let senders: Vec<_> =
        decoded.iter().map(|(author, payload, groups)| Sender { author: *author, payload: *payload, groups }).collect();
    let fused = fuse::fuse(&context.charter, &context.layout, &senders, &before.memory, threads);
    let mixture = before.mixture.plus(&fused.step);
    let branch_norm = branch_norm(context, &mixture);
    let after = Checkpoint { round: before.round + 1, genesis: before.genesis, mixture, memory: fused.memory };
    Closed { after: Arc::new(after), report: fused.report, branch_norm }
}

fn branch_norm(context: &Context, mixture: &Mixture) -> f64 {
    let scale = power_of_two(context.charter.codec.exponent_min);
    let groups = context.layout.groups().iter().zip(&mixture.groups);
    let branches = groups.filter(|(group, _)| matches!(group.kind, Kind::Branches { .. }));
    let squares =
        branches.flat_map(|(_, values)| values).map(|value| (*value as f64 * scale) * (*value as f64 * scale));
    squares.fold(0.0, |sum, square| sum + square).sqrt()
}
