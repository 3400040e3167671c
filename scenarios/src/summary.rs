//! The summary of a run: `summary.json`, whose names and order are stable.

use crate::{
    Metric, RunError, Scenario,
    damage::Damage,
    events::{Alone, Sample, Score},
    history::{History, mean},
};
use heterotune_crypto::Digest;
use heterotune_protocol::charter::NetworkId;
use serde::Serialize;
use std::path::Path;

/// Bytes of a parameter when whole models are sent.
const PARAMETER_BYTES: f64 = 4.0;

/// What came of a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The scenario's name.
    pub scenario: String,
    /// What all scores in it are.
    pub metric: Metric,
    /// The network's id.
    pub network_id: NetworkId,
    /// Rounds that all nodes closed.
    pub rounds: u64,
    /// Seconds from the first process's start to the last one's end, without ablations.
    pub wall_s: f64,
    /// The nodes, in the scenario's order.
    pub nodes: Vec<NodeSummary>,
    /// The rounds.
    pub round_log: Vec<RoundSummary>,
    /// Means over the nodes.
    pub mean: Means,
    /// What it cost to talk.
    pub bytes: Bytes,
    /// The variants, if they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ablation: Vec<AblationSummary>,
    /// What liars did, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lies: Option<Damage>,
}

/// One node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeSummary {
    /// Its name.
    pub name: String,
    /// Its backbone's folder.
    pub backbone: String,
    /// Hidden size.
    pub width: u64,
    /// Blocks.
    pub depth: u64,
    /// Parameters of the backbone, which stay where they are.
    pub backbone_params: u64,
    /// Values that it shares with the network.
    pub shared_params: u64,
    /// The labels in its training data.
    pub classes_seen: Vec<String>,
    /// The best that it can do by itself.
    pub alone: Alone,
    /// The shared mixture on its backbone: accuracy at the end; perplexity after the round with the node's smallest own.
    pub network: Score,
    /// Bytes sent, all protocols, genesis included.
    pub bytes_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// The most memory it held.
    pub peak_rss_bytes: u64,
    /// The mixture it ended with.
    pub mixture_hash: Digest,
    /// What its model writes, where it writes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
}

/// One round.
#[derive(Clone, Debug, Serialize)]
pub struct RoundSummary {
    /// Which, from 1.
    pub round: u64,
    /// Updates in it.
    pub updates: u64,
    /// The norm of the fused update.
    pub update_norm: f64,
    /// The norm of its branches.
    pub branch_norm: f64,
    /// The mean cosine between updates; none where there is only one.
    pub agreement: Option<f64>,
    /// Global score after it, mean over nodes.
    pub network_global: f64,
    /// The mixture after it.
    pub mixture_hash: Digest,
}

/// Means over the nodes: arithmetic of accuracies, geometric of perplexities.
#[derive(Clone, Debug, Serialize)]
pub struct Means {
    /// Global score alone.
    pub alone_global: f64,
    /// Global score in the network.
    pub network_global: f64,
    /// Own score alone.
    pub alone_own: f64,
    /// Own score in the network.
    pub network_own: f64,
}

/// What it cost to talk.
#[derive(Clone, Debug, Serialize)]
pub struct Bytes {
    /// Bytes sent, all protocols, genesis spread over the rounds.
    pub sent_per_node_per_round: f64,
    /// What sending whole models would cost: each of the N nodes needs the models of the N - 1 others, so that on
    /// average each sends N - 1 of them, whatever the way.
    pub full_model_per_node_per_round: f64,
    /// How many times less was sent.
    pub reduction: f64,
}

/// A variant of the network.
#[derive(Clone, Debug, Serialize)]
pub struct AblationSummary {
    /// Its name.
    pub name: String,
    /// Global score, mean over nodes.
    pub network_global: f64,
    /// Own score, mean over nodes.
    pub network_own: f64,
}

impl Summary {
    /// Sums up what the nodes reported. `logs` is the folder of their event logs.
    ///
    /// # Errors
    /// The first node that did not report something that is needed.
    pub fn new(
        scenario: &Scenario,
        network_id: NetworkId,
        wall_s: f64,
        histories: &[History],
        logs: &Path,
    ) -> Result<Self, RunError> {
        let metric = scenario.metric();
        let nodes: Vec<NodeSummary> = scenario
            .nodes
            .iter()
            .zip(histories)
            .map(|(plan, history)| node(&plan.backbone, metric, history, logs))
            .collect::<Result<_, _>>()?;
        let round_log = round_log(histories, metric);
        let of = |value: fn(&NodeSummary) -> f64| mean(nodes.iter().map(value)).unwrap_or_default();
        let score = |value: fn(&NodeSummary) -> f64| metric.mean(nodes.iter().map(value)).unwrap_or_default();
        let rounds = round_log.len() as u64;
        let sent = of(|node| node.bytes_out as f64) / rounds.max(1) as f64;
        let full = of(|node| node.backbone_params as f64) * PARAMETER_BYTES * nodes.len().saturating_sub(1) as f64;
        Ok(Self {
            scenario: scenario.name.clone(),
            metric,
            network_id,
            rounds,
            wall_s,
            mean: Means {
                alone_global: score(|node| node.alone.score.global),
                network_global: score(|node| node.network.global),
                alone_own: score(|node| node.alone.score.own),
                network_own: score(|node| node.network.own),
            },
            bytes: Bytes {
                sent_per_node_per_round: sent,
                full_model_per_node_per_round: full,
                reduction: full / sent.max(1.0),
            },
            nodes,
            round_log,
            ablation: Vec::new(),
            lies: None,
        })
    }

