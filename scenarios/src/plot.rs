//! Line plots as inline SVG. Colours are classes, so that the page's style sheet can follow light and dark.

use std::fmt::Write;

/// Room for the tick labels to the left and below, and for the ends of lines above and to the right.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 42.0;

/// A line through points, or a level across the plot.
pub(crate) struct Line {
    /// What the legend calls it; lines without a name are not in it.
    pub(crate) name: String,
    /// Its classes in the style sheet.
    pub(crate) class: String,
    /// Its points.
    pub(crate) points: Vec<(f64, f64)>,
}

/// What lies around a line.
pub(crate) struct Band {
    /// Its class in the style sheet.
    pub(crate) class: String,
    /// Rounds, with the least and the largest value.
    pub(crate) points: Vec<(f64, f64, f64)>,
}

/// How the vertical axis is laid out.
#[derive(Clone, Copy)]
pub(crate) enum Scale {
    /// From one value to another.
    Linear(f64, f64),
    /// From one power of ten to another.
    Logarithmic(i32, i32),
}

impl Scale {
    /// A linear scale of round steps around `values`; from 0 to 1 where there are none.
    pub(crate) fn around(values: impl Iterator<Item = f64>) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let ends = finite.fold(None, |ends: Option<(f64, f64)>, value| {
            let (low, high) = ends.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        });
        let (low, high) = ends.unwrap_or((0.0, 1.0));
        // Levels that hardly differ are still a plot.
        let step = step((high - low).max(0.05 * high.abs()).max(1e-9));
        let (low, high) = ((low / step).floor(), (high / step).ceil());
        Self::Linear(low * step, high.max(low + 1.0) * step)
    }

    /// A logarithmic scale of whole powers around positive `values`.
    pub(crate) fn powers_around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .map(|value| value.max(1.0).log10())
            .fold((f64::MAX, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
        let low = low.min(high).floor() as i32;
        Self::Logarithmic(low, (high.ceil() as i32).max(low + 1))
    }

    /// Where `value` is, from 0 to 1.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear(low, high) => (value - low) / (high - low),
            Self::Logarithmic(low, high) => (value.max(1.0).log10() - f64::from(low)) / f64::from(high - low),
        }
    }

    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(low, high) => {
                let step = step(high - low);
                (0..=((high - low) / step).round() as u32).map(|tick| low + f64::from(tick) * step).collect()
            }
            Self::Logarithmic(low, high) => (low..=high).map(|power| 10f64.powi(power)).collect(),
        }
    }
}

/// A round step that parts `range` into four to ten.
fn step(range: f64) -> f64 {
    let power = 10f64.powf(range.log10().floor());
    let rough = range / power;
    power
        * if rough <= 2.0 {
            0.25
        } else if rough <= 5.0 {
            0.5
        } else {
            1.0
        }
}

/// A plot over rounds.
pub(crate) struct Plot {
    /// What it shows, for those who can't see it.
    pub(crate) title: String,
    /// Its width and height. Text has the same size in all plots that are shown unscaled.
    pub(crate) size: (f64, f64),
    /// The vertical axis.
    pub(crate) scale: Scale,
    /// The first and the last round.
    pub(crate) rounds: (u64, u64),
    /// How the vertical axis is labelled.
    pub(crate) tick: fn(f64) -> String,
}

impl Plot {
    /// The plot of `lines`, and their legend.
    pub(crate) fn draw(&self, lines: &[Line]) -> String {
        self.draw_with(lines, &[])
    }

