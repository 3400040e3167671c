//! A memory of what verified, for processes that hold many nodes of one network.

use crate::message::Message;
use heterotune_crypto::{Digest, NodeId};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Messages and votes that verified under one context, by the digest of their bytes, and sets that were drawn. The same
/// bytes verify again, so a node may take another node's word for it, and share its copy. Bounded: the oldest go first.
#[derive(Debug)]
pub struct Memo {
    messages_max: usize,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    messages: BTreeMap<Digest, Arc<Message>>,
    order: VecDeque<Digest>,
    ballots: BTreeSet<Digest>,
    draws: BTreeMap<Digest, Arc<BTreeSet<NodeId>>>,
}

impl Memo {
    /// An empty memory for at most `messages_max` messages, votes, and draws each.
    pub fn new(messages_max: usize) -> Self {
        Self { messages_max, inner: RwLock::default() }
    }

    fn key(bytes: &[u8]) -> Digest {
        Digest::of("heterotune 2026 memo", &[bytes])
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The message with these bytes, if it verified before.
    pub(crate) fn message(&self, bytes: &[u8]) -> Option<Arc<Message>> {
        self.read().messages.get(&Self::key(bytes)).cloned()
    }

    /// Remembers a message that has verified.
    pub(crate) fn keep(&self, message: &Arc<Message>) {
        let key = Self::key(&message.bytes);
        let mut inner = self.write();
        if inner.messages.insert(key, message.clone()).is_none() {
            inner.order.push_back(key);
        }
        while inner.order.len() > self.messages_max {
            if let Some(oldest) = inner.order.pop_front() {
                inner.messages.remove(&oldest);
            }
        }
    }

    /// Whether `check` holds for the vote with this `key`; where there is a memory, asked until it once did.
    pub(crate) fn once(memo: Option<&Self>, key: &[&[u8]], check: impl FnOnce() -> bool) -> bool {
        let Some(memo) = memo else { return check() };
        let key = Digest::of("heterotune 2026 memo of ballots", key);
        if memo.read().ballots.contains(&key) {
            return true;
        }
        let holds = check();
        if holds {
            let mut inner = memo.write();
            if inner.ballots.len() >= memo.messages_max {
                inner.ballots.clear();
            }
            inner.ballots.insert(key);
        }
        holds
    }

    /// The set that `draw` gives for `key`.
    pub(crate) fn drawn(
        memo: Option<&Self>,
        key: Digest,
        draw: impl FnOnce() -> BTreeSet<NodeId>,
    ) -> Arc<BTreeSet<NodeId>> {
        let Some(memo) = memo else { return Arc::new(draw()) };
        if let Some(drawn) = memo.read().draws.get(&key) {
            return drawn.clone();
        }
        let drawn = Arc::new(draw());
        let mut inner = memo.write();
        if inner.draws.len() >= memo.messages_max {
            inner.draws.clear();
        }
        inner.draws.insert(key, drawn.clone());
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message::{Content, Context, Head, Opened, Step},
        testing::{charter, identity},
        verdict::Reason,
    };

    fn head(context: &Context, sequence: u64) -> Arc<Message> {
        let step = Step::Round(1);
        let head = Head { unsealed: step, sets: Digest::ZERO, state: Digest::ZERO };
        Arc::new(context.say(&identity(0), Digest::ZERO, step, sequence, Content::Head(head)).unwrap())
    }

    #[test]
    fn it_holds_the_newest() {
        let context = Context::new(charter(3)).unwrap();
        let memo = Memo::new(2);
        let heads: Vec<_> = (0..3).map(|sequence| head(&context, sequence)).collect();
        heads.iter().for_each(|head| memo.keep(head));
        memo.keep(&heads[2]);
        let held = heads.iter().map(|head| memo.message(&head.bytes).is_some());
        assert_eq!(held.collect::<Vec<_>>(), [false, true, true]);
    }

    /// Verified once, shared ever after; one bit more or less, and it is checked again.
    #[test]
    fn only_the_same_bytes_are_believed() {
        let context = Context::new(charter(3)).unwrap().with_memo(Memo::new(8));
        let said = head(&context, 1);
        let read = |bytes: &[u8]| context.verify_opened(context.open_or_recall(bytes)?, bytes);
        assert!(matches!(context.open_or_recall(&said.bytes), Ok(Opened::New(_))));
        let first = read(&said.bytes).unwrap();
        assert!(Arc::ptr_eq(&first, &read(&said.bytes).unwrap()));
        let mut forged = said.bytes.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!((0..2).all(|_| matches!(read(&forged), Err(Reason::Forged))));
    }
}
