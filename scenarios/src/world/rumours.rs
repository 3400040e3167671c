//! Gossip under way, and who has heard it: the duplicate caches of all nodes, a bit a node and message.

use super::tally::Traffic;
use heterotune_crypto::Digest;
use heterotune_protocol::round::Now;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A message on its way; all its copies share it.
pub(super) struct Rumour {
    pub(super) bytes: Vec<u8>,
    /// Heads are for the speaker's own peers alone.
    pub(super) traffic: Traffic,
    /// A bit a node. Every node touches only its own, so that threads change nothing.
    heard: Box<[AtomicU64]>,
}

impl Rumour {
    /// For the speaker's own peers, who hear it once.
    pub(super) fn local(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { bytes, traffic: Traffic::Heads, heard: Box::default() })
    }

    /// Whether `node` has not heard it before. Now it has.
    pub(super) fn is_news_to(&self, node: u32) -> bool {
        let bit = 1 << (node % 64);
        self.heard.get(node as usize / 64).is_none_or(|word| word.fetch_or(bit, Relaxed) & bit == 0)
    }

    fn forgotten_by(&self, node: u32) {
        if let Some(word) = self.heard.get(node as usize / 64) {
            word.fetch_and(!(1 << (node % 64)), Relaxed);
        }
    }
}

/// The rumours of a world, by their content: the same bytes said again are the same rumour.
pub(super) struct Rumours {
    nodes: usize,
    /// With the moment when each was said first.
    all: Mutex<BTreeMap<Digest, (Now, Arc<Rumour>)>>,
}

impl Rumours {
    pub(super) fn new(nodes: usize) -> Self {
        Self { nodes, all: Mutex::default() }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, (Now, Arc<Rumour>)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rumour with this content.
    pub(super) fn say(&self, bytes: Vec<u8>, traffic: Traffic, now: Now) -> Arc<Rumour> {
        let words = self.nodes.div_ceil(64);
        let make = |bytes| {
            let heard = (0..words).map(|_| AtomicU64::new(0)).collect();
            (now, Arc::new(Rumour { bytes, traffic, heard }))
        };
        let key = Digest::of("heterotune 2026 rumour", &[&bytes]);
        let mut all = self.all();
        let (born, rumour) = all.entry(key).or_insert_with(|| make(bytes));
        // Whichever thread came first.
        *born = now.min(*born);
        rumour.clone()
    }

    /// A node has lost its memory.
    pub(super) fn forgotten_by(&self, node: u32) {
        self.all().values().for_each(|(_, rumour)| rumour.forgotten_by(node));
    }

    /// Duplicate caches hold what was said since `first`.
    pub(super) fn forget_before(&self, first: Now) {
        self.all().retain(|_, (born, _)| *born >= first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_hears_it_once() {
        let rumours = Rumours::new(70);
        let say = |now| rumours.say(vec![1], Traffic::Contributions, now);
        let rumour = say(5);
        assert!(rumour.is_news_to(69) && !rumour.is_news_to(69) && rumour.is_news_to(5));
        assert!(!say(6).is_news_to(5), "the same content, another rumour");
        rumours.forgotten_by(69);
        assert!(rumour.is_news_to(69) && !rumour.is_news_to(5));
        rumours.forget_before(6);
        assert!(say(7).is_news_to(5));
    }
}
