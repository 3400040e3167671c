//! How good a node is: what the number is, how several are one, and how it reads.

use crate::{Score, history};
use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// What a [`Score`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// The share of right answers, from 0 to 1. More is better; means are arithmetic.
    Accuracy,
    /// The exponential of the mean loss of a token, from 1. Less is better; means are geometric.
    Perplexity,
}

impl Metric {
    /// The mean of some scores; none have none.
    pub(crate) fn mean(self, scores: impl IntoIterator<Item = f64>) -> Option<f64> {
        match self {
            Self::Accuracy => history::mean(scores),
            Self::Perplexity => history::mean(scores.into_iter().map(f64::ln)).map(f64::exp),
        }
    }

    /// The score that counts of a node's rounds. For accuracy the last one; for perplexity that of the round with the
    /// smallest own: each node stops early, by the rows it has held out.
    pub(crate) fn result(self, rounds: &BTreeMap<u64, Score>) -> Option<Score> {
        match self {
            Self::Accuracy => rounds.last_key_value().map(|(_, score)| *score),
            Self::Perplexity => rounds.values().min_by(|a, b| a.own.total_cmp(&b.own)).copied(),
        }
    }

    /// A score in a table.
    pub(crate) fn cell(self, score: f64) -> String {
        match self {
            Self::Accuracy => format!("{score:.3}"),
            Self::Perplexity => format!("{score:.2}"),
        }
    }

    /// A score by itself, or on an axis, with so many `decimals`.
    pub(crate) fn figure(self, score: f64, decimals: usize) -> String {
        match self {
            Self::Accuracy => format!("{:.decimals$} %", score * 100.0),
            Self::Perplexity => format!("{score:.decimals$}"),
        }
    }

    /// Whether a score is better than another.
    pub(crate) fn is_better(self, score: f64, other: f64) -> bool {
        match self {
            Self::Accuracy => score > other,
            Self::Perplexity => score < other,
        }
    }

    /// How much better a score is than a `base`, in the [unit](Self::gain_unit) of gains.
    pub(crate) fn difference(self, score: f64, base: f64) -> f64 {
        100.0
            * match self {
                Self::Accuracy => score - base,
                Self::Perplexity => 1.0 - score / base,
            }
    }

    /// The same as text.
    pub(crate) fn gain(self, score: f64, base: f64) -> String {
        format!("{:+.1}", self.difference(score, base))
    }

    /// What gains are counted in.
    pub(crate) fn gain_unit(self) -> &'static str {
        match self {
            Self::Accuracy => "points",
            Self::Perplexity => "per cent",
        }
    }

    /// What the two scores of a node are.
    pub(crate) fn scores(self) -> &'static str {
        match self {
            Self::Accuracy => {
                "global: accuracy on the common test set; own: the same, weighted by the classes that the node has seen."
            }
            Self::Perplexity => {
                "global: perplexity on the common test set; own: on the rows that the node has held out. Less is better; means \
                 are geometric."
            }
        }
    }

    /// Of which round those in a network are, where that needs saying.
    pub(crate) fn stopping(self) -> &'static str {
        match self {
            Self::Accuracy => "",
            Self::Perplexity => {
                "\nIn the network, both are those of the round with the node's smallest own: each node stops early, by the \
                 rows that it has held out."
            }
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accuracy => "accuracy",
            Self::Perplexity => "perplexity",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_gains_follow_the_metric() {
        assert_eq!(Metric::Accuracy.mean([0.5, 1.0]), Some(0.75));
        assert!((Metric::Perplexity.mean([10.0, 40.0]).unwrap() - 20.0).abs() < 1e-12);
        assert_eq!(Metric::Perplexity.mean([]), None);
        assert_eq!(
            (Metric::Accuracy.gain(0.85, 0.34), Metric::Perplexity.gain(36.0, 40.0)),
            ("+51.0".into(), "+10.0".into())
        );
        assert_eq!(Metric::Perplexity.gain(44.0, 40.0), "-10.0");
    }

    #[test]
    fn a_language_model_stops_early_by_its_own_rows() {
        let rounds = [(9.0, 8.0), (7.0, 6.0), (5.0, 6.5)];
        let rounds = (0..).zip(rounds.map(|(global, own)| Score { global, own })).collect();
        assert_eq!(Metric::Perplexity.result(&rounds), Some(Score { global: 7.0, own: 6.0 }));
        assert_eq!(Metric::Accuracy.result(&rounds), Some(Score { global: 5.0, own: 6.5 }));
        assert_eq!(Metric::Perplexity.result(&BTreeMap::new()), None);
    }
}
