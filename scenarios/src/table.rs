//! The summary as people read it at the end of a run.

use crate::summary::{NodeSummary, Summary};
use std::fmt;

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
pub(crate) const COLUMNS: [&str; 12] = [
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
    "sent",
    "mixture",
];

/// How many of them hold text.
pub(crate) const TEXT_COLUMNS: usize = 3;

/// A node's row in the table.
pub(crate) fn cells(node: &NodeSummary) -> Vec<String> {
    vec![
        node.name.clone(),
        node.backbone.clone(),
        node.classes_seen.join(" "),
        format!("{} x {}", node.width, node.depth),
        thousands(node.backbone_params),
        thousands(node.shared_params),
        format!("{:.3}", node.alone.accuracy.global),
        format!("{:.3}", node.alone.accuracy.own),
        format!("{:.3}", node.network.global),
        format!("{:.3}", node.network.own),
        bytes(node.bytes_out as f64),
        node.mixture_hash.short(),
    ]
}

/// The row of the means.
pub(crate) fn mean_cells(summary: &Summary) -> Vec<String> {
    let sent: u64 = summary.nodes.iter().map(|node| node.bytes_out).sum();
    let mut cells = vec![String::new(); COLUMNS.len()];
    let means = [
        (0, "mean".to_owned()),
        (6, format!("{:.3}", summary.mean.alone_global)),
        (7, format!("{:.3}", summary.mean.alone_own)),
        (8, format!("{:.3}", summary.mean.network_global)),
        (9, format!("{:.3}", summary.mean.network_own)),
        (10, bytes(sent as f64 / summary.nodes.len().max(1) as f64)),
    ];
    for (column, text) in means {
        cells.get_mut(column).into_iter().for_each(|cell| cell.clone_from(&text));
    }
    cells
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
        let rows: Vec<_> = [header].into_iter().chain(self.nodes.iter().map(cells)).chain([mean_cells(self)]).collect();
        writeln!(f, "{}", align(&rows, TEXT_COLUMNS))?;
        writeln!(
            f,
            "global: accuracy on the common test set; own: the same, weighted by the classes that the node has seen."
        )?;
        writeln!(f, "{}", bytes_sentence(self))?;
        if !self.ablation.is_empty() {
            let header = ["ablation", "network global", "own"].map(String::from).to_vec();
            let row = |variant: &crate::summary::AblationSummary| {
                let (global, own) = (variant.network_global, variant.network_own);
                vec![variant.name.clone(), format!("{global:.3}"), format!("{own:.3}")]
            };
            let rows: Vec<_> = [header].into_iter().chain(self.ablation.iter().map(row)).collect();
            write!(f, "\n{}", align(&rows, 1))?;
        }
        if let Some(damage) = &self.lies {
            write!(f, "\n{damage}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([12.0, 12_345.0, 1.5e7].map(bytes), ["12 B", "12.3 kB", "15.00 MB"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a", "1", ""], ["bcd", "23", "4"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(align(&rows, 1), "a     1\nbcd  23  4\n");
    }
}
