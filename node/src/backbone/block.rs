//! A transformer block, as all families have it: attention, then the feed-forward layer.

use super::decoder::Past;
use crate::ops::{Inner, Sublayer};
use candle_core::{Result as Computed, Tensor};
use std::sync::Arc;

/// The two halves.
pub(super) struct Block {
    pub(super) attention: Sublayer,
    pub(super) feed: Sublayer,
}

impl Block {
    /// `[n, tokens, d]` to the same. Of an input that has a length, only so many tokens are seen.
    pub(super) fn forward(&self, hidden: &Tensor, lengths: Option<&Arc<[usize]>>) -> Computed<Tensor> {
        self.feed.forward(&self.attention.forward(hidden, lengths)?, None)
    }

    /// The same for tokens that come after those of `past`, in which this block has number `index`.
    pub(super) fn forward_after(&self, hidden: &Tensor, index: usize, past: &mut Past) -> Computed<Tensor> {
        let Inner::Attention(attention) = &self.attention.inner else { return self.forward(hidden, None) };
        let hidden = self.attention.around(hidden, |x| {
            let [query, key, value] = attention.project(x, past.tokens(index))?;
            let (key, value) = past.extend(index, &key, &value)?;
            attention.attend(&query, &key, &value, None)
        })?;
        self.feed.forward(&hidden, None)
    }
}
