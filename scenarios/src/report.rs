//! The report of a run: one HTML page that needs nothing else, no script and no network.

use crate::{
    Deal, Metric, Share, Summary,
    damage::Damage,
    history::History,
    plot::{Line, Plot, Scale, escape},
    summary::AblationSummary,
    table,
};
use heterotune_protocol::charter::Charter;

const STYLE: &str = include_str!("report.css");

/// Colours in the style sheet; the ninth node has the first one's again.
pub(crate) const HUES: usize = 8;

/// Sizes of plots: across the page, and two side by side.
pub(crate) const WIDE: (f64, f64) = (1080.0, 380.0);
const HALF: (f64, f64) = (500.0, 270.0);

/// A run, to be shown as one HTML page.
pub struct Report<'a> {
    /// What the nodes agreed on.
    pub charter: &'a Charter,
    /// Who got what.
    pub deal: &'a Deal,
    /// What the nodes reported.
    pub histories: &'a [History],
    /// What came of it.
    pub summary: &'a Summary,
}

impl Report<'_> {
    /// The page.
    pub fn to_html(&self) -> String {
        let (summary, metric) = (self.summary, self.summary.metric);
        let intro = format!(
            "{} nodes with different frozen backbones, each a process of its own, {} rounds in {:.0} s. Network <code>{}</code>; all nodes ended with mixture <code>{}</code>.",
            summary.nodes.len(),
            summary.rounds,
            summary.wall_s,
            summary.network_id.0.short(),
            summary.nodes.first().map(|node| node.mixture_hash.short()).unwrap_or_default(),
        );
        let pair = |left: String, right: String| format!("<div class=\"pair\">{left}{right}</div>");
        let body = [
            self.figures(),
            section(
                &format!("{} on the common test set", capital(metric)),
                "Each colour is a node: solid, with the shared mixture after each round (0 is the start that all agree on); dashed, the best it can do alone. Heavy: the means.",
                &self.score_plot(),
            ),
            section("Nodes", &capital(table::explanation(metric)), &self.node_table()),
            self.samples(),
            pair(
                section("Agreement of updates", "The mean cosine between the updates of a round: 1, all pull the same way; 0, they have nothing in common; below, they pull apart.", &self.agreement_plot()),
                section("Bytes sent by each node", &table::bytes_sentence(summary), &self.bytes_plot()),
            ),
            pair(
                section("Who has what", &format!("{}.", capital(self.deal.title())), &self.deal_table()),
                section("What the nodes agreed on", "The charter's main settings.", &self.charter_table()),
            ),
            if summary.ablation.is_empty() { String::new() } else {
                section("What each part is worth", "The same nodes and data, with other settings; means over the nodes.", &self.ablation_table())
            },
            summary.lies.as_ref().map(lies).unwrap_or_default(),
        ]
        .concat();
        page(&summary.scenario, &intro, &body)
    }

    fn figures(&self) -> String {
        let (mean, bytes, metric) = (&self.summary.mean, &self.summary.bytes, self.summary.metric);
        let figure = |score: f64| metric.figure(score, 1);
        let about = |what: &str, alone: f64, network: f64| {
            let gain = format!("{} {}", metric.gain(network, alone), metric.gain_unit());
            (figure(network), format!("{what} {metric} in the network; alone {}, {gain}", figure(alone)))
        };
        let figures = [
            about("global", mean.alone_global, mean.network_global),
            about("own", mean.alone_own, mean.network_own),
            (table::bytes(bytes.sent_per_node_per_round), "sent by a node in a round".into()),
            (format!("{:.0} x", bytes.reduction), "less than sending whole models".into()),
        ];
        let card = |(figure, what): &(String, String)| {
            format!("<section><b>{}</b><span>{}</span></section>", escape(figure), escape(what))
        };
        format!("<div class=\"figures\">{}</div>", figures.iter().map(card).collect::<String>())
    }

    fn last_round(&self) -> u64 {
        self.summary.round_log.last().map_or(1, |round| round.round)
    }

    fn score_plot(&self) -> String {
        let last = self.last_round();
        let level = |value: f64| vec![(0.0, value), (last as f64, value)];
        let mut lines = Vec::new();
        for (index, node) in self.histories.iter().enumerate() {
            let hue = format!("hue-{}", index % HUES);
            if let Some(alone) = &node.alone {
                lines.push(Line {
                    name: String::new(),
                    class: format!("alone {hue}"),
                    points: level(alone.score.global),
                });
            }
            let points = node.scores.iter().map(|(round, score)| (*round as f64, score.global)).collect();
            lines.push(Line { name: node.name.clone(), class: hue, points });
        }
        let rounds = 0..=last;
        let metric = self.summary.metric;
        let means = rounds
            .filter_map(|round| Some((round as f64, History::mean_score_after(self.histories, round, metric)?.global)));
        lines.push(Line { name: "mean in the network".into(), class: "strong".into(), points: means.collect() });
        let alone = level(self.summary.mean.alone_global);
        lines.push(Line { name: "mean alone".into(), class: "strong alone".into(), points: alone });
        let (scale, tick): (Scale, fn(f64) -> String) = match metric {
            Metric::Accuracy => (Scale::Linear(0.0, 1.0), |score| Metric::Accuracy.figure(score, 0)),
            Metric::Perplexity => {
                let scores = lines.iter().flat_map(|line| &line.points).map(|(_, score)| *score);
                (Scale::around(scores), |score| Metric::Perplexity.figure(score, 1))
            }
        };
        let title = format!("{metric} by round");
        Plot { title, size: WIDE, scale, rounds: (0, last), tick }.draw(&lines)
    }

    fn agreement_plot(&self) -> String {
        let rounds = self.summary.round_log.iter();
        let points: Vec<(f64, f64)> = rounds.filter_map(|round| Some((round.round as f64, round.agreement?))).collect();
        let scale = Scale::around([0.0].into_iter().chain(points.iter().map(|(_, value)| *value)));
        let line = Line { name: "mean cosine".into(), class: "hue-0".into(), points };
        let (rounds, tick) = ((1, self.last_round()), |cosine| format!("{cosine:.3}"));
        Plot { title: "agreement of updates by round".into(), size: HALF, scale, rounds, tick }.draw(&[line])
    }

    fn bytes_plot(&self) -> String {
        let last = self.last_round();
        let rounds = 1..=last;
        let node = |(index, node): (usize, &History)| Line {
            name: node.name.clone(),
            class: format!("hue-{}", index % HUES),
            points: rounds.clone().map(|round| (round as f64, node.bytes_sent_in(round) as f64)).collect(),
        };
        let mut lines: Vec<Line> = self.histories.iter().enumerate().map(node).collect();
        let full = self.summary.bytes.full_model_per_node_per_round;
        lines.push(Line {
            name: "whole models".into(),
            class: "other".into(),
            points: rounds.map(|round| (round as f64, full)).collect(),
        });
        let scale = Scale::powers_around(lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value));
        // Whole powers of ten need no decimals.
        let tick = |bytes| table::bytes(bytes).replace(".00", "").replace(".0", "");
        Plot { title: "bytes sent by each node by round".into(), size: HALF, scale, rounds: (1, last), tick }
            .draw(&lines)
    }

    fn node_table(&self) -> String {
        let row = |cells: &[String]| row("td", cells, table::TEXT_COLUMNS);
        let body: String =
            self.summary.nodes.iter().map(|node| row(&table::cells(node, self.summary.metric))).collect();
        let head = self::row("th", &table::COLUMNS.map(String::from), table::TEXT_COLUMNS);
        let foot = row(&table::mean_cells(self.summary));
        format!("<table><thead>{head}</thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>")
    }

    /// What models write, where they do.
    fn samples(&self) -> String {
        let nodes = self.summary.nodes.iter();
        let samples = nodes.flat_map(|node| node.samples.iter().map(move |sample| (&node.name, sample)));
        let rows: String = samples
            .map(|(name, sample)| {
                let (name, prompt, text) = (escape(name), escape(&sample.prompt), escape(&sample.text));
                let when = sample.when;
                format!("<tr><td class=\"text\">{name}</td><td class=\"text\">{when}</td><td class=\"sample\"><b>{prompt}</b>{text}</td></tr>")
            })
            .collect();
        if rows.is_empty() {
            return rows;
        }
        let about = "What each model makes of a beginning (bold), before the first round and after the last.";
        section("What they write", about, &format!("<table>{rows}</table>"))
    }

    fn deal_table(&self) -> String {
        let values = self.deal.shares.iter().filter_map(Share::values_listed);
        let values: String = values.map(|line| format!("<p>{}</p>", escape(&line))).collect();
        let table = if self.deal.labels.is_empty() { self.sizes_table() } else { self.counts_table() };
        table + &values
    }

    fn sizes_table(&self) -> String {
        let sizes = self.deal.sizes();
        let rows = sizes.iter().enumerate().map(|(index, cells)| row(if index == 0 { "th" } else { "td" }, cells, 1));
        format!("<table>{}</table>", rows.collect::<String>())
    }

    fn counts_table(&self) -> String {
        let head: String = self.deal.labels.iter().map(|label| format!("<th>{}</th>", escape(label))).collect();
        let most = self.deal.shares.iter().flat_map(|share| &share.per_class).max().copied().unwrap_or(0).max(1) as f64;
        let cell = |count: &usize| match count {
            0 => "<td></td>".to_owned(),
            count => {
                let strength = 0.12 + 0.6 * (*count as f64 / most).sqrt();
                format!("<td style=\"background: rgb(var(--heat) / {strength:.2})\">{count}</td>")
            }
        };
        let row = |share: &Share| {
            let cells: String = share.per_class.iter().map(cell).collect();
            format!("<tr><th class=\"text\">{}</th>{cells}</tr>", escape(&share.name))
        };
        let body: String = self.deal.shares.iter().map(row).collect();
        format!("<table class=\"heat\"><tr><th></th>{head}</tr>{body}</table>")
    }

    fn charter_table(&self) -> String {
        let charter = self.charter;
        let (adapter, fusion, codec, rounds) = (&charter.adapter, &charter.fusion, &charter.codec, &charter.rounds);
        let word = |setting: &dyn std::fmt::Debug| format!("{setting:?}").to_lowercase();
        let on = |setting: bool| if setting { "on" } else { "off" };
        let settings = [
            ("slots, branches", format!("{} x {}, rank {}", adapter.slots, adapter.branches, adapter.rank)),
            ("readout", format!("rank {}, from {}", adapter.readout_rank, word(&adapter.readout))),
            ("alignment", format!("{}, {} of them", word(&adapter.alignment), charter.anchors.count)),
            ("fusion", format!("{}, {}, norms {}", word(&fusion.rule), word(&fusion.align), word(&fusion.norms))),
            ("screens", format!("updates {}, statistics {}", on(fusion.screen), on(fusion.statistics_screen))),
            ("codec", format!("{}, exponents {} to {}", word(&codec.kind), codec.exponent_min, codec.exponent_max)),
            ("rounds", format!("{}, closed by {}", rounds.total, word(&rounds.closing))),
            ("deadline", format!("{} s", rounds.deadline_ms as f64 / 1e3)),
        ];
        let body: String = settings.map(|(setting, value)| row("td", &[setting.into(), value], 2)).concat();
        format!("<table>{body}</table>")
    }

    fn ablation_table(&self) -> String {
        let variant = |variant: &AblationSummary| {
            let scores = [variant.network_global, variant.network_own].map(|score| self.summary.metric.cell(score));
            row("td", &[[variant.name.clone()].as_slice(), &scores].concat(), 1)
        };
        let body: String = self.summary.ablation.iter().map(variant).collect();
        let head = row("th", &["variant", "network global", "own"].map(String::from), 1);
        format!("<table><thead>{head}</thead><tbody>{body}</tbody></table>")
    }
}

