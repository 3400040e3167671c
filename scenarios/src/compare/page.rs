//! The report of a comparison: one HTML page.

use super::{
    Study,
    table::{columns, explanation, rows, text_columns},
};
use crate::{
    Metric,
    plot::{Band, Line, Plot, Scale},
    report::{HUES, WIDE, page, row, section},
};

/// The page.
pub(super) fn html(study: &Study) -> String {
    let intro = format!(
        "{} methods, {} seeds, {} nodes, compared in {:.0} s.",
        study.methods.len(),
        study.seeds.len(),
        study.nodes,
        study.wall_s
    );
    let plotted = "Global score on the test by round, the mean over nodes and seeds, each method with the setting chosen for it; \
                   around it the standard deviation between seeds. Dashed: methods without rounds.";
    let body = [
        section("Methods compared", &explanation(study).replace('\n', " "), &methods(study)),
        section(&format!("{} by round", study.metric), plotted, &plot(study)),
        section("What the methods are", "", &abouts(study)),
        section("Each seed", "Scores on the test, at the chosen round where there is one.", &seeds(study)),
        if study.validation_rows.is_some() {
            section("Settings tried", "The best round on the validation rows, and the score there.", &tried(study))
        } else {
            String::new()
        },
    ];
    page(&study.scenario, &intro, &body.concat())
}

fn table(head: &[String], rows: impl Iterator<Item = Vec<String>>, text: usize) -> String {
    let body: String = rows.map(|cells| row("td", &cells, text)).collect();
    format!("<table><thead>{}</thead><tbody>{body}</tbody></table>", row("th", head, text))
}

fn methods(study: &Study) -> String {
    table(&columns(study), rows(study).into_iter(), text_columns(study))
}

fn abouts(study: &Study) -> String {
    let rows = study.methods.iter().map(|method| vec![method.name.clone(), method.about.clone()]);
    table(&["method", "what it is"].map(String::from), rows, 2)
}

fn seeds(study: &Study) -> String {
    let head = ["method", "seed", "global", "own", "at the last: global", "own"].map(String::from);
    let rows = study.methods.iter().flat_map(|method| {
        method.per_seed.iter().map(|seed| {
            let scores = [seed.picked.global, seed.picked.own, seed.last.global, seed.last.own];
            let cells = scores.map(|score| study.metric.cell(score));
            [method.name.clone(), seed.seed.to_string()].into_iter().chain(cells).collect()
        })
    });
    table(&head, rows, 1)
}

fn tried(study: &Study) -> String {
    let head = ["method", "setting", "round", "validation"].map(String::from);
    let rows = study.methods.iter().flat_map(|method| {
        method.tried.iter().map(|tried| {
            let round = tried.round.map_or("-".into(), |round| round.to_string());
            let score = tried.validation.map_or("diverged".into(), |score| study.metric.cell(score));
            vec![method.name.clone(), tried.setting.clone(), round, score]
        })
    });
    table(&head, rows, 2)
}

fn plot(study: &Study) -> String {
    let last =
        study.methods.iter().filter_map(|method| method.by_round.last()).map(|point| point.round).max().unwrap_or(1);
    let (mut lines, mut bands) = (Vec::new(), Vec::new());
    for (index, method) in study.methods.iter().enumerate() {
        let hue = format!("hue-{}", index % HUES);
        let points: Vec<_> = method.by_round.iter().map(|point| (point.round as f64, point.global)).collect();
        let (points, class) = match (points.is_empty(), method.global) {
            (true, Some(level)) => (vec![(0.0, level), (last as f64, level)], format!("alone {hue}")),
            _ => (points, hue.clone()),
        };
        let edges = points.iter().map(|(round, spread)| {
            let deviation = spread.deviation.unwrap_or(0.0);
            (*round, spread.mean - deviation, spread.mean + deviation)
        });
        bands.push(Band { class: hue, points: edges.collect() });
        let points = points.iter().map(|(round, spread)| (*round, spread.mean)).collect();
        lines.push(Line { name: method.name.clone(), class, points });
    }
    let scale = Scale::around(bands.iter().flat_map(|band| &band.points).flat_map(|(_, low, high)| [*low, *high]));
    let tick: fn(f64) -> String = match study.metric {
        Metric::Accuracy => |score| Metric::Accuracy.figure(score, 0),
        Metric::Perplexity => |score| Metric::Perplexity.figure(score, 1),
    };
    let title = format!("{} by round", study.metric);
    Plot { title, size: WIDE, scale, rounds: (0, last), tick }.draw_with(&lines, &bands)
}