    /// As [`Plot::draw`], with `bands` behind the lines.
    pub(crate) fn draw_with(&self, lines: &[Line], bands: &[Band]) -> String {
        let ((width, height), (first, last), scale) = (self.size, self.rounds, self.scale);
        let span = last.saturating_sub(first).max(1) as f64;
        let x = |round: f64| LEFT + (round - first as f64) / span * (width - LEFT - RIGHT);
        let y = |value: f64| height - BOTTOM - scale.place(value) * (height - TOP - BOTTOM);
        let title = escape(&self.title);
        let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">");
        for value in scale.ticks() {
            let (y, label) = (y(value), (self.tick)(value));
            let right = width - RIGHT;
            let _ = write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                escape(&label)
            );
        }
        // At most some twenty labels fit.
        let every = (last.saturating_sub(first) / 20 + 1) as usize;
        for round in (first..=last).step_by(every) {
            let x = x(round as f64);
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{round}</text>",
                height - BOTTOM + 18.0
            );
        }
        let middle = (LEFT + width - RIGHT) / 2.0;
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">round</text>",
            height - 6.0
        );
        for band in bands {
            let low = band.points.iter().map(|(round, low, _)| (*round, *low));
            let high = band.points.iter().rev().map(|(round, _, high)| (*round, *high));
            let edge = low.chain(high).filter(|(_, value)| value.is_finite());
            let edge: Vec<String> = edge.map(|(round, value)| format!("{:.1},{:.1}", x(round), y(value))).collect();
            let class = escape(&band.class);
            let _ = write!(svg, "<polygon class=\"band {class}\" points=\"{}\"/>", edge.join(" "));
        }
        for line in lines {
            let points = line.points.iter().filter(|(_, value)| value.is_finite());
            let points: Vec<String> =
                points.map(|(round, value)| format!("{:.1},{:.1}", x(*round), y(*value))).collect();
            let class = escape(&line.class);
            let name = escape(&line.name);
            let _ = write!(
                svg,
                "<polyline class=\"line {class}\" points=\"{}\"><title>{name}</title></polyline>",
                points.join(" ")
            );
            if let (Some(point), true) = (points.last(), line.points.len() == 1) {
                let (x, y) = point.split_once(',').unwrap_or_default();
                let _ = write!(svg, "<circle class=\"line {class}\" cx=\"{x}\" cy=\"{y}\" r=\"3\"/>");
            }
        }
        svg + "</svg>" + &legend(lines)
    }
}

fn legend(lines: &[Line]) -> String {
    let entry = |line: &Line| {
        let (class, name) = (escape(&line.class), escape(&line.name));
        let swatch = format!(
            "<svg viewBox=\"0 0 26 10\" class=\"swatch\"><line class=\"line {class}\" x1=\"1\" x2=\"25\" y1=\"5\" y2=\"5\"/></svg>"
        );
        format!("<span>{swatch}{name}</span>")
    };
    let entries: String = lines.iter().filter(|line| !line.name.is_empty()).map(entry).collect();
    format!("<p class=\"legend\">{entries}</p>")
}

/// Text that is safe in HTML, in attributes too.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_round_ends_around_all_values() {
        let ticks = |values: &[f64]| Scale::around(values.iter().copied()).ticks();
        assert_eq!(
            ticks(&[0.0, 0.2, 0.9]),
            [0.0, 0.1, 0.2, 0.30000000000000004, 0.4, 0.5, 0.6000000000000001, 0.7000000000000001, 0.8, 0.9]
        );
        assert_eq!(ticks(&[36.2, 39.1]), [36.0, 36.5, 37.0, 37.5, 38.0, 38.5, 39.0, 39.5]);
        assert!(ticks(&[5.0]).len() > 1 && ticks(&[5.0])[0] == 5.0);
        assert_eq!(ticks(&[-0.3, 1.4]), [-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]);
        assert!(ticks(&[]).iter().all(|tick| tick.is_finite()));
        assert_eq!(Scale::powers_around([250.0, 4e6].into_iter()).ticks(), [1e2, 1e3, 1e4, 1e5, 1e6, 1e7]);
        assert!(Scale::powers_around([].into_iter()).ticks().len() > 1);
    }

    #[test]
    fn names_are_escaped_and_bad_numbers_left_out() {
        let line = Line { name: "<b>".into(), class: "one".into(), points: vec![(1.0, 0.5), (2.0, f64::NAN)] };
        let scale = Scale::Linear(0.0, 1.0);
        let tick = |value| format!("{value:.1}");
        let svg = Plot { title: "a\"b".into(), size: (400.0, 200.0), scale, rounds: (1, 2), tick }.draw(&[line]);
        assert!(svg.contains("&lt;b&gt;") && svg.contains("a&quot;b") && !svg.contains("<b>") && !svg.contains("NaN"));
    }
}
