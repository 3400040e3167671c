//! Made-up runs for the tests of this crate.

use crate::{
    deal::{Deal, Share},
    events::{Alone, Backbone, Closed, Finished, Score},
    history::History,
};
use heterotune_crypto::{Digest, Identity};
use heterotune_protocol::charter::{Anchors, Charter, Task};
use std::{collections::BTreeMap, path::PathBuf};

/// The folder of real data. Without it, tests that need it say so and pass; not so in continuous integration.
pub(crate) fn real_data() -> Option<PathBuf> {
    let folder = std::env::var_os("HETEROTUNE_DATA").map(PathBuf::from);
    if folder.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "HETEROTUNE_DATA is not set");
        println!("skipped: HETEROTUNE_DATA does not name a folder with models/, text/ and vision/");
    }
    folder
}

/// A charter of `nodes` nodes and `rounds` rounds.
pub(crate) fn charter(nodes: usize, rounds: u64) -> Charter {
    let founders = (0..nodes).map(|node| Identity::from_seed(0, &format!("node-{node}")).id()).collect();
    let anchors = Anchors { digest: Digest::ZERO, count: 128 };
    let mut charter =
        Charter::new("test", founders, Task::ImageClassification { labels: vec!["0".into(), "1".into()] }, anchors);
    charter.rounds.total = rounds;
    charter
}

/// A deal of two classes.
pub(crate) fn deal(nodes: usize) -> Deal {
    let share = |node| Share {
        name: format!("node-{node}"),
        rows: vec![node],
        per_class: vec![node * 7, 30],
        ..Share::default()
    };
    Deal {
        labels: vec!["0".into(), "1".into()],
        how: "draw 3".into(),
        shares: (0..nodes).map(share).collect(),
        anchors: vec![],
        test: vec![],
        validation: vec![],
    }
}

/// What the nodes of a run without fault report.
pub(crate) fn histories(nodes: u64, rounds: u64) -> Vec<History> {
    let hash = |round: u64| Digest::of("test", &[&round.to_le_bytes()]);
    let history = |node: u64| {
        let score = |round: u64| Score {
            global: 0.6 + 0.25 * (1.0 - (-(round as f64) / 4.0).exp()) + 0.01 * node as f64,
            own: 0.94 + 0.001 * round as f64,
        };
        let closed = |round: u64| Closed {
            round,
            updates: nodes,
            update_norm: 2.0 / round as f64,
            branch_norm: 0.5,
            agreement: Some(0.4 / round as f64 - 0.05),
            left_out: vec![],
            mixture_hash: hash(round),
            bytes_out: 50_000 + 12_000 * round + 300 * node,
        };
        let alone = Score { global: 0.25 + 0.01 * node as f64, own: 0.9 };
        History {
            name: format!("node-{node}"),
            backbone: Some(Backbone {
                model_type: "vit".into(),
                width: 32 + 16 * node,
                depth: 2 + node,
                parameters: 100_000 * (node + 1),
                shared_parameters: 1_674,
                classes: vec!["1".into()],
            }),
            alone: Some(Alone { score: alone, best_of: BTreeMap::from([("adapter <and> head".into(), alone)]) }),
            fit: Some(vec![0.9, 0.95]),
            genesis: Some(hash(0)),
            losses: (1..=rounds).map(|round| (round, 1.0 / round as f64)).collect(),
            rounds: (1..=rounds).map(|round| (round, closed(round))).collect(),
            scores: (0..=rounds).map(|round| (round, score(round))).collect(),
            finished: Some(Finished {
                rounds,
                mixture_hash: hash(rounds),
                bytes_out: 200_000,
                bytes_in: 210_000,
                peak_rss_bytes: 60 << 20,
            }),
            ..History::default()
        }
    };
    (0..nodes).map(history).collect()
}
