//! The networks of scenarios, in this process: real backbones, data, learners and round machines, without sockets or disks.
//! They come to the same bits as networks of processes, as each node computes in one thread here, too.
//!
//! Backbones that several nodes have are loaded once; samples and what frozen blocks make of them stay for the next network
//! with the same data.

mod mesh;

use crate::{
    backbone::{self, Backbone, Options, Precision},
    config::Training,
    train::{Learner, Settings, TrainError},
    trainer::{self, Report, Reports, Worker},
};
use anyhow::{Context as _, Result, ensure};
use heterotune_crypto::{Digest, Identity};
use heterotune_protocol::fuse;
use heterotune_scenarios::{Heard, InProcess, NodePlan, Plan, Precision as Written, RunError, TrainPlan};
use mesh::Mesh;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, channel},
    },
    thread,
};

/// Runs networks in this process, one after another.
pub struct Engine {
    /// Each computes the work of a node at a time, in one thread.
    pools: Vec<ThreadPool>,
    backbones: BTreeMap<(PathBuf, String), Arc<dyn Backbone>>,
    /// Learners of the networks before, by what their samples follow from; all of them have this data and seed.
    learners: BTreeMap<Key, Learner>,
    data: (PathBuf, u64),
}

/// What a learner's samples follow from, beside the charter's task: the node, its data folder, the anchors, the slots.
type Key = (usize, PathBuf, Digest, u8);

impl Engine {
    /// An engine that computes as many nodes at a time as there are processors.
    ///
    /// # Errors
    /// A system without room for threads.
    pub fn new() -> Result<Self> {
        ensure!(fuse::canary(), "this process does not compute by IEEE 754, so it cannot stand for others");
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).stack_size(trainer::STACK_BYTES).build();
        let pools = (0..cores).map(pool).collect::<Result<_, _>>().context("cannot start compute threads")?;
        Ok(Self { pools, backbones: BTreeMap::new(), learners: BTreeMap::new(), data: Default::default() })
    }

    fn run(&mut self, plan: &Plan<'_>, heard: &mut Heard<'_>) -> Result<()> {
        let (sender, reports) = channel();
        let settings = settings(plan.train, plan.seed);
        let data = (plan.data.into(), plan.seed);
        if self.data != data {
            (self.learners, self.data) = (BTreeMap::new(), data);
        }
        let mut seats = Vec::new();
        for (index, node) in plan.scenario.nodes.iter().enumerate() {
            let key = (index, plan.data.join(&node.name), plan.charter.anchors.digest, plan.charter.adapter.slots);
            let backbone = self.backbone(node)?;
            let sender = sender.clone();
            let reports: Reports =
                Box::new(move |report| sender.send((index, report)).ok().context("the network has ended"));
            seats.push(Seat {
                node,
                backbone,
                learner: self.learners.remove(&key),
                key,
                reports: Some(reports),
                worker: None,
            });
        }
        let begin = |seat: &mut Seat<'_>| -> Result<()> {
            let learner = seat.learner(plan, settings)?;
            let reports = seat.reports.take().context("a node begins once")?;
            let worker = seat.worker.insert(Worker::new(learner, plan.charter.clone(), None, reports));
            worker.begin(plan.alone)
        };
        each(&self.pools, seats.iter_mut(), begin)?;
        let result = self.play(plan, &mut seats, &reports, heard);
        for Seat { key, worker, .. } in seats {
            self.learners.extend(worker.map(|worker| (key, worker.into_learner())));
        }
        result
    }

    /// Lets messages travel and nodes work, in turns, until all have finished.
    fn play(
        &self,
        plan: &Plan<'_>,
        seats: &mut [Seat<'_>],
        reports: &Receiver<(usize, Report)>,
        heard: &mut Heard<'_>,
    ) -> Result<()> {
        let identities = plan.scenario.nodes.iter().map(|node| Identity::from_seed(plan.seed, &node.name));
        let mut mesh = Mesh::new(plan.charter.clone(), identities.collect(), heard)?;
        loop {
            let mut reported: Vec<(usize, Report)> = reports.try_iter().collect();
            reported.sort_by_key(|(node, _)| *node);
            for (node, report) in reported {
                mesh.report(node, report)?;
            }
            let Some(work) = mesh.run()? else { return Ok(()) };
            let busy = seats.iter_mut().zip(work).filter(|(_, work)| !work.is_empty());
            each(&self.pools, busy, |(seat, work): (&mut Seat<'_>, VecDeque<_>)| {
                let worker = seat.worker.as_mut().context("a node that has not begun")?;
                work.into_iter().try_for_each(|work| worker.work(work))
            })?;
        }
    }

    /// A node's backbone; those of the same folder share it.
    fn backbone(&mut self, node: &NodePlan) -> Result<Arc<dyn Backbone>> {
        let options = options(node);
        let key = (node.backbone.clone(), format!("{options:?}"));
        if let Some(known) = self.backbones.get(&key) {
            return Ok(known.clone());
        }
        let loaded: Arc<dyn Backbone> = backbone::load(&node.backbone, options)?.into();
        Ok(self.backbones.entry(key).or_insert(loaded).clone())
    }
}

