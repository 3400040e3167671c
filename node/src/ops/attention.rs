//! Scaled dot-product attention (<https://arxiv.org/abs/1706.03762>) as one operation. Its weights are never kept: the
//! backward pass makes them again, some queries at a time.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Storage, Tensor, backend::BackendStorage, bail};
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
    /// Every query's mean of the values, weighted by the softmax of its scores: from `query` `[n, heads, queries, d]`
    /// and `key` and `value` `[n, groups, keys, d]` to `[n, heads, queries, d]`. Heads share keys in `groups`
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
            return super::cuda::attention(self, [query, key, value], lengths);
        }
        let op = Op { options: *self, lengths: lengths.cloned() };
        query.contiguous()?.apply_op3(&key.contiguous()?, &value.contiguous()?, op)
    }
}

struct Op {
    options: Attention,
    lengths: Option<Arc<[usize]>>,
}

#[derive(Clone, Copy)]
struct Sizes {
    inputs: usize,
    heads: usize,
    groups: usize,
    queries: usize,
    keys: usize,
    width: usize,
}

impl Sizes {
    fn new(query: &[usize], key: &[usize], value: &[usize]) -> Result<Self> {
        match (query, key) {
            (&[inputs, heads, queries, width], &[inputs_of_keys, groups, keys, width_of_keys])
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

    /// Values of one head's queries.
    fn of_queries(self) -> usize {
        self.queries * self.width
    }

    /// Values of one group's keys.
    fn of_keys(self) -> usize {
        self.keys * self.width
    }

    /// Heads that share keys.
    fn shared(self) -> usize {
        self.heads / self.groups
    }
}

/// Some queries of a head, and the keys that any of them sees.
struct Tile {
    queries: Range<usize>,
    keys: Range<usize>,
}

/// A storage and where the values of interest begin in it.
#[derive(Clone, Copy)]
struct Source<'a> {
    storage: &'a CpuStorage,
    start: usize,
}

impl<'a> Source<'a> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        match layout.contiguous_offsets() {
            Some((start, _)) => Ok(Self { storage, start }),
            None => bail!("attention takes contiguous tensors only"),
        }
    }

    /// Rows of a matrix that begins at value `offset`.
    fn rows(self, offset: usize, rows: &Range<usize>, width: usize) -> Matrix<'a> {
        let start = self.start + offset + rows.start * width;
        Matrix { storage: self.storage, layout: Layout::contiguous_with_offset((rows.len(), width), start) }
    }
}

fn source<'a>(storage: &'a Storage, layout: &Layout) -> Result<Source<'a>> {
    match storage {
        Storage::Cpu(storage) => Source::new(storage, layout),
        _ => bail!("attention runs on the CPU only"),
    }
}

struct Matrix<'a> {
    storage: &'a CpuStorage,
    layout: Layout,
}

impl<'a> Matrix<'a> {
    fn whole(storage: &'a CpuStorage, rows: usize, columns: usize) -> Self {
        Self { storage, layout: Layout::contiguous((rows, columns)) }
    }

    fn transposed(self) -> Result<Self> {
        Ok(Self { layout: self.layout.transpose(0, 1)?, ..self })
    }

    fn times(&self, other: &Self) -> Result<Vec<f32>> {
        let ((rows, inner), (_, columns)) = (self.layout.shape().dims2()?, other.layout.shape().dims2()?);
        let product = self.storage.matmul(other.storage, (1, rows, columns, inner), &self.layout, &other.layout)?;
        match product {
            CpuStorage::F32(product) => Ok(product),
            _ => bail!("attention takes f32 only"),
        }
    }
}

impl Op {
    fn tiles(&self, sizes: Sizes, input: usize) -> impl Iterator<Item = Tile> {
        (0..sizes.queries).step_by(TILE).filter_map(move |first| {
            let queries = first..sizes.queries.min(first + TILE);
            let keys = self.seen(sizes, input, first).start..self.seen(sizes, input, queries.end - 1).end;
            (!keys.is_empty()).then_some(Tile { queries, keys })
        })
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

    /// The weights of a tile `[queries, keys]` and, with a softcap, the scores before the softmax.
    fn weights(
        &self,
        sizes: Sizes,
        input: usize,
        tile: &Tile,
        query: &Matrix<'_>,
        key: Matrix<'_>,
    ) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let mut weights = query.times(&key.transposed()?)?;
        weights.iter_mut().for_each(|score| *score *= self.options.scale);
        if let Some(cap) = self.options.softcap {
            weights.iter_mut().for_each(|score| *score = cap * (*score / cap).tanh());
        }
        let scores = self.options.softcap.map(|_| weights.clone());
        for (row, query) in weights.chunks_exact_mut(tile.keys.len()).zip(tile.queries.clone()) {
            let seen = self.seen(sizes, input, query);
            softmax(row, seen.start - tile.keys.start..seen.end - tile.keys.start);
        }
        Ok((weights, scores))
    }

