//! Scaled dot-product attention (<https://arxiv.org/abs/1706.03762>) as one operation. Its weights are never kept: the
//! backward pass makes them again, some queries at a time.

use super::{
    product::{Into, View, multiply},
    values,
    vector::{dot, exp, largest, sum, tanh, wide},
    with_values,
};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::{ops::Range, sync::Arc};

/// Queries of one head whose weights are in memory together.
const TILE: usize = 128;

/// What a query sees, and what becomes of its scores. By its `Default`, everything and nothing; the scale is 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// What the products of queries and keys are multiplied by, most often 1 / sqrt(d).
    pub scale: f32,
    /// Whether a query sees no key behind its own place. The last query stands at the last key's place.
    pub causal: bool,
    /// Of the keys up to its own, a query sees only so many; without `causal` it has no meaning.
    pub window: Option<usize>,
    /// A score s becomes softcap tanh(s / softcap).
    pub softcap: Option<f32>,
}

impl Default for Attention {
    fn default() -> Self {
        Self { scale: 1.0, causal: false, window: None, softcap: None }
    }
}

impl Attention {
    /// Every query's mean of the values, weighted by the softmax of its scores: from `query` `[n, queries, heads, d]`
    /// and `key` and `value` `[n, keys, groups, d]` to `[n, queries, heads, d]`. Heads share keys in `groups`
    /// (<https://arxiv.org/abs/2305.13245>). Of input i, only the first `lengths[i]` keys count, all where there are no
    /// lengths. A query that sees nothing gets zeros.
    ///
    /// # Errors
    /// Shapes that do not fit each other; values that are not f32 in main memory.
    pub fn forward(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        lengths: Option<&Arc<[usize]>>,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if query.device().is_cuda() {
            // There products go head by head.
            let by_head = |x: &Tensor| x.transpose(1, 2)?.contiguous();
            let all = [&by_head(query)?, &by_head(key)?, &by_head(value)?];
            return super::cuda::attention(self, all, lengths)?.transpose(1, 2)?.contiguous();
        }
        let op = Heads { options: *self, lengths: lengths.cloned() };
        query.contiguous()?.apply_op3(&key.contiguous()?, &value.contiguous()?, op)
    }
}

/// The operation, on plain values.
pub(super) struct Heads {
    pub(super) options: Attention,
    pub(super) lengths: Option<Arc<[usize]>>,
}

#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) inputs: usize,
    pub(super) heads: usize,
    pub(super) groups: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    /// Values of a head.
    pub(super) width: usize,
}

impl Sizes {
    fn new(query: &[usize], key: &[usize], value: &[usize]) -> Result<Self> {
        match (query, key) {
            (&[inputs, queries, heads, width], &[inputs_of_keys, keys, groups, width_of_keys])
                if key == value
                    && (inputs, width) == (inputs_of_keys, width_of_keys)
                    && groups > 0
                    && heads.is_multiple_of(groups)
                    && [inputs, heads, queries, width, keys].iter().all(|size| *size > 0) =>
            {
                Ok(Self { inputs, heads, groups, queries, keys, width })
            }
            _ => bail!("queries {query:?}, keys {key:?} and values {value:?} do not fit each other"),
        }
    }

    /// Values of all heads of a query.
    fn of_query(self) -> usize {
        self.heads * self.width
    }

    /// Values of all groups of a key.
    fn of_key(self) -> usize {
        self.groups * self.width
    }

    /// Values of an input's queries.
    fn of_queries(self) -> usize {
        self.queries * self.of_query()
    }

    /// Values of an input's keys.
    fn of_keys(self) -> usize {
        self.keys * self.of_key()
    }

    /// The group whose keys a head sees.
    fn group(self, head: usize) -> usize {
        head / (self.heads / self.groups)
    }
}

/// Some queries, and the keys that any of them sees.
struct Tile {
    queries: Range<usize>,
    keys: Range<usize>,
}

/// One input's queries (or what is shaped like them), keys and values.
#[derive(Clone, Copy)]
struct Input<'a> {
    sizes: Sizes,
    index: usize,
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
}