impl InProcess for Engine {
    fn run(&mut self, plan: &Plan<'_>, heard: &mut Heard<'_>) -> Result<(), RunError> {
        Engine::run(self, plan, heard).map_err(|error| match error.downcast::<RunError>() {
            Ok(error) => error,
            Err(error) => match error.downcast_ref::<TrainError>() {
                Some(TrainError::Diverged(_)) => RunError::Diverged(format!("{error:#}")),
                _ => RunError::Network(format!("{error:#}")),
            },
        })
    }
}

/// A node of a network.
struct Seat<'a> {
    node: &'a NodePlan,
    backbone: Arc<dyn Backbone>,
    /// From a network before.
    learner: Option<Learner>,
    key: Key,
    reports: Option<Reports>,
    worker: Option<Worker>,
}

impl Seat<'_> {
    fn learner(&mut self, plan: &Plan<'_>, settings: Settings) -> Result<Learner> {
        if let Some(mut learner) = self.learner.take()
            && learner.renew(plan.charter, settings)?
        {
            return Ok(learner);
        }
        let (folder, data): (&Path, &Path) = (&self.node.backbone, &self.key.1);
        let learner =
            Learner::load_for(self.backbone.clone(), folder, options(self.node), data, plan.charter, settings);
        learner.with_context(|| format!("node {}", self.node.name))
    }
}

/// Does something with each item, as many at a time as there are pools; the first error stops it.
fn each<T: Send>(
    pools: &[ThreadPool],
    items: impl Iterator<Item = T>,
    work: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    let items: Mutex<VecDeque<T>> = Mutex::new(items.collect());
    let failed = Mutex::new(None);
    let lock = || items.lock().unwrap_or_else(PoisonError::into_inner);
    let next = || lock().pop_front();
    thread::scope(|scope| {
        for pool in pools {
            scope.spawn(|| {
                pool.install(|| {
                    while let Some(item) = next() {
                        if let Err(error) = work(item) {
                            lock().clear();
                            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        }
                    }
                });
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// How a node's backbone is loaded.
fn options(node: &NodePlan) -> Options {
    let precision = match node.precision {
        None | Some(Written::F32) => Precision::F32,
        Some(Written::F16) => Precision::F16,
        Some(Written::Bf16) => Precision::Bf16,
        Some(Written::Q8) => Precision::Q8,
        Some(Written::Q4) => Precision::Q4,
    };
    Options { layers: node.layers.map(|layers| layers as usize), precision, ..Options::default() }
}

/// How a scenario's nodes train.
fn settings(plan: &TrainPlan, seed: u64) -> Settings {
    let training = Training {
        steps: Some(plan.steps as usize),
        batch: Some(plan.batch as usize),
        rate: Some(plan.rate),
        branch_rate: plan.branch_rate,
        readout_rate: plan.readout_rate,
        projection_rate: plan.projection_rate,
        length: plan.length.map(|length| length as usize),
        seed: Some(seed),
        ..Training::default()
    };
    training.settings()
}
