//! A comparison as people read it at its end.

use super::{Spread, Study};
use crate::table::align;
use std::fmt;

/// The columns of the methods' table, here and in the report.
pub(super) fn columns(study: &Study) -> Vec<String> {
    let mut columns = vec!["method".to_owned()];
    if study.validation_rows.is_some() {
        columns.extend(["setting", "round"].map(String::from));
    }
    columns.extend(["global", "own"].map(String::from));
    if study.validation_rows.is_some() {
        columns.extend(["at the last: global", "own"].map(String::from));
    }
    columns.extend([format!("against {}: global", study.reference), "won".into(), "own".into(), "won".into()]);
    columns
}

/// How many of them hold text.
pub(super) fn text_columns(study: &Study) -> usize {
    if study.validation_rows.is_some() { 2 } else { 1 }
}

/// The rows of the methods' table.
pub(super) fn rows(study: &Study) -> Vec<Vec<String>> {
    let metric = study.metric;
    let score =
        |spread: &Option<Spread>| spread.map_or("diverged".into(), |spread| spread.cell(|score| metric.cell(score)));
    let gain = |spread: &Spread| spread.cell(|points| format!("{points:+.1}"));
    let dash = || "-".to_owned();
    study
        .methods
        .iter()
        .map(|method| {
            let mut row = vec![method.name.clone()];
            let chosen = method.chosen.as_ref();
            if study.validation_rows.is_some() {
                row.push(chosen.map_or_else(dash, |chosen| {
                    format!("{}{}", chosen.setting, if chosen.at_edge { " (the last tried)" } else { "" })
                }));
                row.push(chosen.map_or_else(dash, |chosen| chosen.round.to_string()));
            }
            row.extend([score(&method.global), score(&method.own)]);
            if study.validation_rows.is_some() {
                let last = |spread| if chosen.is_some() { score(spread) } else { dash() };
                row.extend([last(&method.last_global), last(&method.last_own)]);
            }
            let count = study.seeds.len();
            match &method.against {
                None => row.extend([dash(), dash(), dash(), dash()]),
                Some(against) => row.extend([
                    gain(&against.global),
                    format!("{}/{count}", against.global_won),
                    gain(&against.own),
                    format!("{}/{count}", against.own_won),
                ]),
            }
            row
        })
        .collect()
}

/// What the numbers are, as sentences.
pub(super) fn explanation(study: &Study) -> String {
    let metric = study.metric;
    let unit = metric.gain_unit();
    let mut text = format!(
        "Means over {} nodes, and over seeds {} to {}, ± the standard deviation between seeds. {}\nagainst {}: differences with \
         the same seed and so the same data, in {unit} (more is better), and in how many seeds the method won.",
        study.nodes,
        study.seeds.first().copied().unwrap_or(0),
        study.seeds.last().copied().unwrap_or(0),
        metric.scores(),
        study.reference,
    );
    if study.validation_rows.is_none() {
        text.push_str(metric.stopping());
    }
    if let Some(rows) = study.validation_rows {
        text.push_str(&format!(
            "\nFor each method, setting and round are those with the best mean score over all nodes and seeds on {rows} rows that \
             nobody learns from and that are not in the test; \"at the last\" is the same setting after the last round."
        ));
    }
    text
}

impl fmt::Display for Study {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = [columns(self)].into_iter().chain(rows(self)).collect();
        writeln!(f, "{}", align(&rows, text_columns(self)))?;
        writeln!(f, "{}\n", explanation(self))?;
        let width = self.methods.iter().map(|method| method.name.len()).max().unwrap_or(0);
        for method in &self.methods {
            writeln!(f, "{:<width$}  {}", method.name, method.about)?;
        }
        let header = ["each seed", "global", "own"].map(String::from).to_vec();
        let seed_rows = self.methods.iter().flat_map(|method| {
            method.per_seed.iter().map(|seed| {
                let name = format!("{} {}", method.name, seed.seed);
                vec![name, self.metric.cell(seed.picked.global), self.metric.cell(seed.picked.own)]
            })
        });
        let rows: Vec<_> = [header].into_iter().chain(seed_rows).collect();
        write!(f, "\n{}", align(&rows, 1))
    }
}
