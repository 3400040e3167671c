//! Pictures of overlapping shapes, drawn back to front: "dead leaves", with sizes by a power law, which gives them the
//! edges and the spectra of photographs, and with gradients, textures and colours (Baradad et al. 2021, Learning to See
//! by Looking at Noise, <https://arxiv.org/abs/2106.05963>). All arithmetic is in integers, so that every machine draws the
//! same bytes.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};

/// How many pictures there are.
pub const COUNT: u64 = 128;
/// The side of a picture, in pixels.
const SIDE: usize = 32;
/// Points that are averaged for a pixel, along each side: edges come out smooth.
const FINE: usize = 4;
/// The side of what is drawn on, in points. All lengths below are in points.
const CANVAS: i64 = (SIDE * FINE) as i64;
/// The most that a leaf measures from its centre.
const RADIUS_MAX: i64 = CANVAS / 2;
/// The scale of directions, pattern values and strengths: 1 is this much.
const ONE: i64 = 1 << 10;
/// Values of a pixel are multiples of this, which packs better and is not seen.
const GRAIN: i64 = 4;
const SEED: u64 = 2106_05963;

type Colour = [i64; 3];
type Canvas = Vec<Colour>;

/// All pictures as CIFAR records: a label, which is 0 and means nothing, then the planes of red, green and blue.
pub fn records() -> Vec<u8> {
    (0..COUNT).flat_map(|index| [vec![0], planes(&paint(index))].concat()).collect()
}

/// A picture, all points of it.
fn paint(index: u64) -> Canvas {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    rng.set_stream(index);
    let mut draw = Draw(rng);
    let style = Style::drawn(&mut draw);
    let mut canvas = vec![[0; 3]; (CANVAS * CANVAS) as usize];
    let ground = Leaf { centre: [CANVAS / 2; 2], half: [CANVAS; 2], form: Form::Box, ..Leaf::drawn(&mut draw, &style) };
    ground.cover(&mut canvas);
    // From a few things on a ground to a thicket.
    for _ in 0..8 << draw.below(6) {
        Leaf::drawn(&mut draw, &style).cover(&mut canvas);
    }
    canvas
}

/// The means over all points of each pixel, plane by plane.
fn planes(canvas: &Canvas) -> Vec<u8> {
    let sum = |row: usize, column: usize, channel: usize| -> i64 {
        let points = (0..FINE).flat_map(|y| (0..FINE).map(move |x| (row * FINE + y, column * FINE + x)));
        points.filter_map(|(y, x)| canvas.get(y * SIDE * FINE + x)?.get(channel)).sum()
    };
    let value = |sum: i64| (sum / (FINE * FINE) as i64 / GRAIN * GRAIN).clamp(0, 255) as u8;
    let places = (0..3).flat_map(|channel| (0..SIDE * SIDE).map(move |at| (at / SIDE, at % SIDE, channel)));
    places.map(|(row, column, channel)| value(sum(row, column, channel))).collect()
}

/// What is drawn by lot.
struct Draw(ChaCha8Rng);

impl Draw {
    /// From 0 to `end` - 1.
    fn below(&mut self, end: i64) -> i64 {
        (i64::from(self.0.next_u32()) * end) >> 32
    }

    /// From `least` to `most`.
    fn between(&mut self, [least, most]: [i64; 2]) -> i64 {
        least + self.below(most - least + 1)
    }

    /// Up to `most` either way, more often less.
    fn about(&mut self, most: i64) -> i64 {
        (self.between([-most, most]) + self.between([-most, most])) / 2
    }

    /// A direction of length [`ONE`], all alike.
    fn direction(&mut self) -> [i64; 2] {
        loop {
            let [x, y] = [(); 2].map(|()| self.between([-ONE, ONE]));
            let length = (x * x + y * y).isqrt();
            if (ONE / 8..=ONE).contains(&length) {
                return [x * ONE / length, y * ONE / length];
            }
        }
    }

