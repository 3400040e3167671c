//! Comparing methods: the same nodes, the same data, several seeds, and settings that are chosen by rows of which nobody
//! learns, never by the test.
//!
//! A seed deals the data once, and all methods get that deal; so differences between methods are differences of pairs. What is
//! chosen for a method (training settings, and the round to stop at) is one choice for all nodes and seeds.

mod methods;
mod page;
mod search;
mod spread;
mod study;
mod table;

pub use methods::list;
pub use search::SearchPlan;
pub use spread::Spread;
pub use study::{Against, Chosen, MethodResult, Point, SeedScore, Study, Tried};

use crate::{
    Deal, InProcess, Metric, RunError, Runner, Score, folder,
    history::History,
    progress::Progress,
    runner::check_seed,
    stage::{Dealt, Run, Stage},
};
use heterotune_protocol::charter::NetworkId;
use methods::{FULL, Kind, LOCAL, Method};
use search::Search;
use std::collections::BTreeMap;

/// What is to be compared.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The methods' names: see [`list`]; the file's ablations are methods, too. None: the scenario, and each node alone.
    pub methods: Vec<String>,
    /// How many seeds, from the runner's on.
    pub seeds: u64,
    /// What the methods are compared to: one of them. If there is none, `local`, or else the first.
    pub reference: Option<String>,
    /// Whether settings are searched for each method.
    pub search: bool,
}

impl Comparison {
    /// The methods to run, and the place among them of what they are compared to.
    fn methods(&self, scenario: &crate::Scenario) -> Result<(Vec<Method>, usize), RunError> {
        let usual = [LOCAL, FULL].map(String::from);
        let names = if self.methods.is_empty() { &usual[..] } else { &self.methods };
        let methods: Vec<Method> = names.iter().map(|name| Method::named(name, scenario)).collect::<Result<_, _>>()?;
        let place = |wanted: &str| names.iter().position(|name| name == wanted);
        let reference = match &self.reference {
            None => place(LOCAL).unwrap_or(0),
            Some(name) => {
                place(name).ok_or_else(|| RunError::NoMethod { name: name.clone(), known: names.join(", ") })?
            }
        };
        Ok((methods, reference))
    }
}

/// What a network came to: means over its nodes.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    /// By round; 0 is the start.
    scores: BTreeMap<u64, Score>,
    /// By the rows that settings are chosen by.
    validated: BTreeMap<u64, f64>,
    alone: Option<Score>,
    /// The scenario's own result: after the last round, or where each node stops early.
    end: Score,
}

impl Trace {
    fn of(nodes: &[History], metric: Metric) -> Self {
        let rounds = nodes.iter().flat_map(|node| node.scores.keys().copied());
        let mean = |round| Some((round, History::mean_score_after(nodes, round, metric)?));
        let validated = |round: u64| {
            let scores = nodes.iter().filter_map(|node| node.validated.get(&round));
            Some((round, metric.mean(scores.map(|score| score.global))?))
        };
        let alone = || nodes.iter().filter_map(|node| node.alone.as_ref()).map(|alone| alone.score);
        let (global, own) = (alone().map(|score| score.global), alone().map(|score| score.own));
        Self {
            validated: rounds.clone().filter_map(validated).collect(),
            scores: rounds.filter_map(mean).collect(),
            alone: metric.mean(global).zip(metric.mean(own)).map(|(global, own)| Score { global, own }),
            end: History::mean_score(nodes, metric),
        }
    }
}

/// A method, what is tried for it, and what that came to.
pub(crate) struct Trial {
    method: Method,
    search: Search,
    /// By setting, then in the order of the seeds; none where training diverged.
    traces: Vec<Vec<Option<Trace>>>,
}

impl Trial {
    /// The best round of a setting by the validation rows, and how good it is there; none where it can't be told.
    fn best_round(&self, setting: usize, metric: Metric) -> Option<(u64, f64)> {
        let traces: Vec<&Trace> = self.traces.get(setting)?.iter().map(Option::as_ref).collect::<Option<_>>()?;
        let rounds = traces.first()?.validated.keys();
        let mean = |round: &u64| {
            let scores = traces.iter().map(|trace| trace.validated.get(round).copied());
            Some((*round, crate::history::mean(scores.collect::<Option<Vec<_>>>()?)?))
        };
        let rounds = rounds.filter_map(mean).filter(|(_, score)| score.is_finite());
        // The first of equals.
        rounds.reduce(|best, next| if metric.is_better(next.1, best.1) { next } else { best })
    }

