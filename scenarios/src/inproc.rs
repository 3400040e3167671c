//! One network, run from its start to its end within this process, by whoever can: this crate has no nodes.

use crate::{
    Plan, RunError, check,
    events::Event,
    history::{History, Trouble},
    network::names,
    progress::Progress,
};
use serde_json::Value;

/// Takes what the node of this index reports: an event, as a line of its log would say it.
pub type Heard<'a> = dyn FnMut(usize, Value) -> Result<(), RunError> + 'a;

/// Runs networks within this process.
pub trait InProcess {
    /// Runs a network to its end, as [`Plan`] says, and lets each event be `heard`.
    ///
    /// # Errors
    /// What it can't go on with, and what hearing an event comes to.
    fn run(&mut self, plan: &Plan<'_>, heard: &mut Heard<'_>) -> Result<(), RunError>;
}

/// Runs a network and returns what its nodes reported.
pub(crate) fn run(
    engine: &mut dyn InProcess,
    plan: &Plan<'_>,
    progress: &mut Progress<'_>,
) -> Result<Vec<History>, RunError> {
    let histories = plan.scenario.nodes.iter().map(|node| History::new(&node.name)).collect();
    let mut follower = Follower { plan, progress, histories, aligned: false, round: 0 };
    engine.run(plan, &mut |node, event| follower.hear(node, event))?;
    check::finished(plan.charter, &follower.histories)?;
    Ok(follower.histories)
}

/// Follows a network: checks and shows each phase that all nodes are through.
struct Follower<'a, 'b> {
    plan: &'a Plan<'a>,
    progress: &'a mut Progress<'b>,
    histories: Vec<History>,
    aligned: bool,
    /// The last round that all have closed.
    round: u64,
}

impl Follower<'_, '_> {
    fn hear(&mut self, node: usize, event: Value) -> Result<(), RunError> {
        let unknown = |message: String| RunError::Network(format!("node {node} told of no event: {message}"));
        // By way of text, as logs are read: numbers that are read may differ from those written in their last bit.
        let event: Event = serde_json::from_str(&event.to_string()).map_err(|error| unknown(error.to_string()))?;
        let history = self.histories.get_mut(node).ok_or_else(|| unknown("there is no such node".into()))?;
        history.add(event).map_err(|trouble| match trouble {
            Trouble::Error(message) => RunError::Network(format!("node {} failed: {message}", history.name)),
            Trouble::DeadlineMissed { round, missing } => RunError::DeadlineMissed {
                node: history.name.clone(),
                round,
                missing: names(self.plan.scenario, self.plan.charter, &missing),
                logs: self.plan.folder.into(),
            },
        })?;
        self.follow()
    }

    fn follow(&mut self) -> Result<(), RunError> {
        let (charter, nodes) = (self.plan.charter, &self.histories);
        if !self.aligned && nodes.iter().all(|node| node.genesis.is_some() && node.scores.contains_key(&0)) {
            self.aligned = true;
            check::genesis(nodes)?;
            self.progress.aligned(self.plan.scenario.metric(), nodes);
        }
        let next = self.round + 1;
        if nodes.iter().all(|node| node.rounds.contains_key(&next) && node.scores.contains_key(&next)) {
            self.round = next;
            check::round(next, charter, nodes)?;
            self.progress.round(next, self.plan.scenario, charter, nodes);
        }
        Ok(())
    }
}