    /// A radius r from `least` on with a density of 1 / r^3: the same share of the picture for every scale. 1 / r^2 is
    /// then uniform.
    fn radius(&mut self, least: i64) -> i64 {
        let [least, most] = [least, RADIUS_MAX].map(|radius| radius * radius);
        let square = least * most * ONE / (least * ONE + self.below(ONE) * (most - least));
        square.isqrt()
    }
}

/// What the leaves of a picture have in common. In photographs it is mostly brightness that tells things apart.
struct Style {
    /// The smallest radius.
    least: i64,
    mean: Colour,
    brightness: i64,
    chroma: i64,
}

impl Style {
    fn drawn(draw: &mut Draw) -> Self {
        let (level, tint) = (draw.between([80, 176]), draw.between([0, 40]));
        let mean = [(); 3].map(|()| level + draw.about(tint));
        Self { least: 4 << draw.below(3), mean, brightness: draw.between([40, 150]), chroma: draw.between([0, 90]) }
    }

    fn colour(&self, draw: &mut Draw) -> Colour {
        let level = draw.about(self.brightness);
        self.mean.map(|mean| mean + level + draw.about(self.chroma))
    }
}

enum Form {
    Ellipse,
    Box,
    Triangle,
}

enum Pattern {
    Plain,
    Ramp,
    Stripes,
    Checks,
    Waves,
    Clouds,
}

/// A shape of one colour that changes by a pattern.
struct Leaf {
    centre: [i64; 2],
    /// The direction of its first axis.
    axis: [i64; 2],
    /// How far it reaches along its axes.
    half: [i64; 2],
    form: Form,
    colour: Colour,
    pattern: Pattern,
    /// The length of what repeats in the pattern.
    period: i64,
    /// How much the pattern changes the colour.
    strength: Colour,
    /// What tells its clouds from others.
    salt: i64,
}

impl Leaf {
    fn drawn(draw: &mut Draw, style: &Style) -> Self {
        let radius = draw.radius(style.least);
        // From round to four times as long as wide.
        let half = [radius, radius * ONE / draw.between([ONE, 4 * ONE])];
        let centre = [(); 2].map(|()| draw.below(CANVAS));
        let form = match draw.below(3) {
            0 => Form::Ellipse,
            1 => Form::Box,
            _ => Form::Triangle,
        };
        let pattern = match draw.below(9) {
            0..3 => Pattern::Plain,
            3..5 => Pattern::Ramp,
            5 => Pattern::Stripes,
            6 => Pattern::Checks,
            7 => Pattern::Waves,
            _ => Pattern::Clouds,
        };
        let (colour, other) = (style.colour(draw), style.colour(draw));
        let strength = [0, 1, 2].map(|channel| (other[channel] - colour[channel]) / 2);
        let (axis, period, salt) = (draw.direction(), draw.between([4, 32]), draw.below(ONE));
        Self { centre, axis, half, form, colour, pattern, period, strength, salt }
    }

    /// Draws it over what is there.
    fn cover(&self, canvas: &mut Canvas) {
        let reach = self.half[0] + self.half[1];
        let range = |centre: i64| (centre - reach).max(0)..(centre + reach).min(CANVAS);
        for y in range(self.centre[1]) {
            for x in range(self.centre[0]) {
                let (along, across) = self.own(x, y);
                if self.holds(along, across)
                    && let Some(point) = canvas.get_mut((y * CANVAS + x) as usize)
                {
                    let value = self.value(x, y, along, across);
                    *point = [0, 1, 2]
                        .map(|channel| (self.colour[channel] + self.strength[channel] * value / ONE).clamp(0, 255));
                }
            }
        }
    }

    /// A point in the leaf's own axes.
    fn own(&self, x: i64, y: i64) -> (i64, i64) {
        let (x, y, [cosine, sine]) = (x - self.centre[0], y - self.centre[1], self.axis);
        ((x * cosine + y * sine).div_euclid(ONE), (y * cosine - x * sine).div_euclid(ONE))
    }