    /// The best setting, with its best round.
    fn best(&self, metric: Metric) -> Option<(usize, u64, f64)> {
        let all = (0..self.traces.len())
            .filter_map(|at| self.best_round(at, metric).map(|(round, score)| (at, round, score)));
        all.reduce(|best, next| if metric.is_better(next.2, best.2) { next } else { best })
    }
}

impl Runner<'_> {
    /// Compares methods on `scenario` and leaves `summary.json` and `report.html` in the output folder.
    ///
    /// # Errors
    /// As [`Runner::run`]; also methods that are not known, and no rows to choose settings by.
    pub fn compare(
        self,
        scenario: &crate::Scenario,
        comparison: &Comparison,
        engine: Option<&mut dyn InProcess>,
    ) -> Result<Study, RunError> {
        let Self { binary, out, seed, progress, .. } = self;
        let (methods, reference) = comparison.methods(scenario)?;
        let seeds: Vec<u64> = (0..comparison.seeds.max(1)).map(|more| seed.saturating_add(more)).collect();
        seeds.iter().try_for_each(|seed| check_seed(*seed))?;
        let mut progress = Progress::new(progress);
        let mut stage = Stage::open(scenario, &out, binary, engine)?;
        if comparison.search && stage.scenario.data.validation.is_none() {
            let spare = Deal::spare(&stage.scenario, &stage.data)?;
            if spare == 0 {
                return Err(RunError::NoValidation(scenario.name.clone()));
            }
            stage.scenario.data.validation = Some(spare);
        }
        let deals = seeds.iter().map(|seed| Deal::draw(&stage.scenario, &stage.data, *seed));
        let deals: Vec<Deal> = deals.collect::<Result<_, _>>()?;
        stage.empty()?;
        let write = |(seed, deal): (&u64, Deal)| stage.write(deal, *seed, &format!("data/{seed}"));
        let pool = |(seed, deal): (&u64, &Deal)| stage.write(deal.pooled(), *seed, &format!("data/{seed}-pooled"));
        let pooled: Vec<Dealt> = match methods.iter().any(|method| method.kind == Kind::Pooled) {
            true => seeds.iter().zip(&deals).map(pool).collect::<Result<_, _>>()?,
            false => Vec::new(),
        };
        let dealt: Vec<Dealt> = seeds.iter().zip(deals).map(write).collect::<Result<_, _>>()?;
        let trials = methods.into_iter().map(|method| {
            let train = method.train(&stage.scenario);
            let search = match comparison.search && method.kind == Kind::Rounds {
                true => Search::new(method.search(&stage.scenario), train),
                false => Search::none(train),
            };
            Trial { method, search, traces: Vec::new() }
        });
        let trials = trials.collect();
        let mut bench =
            Bench { stage, dealt, pooled, trials, known: BTreeMap::new(), spent: (0, 0.0), progress: &mut progress };
        bench.run()?;
        let (folder, shown) = (bench.stage.out(), bench.shown());
        let study = Study::new(&bench.stage.scenario, &seeds, reference, &bench.trials, shown);
        let study = Study { wall_s: progress.seconds(), ..study };
        folder::write(&folder.join("summary.json"), (study.to_json()? + "\n").as_bytes())?;
        folder::write(&folder.join("report.html"), page::html(&study).as_bytes())?;
        progress.line("");
        Ok(study)
    }
}

/// A comparison on its way.
struct Bench<'a, 'b, 'c> {
    stage: Stage<'a>,
    dealt: Vec<Dealt>,
    /// The same, but that each node has the rows of all; empty where no method needs it.
    pooled: Vec<Dealt>,
    trials: Vec<Trial>,
    /// What networks came to: some methods are others by another name.
    known: BTreeMap<(NetworkId, String), Option<Trace>>,
    /// Networks that have run their rounds, and the seconds that they took.
    spent: (usize, f64),
    progress: &'b mut Progress<'c>,
}

