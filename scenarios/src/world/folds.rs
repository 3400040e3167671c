//! Computations, done once for all nodes that ask for the same: they are pure.

use heterotune_crypto::{Digest, Hasher};
use heterotune_protocol::{
    limits,
    round::{Closed, Job, Product, RoundSet},
    wire,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

/// Products that are remembered; one holds the standing of each contributor and the evidence on each member.
const PRODUCTS_MAX: usize = 1_024;

/// The products of a network's computations, by what they were computed from.
#[derive(Default)]
pub struct Folds {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    products: BTreeMap<Digest, Product>,
    order: VecDeque<Digest>,
}

impl Folds {
    /// Runs a job, or remembers what it came to.
    pub fn run(&self, job: Job) -> Product {
        match job {
            // Round by round: nodes that fold again share what did not change.
            Job::Fold(context, mut state, rounds) => {
                let mut closed: Vec<Closed> = Vec::with_capacity(rounds.len());
                for round in rounds {
                    let before = closed.last().map_or_else(|| state.digest(), |last| last.digest);
                    let key = fold_key(&before, &round);
                    let product = self.once(key, || Job::Fold(context.clone(), state.clone(), vec![round]).run(1));
                    if let Product::Fold(folded) = product {
                        closed.extend(folded);
                    }
                    state = closed.last().map_or(state, |last| last.after.clone());
                }
                Product::Fold(closed)
            }
            Job::Reference(_, ref kernels) => self.once(key("reference", kernels), || job.clone().run(1)),
            Job::Start(_, ref statistics) => self.once(key("start", statistics), || job.clone().run(1)),
        }
    }

    fn once(&self, key: Digest, compute: impl FnOnce() -> Product) -> Product {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(product) = known().products.get(&key) {
            return product.clone();
        }
        // Not under the lock: another thread may compute the same meanwhile, to the same end.
        let product = compute();
        let mut known = known();
        if known.products.insert(key, product.clone()).is_none() {
            known.order.push_back(key);
        }
        while known.order.len() > PRODUCTS_MAX {
            if let Some(oldest) = known.order.pop_front() {
                known.products.remove(&oldest);
            }
        }
        product
    }
}

fn fold_key(base: &Digest, round: &RoundSet) -> Digest {
    let mut hasher = Hasher::new("heterotune 2026 world fold");
    hasher.part(base.as_bytes());
    hasher.part(&round.round.to_le_bytes());
    hasher.part(round.set.as_bytes());
    hasher.finish()
}

/// The key of a genesis computation. Each founder's part has come in a message, so that all of them can be written.
fn key(what: &str, parts: &impl Serialize) -> Digest {
    let most = limits::FOUNDERS_MAX * limits::MESSAGE_BYTES_MAX;
    Digest::of("heterotune 2026 world genesis", &[what.as_bytes(), &wire::encode(parts, most).unwrap_or_default()])
}