impl<'a> Input<'a> {
    fn new(sizes: Sizes, index: usize, [query, key, value]: [&'a [f32]; 3]) -> Self {
        let part = |all: &'a [f32], size: usize| all.get(index * size..(index + 1) * size).unwrap_or_default();
        let (key, value) = (part(key, sizes.of_keys()), part(value, sizes.of_keys()));
        Self { sizes, index, query: part(query, sizes.of_queries()), key, value }
    }

    /// A head's rows of a tile's queries, in what is shaped like them.
    fn of_queries(self, all: &'a [f32], tile: &Tile, head: usize) -> View<'a> {
        rows(all, &tile.queries, self.sizes.of_query(), head, self.sizes.width)
    }

    fn of_keys(self, all: &'a [f32], tile: &Tile, head: usize) -> View<'a> {
        rows(all, &tile.keys, self.sizes.of_key(), self.sizes.group(head), self.sizes.width)
    }
}

/// Rows that are `step` values apart, of each the part with this number.
fn rows<'a>(all: &'a [f32], rows: &Range<usize>, step: usize, part: usize, width: usize) -> View<'a> {
    View::columns(all.get(rows.start * step + part * width..).unwrap_or_default(), rows.len(), width, step)
}

/// The same to be written to.
fn rows_mut(all: &mut [f32], first: usize, step: usize, part: usize, width: usize) -> (&mut [f32], usize) {
    (all.get_mut(first * step + part * width..).unwrap_or_default(), step)
}

/// Memory for one tile after another.
#[derive(Default)]
struct Scratch {
    weights: Vec<f32>,
    /// With a softcap, the scores before the softmax.
    scores: Vec<f32>,
    gradients: Vec<f32>,
}

impl Heads {
    /// What the queries get, `[inputs, queries, heads, width]`, from queries, keys and values.
    pub(super) fn forward(&self, sizes: Sizes, all: [&[f32]; 3]) -> Result<Vec<f32>> {
        let mut y = vec![0f32; sizes.inputs * sizes.of_queries()];
        y.par_chunks_mut(sizes.of_queries()).enumerate().try_for_each(|(index, y)| {
            let input = Input::new(sizes, index, all);
            let tiles = y.par_chunks_mut(TILE * sizes.of_query()).enumerate();
            tiles.try_for_each(|(tile, y)| self.attend(input, &self.tile(sizes, index, tile), y))
        })?;
        Ok(y)
    }

    /// The gradients of queries, keys and values, by that of what the queries got.
    pub(super) fn backward(&self, sizes: Sizes, all: [&[f32]; 3], outer: &[f32]) -> Result<[Vec<f32>; 3]> {
        let [mut dquery, mut dkey, mut dvalue] = all.map(|values| vec![0f32; values.len()]);
        dquery
            .par_chunks_mut(sizes.of_queries())
            .zip(dkey.par_chunks_mut(sizes.of_keys()))
            .zip(dvalue.par_chunks_mut(sizes.of_keys()))
            .zip(outer.par_chunks(sizes.of_queries()))
            .enumerate()
            .try_for_each(|(index, (((dquery, dkey), dvalue), outer))| {
                self.differentiate(Input::new(sizes, index, all), outer, [dquery, dkey, dvalue])
            })?;
        Ok([dquery, dkey, dvalue])
    }

    fn tiles(&self, sizes: Sizes, input: usize) -> impl Iterator<Item = Tile> {
        (0..sizes.queries.div_ceil(TILE)).map(move |tile| self.tile(sizes, input, tile))
    }

    fn tile(&self, sizes: Sizes, input: usize, tile: usize) -> Tile {
        let queries = tile * TILE..sizes.queries.min((tile + 1) * TILE);
        let keys = self.seen(sizes, input, queries.start).start..self.seen(sizes, input, queries.end - 1).end;
        Tile { queries, keys }
    }

    /// The keys that a query sees.
    fn seen(&self, sizes: Sizes, input: usize, query: usize) -> Range<usize> {
        let own = self.lengths.as_ref().and_then(|lengths| lengths.get(input)).map_or(sizes.keys, |own| *own);
        let own = own.min(sizes.keys);
        if !self.options.causal {
            return 0..own;
        }
        // Keys before the first query are those of a past.
        let end = (sizes.keys + query + 1).saturating_sub(sizes.queries);
        let start = self.options.window.map_or(0, |window| end.saturating_sub(window));
        let end = end.min(own);
        start.min(end)..end
    }

    /// The weights of a tile's queries `[queries, keys]`, into the scratch.
    fn weigh(&self, input: Input<'_>, tile: &Tile, head: usize, scratch: &mut Scratch) -> Result<()> {
        let (sizes, columns) = (input.sizes, tile.keys.len());
        scratch.weights.resize(tile.queries.len() * columns, 0.0);
        let (query, key) = (input.of_queries(input.query, tile, head), input.of_keys(input.key, tile, head));
        multiply((&mut scratch.weights, columns), Into::Set, query, key.t(), false)?;
        if let Some(cap) = self.options.softcap {
            let factor = self.options.scale / cap;
            wide(|| scratch.weights.iter_mut().for_each(|score| *score = cap * tanh(*score * factor)));
            scratch.scores.clone_from(&scratch.weights);
        }
        let scale = if self.options.softcap.is_some() { 1.0 } else { self.options.scale };
        for (row, query) in scratch.weights.chunks_exact_mut(columns).zip(tile.queries.clone()) {
            let seen = self.seen(sizes, input.index, query);
            softmax(row, scale, seen.start - tile.keys.start..seen.end - tile.keys.start);
        }
        Ok(())
    }

