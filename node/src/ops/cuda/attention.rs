//! Attention by matrix products, with a kernel for the softmax between them. As on the CPU the weights are never kept;
//! here they are in memory for some inputs at a time.

use super::{Kernel, Over, Takes};
use crate::ops::attention::{Attention, Sizes};
use candle_core::{
    CudaStorage, D, Layout, Result, Shape, Tensor,
    backend::{BackendDevice as _, BackendStorage as _},
    bail,
};
use std::{cell::RefCell, ops::Range, sync::Arc};

/// Scores that are in memory together, at least those of the heads that share keys.
const SCORES_MAX: usize = 1 << 26;

/// The result, from contiguous queries, keys and values.
pub(in crate::ops) fn attend(
    options: &Attention,
    lengths: Option<&Arc<[usize]>>,
    [query, key, value]: [(&CudaStorage, &Layout); 3],
) -> Result<(CudaStorage, Shape)> {
    let sizes = Sizes::new(query.1.dims(), key.1.dims(), value.1.dims())?;
    let Rows { of_queries, width } = rows(sizes);
    let device = query.0.device();
    let lengths = lengths.map(|lengths| on_gpu(lengths, device)).transpose()?;
    let shape = query.1.shape().clone();
    let mut y = device.zeros_impl(&shape, query.0.dtype())?;
    for tile in tiles(sizes) {
        let part = |(_, layout): (&CudaStorage, &Layout), rows: usize| match layout.contiguous_offsets() {
            Some((start, _)) => {
                let start = start + tile.start * rows * width;
                Ok(Layout::contiguous_with_offset((tile.len(), rows, width), start))
            }
            None => bail!("attention takes contiguous tensors only"),
        };
        let (queries, keys, values) = (part(query, of_queries)?, part(key, sizes.keys)?, part(value, sizes.keys)?);
        let dims = (tile.len(), of_queries, sizes.keys, width);
        let products = query.0.matmul(key.0, dims, &queries, &keys.transpose(1, 2)?)?;
        let scores = Layout::contiguous((tile.len(), of_queries, sizes.keys));
        let held: Vec<&Tensor> = lengths.iter().collect();
        let with = |kernel: Kernel<'_>| kernel.run_with((&products, &scores), &held);
        let (weights, _) = weights(options, sizes, &tile, lengths.as_ref(), with)?;
        let dims = (tile.len(), of_queries, width, sizes.keys);
        let mean = weights.matmul(value.0, dims, &scores, &values)?;
        let whole = Layout::contiguous((tile.len(), of_queries, width));
        mean.copy_strided_src(&mut y, tile.start * of_queries * width, &whole)?;
    }
    Ok((y, shape))
}

