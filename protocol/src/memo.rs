//! A memory of messages that verified, for processes that hold many nodes of one network.

use crate::message::Message;
use heterotune_crypto::Digest;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError, RwLock},
};

/// Messages that verified under one context, by the digest of their bytes. The same bytes verify again, so a node may
/// take another node's word for it, and share its copy. Bounded: the oldest go first.
#[derive(Debug)]
pub struct Memo {
    messages_max: usize,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    messages: BTreeMap<Digest, Arc<Message>>,
    order: VecDeque<Digest>,
}

impl Memo {
    /// An empty memory for at most `messages_max` messages.
    pub fn new(messages_max: usize) -> Self {
        Self { messages_max, inner: RwLock::default() }
    }

    fn key(bytes: &[u8]) -> Digest {
        Digest::of("heterotune 2026 memo", &[bytes])
    }

    /// The message with these bytes, if it verified before.
    pub(crate) fn get(&self, bytes: &[u8]) -> Option<Arc<Message>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).messages.get(&Self::key(bytes)).cloned()
    }

    /// Remembers a message that has verified.
    pub(crate) fn put(&self, message: &Arc<Message>) {
        let key = Self::key(&message.bytes);
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.messages.insert(key, message.clone()).is_none() {
            inner.order.push_back(key);
        }
        while inner.order.len() > self.messages_max {
            if let Some(oldest) = inner.order.pop_front() {
                inner.messages.remove(&oldest);
            }
        }
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
        let head = Head { step: Step::Round(1), closed: Digest::ZERO, state: Digest::ZERO };
        Arc::new(context.say(&identity(0), Digest::ZERO, 1, sequence, Content::Head(head)).unwrap())
    }

    #[test]
    fn it_holds_the_newest() {
        let context = Context::new(charter(3)).unwrap();
        let memo = Memo::new(2);
        let heads: Vec<_> = (0..3).map(|sequence| head(&context, sequence)).collect();
        heads.iter().for_each(|head| memo.put(head));
        memo.put(&heads[2]);
        let held = heads.iter().map(|head| memo.get(&head.bytes).is_some());
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
