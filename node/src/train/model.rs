//! What a node computes with: its frozen backbone, the adapters at its slots, and the readout.

use super::{
    Learner, TrainError,
    private::Private,
    score::cross_entropies,
    trunk::{Goals, Samples},
};
use crate::{
    backbone::Hidden,
    dema::{Adapter, Projections},
    ops::Linear,
};
use candle_core::{Device, Result, Tensor};
use candle_nn::loss::cross_entropy;

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

impl Learner {
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
        let codes = model.encode(&self.trunk.normal(&end)?.values)?;
        let (texts, tokens, width) = codes.dims3()?;
        let read = codes.reshape((texts * tokens, width))?.matmul(weight)?.broadcast_add(bias)?;
        let own = self.trunk.backbone.logits(&end)?;
        own.flatten(0, 1)? + read
    }

    /// The mean cross entropy of some samples' goals. Class logits get `prior` added, the log of how frequent each
    /// class is here, so that the shared readout need not learn the node's own label shares.
    pub(super) fn loss(&self, logits: &Tensor, samples: &Samples, rows: &[u32], prior: &Tensor) -> Result<Tensor> {
        match &samples.goals {
            Goals::Next(goals) => {
                let (places, tokens) = goals_of(goals, rows, logits.dim(0)?);
                cross_entropy(
                    &logits.index_select(&Tensor::new(places, &Device::Cpu)?, 0)?,
                    &Tensor::new(tokens, &Device::Cpu)?,
                )
            }
            Goals::Labels(labels) => {
                let labels: Vec<u32> = rows.iter().filter_map(|row| labels.get(*row as usize).copied()).collect();
                cross_entropy(&logits.broadcast_add(prior)?, &Tensor::new(labels, &Device::Cpu)?)
            }
            Goals::None => candle_core::bail!("samples without goals can't be learnt from"),
        }
    }

    /// For each text: the sum of its tokens' cross entropies (nats), and how many count.
    pub(super) fn token_losses(
        &self,
        model: &Model,
        parts: &Parts,
        samples: &Samples,
    ) -> std::result::Result<Vec<(f64, usize)>, TrainError> {
        let mut losses = Vec::new();
        for rows in samples.chunks() {
            let logits = self.logits(model, parts, self.trunk.first(samples, &rows)?)?;
            if let Goals::Next(goals) = &samples.goals {
                let (places, tokens) = goals_of(goals, &rows, logits.dim(0)?);
                let width = logits.dim(1)?;
                let logits: Vec<f32> =
                    logits.index_select(&Tensor::new(places, &Device::Cpu)?, 0)?.flatten_all()?.to_vec1()?;
                let mut all = cross_entropies(&logits, &tokens, width);
                for row in &rows {
                    let count = goals.get(*row as usize).map_or(0, Vec::len);
                    losses.push((all.by_ref().take(count).sum(), count));
                }
            }
        }
        Ok(losses)
    }
}

/// The places of all goals of some rows in their logits, laid end to end (`total` places of all rows), and the tokens.
fn goals_of(goals: &[Vec<(u32, u32)>], rows: &[u32], total: usize) -> (Vec<u32>, Vec<u32>) {
    let length = (total / rows.len().max(1)) as u32;
    let of = (0..).zip(rows).filter_map(|(at, row)| Some((at, goals.get(*row as usize)?)));
    of.flat_map(|(at, goals): (u32, &Vec<(u32, u32)>)| {
        goals.iter().map(move |(place, token)| (at * length + place, *token))
    })
    .unzip()
}
