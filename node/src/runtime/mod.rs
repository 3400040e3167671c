//! One node, running: a single select loop that carries what happens on the network, the clock, the trainer, the
//! disk and the computing threads to [`State::handle`], and what it says back to them. It decides nothing itself.

mod grumbles;
mod news;

use crate::{
    backbone,
    config::{NodeConfig, read_charter},
    console::Console,
    disk::{self, Crash, Disk, Done, Sorted},
    events::{self, EventLog, unix_ms},
    folder, invite,
    lie::Liar,
    net::{self, Network, is_loopback},
    signals::{reload_signal, stop_signal},
    status::Watch,
    store::{Record, Store},
    train::{Learner, Settings},
    trainer::{Report, Trainer},
    usage,
};
use anyhow::{Context as _, Result, anyhow, bail};
use grumbles::Grumbles;
use heterotune_crypto::{Identity, NodeId};
use heterotune_protocol::{
    charter::Charter,
    fuse,
    message::Context,
    round::{Contribution, Input, Job, Output, Product, State},
};
use heterotune_scenarios::Lie;
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{MissedTickBehavior, interval},
};

/// How often time passes for the state.
const TICK: Duration = Duration::from_millis(250);

/// After the last round a node stays for members that are not connected, so that they can still pull.
const FAREWELL: Duration = Duration::from_secs(5);

/// The last head's way out, before the connections close.
const LAST_WORDS: Duration = Duration::from_millis(750);

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state folder.
    pub state: PathBuf,
    /// The charter file.
    pub charter: PathBuf,
    /// The backbone's folder.
    pub backbone: PathBuf,
    /// How much of it is loaded, and in what precision.
    pub frozen: backbone::Options,
    /// The data folder.
    pub data: PathBuf,
    /// How it is reached, and reaches others. In a scenario nothing beyond the loopback is asked.
    pub network: net::Settings,
    /// How to train.
    pub training: Settings,
    /// Threads for fusing.
    pub threads: usize,
    /// Whether to measure what the node reaches alone.
    pub alone: bool,
    /// What is printed on standard error.
    pub console: Console,
    /// The flags on the command line, which also win over a `node.toml` that is read again.
    pub flags: NodeConfig,
    /// In a scenario: the seed and name that the identity derives from.
    pub scenario: Option<(u64, String)>,
    /// In a scenario: what it tells the others in place of what is true. Without one it tells the truth.
    pub lie: Option<Lie>,
    /// In a scenario: whether it draws updates instead of training.
    pub idle: bool,
    /// In a scenario: where it dies.
    pub crash: Option<Crash>,
}

/// Runs a node until its network's last round is closed and known to be, or it is told to stop.
///
/// # Errors
/// One sentence on what it could not begin or go on with. What was agreed on before is on disk.
pub async fn run(options: Options) -> Result<()> {
    let charter = read_charter(&options.charter)?;
    let store = Store::open(&options.state)?;
    let identity = identity(&options, &store)?;
    let membership = folder::read_membership(&options.state)?;
    invite::admits(&charter, membership.as_ref(), &identity.id(), unix_ms() / 1_000)
        .with_context(|| format!("by {}", options.charter.display()))?;
    store.bind(&charter)?;
    let saved = store.load()?;
    // The runner of a scenario follows one file.
    let log = EventLog::open(&options.state, if options.scenario.is_some() { u64::MAX } else { events::BYTES_MAX })?;

    let context = Arc::new(Context::new(charter.clone())?);
    // The nodes of a scenario are told where the others are.
    let by_itself = options.scenario.is_none();
    let settings = net::Settings {
        mdns: options.network.mdns && by_itself,
        upnp: options.network.upnp && by_itself,
        call_back: options.network.call_back && by_itself,
        membership,
        folder: Some(options.state.clone()),
        ..options.network.clone()
    };
    let state = State::new(context.clone(), identity.clone(), saved);
    let state = match settings.membership.clone() {
        Some(membership) => state.with_membership(membership),
        None => state,
    };
    let network = Network::new(&identity, context.clone(), settings)?;

    let (done_sender, done) = channel(QUEUE);
    let (report_sender, reports) = channel(QUEUE);
    let (product_sender, products) = channel(QUEUE);
    let disk = Disk::start(store, log, done_sender, options.crash.filter(|_| options.scenario.is_some()))?;
    let trainer = {
        let (options, charter) = (options.clone(), charter.clone());
        let private = options.state.join("private.safetensors");
        let idle = (options.idle && options.scenario.is_some()).then(|| identity.id());
        Trainer::start(charter.clone(), private, options.alone, idle, report_sender, move || {
            Ok(Learner::load(&options.backbone, options.frozen, &options.data, &charter, options.training)?)
        })?
    };
    let liar = options.scenario.as_ref().zip(options.lie);
    let liar = liar.map(|((seed, _), lie)| Liar::new(lie, *seed, identity.id(), context.clone()));
    let node = Node {
        id: identity.id(),
        state,
        network,
        trainer,
        liar,
        disk,
        charter,
        threads: options.threads,
        products: product_sender,
        keeping: 0,
        grumbles: Grumbles::default(),
        console: options.console,
        watch: Watch::default(),
        started: Instant::now(),
        started_ms: unix_ms(),
        evaluated: false,
        finished_at: None,
    };
    node.run(&options, &identity, done, reports, products).await
}

