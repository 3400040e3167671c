//! Which training settings are tried for a method: those that the file lists, or else a ladder of rates that goes on for as
//! long as its best rung is the last one.

use crate::{TrainPlan, plan::Wrong};
use serde::Deserialize;

/// Settings that one search may try.
const SETTINGS_MAX: usize = 64;

/// Factors of the rates that the file gives, where it lists nothing.
const LADDER: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];

/// The rungs that are tried first.
const FIRST: std::ops::RangeInclusive<usize> = 3..=5;

/// The table `[search]`: values to be tried instead of those in `[train]`, each with each.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchPlan {
    /// Learning rates.
    pub rate: Vec<f64>,
    /// Those of the branches.
    pub branch_rate: Vec<f64>,
    /// Those of the projections.
    pub projection_rate: Vec<f64>,
    /// Those of the readout.
    pub readout_rate: Vec<f64>,
    /// Steps a round.
    pub steps: Vec<u32>,
    /// Rows a step.
    pub batch: Vec<u32>,
}

impl SearchPlan {
    /// The first mistake.
    pub(crate) fn check(&self) -> Result<(), Wrong> {
        let lists = [
            ("rate", &self.rate),
            ("branch_rate", &self.branch_rate),
            ("projection_rate", &self.projection_rate),
            ("readout_rate", &self.readout_rate),
        ];
        let good = |rate: &f64| rate.is_finite() && *rate > 0.0;
        if let Some((key, _)) = lists.iter().find(|(_, rates)| !rates.iter().all(good)) {
            return Err((*key, "must be a list of positive numbers".into()));
        }
        for (key, numbers) in [("steps", &self.steps), ("batch", &self.batch)] {
            if numbers.contains(&0) {
                return Err((key, "must be a list of numbers from 1".into()));
            }
        }
        let counts = lists.iter().map(|(_, rates)| rates.len()).chain([self.steps.len(), self.batch.len()]);
        let all = counts.map(|count| count.max(1)).fold(1, usize::saturating_mul);
        match all <= SETTINGS_MAX {
            true => Ok(()),
            false => {
                Err(("rate", format!("and the other lists make {all} settings, and at most {SETTINGS_MAX} can be")))
            }
        }
    }
}

/// Settings that are tried.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// What differs between those of its search.
    pub(crate) label: String,
    pub(crate) train: TrainPlan,
    /// In each list that it is from: its place, and how long the list is. On the ladder: its rung.
    places: Vec<(usize, usize)>,
}

/// The settings that are tried for a method.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    pub(crate) settings: Vec<Setting>,
    /// What the ladder's factors are of.
    ladder: Option<TrainPlan>,
}

impl Search {
    /// One setting, as it is.
    pub(crate) fn none(train: &TrainPlan) -> Self {
        let setting = Setting { label: "as in the file".into(), train: train.clone(), places: Vec::new() };
        Self { settings: vec![setting], ladder: None }
    }

    /// What `plan` lists; without one, the first rungs of the ladder.
    pub(crate) fn new(plan: Option<&SearchPlan>, train: &TrainPlan) -> Self {
        match plan {
            Some(plan) => Self { settings: grid(plan, train), ladder: None },
            None => {
                let settings = FIRST.map(|rung| on_rung(rung, train)).collect();
                Self { settings, ladder: Some(train.clone()) }
            }
        }
    }

    /// Adds the next rung where the `best` setting is on the last one so far; the number of the new setting.
    pub(crate) fn go_on(&mut self, best: usize) -> Option<usize> {
        let train = self.ladder.as_ref()?;
        let rung = |setting: &Setting| setting.places.first().map_or(0, |(rung, _)| *rung);
        let (low, high) = (self.settings.iter().map(rung).min()?, self.settings.iter().map(rung).max()?);
        let next = match rung(self.settings.get(best)?) {
            at if at == low => at.checked_sub(1)?,
            at if at == high && at + 1 < LADDER.len() => at + 1,
            _ => return None,
        };
        self.settings.push(on_rung(next, train));
        Some(self.settings.len() - 1)
    }

    /// Whether a better setting might be beyond those tried.
    pub(crate) fn is_at_edge(&self, best: usize) -> bool {
        let places = self.settings.get(best).map_or(&[][..], |setting| &setting.places);
        places.iter().any(|(at, count)| *count > 1 && (*at == 0 || at + 1 == *count))
    }
}

