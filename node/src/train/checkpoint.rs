//! Gradient checkpointing (<https://arxiv.org/abs/1604.06174>): of a block only what goes in is kept, and the rest is made
//! again on the way back.

use crate::backbone::{Backbone, Hidden};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, Var, bail};
use std::sync::Arc;

/// Block `index` on a hidden state, without keeping what is inside.
pub(super) fn block(backbone: &Arc<dyn Backbone>, index: usize, hidden: &Hidden) -> Result<Tensor> {
    if !hidden.values.track_op() {
        return backbone.block(index, hidden);
    }
    let op = Block { backbone: backbone.clone(), index, lengths: hidden.lengths.clone() };
    hidden.values.contiguous()?.apply_op1(op)
}

struct Block {
    backbone: Arc<dyn Backbone>,
    index: usize,
    lengths: Option<Arc<[usize]>>,
}

impl Block {
    fn forward(&self, values: Tensor) -> Result<Tensor> {
        self.backbone.block(self.index, &Hidden { values, lengths: self.lengths.clone() })
    }
}

impl CustomOp1 for Block {
    fn name(&self) -> &'static str {
        "checkpointed-block"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("a block takes contiguous tensors only") };
        let values = x.as_slice::<f32>()?.get(start..end).unwrap_or_default();
        let y = self.forward(Tensor::from_slice(values, layout.shape(), &candle_core::Device::Cpu)?)?.contiguous()?;
        let (storage, y_layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cpu(CpuStorage::F32(y)) => {
                let values = y_layout.contiguous_offsets().and_then(|(start, end)| y.get(start..end));
                Ok((CpuStorage::F32(values.unwrap_or_default().to_vec()), y_layout.shape().clone()))
            }
            _ => bail!("checkpointed blocks are in main memory, in f32"),
        }
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let x = Var::from_tensor(&x.detach())?;
        let y = self.forward(x.as_tensor().clone())?;
        let store = y.apply_op1(Start(gradient.clone()))?.backward()?;
        Ok(store.get(&x).cloned())
    }
}

/// A number whose gradient is this: where a way back starts. (The sum of a product would be one, too, with three more
/// tensors of that size.)
struct Start(Tensor);

impl CustomOp1 for Start {
    fn name(&self) -> &'static str {
        "start"
    }

    fn cpu_fwd(&self, _y: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        match layout.shape() == self.0.shape() {
            true => Ok((CpuStorage::F32(vec![0.0]), Shape::from(()))),
            false => bail!("a gradient {:?} of what is {:?}", self.0.shape(), layout.shape()),
        }
    }

    fn bwd(&self, _y: &Tensor, _number: &Tensor, _gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}
