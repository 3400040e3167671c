//! What the trainer reports, and as which lines of the event log.

use crate::{
    acceptance::Judgement,
    train::{Alone, Description, Score},
};
use heterotune_protocol::{charter::Charter, mixture::Layout, round::Contribution};
use serde_json::{Value, json};

/// What the trainer reports.
#[derive(Debug)]
pub enum Report {
    /// What it has loaded.
    Loaded(Description),
    /// What the node reaches without the network.
    Alone(Alone),
    /// How a language model goes on from a text.
    Sample {
        /// Whether it has learnt with the network.
        after: bool,
        /// The text.
        prompt: String,
        /// What comes after it.
        text: String,
    },
    /// The private projections are fitted, this well (R^2 per space).
    Aligned(Vec<f64>),
    /// Something for the network; where there was training, its loss, and how many tokens (or else samples) were learnt
    /// from in a second.
    Contribution(Contribution, Option<(f32, f64)>),
    /// How good the mixture after this round is on the common test.
    Evaluated(u64, Score),
    /// The same, on the samples by which settings are chosen.
    Validated(u64, Score),
    /// What the node's held-out samples say of the newest mixture.
    Judged(Judgement),
    /// The final mixture is evaluated.
    Finished,
    /// It cannot go on.
    Failed(anyhow::Error),
}

impl Report {
    /// The event that the log is told; none where it is told otherwise.
    pub(crate) fn event(&self, charter: &Charter) -> Option<Value> {
        Some(match self {
            Self::Loaded(backbone) => json!({
                "event": "backbone",
                "model_type": backbone.model_type,
                "width": backbone.width,
                "depth": backbone.depth,
                "parameters": backbone.parameters,
                "shared_parameters": Layout::new(charter).values(),
                "samples": backbone.samples,
                "classes": backbone.classes,
                "left_out": backbone.left_out,
                "shares_readout": backbone.shares_readout,
            }),
            Self::Alone(alone) => json!({
                "event": "alone",
                "chosen": alone.chosen,
                "global": alone.global,
                "own": alone.own,
                "best_of": alone.best_of,
            }),
            Self::Sample { after, prompt, text } => {
                let when = if *after { "after" } else { "before" };
                json!({"event": "sample", "when": when, "prompt": prompt, "text": text})
            }
            Self::Aligned(fit) => json!({"event": "aligned", "fit": fit}),
            Self::Contribution(Contribution::Update { round, .. }, Some((loss, speed))) => {
                json!({"event": "trained", "round": round, "loss": loss, "per_second": speed})
            }
            Self::Evaluated(round, score) => {
                json!({"event": "evaluated", "round": round, "global": score.global, "own": score.own})
            }
            Self::Validated(round, score) => {
                json!({"event": "validated", "round": round, "global": score.global, "own": score.own})
            }
            Self::Judged(judgement) => json!({
                "event": "judged",
                "round": judgement.round,
                "accepted": judgement.accepted(),
                "uses": judgement.uses,
                "loss": judgement.loss,
                "best": judgement.best,
            }),
            Self::Contribution(..) | Self::Finished | Self::Failed(_) => return None,
        })
    }
}
