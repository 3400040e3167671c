//! What came of a comparison: `summary.json`, whose names and order are stable.

use super::{Kind, Spread, Trace, Trial};
use crate::{Metric, RunError, Scenario, Score};
use serde::Serialize;

/// What came of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Study {
    /// The scenario's name.
    pub scenario: String,
    /// What all scores in it are.
    pub metric: Metric,
    /// Nodes, over which all scores are means.
    pub nodes: usize,
    /// The seeds: each deals the data anew, once for all methods.
    pub seeds: Vec<u64>,
    /// Rows that nobody learns from, by which settings and rounds are chosen; none where nothing is chosen.
    pub validation_rows: Option<usize>,
    /// Seconds that it took.
    pub wall_s: f64,
    /// What methods are compared to.
    pub reference: String,
    /// The methods, in the order in which they were named.
    pub methods: Vec<MethodResult>,
}

/// What came of a method.
#[derive(Clone, Debug, Serialize)]
pub struct MethodResult {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// What was chosen for it; none where there was nothing to choose.
    pub chosen: Option<Chosen>,
    /// Global score on the test, at the chosen round if there is one, over the seeds; none where training diverged.
    pub global: Option<Spread>,
    /// Own score, likewise.
    pub own: Option<Spread>,
    /// Global score after the last round.
    pub last_global: Option<Spread>,
    /// Own score after the last round.
    pub last_own: Option<Spread>,
    /// Each seed.
    pub per_seed: Vec<SeedScore>,
    /// How much better it is than what methods are compared to; none for that itself.
    pub against: Option<Against>,
    /// Global test score by round, over the seeds.
    pub by_round: Vec<Point>,
    /// All settings that were tried.
    pub tried: Vec<Tried>,
}

/// What was chosen for a method.
#[derive(Clone, Debug, Serialize)]
pub struct Chosen {
    /// The setting.
    pub setting: String,
    /// The round after which it stops.
    pub round: u64,
    /// Its mean score on the validation rows.
    pub validation: f64,
    /// Whether the setting is the last of its list, so that a better one may be beyond.
    pub at_edge: bool,
}

/// Scores of one seed.
#[derive(Clone, Debug, Serialize)]
pub struct SeedScore {
    /// Which.
    pub seed: u64,
    /// On the test, at the chosen round if there is one.
    pub picked: Score,
    /// After the last round.
    pub last: Score,
}

/// A method against another: over the seeds, the differences of pairs. More is better, whatever the metric; accuracy in
/// points, perplexity in per cent.
#[derive(Clone, Debug, Serialize)]
pub struct Against {
    /// Global score.
    pub global: Spread,
    /// Seeds in which the method's is the better one.
    pub global_won: usize,
    /// Own score.
    pub own: Spread,
    /// Seeds in which the method's is the better one.
    pub own_won: usize,
}

/// A round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Which; 0 is the start.
    pub round: u64,
    /// Global test score.
    pub global: Spread,
}

/// A setting that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// Which.
    pub setting: String,
    /// The best round by the validation rows; none where training diverged, or nothing is chosen.
    pub round: Option<u64>,
    /// The score there on the validation rows.
    pub validation: Option<f64>,
}

impl Study {
    /// Sums up what was run.
    pub(super) fn new(scenario: &Scenario, seeds: &[u64], reference: usize, trials: &[Trial], chosen: bool) -> Self {
        let metric = scenario.metric();
        let mut methods: Vec<MethodResult> = trials.iter().map(|trial| sum_up(trial, seeds, metric)).collect();
        let base = methods.get(reference).map(|method| (method.name.clone(), method.per_seed.clone()));
        let (name, base) = base.unwrap_or_default();
        for (_, method) in methods.iter_mut().enumerate().filter(|(at, _)| *at != reference) {
            method.against = against(&method.per_seed, &base, metric);
        }
        Self {
            scenario: scenario.name.clone(),
            metric,
            nodes: scenario.nodes.len(),
            seeds: seeds.to_vec(),
            validation_rows: scenario.data.validation.filter(|_| chosen),
            wall_s: 0.0,
            reference: name,
            methods,
        }
    }

