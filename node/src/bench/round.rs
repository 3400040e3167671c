//! A round of eight real nodes on this machine, with as little training as they can do.

use anyhow::{Context, Result, ensure};
use heterotune_scenarios::{Runner, Scenario};
use serde::Serialize;
use serde_json::Value;
use std::{fs, io, path::Path, time::Duration};

/// Rounds of the short run, by which what happens only once is taken away.
const FIRST: u64 = 5;

/// What a round takes.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Nodes, each a process.
    pub nodes: usize,
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

/// Runs the network for some rounds, and for some more; `folder` keeps what it writes. Sockets are those of the
/// loopback.
///
/// # Errors
/// What keeps a scenario from running.
pub fn round(rounds: u64, folder: &Path) -> Result<Round> {
    ensure!(rounds > 0, "there must be a round to be timed");
    let short = run(FIRST, &folder.join("short"))?;
    let long = run(FIRST + rounds, &folder.join("long"))?;
    let (nodes, count) = (long.nodes.len(), rounds as f64);
    let mut gaps = Vec::new();
    let (mut sent, mut update_bytes) = (0.0, 0);
    for events in &long.nodes {
        let seals: Vec<u64> =
            times(events, "sealed").filter(|(round, _)| *round >= FIRST).map(|(_, time)| time).collect();
        gaps.extend(seals.iter().zip(seals.iter().skip(1)).map(|(one, next)| next.saturating_sub(*one) as f64 / 1e3));
        let bytes = |round: u64| {
            let closed = events.iter().find(|event| event["event"] == "round_closed" && event["round"] == round)?;
            closed["bytes_out"].as_f64()
        };
        let (first, last) = (bytes(FIRST), bytes(FIRST + rounds));
        sent += first.zip(last).map(|(first, last)| last - first).context("a node's log lacks a round")?;
        let update = events.iter().find(|event| event["event"] == "published" && event["kind"] == "update");
        update_bytes = update.and_then(|event| event["bytes"].as_u64()).unwrap_or(update_bytes);
    }
    gaps.sort_by(f64::total_cmp);
    let cpu = long.cpu.zip(short.cpu).map(|(long, short)| long.saturating_sub(short).as_secs_f64() / count);
    Ok(Round {
        nodes,
        update_bytes,
        rounds,
        seconds: gaps.get(gaps.len() / 2).copied().context("no two rounds were sealed")?,
        cpu_seconds: cpu,
        sent_bytes: sent / count / nodes as f64,
    })
}

/// What a run leaves.
struct Run {
    /// Every node's events.
    nodes: Vec<Vec<Value>>,
    cpu: Option<Duration>,
}

fn run(rounds: u64, out: &Path) -> Result<Run> {
    let scenario = scenario(rounds)?;
    let before = of_children();
    let runner = Runner {
        binary: std::env::current_exe().context("cannot find this program's own file")?,
        out: out.into(),
        seed: scenario.seed,
        ablation: false,
        lies: false,
        progress: &mut io::sink(),
    };
    runner.run(&scenario)?;
    let cpu = of_children().zip(before).map(|(after, before)| after.saturating_sub(before));
    let folder = out.join("nodes");
    let nodes = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let events = |path: &Path| -> Result<Vec<Value>> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| path.display().to_string())).collect()
    };
    let nodes = nodes.map(|node| events(&node?.path().join("events.jsonl"))).collect::<Result<_>>()?;
    Ok(Run { nodes, cpu })
}

/// The quickstart's nodes, all of them the smallest, with 64 Ki values to share, and two steps of one sample to learn from.
fn scenario(rounds: u64) -> Result<Scenario> {
    let mut scenario = Scenario::quickstart()?;
    let smallest = scenario.nodes.first().map(|node| node.backbone.clone()).unwrap_or_default();
    scenario.nodes.iter_mut().for_each(|node| node.backbone.clone_from(&smallest));
    let network = format!(
        "adapter = {{ slots = 1, branches = 16, rank = 64, readout_rank = 64, alignment = \"random\", \
         readout = \"trained\" }}\nfusion = {{ rule = \"cmga\", screen = false }}\n\
         rounds = {{ total = {rounds}, deadline_ms = 120000 }}\n"
    );
    scenario.network = toml::from_str(&network).context("the benchmark's own network")?;
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

/// Processor time of all processes that this one has started and that have ended; none where the system does not say.
fn of_children() -> Option<Duration> {
    /// Linux counts in these, whatever its own clock does.
    const TICKS: u64 = 100;
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may hold spaces.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(13).map_while(|field| field.parse::<u64>().ok());
    let (user, system) = (fields.next()?, fields.next()?);
    Some(Duration::from_millis((user + system) * 1_000 / TICKS))
}
