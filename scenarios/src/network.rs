//! One network, run from its start to its end as processes on this machine.

use crate::{
    RunError, Scenario, TrainPlan, check,
    history::{History, Trouble},
    process::{POLL_INTERVAL, Process},
    progress::Progress,
};
use heterotune_crypto::NodeId;
use heterotune_protocol::charter::Charter;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How long no node may report anything. Rounds have their own deadline; this is for what has none.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// A network to run.
pub struct Plan<'a> {
    /// The scenario, each path where it is.
    pub scenario: &'a Scenario,
    /// How its nodes train.
    pub train: &'a TrainPlan,
    /// The seed.
    pub seed: u64,
    /// The folder of the dealt data: a folder a node.
    pub data: &'a Path,
    /// Where the network's charter and nodes go, where they go to disk.
    pub folder: &'a Path,
    /// What the nodes agree on.
    pub charter: &'a Charter,
    /// Whether each node also measures how good it is by itself.
    pub alone: bool,
}

/// Runs a network of processes of `binary` to its end and returns what its nodes reported; where some lie, what the others
/// did.
pub(crate) fn run(binary: &Path, plan: &Plan<'_>, progress: &mut Progress<'_>) -> Result<Vec<History>, RunError> {
    let now = Instant::now();
    let mut network = Network { binary, plan, processes: Vec::new(), histories: Vec::new(), begun: now, heard: now };
    let (count, honest) = (plan.scenario.nodes.len(), plan.scenario.honest());
    network.start(&[])?;
    network.wait("the first node starts", |node| {
        address(node, "/tcp/").is_some() && address(node, "/quic-v1").is_some()
    })?;
    let first = network.histories.first().cloned().unwrap_or_default();
    for index in 1..count {
        let transport = if index % 2 == 1 { "/quic-v1" } else { "/tcp/" };
        network.start(address(&first, transport).as_slice())?;
    }
    network.wait("the nodes start", |node| node.backbone.is_some() && !node.addresses.is_empty())?;
    progress.phase(&format!("started    {count} processes, logs in {}", network.logs().display()));
    network.wait("the nodes connect", |node| count == 1 || !node.peers.is_empty())?;
    progress.phase("connected  over TCP and QUIC on the loopback");
    network.wait("the nodes align", |node| node.genesis.is_some() && node.scores.contains_key(&0))?;
    check::genesis(&network.histories)?;
    progress.aligned(plan.scenario.metric(), &network.histories);
    for round in 1..=plan.charter.rounds.total {
        let done = |node: &History| node.rounds.contains_key(&round) && node.scores.contains_key(&round);
        network.wait_for(honest, &format!("round {round} runs"), done)?;
        let honest = network.histories.get(..honest).unwrap_or_default();
        check::round(round, plan.charter, honest)?;
        progress.round(round, plan.scenario, plan.charter, honest);
    }
    if honest < count {
        // Nodes stay for those that do not say that they hold the same: liars may never.
        network.histories.truncate(honest);
        return Ok(network.end());
    }
    network.wait("the nodes finish", |node| node.finished.is_some() && (!plan.alone || node.alone.is_some()))?;
    check::finished(plan.charter, &network.histories)?;
    Ok(network.end())
}

/// The first of a node's addresses with this transport.
fn address(node: &History, transport: &str) -> Option<String> {
    node.addresses.iter().find(|address| address.contains(transport)).cloned()
}

struct Network<'a> {
    binary: &'a Path,
    plan: &'a Plan<'a>,
    /// Dropping it ends them all, whatever the reason.
    processes: Vec<Process>,
    histories: Vec<History>,
    /// When the first process was started.
    begun: Instant,
    /// When a node last reported something.
    heard: Instant,
}