    fn holds(&self, along: i64, across: i64) -> bool {
        let [a, b] = self.half;
        match self.form {
            Form::Ellipse => (along * b).pow(2) + (across * a).pow(2) <= (a * b).pow(2),
            Form::Box => along.abs() <= a && across.abs() <= b,
            Form::Triangle => along >= -a && 2 * a * across.abs() <= b * (a - along),
        }
    }

    /// The pattern's value, from -[`ONE`] to [`ONE`].
    fn value(&self, x: i64, y: i64, along: i64, across: i64) -> i64 {
        let odd = |at: i64| at.div_euclid(self.period) & 1;
        let sign = |odd: i64| ONE - 2 * ONE * odd;
        match self.pattern {
            Pattern::Plain => 0,
            Pattern::Ramp => (along * ONE / self.half[0].max(1)).clamp(-ONE, ONE),
            Pattern::Stripes => sign(odd(along)),
            Pattern::Checks => sign(odd(along) ^ odd(across)),
            Pattern::Waves => {
                let phase = along.rem_euclid(2 * self.period) * 2 * ONE / self.period;
                (phase - 2 * ONE).abs() - ONE
            }
            // Each octave with half the amplitude of the one before: in all, less than 2.
            Pattern::Clouds => {
                (0..3).map(|octave| self.cloud(x, y, (4 * self.period) >> octave) >> octave).sum::<i64>() / 2
            }
        }
    }

    /// Random values at the points of a grid of this `step`, and between them what lies between.
    fn cloud(&self, x: i64, y: i64, step: i64) -> i64 {
        let (column, row) = (x / step, y / step);
        let (right, down) = (x % step, y % step);
        let line =
            |row: i64| self.noise(column, row, step) * (step - right) + self.noise(column + 1, row, step) * right;
        (line(row) * (step - down) + line(row + 1) * down) / (step * step)
    }

    /// A value from -[`ONE`] to [`ONE`] that only these numbers tell: they are mixed as SplitMix64 does.
    fn noise(&self, column: i64, row: i64, step: i64) -> i64 {
        let mut mixed = (((self.salt << 16 | column) << 16 | row) << 8 | step) as u64;
        for factor in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
            mixed = (mixed ^ mixed >> 30).wrapping_mul(factor);
        }
        (mixed >> 53) as i64 - ONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::{collections::BTreeSet, io::Read as _};

    #[test]
    fn what_ships_is_what_is_drawn() {
        let mut shipped = Vec::new();
        GzDecoder::new(super::super::PICTURES.bytes).read_to_end(&mut shipped).unwrap();
        assert!(shipped == records(), "write data/anchors-images.bin.gz anew: cargo run --example anchors");
    }

    #[test]
    fn pictures_are_all_different_and_none_is_flat() {
        let records = records();
        let pictures: Vec<&[u8]> = records.chunks_exact(1 + 3 * SIDE * SIDE).collect();
        assert_eq!(pictures.len() as u64, COUNT);
        assert_eq!(pictures.iter().collect::<BTreeSet<_>>().len() as u64, COUNT);
        for (index, picture) in pictures.iter().enumerate() {
            let (label, values) = picture.split_first().unwrap();
            let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
            let spread = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>();
            assert!(*label == 0 && (spread / values.len() as f64).sqrt() > 4.0, "picture {index}");
        }
    }

    /// Photographs: the farther, the less alike, and without a scale at which that ends.
    #[test]
    fn pixels_are_the_less_alike_the_farther_they_are() {
        let records = records();
        let difference = |distance: usize| -> f64 {
            let rows = records.chunks_exact(1 + 3 * SIDE * SIDE).flat_map(|record| record[1..].chunks_exact(SIDE));
            let pairs = rows.flat_map(|row| row.iter().zip(&row[distance..]));
            pairs.map(|(one, other)| (f64::from(*one) - f64::from(*other)).powi(2)).sum::<f64>()
                / (SIDE - distance) as f64
        };
        let all = [1, 2, 4, 8, 16].map(difference);
        assert!(all.windows(2).all(|pair| (1.02..2.5).contains(&(pair[1] / pair[0]))), "{all:?}");
    }
}
