//! What lies do: how good the honest nodes are among liars, and whom the screens left out.

use crate::{Lie, Metric, Scenario, Score, history::History, table};
use heterotune_crypto::NodeId;
use heterotune_protocol::charter::Charter;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// The honest nodes' scores, among themselves and among liars; means over the honest nodes.
#[derive(Clone, Debug, Serialize)]
pub struct Damage {
    /// What the scores are.
    #[serde(skip)]
    pub metric: Metric,
    /// Who lies.
    pub liars: Vec<String>,
    /// Without the liars: what lies are measured against.
    pub honest_alone: Score,
    /// With them, when they are honest too.
    pub all_honest: Score,
    /// With them, lying.
    pub lies: Vec<LieSummary>,
}

/// What came of one lie.
#[derive(Clone, Debug, Serialize)]
pub struct LieSummary {
    /// The lie.
    pub lie: Lie,
    /// How good the honest nodes are.
    #[serde(flatten)]
    pub score: Score,
    /// Whose word did not count.
    pub left_out: LeftOut,
}

/// Nodes, liars or not, whose contributions the honest ones did not use.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LeftOut {
    /// By the screens of kernels and statistics.
    pub genesis: Vec<String>,
    /// By the screen of updates, in so many rounds.
    pub rounds: BTreeMap<String, u64>,
    /// Whose updates never came because they were refused, and the first reason.
    pub refused: BTreeMap<String, String>,
}

impl LieSummary {
    /// Sums up what the honest nodes of a `scenario` with liars reported.
    pub(crate) fn new(lie: Lie, scenario: &Scenario, charter: &Charter, honest: &[History]) -> Self {
        let name = |id: &NodeId| {
            let at = charter.founders.iter().position(|founder| founder == id);
            at.and_then(|at| scenario.nodes.get(at)).map_or_else(|| id.short(), |node| node.name.clone())
        };
        let mut left_out = LeftOut::default();
        // All honest nodes compute the same; what each is sent may differ.
        if let Some(one) = honest.first() {
            // A node may be left out of both halves of genesis.
            let genesis: BTreeSet<String> = one.left_out.iter().map(name).collect();
            left_out.genesis = genesis.into_iter().collect();
            for id in one.rounds.values().flat_map(|closed| &closed.left_out) {
                *left_out.rounds.entry(name(id)).or_default() += 1;
            }
        }
        // One may also be refused what came twice, or late; that keeps nobody waiting.
        let refused = honest.iter().flat_map(|node| node.refused.iter().filter(|(id, _)| node.missed.contains(id)));
        for (id, reason) in refused {
            left_out.refused.entry(name(id)).or_insert_with(|| reason.clone());
        }
        Self { lie, score: History::mean_score(honest, scenario.metric()), left_out }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.rounds.iter().map(|(name, rounds)| format!("{name} x{rounds}"));
        let groups: [(&str, Vec<String>); 3] = [
            ("genesis", self.genesis.clone()),
            ("rounds", rounds.collect()),
            ("refused", self.refused.keys().cloned().collect()),
        ];
        let said = groups.iter().filter(|(_, names)| !names.is_empty());
        let said: Vec<_> = said.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
        f.write_str(if said.is_empty() { "nobody".into() } else { said.join("; ") }.as_str())
    }
}

impl Damage {
    /// The columns of its table.
    pub(crate) fn columns(&self) -> Vec<String> {
        let gain = format!("{} to the honest alone: global", self.metric.gain_unit());
        let columns = ["lie", "left out", "honest nodes' global", "own", gain.as_str(), "own"];
        columns.map(String::from).to_vec()
    }

    /// How many of them hold text.
    pub(crate) const TEXT_COLUMNS: usize = 2;

    /// The rows of its table.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let (metric, base) = (self.metric, self.honest_alone);
        let row = |name: &str, score: Score, left_out: String| {
            vec![
                name.to_owned(),
                left_out,
                metric.cell(score.global),
                metric.cell(score.own),
                metric.gain(score.global, base.global),
                metric.gain(score.own, base.own),
            ]
        };
        let controls = [("the honest alone", self.honest_alone), ("nobody lies", self.all_honest)];
        let controls = controls.map(|(name, score)| row(name, score, String::new()));
        let lies = self.lies.iter().map(|one| row(one.lie.name(), one.score, one.left_out.to_string()));
        controls.into_iter().chain(lies).collect()
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = [self.columns()].into_iter().chain(self.rows()).collect();
        f.write_str(&table::align(&rows, Self::TEXT_COLUMNS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn who_was_left_out_is_counted_and_named() {
        let (scenario, charter) = (Scenario::quickstart().unwrap(), testing::charter(8, 2));
        let mut honest = testing::histories(6, 2);
        let liar = charter.founders[7];
        honest[0].left_out = vec![liar, liar];
        honest[0].rounds.values_mut().for_each(|closed| closed.left_out = vec![liar]);
        honest[5].refused.insert(charter.founders[6], "out of range".into());
        honest[5].missed.insert(charter.founders[6]);
        honest[4].refused.insert(charter.founders[0], "stale".into());
        let one = LieSummary::new(Lie::Noise, &scenario, &charter, &honest);
        assert_eq!(one.left_out.to_string(), "genesis: hedy; rounds: hedy x2; refused: grace");
        assert_eq!(LeftOut::default().to_string(), "nobody");
        let alone = Score { global: one.score.global + 0.02, own: one.score.own };
        let damage =
            Damage { metric: Metric::Accuracy, liars: vec![], honest_alone: alone, all_honest: alone, lies: vec![one] };
        assert_eq!(damage.rows()[2][4..], ["-2.0", "+0.0"]);
        assert_eq!(damage.to_string().lines().count(), 4);
        let json = serde_json::to_value(&damage.lies[0]).unwrap();
        assert_eq!((&json["lie"], &json["left_out"]["rounds"]["hedy"]), (&"noise".into(), &2.into()));
        assert!(json["global"].is_f64());
    }
}
