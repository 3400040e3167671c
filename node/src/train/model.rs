//! What a node computes with: its frozen backbone, the adapters at its slots, and the readout.

use super::{
    TrainError,
    private::{Private, Shape},
    samples::{Goals, Samples},
    trunk::Trunk,
};
use crate::{
    backbone::{Backbone, Batch as Inputs, Head, Hidden, Past, Takes},
    dema::{Adapter, Projections, gates},
    ops::{Linear, Vocabulary},
};
use candle_core::{Device, Result, Tensor};
use candle_nn::loss::cross_entropy;
use heterotune_crypto::Digest;
use heterotune_protocol::{
    charter::{self, Charter, Task},
    mixture::Layout,
};
use std::sync::Arc;

/// What can go wrong when a net computes.
type Outcome<T> = std::result::Result<T, TrainError>;

/// Adapters and the readout's encoder, made from the projections as they are now.
pub(super) struct Model {
    adapters: Vec<Adapter>,
    encoder: Linear,
}

/// The tensors that the model is given: shared ones, or a private readout.
pub(super) struct Parts {
    /// `[M, r, r]` of each slot; none where the network has no branches.
    pub(super) branches: Vec<Tensor>,
    /// Weight `[r_h, C]` and bias `[C]`.
    pub(super) readout: [Tensor; 2],
}

impl Model {
    /// `gates` `[r, M]`, one for each slot; none where the network has no branches.
    pub(super) fn new(projections: &Projections, gates: &[Tensor]) -> Result<Self> {
        let pairs = projections.slots.iter().zip(gates);
        let adapters = pairs.map(|(projection, gate)| Adapter::new(projection, gate)).collect::<Result<_>>()?;
        Ok(Self { adapters, encoder: projections.readout.encoder()? })
    }

    /// Codes `[.., r_h]` of normalised features `[.., d]`.
    pub(super) fn encode(&self, features: &Tensor) -> Result<Tensor> {
        self.encoder.forward(features)
    }

    fn adapt(&self, slot: usize, hidden: &Hidden, branches: &[Tensor]) -> Result<Tensor> {
        match (self.adapters.get(slot), branches.get(slot)) {
            (Some(adapter), Some(branches)) => adapter.forward(&hidden.values, branches),
            _ => Ok(hidden.values.clone()),
        }
    }
}

/// Some rows of samples to learn from.
pub(super) struct Batch<'a> {
    pub(super) samples: &'a Samples,
    pub(super) rows: &'a [u32],
    /// Added to class logits: the log of how frequent each class is here, so that the shared readout need not learn the
    /// node's own label shares.
    pub(super) prior: &'a Tensor,
}

/// The gates that a charter gives each slot; none where it has no branches.
fn gates_of(adapter: &charter::Adapter, device: &Device) -> Outcome<Vec<Tensor>> {
    if adapter.branches == 0 {
        return Ok(Vec::new());
    }
    let gates = gates(adapter.seed, adapter.slots.into(), adapter.rank.into(), adapter.branches.into())?;
    Ok(gates.iter().map(|gate| gate.to_device(device)).collect::<Result<_>>()?)
}

/// A backbone with its slots, and what the charter makes of it.
pub(super) struct Net {
    pub(super) trunk: Trunk,
    pub(super) shape: charter::Adapter,
    pub(super) layout: Layout,
    pub(super) task: Task,
    /// Gate matrices, one a slot; none where the network has no branches.
    pub(super) gates: Vec<Tensor>,
    /// The index of the shared readout that fits the backbone's output.
    pub(super) readout: Option<usize>,
}

impl Net {
    /// A language model whose tokenizer has this digest shares the readout that the charter has for it.
    pub(super) fn new(
        backbone: impl Into<Arc<dyn Backbone>>,
        tokenizer: Option<Digest>,
        charter: &Charter,
    ) -> Outcome<Self> {
        let backbone = backbone.into();
        let readout = match &charter.task {
            Task::CausalLm { vocabularies } => {
                if backbone.head() != Head::Vocabulary {
                    let problem = "this backbone has no language model head; take one with lm_head or tied embeddings";
                    return Err(TrainError::Value(problem.into()));
                }
                vocabularies.iter().position(|vocabulary| Some(vocabulary.tokenizer) == tokenizer)
            }
            _ => Some(0),
        };
        let (adapter, device) = (charter.adapter.clone(), backbone.device().clone());
        Ok(Self {
            trunk: Trunk::new(backbone, adapter.slots.into(), matches!(charter.task, Task::CausalLm { .. })),
            gates: gates_of(&adapter, &device)?,
            shape: adapter,
            layout: Layout::new(charter),
            task: charter.task.clone(),
            readout,
        })
    }

