//! One of the two halves of a transformer block: attention or the feed-forward layer, its norms, and the way around it.
//!
//! Where all of it is frozen and in main memory it is one operation. The tensor library makes zeros for every gradient,
//! adds to them, and keeps every intermediate result until all are done; here only what the way back needs is kept, and
//! given back on the way.

use super::{
    FeedForward, LayerNorm, RmsNorm, SelfAttention, feed, pointwise::plus, self_attention, values, vector::wide,
    with_values,
};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::{
    borrow::Cow,
    sync::{Arc, Mutex},
};

/// Rows that a thread takes together.
const ROWS: usize = 64;

/// y = behind(x + scale after(inner(before(x)))); what is missing does nothing.
///
/// With `before` it is the pre-norm block of LLaMA and ViT, with `behind` the post-norm one of BERT, with `before` and
/// `after` that of Gemma, and with `scale` LayerScale (<https://arxiv.org/abs/2103.17239>).
#[derive(Clone, Debug)]
pub struct Sublayer {
    /// The norm of what goes in.
    pub before: Option<Norm>,
    /// The layer.
    pub inner: Inner,
    /// The norm of what the layer gives.
    pub after: Option<Norm>,
    /// What that is multiplied by, `[d]`.
    pub scale: Option<Tensor>,
    /// The norm of the sum.
    pub behind: Option<Norm>,
}

/// What a sublayer is made around.
#[derive(Clone, Debug)]
pub enum Inner {
    /// Attention.
    Attention(SelfAttention),
    /// The feed-forward layer.
    Feed(FeedForward),
}

/// A normalisation.
#[derive(Clone, Debug)]
pub enum Norm {
    /// Around the mean.
    Layer(LayerNorm),
    /// Without a mean.
    Rms(RmsNorm),
}

impl Norm {
    /// Normalises `[.., d]`.
    ///
    /// # Errors
    /// Another width than that of the weights.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Layer(norm) => norm.forward(x),
            Self::Rms(norm) => norm.forward(x),
        }
    }

    fn is_trained(&self) -> bool {
        match self {
            Self::Layer(norm) => norm.is_trained(),
            Self::Rms(norm) => norm.is_trained(),
        }
    }

    fn apply(&self, x: &[f32], width: usize) -> Result<Vec<f32>> {
        match self {
            Self::Layer(norm) => norm.apply(x, width),
            Self::Rms(norm) => norm.apply(x),
        }
    }

    fn back(&self, x: &[f32], gradient: &[f32], width: usize) -> Result<Vec<f32>> {
        match self {
            Self::Layer(norm) => norm.back(x, gradient, width),
            Self::Rms(norm) => norm.back(x, gradient),
        }
    }

    fn fits(&self, width: usize) -> bool {
        match self {
            Self::Layer(norm) => norm.width().is_none_or(|own| own == width),
            Self::Rms(norm) => norm.width() == width,
        }
    }
}

impl Inner {
    fn maps(&self) -> Option<Maps<'_>> {
        match self {
            Self::Attention(layer) => layer.maps().map(Maps::Attention),
            Self::Feed(layer) => layer.maps().map(Maps::Feed),
        }
    }
}

impl Sublayer {
    /// A layer with nothing but the way around it.
    pub fn new(inner: Inner) -> Self {
        Self { before: None, inner, after: None, scale: None, behind: None }
    }

    /// `[n, tokens, d]` to the same. Of input i, only the first `lengths[i]` tokens are seen, all where there are no
    /// lengths.
    ///
    /// # Errors
    /// Another width.
    pub fn forward(&self, x: &Tensor, lengths: Option<&Arc<[usize]>>) -> Result<Tensor> {
        if x.device().is_cpu() && self.is_frozen() {
            let op = Op { layer: self.clone(), lengths: lengths.cloned(), keeps: x.track_op(), kept: Mutex::default() };
            return x.contiguous()?.apply_op1(op);
        }
        self.around(x, |x| match &self.inner {
            Inner::Attention(layer) => layer.forward(x, lengths),
            Inner::Feed(layer) => layer.forward(x),
        })
    }

    /// The same, operation by operation, around any other layer.
    ///
    /// # Errors
    /// Another width.
    pub fn around(&self, x: &Tensor, inner: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let norm = |norm: &Option<Norm>, x: Tensor| match norm {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        };
        let mut y = norm(&self.after, inner(&norm(&self.before, x.clone())?)?)?;
        if let Some(scale) = &self.scale {
            y = y.broadcast_mul(scale)?;
        }
        norm(&self.behind, (x + y)?)
    }

    fn is_frozen(&self) -> bool {
        let norms = [&self.before, &self.after, &self.behind];
        let trained =
            norms.into_iter().flatten().any(Norm::is_trained) || self.scale.as_ref().is_some_and(Tensor::track_op);
        !trained && self.inner.maps().is_some()
    }
}