impl Bench<'_, '_, '_> {
    /// Runs all methods with all their settings and seeds.
    fn run(&mut self) -> Result<(), RunError> {
        let metric = self.stage.scenario.metric();
        let settings =
            |(at, trial): (usize, &Trial)| (0..trial.search.settings.len()).map(move |setting| (at, setting));
        let mut pending: Vec<(usize, usize)> = self.trials.iter().enumerate().flat_map(settings).collect();
        self.tell(pending.len());
        while !pending.is_empty() {
            for (at, setting) in &pending {
                let traces = &mut self.trials[*at].traces;
                traces.resize(traces.len().max(setting + 1), Vec::new());
            }
            let all = pending.len() * self.dealt.len();
            for seed in 0..self.dealt.len() {
                for (done, (at, setting)) in pending.iter().enumerate() {
                    let left = all - seed * pending.len() - done - 1;
                    let trace = self.one(*at, *setting, seed, left)?;
                    self.trials[*at].traces[*setting].push(trace);
                }
            }
            let next = self.trials.iter_mut().enumerate().filter_map(|(at, trial)| {
                let (best, ..) = trial.best(metric)?;
                Some((at, trial.search.go_on(best)?))
            });
            pending = next.collect();
        }
        Ok(())
    }

    /// Runs a method with one of its settings on the data of one seed, and says so; `left` networks come after it.
    fn one(&mut self, at: usize, setting: usize, seed: usize, left: usize) -> Result<Option<Trace>, RunError> {
        let trace = self.trace(at, setting, seed)?;
        let Trial { method, search, .. } = &self.trials[at];
        let came_to = match &trace {
            None => "diverged".into(),
            Some(trace) => outcome(method.kind, trace, self.stage.scenario.metric()),
        };
        let (networks, seconds) = self.spent;
        let minutes = left as f64 * seconds / networks.max(1) as f64 / 60.0;
        let left = if left > 0 && networks > 0 { format!("; about {minutes:.1} min left") } else { String::new() };
        let (seed, name, setting) = (self.dealt[seed].seed, &method.variant.name, &search.settings[setting].label);
        self.progress.phase(&format!("seed {seed}  {name:<12}  {setting:<15}  {came_to}{left}"));
        Ok(trace)
    }

    /// What a network comes to; none where training diverges.
    fn trace(&mut self, at: usize, setting: usize, seed: usize) -> Result<Option<Trace>, RunError> {
        let Trial { method, search, .. } = &self.trials[at];
        let (kind, train) = (method.kind, search.settings[setting].train.clone());
        let (alone, pooled) = (matches!(kind, Kind::Alone | Kind::Pooled), kind == Kind::Pooled);
        let dealt = if pooled { &self.pooled[seed] } else { &self.dealt[seed] };
        let scenario = self.stage.scenario.clone();
        let charter = dealt.charter(&scenario, Some(&method.variant))?;
        let key = (charter.id()?, format!("{train:?} {pooled}"));
        let fits = |trace: &&Option<Trace>| !alone || trace.as_ref().is_some_and(|trace| trace.alone.is_some());
        if let Some(trace) = self.known.get(&key).filter(fits) {
            return Ok(trace.clone());
        }
        let name = format!("{}-{}-{setting}", dealt.seed, method.variant.name.replace(':', "-"));
        let folder = self.stage.out().join("compare").join(name);
        let run = Run { scenario: &scenario, train: &train, charter: &charter, folder: &folder, alone };
        let started = self.progress.seconds();
        let trace = match self.progress.quietly(|progress| self.stage.run(&run, dealt, progress)) {
            Ok(histories) => Some(Trace::of(&histories, scenario.metric())),
            Err(RunError::Diverged(_)) => None,
            Err(error) => return Err(error),
        };
        if kind == Kind::Rounds {
            self.spent = (self.spent.0 + 1, self.spent.1 + self.progress.seconds() - started);
        }
        self.known.insert(key, trace.clone());
        Ok(trace)
    }

    /// What is to come, in words.
    fn tell(&mut self, settings: usize) {
        let scenario = &self.stage.scenario;
        let (seeds, nodes) = (self.dealt.len(), scenario.nodes.len());
        let text = format!(
            "{}: {} methods, {seeds} seeds, {nodes} nodes: {} networks{}\n",
            scenario.name,
            self.trials.len(),
            settings * seeds,
            match scenario.data.validation {
                Some(rows) => format!(" at least; settings are chosen by {rows} rows that nobody learns from"),
                None => String::new(),
            }
        );
        self.progress.line(&text);
    }

    /// Whether there was anything to choose by.
    fn shown(&self) -> bool {
        self.stage.scenario.data.validation.is_some()
    }
}

/// What a network came to, in words.
fn outcome(kind: Kind, trace: &Trace, metric: Metric) -> String {
    let cells = |score: Score| format!("{} / {}", metric.cell(score.global), metric.cell(score.own));
    match kind {
        Kind::Alone | Kind::Pooled => format!("test {}", trace.alone.map_or("-".into(), cells)),
        Kind::Start => format!("test {}", trace.scores.get(&0).copied().map_or("-".into(), cells)),
        Kind::Rounds => {
            let best = trace.validated.values().copied().reduce(|a, b| if metric.is_better(b, a) { b } else { a });
            let validation = best.map_or(String::new(), |best| format!("validation {}, ", metric.cell(best)));
            format!("{validation}test {}", cells(trace.end))
        }
    }
}