    /// Takes what another charter says of the shared parts. False, and nothing done, where its task or its slots differ:
    /// the backbone is cut by those.
    pub(super) fn renew(&mut self, charter: &Charter) -> Outcome<bool> {
        if charter.task != self.task || usize::from(charter.adapter.slots) != self.trunk.slots() {
            return Ok(false);
        }
        self.gates = gates_of(&charter.adapter, self.device())?;
        (self.shape, self.layout) = (charter.adapter.clone(), Layout::new(charter));
        Ok(true)
    }

    /// The model of the projections as they are.
    pub(super) fn model(&self, private: &Private) -> Result<Model> {
        Model::new(&private.projections, &self.gates)
    }

    /// Logits from the hidden states of samples at the first slot: `[n, C]`, or where tokens are foretold
    /// `[n, tokens, vocabulary]`.
    pub(super) fn logits(&self, model: &Model, parts: &Parts, hidden: Hidden) -> Result<Tensor> {
        let adapt = |slot: usize, hidden: &Hidden| model.adapt(slot, hidden, &parts.branches);
        let [weight, bias] = &parts.readout;
        if !self.foretells() {
            let features = self.trunk.features(hidden, adapt)?;
            return model.encode(&features)?.matmul(weight)?.broadcast_add(bias);
        }
        let end = self.trunk.run(hidden, adapt)?;
        self.read(model, parts, &end)
    }

    /// As [`Net::logits`] of tokens to be foretold, from the hidden states after the last slot.
    pub(super) fn read(&self, model: &Model, parts: &Parts, end: &Hidden) -> Result<Tensor> {
        let [weight, bias] = &parts.readout;
        let codes = model.encode(&self.trunk.normal(end)?.values)?;
        let (texts, tokens, width) = codes.dims3()?;
        let read = codes.reshape((texts * tokens, width))?.matmul(weight)?.broadcast_add(bias)?;
        let own = self.trunk.backbone.logits(end)?;
        own.flatten(0, 1)? + read
    }

    /// The logits `[1, vocabulary]` of what comes after `ids`, which come after those that `past` remembers.
    pub(super) fn next(&self, model: &Model, parts: &Parts, ids: &[u32], past: &mut Past) -> Result<Tensor> {
        let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let lengths = [ids.dim(1)?].into();
        let backbone = self.trunk.backbone.as_ref();
        let start = backbone.embed(&Inputs::Tokens { ids, lengths })?;
        let block = |index: usize, hidden: &Hidden| backbone.block_after(index, hidden, past);
        let end = self.trunk.walk_with(start, block, |slot, hidden| model.adapt(slot, hidden, &parts.branches))?;
        let last = end.values.narrow(1, end.values.dim(1)? - 1, 1)?;
        self.read(model, parts, &Hidden { values: last, lengths: None })
    }

    /// The mean cross entropy of a batch's goals, from its hidden states at the first slot.
    pub(super) fn loss(&self, model: &Model, parts: &Parts, hidden: Hidden, batch: Batch<'_>) -> Result<Tensor> {
        match &batch.samples.goals {
            Goals::Next(goals) => {
                let end = self.trunk.run(hidden, |slot, hidden| model.adapt(slot, hidden, &parts.branches))?;
                let (places, tokens) = goals_of(goals, batch.rows, end.values.dim(1)?);
                self.foretell(model, parts, &end, places, |vocabulary, x, z| vocabulary.loss(x, z, &tokens))
            }
            Goals::Labels(labels) => {
                let logits = self.logits(model, parts, hidden)?;
                let labels: Vec<u32> = batch.rows.iter().filter_map(|row| labels.get(*row as usize).copied()).collect();
                cross_entropy(&logits.broadcast_add(batch.prior)?, &Tensor::new(labels, self.device())?)
            }
            Goals::None => candle_core::bail!("samples without goals can't be learnt from"),
        }
    }

