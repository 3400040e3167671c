//! What is printed while a scenario runs: the deal, the phases, a line a round.

use crate::{
    Deal, Scenario,
    history::{History, mean},
    network::names,
    table,
};
use heterotune_crypto::NodeId;
use heterotune_protocol::charter::Charter;
use std::{collections::BTreeSet, io::Write, time::Instant};

/// Where progress goes. What nobody can read is not worth failing a run for: errors to write are ignored.
pub(crate) struct Progress<'a> {
    out: &'a mut dyn Write,
    since: Instant,
}

impl<'a> Progress<'a> {
    /// Progress from now on.
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, since: Instant::now() }
    }

    /// Seconds since the beginning.
    pub(crate) fn seconds(&self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }

    /// One line as it is.
    pub(crate) fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }

    /// One line with the time.
    pub(crate) fn phase(&mut self, text: &str) {
        let seconds = self.seconds();
        self.line(&format!("{seconds:6.1} s  {text}"));
    }

    /// Who got what.
    pub(crate) fn deal(&mut self, scenario: &Scenario, deal: &Deal) {
        self.line(&format!(
            "labelled rows of each class, draw {} (first with {} or more of every class and {} to {} classes a node):\n",
            deal.draw,
            scenario.data.min_per_class,
            scenario.data.classes_per_node[0],
            scenario.data.classes_per_node[1]
        ));
        let header = ["node".to_owned()].into_iter().chain(deal.labels.iter().cloned()).collect();
        let rows = deal.shares.iter().map(|share| {
            let count = |count: &usize| if *count == 0 { "·".to_owned() } else { count.to_string() };
            [share.name.clone()].into_iter().chain(share.per_class.iter().map(count)).collect()
        });
        let rows: Vec<Vec<String>> = [header].into_iter().chain(rows).collect();
        self.line(&table::align(&rows, 1));
    }

    /// How well the nodes fit together before the first round, and the head of the lines that follow.
    pub(crate) fn aligned(&mut self, nodes: &[History]) {
        let spaces = nodes.iter().filter_map(|node| node.fit.as_ref()).map(Vec::len).max().unwrap_or(0);
        let fit = |space: usize| mean(nodes.iter().filter_map(|node| node.fit.as_ref()?.get(space).copied()));
        let fits: Vec<String> = (0..spaces).filter_map(fit).map(|fit| format!("{fit:.2}")).collect();
        let (global, own) = accuracy(nodes, 0);
        let fits = if fits.is_empty() { "by random maps".into() } else { format!("to fits of {}", fits.join(", ")) };
        self.phase(&format!("aligned    {fits}; accuracy before training: global {global}, own {own}"));
        self.line("\n           round  nodes    loss  global     own  agreement  sent a node");
    }

    /// One round, as all nodes closed it.
    pub(crate) fn round(&mut self, round: u64, scenario: &Scenario, charter: &Charter, nodes: &[History]) {
        let Some(closed) = nodes.first().and_then(|node| node.rounds.get(&round)) else { return };
        let or_dash = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
        let loss = mean(nodes.iter().filter_map(|node| node.losses.get(&round).copied()));
        let sent = mean(nodes.iter().map(|node| node.bytes_sent_in(round) as f64)).unwrap_or_default();
        let (global, own) = accuracy(nodes, round);
        let mut line = format!(
            " {round:>5}  {:>5}  {:>6}  {global:>6}  {own:>6}  {:>9}  {:>11}",
            format!("{}/{}", closed.updates, scenario.nodes.len()),
            or_dash(loss),
            or_dash(closed.agreement),
            table::bytes(sent)
        );
        let left_out: BTreeSet<NodeId> = nodes
            .iter()
            .filter_map(|node| node.rounds.get(&round))
            .flat_map(|closed| closed.left_out.iter().copied())
            .collect();
        if !left_out.is_empty() {
            let ids: Vec<NodeId> = left_out.into_iter().collect();
            line.push_str(&format!("  left out: {}", names(scenario, charter, &ids)));
        }
        self.phase(&line);
    }
}

/// Mean global and own accuracy after `round`.
fn accuracy(nodes: &[History], round: u64) -> (String, String) {
    let accuracies = || nodes.iter().filter_map(|node| node.accuracies.get(&round));
    let text = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
    (text(mean(accuracies().map(|accuracy| accuracy.global))), text(mean(accuracies().map(|accuracy| accuracy.own))))
}
