//! What the trainer reports, as lines of the event log.

use super::Report;
use heterotune_protocol::{charter::Charter, mixture::Layout, round::Contribution};
use serde_json::{Value, json};

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
