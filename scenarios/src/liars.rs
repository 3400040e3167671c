//! Nodes that lie: which there are, what they say, and the networks to compare.

use crate::{NodePlan, Scenario};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr};

/// What a liar tells the others in place of what is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lie {
    /// Its update, -10 times.
    SignFlip,
    /// Its update, 100 times.
    Scale,
    /// A random update, ten times as long as its own.
    Noise,
    /// An update that the codec does not allow.
    OutOfRange,
    /// The update that makes a readout of shifted labels of the network's, the same from all liars.
    Collusion,
    /// Another node's update of the same round.
    Copy,
    /// Its class statistics with each class called the next, 100 times.
    ShiftedLabels,
    /// Its class statistics with means negated.
    NegatedMeans,
    /// The others' class means, -3 times, for every class that anyone has.
    OpposedMeans,
    /// An anchor kernel of directions of its own.
    CapturedReference,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::SignFlip,
        Self::Scale,
        Self::Noise,
        Self::OutOfRange,
        Self::Collusion,
        Self::Copy,
        Self::ShiftedLabels,
        Self::NegatedMeans,
        Self::OpposedMeans,
        Self::CapturedReference,
    ];

    /// Its name in files and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::SignFlip => "sign-flip",
            Self::Scale => "scale",
            Self::Noise => "noise",
            Self::OutOfRange => "out-of-range",
            Self::Collusion => "collusion",
            Self::Copy => "copy",
            Self::ShiftedLabels => "shifted-labels",
            Self::NegatedMeans => "negated-means",
            Self::OpposedMeans => "opposed-means",
            Self::CapturedReference => "captured-reference",
        }
    }

    /// Whether nobody takes the liar's updates: rounds then wait for it in vain.
    pub(crate) fn is_refused(self) -> bool {
        self == Self::OutOfRange
    }
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Lie {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|lie| lie.name() == name);
        named.ok_or_else(|| format!("there is no such lie; there are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// Which nodes of a scenario lie when that is asked for, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Liars {
    /// Their names.
    pub nodes: Vec<String>,
    /// What they say, one lie a run.
    pub lies: Vec<Lie>,
    /// How long a round waits for everybody where their updates are refused, in ms.
    pub deadline_ms: u64,
}

impl Liars {
    /// The first mistake: its key, and what is wrong.
    pub(crate) fn check(&self, nodes: &[NodePlan]) -> Result<(), (&'static str, String)> {
        let must = |holds: bool, key, message: &str| if holds { Ok(()) } else { Err((key, message.to_owned())) };
        let names: BTreeSet<&str> = self.nodes.iter().map(String::as_str).collect();
        if let Some(stranger) = names.iter().find(|name| !nodes.iter().any(|node| node.name == **name)) {
            return Err(("nodes", format!("there is no node {stranger}")));
        }
        must((1..nodes.len()).contains(&names.len()), "nodes", "must name at least one node, and not all")?;
        must(names.len() == self.nodes.len(), "nodes", "must be different nodes")?;
        must((1_000..=600_000).contains(&self.deadline_ms), "deadline_ms", "must be from 1000 to 600000")?;
        must(!self.lies.is_empty(), "lies", "must name at least one lie")?;
        must(self.lies.iter().collect::<BTreeSet<_>>().len() == self.lies.len(), "lies", "must be different lies")
    }

    fn are(&self, node: &NodePlan) -> bool {
        self.nodes.contains(&node.name)
    }
}

impl Scenario {
    /// The network of the nodes that are not `liars`. It deals the same data: a node's share is its own in both.
    pub(crate) fn without(&self, liars: &Liars) -> Self {
        let mut scenario = self.clone();
        scenario.nodes.retain(|node| !liars.are(node));
        scenario
    }

    /// The network of all nodes in which the `liars`, now the last of them, tell this `lie`.
    pub(crate) fn with(&self, liars: &Liars, lie: Lie) -> Self {
        let mut scenario = self.without(liars);
        let lying = self.nodes.iter().filter(|node| liars.are(node)).cloned();
        scenario.nodes.extend(lying.map(|node| NodePlan { lie: Some(lie), ..node }));
        scenario
    }

    /// How many nodes tell the truth: the first so many, since liars are the last.
    pub(crate) fn honest(&self) -> usize {
        self.nodes.iter().filter(|node| node.lie.is_none()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_files() {
        for lie in Lie::ALL {
            assert_eq!(serde_json::to_value(lie).unwrap(), lie.name());
            assert_eq!(lie.name().parse(), Ok(lie));
        }
        assert!("white".parse::<Lie>().unwrap_err().contains("sign-flip, scale"));
    }

    #[test]
    fn liars_come_last_and_the_honest_stay_as_they_are() {
        let scenario = Scenario::quickstart().unwrap();
        let liars = Liars { nodes: vec!["ada".into(), "emmy".into()], lies: vec![Lie::Noise], deadline_ms: 5_000 };
        liars.check(&scenario.nodes).unwrap();
        let (alone, lying) = (scenario.without(&liars), scenario.with(&liars, Lie::Noise));
        let names = |scenario: &Scenario| scenario.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        assert_eq!((alone.honest(), lying.honest(), scenario.honest()), (6, 6, 8));
        assert_eq!(names(&lying)[..6], names(&alone)[..]);
        assert_eq!(names(&lying)[6..], ["ada", "emmy"]);
        assert!(lying.nodes[6..].iter().all(|node| node.lie == Some(Lie::Noise)));
    }

    #[test]
    fn mistakes_are_named() {
        let known = Scenario::quickstart().unwrap().nodes;
        let mistake = |names: &[&str], lies: &[Lie]| {
            let nodes = names.iter().map(ToString::to_string).collect();
            let liars = Liars { nodes, lies: lies.into(), deadline_ms: 5_000 };
            let (key, message) = liars.check(&known).unwrap_err();
            format!("{key}: {message}")
        };
        assert_eq!(mistake(&["eve"], &[Lie::Copy]), "nodes: there is no node eve");
        assert_eq!(mistake(&[], &[Lie::Copy]), "nodes: must name at least one node, and not all");
        assert_eq!(mistake(&["ada", "ada"], &[Lie::Copy]), "nodes: must be different nodes");
        assert_eq!(mistake(&["ada"], &[]), "lies: must name at least one lie");
        assert_eq!(mistake(&["ada"], &[Lie::Copy, Lie::Copy]), "lies: must be different lies");
    }
}
