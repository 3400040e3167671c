//! A round of eight real nodes on this machine, without training or with as little as they can do.

use anyhow::{Context, Result, ensure};
use heterotune_scenarios::{Runner, Scenario};
use serde::Serialize;
use serde_json::Value;
use std::{fs, io, path::Path};

/// Rounds before those that are timed.
const FIRST: u64 = 5;

/// What a round takes.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Nodes, each a process.
    pub nodes: usize,
    /// Whether they trained.
    pub trained: bool,
    /// Bytes of an update, signed and packed.
    pub update_bytes: u64,
    /// Rounds that were timed.
    pub rounds: u64,
    /// Seconds from one seal to the next, the median.
    pub seconds: f64,
    /// Seconds of a core, of all nodes together.
    pub cpu_seconds: Option<f64>,
    /// Bytes that a node sends, counted at its sockets, in the mean.
    pub sent_bytes: f64,
}

/// Runs the network for some rounds, in which nodes draw updates or, to `train`, take two steps of a sample each and
/// measure what comes of it; `folder` keeps what it writes. Sockets are those of the loopback.
///
/// # Errors
/// What keeps a scenario from running.
pub fn round(rounds: u64, train: bool, folder: &Path) -> Result<Round> {
    ensure!(rounds > 0, "there must be a round to be timed");
    let (first, last) = (FIRST, FIRST + rounds);
    let nodes = run(last, train, folder)?;
    let (mut gaps, mut sent, mut cpu, mut update_bytes) = (Vec::new(), 0.0, Some(0.0), 0);
    for events in &nodes {
        let seals: Vec<u64> =
            times(events, "sealed").filter(|(round, _)| *round >= first).map(|(_, time)| time).collect();
        gaps.extend(seals.iter().zip(seals.iter().skip(1)).map(|(one, next)| next.saturating_sub(*one) as f64 / 1e3));
        let closed = |round: u64, key: &str| {
            let closed = events.iter().find(|event| event["event"] == "round_closed" && event["round"] == round);
            closed.and_then(|closed| closed[key].as_f64())
        };
        let between = |key| Some(closed(last, key)? - closed(first, key)?);
        sent += between("bytes_out").context("a node's log lacks a round")?;
        cpu = cpu.zip(between("cpu_s")).map(|(all, more)| all + more);
        let update = events.iter().find(|event| event["event"] == "published" && event["kind"] == "update");
        update_bytes = update.and_then(|event| event["bytes"].as_u64()).unwrap_or(update_bytes);
    }
    gaps.sort_by(f64::total_cmp);
    Ok(Round {
        nodes: nodes.len(),
        trained: train,
        update_bytes,
        rounds,
        seconds: gaps.get(gaps.len() / 2).copied().context("no two rounds were sealed")?,
        cpu_seconds: cpu.map(|seconds| seconds / rounds as f64),
        sent_bytes: sent / rounds as f64 / nodes.len() as f64,
    })
}

/// Runs the network, and gives every node's events.
fn run(rounds: u64, train: bool, out: &Path) -> Result<Vec<Vec<Value>>> {
    let scenario = scenario(rounds, train)?;
    let runner = Runner {
        binary: std::env::current_exe().context("cannot find this program's own file")?,
        out: out.into(),
        seed: scenario.seed,
        ablation: false,
        lies: false,
        progress: &mut io::sink(),
    };
    runner.run(&scenario)?;
    let folder = out.join("nodes");
    let nodes = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let events = |path: &Path| -> Result<Vec<Value>> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| path.display().to_string())).collect()
    };
    nodes.map(|node| events(&node?.path().join("events.jsonl"))).collect()
}

/// The quickstart's nodes, all of them the smallest, with 64 Ki values to share, and at most two steps of one sample to
/// learn from.
fn scenario(rounds: u64, train: bool) -> Result<Scenario> {
    let mut scenario = Scenario::quickstart()?;
    let smallest = scenario.nodes.first().map(|node| node.backbone.clone()).unwrap_or_default();
    scenario.nodes.iter_mut().for_each(|node| node.backbone.clone_from(&smallest));
    let network = format!(
        "adapter = {{ slots = 1, branches = 16, rank = 64, readout_rank = 64, alignment = \"random\", \
         readout = \"trained\" }}\nfusion = {{ rule = \"cmga\", screen = false }}\n\
         rounds = {{ total = {rounds}, deadline_ms = 120000 }}\n"
    );
    scenario.network = toml::from_str(&network).context("the benchmark's own network")?;
    scenario.train.idle = !train;
    // A readout of zeros gives branches no gradient: the second step is the first that they learn from.
    (scenario.train.steps, scenario.train.batch) = (2, 1);
    // Few rows are left to be measured by.
    scenario.data.train = Some(1_790);
    scenario.ablations.clear();
    Ok(scenario)
}

/// When each round was told of by events of a kind, in milliseconds.
fn times<'a>(events: &'a [Value], kind: &'a str) -> impl Iterator<Item = (u64, u64)> + 'a {
    let told = events.iter().filter(move |event| event["event"] == kind);
    told.filter_map(|event| Some((event["round"].as_u64()?, event["time_ms"].as_u64()?)))
}
