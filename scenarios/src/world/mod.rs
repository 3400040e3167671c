//! Whole networks in virtual time: thousands of real round machines in one process, under one seed.
//!
//! Every node is a [`State`](heterotune_protocol::round::State) with a modelled network, disk, trainer and clock around
//! it; what travels are the protocol's own bytes. Links lose and delay, parts split off and come back, nodes crash,
//! leave and return, newcomers join, clocks are off, members lie: [`Options`] say how much of each, [`simulate`] runs it,
//! a [`Report`] says what came of it.
//!
//! # Layout
//! - what to run: `options`, of many `seeds`; who lies, and how: `liars`
//! - time: `calendar` (what is planned), `errand` (what can be), `shard` (a share of the nodes, for a thread)
//! - a node: `node`, its `disk` and `trainer`
//! - between them: `mesh` (links, partitions), `rumours` (gossip, and who has heard it)
//! - what comes of it: `tally`; `folds` spares what was computed before
//!
//! # What makes it repeatable
//! Nothing that a node does takes effect on another before the shortest delay has passed. So time goes in windows of
//! that length, in which shards run by themselves, on any number of threads; between windows they exchange what they
//! have sent, in their order. All draws come from generators of single nodes.

mod calendar;
mod disk;
mod errand;
mod folds;
mod liars;
mod mesh;
mod node;
mod options;
mod rumours;
mod seeds;
mod shard;
mod tally;
#[cfg(test)]
mod tests;
mod trainer;

pub use folds::Folds;
pub use liars::{KINDS, Kind};
pub use options::{Delay, Lie, Options, Partition, WorldError};
pub use seeds::simulate_seeds;
pub use tally::{Percentiles, Report, Traffic};

use heterotune_crypto::{Identity, NodeId};
use heterotune_protocol::{memo::Memo, message::Context, round::Now, seal::faults};
use liars::Liar;
use mesh::Mesh;
use node::Node;
use rand::seq::SliceRandom;
use rumours::Rumours;
use shard::{SHARDS, Shard};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    thread,
    time::Instant,
};
use trainer::generator;

/// When worlds begin, in ms: so late that a clock may be behind.
const START: Now = 1_000_000_000_000;

/// A run ends after so many deadlines a round, whatever has come of it.
const DEADLINES_A_ROUND: u64 = 4;

/// Ticks in a deadline.
const TICKS: u64 = 20;

/// How long duplicate caches remember, in deadlines: as real ones do with deadlines of ten seconds.
const CACHED: u64 = 12;

/// Verified messages that are remembered: the updates of the horizon's rounds, and as many heads as are under way.
const MEMO_MESSAGES: usize = 32_768;

/// What happens in a window, at least, to be worth another thread.
const WORTH_A_THREAD: usize = if cfg!(test) { 1 } else { 1_000 };

/// What all nodes of a world share.
struct World {
    options: Options,
    context: Arc<Context>,
    ids: Vec<NodeId>,
    index: BTreeMap<NodeId, u32>,
    mesh: Mesh,
    rumours: Rumours,
    folds: Folds,
    tick_ms: u64,
    /// When a question has had its time.
    timeout_ms: u64,
}

/// Runs a world to its end: all rounds sealed at every honest node that is up, or four deadlines a round over.
///
/// # Errors
/// Options that make no world.
pub fn simulate(options: &Options) -> Result<Report, WorldError> {
    let begun = Instant::now();
    options.check()?;
    let identities = options.identities();
    let context = Context::new(options.charter(&identities)?)?.with_memo(Memo::new(MEMO_MESSAGES));
    let ids: Vec<NodeId> = identities.iter().map(Identity::id).collect();
    let mut draws = generator(options.seed, &[]);
    let partition = options.partition.as_ref();
    let world = World {
        mesh: Mesh::new(options.population(), options.sealers, partition, START, options.deadline_ms, &mut draws),
        rumours: Rumours::new(options.population()),
        folds: Folds::default(),
        tick_ms: (options.deadline_ms / TICKS).max(1),
        timeout_ms: (options.deadline_ms / 5).max(4 * options.delay.high_ms),
        context: Arc::new(context),
        index: ids.iter().copied().zip(0..).collect(),
        ids,
        options: options.clone(),
    };
    let liars = draw_liars(options, &world.context, &identities);
    let mut shards: Vec<Vec<Node>> = (0..SHARDS).map(|_| Vec::new()).collect();
    for ((at, identity), liar) in identities.into_iter().enumerate().zip(liars) {
        shards[at % SHARDS].push(Node::new(at as u32, identity, liar, &world));
    }
    let shards = shards.into_iter().enumerate();
    let mut shards: Vec<Shard> = shards.map(|(number, nodes)| Shard::new(number, nodes, START, &world)).collect();
    world.run(&mut shards);
    let nodes = (0..options.population()).filter_map(|at| shards[at % SHARDS].nodes.get(at / SHARDS));
    Ok(Report::of(nodes, begun.elapsed().as_secs_f64()))
}

