//! The frozen backbone, cut at its slots, and samples whose way to the first slot is walked only once.

use crate::{backbone::Backbone, dema, ops::LayerNorm};
use candle_core::{Device, Result, Tensor};

/// Samples that go through the backbone together.
pub(super) const CHUNK: usize = 64;

/// Hidden states that are kept, of all samples together: beyond this they are made anew for each batch.
const CACHE_BYTES_MAX: usize = 256 << 20;

/// A backbone and where its slots are.
pub(super) struct Trunk {
    pub(super) backbone: Box<dyn Backbone>,
    positions: Vec<usize>,
    norm: LayerNorm,
}

/// Samples: pixels, or what the backbone makes of them up to the first slot.
pub(super) struct Samples {
    /// Pixels `[n, pixels]`, or hidden states `[n, tokens, d]`.
    inputs: Tensor,
    /// Whether `inputs` are hidden states.
    cached: bool,
    /// The index of each sample's label, where there are labels.
    pub(super) labels: Vec<u32>,
}

impl Samples {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.inputs.dims().first().copied().unwrap_or(0)
    }

    /// How many there are of each of `classes` classes.
    pub(super) fn counts(&self, classes: usize) -> Vec<u32> {
        let mut counts = vec![0; classes];
        for label in &self.labels {
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
    pub(super) fn new(backbone: Box<dyn Backbone>, slots: usize) -> Self {
        let positions = dema::positions(backbone.depth(), slots);
        Self { backbone, positions, norm: LayerNorm::plain() }
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.positions.len()
    }

    /// Whether the hidden states of so many samples are worth keeping.
    pub(super) fn fits_cache(&self, samples: usize) -> bool {
        let bytes =
            [self.backbone.tokens(), self.backbone.width(), 4].iter().try_fold(samples, |a, b| a.checked_mul(*b));
        bytes.is_some_and(|bytes| bytes <= CACHE_BYTES_MAX)
    }

    /// Samples from pixels `[n, pixels]`, walked to the first slot if they are to be kept there.
    pub(super) fn samples(&self, pixels: Tensor, labels: Vec<u32>, cached: bool) -> Result<Samples> {
        let raw = Samples { inputs: pixels, cached: false, labels };
        if !cached {
            return Ok(raw);
        }
        let parts = raw.chunks().map(|rows| self.first(&raw, &rows)).collect::<Result<Vec<_>>>()?;
        Ok(Samples { inputs: Tensor::cat(&parts, 0)?, cached: true, labels: raw.labels })
    }

    /// The hidden states `[rows, tokens, d]` of some samples at the first slot.
    pub(super) fn first(&self, samples: &Samples, rows: &[u32]) -> Result<Tensor> {
        let rows = Tensor::new(rows, &Device::Cpu)?;
        let inputs = samples.inputs.index_select(&rows, 0)?;
        if samples.cached {
            return Ok(inputs);
        }
        self.walk(self.backbone.embed(&inputs)?, 0, self.positions.first().copied().unwrap_or(0))
    }

    /// Through the blocks from `start` to before `end`.
    fn walk(&self, hidden: Tensor, start: usize, end: usize) -> Result<Tensor> {
        (start..end).try_fold(hidden, |hidden, index| self.backbone.block(index, &hidden))
    }

    /// From the first slot to pooled, normalised features `[n, d]`, through what `adapt` does at every slot. There is
    /// no block behind the last slot.
    pub(super) fn features(
        &self,
        hidden: Tensor,
        mut adapt: impl FnMut(usize, Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut hidden = adapt(0, hidden)?;
        for (slot, ends) in self.positions.windows(2).enumerate() {
            if let [start, end] = ends {
                hidden = adapt(slot + 1, self.walk(hidden, *start, *end)?)?;
            }
        }
        self.pooled(&hidden)
    }

    /// LN(h), pooled: `[n, tokens, d]` to `[n, d]`.
    fn pooled(&self, hidden: &Tensor) -> Result<Tensor> {
        self.backbone.pool(&self.norm.forward(hidden)?)
    }

    /// What the frozen backbone makes of samples in every space: the slots, then the end.
    pub(super) fn spaces(&self, samples: &Samples) -> Result<Vec<dema::Features>> {
        let mut spaces: Vec<[Vec<Tensor>; 3]> = (0..self.slots()).map(|_| Default::default()).collect();
        for rows in samples.chunks() {
            self.features(self.first(samples, &rows)?, |slot, hidden| {
                if let Some([tokens, pooled, raw]) = spaces.get_mut(slot) {
                    let normal = self.norm.forward(&hidden)?;
                    pooled.push(self.backbone.pool(&normal)?);
                    raw.push(self.backbone.pool(&hidden)?);
                    tokens.push(normal.flatten(0, 1)?);
                }
                Ok(hidden)
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
