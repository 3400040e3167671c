//! What a node has learnt, for programs that are not ours: a safetensors file, a configuration, and how to use them.

use super::{Snapshot, TrainError, model::Net, private::Private};
use crate::{
    backbone,
    dema::{self, Entry},
    ops::EPSILON,
};
use heterotune_protocol::charter::{Charter, Task};
use serde_json::{Value, json};
use std::path::Path;

/// How to compute with the files, for people and for `transformers`.
pub const RECIPE: &str = include_str!("recipe.md");

/// The files of an exported adapter.
pub struct Export {
    /// `adapter_model.safetensors`.
    pub weights: Vec<u8>,
    /// `adapter_config.json`.
    pub config: Value,
}

/// The adapter that a node of the charter's network had after a round, for the backbone in `folder`.
///
/// # Errors
/// A backbone that can't be loaded, or that the snapshot does not belong to.
pub fn export(
    folder: &Path,
    options: backbone::Options,
    charter: &Charter,
    snapshot: &Snapshot,
) -> Result<Export, TrainError> {
    let backbone = backbone::load(folder, options)?;
    let desk = super::load::Desk::open(folder, backbone.as_ref())?;
    let (model_type, width, depth) = (backbone.model_type().to_string(), backbone.width(), backbone.depth());
    let net = Net::new(backbone, desk.digest(), charter)?;
    let private = Private::decode(&snapshot.private, net.private_shape())?;
    let parts = net.parts(&net.tensors(&snapshot.mixture)?, &private)?;

    let mut entries = private.projections.entries()?;
    let mut put = |name: String, tensor: &candle_core::Tensor| -> Result<(), TrainError> {
        entries.push((name, tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1()?));
        Ok(())
    };
    for (slot, (gate, branches)) in net.gates.iter().zip(&parts.branches).enumerate() {
        put(format!("slot.{slot}.gate"), gate)?;
        put(format!("slot.{slot}.branches"), branches)?;
    }
    for (name, tensor) in ["readout.weight", "readout.bias"].into_iter().zip(&parts.readout) {
        put(name.into(), tensor)?;
    }
    if net.gates.is_empty() {
        entries.retain(|(name, ..): &Entry| !name.starts_with("slot."));
    }
    let adapter = &charter.adapter;
    let positions = if net.gates.is_empty() { vec![] } else { dema::positions(depth, adapter.slots.into()) };
    let task = match &charter.task {
        Task::CausalLm { .. } => json!({"kind": "causal-lm"}),
        task => json!({"kind": "classification", "labels": task.labels()}),
    };
    let config = json!({
        "format": "heterotune-dema",
        "version": 1,
        "network": charter.name,
        "round": snapshot.round,
        "base": {"model_type": model_type, "hidden_size": width, "num_hidden_layers": depth},
        "task": task,
        "after_blocks": positions,
        "branches": adapter.branches,
        "rank": adapter.rank,
        "readout_rank": adapter.readout_rank,
        "layer_norm_eps": EPSILON,
    });
    Ok(Export { weights: dema::encode(entries)?, config })
}

/// Why an adapter can't be merged into its backbone's own files.
///
/// Only a linear map of what the backbone's own head is given could be, and none is: branches are nonlinear, and the
/// readout looks at the mean of normalised tokens, which no head of these families does but DINOv2's, whose norm has
/// weights.
pub fn merge_refusal(charter: &Charter, model_type: &str) -> String {
    if matches!(charter.task, Task::CausalLm { .. }) {
        return "a language model's readout can't be merged: it reads the layer-normalised state, the model's own head \
                the root-mean-square-normalised one, and no one matrix does both"
            .into();
    }
    if charter.adapter.branches > 0 {
        return "branches are nonlinear, so they can't be merged into the backbone's matrices; use the adapter with the \
                recipe beside it, or a network with branches = 0"
            .into();
    }
    format!(
        "the readout can't be folded into a {model_type} classifier: it reads the mean of the tokens, each \
         layer-normalised without weights, which that classifier is not given; use the adapter with the recipe beside it"
    )
}