/// All rates times a factor.
fn on_rung(rung: usize, train: &TrainPlan) -> Setting {
    let factor = LADDER.get(rung).copied().unwrap_or(1.0);
    let times = |rate: f64| rounded(rate * factor);
    let mut train = train.clone();
    train.rate = times(train.rate);
    for rate in [&mut train.branch_rate, &mut train.projection_rate, &mut train.readout_rate] {
        *rate = rate.map(times);
    }
    let others = train.branch_rate.or(train.projection_rate).or(train.readout_rate).is_some();
    let label = if others { format!("rates x {factor}") } else { format!("rate {}", train.rate) };
    Setting { label, train, places: vec![(rung, LADDER.len())] }
}

/// A number that can be read: 0.0003 in place of 0.00030000000000000003.
fn rounded(rate: f64) -> f64 {
    format!("{rate:.6e}").parse().unwrap_or(rate)
}

fn grid(plan: &SearchPlan, train: &TrainPlan) -> Vec<Setting> {
    let mut settings = vec![Setting { label: String::new(), train: train.clone(), places: Vec::new() }];
    let mut add = |name: &str, values: &[f64], set: &dyn Fn(&mut TrainPlan, f64)| {
        if values.is_empty() {
            return;
        }
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let with = |setting: &Setting, place: usize, value: f64| {
            let mut next = setting.clone();
            set(&mut next.train, value);
            next.places.push((place, values.len()));
            let comma = if next.label.is_empty() { "" } else { ", " };
            next.label.push_str(&format!("{comma}{name} {value}"));
            next
        };
        settings = settings
            .iter()
            .flat_map(|setting| values.iter().enumerate().map(|(place, value)| with(setting, place, *value)))
            .collect();
    };
    let numbers = |list: &[u32]| list.iter().map(|number| f64::from(*number)).collect::<Vec<_>>();
    add("rate", &plan.rate, &|train, rate| train.rate = rate);
    add("branch rate", &plan.branch_rate, &|train, rate| train.branch_rate = Some(rate));
    add("projection rate", &plan.projection_rate, &|train, rate| train.projection_rate = Some(rate));
    add("readout rate", &plan.readout_rate, &|train, rate| train.readout_rate = Some(rate));
    add("steps", &numbers(&plan.steps), &|train, steps| train.steps = steps as u32);
    add("batch", &numbers(&plan.batch), &|train, batch| train.batch = batch as u32);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scenario;

    #[test]
    fn the_ladder_goes_on_while_its_end_is_best() {
        let train = Scenario::quickstart().unwrap().train;
        let mut search = Search::new(None, &train);
        let labels = |search: &Search| search.settings.iter().map(|setting| setting.label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&search), ["rate 0.0003", "rate 0.001", "rate 0.003"]);
        assert_eq!((search.go_on(1), search.is_at_edge(1)), (None, false));
        assert_eq!(search.go_on(2), Some(3));
        assert_eq!((search.go_on(2), search.go_on(3), search.go_on(4)), (None, Some(4), Some(5)));
        assert_eq!(labels(&search)[3..], ["rate 0.01", "rate 0.03", "rate 0.1"]);
        assert_eq!((search.go_on(5), search.is_at_edge(5)), (None, true));
    }

    #[test]
    fn lists_are_tried_each_with_each() {
        let train = Scenario::quickstart().unwrap().train;
        let plan = SearchPlan { rate: vec![0.01, 0.001], steps: vec![5, 10, 20], ..SearchPlan::default() };
        let mut search = Search::new(Some(&plan), &train);
        let labels: Vec<_> = search.settings.iter().map(|setting| setting.label.as_str()).collect();
        assert_eq!(
            labels[..4],
            ["rate 0.001, steps 5", "rate 0.001, steps 10", "rate 0.001, steps 20", "rate 0.01, steps 5"]
        );
        assert_eq!((search.settings[4].train.rate, search.settings[4].train.steps), (0.01, 10));
        assert_eq!((search.go_on(5), search.is_at_edge(4)), (None, true));
        let one = SearchPlan { rate: vec![0.1], steps: vec![5, 10, 20], ..SearchPlan::default() };
        search = Search::new(Some(&one), &train);
        assert_eq!([0, 1, 2].map(|setting| search.is_at_edge(setting)), [true, false, true]);
        let wrong = SearchPlan { branch_rate: vec![0.0], ..SearchPlan::default() };
        assert_eq!(wrong.check().unwrap_err().0, "branch_rate");
        let many = SearchPlan { rate: vec![0.1; 9], steps: vec![1; 8], ..SearchPlan::default() };
        assert!(many.check().unwrap_err().1.contains("make 72 settings"));
    }
}