    /// The study as JSON.
    ///
    /// # Errors
    /// Never, as far as known: all that is in it can be written as JSON.
    pub fn to_json(&self) -> Result<String, RunError> {
        let json = serde_json::to_string_pretty(self);
        json.map_err(|error| RunError::Encode { what: "the study", message: error.to_string() })
    }
}

fn sum_up(trial: &Trial, seeds: &[u64], metric: Metric) -> MethodResult {
    let kind = trial.method.kind;
    let best = trial.best(metric).filter(|_| kind == Kind::Rounds);
    let setting = best.map_or(0, |(setting, ..)| setting);
    let traces = trial.traces.get(setting).map_or(&[][..], Vec::as_slice);
    let traces: Vec<&Trace> = traces.iter().map(Option::as_ref).collect::<Option<_>>().unwrap_or_default();
    let picked = |trace: &Trace| match (kind, best) {
        (Kind::Alone | Kind::Pooled, _) => trace.alone,
        (Kind::Start, _) => trace.scores.get(&0).copied(),
        (Kind::Rounds, Some((_, round, _))) => trace.scores.get(&round).copied(),
        (Kind::Rounds, None) => Some(trace.end),
    };
    let per_seed = seeds.iter().zip(&traces).filter_map(|(seed, trace)| {
        let picked = picked(trace)?;
        let last = if kind == Kind::Rounds {
            trace.scores.last_key_value().map_or(trace.end, |(_, last)| *last)
        } else {
            picked
        };
        Some(SeedScore { seed: *seed, picked, last })
    });
    let per_seed: Vec<SeedScore> = per_seed.collect();
    let spread = |value: fn(&SeedScore) -> f64| Spread::of(&per_seed.iter().map(value).collect::<Vec<_>>());
    let label =
        |setting: usize| trial.search.settings.get(setting).map(|setting| setting.label.clone()).unwrap_or_default();
    let tried = (0..trial.traces.len()).map(|setting| {
        let best = trial.best_round(setting, metric);
        Tried { setting: label(setting), round: best.map(|(round, _)| round), validation: best.map(|(_, score)| score) }
    });
    MethodResult {
        name: trial.method.variant.name.clone(),
        about: trial.method.about.clone(),
        chosen: best.map(|(setting, round, validation)| Chosen {
            setting: label(setting),
            round,
            validation,
            at_edge: trial.search.is_at_edge(setting),
        }),
        global: spread(|seed| seed.picked.global),
        own: spread(|seed| seed.picked.own),
        last_global: spread(|seed| seed.last.global),
        last_own: spread(|seed| seed.last.own),
        against: None,
        by_round: if kind == Kind::Rounds { by_round(&traces) } else { Vec::new() },
        tried: if kind == Kind::Rounds { tried.collect() } else { Vec::new() },
        per_seed,
    }
}

fn by_round(traces: &[&Trace]) -> Vec<Point> {
    let rounds = traces.first().into_iter().flat_map(|trace| trace.scores.keys());
    let point = |round: &u64| {
        let scores: Vec<f64> = traces.iter().filter_map(|trace| Some(trace.scores.get(round)?.global)).collect();
        Some(Point { round: *round, global: Spread::of(&scores)? })
    };
    rounds.filter_map(point).collect()
}

/// The differences between what two methods came to with the same seeds.
fn against(method: &[SeedScore], base: &[SeedScore], metric: Metric) -> Option<Against> {
    let pairs =
        || method.iter().filter_map(|one| Some((one.picked, base.iter().find(|other| other.seed == one.seed)?.picked)));
    let global: Vec<f64> = pairs().map(|(one, base)| metric.difference(one.global, base.global)).collect();
    let own: Vec<f64> = pairs().map(|(one, base)| metric.difference(one.own, base.own)).collect();
    let won = |differences: &[f64]| differences.iter().filter(|difference| **difference > 0.0).count();
    Some(Against { global_won: won(&global), own_won: won(&own), global: Spread::of(&global)?, own: Spread::of(&own)? })
}