    /// What some queries get, into `y`, which begins at the first of them.
    fn attend(&self, input: Input<'_>, tile: &Tile, y: &mut [f32]) -> Result<()> {
        let (sizes, mut scratch) = (input.sizes, Scratch::default());
        if tile.keys.is_empty() {
            return Ok(());
        }
        for head in 0..sizes.heads {
            self.weigh(input, tile, head, &mut scratch)?;
            let weights = View::new(&scratch.weights, tile.queries.len(), tile.keys.len());
            let value = input.of_keys(input.value, tile, head);
            multiply(rows_mut(y, 0, sizes.of_query(), head, sizes.width), Into::Set, weights, value, false)?;
        }
        Ok(())
    }

    /// The gradients of one input's queries, keys and values. With g the gradient of the result and w the weights, those
    /// of the scores are w (g v^T - sum(w g v^T)).
    fn differentiate(&self, input: Input<'_>, outer: &[f32], gradients: [&mut [f32]; 3]) -> Result<()> {
        let (sizes, mut scratch) = (input.sizes, Scratch::default());
        let [dquery, dkey, dvalue] = gradients;
        let (of_query, of_key, width) = (sizes.of_query(), sizes.of_key(), sizes.width);
        for tile in self.tiles(sizes, input.index).filter(|tile| !tile.keys.is_empty()) {
            for head in 0..sizes.heads {
                self.weigh(input, &tile, head, &mut scratch)?;
                let (first, group) = (tile.keys.start, sizes.group(head));
                let (query, outer) = (input.of_queries(input.query, &tile, head), input.of_queries(outer, &tile, head));
                let (key, value) = (input.of_keys(input.key, &tile, head), input.of_keys(input.value, &tile, head));
                let columns = tile.keys.len();
                scratch.gradients.resize(tile.queries.len() * columns, 0.0);
                multiply((&mut scratch.gradients, columns), Into::Set, outer, value.t(), false)?;
                self.through_softmax(&mut scratch, columns);
                let weights = View::new(&scratch.weights, tile.queries.len(), columns);
                let scores = View::new(&scratch.gradients, tile.queries.len(), columns);
                multiply(rows_mut(dvalue, first, of_key, group, width), Into::Add, weights.t(), outer, false)?;
                multiply(rows_mut(dkey, first, of_key, group, width), Into::Add, scores.t(), query, false)?;
                let to = rows_mut(dquery, tile.queries.start, of_query, head, width);
                multiply(to, Into::Set, scores, key, false)?;
            }
        }
        Ok(())
    }

    /// From the gradients of weights to those of the plain products, in place.
    fn through_softmax(&self, scratch: &mut Scratch, columns: usize) {
        let Scratch { weights, scores, gradients } = scratch;
        for (gradient, weights) in gradients.chunks_exact_mut(columns).zip(weights.chunks_exact(columns)) {
            wide(|| {
                let mean = dot(gradient, weights);
                gradient.iter_mut().zip(weights).for_each(|(g, w)| *g = self.options.scale * w * (*g - mean));
            });
        }
        if let Some(cap) = self.options.softcap {
            gradients.iter_mut().zip(scores).for_each(|(g, score)| *g *= 1.0 - (*score / cap) * (*score / cap));
        }
    }
}

/// Softmax over a part of a row times `scale`, in place; the rest becomes 0.
fn softmax(row: &mut [f32], scale: f32, part: Range<usize>) {
    let (before, rest) = row.split_at_mut(part.start);
    let (row, after) = rest.split_at_mut(part.len());
    before.fill(0.0);
    after.fill(0.0);
    wide(|| {
        let largest = largest(row);
        row.iter_mut().for_each(|value| *value = exp((*value - largest) * scale));
        let inverse = 1.0 / sum(row);
        row.iter_mut().for_each(|value| *value *= inverse);
    });
}

impl CustomOp3 for Heads {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        query: &CpuStorage,
        query_layout: &Layout,
        key: &CpuStorage,
        key_layout: &Layout,
        value: &CpuStorage,
        value_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::new(query_layout.dims(), key_layout.dims(), value_layout.dims())?;
        let all = [values(query, query_layout)?, values(key, key_layout)?, values(value, value_layout)?];
        Ok((CpuStorage::F32(self.forward(sizes, all)?), query_layout.shape().clone()))
    }

    fn bwd(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = Sizes::new(query.dims(), key.dims(), value.dims())?;
        let [dquery, dkey, dvalue] = with_values(query, |query| {
            with_values(key, |key| {
                with_values(value, |value| {
                    with_values(gradient, |outer| self.backward(sizes, [query, key, value], outer))
                })
            })
        })?;
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device()).map(Some);
        Ok((tensor(dquery, query)?, tensor(dkey, key)?, tensor(dvalue, value)?))
    }
}

#[cfg(test)]
mod tests;