impl Network<'_> {
    fn logs(&self) -> PathBuf {
        self.plan.folder.join("nodes")
    }

    /// Starts the next node of the scenario.
    fn start(&mut self, peers: &[String]) -> Result<(), RunError> {
        let plan = self.plan;
        let Some(node) = plan.scenario.nodes.get(self.processes.len()) else { return Ok(()) };
        let folder = self.logs().join(&node.name);
        let mut arguments: Vec<OsString> = vec!["run".into()];
        let mut set = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        set("--state", folder.clone().into());
        set("--charter", plan.folder.join("charter.toml").into());
        set("--backbone", node.backbone.clone().into());
        node.flags().into_iter().for_each(|(name, value)| set(name, value.into()));
        set("--data", plan.data.join(&node.name).into());
        set("--listen", "/ip4/127.0.0.1/tcp/0".into());
        set("--listen", "/ip4/127.0.0.1/udp/0/quic-v1".into());
        peers.iter().for_each(|peer| set("--peer", peer.into()));
        // One compute thread a node: sums of floats don't depend on how work was shared out.
        set("--threads", "1".into());
        plan.train.flags().into_iter().for_each(|(name, value)| set(name, value.into()));
        set("--seed", plan.seed.to_string().into());
        set("--scenario", format!("{}/{}", plan.seed, node.name).into());
        if let Some(lie) = node.lie {
            set("--lie", lie.name().into());
        }
        if plan.alone {
            arguments.push("--alone".into());
        }
        if plan.train.idle {
            arguments.push("--idle".into());
        }
        self.processes.push(Process::start(self.binary, &node.name, &folder, arguments)?);
        self.histories.push(History::new(&node.name));
        Ok(())
    }

    /// Follows the started nodes until all are `done` with a `phase`.
    fn wait(&mut self, phase: &str, done: impl Fn(&History) -> bool) -> Result<(), RunError> {
        self.wait_for(self.histories.len(), phase, done)
    }

    /// Follows the started nodes until the `first` of them are `done` with a `phase`.
    fn wait_for(&mut self, first: usize, phase: &str, done: impl Fn(&History) -> bool) -> Result<(), RunError> {
        loop {
            self.look()?;
            if self.histories.iter().take(first).all(&done) {
                return Ok(());
            }
            if self.heard.elapsed() > SILENCE_MAX {
                return Err(RunError::Stalled {
                    seconds: SILENCE_MAX.as_secs(),
                    phase: phase.into(),
                    logs: self.logs(),
                });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Takes in what the nodes reported since the last look.
    fn look(&mut self) -> Result<(), RunError> {
        let logs = self.logs();
        let honest = self.plan.scenario.honest();
        let liars = self.plan.charter.founders.get(honest..).unwrap_or_default();
        let lying = !liars.is_empty();
        for (at, (process, history)) in self.processes.iter_mut().zip(&mut self.histories).enumerate() {
            // Before its events are read: what it wrote before its end is then all there.
            let ended = process.ended();
            for event in process.events.new_events()? {
                self.heard = Instant::now();
                let Err(trouble) = history.add(event) else { continue };
                let trouble = match trouble {
                    // Who lies may wait, or be waited for, in vain; and the short deadline of a network with liars is
                    // meant for its rounds: its genesis may take its time on a busy machine.
                    Trouble::DeadlineMissed { round, missing }
                        if at >= honest
                            || missing.iter().all(|id| liars.contains(id))
                            || (lying && round == 0 && self.begun.elapsed() < SILENCE_MAX) =>
                    {
                        continue;
                    }
                    Trouble::Error(message) => {
                        RunError::Reported { node: history.name.clone(), message, log: process.log() }
                    }
                    Trouble::DeadlineMissed { round, missing } => RunError::DeadlineMissed {
                        node: history.name.clone(),
                        round,
                        missing: names(self.plan.scenario, self.plan.charter, &missing),
                        logs: logs.clone(),
                    },
                };
                return Err(trouble);
            }
            match ended {
                Some(status) if !status.success() || history.finished.is_none() => return Err(process.died(status)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends all processes in an orderly way.
    fn end(mut self) -> Vec<History> {
        self.processes.iter_mut().for_each(Process::ask_to_end);
        let asked = Instant::now();
        self.processes.iter_mut().for_each(|process| process.wait_for_end(asked));
        std::mem::take(&mut self.histories)
    }
}

/// The nodes' names; founders are in the scenario's order.
pub(crate) fn names(scenario: &Scenario, charter: &Charter, ids: &[NodeId]) -> String {
    let name = |id: &NodeId| {
        let index = charter.founders.iter().position(|founder| founder == id)?;
        Some(scenario.nodes.get(index)?.name.clone())
    };
    ids.iter().map(|id| name(id).unwrap_or_else(|| id.short())).collect::<Vec<_>>().join(", ")
}
