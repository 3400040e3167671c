//! What a founder sends in step G1: per class how many samples it has and the sum of their codes, and one Gram matrix
//! of all codes.

use super::{GenesisError, grid};
use crate::{charter::Charter, limits};
use serde::{Deserialize, Serialize};

/// The smallest exponent of a block: 2^-16 resolves codes (unit root mean square) far below their noise.
pub(super) const EXPONENT_LOWEST: i16 = -16;

/// The largest: no Gram entry of 1,000 classes of 2^24 samples is above 2^(34 + 11), and 31 + 16 bits hold that.
const EXPONENT_HIGHEST: i16 = 16;

/// One list of integers with a common power of two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Values are multiples of 2^exponent, which is the smallest that all of them fit with.
    pub exponent: i16,
    /// The values, as little-endian i32.
    #[serde(with = "serde_bytes")]
    pub values: Vec<u8>,
}

/// The class statistics of one node. Senders clip each code to a norm of c sqrt(r_h), with c =
/// [`limits::CODE_NORM_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Samples per class, `[C]`.
    pub counts: Vec<u32>,
    /// Sums of codes per class, `[C, r_h]`, row-major.
    pub sums: Block,
    /// The Gram matrix of all codes, `[r_h, r_h]`, as upper triangle with the diagonal, row-major.
    pub gram: Block,
}

impl Statistics {
    /// The statistics on the wire, of `counts` `[C]`, `sums` `[C, r_h]` and `gram` `[r_h, r_h]` (its upper triangle
    /// is read), all of codes that were clipped before.
    ///
    /// # Errors
    /// Whatever [`Statistics::check`] would refuse.
    pub fn from_values(charter: &Charter, counts: &[u32], sums: &[f64], gram: &[f64]) -> Result<Self, GenesisError> {
        let width = usize::from(charter.adapter.readout_rank);
        if gram.len() != width * width {
            return Err(GenesisError::Shape { what: "the Gram matrix", is: gram.len(), must: width * width });
        }
        let upper: Vec<f64> = grid::triangle_places(width).map(|(i, j)| gram[i * width + j]).collect();
        let statistics = Self {
            counts: counts.to_vec(),
            sums: Block::of(sums).ok_or(GenesisError::Grid { what: "a class sum", at: 0 })?,
            gram: Block::of(&upper).ok_or(GenesisError::Grid { what: "a Gram matrix", at: 0 })?,
        };
        statistics.check(charter)?;
        Ok(statistics)
    }

    /// The most bytes that any statistics under `charter` have on the wire.
    pub fn bytes_max(charter: &Charter) -> usize {
        let (labels, width) = (charter.task.labels().len(), usize::from(charter.adapter.readout_rank));
        // A count below 2^32 has 5 bytes at most; field names, exponents and lengths have fewer than 100 together.
        100 + 5 * labels + 4 * labels * width + 4 * grid::triangle(width)
    }

    /// Checks everything that can be known of statistics from themselves: shapes, and that so many codes of bounded
    /// norm can have such sums and such a Gram matrix. Exact, with slack for the rounding of their sender.
    ///
    /// # Errors
    /// The first thing that no honest node could have sent.
    pub fn check(&self, charter: &Charter) -> Result<(), GenesisError> {
        let (labels, width) = (charter.task.labels().len(), usize::from(charter.adapter.readout_rank));
        if self.counts.len() != labels {
            return Err(GenesisError::Shape { what: "the list of class counts", is: self.counts.len(), must: labels });
        }
        let sums = self.sums.checked("a class sum", labels * width)?;
        let gram = self.gram.checked("a Gram matrix", grid::triangle(width))?;
        if let Some(class) = self.counts.iter().position(|count| *count > limits::CLASS_COUNT_MAX) {
            return Err(GenesisError::Count { class });
        }
        if self.samples() == 0 {
            return Err(GenesisError::Empty);
        }
        check_gram(&self.gram, &gram, width, self.samples())?;
        let trace = self.trace(width);
        for (class, (sum, count)) in sums.chunks_exact(width).zip(&self.counts).enumerate() {
            check_sum(class, &self.sums, sum, *count)?;
            check_scatter(class, &self.sums, sum, *count, trace + width as i128 * self.gram.unit())?;
        }
        Ok(())
    }

    /// How many samples it has in all: below 1,000 x 2^24 < 2^34.
    pub(super) fn samples(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// The trace of its Gram matrix, in units of 2^-16.
    pub(super) fn trace(&self, width: usize) -> i128 {
        let gram = self.gram.integers();
        (0..width).map(|row| gram[grid::triangle_at(width, row, row)]).sum()
    }
}

impl Block {
    fn of(values: &[f64]) -> Option<Self> {
        let (exponent, integers) = grid::quantise(values, EXPONENT_LOWEST, EXPONENT_HIGHEST, i32::MAX)?;
        Some(Self { exponent, values: integers.iter().flat_map(|m| m.to_le_bytes()).collect() })
    }

