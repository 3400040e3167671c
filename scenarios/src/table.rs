//! The summary as people read it at the end of a run.

use crate::{
    Metric, Sample,
    summary::{NodeSummary, Summary},
};
use std::fmt;

/// Of a sample, so many characters are shown.
const SAMPLE_CHARS_MAX: usize = 240;

/// A number with commas between thousands.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as people read them.
pub(crate) fn bytes(count: f64) -> String {
    match count {
        small if small < 1e3 => format!("{small:.0} B"),
        kilo if kilo < 1e6 => format!("{:.1} kB", kilo / 1e3),
        mega => format!("{:.2} MB", mega / 1e6),
    }
}

/// Rows of cells in columns as wide as their widest cell, two spaces apart; the first `left` columns are aligned to
/// the left, the others to the right.
pub(crate) fn align(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row: &Vec<String>| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The columns of the node table, here and in the report.
pub(crate) const COLUMNS: [&str; 13] = [
    "node",
    "backbone",
    "classes seen",
    "width x depth",
    "parameters",
    "shared",
    "alone global",
    "own",
    "network global",
    "own",
    "gain",
    "sent",
    "mixture",
];

/// How many of them hold text.
pub(crate) const TEXT_COLUMNS: usize = 3;

/// A node's row in the table.
pub(crate) fn cells(node: &NodeSummary, metric: Metric) -> Vec<String> {
    vec![
        node.name.clone(),
        node.backbone.clone(),
        node.classes_seen.join(" "),
        format!("{} x {}", node.width, node.depth),
        thousands(node.backbone_params),
        thousands(node.shared_params),
        metric.cell(node.alone.score.global),
        metric.cell(node.alone.score.own),
        metric.cell(node.network.global),
        metric.cell(node.network.own),
        metric.gain(node.network.global, node.alone.score.global),
        bytes(node.bytes_out as f64),
        node.mixture_hash.short(),
    ]
}

/// The row of the means.
pub(crate) fn mean_cells(summary: &Summary) -> Vec<String> {
    let sent: u64 = summary.nodes.iter().map(|node| node.bytes_out).sum();
    let (metric, mean) = (summary.metric, &summary.mean);
    let mut cells = vec![String::new(); COLUMNS.len()];
    let means = [
        (0, "mean".to_owned()),
        (6, metric.cell(mean.alone_global)),
        (7, metric.cell(mean.alone_own)),
        (8, metric.cell(mean.network_global)),
        (9, metric.cell(mean.network_own)),
        (10, metric.gain(mean.network_global, mean.alone_global)),
        (11, bytes(sent as f64 / summary.nodes.len().max(1) as f64)),
    ];
    for (column, text) in means {
        cells.get_mut(column).into_iter().for_each(|cell| cell.clone_from(&text));
    }
    cells
}

/// What the numbers are, as sentences.
pub(crate) fn explanation(metric: Metric) -> String {
    let (scores, stopping) = (metric.scores(), metric.stopping());
    format!("{scores}{stopping}\ngain: global, in the network against alone, in {}.", metric.gain_unit())
}

/// A sample on one line.
fn line(sample: &Sample) -> String {
    let words = |text: &'_ str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = format!("{} -> {}", words(&sample.prompt), words(&sample.text));
    match text.char_indices().nth(SAMPLE_CHARS_MAX) {
        Some((end, _)) => format!("{} ..", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// What the bytes come to, as a sentence.
pub(crate) fn bytes_sentence(summary: &Summary) -> String {
    format!(
        "Each node sent {} a round. Sending whole models instead would cost {}: {:.0} times as much.",
        bytes(summary.bytes.sent_per_node_per_round),
        bytes(summary.bytes.full_model_per_node_per_round),
        summary.bytes.reduction
    )
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = COLUMNS.map(String::from).to_vec();
        let rows: Vec<_> = [header]
            .into_iter()
            .chain(self.nodes.iter().map(|node| cells(node, self.metric)))
            .chain([mean_cells(self)])
            .collect();
        writeln!(f, "{}", align(&rows, TEXT_COLUMNS))?;
        writeln!(f, "{}", explanation(self.metric))?;
        writeln!(f, "{}", bytes_sentence(self))?;
        if !self.ablation.is_empty() {
            let header = ["ablation", "network global", "own"].map(String::from).to_vec();
            let cell = |score| self.metric.cell(score);
            let row = |variant: &crate::summary::AblationSummary| {
                vec![variant.name.clone(), cell(variant.network_global), cell(variant.network_own)]
            };
            let rows: Vec<_> = [header].into_iter().chain(self.ablation.iter().map(row)).collect();
            write!(f, "\n{}", align(&rows, 1))?;
        }
        if let Some(damage) = &self.lies {
            write!(f, "\n{damage}")?;
        }
        if let Some(node) = self.nodes.iter().find(|node| !node.samples.is_empty()) {
            writeln!(f, "\nwhat {} writes:", node.name)?;
            for sample in &node.samples {
                writeln!(f, "{:6}  {}", sample.when, line(sample))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Scenario, Score, TaskKind, When, testing};
    use std::path::Path;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([12.0, 12_345.0, 1.5e7].map(bytes), ["12 B", "12.3 kB", "15.00 MB"]);
    }

    #[test]
    fn a_language_models_table_is_of_perplexities() {
        let mut histories = testing::histories(8, 2);
        for node in &mut histories {
            let perplexities = (0..).zip([(100.0, 90.0), (40.0, 30.0), (50.0, 35.0)]);
            node.scores = perplexities.map(|(round, (global, own))| (round, Score { global, own })).collect();
            node.alone.as_mut().unwrap().score = Score { global: 50.0, own: 30.0 };
        }
        let sample = |when, text: &str| Sample { when, prompt: "Once upon".into(), text: text.into() };
        histories[3].samples = vec![sample(When::Before, " a\ntime"), sample(When::After, &"thou ".repeat(80))];
        let mut scenario = Scenario::quickstart().unwrap();
        scenario.task.kind = TaskKind::CausalLm;
        let id = testing::charter(8, 2).id().unwrap();
        let summary = Summary::new(&scenario, id, 1.5, &histories, Path::new("x")).unwrap();
        assert!(
            (summary.mean.network_global - 40.0).abs() < 1e-9
                && (summary.round_log[1].network_global - 50.0).abs() < 1e-9
        );
        let text = summary.to_string();
        assert!(text.contains("50.00  30.00           40.00  30.00  +20.0"), "{text}");
        assert!(text.contains("global: perplexity on the common test set") && text.contains("smallest own"), "{text}");
        assert!(!text.contains("accuracy"), "{text}");
        assert!(
            text.contains("what node-3 writes:\nbefore  Once upon -> a time\nafter   Once upon -> thou thou"),
            "{text}"
        );
        assert!(text.ends_with("thou th ..\n"), "{text}");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a", "1", ""], ["bcd", "23", "4"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(align(&rows, 1), "a     1\nbcd  23  4\n");
    }
}