/// Reports, products and writes waiting for the loop.
const QUEUE: usize = 64;

fn identity(options: &Options, store: &Store) -> Result<Identity> {
    let Some((seed, name)) = &options.scenario else { return store.identity() };
    let net::Settings { listen, bootstrap, external, .. } = &options.network;
    let mut addresses = listen.iter().chain(bootstrap).chain(external);
    if let Some(address) = addresses.find(|address| !is_loopback(address)) {
        bail!(
            "--scenario derives the key from a seed that anyone can guess, so it works on the loopback only, not on {address}"
        );
    }
    let identity = Identity::from_seed(*seed, name);
    store.adopt(&identity)?;
    Ok(identity)
}

struct Node {
    id: NodeId,
    state: State,
    network: Network,
    trainer: Trainer,
    liar: Option<Liar>,
    disk: Disk,
    charter: Charter,
    threads: usize,
    products: Sender<Result<Product>>,
    /// Writes that the disk has not reported yet.
    keeping: usize,
    grumbles: Grumbles,
    console: Console,
    watch: Watch,
    started: Instant,
    started_ms: u64,
    /// Whether the final mixture is evaluated.
    evaluated: bool,
    finished_at: Option<Instant>,
}

impl Node {
    async fn run(
        mut self,
        options: &Options,
        identity: &Identity,
        mut done: Receiver<Done>,
        mut reports: Receiver<Report>,
        mut products: Receiver<Result<Product>>,
    ) -> Result<()> {
        let result = self.begin(options, identity);
        let result = match result {
            Ok(()) => self.select(options, &mut done, &mut reports, &mut products).await,
            Err(error) => Err(error),
        };
        let last = match &result {
            Ok(()) => self.farewell(),
            Err(error) => json!({"event": "error", "message": format!("{error:#}")}),
        };
        let _ = self.disk.tell(last);
        // Only hints: who does not find them asks around.
        let _ = self.network.close();
        result.and(self.disk.flush(&mut done))
    }

    fn begin(&mut self, options: &Options, identity: &Identity) -> Result<()> {
        self.tell(json!({
            "event": "started",
            "name": options.state.file_name().map(|name| name.to_string_lossy()),
            "node": identity.id(),
            "peer_id": self.network.peer_id().to_string(),
            "network": Context::new(self.charter.clone())?.network,
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
        }))?;
        if let Some(lie) = options.lie {
            self.tell(json!({"event": "lying", "lie": lie}))?;
        }
        self.handle(Input::Start)
    }