enum Maps<'a> {
    Attention(self_attention::Maps<'a>),
    Feed(feed::Maps<'a>),
}

/// What the operation leaves for the way back.
struct Kept {
    inner: KeptInner,
    /// What the layer gave, where a norm comes after it.
    after: Option<Vec<f32>>,
    /// The sum, where a norm comes behind it.
    behind: Option<Vec<f32>>,
}

enum KeptInner {
    Attention(self_attention::Kept),
    Feed(feed::Kept),
}

struct Op {
    layer: Sublayer,
    lengths: Option<Arc<[usize]>>,
    /// Whether there is a way back.
    keeps: bool,
    kept: Mutex<Option<Kept>>,
}

/// Inputs, tokens and their width.
type Dims = (usize, usize, usize);

impl Op {
    fn dims(&self, dims: &[usize]) -> Result<Dims> {
        let &[inputs, tokens, width] = dims else { bail!("a block takes [n, tokens, d], not {dims:?}") };
        let Sublayer { before, inner, after, scale, behind } = &self.layer;
        let (reads, writes) = match inner {
            Inner::Attention(layer) => (layer.query.inputs(), layer.output.outputs()),
            Inner::Feed(layer) => (layer.widen.inputs(), layer.narrow.outputs()),
        };
        let norms = [before, after, behind].into_iter().flatten().all(|norm| norm.fits(width));
        let scales = scale.as_ref().is_none_or(|scale| scale.dims() == [width]);
        if (reads, writes) != (width, width) || !norms || !scales || inputs * tokens * width == 0 {
            bail!("a block that is {reads} wide was given {dims:?}");
        }
        Ok((inputs, tokens, width))
    }

    fn maps(&self) -> Result<Maps<'_>> {
        self.layer.inner.maps().ok_or_else(|| candle_core::Error::Msg("the block is trained".into()))
    }

    fn forward(&self, x: &[f32], (inputs, tokens, width): Dims) -> Result<(Vec<f32>, Kept)> {
        let normal = normalised(self.layer.before.as_ref(), x, width)?;
        let (mut y, inner) = match self.maps()? {
            Maps::Attention(maps) => {
                let (y, kept) = maps.forward(&normal, (inputs, tokens), self.lengths.as_ref(), self.keeps)?;
                (y, KeptInner::Attention(kept))
            }
            Maps::Feed(maps) => {
                let (y, kept) = maps.forward(&normal, self.keeps)?;
                (y, KeptInner::Feed(kept))
            }
        };
        drop(normal);
        let mut kept = Kept { inner, after: None, behind: None };
        if let Some(norm) = &self.layer.after {
            let raw = std::mem::take(&mut y);
            y = norm.apply(&raw, width)?;
            kept.after = self.keeps.then_some(raw);
        }
        self.scale(&mut y)?;
        plus(&mut y, x);
        if let Some(norm) = &self.layer.behind {
            let sum = std::mem::take(&mut y);
            y = norm.apply(&sum, width)?;
            kept.behind = self.keeps.then_some(sum);
        }
        Ok((y, kept))
    }

    fn backward(&self, x: &[f32], gradient: &[f32], (inputs, tokens, width): Dims) -> Result<Vec<f32>> {
        let taken = self.kept.lock().ok().and_then(|mut kept| kept.take());
        let Some(Kept { inner, after, behind }) = taken else { bail!("a block goes backward once") };
        let of_sum = differentiated(self.layer.behind.as_ref().zip(behind), gradient, width)?;
        let mut of_layer = Cow::Borrowed(&*of_sum);
        if self.layer.scale.is_some() {
            self.scale(of_layer.to_mut())?;
        }
        let of_layer = match self.layer.after.as_ref().zip(after) {
            Some((norm, raw)) => Cow::Owned(norm.back(&raw, &of_layer, width)?),
            None => of_layer,
        };
        let mut dx = match (self.maps()?, inner) {
            (Maps::Attention(maps), KeptInner::Attention(kept)) => {
                maps.backward(kept, (inputs, tokens), self.lengths.as_ref(), &of_layer)?
            }
            (Maps::Feed(maps), KeptInner::Feed(kept)) => maps.backward(kept, &of_layer)?,
            _ => bail!("what was kept is of another layer"),
        };
        drop(of_layer);
        if let Some(norm) = &self.layer.before {
            dx = norm.back(x, &dx, width)?;
        }
        plus(&mut dx, &of_sum);
        Ok(dx)
    }

    /// Multiplies every row by the scale, if there is one.
    fn scale(&self, rows: &mut [f32]) -> Result<()> {
        let Some(scale) = &self.layer.scale else { return Ok(()) };
        with_values(scale, |scale| {
            rows.par_chunks_mut((ROWS * scale.len()).max(1)).for_each(|rows| {
                let rows = rows.chunks_exact_mut(scale.len().max(1));
                wide(|| rows.for_each(|row| row.iter_mut().zip(scale).for_each(|(value, scale)| *value *= scale)));
            });
            Ok(())
        })
    }
}

fn normalised<'a>(norm: Option<&Norm>, x: &'a [f32], width: usize) -> Result<Cow<'a, [f32]>> {
    Ok(match norm {
        Some(norm) => Cow::Owned(norm.apply(x, width)?),
        None => Cow::Borrowed(x),
    })
}

/// The gradient of what went into a norm.
fn differentiated<'a>(norm: Option<(&Norm, Vec<f32>)>, gradient: &'a [f32], width: usize) -> Result<Cow<'a, [f32]>> {
    Ok(match norm {
        Some((norm, x)) => Cow::Owned(norm.back(&x, gradient, width)?),
        None => Cow::Borrowed(gradient),
    })
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "sublayer"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, kept) = self.forward(values(x, layout)?, self.dims(layout.dims())?)?;
        if let (true, Ok(mut place)) = (self.keeps, self.kept.lock()) {
            *place = Some(kept);
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let dims = self.dims(x.dims())?;
        let dx = with_values(x, |x| with_values(gradient, |gradient| self.backward(x, gradient, dims)))?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests;
