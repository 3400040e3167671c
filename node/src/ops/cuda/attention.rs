//! Attention by matrix products, with a kernel for the softmax between them. As on the CPU the weights are never kept;
//! here they are in memory for some inputs at a time.

use super::{Kept, Kernel, Over, Takes, on_gpu};
use crate::ops::Attention;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, D, Layout, Result, Shape, Tensor,
    backend::{BackendDevice as _, BackendStorage as _},
    bail,
};
use std::{cell::RefCell, ops::Range, sync::Arc};

/// Scores that are in memory together, at least those of the heads that share keys.
const SCORES_MAX: usize = 1 << 26;

/// From queries `[n, heads, queries, d]` and keys and values `[n, groups, keys, d]` to `[n, heads, queries, d]`; see
/// [`Attention::forward`].
pub(in crate::ops) fn attention(
    options: &Attention,
    [query, key, value]: [&Tensor; 3],
    lengths: Option<&Arc<[usize]>>,
) -> Result<Tensor> {
    thread_local! {
        static KEPT: Kept<[usize]> = const { RefCell::new(Vec::new()) };
    }
    let device = query.device();
    let sizes = Sizes::new(query.dims(), key.dims(), value.dims())?;
    let upload = |lengths: &Arc<[usize]>| {
        let values: Vec<u32> = lengths.iter().map(|length| u32::try_from(*length).unwrap_or(u32::MAX)).collect();
        // All blocks of a backbone are given the same list.
        KEPT.with_borrow_mut(|kept| on_gpu(kept, lengths, device, || Tensor::new(values, device)))
    };
    let op = Op { options: *options, sizes, lengths: lengths.map(upload).transpose()? };
    query.contiguous()?.apply_op3(&key.contiguous()?, &value.contiguous()?, op)
}

#[derive(Clone, Copy)]
struct Sizes {
    inputs: usize,
    /// Heads of keys.
    groups: usize,
    /// Heads that share keys.
    shared: usize,
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
                Ok(Self { inputs, groups, shared: heads / groups, queries, keys, width })
            }
            _ => bail!("queries {query:?}, keys {key:?} and values {value:?} do not fit each other"),
        }
    }

    /// The queries of heads that share keys are one matrix with so many rows.
    fn rows(self) -> usize {
        self.shared * self.queries
    }

    /// Matrices of keys.
    fn batches(self) -> usize {
        self.inputs * self.groups
    }

    /// Of those, the ones that are computed together.
    fn tiles(self) -> impl Iterator<Item = Range<usize>> {
        let step = (SCORES_MAX / (self.rows() * self.keys)).max(1);
        (0..self.batches()).step_by(step).map(move |start| start..self.batches().min(start + step))
    }
}

struct Op {
    options: Attention,
    sizes: Sizes,
    /// How many keys of each input count.
    lengths: Option<Tensor>,
}

impl Op {
    /// The kernel that makes weights of the products of a tile, and of the lengths.
    fn softmax(&self, tile: &Range<usize>) -> Kernel {
        let (options, sizes) = (&self.options, self.sizes);
        let (name, takes) = match self.lengths {
            Some(_) => ("padded_attention", vec![Takes::Same, Takes::Counts(sizes.inputs)]),
            None => ("attention", vec![Takes::Same]),
        };
        let window = options.window.unwrap_or(usize::MAX);
        let causal = usize::from(options.causal);
        Kernel::new(name, Over::Rows, takes)
            .sizes([sizes.queries, sizes.shared, sizes.groups, tile.start, causal, window])
            .numbers([options.scale, options.softcap.unwrap_or(0.0)])
    }

    /// Gradients of queries, keys and values, from matrices `[batches, rows, d]`. With g the gradient of the result and w
    /// the weights, those of the scores are w (g v^T - sum(w g v^T)).
    fn differentiate(&self, [query, key, value, outer]: [&Tensor; 4]) -> Result<[Tensor; 3]> {
        let numbers = [self.options.scale, self.options.softcap.unwrap_or(0.0)];
        let back = Kernel::new("attention_back", Over::Rows, [Takes::Same; 3]).numbers(numbers);
        let mut parts: [Vec<Tensor>; 3] = Default::default();
        for tile in self.sizes.tiles() {
            let part = |tensor: &Tensor| tensor.narrow(0, tile.start, tile.len());
            let (query, key, value, outer) = (part(query)?, part(key)?, part(value)?, part(outer)?);
            let products = query.matmul(&key.t()?)?;
            let inputs: Vec<&Tensor> = [&products].into_iter().chain(&self.lengths).collect();
            let weights = self.softmax(&tile).apply(&inputs)?;
            let dproducts = back.apply(&[&products, &weights, &outer.matmul(&value.t()?)?])?;
            let [dquery, dkey, dvalue] = &mut parts;
            dquery.push(dproducts.matmul(&key)?);
            dkey.push(dproducts.transpose(D::Minus2, D::Minus1)?.matmul(&query)?);
            dvalue.push(weights.transpose(D::Minus2, D::Minus1)?.matmul(&outer)?);
        }
        let [dquery, dkey, dvalue] = parts.each_ref().map(|parts| Tensor::cat(parts, 0));
        Ok([dquery?, dkey?, dvalue?])
    }
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("this attention is a GPU's")
    }

    fn cuda_fwd(
        &self,
        query: &CudaStorage,
        query_layout: &Layout,
        key: &CudaStorage,
        key_layout: &Layout,
        value: &CudaStorage,
        value_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let Sizes { keys, width, .. } = self.sizes;
        let (rows, shape) = (self.sizes.rows(), query_layout.shape().clone());
        let held: Vec<Tensor> = self.lengths.iter().cloned().collect();
        let mut y = query.device().zeros_impl(&shape, query.dtype())?;
        for tile in self.sizes.tiles() {
            // The matrices of the tile, of so many rows.
            let part = |layout: &Layout, rows: usize| match layout.contiguous_offsets() {
                Some((start, _)) => {
                    let start = start + tile.start * rows * width;
                    Ok(Layout::contiguous_with_offset((tile.len(), rows, width), start))
                }
                None => bail!("attention takes contiguous tensors only"),
            };
            let transposed = part(key_layout, keys)?.transpose(1, 2)?;
            let products =
                query.matmul(key, (tile.len(), rows, keys, width), &part(query_layout, rows)?, &transposed)?;
            let scores = Layout::contiguous((tile.len(), rows, keys));
            let (weights, _) = self.softmax(&tile).run_with((&products, &scores), &held)?;
            let values = part(value_layout, keys)?;
            let mean = weights.matmul(value, (tile.len(), rows, width, keys), &scores, &values)?;
            let whole = Layout::contiguous((tile.len(), rows, width));
            mean.copy_strided_src(&mut y, tile.start * rows * width, &whole)?;
        }
        Ok((y, shape))
    }

    fn bwd(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = self.sizes;
        let flat =
            |tensor: &Tensor, rows: usize| tensor.detach().contiguous()?.reshape((sizes.batches(), rows, sizes.width));
        let (queries, outer) = (flat(query, sizes.rows())?, flat(gradient, sizes.rows())?);
        let (keys, values) = (flat(key, sizes.keys)?, flat(value, sizes.keys)?);
        let [dquery, dkey, dvalue] = self.differentiate([&queries, &keys, &values, &outer])?;
        let like = |gradient: Tensor, of: &Tensor| gradient.reshape(of.shape()).map(Some);
        Ok((like(dquery, query)?, like(dkey, key)?, like(dvalue, value)?))
    }
}
