//! The long computations, as values: pure, and fit for another thread.

use crate::{
    enrolment,
    fuse::{self, Memory, Report, Sender},
    genesis::{self, Kernels, Reference, Start, Statistics},
    ledger::StepSet,
    message::{self, Content, Context, Message},
    mixture::{Kind, Mixture, power_of_two},
    seal::set_digest,
};
use heterotune_crypto::{Digest, Hasher, NodeId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// The state before a round: what folding starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The round that starts here.
    #[serde(deserialize_with = "crate::message::round")]
    pub round: u64,
    /// The genesis it descends from.
    pub genesis: Digest,
    /// The mixture.
    pub mixture: Mixture,
    /// The screen's evidence.
    pub memory: Memory,
    /// Members beside the charter's, and the round that has enrolled each.
    pub enrolled: BTreeMap<NodeId, u64>,
    /// Members that have said two different things, and the round in which that was settled.
    pub banned: BTreeMap<NodeId, u64>,
    /// The digests of the states before it, newest first, as far back as the horizon.
    pub past: Vec<Digest>,
}

impl Checkpoint {
    /// The first state of a network.
    pub fn first(genesis: Digest, mixture: Mixture) -> Self {
        let (memory, enrolled, banned, past) = Default::default();
        Self { round: 1, genesis, mixture, memory, enrolled, banned, past }
    }

    /// The digest of all of it.
    pub fn digest(&self) -> Digest {
        self.digest_with(self.mixture.digest())
    }

    /// The same, where that of the mixture is known.
    fn digest_with(&self, mixture: Digest) -> Digest {
        let mut hasher = Hasher::new("heterotune 2026 state");
        hasher.part(&self.round.to_le_bytes());
        hasher.part(self.genesis.as_bytes());
        hasher.part(mixture.as_bytes());
        for (author, evidence) in &self.memory.0 {
            hasher.part(author.as_bytes());
            hasher.part(&evidence.to_le_bytes());
        }
        for (what, members) in [(b"enrolled".as_slice(), &self.enrolled), (b"banned", &self.banned)] {
            hasher.part(what);
            for (member, round) in members {
                hasher.part(member.as_bytes());
                hasher.part(&round.to_le_bytes());
            }
        }
        hasher.part(b"past");
        self.past.iter().for_each(|digest| hasher.part(digest.as_bytes()));
        hasher.finish()
    }
}

/// What a round is made of.
#[derive(Clone, Debug)]
pub struct RoundSet {
    /// The round.
    pub round: u64,
    /// The digest of the ids of all its messages.
    pub set: Digest,
    /// The updates that count.
    pub updates: Vec<Arc<Message>>,
    /// Which contributors have said two different things.
    pub conflicts: Vec<NodeId>,
    /// Who wants to be a member, those who come first in front.
    pub newcomers: Vec<NodeId>,
}

impl RoundSet {
    /// What a step's set is for folding.
    pub fn new(round: u64, set: &StepSet) -> Self {
        let updates = set.counting().filter(|message| message.kind == message::Kind::Update).cloned().collect();
        let (conflicts, newcomers) = (set.conflicts().collect(), set.newcomers());
        Self { round, set: set_digest(&set.ids()), updates, conflicts, newcomers }
    }
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
    Start(Arc<Start>),
    /// Of [`Job::Fold`].
    Fold(Vec<Closed>),
}

/// A folded round.
#[derive(Clone, Debug)]
pub struct Closed {
    /// The digest of the state before it.
    pub before: Digest,
    /// The digest of the set it is made of.
    pub set: Digest,
    /// The state after it: the checkpoint of the next round.
    pub after: Arc<Checkpoint>,
    /// Its digest.
    pub digest: Digest,
    /// The digest of its mixture.
    pub mixture: Digest,
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
            Job::Start(context, statistics) => Product::Start(Arc::new(genesis::start(&context.charter, &statistics))),
            Job::Fold(context, state, rounds) => {
                let (mut digest, mut state) = (state.digest(), state);
                let mut closed = Vec::with_capacity(rounds.len());
                for round in &rounds {
                    let folded = fold(&context, &state, digest, round, threads);
                    (state, digest) = (folded.after.clone(), folded.digest);
                    closed.push(folded);
                }
                Product::Fold(closed)
            }
        }
    }
}

fn fold(context: &Context, before: &Checkpoint, digest: Digest, round: &RoundSet, threads: usize) -> Closed {
    let senders: Vec<_> = round
        .updates
        .iter()
        .filter_map(|message| match message.signed.value() {
            Content::Update(groups) => Some(Sender { author: message.author(), payload: message.id(), groups }),
            _ => None,
        })
        .collect();
    let fused = fuse::fuse(&context.charter, &context.layout, &senders, &before.memory, threads);
    let mixture = before.mixture.plus(&fused.step);
    let branch_norm = branch_norm(context, &mixture);
    let mut banned = before.banned.clone();
    for member in &round.conflicts {
        banned.entry(*member).or_insert(round.round);
    }
    let enrolled = enrolment::enrol(context, &before.enrolled, round.round, &round.newcomers);
    let horizon = usize::from(context.charter.rounds.horizon);
    let past = [digest].into_iter().chain(before.past.iter().copied()).take(horizon).collect();
    let (round_after, genesis) = (before.round + 1, before.genesis);
    let after = Checkpoint { round: round_after, genesis, mixture, memory: fused.memory, enrolled, banned, past };
    let mixture = after.mixture.digest();
    Closed {
        before: digest,
        set: round.set,
        digest: after.digest_with(mixture),
        after: Arc::new(after),
        mixture,
        report: fused.report,
        branch_norm,
    }
}

fn branch_norm(context: &Context, mixture: &Mixture) -> f64 {
    let scale = power_of_two(context.charter.codec.exponent_min);
    let groups = context.layout.groups().iter().zip(&mixture.groups);
    let branches = groups.filter(|(group, _)| matches!(group.kind, Kind::Branches { .. }));
    let squares =
        branches.flat_map(|(_, values)| values).map(|value| (*value as f64 * scale) * (*value as f64 * scale));
    squares.fold(0.0, |sum, square| sum + square).sqrt()
}
