//! Self-attention in which every token sees all tokens of its input. Encoders and vision transformers share it.

use super::Source;
use crate::ops::{Attention, Inner, SelfAttention};

/// The maps named `query`, `key`, `value` and `output`, all from `width` to `width`; the first three have a bias where
/// `bias` says so.
pub(super) fn assemble<S: Source>(
    source: &mut S,
    [query, key, value, output]: [String; 4],
    (width, heads): (usize, usize),
    bias: bool,
) -> Result<Inner, S::Error> {
    let size = width / heads;
    Ok(Inner::Attention(SelfAttention {
        heads,
        groups: heads,
        size,
        query: source.linear(&query, width, width, bias)?,
        key: source.linear(&key, width, width, bias)?,
        value: source.linear(&value, width, width, bias)?,
        norms: None,
        rotary: None,
        attention: Attention { scale: (size as f32).powf(-0.5), ..Attention::default() },
        output: source.linear(&output, width, width, true)?,
    }))
}
