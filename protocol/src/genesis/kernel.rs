//! What a founder sends in step G0: the anchor kernels of its backbone.
//!
//! A kernel K = X X^T / |X|^2 over the centred anchor features X has the anchors' width, whatever the backbone's, so
//! kernels of different backbones can be added up.

use super::{GenesisError, grid};
use crate::{charter::Charter, mixture::power_of_two};
use serde::{Deserialize, Serialize};

/// The smallest exponent of a kernel: its largest entry is on the diagonal and at least 1/256 (unit trace, at most
/// 256 anchors), which is 2^15 times 2^-23; one more for what rounding moves.
pub(super) const EXPONENT_LOWEST: i16 = -24;

/// The largest: no entry of a kernel of unit trace is above 1, which is 2^14 times 2^-14.
pub(super) const EXPONENT_HIGHEST: i16 = -14;

/// The anchor kernels of one founder, slot by slot. The last slot comes after the last block, so its kernel is that of
/// the end too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernels {
    /// One kernel a space.
    pub spaces: Vec<KernelBlock>,
}

/// One anchor kernel `[n_a, n_a]`: symmetric, positive semi-definite, its rows summing to 0, of unit trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelBlock {
    /// Entries are multiples of 2^exponent.
    pub exponent: i16,
    /// The upper triangle with the diagonal, row-major, as little-endian i16.
    #[serde(with = "serde_bytes")]
    pub triangle: Vec<u8>,
}

impl Kernels {
    /// The kernels `[n_a, n_a]` of unit trace, one a space (the upper triangle is read), on the wire.
    ///
    /// # Errors
    /// Whatever [`Kernels::check`] would refuse, so that a node learns at home that its features are no use.
    pub fn from_features(charter: &Charter, kernels: &[Vec<f64>]) -> Result<Self, GenesisError> {
        let anchors = usize::from(charter.anchors.count);
        let block = |(space, kernel): (usize, &Vec<f64>)| {
            let (is, must) = (kernel.len(), anchors * anchors);
            if is != must {
                return Err(GenesisError::Shape { what: "an anchor kernel", is, must });
            }
            let upper: Vec<f64> = grid::triangle_places(anchors).map(|(i, j)| kernel[i * anchors + j]).collect();
            let (exponent, entries) = grid::quantise(&upper, EXPONENT_LOWEST, EXPONENT_HIGHEST, i16::MAX.into())
                .ok_or(GenesisError::Grid { what: "an anchor kernel", at: space })?;
            Ok(KernelBlock { exponent, triangle: entries.iter().flat_map(|m| (*m as i16).to_le_bytes()).collect() })
        };
        let kernels = Self { spaces: kernels.iter().enumerate().map(block).collect::<Result<_, _>>()? };
        kernels.check(charter)?;
        Ok(kernels)
    }

    /// Checks everything that can be known of a kernel from itself. Exact, with slack for the rounding of its sender.
    ///
    /// # Errors
    /// The first thing that no honest founder could have sent.
    pub fn check(&self, charter: &Charter) -> Result<(), GenesisError> {
        let (is, must) = (self.spaces.len(), usize::from(charter.adapter.slots));
        if is != must {
            return Err(GenesisError::Shape { what: "the list of anchor kernels", is, must });
        }
        let anchors = usize::from(charter.anchors.count);
        self.spaces.iter().enumerate().try_for_each(|(space, block)| block.check(anchors, space))
    }
}

impl KernelBlock {
    /// The entries of the triangle.
    pub(super) fn entries(&self) -> Vec<i32> {
        let (entries, _) = self.triangle.as_chunks::<2>();
        entries.iter().map(|bytes| i16::from_le_bytes(*bytes).into()).collect()
    }