impl World {
    fn run(&self, shards: &mut [Shard]) {
        let deadline_ms = self.options.deadline_ms;
        let end = START + DEADLINES_A_ROUND * self.options.rounds * deadline_ms;
        let (mut look_at, mut forget_at) = (START, START);
        while let Some(now) = shards.iter().filter_map(Shard::next).min().filter(|now| *now < end) {
            if now >= look_at {
                if self.is_over(shards) {
                    break;
                }
                look_at = now + self.tick_ms;
            }
            if now >= forget_at {
                self.rumours.forget_before(now.saturating_sub(CACHED * deadline_ms));
                forget_at = now + deadline_ms;
            }
            self.run_window(shards, (now + self.options.delay.low_ms).min(end));
        }
    }

    /// Lets everything happen that is planned before `until`; nothing of it has an effect on another node before.
    fn run_window(&self, shards: &mut [Shard], until: Now) {
        let busy = shards.iter().map(|shard| shard.due(until)).sum::<usize>();
        let threads = self.options.threads.clamp(1, SHARDS).min(1 + busy / WORTH_A_THREAD);
        let run = |shards: &mut [Shard]| shards.iter_mut().for_each(|shard| shard.run(until, self));
        for_all(shards, threads, run);
        for from in 0..SHARDS {
            for to in 0..SHARDS {
                let sent = mem::take(&mut shards[from].outbox[to]);
                let emptied = mem::replace(&mut shards[to].inbox[from], sent);
                shards[from].outbox[to] = emptied;
            }
        }
        for_all(shards, threads, |shards| shards.iter_mut().for_each(Shard::open_inbox));
    }

    fn is_over(&self, shards: &[Shard]) -> bool {
        let rounds = self.options.rounds;
        let is_done = |node: &Node| node.record.sealed() >= rounds;
        let nodes = shards.iter().flat_map(|shard| &shard.nodes);
        let mut honest = nodes.filter(|node| node.record.is_honest && node.state().is_some()).peekable();
        honest.peek().is_some() && honest.all(is_done)
    }
}

/// Who lies. Any nodes but sealers beyond what seals can bear; those first for lies that only sealers can tell.
fn draw_liars(options: &Options, context: &Arc<Context>, identities: &[Identity]) -> Vec<Option<Liar>> {
    let sealers: BTreeSet<NodeId> = context.charter.sealers.iter().copied().collect();
    let seals = |at: usize| sealers.contains(&identities[at].id());
    let mut bearable = faults(sealers.len());
    let mut order: Vec<usize> = (0..identities.len()).collect();
    order.shuffle(&mut generator(options.seed, &[6]));
    order.retain(|at| {
        let may = !seals(*at) || bearable > 0;
        bearable -= usize::from(seals(*at) && may);
        may
    });
    let mut lies = options.liars.clone();
    lies.sort_by_key(|lie| !lie.kind.is_of_sealers());
    let mut liars: Vec<Option<Liar>> = identities.iter().map(|_| None).collect();
    for lie in &lies {
        let count = (lie.share * identities.len() as f64).round() as usize;
        order.sort_by_key(|at| lie.kind.is_of_sealers() && !seals(*at));
        for at in order.drain(..count.min(order.len())) {
            let identity = identities[at].clone();
            liars[at] = Some(Liar::new(lie.kind, identity, context.clone(), options.seed, at as u32));
        }
    }
    liars
}

/// Does something with all shards, on so many threads.
fn for_all(shards: &mut [Shard], threads: usize, what: impl Fn(&mut [Shard]) + Sync) {
    if threads <= 1 {
        return what(shards);
    }
    thread::scope(|scope| {
        for part in shards.chunks_mut(SHARDS.div_ceil(threads)) {
            scope.spawn(|| what(part));
        }
    });
}
