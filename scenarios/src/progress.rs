//! What is printed while a scenario runs: the deal, the phases, a line a round.

use crate::{
    Deal, Metric, Scenario, Score, Share,
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
    /// Whether nothing is to be printed for now.
    quiet: bool,
}

impl<'a> Progress<'a> {
    /// Progress from now on.
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, since: Instant::now(), quiet: false }
    }

    /// Seconds since the beginning.
    pub(crate) fn seconds(&self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }

    /// Does something of which nothing is printed.
    pub(crate) fn quietly<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.quiet, true);
        let result = work(self);
        self.quiet = before;
        result
    }

    /// One line as it is.
    pub(crate) fn line(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }

    /// One line with the time.
    pub(crate) fn phase(&mut self, text: &str) {
        let seconds = self.seconds();
        self.line(&format!("{seconds:6.1} s  {text}"));
    }

    /// Who got what.
    pub(crate) fn deal(&mut self, deal: &Deal) {
        self.line(&format!("{}:\n", deal.title()));
        let table = if deal.labels.is_empty() { deal.sizes() } else { Self::counts(deal) };
        self.line(&table::align(&table, 1));
        let values: Vec<String> = deal.shares.iter().filter_map(Share::values_listed).collect();
        if !values.is_empty() {
            self.line(&(values.join("\n") + "\n"));
        }
    }

    /// The table of a deal with labels.
    fn counts(deal: &Deal) -> Vec<Vec<String>> {
        let header = ["node".to_owned()].into_iter().chain(deal.labels.iter().cloned()).collect();
        let rows = deal.shares.iter().map(|share| {
            let count = |count: &usize| if *count == 0 { "·".to_owned() } else { count.to_string() };
            [share.name.clone()].into_iter().chain(share.per_class.iter().map(count)).collect()
        });
        [header].into_iter().chain(rows).collect()
    }

    /// How well the nodes fit together before the first round, and the head of the lines that follow.
    pub(crate) fn aligned(&mut self, metric: Metric, nodes: &[History]) {
        let spaces = nodes.iter().filter_map(|node| node.fit.as_ref()).map(Vec::len).max().unwrap_or(0);
        let fit = |space: usize| mean(nodes.iter().filter_map(|node| node.fit.as_ref()?.get(space).copied()));
        let fits: Vec<String> = (0..spaces).filter_map(fit).map(|fit| format!("{fit:.2}")).collect();
        let (global, own) = score(metric, nodes, 0);
        let fits = if fits.is_empty() { "by random maps".into() } else { format!("to fits of {}", fits.join(", ")) };
        self.phase(&format!("aligned    {fits}; {metric} before training: global {global}, own {own}"));
        self.line("\n           round  nodes    loss  global     own  agreement  sent a node");
    }

    /// One round, as all nodes closed it.
    pub(crate) fn round(&mut self, round: u64, scenario: &Scenario, charter: &Charter, nodes: &[History]) {
        let Some(closed) = nodes.first().and_then(|node| node.rounds.get(&round)) else { return };
        let or_dash = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
        let loss = mean(nodes.iter().filter_map(|node| node.losses.get(&round).copied()));
        let sent = mean(nodes.iter().map(|node| node.bytes_sent_in(round) as f64)).unwrap_or_default();
        let (global, own) = score(scenario.metric(), nodes, round);
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

/// Mean global and own score after `round`.
fn score(metric: Metric, nodes: &[History], round: u64) -> (String, String) {
    let score = History::mean_score_after(nodes, round, metric);
    let text = |value: fn(Score) -> f64| score.map_or("-".into(), |score| metric.cell(value(score)));
    (text(|score| score.global), text(|score| score.own))
}