    /// The summary as JSON.
    ///
    /// # Errors
    /// Never, as far as known: all that is in it can be written as JSON.
    pub fn to_json(&self) -> Result<String, RunError> {
        let json = serde_json::to_string_pretty(self);
        json.map_err(|error| RunError::Encode { what: "the summary", message: error.to_string() })
    }
}

impl AblationSummary {
    /// Sums up a variant.
    pub(crate) fn new(name: &str, metric: Metric, histories: &[History]) -> Self {
        let Score { global, own } = History::mean_score(histories, metric);
        Self { name: name.into(), network_global: global, network_own: own }
    }
}

fn node(backbone: &Path, metric: Metric, history: &History, logs: &Path) -> Result<NodeSummary, RunError> {
    let missing = |what| RunError::Incomplete {
        node: history.name.clone(),
        what,
        log: logs.join(&history.name).join("events.jsonl"),
    };
    let model = history.backbone.as_ref().ok_or_else(|| missing("its backbone"))?;
    let finished = history.finished.as_ref().ok_or_else(|| missing("its end"))?;
    Ok(NodeSummary {
        name: history.name.clone(),
        backbone: backbone.file_name().unwrap_or(backbone.as_os_str()).to_string_lossy().into_owned(),
        width: model.width,
        depth: model.depth,
        backbone_params: model.parameters,
        shared_params: model.shared_parameters,
        classes_seen: model.classes.clone(),
        alone: history.alone.clone().ok_or_else(|| missing("how good it is alone"))?,
        network: metric.result(&history.scores).ok_or_else(|| missing("how good it is"))?,
        bytes_out: finished.bytes_out,
        bytes_in: finished.bytes_in,
        peak_rss_bytes: finished.peak_rss_bytes,
        mixture_hash: finished.mixture_hash,
        samples: history.samples.clone(),
    })
}

/// The rounds as the first node closed them: the checks made sure that the others did the same.
fn round_log(histories: &[History], metric: Metric) -> Vec<RoundSummary> {
    let rounds = histories.first().into_iter().flat_map(|node| node.rounds.values());
    let summary = |closed: &crate::events::Closed| RoundSummary {
        round: closed.round,
        updates: closed.updates,
        update_norm: closed.update_norm,
        branch_norm: closed.branch_norm,
        agreement: closed.agreement,
        network_global: History::mean_score_after(histories, closed.round, metric).map_or(0.0, |score| score.global),
        mixture_hash: closed.mixture_hash,
    };
    rounds.map(summary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_json_is_the_documented_one() {
        let scenario = Scenario::quickstart().unwrap();
        let id = testing::charter(8, 2).id().unwrap();
        let summary = Summary::new(&scenario, id, 1.5, &testing::histories(8, 2), Path::new("x")).unwrap();
        let json = summary.to_json().unwrap();
        let mut rest = json.as_str();
        for key in [
            "scenario",
            "metric",
            "network_id",
            "rounds",
            "wall_s",
            "nodes",
            "name",
            "backbone",
            "width",
            "depth",
            "backbone_params",
            "shared_params",
            "classes_seen",
            "alone",
            "global",
            "own",
            "best_of",
            "global",
            "own",
            "network",
            "global",
            "own",
            "bytes_out",
            "bytes_in",
            "peak_rss_bytes",
            "mixture_hash",
            "round_log",
            "round",
            "updates",
            "update_norm",
            "branch_norm",
            "agreement",
            "network_global",
            "mixture_hash",
            "mean",
            "alone_global",
            "network_global",
            "alone_own",
            "network_own",
            "bytes",
            "sent_per_node_per_round",
            "full_model_per_node_per_round",
            "reduction",
        ] {
            let key = format!("\"{key}\":");
            let at = rest.find(&key).unwrap_or_else(|| panic!("{key} is missing or out of place"));
            rest = &rest[at + key.len()..];
        }
        assert!(!["ablation", "lies", "samples"].iter().any(|key| json.contains(&format!("\"{key}\""))));
        assert_eq!(summary.bytes.full_model_per_node_per_round, 450_000.0 * 4.0 * 7.0);
        assert_eq!(summary.bytes.sent_per_node_per_round, 100_000.0);
        assert_eq!(summary.bytes.reduction, 126.0);
    }

    #[test]
    fn a_node_that_said_too_little_is_named() {
        let mut histories = testing::histories(8, 2);
        histories[3].alone = None;
        let id = testing::charter(8, 2).id().unwrap();
        let error = Summary::new(&Scenario::quickstart().unwrap(), id, 1.5, &histories, Path::new("x")).unwrap_err();
        assert!(error.to_string().starts_with("node node-3 finished without reporting how good it is alone"));
    }
}
