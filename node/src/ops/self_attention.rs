//! Attention of a text's (or an image's) tokens to each other, with the maps before and behind it.

use super::{
    Attention, Linear, RmsNorm, Rotary,
    attention::{Heads, Sizes},
    linear::Map,
};
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// output(attention(query(x), key(x), value(x))). <https://arxiv.org/abs/1706.03762>
#[derive(Clone, Debug)]
pub struct SelfAttention {
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values (<https://arxiv.org/abs/2305.13245>).
    pub groups: usize,
    /// Values of a head.
    pub size: usize,
    /// From `[d]` to all heads' queries.
    pub query: Linear,
    /// From `[d]` to all groups' keys.
    pub key: Linear,
    /// From `[d]` to all groups' values.
    pub value: Linear,
    /// Norms of every head's queries and keys.
    pub norms: Option<(RmsNorm, RmsNorm)>,
    /// The rotation of queries and keys by their places.
    pub rotary: Option<Rotary>,
    /// What a query sees.
    pub attention: Attention,
    /// From all heads to `[d]`.
    pub output: Linear,
}

impl SelfAttention {
    /// `[n, tokens, d]` to the same. Of input i, only the first `lengths[i]` tokens are seen, all where there are no
    /// lengths.
    ///
    /// # Errors
    /// Another width.
    pub fn forward(&self, x: &Tensor, lengths: Option<&Arc<[usize]>>) -> Result<Tensor> {
        let [query, key, value] = self.project(x, 0)?;
        self.attend(&query, &key, &value, lengths)
    }

    /// Queries `[n, tokens, heads, size]`, keys and values `[n, tokens, groups, size]` of tokens `[n, tokens, d]`, the
    /// first of which stands at place `first`.
    ///
    /// # Errors
    /// Another width.
    pub fn project(&self, x: &Tensor, first: usize) -> Result<[Tensor; 3]> {
        let (inputs, tokens, _) = x.dims3()?;
        let split = |map: &Linear, heads| map.forward(x)?.reshape((inputs, tokens, heads, self.size));
        let (mut query, mut key) = (split(&self.query, self.heads)?, split(&self.key, self.groups)?);
        if let Some((of_query, of_key)) = &self.norms {
            (query, key) = (of_query.forward(&query)?, of_key.forward(&key)?);
        }
        if let Some(rotary) = &self.rotary {
            (query, key) = (rotary.forward(&query, first)?, rotary.forward(&key, first)?);
        }
        Ok([query, key, split(&self.value, self.groups)?])
    }

    /// What tokens get, `[n, queries, d]`, from what [`SelfAttention::project`] makes of them and of those before them.
    ///
    /// # Errors
    /// Shapes that do not fit each other.
    pub fn attend(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        lengths: Option<&Arc<[usize]>>,
    ) -> Result<Tensor> {
        let (inputs, tokens, heads, size) = query.dims4()?;
        let seen = self.attention.forward(query, key, value, lengths)?;
        self.output.forward(&seen.reshape((inputs, tokens, heads * size))?)
    }

    /// The layer on plain values; none where it is trained.
    pub(super) fn maps(&self) -> Option<Maps<'_>> {
        let trained = self.norms.as_ref().is_some_and(|(query, key)| query.is_trained() || key.is_trained());
        let maps = [self.query.map()?, self.key.map()?, self.value.map()?];
        let output = self.output.map()?;
        (!trained).then_some(Maps { layer: self, maps, output })
    }
}

/// What a layer leaves for the way back.
#[derive(Default)]
pub(super) struct Kept {
    /// Queries, keys and values as they meet.
    heads: [Vec<f32>; 3],
    /// Queries and keys before their norms.
    before: Option<[Vec<f32>; 2]>,
}

/// A layer in which everything is frozen.
pub(super) struct Maps<'a> {
    layer: &'a SelfAttention,
    /// Of queries, keys and values.
    maps: [Map<'a>; 3],
    output: Map<'a>,
}

impl Maps<'_> {
    /// From `[inputs, tokens, d]` to the same; what it leaves is empty unless it `keeps`.
    pub(super) fn forward(
        &self,
        x: &[f32],
        (inputs, tokens): (usize, usize),
        lengths: Option<&Arc<[usize]>>,
        keeps: bool,
    ) -> Result<(Vec<f32>, Kept)> {
        let [query, key, value] = self.maps;
        let (mut query, mut key, value) = (query.apply(x)?, key.apply(x)?, value.apply(x)?);
        let mut before = None;
        if let Some((of_query, of_key)) = &self.layer.norms {
            let raw = [query, key];
            (query, key) = (of_query.apply(&raw[0])?, of_key.apply(&raw[1])?);
            before = keeps.then_some(raw);
        }
        self.turn([&mut query, &mut key], (inputs, tokens), false)?;
        let heads = [query, key, value];
        let seen = self.heads(lengths).forward(self.sizes(inputs, tokens), heads.each_ref().map(Vec::as_slice))?;
        let y = self.output.apply(&seen)?;
        Ok((y, if keeps { Kept { heads, before } } else { Kept::default() }))
    }

    /// The gradient of `[inputs, tokens, d]` by that of what came out.
    pub(super) fn backward(
        &self,
        Kept { heads, before }: Kept,
        (inputs, tokens): (usize, usize),
        lengths: Option<&Arc<[usize]>>,
        gradient: &[f32],
    ) -> Result<Vec<f32>> {
        let outer = self.output.back(gradient)?;
        let all = heads.each_ref().map(Vec::as_slice);
        let [mut query, mut key, value] = self.heads(lengths).backward(self.sizes(inputs, tokens), all, &outer)?;
        drop((outer, heads));
        self.turn([&mut query, &mut key], (inputs, tokens), true)?;
        if let (Some((of_query, of_key)), Some([raw_query, raw_key])) = (&self.layer.norms, before) {
            (query, key) = (of_query.back(&raw_query, &query)?, of_key.back(&raw_key, &key)?);
        }
        let [of_query, of_key, of_value] = self.maps;
        let mut dx = of_query.back(&query)?;
        of_key.apply_back(&key, &mut dx, true)?;
        of_value.apply_back(&value, &mut dx, true)?;
        Ok(dx)
    }

    fn sizes(&self, inputs: usize, tokens: usize) -> Sizes {
        let SelfAttention { heads, groups, size, .. } = *self.layer;
        Sizes { inputs, heads, groups, queries: tokens, keys: tokens, width: size }
    }

    fn heads(&self, lengths: Option<&Arc<[usize]>>) -> Heads {
        Heads { options: self.layer.attention, lengths: lengths.cloned() }
    }

    fn turn(&self, [query, key]: [&mut Vec<f32>; 2], (inputs, tokens): (usize, usize), back: bool) -> Result<()> {
        let (SelfAttention { heads, groups, size, .. }, Some(rotary)) = (self.layer, &self.layer.rotary) else {
            return Ok(());
        };
        rotary.turn(query, [inputs, tokens, *heads, *size], 0, back)?;
        rotary.turn(key, [inputs, tokens, *groups, *size], 0, back)
    }
}
