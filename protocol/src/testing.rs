//! What this crate's tests share.

use crate::charter::{Anchors, Charter, Task};
use heterotune_crypto::{Digest, Identity};

/// The identity of test node `index`.
pub(crate) fn identity(index: usize) -> Identity {
    Identity::from_seed(7, &format!("node{index}"))
}

/// A small charter for `founders` nodes.
pub(crate) fn charter(founders: usize) -> Charter {
    let keys = (0..founders).map(|index| identity(index).id()).collect();
    let labels = (0..3).map(|label| label.to_string()).collect();
    let mut charter =
        Charter::new("test", keys, Task::ImageClassification { labels }, Anchors { digest: Digest::ZERO, count: 12 });
    charter.adapter.slots = 1;
    charter.adapter.branches = 2;
    charter.adapter.rank = 3;
    charter.adapter.readout_rank = 4;
    charter.rounds.total = 3;
    charter.rounds.deadline_ms = 10_000;
    charter
}
