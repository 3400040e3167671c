//! The frozen backbone, cut at its slots.

use super::{
    Cache, checkpoint,
    disk::OnDisk,
    samples::{Kept, Samples},
};
use crate::{
    backbone::{Backbone, Batch, Hidden},
    data::{Inputs, Set},
    dema,
    ops::LayerNorm,
};
use candle_core::{DType, Device, Result, Tensor};
use std::sync::Arc;

/// Hidden states that are kept in memory, of all samples together: beyond this they are made anew for each batch.
const CACHE_BYTES_MAX: usize = 256 << 20;

/// A backbone and where its slots are.
pub(super) struct Trunk {
    pub(super) backbone: Arc<dyn Backbone>,
    positions: Vec<usize>,
    norm: LayerNorm,
    /// Whether the task is to foretell tokens.
    foretells: bool,
    /// Whether what is inside blocks is made again on the way back instead of being kept.
    pub(super) checkpoint: bool,
}

impl Trunk {
    pub(super) fn new(backbone: Arc<dyn Backbone>, slots: usize, foretells: bool) -> Self {
        let positions = dema::positions(backbone.depth(), slots);
        Self { backbone, positions, norm: LayerNorm::plain(), foretells, checkpoint: false }
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.positions.len()
    }

    /// Where the hidden states of all these are kept: not in memory where they are too many.
    pub(super) fn place<'a>(&self, cache: Cache, inputs: impl Iterator<Item = &'a Inputs>) -> Cache {
        let bytes = inputs.map(|inputs| {
            let values = inputs.len().saturating_mul(self.longest(inputs));
            values.saturating_mul(4 * self.backbone.width())
        });
        match cache {
            Cache::Memory if bytes.fold(0, usize::saturating_add) > CACHE_BYTES_MAX => Cache::None,
            cache => cache,
        }
    }

    /// Tokens of the longest input.
    fn longest(&self, inputs: &Inputs) -> usize {
        match inputs {
            Inputs::Pixels(_) => self.backbone.tokens(),
            Inputs::Tokens(texts) => texts.iter().map(Vec::len).max().unwrap_or(0),
        }
    }

    /// Samples, walked to the first slot if they are to be kept there.
    pub(super) fn samples(&self, set: Set, cache: Cache) -> Result<Samples> {
        let raw = Samples::new(set);
        let parts = || raw.chunks().map(|rows| self.first(&raw, &rows));
        let kept = match (cache, &raw.kept) {
            (Cache::Memory, _) => Some(Kept::Hidden(Hidden::cat(&parts().collect::<Result<Vec<_>>>()?)?)),
            (Cache::Disk, Kept::Inputs(inputs)) => {
                let mut disk = OnDisk::new(self.longest(inputs), self.backbone.width())?;
                parts().try_for_each(|part| disk.push(&part?))?;
                Some(Kept::OnDisk(disk))
            }
            _ => None,
        };
        Ok(match kept {
            Some(kept) => Samples { kept, ..raw },
            None => raw,
        })
    }

    /// The hidden states of some samples at the first slot.
    pub(super) fn first(&self, samples: &Samples, rows: &[u32]) -> Result<Hidden> {
        match &samples.kept {
            Kept::Hidden(hidden) => hidden.rows(rows),
            Kept::OnDisk(disk) => disk.rows(rows),
            Kept::Inputs(inputs) => self.enter(&inputs.batch(rows)?),
        }
    }

    /// The hidden states of a batch at the first slot.
    pub(super) fn enter(&self, batch: &Batch) -> Result<Hidden> {
        self.walk(self.backbone.embed(batch)?, 0, self.positions.first().copied().unwrap_or(0))
    }

    /// From the embedding to the end, through blocks that `block` computes and what `adapt` does at every slot.
    pub(super) fn walk_with(
        &self,
        mut hidden: Hidden,
        mut block: impl FnMut(usize, &Hidden) -> Result<Tensor>,
        mut adapt: impl FnMut(usize, &Hidden) -> Result<Tensor>,
    ) -> Result<Hidden> {
        for index in 0..self.backbone.depth() {
            hidden = hidden.with(block(index, &hidden)?);
            for (slot, _) in self.positions.iter().enumerate().filter(|(_, position)| **position == index + 1) {
                hidden = hidden.with(adapt(slot, &hidden)?);
            }
        }
        Ok(hidden)
    }

    /// Through the blocks from `start` to before `end`.
    fn walk(&self, hidden: Hidden, start: usize, end: usize) -> Result<Hidden> {
        (start..end).try_fold(hidden, |hidden, index| {
            let values = match self.checkpoint {
                true => checkpoint::block(&self.backbone, index, &hidden)?,
                false => self.backbone.block(index, &hidden)?,
            };
            Ok(hidden.with(values))
        })
    }

    /// From the first slot to the end, through what `adapt` does at every slot. There is no block behind the last slot.
    pub(super) fn run(
        &self,
        hidden: Hidden,
        mut adapt: impl FnMut(usize, &Hidden) -> Result<Tensor>,
    ) -> Result<Hidden> {
        let mut hidden = hidden.with(adapt(0, &hidden)?);
        for (slot, ends) in self.positions.windows(2).enumerate() {
            if let [start, end] = ends {
                hidden = self.walk(hidden, *start, *end)?;
                hidden = hidden.with(adapt(slot + 1, &hidden)?);
            }
        }
        Ok(hidden)
    }

    /// As [`Trunk::run`], to normalised features of whole inputs `[n, d]`.
    pub(super) fn features(
        &self,
        hidden: Hidden,
        adapt: impl FnMut(usize, &Hidden) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.gather(&self.normal(&self.run(hidden, adapt)?)?)
    }

    /// LN(h) of every token, as f32.
    pub(super) fn normal(&self, hidden: &Hidden) -> Result<Hidden> {
        Ok(hidden.with(self.norm.forward(&hidden.values.to_dtype(DType::F32)?)?))
    }

    /// What stands for a whole input, `[n, d]`: the pooled tokens, or where tokens are foretold the last one.
    fn gather(&self, hidden: &Hidden) -> Result<Tensor> {
        if self.foretells { hidden.last() } else { self.backbone.pool(hidden) }
    }

    /// What the frozen backbone makes of samples in every space: the slots, then the end. It comes to main memory, where
    /// alignment computes.
    pub(super) fn spaces(&self, samples: &Samples) -> Result<Vec<dema::Features>> {
        let mut spaces: Vec<[Vec<Tensor>; 3]> = (0..self.slots()).map(|_| Default::default()).collect();
        for rows in samples.chunks() {
            self.features(self.first(samples, &rows)?, |slot, hidden| {
                if let Some([tokens, pooled, raw]) = spaces.get_mut(slot) {
                    let normal = self.normal(hidden)?;
                    pooled.push(self.gather(&normal)?);
                    raw.push(self.gather(hidden)?);
                    tokens.push(normal.tokens()?.to_device(&Device::Cpu)?);
                }
                Ok(hidden.values.clone())
            })?;
        }
        let matrix = |parts: &[Tensor]| dema::algebra::Matrix::from_tensor(&Tensor::cat(parts, 0)?);
        let space = |[tokens, pooled, raw]: &[Vec<Tensor>; 3], at_slot: bool| -> Result<dema::Features> {
            let tokens = at_slot.then(|| Tensor::cat(tokens, 0)).transpose()?;
            Ok(dema::Features { pooled: matrix(pooled)?, hidden: matrix(raw)?, tokens })
        };
        // The last slot is at the end, so its features are the readout's as well.
        let slots = spaces.iter().map(|parts| space(parts, true));
        slots.chain(spaces.last().map(|parts| space(parts, false))).collect()
    }
}
