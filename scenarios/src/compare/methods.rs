//! What can be compared: methods by name, each a change of what the scenario says.

use super::search::SearchPlan;
use crate::{RunError, Scenario, TrainPlan, Variant};

/// How a method's result comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Without the network.
    Alone,
    /// The same, with the data of all nodes.
    Pooled,
    /// From what the network agrees on before its first round.
    Start,
    /// By its rounds.
    Rounds,
}

/// A method to compare.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    pub(crate) about: String,
    pub(crate) kind: Kind,
    /// Its name, and what it changes.
    pub(crate) variant: Variant,
}

/// A method that is built in.
struct Known {
    name: &'static str,
    kind: Kind,
    /// Charter settings, as TOML.
    changes: &'static str,
    about: &'static str,
}

/// What [`Kind::Alone`] is called.
pub(crate) const LOCAL: &str = "local";

/// What the scenario itself is called.
pub(crate) const FULL: &str = "full";

const fn known(name: &'static str, kind: Kind, changes: &'static str, about: &'static str) -> Known {
    Known { name, kind, changes, about }
}

const METHODS: [Known; 15] = [
    known(LOCAL, Kind::Alone, "", "what each node reaches by itself, trained until it learns no more; no network"),
    known(
        "centralised",
        Kind::Pooled,
        "",
        "as local, but each backbone has the data of all nodes (own: by the pool's shares of the classes)",
    ),
    known(FULL, Kind::Rounds, "", "everything as the file says"),
    known(
        "statistics",
        Kind::Start,
        "adapter.readout = 'statistics'",
        "aligned, with a readout from everybody's class statistics, and no round of training",
    ),
    known(
        "readout",
        Kind::Rounds,
        "adapter.branches = 0",
        "the shared readout alone, no branches inside the backbones",
    ),
    known(
        "trained",
        Kind::Rounds,
        "adapter.readout = 'trained'",
        "the readout starts at zero instead of at the class statistics",
    ),
    known(
        "unaligned",
        Kind::Rounds,
        "adapter.alignment = 'random'\nadapter.readout = 'trained'",
        "random projections, each node its own, so that shared values mean nothing in common; readout from zero",
    ),
    known(
        "mean",
        Kind::Rounds,
        "fusion.rule = 'mean'\nfusion.screen = false",
        "the plain mean of the updates, and nobody is left out",
    ),
    known(
        "unit-mean",
        Kind::Rounds,
        "fusion.rule = 'cmga'\nfusion.align = 'none'\nfusion.norms = 'equal'",
        "the mean of updates that are brought to one norm",
    ),
    known(
        "cmga:none",
        Kind::Rounds,
        "fusion.rule = 'cmga'\nfusion.align = 'none'",
        "CMGA that clips and screens updates, but does not reconcile their directions",
    ),
    known(
        "cmga:pcgrad",
        Kind::Rounds,
        "fusion.rule = 'cmga'\nfusion.align = 'pcgrad'",
        "CMGA by PCGrad: each update loses what conflicts with another",
    ),
    known(
        "cmga:nash",
        Kind::Rounds,
        "fusion.rule = 'cmga'\nfusion.align = 'nash'",
        "CMGA by the Nash bargaining solution's weights",
    ),
    known("trimmed", Kind::Rounds, "fusion.rule = 'trimmed'", "the coordinate-wise trimmed mean of the updates"),
    known("geomedian", Kind::Rounds, "fusion.rule = 'geomedian'", "the geometric median of the updates"),
    known("ties", Kind::Rounds, "fusion.rule = 'ties'", "TIES-merging of the updates"),
];

/// The built-in methods, a line each.
pub fn list() -> String {
    METHODS.iter().map(|known| format!("  {:<12} {}\n", known.name, known.about)).collect()
}

impl Method {
    /// The method of this name: an ablation of the scenario's, or else one that is built in.
    pub(crate) fn named(name: &str, scenario: &Scenario) -> Result<Self, RunError> {
        if let Some(variant) = scenario.ablations.iter().find(|variant| variant.name == name) {
            let about = "as the file's [[ablation]] says".into();
            return Ok(Self { about, kind: Kind::Rounds, variant: variant.clone() });
        }
        let Some(known) = METHODS.iter().find(|known| known.name == name) else {
            let builtin = METHODS.iter().map(|known| known.name.to_owned());
            let all: Vec<String> =
                builtin.chain(scenario.ablations.iter().map(|variant| variant.name.clone())).collect();
            return Err(RunError::NoMethod { name: name.into(), known: all.join(", ") });
        };
        let network = known
            .changes
            .parse()
            .map_err(|error: toml::de::Error| RunError::Encode { what: "a method", message: error.to_string() })?;
        let mut variant = Variant { name: name.into(), network, train: None, search: None };
        if known.kind == Kind::Start {
            // No round counts; there must be one.
            variant.network.insert("rounds".into(), toml::Table::from_iter([("total".into(), 1.into())]).into());
        }
        Ok(Self { about: known.about.into(), kind: known.kind, variant })
    }

    /// How its nodes train, where nothing else is chosen.
    pub(crate) fn train<'a>(&'a self, scenario: &'a Scenario) -> &'a TrainPlan {
        self.variant.train.as_ref().unwrap_or(&scenario.train)
    }

    /// What is tried for it, where the file says it.
    pub(crate) fn search<'a>(&'a self, scenario: &'a Scenario) -> Option<&'a SearchPlan> {
        self.variant.search.as_ref().or(scenario.search.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_crypto::Digest;
    use heterotune_protocol::charter::{Alignment, Anchors, Readout, Task};

    #[test]
    fn every_method_makes_a_charter_of_its_own() {
        let scenario = Scenario::quickstart().unwrap();
        let task = Task::ImageClassification { labels: (0..10).map(|digit| digit.to_string()).collect() };
        let anchors = Anchors { digest: Digest::ZERO, count: 128 };
        let charter = |name: &str| {
            let method = Method::named(name, &scenario).unwrap();
            scenario.charter(1, task.clone(), anchors.clone(), Some(&method.variant)).unwrap()
        };
        let mut ids: Vec<_> = METHODS.iter().map(|known| charter(known.name).id().unwrap()).collect();
        ids.sort();
        ids.dedup();
        // The quickstart is CMGA by PCGrad, and starts from statistics; what nodes reach alone is no charter's matter.
        assert_eq!(ids.len(), METHODS.len() - 3);
        // A language model by itself trains for as many rounds as the network has.
        assert_eq!(["statistics", "full", "local"].map(|name| charter(name).rounds.total), [1, 10, 10]);
        let unaligned = charter("unaligned").adapter;
        assert_eq!((unaligned.alignment, unaligned.readout), (Alignment::Random, Readout::Trained));
        assert_eq!(charter("readout-only").adapter.branches, 0);
        let message = Method::named("magic", &scenario).unwrap_err().to_string();
        assert!(message.starts_with("there is no method magic") && message.contains("without-alignment"), "{message}");
    }
}