    /// One head's result.
    fn head(&self, sizes: Sizes, head: usize, sources: [Source<'_>; 3], y: &mut [f32]) -> Result<()> {
        let [query, key, value] = sources;
        let (width, input, shared) = (sizes.width, head / sizes.heads, head / sizes.shared() * sizes.of_keys());
        for tile in self.tiles(sizes, input) {
            let query = query.rows(head * sizes.of_queries(), &tile.queries, width);
            let (weights, _) = self.weights(sizes, input, &tile, &query, key.rows(shared, &tile.keys, width))?;
            let weights = CpuStorage::F32(weights);
            let weights = Matrix::whole(&weights, tile.queries.len(), tile.keys.len());
            let mean = weights.times(&value.rows(shared, &tile.keys, width))?;
            y.iter_mut().skip(tile.queries.start * width).zip(mean).for_each(|(y, mean)| *y = mean);
        }
        Ok(())
    }

    /// The gradients of one group: of its keys, its values and the queries of all its heads. With g the gradient of the
    /// result and w the weights, those of the scores are w (g v^T - sum(w g v^T)).
    fn group(&self, sizes: Sizes, group: usize, sources: [Source<'_>; 4], gradients: [&mut [f32]; 3]) -> Result<()> {
        let [query, key, value, outer] = sources;
        let [dquery, dkey, dvalue] = gradients;
        let (width, input, offset) = (sizes.width, group / sizes.groups, group * sizes.of_keys());
        for (local, dquery) in dquery.chunks_exact_mut(sizes.of_queries()).enumerate() {
            let head = (group * sizes.shared() + local) * sizes.of_queries();
            for tile in self.tiles(sizes, input) {
                let (rows, columns) = (tile.queries.len(), tile.keys.len());
                let (query, outer) = (query.rows(head, &tile.queries, width), outer.rows(head, &tile.queries, width));
                let key = || key.rows(offset, &tile.keys, width);
                let (weights, scores) = self.weights(sizes, input, &tile, &query, key())?;
                let mut dscores = outer.times(&value.rows(offset, &tile.keys, width).transposed()?)?;
                self.through_softmax(&mut dscores, &weights, scores.as_deref(), columns);
                let (weights, dscores) = (CpuStorage::F32(weights), CpuStorage::F32(dscores));
                let by_keys = |matrix| Matrix::whole(matrix, rows, columns).transposed();
                add(dvalue, tile.keys.start * width, &by_keys(&weights)?.times(&outer)?);
                add(dkey, tile.keys.start * width, &by_keys(&dscores)?.times(&query)?);
                let dtile = Matrix::whole(&dscores, rows, columns).times(&key())?;
                add(dquery, tile.queries.start * width, &dtile);
            }
        }
        Ok(())
    }

    /// From the gradients of weights to those of the plain products, in place.
    fn through_softmax(&self, gradient: &mut [f32], weights: &[f32], scores: Option<&[f32]>, columns: usize) {
        for (gradient, weights) in gradient.chunks_exact_mut(columns).zip(weights.chunks_exact(columns)) {
            let mean: f32 = gradient.iter().zip(weights).map(|(g, w)| g * w).sum();
            gradient.iter_mut().zip(weights).for_each(|(g, w)| *g = self.options.scale * w * (*g - mean));
        }
        if let (Some(cap), Some(scores)) = (self.options.softcap, scores) {
            gradient.iter_mut().zip(scores).for_each(|(g, score)| *g *= 1.0 - (score / cap) * (score / cap));
        }
    }
}

/// Softmax over a part of a row, in place; the rest becomes 0.
fn softmax(row: &mut [f32], part: Range<usize>) {
    let (before, rest) = row.split_at_mut(part.start);
    let (row, after) = rest.split_at_mut(part.len());
    before.fill(0.0);
    after.fill(0.0);
    let largest = row.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    row.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

fn add(to: &mut [f32], start: usize, values: &[f32]) {
    to.iter_mut().skip(start).zip(values).for_each(|(to, value)| *to += value);
}

impl CustomOp3 for Op {
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
        let sources =
            [Source::new(query, query_layout)?, Source::new(key, key_layout)?, Source::new(value, value_layout)?];
        let mut y = vec![0f32; sizes.inputs * sizes.heads * sizes.of_queries()];
        let heads = y.par_chunks_mut(sizes.of_queries()).enumerate();
        heads.try_for_each(|(head, y)| self.head(sizes, head, sources, y))?;
        Ok((CpuStorage::F32(y), query_layout.shape().clone()))
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
        let tensors = [query.contiguous()?, key.contiguous()?, value.contiguous()?, gradient.contiguous()?];
        let [query_at, key_at, value_at, gradient_at] = tensors.each_ref().map(Tensor::storage_and_layout);
        let sources = [
            source(&query_at.0, query_at.1)?,
            source(&key_at.0, key_at.1)?,
            source(&value_at.0, value_at.1)?,
            source(&gradient_at.0, gradient_at.1)?,
        ];
        let mut dquery = vec![0f32; query.elem_count()];
        let (mut dkey, mut dvalue) = (vec![0f32; key.elem_count()], vec![0f32; key.elem_count()]);
        dquery
            .par_chunks_mut(sizes.shared() * sizes.of_queries())
            .zip(dkey.par_chunks_mut(sizes.of_keys()))
            .zip(dvalue.par_chunks_mut(sizes.of_keys()))
            .enumerate()
            .try_for_each(|(group, ((dquery, dkey), dvalue))| {
                self.group(sizes, group, sources, [dquery, dkey, dvalue])
            })?;
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device()).map(Some);
        Ok((tensor(dquery, query)?, tensor(dkey, key)?, tensor(dvalue, value)?))
    }
}

#[cfg(test)]
mod tests;
