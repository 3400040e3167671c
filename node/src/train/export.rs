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
    let private = Private::decode(&snapshot.private, net.private_shape())?.on(net.device())?;
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
/// Only a linear map of what the backbone's own classifier is given could be, and none is quite. Branches are nonlinear.
/// Of the readout ((mean of LN(h)) - mu) P W + b, with LN without weights, mu, P, W and b could be one matrix and a bias;
/// but heads of texts are given h and have no norm to make LN(h) of it, and ViT's and DeiT's are given no patches. DINOv2's
/// is given the mean of g LN'(h) + c over the patches, of which 1 / g and c could be taken out by the matrix too; but LN'
/// adds another epsilon (1e-6) to each token's variance than LN (1e-5), so the two differ by a factor for every token.
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
    let but = match model_type {
        "vit" | "deit" => "it reads the patches, and that classifier is given none",
        "dinov2" => "that classifier is given tokens that are normalised with another epsilon, each off by a factor",
        _ => "it reads tokens that are layer-normalised once more, and that classifier has no such norm",
    };
    format!(
        "the readout can't be folded into a {model_type} classifier: {but}; use the adapter with the recipe beside it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_crypto::Identity;
    use heterotune_protocol::charter::Anchors;

    fn told(task: Task, branches: u8, model_type: &str) -> String {
        let anchors = Anchors { digest: Anchors::digest_of(b""), count: 8 };
        let mut charter = Charter::new("test", vec![Identity::from_seed(1, "a").id()], task, anchors);
        charter.adapter.branches = branches;
        merge_refusal(&charter, model_type)
    }

    #[test]
    fn what_can_not_be_merged_is_told_by_what_the_backbone_lacks() {
        let images = || Task::ImageClassification { labels: vec!["a".into(), "b".into()] };
        let texts = || Task::TextClassification { labels: vec!["a".into(), "b".into()] };
        assert!(told(Task::CausalLm { vocabularies: vec![] }, 0, "llama").contains("root-mean-square"));
        assert!(told(images(), 2, "vit").contains("branches are nonlinear"));
        for (task, model_type, reason) in [
            (images(), "vit", "a vit classifier: it reads the patches"),
            (images(), "deit", "is given none"),
            (images(), "dinov2", "another epsilon"),
            (texts(), "bert", "layer-normalised once more"),
            (texts(), "xlm-roberta", "layer-normalised once more"),
        ] {
            assert!(told(task, 0, model_type).contains(reason), "{model_type}");
        }
    }
}