    fn check(&self, anchors: usize, space: usize) -> Result<(), GenesisError> {
        let (is, must) = (self.triangle.len(), 2 * grid::triangle(anchors));
        if is != must {
            return Err(GenesisError::Shape { what: "the bytes of an anchor kernel", is, must });
        }
        let entries = self.entries();
        if !grid::is_quantised(&entries, self.exponent, EXPONENT_LOWEST, EXPONENT_HIGHEST, i16::MAX.into()) {
            return Err(GenesisError::Grid { what: "an anchor kernel", at: space });
        }
        let diagonal: Vec<i32> = (0..anchors).map(|row| entries[grid::triangle_at(anchors, row, row)]).collect();
        if let Some(row) = diagonal.iter().position(|entry| *entry < 0) {
            return Err(GenesisError::Negative { what: "an anchor kernel", row });
        }
        // Sums of 256 entries below 2^15 fit an i32.
        let mut sums = vec![0i32; anchors];
        for ((row, column), entry) in grid::triangle_places(anchors).zip(&entries) {
            if row == column {
                sums[row] += entry;
                continue;
            }
            if !grid::is_inner_product(*entry, diagonal[row], diagonal[column]) {
                return Err(GenesisError::Correlation { what: "an anchor kernel", row, column });
            }
            sums[row] += entry;
            sums[column] += entry;
        }
        // Rounding moves each entry by at most 1/2; as much again is left for features computed in f32.
        let slack = anchors as i32;
        if let Some(row) = sums.iter().position(|sum| sum.abs() > slack) {
            return Err(GenesisError::Centre { row });
        }
        let trace: i32 = diagonal.iter().sum();
        let one = (1.0 / power_of_two(self.exponent)) as i32;
        if (trace - one).abs() > slack {
            return Err(GenesisError::Scale { what: "the trace of an anchor kernel" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{genesis::samples, testing::charter, wire};
    use proptest::prelude::*;

    fn two_slots() -> Charter {
        let mut charter = charter(4);
        charter.adapter.slots = 2;
        charter
    }

    /// Sets the entry at (row, column) of space 0.
    fn with(kernels: &Kernels, row: usize, column: usize, value: i16) -> Kernels {
        let mut kernels = kernels.clone();
        let at = 2 * grid::triangle_at(12, row, column);
        kernels.spaces[0].triangle[at..at + 2].copy_from_slice(&value.to_le_bytes());
        kernels
    }

    #[test]
    fn honest_kernels_pass_and_are_near_what_they_were_made_of() {
        let charter = two_slots();
        for seed in 0..20 {
            let raw = vec![samples::kernel(12, 1 + seed as usize % 11, seed), samples::kernel(12, 11, 100 + seed)];
            let kernels = Kernels::from_features(&charter, &raw).unwrap();
            let block = &kernels.spaces[0];
            let unit = power_of_two(block.exponent);
            for ((i, j), entry) in grid::triangle_places(12).zip(block.entries()) {
                assert!((raw[0][i * 12 + j] - f64::from(entry) * unit).abs() <= unit / 2.0);
            }
        }
    }

    #[test]
    fn each_defect_is_refused_by_name() {
        let charter = two_slots();
        let good = samples::kernels(&charter, 5);
        let diagonal = good.spaces[0].entries()[0];
        assert!(matches!(with(&good, 0, 0, -1).check(&charter), Err(GenesisError::Negative { row: 0, .. })));
        assert!(matches!(with(&good, 3, 4, i16::MIN).check(&charter), Err(GenesisError::Grid { .. })));
        let torn = with(&good, 3, 4, i16::MAX).check(&charter);
        assert!(matches!(torn, Err(GenesisError::Correlation { row: 3, column: 4, .. })));
        let shifted = with(&good, 0, 0, diagonal as i16 - 200).check(&charter);
        assert!(matches!(shifted, Err(GenesisError::Centre { row: 0 })), "{shifted:?}");
        let mut other = good.clone();
        other.spaces[1].exponent += 1;
        assert!(matches!(other.check(&charter), Err(GenesisError::Scale { .. })));
        for exponent in [i16::MIN, EXPONENT_LOWEST - 1, EXPONENT_HIGHEST + 1, i16::MAX] {
            other.spaces[1].exponent = exponent;
            assert!(matches!(other.check(&charter), Err(GenesisError::Grid { at: 1, .. })));
        }
        other = good.clone();
        other.spaces[0].triangle.pop();
        assert!(matches!(other.check(&charter), Err(GenesisError::Shape { .. })));
        other.spaces.pop();
        assert!(matches!(other.check(&charter), Err(GenesisError::Shape { .. })));
        let zero = KernelBlock { exponent: EXPONENT_LOWEST, triangle: vec![0; 2 * 78] };
        assert!(Kernels { spaces: vec![zero.clone(), zero] }.check(&charter).is_err());
    }

    #[test]
    fn features_that_are_no_use_are_found_at_home() {
        let charter = two_slots();
        let make = |kernel: Vec<f64>| Kernels::from_features(&charter, &[kernel.clone(), kernel]);
        assert!(matches!(make(vec![0.0; 3]), Err(GenesisError::Shape { .. })));
        assert!(matches!(make(vec![f64::NAN; 144]), Err(GenesisError::Grid { .. })));
        assert!(matches!(make(vec![1e300; 144]), Err(GenesisError::Grid { .. })));
        assert!(make(vec![0.0; 144]).is_err());
        assert!(make(samples::kernel(12, 4, 3).iter().map(|k| k * 1.5).collect()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            blocks in prop::collection::vec((any::<i16>(), prop::collection::vec(any::<u8>(), 156)), 0..4),
        ) {
            let charter = two_slots();
            let spaces = blocks.into_iter().map(|(exponent, triangle)| KernelBlock { exponent, triangle }).collect();
            let bytes = wire::encode(&Kernels { spaces }, 1 << 16).unwrap();
            let kernels: Kernels = wire::decode(&bytes, 1 << 16).unwrap();
            prop_assert!(kernels.check(&charter).is_err());
        }
    }
}