    /// Calls `compute` with what foretells tokens, and with what head and readout read at some places.
    fn foretell<T>(
        &self,
        model: &Model,
        parts: &Parts,
        end: &Hidden,
        places: Vec<u32>,
        compute: impl FnOnce(Vocabulary<'_>, &Tensor, &Tensor) -> Result<T>,
    ) -> Result<T> {
        let values = end.values.flatten(0, 1)?.index_select(&Tensor::new(places, self.device())?, 0)?;
        let chosen = Hidden { values: values.unsqueeze(0)?, lengths: None };
        let codes = model.encode(&self.trunk.normal(&chosen)?.values)?;
        let own = self.trunk.backbone.reading(&chosen)?;
        let [weight, bias] = &parts.readout;
        let vocabulary = Vocabulary { head: &own.weight, softcap: own.softcap, weight, bias };
        compute(vocabulary, &own.values.squeeze(0)?, &codes.squeeze(0)?)
    }

    /// For each text: the sum of its tokens' cross entropies (nats), and how many count.
    pub(super) fn token_losses(&self, model: &Model, parts: &Parts, samples: &Samples) -> Outcome<Vec<(f64, usize)>> {
        let Goals::Next(goals) = &samples.goals else { return Ok(Vec::new()) };
        let mut losses = Vec::new();
        for rows in samples.chunks() {
            let hidden = self.trunk.first(samples, &rows)?;
            let end = self.trunk.run(hidden, |slot, hidden| model.adapt(slot, hidden, &parts.branches))?;
            let (places, tokens) = goals_of(goals, &rows, end.values.dim(1)?);
            let all = match tokens.is_empty() {
                true => Vec::new(),
                false => {
                    self.foretell(model, parts, &end, places, |vocabulary, x, z| vocabulary.losses(x, z, &tokens))?
                }
            };
            let mut all = all.into_iter();
            for row in &rows {
                let count = goals.get(*row as usize).map_or(0, Vec::len);
                losses.push((all.by_ref().take(count).sum(), count));
            }
        }
        Ok(losses)
    }

    /// The class logits `[n, C]` of all of some samples, row-major.
    pub(super) fn all_logits(&self, model: &Model, parts: &Parts, samples: &Samples) -> Outcome<Vec<f32>> {
        let mut logits: Vec<f32> = Vec::new();
        for rows in samples.chunks() {
            let part = self.logits(model, parts, self.trunk.first(samples, &rows)?)?;
            logits.extend(part.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(logits)
    }

    /// What of a mixture's tensors is this node's, with its own readout where it shares none.
    pub(super) fn parts(&self, mixture: &[Tensor], private: &Private) -> Outcome<Parts> {
        let (branches, readouts) = mixture.split_at(self.gates.len());
        let shared =
            self.readout.and_then(|at| Some([readouts.get(2 * at)?.clone(), readouts.get(2 * at + 1)?.clone()]));
        let readout = shared.or_else(|| private.readout.clone());
        let readout = readout.ok_or_else(|| TrainError::Value("a mixture without a readout".into()))?;
        Ok(Parts { branches: branches.to_vec(), readout })
    }

    /// The whole mixture with this node's parts in their places.
    pub(super) fn whole(&self, parts: &Parts, mixture: &[Tensor]) -> Vec<Tensor> {
        let mut whole = mixture.to_vec();
        whole.iter_mut().zip(&parts.branches).for_each(|(tensor, branches)| tensor.clone_from(branches));
        if let Some(at) = self.readout {
            let own = whole.iter_mut().skip(self.gates.len() + 2 * at);
            own.zip(&parts.readout).for_each(|(tensor, part)| tensor.clone_from(part));
        }
        whole
    }

    /// A mixture's groups as tensors.
    pub(super) fn tensors(&self, mixture: &[Vec<f32>]) -> Outcome<Vec<Tensor>> {
        let groups = self.layout.groups();
        let sizes: Vec<usize> = mixture.iter().map(Vec::len).collect();
        if sizes != groups.iter().map(|group| group.values()).collect::<Vec<_>>() {
            return Err(TrainError::Value(format!(
                "a mixture with groups of {sizes:?} values does not fit the charter"
            )));
        }
        let tensors = mixture.iter().zip(groups);
        Ok(tensors
            .map(|(values, group)| Tensor::from_slice(values, group.dims.as_slice(), self.device()))
            .collect::<candle_core::Result<_>>()?)
    }

    /// The model of some private state, and a mixture's parts for it.
    pub(super) fn ready(&self, private: &Private, mixture: &[Vec<f32>]) -> Outcome<(Model, Parts)> {
        Ok((self.model(private)?, self.parts(&self.tensors(mixture)?, private)?))
    }

    /// Where everything is computed: on the backbone's device.
    pub(super) fn device(&self) -> &Device {
        self.trunk.backbone.device()
    }

    /// Whether the task is to foretell tokens.
    pub(super) fn foretells(&self) -> bool {
        matches!(self.task, Task::CausalLm { .. })
    }

    /// The shapes of what is private to a node.
    pub(super) fn private_shape(&self) -> Shape {
        let columns = match self.trunk.backbone.takes() {
            Takes::Tokens { vocabulary, .. } if self.readout.is_none() => Some(vocabulary),
            _ => None,
        };
        Shape {
            width: self.trunk.backbone.width(),
            slots: self.trunk.slots(),
            rank: self.shape.rank.into(),
            readout_rank: self.shape.readout_rank.into(),
            columns,
        }
    }
}

/// The places of all goals of some rows, `length` places each, when the rows are laid end to end, and the tokens.
fn goals_of(goals: &[Vec<(u32, u32)>], rows: &[u32], length: usize) -> (Vec<u32>, Vec<u32>) {
    let length = length as u32;
    let of = (0..).zip(rows).filter_map(|(at, row)| Some((at, goals.get(*row as usize)?)));
    of.flat_map(|(at, goals): (u32, &Vec<(u32, u32)>)| {
        goals.iter().map(move |(place, token)| (at * length + place, *token))
    })
    .unzip()
}
