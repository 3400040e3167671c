//! Numbers over several seeds.

use serde::Serialize;

/// The mean of some numbers, and how they scatter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// Their sample standard deviation; none of a single number.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Of some numbers; none have none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mean = crate::history::mean(values.iter().copied())?;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let freedom = values.len().saturating_sub(1);
        Some(Self { mean, deviation: (freedom > 0).then(|| (squares / freedom as f64).sqrt()) })
    }

    /// As `mean ± deviation`, each as `cell` writes it.
    pub(crate) fn cell(&self, cell: impl Fn(f64) -> String) -> String {
        match self.deviation {
            Some(deviation) => format!("{} ± {}", cell(self.mean), cell(deviation).trim_start_matches('+')),
            None => cell(self.mean),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_those_of_samples() {
        let spread = Spread::of(&[1.0, 2.0, 4.0, 5.0]).unwrap();
        assert_eq!(spread.mean, 3.0);
        assert!((spread.deviation.unwrap() - (10.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(spread.cell(|value| format!("{value:+.1}")), "+3.0 ± 1.8");
        assert_eq!(Spread::of(&[7.0]), Some(Spread { mean: 7.0, deviation: None }));
        assert_eq!(Spread::of(&[]), None);
    }
}
