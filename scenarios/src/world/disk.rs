//! A node's disk: what survives a crash.

use heterotune_protocol::{
    message::{Message, Step},
    round::{Checkpoint, Saved},
    seal::Seal,
};
use std::{collections::BTreeMap, sync::Arc};

/// What a node has kept, shared with all that hold the same.
#[derive(Clone, Default)]
pub(super) struct Disk {
    messages: Vec<Arc<Message>>,
    checkpoints: BTreeMap<u64, Arc<Checkpoint>>,
    seals: BTreeMap<Step, Arc<Seal>>,
}

impl Disk {
    /// Whether nothing has been kept yet.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.checkpoints.is_empty() && self.seals.is_empty()
    }

    pub(super) fn keep(&mut self, message: Arc<Message>) {
        self.messages.push(message);
    }

    pub(super) fn checkpoint(&mut self, checkpoint: Arc<Checkpoint>) {
        self.checkpoints.insert(checkpoint.round, checkpoint);
    }

    /// Of a sealed step only what its seal names is still needed; genesis is kept for ever.
    pub(super) fn seal(&mut self, seal: Arc<Seal>, forget_before: u64) {
        self.messages.retain(|kept| {
            let round = kept.step.round();
            (round == 0 || round >= forget_before) && (kept.step != seal.step || seal.ids.contains(&kept.id()))
        });
        self.checkpoints.retain(|round, _| *round > seal.step.round());
        self.seals.retain(|step, _| step.round() == 0 || step.round() >= forget_before);
        self.seals.insert(seal.step, seal);
    }

    /// What the node finds when it starts again.
    pub(super) fn saved(&self) -> Saved {
        Saved {
            messages: self.messages.iter().map(|message| message.bytes.clone()).collect(),
            checkpoints: self.checkpoints.values().map(|checkpoint| (**checkpoint).clone()).collect(),
            seals: self.seals.values().map(|seal| (**seal).clone()).collect(),
            ..Saved::default()
        }
    }
}
