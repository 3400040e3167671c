//! The frozen backbone, cut at its slots, and samples whose way to the first slot is walked only once.

use super::checkpoint;
use crate::{
    backbone::{Backbone, Batch, Hidden},
    data::{Inputs, Set, Targets},
    dema,
    ops::LayerNorm,
};
use candle_core::{DType, Device, Result, Tensor};
use std::sync::Arc;

/// Samples that go through the backbone together.
pub(super) const CHUNK: usize = 64;

/// Hidden states that are kept, of all samples together: beyond this they are made anew for each batch.
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

/// Samples, and what the backbone makes of their inputs up to the first slot.
pub(super) struct Samples {
    kept: Kept,
    pub(super) goals: Goals,
}

enum Kept {
    Inputs(Inputs),
    /// Hidden states, padded to the longest.
    Hidden(Hidden),
}

/// What should come out for each sample.
pub(super) enum Goals {
    None,
    Labels(Vec<u32>),
    /// For each sample: the tokens that count, each with the place before it, from where it is foretold.
    Next(Vec<Vec<(u32, u32)>>),
}

impl Goals {
    /// How many tokens, or else samples, count among some rows.
    pub(super) fn count(&self, rows: &[u32]) -> usize {
        match self {
            Self::Next(goals) => rows.iter().filter_map(|row| goals.get(*row as usize)).map(Vec::len).sum(),
            _ => rows.len(),
        }
    }

    fn new(set: &Set) -> Self {
        match (&set.targets, &set.inputs) {
            (Targets::Labels(labels), _) => Self::Labels(labels.clone()),
            (Targets::Next(counted), Inputs::Tokens(texts)) => {
                let goals = texts.iter().zip(counted).map(|(text, counted)| {
                    let tokens = (0..).zip(text.iter().zip(counted).skip(1));
                    tokens.filter(|(_, (_, counts))| **counts).map(|(place, (token, _))| (place, *token)).collect()
                });
                Self::Next(goals.collect())
            }
            _ => Self::None,
        }
    }
}

impl Samples {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match &self.kept {
            Kept::Inputs(inputs) => inputs.len(),
            Kept::Hidden(hidden) => hidden.values.dims().first().copied().unwrap_or(0),
        }
    }

    /// The index of each sample's label; none where there are no labels.
    pub(super) fn labels(&self) -> &[u32] {
        match &self.goals {
            Goals::Labels(labels) => labels,
            _ => &[],
        }
    }

    /// How many there are of each of `classes` classes.
    pub(super) fn counts(&self, classes: usize) -> Vec<u32> {
        let mut counts = vec![0; classes];
        for label in self.labels() {
            counts.get_mut(*label as usize).into_iter().for_each(|count| *count += 1);
        }
        counts
    }

    /// All row numbers, in pieces.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Vec<u32>> {
        let end = self.len() as u32;
        (0..end).step_by(CHUNK).map(move |start| (start..end.min(start + CHUNK as u32)).collect())
    }
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

    /// Whether the hidden states of all these are worth keeping.
    pub(super) fn fits_cache<'a>(&self, inputs: impl Iterator<Item = &'a Inputs>) -> bool {
        let bytes = inputs.map(|inputs| {
            let tokens = match inputs {
                Inputs::Pixels(_) => self.backbone.tokens(),
                Inputs::Tokens(texts) => texts.iter().map(Vec::len).max().unwrap_or(0),
            };
            inputs.len().saturating_mul(tokens).saturating_mul(4 * self.backbone.width())
        });
        bytes.fold(0, usize::saturating_add) <= CACHE_BYTES_MAX
    }

    /// Samples, walked to the first slot if they are to be kept there.
    pub(super) fn samples(&self, set: Set, cached: bool) -> Result<Samples> {
        let raw = Samples { goals: Goals::new(&set), kept: Kept::Inputs(set.inputs) };
        if !cached {
            return Ok(raw);
        }
        let parts = raw.chunks().map(|rows| self.first(&raw, &rows)).collect::<Result<Vec<_>>>()?;
        Ok(Samples { kept: Kept::Hidden(Hidden::cat(&parts)?), ..raw })
    }

    /// The hidden states of some samples at the first slot.
    pub(super) fn first(&self, samples: &Samples, rows: &[u32]) -> Result<Hidden> {
        match &samples.kept {
            Kept::Hidden(hidden) => hidden.rows(rows),
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