    /// Its own unit, 2^exponent, in units of 2^-16: 1 to 2^32 in a checked block.
    fn unit(&self) -> i128 {
        1 << self.exponent.saturating_sub(EXPONENT_LOWEST).clamp(0, EXPONENT_HIGHEST - EXPONENT_LOWEST)
    }

    fn mantissas(&self) -> Vec<i32> {
        let (words, _) = self.values.as_chunks::<4>();
        words.iter().map(|word| i32::from_le_bytes(*word)).collect()
    }

    /// Its values in units of 2^-16: below 2^63 in a checked block.
    pub(super) fn integers(&self) -> Vec<i128> {
        let unit = self.unit();
        self.mantissas().into_iter().map(|m| i128::from(m) * unit).collect()
    }

    /// Its mantissas, if there are `must` of them and they are in their one spelling.
    fn checked(&self, what: &'static str, must: usize) -> Result<Vec<i32>, GenesisError> {
        if self.values.len() != 4 * must {
            return Err(GenesisError::Shape { what, is: self.values.len(), must: 4 * must });
        }
        let mantissas = self.mantissas();
        if !grid::is_quantised(&mantissas, self.exponent, EXPONENT_LOWEST, EXPONENT_HIGHEST, i32::MAX) {
            return Err(GenesisError::Grid { what, at: 0 });
        }
        Ok(mantissas)
    }
}

/// One part in 4,096 more than `bound`: codes are f32, so clipping is exact to 2^-23 and sums of them to a little less.
fn with_slack(bound: i128) -> i128 {
    bound + (bound >> 12)
}

/// A Gram matrix of `samples` codes whose squared norms are at most c^2 r_h: no negative squares, no correlation
/// above 1, and a trace of at most n c^2 r_h.
fn check_gram(block: &Block, gram: &[i32], width: usize, samples: u64) -> Result<(), GenesisError> {
    let diagonal: Vec<i32> = (0..width).map(|row| gram[grid::triangle_at(width, row, row)]).collect();
    if let Some(row) = diagonal.iter().position(|entry| *entry < 0) {
        return Err(GenesisError::Negative { what: "a Gram matrix", row });
    }
    for ((row, column), entry) in grid::triangle_places(width).zip(gram) {
        if !grid::is_inner_product(*entry, diagonal[row], diagonal[column]) {
            return Err(GenesisError::Correlation { what: "a Gram matrix", row, column });
        }
    }
    // In units of 2^-16: the trace is below 2^(31 + 32 + 7), the bound below 2^(34 + 4 + 7 + 16).
    let trace: i128 = diagonal.iter().map(|entry| i128::from(*entry) * block.unit()).sum();
    let code = i128::from(limits::CODE_NORM_MAX).pow(2) * width as i128;
    let most = with_slack((i128::from(samples) * code) << 16) + width as i128 * block.unit();
    if trace > most { Err(GenesisError::Scale { what: "the trace of a Gram matrix" }) } else { Ok(()) }
}

/// The sum of `count` codes is no longer than count c sqrt(r_h): |sum|^2 <= r_h (count c + u/2)^2 where u is the
/// block's unit, since rounding moves each of r_h entries by u/2.
///
/// Computed in units of 2^-17, where L = count c + u/2 is below 2^(24 + 2 + 17) + 2^32 < 2^44. No entry may be above
/// 12 L (144 is more than the largest r_h, 128), so squares are below 2^96 and their sum below 2^103.
fn check_sum(class: usize, block: &Block, sum: &[i32], count: u32) -> Result<(), GenesisError> {
    let refused = GenesisError::Sum { class };
    if count == 0 && sum.iter().any(|entry| *entry != 0) {
        return Err(refused);
    }
    let most = with_slack((i128::from(count) * i128::from(limits::CODE_NORM_MAX)) << 17) + block.unit();
    let mut square = 0i128;
    for entry in sum {
        let twice = 2 * i128::from(*entry) * block.unit();
        if twice.abs() > 12 * most {
            return Err(refused);
        }
        square += twice * twice;
    }
    if square > sum.len() as i128 * most * most { Err(refused) } else { Ok(()) }
}

/// The sum of n codes is no longer than sqrt(n trace(G)) (Cauchy-Schwarz, twice): without this a node could make the
/// network's within-class scatter negative with a Gram matrix that is too small for its sums.
///
/// `trace` (units of 2^-16, with its slack) is below 2^63 and `sum` has passed [`check_sum`], so that both sides are
/// below 2^104. Rounding moves |sum| by u sqrt(r_h) / 2, and (a + b)^2 <= (1 + 1/128) a^2 + 129 b^2.
fn check_scatter(class: usize, block: &Block, sum: &[i32], count: u32, trace: i128) -> Result<(), GenesisError> {
    let square: i128 = sum.iter().map(|entry| (i128::from(*entry) * block.unit()).pow(2)).sum();
    let most = (i128::from(count) * trace) << 16;
    let slack = (most >> 7) + 33 * sum.len() as i128 * block.unit() * block.unit();
    if square > most + slack { Err(GenesisError::Sum { class }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{genesis::samples, testing::charter, wire};
    use proptest::prelude::*;

    /// Replaces value `at` of a block.
    fn put(block: &mut Block, at: usize, value: i32) {
        block.values[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
    }

    #[test]
    fn honest_statistics_pass_and_are_near_what_they_were_made_of() {
        let charter = charter(4);
        for (seed, count) in [(0, 1), (1, 2), (2, 40), (3, 4000)] {
            let (counts, sums, gram) = samples::sums(&charter, &samples::codes(&charter, count, seed));
            let statistics = Statistics::from_values(&charter, &counts, &sums, &gram).unwrap();
            for (integer, sum) in statistics.sums.integers().into_iter().zip(&sums) {
                assert!((integer as f64 / 65536.0 - sum).abs() <= statistics.sums.unit() as f64 / 65536.0);
            }
            let bytes = wire::encode(&statistics, Statistics::bytes_max(&charter)).unwrap();
            assert_eq!(wire::decode::<Statistics>(&bytes, 1 << 16).unwrap(), statistics);
        }
    }

    #[test]
    fn codes_at_the_clip_pass() {
        // One class, all codes the same and as long as they may be: every bound is tight.
        let charter = charter(4);
        let code = 4.0f64;
        for count in [1u32, 3, 1000, limits::CLASS_COUNT_MAX] {
            let n = f64::from(count);
            let mut sums = [0.0; 12];
            sums[4..8].fill(n * code);
            Statistics::from_values(&charter, &[0, count, 0], &sums, &[n * code * code; 16]).unwrap();
        }
    }

    #[test]
    fn each_defect_is_refused_by_name() {
        let charter = charter(4);
        let good = samples::statistics(&charter, 40, 1);
        let refused = |change: &dyn Fn(&mut Statistics)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad.check(&charter).unwrap_err()
        };
        assert!(matches!(refused(&|s| s.counts.push(1)), GenesisError::Shape { .. }));
        assert!(matches!(refused(&|s| s.sums.values.truncate(44)), GenesisError::Shape { .. }));
        assert!(matches!(refused(&|s| s.gram.values.push(0)), GenesisError::Shape { .. }));
        assert!(matches!(refused(&|s| s.gram.exponent = 17), GenesisError::Grid { .. }));
        assert!(matches!(refused(&|s| s.sums.exponent = i16::MIN), GenesisError::Grid { .. }));
        assert!(matches!(refused(&|s| s.sums.exponent += 1), GenesisError::Grid { .. }));
        assert!(matches!(refused(&|s| s.counts[1] = limits::CLASS_COUNT_MAX + 1), GenesisError::Count { class: 1 }));
        assert!(matches!(refused(&|s| s.counts.fill(0)), GenesisError::Empty));
        assert!(matches!(refused(&|s| s.counts[1] = 0), GenesisError::Sum { class: 1 }));
        assert!(matches!(refused(&|s| put(&mut s.gram, 0, -1)), GenesisError::Negative { row: 0, .. }));
        let correlated = refused(&|s| put(&mut s.gram, 1, i32::MAX));
        assert!(matches!(correlated, GenesisError::Correlation { row: 0, column: 1, .. }));
        assert!(matches!(refused(&|s| put(&mut s.gram, 0, i32::MAX)), GenesisError::Scale { .. }));
        assert!(matches!(refused(&|s| put(&mut s.sums, 5, i32::MAX)), GenesisError::Sum { class: 1 }));
        // Sums within the clip, but longer than the Gram matrix allows.
        let small = refused(&|s| s.gram.values.fill(0));
        assert!(matches!(small, GenesisError::Sum { class: 0 }));
        let nan = Statistics::from_values(&charter, &[1, 1, 1], &[f64::NAN; 12], &[1.0; 16]);
        assert!(matches!(nan, Err(GenesisError::Grid { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            counts in prop::collection::vec(any::<u32>(), 2..4),
            exponents in any::<(i16, i16)>(),
            sums in prop::collection::vec(any::<u8>(), 48),
            gram in prop::collection::vec(any::<u8>(), 40),
        ) {
            let charter = charter(4);
            let (sums, gram) =
                (Block { exponent: exponents.0, values: sums }, Block { exponent: exponents.1, values: gram });
            let mut statistics = Statistics { counts, sums, gram };
            let _ = statistics.check(&charter);
            // And past the first checks.
            statistics.sums.exponent = exponents.0.rem_euclid(33) - 16;
            statistics.gram.exponent = exponents.1.rem_euclid(33) - 16;
            statistics.counts.iter_mut().for_each(|count| *count %= limits::CLASS_COUNT_MAX + 1);
            let _ = statistics.check(&charter);
        }
    }
}
