//! What happens to nodes, and when.

use super::rumours::Rumour;
use heterotune_protocol::round::Now;
use std::sync::Arc;

/// Something that is to happen to a node.
pub(super) struct Errand {
    pub(super) at: Now,
    pub(super) to: u32,
    pub(super) what: Happening,
}

/// Something that happens to a node. What ends with its life carries the number of that life. Gossip is by far the
/// most; everything else is kept as small.
pub(super) enum Happening {
    /// It starts, for the first time or again.
    Wake,
    /// It may fall.
    Fate,
    /// The mesh has changed.
    Relink,
    /// Time has passed.
    Tick { life: u32 },
    /// Its trainer is done.
    Trained { life: u32 },
    /// A computation is done.
    Computed { life: u32 },
    /// A question has had its time.
    Timeout { question: u32 },
    /// A peer calls.
    Dial { from: u32 },
    /// A peer takes its call.
    Dialled { from: u32 },
    /// A peer is gone.
    HungUp { from: u32 },
    /// A rumour.
    Gossip { from: u32, rumour: Arc<Rumour> },
    /// A peer asks.
    Question { from: u32, letter: Box<Letter> },
    /// A peer answers.
    Answer { from: u32, letter: Box<Letter> },
}

impl Happening {
    /// The node that it comes from, if it comes from another.
    pub(super) fn from(&self) -> Option<u32> {
        match self {
            Happening::Dial { from }
            | Happening::Dialled { from }
            | Happening::HungUp { from }
            | Happening::Gossip { from, .. }
            | Happening::Question { from, .. }
            | Happening::Answer { from, .. } => Some(*from),
            _ => None,
        }
    }
}

/// A question or its answer, as it travels.
pub(super) struct Letter {
    /// The asker's number for it.
    pub(super) question: u32,
    /// A `Request` or `Response`.
    pub(super) bytes: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Millions of them are under way at once.
    #[test]
    fn an_errand_is_small() {
        assert!(size_of::<Errand>() <= 32, "{}", size_of::<Errand>());
    }
}
