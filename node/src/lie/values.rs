//! Class statistics as plain numbers, to be lied with.

use heterotune_protocol::{
    genesis::{Block, GenesisError, Statistics},
    limits,
    message::Context,
    mixture::power_of_two,
};

/// Class statistics as plain numbers.
#[derive(Clone, Debug)]
pub(super) struct Values {
    /// Samples per class, `[C]`.
    pub(super) counts: Vec<u32>,
    /// `[C, r_h]`.
    pub(super) sums: Vec<f64>,
    /// `[r_h, r_h]`.
    pub(super) gram: Vec<f64>,
}

impl Values {
    pub(super) fn of(context: &Context, statistics: &Statistics) -> Self {
        let width = usize::from(context.charter.adapter.readout_rank);
        let upper = numbers(&statistics.gram);
        let mut gram = vec![0.0; width * width];
        let places = (0..width).flat_map(|row| (row..width).map(move |column| (row, column)));
        for ((row, column), value) in places.zip(upper) {
            (gram[row * width + column], gram[column * width + row]) = (value, value);
        }
        Self { counts: statistics.counts.clone(), sums: numbers(&statistics.sums), gram }
    }

    pub(super) fn encode(&self, context: &Context) -> Result<Statistics, GenesisError> {
        Statistics::from_values(&context.charter, &self.counts, &self.sums, &self.gram)
    }

    fn width(&self) -> usize {
        self.sums.len() / self.counts.len().max(1)
    }

    /// Its sums, `factor` times.
    pub(super) fn times(mut self, factor: f64) -> Self {
        self.sums.iter_mut().for_each(|sum| *sum *= factor);
        self
    }

    /// Each class called the next, all of it `claim` times.
    pub(super) fn shifted(mut self, claim: u32) -> Self {
        let width = self.width();
        self.counts.rotate_right(1);
        self.sums.rotate_right(width);
        let count = |count: &mut u32| *count = count.saturating_mul(claim).min(limits::CLASS_COUNT_MAX);
        self.counts.iter_mut().for_each(count);
        self.sums.iter_mut().chain(&mut self.gram).for_each(|value| *value *= f64::from(claim));
        self
    }

    pub(super) fn plus(mut self, other: Self) -> Self {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        let values = self.sums.iter_mut().chain(&mut self.gram);
        values.zip(other.sums.into_iter().chain(other.gram)).for_each(|(value, more)| *value += more);
        self
    }

    /// The same means, of `each` samples of every class that there is.
    pub(super) fn of_each(&self, each: u32) -> Self {
        let (width, before) = (self.width(), self.counts.iter().sum::<u32>());
        let counts: Vec<u32> = self.counts.iter().map(|count| if *count > 0 { each } else { 0 }).collect();
        let factor = |at: usize| f64::from(each) / f64::from(self.counts[at / width].max(1));
        let sums = self.sums.iter().enumerate().map(|(at, sum)| sum * factor(at)).collect();
        let more = f64::from(counts.iter().sum::<u32>()) / f64::from(before.max(1));
        Self { counts, sums, gram: self.gram.iter().map(|value| value * more).collect() }
    }
}

/// The numbers of a checked block.
fn numbers(block: &Block) -> Vec<f64> {
    let scale = power_of_two(block.exponent);
    block.values.as_chunks::<4>().0.iter().map(|word| f64::from(i32::from_le_bytes(*word)) * scale).collect()
}
