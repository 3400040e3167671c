//! Resizing as the Pillow library does it, on which the processors of pretrained models rest: first across, then down,
//! bytes in, bytes out, with weights in fixed point. Reductions average over all pixels that they cover.

use crate::backbone::Resample;

/// Bits behind the point of a weight: 32, less 8 of a value and 2 for sums beyond the range.
const PRECISION: u32 = 22;

/// One channel of an image, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plane {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) values: Vec<u8>,
}

impl Plane {
    /// The same picture in another size.
    pub(super) fn resized(&self, height: usize, width: usize, resample: Resample) -> Self {
        if resample == Resample::Nearest {
            return self.nearest(height, width);
        }
        let across = if width == self.width { self.clone() } else { self.stretched(width, resample) };
        if height == self.height {
            return across;
        }
        across.transposed().stretched(height, resample).transposed()
    }

    fn nearest(&self, height: usize, width: usize) -> Self {
        let source = |at: usize, from: usize, to: usize| {
            (((at as f64 + 0.5) * from as f64 / to as f64) as usize).min(from.saturating_sub(1))
        };
        let columns: Vec<usize> = (0..width).map(|x| source(x, self.width, width)).collect();
        let rows = (0..height).map(|y| source(y, self.height, height) * self.width);
        let values = rows.flat_map(|row| columns.iter().map(move |x| row + x));
        let values = values.map(|at| self.values.get(at).copied().unwrap_or(0)).collect();
        Self { height, width, values }
    }

    /// Another width.
    fn stretched(&self, width: usize, resample: Resample) -> Self {
        let windows = windows(self.width, width, resample);
        let rows = self.values.chunks_exact(self.width.max(1));
        let values = rows.flat_map(|row| windows.iter().map(|window| window.sum(row))).collect();
        Self { height: self.height, width, values }
    }

    fn transposed(&self) -> Self {
        let at = |x: usize, y: usize| self.values.get(y * self.width + x).copied().unwrap_or(0);
        let values = (0..self.width).flat_map(|x| (0..self.height).map(move |y| at(x, y))).collect();
        Self { height: self.width, width: self.height, values }
    }
}

/// Which pixels make up one of another size, with their weights in fixed point.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

impl Window {
    fn sum(&self, row: &[u8]) -> u8 {
        let pixels = row.get(self.first..).unwrap_or_default();
        let sum: i64 =
            pixels.iter().zip(&self.weights).map(|(pixel, weight)| i64::from(*pixel) * i64::from(*weight)).sum();
        ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
    }
}

/// The windows of all `to` pixels over a row of `from`.
fn windows(from: usize, to: usize, resample: Resample) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = radius(resample) * stretch;
    let window = |at: usize| {
        let center = (at as f64 + 0.5) * scale;
        // Casts cut towards zero, and negative numbers become 0.
        let first = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weight = |pixel: usize| filter(resample, (pixel as f64 - center + 0.5) / stretch);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| (weight / sum * f64::from(1u32 << PRECISION)).round() as i32;
        Window { first, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..to).map(window).collect()
}

/// How far a filter reaches.
fn radius(resample: Resample) -> f64 {
    match resample {
        Resample::Nearest => 0.5,
        Resample::Bilinear => 1.0,
        Resample::Bicubic => 2.0,
        Resample::Lanczos => 3.0,
    }
}

/// A filter's weight at a distance from its centre.
fn filter(resample: Resample, distance: f64) -> f64 {
    let x = distance.abs();
    match resample {
        _ if x >= radius(resample) => 0.0,
        Resample::Nearest => 1.0,
        Resample::Bilinear => 1.0 - x,
        Resample::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        Resample::Bicubic => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
        Resample::Lanczos => sinc(x) * sinc(x / 3.0),
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// What Pillow 12.3.0 makes of a made-up picture of 13 x 9.
    #[derive(Deserialize)]
    struct Reference {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        resample: String,
        height: usize,
        width: usize,
        values: Vec<u8>,
    }

    #[test]
    fn every_filter_gives_the_bytes_of_the_reference() {
        let reference: Reference = serde_json::from_str(include_str!("fixtures/resize.json")).unwrap();
        let value = |(y, x): (usize, usize)| ((x * x * 3 + y * 17 + (x * y * 7) % 31 * 5) % 256) as u8;
        let values = (0..9).flat_map(|y| (0..13).map(move |x| (y, x))).map(value).collect();
        let picture = Plane { height: 9, width: 13, values };
        assert_eq!(reference.cases.len(), 20);
        for case in reference.cases {
            let resample = match case.resample.as_str() {
                "Nearest" => Resample::Nearest,
                "Bilinear" => Resample::Bilinear,
                "Bicubic" => Resample::Bicubic,
                _ => Resample::Lanczos,
            };
            let resized = picture.resized(case.height, case.width, resample);
            assert_eq!(resized.values, case.values, "{resample:?} to {} x {}", case.height, case.width);
        }
    }

    #[test]
    fn an_even_picture_stays_even() {
        let picture = Plane { height: 7, width: 5, values: vec![201; 35] };
        for resample in [Resample::Nearest, Resample::Bilinear, Resample::Bicubic, Resample::Lanczos] {
            assert_eq!(picture.resized(3, 16, resample).values, vec![201; 48]);
        }
    }
}