/// The gradients of queries, keys and values; see the CPU's.
pub(in crate::ops) fn attend_back(
    options: &Attention,
    lengths: Option<&Arc<[usize]>>,
    tensors: [&Tensor; 4],
) -> Result<[Tensor; 3]> {
    let [query, key, value, gradient] = tensors;
    let sizes = Sizes::new(query.dims(), key.dims(), value.dims())?;
    let Rows { of_queries, width } = rows(sizes);
    let lengths = match query.device() {
        candle_core::Device::Cuda(device) => lengths.map(|lengths| on_gpu(lengths, device)).transpose()?,
        _ => bail!("this is a GPU's attention"),
    };
    let batches = sizes.inputs * sizes.groups;
    let flat = |tensor: &Tensor, rows: usize| tensor.detach().contiguous()?.reshape((batches, rows, width));
    let (queries, outer) = (flat(query, of_queries)?, flat(gradient, of_queries)?);
    let (keys, values) = (flat(key, sizes.keys)?, flat(value, sizes.keys)?);
    let mut parts: [Vec<Tensor>; 3] = Default::default();
    for tile in tiles(sizes) {
        let part = |tensor: &Tensor| tensor.narrow(0, tile.start, tile.len());
        let (queries, outer, keys, values) = (part(&queries)?, part(&outer)?, part(&keys)?, part(&values)?);
        let products = queries.matmul(&keys.t()?)?;
        let inputs: Vec<&Tensor> = [&products].into_iter().chain(&lengths).collect();
        let weights = weights(options, sizes, &tile, lengths.as_ref(), |kernel| kernel.apply(&inputs))?;
        let back = Kernel {
            name: "attention_back",
            over: Over::Rows,
            takes: &[Takes::Same; 3],
            sizes: &[],
            numbers: &[options.scale, options.softcap.unwrap_or(0.0)],
        };
        let dproducts = back.apply(&[&products, &weights, &outer.matmul(&values.t()?)?])?;
        let [dquery, dkey, dvalue] = &mut parts;
        dquery.push(dproducts.matmul(&keys)?);
        dkey.push(dproducts.transpose(D::Minus2, D::Minus1)?.matmul(&queries)?);
        dvalue.push(weights.transpose(D::Minus2, D::Minus1)?.matmul(&outer)?);
    }
    let whole = |parts: &[Tensor], like: &Tensor| Tensor::cat(parts, 0)?.reshape(like.shape());
    let [dquery, dkey, dvalue] = &parts;
    Ok([whole(dquery, query)?, whole(dkey, key)?, whole(dvalue, value)?])
}

/// The kernel that makes weights of the products of a tile, given to `run`.
fn weights<T>(
    options: &Attention,
    sizes: Sizes,
    tile: &Range<usize>,
    lengths: Option<&Tensor>,
    run: impl FnOnce(Kernel<'_>) -> Result<T>,
) -> Result<T> {
    let window = options.window.unwrap_or(usize::MAX);
    let (name, takes) = match lengths {
        Some(_) => ("padded_attention", &[Takes::Same, Takes::Counts(sizes.inputs)][..]),
        None => ("attention", &[Takes::Same][..]),
    };
    run(Kernel {
        name,
        over: Over::Rows,
        takes,
        sizes: &[sizes.queries, sizes.shared(), sizes.groups, tile.start, usize::from(options.causal), window],
        numbers: &[options.scale, options.softcap.unwrap_or(0.0)],
    })
}

/// The queries of heads that share keys are one matrix.
struct Rows {
    of_queries: usize,
    width: usize,
}

fn rows(sizes: Sizes) -> Rows {
    Rows { of_queries: sizes.shared() * sizes.queries, width: sizes.width }
}

/// Of all inputs and groups, those that are computed together.
fn tiles(sizes: Sizes) -> impl Iterator<Item = Range<usize>> {
    let all = sizes.inputs * sizes.groups;
    let step = (SCORES_MAX / (sizes.shared() * sizes.queries * sizes.keys).max(1)).max(1);
    (0..all).step_by(step).map(move |start| start..all.min(start + step))
}

thread_local! {
    /// The lengths of the last batch. All blocks of a backbone share them, so that they go to the GPU once.
    static LENGTHS: RefCell<Option<(Arc<[usize]>, Tensor)>> = const { RefCell::new(None) };
}

/// How many keys of each input count, as u32 on the GPU.
fn on_gpu(lengths: &Arc<[usize]>, device: &candle_core::CudaDevice) -> Result<Tensor> {
    let device = candle_core::Device::Cuda(device.clone());
    LENGTHS.with_borrow_mut(|last| {
        if let Some((of, tensor)) = last
            && Arc::ptr_eq(of, lengths)
            && tensor.device().same_device(&device)
        {
            return Ok(tensor.clone());
        }
        let values: Vec<u32> = lengths.iter().map(|length| u32::try_from(*length).unwrap_or(u32::MAX)).collect();
        let tensor = Tensor::new(values, &device)?;
        *last = Some((lengths.clone(), tensor.clone()));
        Ok(tensor)
    })
}