    async fn select(
        &mut self,
        options: &Options,
        done: &mut Receiver<Done>,
        reports: &mut Receiver<Report>,
        products: &mut Receiver<Result<Product>>,
    ) -> Result<()> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut stop = stop_signal(options.scenario.is_some())?;
        let mut reload = reload_signal(options.scenario.is_some())?;
        loop {
            tokio::select! {
                event = self.network.next() => self.on_network(event)?,
                report = reports.recv() => self.on_report(report.context("the trainer has stopped unexpectedly")?)?,
                Some(product) = products.recv() => self.handle(Input::Computed(product?))?,
                said = done.recv() => match said.context("the disk's thread has stopped unexpectedly")? {
                    Done::Kept(outputs) => {
                        self.keeping -= 1;
                        // They have waited for all that was on its way when they were said.
                        outputs.into_iter().try_for_each(|output| self.act(output))?;
                    }
                    Done::Failed(error) => return Err(error),
                },
                _ = ticks.tick() => {
                    self.network.tick();
                    if let Some(status) = self.watch.due(&self.state, || self.network.traffic()) {
                        self.disk.show(status);
                    }
                    self.handle(Input::Tick)?;
                    if self.may_leave() {
                        return Ok(());
                    }
                }
                Some(()) = reload.recv() => self.reload(options)?,
                Some(cause) = stop.recv() => {
                    self.tell(json!({"event": "stopped", "cause": cause}))?;
                    return Ok(());
                }
            }
        }
    }

    fn handle(&mut self, input: Input) -> Result<()> {
        // Runs on whatever happens to the system's clock, and starts above all earlier runs of this node.
        let now = self.started_ms + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX / 2);
        let outputs = self.state.handle(input, now);
        self.perform(outputs)?;
        self.lie()
    }

    /// Hands over what the trainer has made for the network; a liar makes something else of it first.
    fn contribute(&mut self, contribution: Contribution) -> Result<()> {
        match &mut self.liar {
            None => self.handle(Input::Contribution(contribution)),
            Some(liar) => {
                liar.hold(contribution);
                self.lie()
            }
        }
    }

    /// Hands over what a liar has made of its contribution, once it has heard enough for that.
    fn lie(&mut self) -> Result<()> {
        let base = self.state.checkpoint().map(|checkpoint| &checkpoint.mixture);
        let told = self.liar.as_mut().and_then(|liar| liar.tell(base));
        told.map_or(Ok(()), |told| self.handle(Input::Contribution(told)))
    }

    /// Does what the state says, in order; what must wait for the disk does.
    fn perform(&mut self, outputs: Vec<Output>) -> Result<()> {
        let Sorted { now, records, later } = disk::sort(outputs, self.keeping > 0);
        for record in &records {
            if let (Record::Message(message), Some(liar)) = (record, &mut self.liar) {
                liar.hear(message);
            }
        }
        now.into_iter().try_for_each(|output| self.act(output))?;
        if records.is_empty() && later.is_empty() {
            return Ok(());
        }
        self.keeping += 1;
        self.disk.keep(records, later)
    }

    fn act(&mut self, output: Output) -> Result<()> {
        match output {
            Output::Judge { ticket, verdict } => self.network.judge(ticket, &verdict),
            Output::Publish(message) => self.network.publish(message),
            Output::Pull { to, pull } => self.network.pull(&to, pull),
            Output::Answer { ticket, batch } => self.network.answer(ticket, batch),
            Output::Fetch { to, fetch } => self.network.fetch(&to, fetch),
            Output::Piece { ticket, piece } => self.network.give(ticket, piece),
            Output::Train(work) => self.trainer.work(work),
            Output::Compute(job) => self.compute(job)?,
            Output::Tell(event) => self.on_event(event)?,
            Output::Keep(_) | Output::KeepPiece(_) | Output::Checkpoint(_) | Output::Seal { .. } => {}
        }
        Ok(())
    }

    fn compute(&self, job: Job) -> Result<()> {
        let (products, threads) = (self.products.clone(), self.threads);
        thread::Builder::new().name("compute".into()).spawn(move || {
            let product = if fuse::canary() {
                let run = std::panic::AssertUnwindSafe(|| job.run(threads));
                std::panic::catch_unwind(run)
                    .map_err(|_| anyhow!("fusing has failed; this is a defect, please report it"))
            } else {
                Err(anyhow!(
                    "this process does not compute by IEEE 754 (a loaded library has switched denormal numbers off), so it cannot agree with others"
                ))
            };
            let _ = products.blocking_send(product);
        })?;
        Ok(())
    }

    fn tell(&self, event: Value) -> Result<()> {
        self.console.show(&event);
        self.disk.tell(event)
    }

    /// Reads again what may change while the node runs. A file that is wrong changes nothing.
    fn reload(&mut self, options: &Options) -> Result<()> {
        match NodeConfig::read(&options.state) {
            Err(error) => self.not_reloaded(&error),
            Ok(file) => {
                let config = options.flags.clone().or(file);
                self.console = Console::new(config.log.unwrap_or_default());
                self.network.set_bootstrap(config.bootstrap.unwrap_or_default());
                match self.network.reload() {
                    Ok(()) => self.tell(json!({"event": "reloaded"})),
                    Err(error) => self.not_reloaded(&error),
                }
            }
        }
    }

    fn not_reloaded(&self, error: &anyhow::Error) -> Result<()> {
        self.console.warn(&format!("not read again: {error:#}"));
        self.tell(json!({"event": "not_reloaded", "reason": format!("{error:#}")}))
    }

    /// Whether the last round is closed here, and everybody who can be told knows it.
    fn may_leave(&mut self) -> bool {
        if !self.state.is_finished() || !self.evaluated {
            return false;
        }
        let finished_at = *self.finished_at.get_or_insert_with(Instant::now);
        let unfinished: Vec<NodeId> = self.state.unfinished();
        let waiting = if unfinished.is_empty() { LAST_WORDS } else { FAREWELL };
        let none_connected = unfinished.iter().all(|member| !self.network.is_connected(member));
        let deadline = Duration::from_millis(self.charter.rounds.deadline_ms);
        finished_at.elapsed() >= deadline || (none_connected && finished_at.elapsed() >= waiting)
    }

    fn farewell(&self) -> Value {
        if !self.state.is_finished() {
            return json!({"event": "left", "round": self.state.step().round()});
        }
        let traffic = self.network.traffic();
        json!({
            "event": "finished",
            "rounds": self.charter.rounds.total,
            "mixture_hash": self.state.checkpoint().map(|checkpoint| checkpoint.mixture.digest()),
            "bytes_out": traffic.bytes_out,
            "bytes_in": traffic.bytes_in,
            "peak_rss_bytes": usage::peak().unwrap_or(0),
        })
    }
}
