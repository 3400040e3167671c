//! A node's disk: what survives a crash.

use heterotune_protocol::{
    limits,
    message::Message,
    round::{Checkpoint, Saved},
};
use std::{collections::BTreeMap, sync::Arc};

/// What a node has kept, shared with all that hold the same.
#[derive(Default)]
pub(super) struct Disk {
    messages: Vec<Arc<Message>>,
    checkpoints: BTreeMap<u64, Arc<Checkpoint>>,
}

impl Disk {
    pub(super) fn keep(&mut self, message: Arc<Message>) {
        self.messages.push(message);
    }

    pub(super) fn forget(&mut self, message: &Message) {
        self.messages.retain(|kept| kept.bytes != message.bytes);
    }

    /// Messages of genesis are kept for ever.
    pub(super) fn checkpoint(&mut self, checkpoint: Arc<Checkpoint>, forget_before: u64) {
        let oldest = checkpoint.round.saturating_sub(limits::HORIZON_MAX);
        self.checkpoints.retain(|round, _| *round >= oldest);
        self.checkpoints.insert(checkpoint.round, checkpoint);
        self.messages.retain(|kept| kept.round == 0 || kept.round >= forget_before);
    }

    /// What the node finds when it starts again.
    pub(super) fn saved(&self) -> Saved {
        Saved {
            messages: self.messages.iter().map(|message| message.bytes.clone()).collect(),
            checkpoints: self.checkpoints.values().map(|checkpoint| (**checkpoint).clone()).collect(),
        }
    }
}
