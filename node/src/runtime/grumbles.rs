//! How much the log is told of misbehaviour.

use heterotune_crypto::NodeId;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Complaints in the log, of one peer in one minute. What a peer gets refused beyond that is not worth the disk.
const GRUMBLES_A_MINUTE: u32 = 20;

/// How much the log has been told of whose misbehaviour.
#[derive(Default)]
pub(super) struct Grumbles {
    minute: Option<Instant>,
    /// By member; strangers share one count.
    told: BTreeMap<Option<NodeId>, u32>,
}

impl Grumbles {
    /// Whether there is room for one more.
    pub(super) fn allow(&mut self, who: Option<NodeId>) -> bool {
        if self.minute.is_none_or(|minute| minute.elapsed() > Duration::from_secs(60)) {
            self.minute = Some(Instant::now());
            self.told.clear();
        }
        let told = self.told.entry(who).or_default();
        *told = told.saturating_add(1);
        *told <= GRUMBLES_A_MINUTE
    }
}