/// What liars did.
fn lies(damage: &Damage) -> String {
    let about = format!(
        "{} lie, one lie a run, and the others learn with them; means over the others, with the same data.",
        damage.liars.join(", ")
    );
    let head = row("th", &damage.columns(), Damage::TEXT_COLUMNS);
    let body: String = damage.rows().iter().map(|cells| row("td", cells, Damage::TEXT_COLUMNS)).collect();
    section("What lies do", &about, &format!("<table><thead>{head}</thead><tbody>{body}</tbody></table>"))
}

/// A page about a scenario, of an introduction and sections, both HTML.
pub(crate) fn page(scenario: &str, intro: &str, body: &str) -> String {
    let name = escape(scenario);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>HeteroTune: {name}</title><style>\n{STYLE}</style></head>\n<body><main><h1>HeteroTune: {name}</h1><p>{intro}</p>{body}</main></body></html>\n"
    )
}

/// A text with its first letter large.
fn capital(text: impl ToString) -> String {
    let text = text.to_string();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

pub(crate) fn section(title: &str, about: &str, content: &str) -> String {
    format!("<section><h2>{}</h2><p>{}</p>{content}</section>", escape(title), escape(about))
}

/// A table row whose first `text` cells are aligned to the left.
pub(crate) fn row(tag: &str, cells: &[String], text: usize) -> String {
    let cell = |(index, cell): (usize, &String)| {
        let class = if index < text { " class=\"text\"" } else { "" };
        format!("<{tag}{class}>{}</{tag}>", escape(cell))
    };
    format!("<tr>{}</tr>", cells.iter().enumerate().map(cell).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sample, Scenario, Score, TaskKind, When, testing};
    use std::path::Path;

    #[test]
    fn a_page_stands_by_itself() {
        let mut histories = testing::histories(8, 10);
        histories[0].name = "<script>".into();
        let (charter, deal) = (testing::charter(8, 10), testing::deal(8));
        let scenario = Scenario::quickstart().unwrap();
        let mut summary = Summary::new(&scenario, charter.id().unwrap(), 60.0, &histories, Path::new("x")).unwrap();
        summary.ablation.push(AblationSummary::new("mean", Metric::Accuracy, &histories));
        let html = Report { charter: &charter, deal: &deal, histories: &histories, summary: &summary }.to_html();
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script"));
        assert!(!html.contains("http") && !html.contains("NaN"));
        assert_eq!(html.matches("role=\"img\"").count(), 3);
        for tag in ["section", "table", "svg", "div", "p"] {
            let (open, close) = (html.matches(&format!("<{tag}")).count(), html.matches(&format!("</{tag}>")).count());
            assert!(open >= close && close > 0, "{tag}");
        }
        assert!(html.contains("Accuracy on the common test set") && html.contains("75 %"));
        if let Ok(path) = std::env::var("HETEROTUNE_REPORT_PREVIEW") {
            std::fs::write(path, html).unwrap();
        }
    }

    #[test]
    fn a_language_models_page_is_of_perplexities() {
        let mut histories = testing::histories(8, 4);
        for node in &mut histories {
            node.scores
                .values_mut()
                .for_each(|score| *score = Score { global: 40.0 / score.global, own: 30.0 / score.own });
            node.alone.as_mut().unwrap().score = Score { global: 45.0, own: 36.0 };
            let (prompt, text) = ("ROMEO:".into(), " <thou>".into());
            node.samples.push(Sample { when: When::After, prompt, text });
        }
        let (charter, mut deal) = (testing::charter(8, 4), testing::deal(8));
        deal.labels.clear();
        deal.shares[2].values = vec!["Romeo".into()];
        let mut scenario = Scenario::quickstart().unwrap();
        scenario.task.kind = TaskKind::CausalLm;
        let summary = Summary::new(&scenario, charter.id().unwrap(), 60.0, &histories, Path::new("x")).unwrap();
        let html = Report { charter: &charter, deal: &deal, histories: &histories, summary: &summary }.to_html();
        for said in [
            "Perplexity on the common test set",
            "perplexity by round",
            "<b>ROMEO:</b> &lt;thou&gt;",
            "per cent",
            "<th>bytes</th>",
            "node-2: Romeo",
        ] {
            assert!(html.contains(said), "{said}");
        }
        assert!(!html.contains("ccuracy") && !html.contains("NaN"));
    }
}
