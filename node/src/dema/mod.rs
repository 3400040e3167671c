//! DeMA, the adapters that different backbones share, and their alignment.
//!
//! A backbone of any width d has S slots. At a slot, every token goes through private projections into a space of width
//! r that all nodes have in common, through the shared branches B_m there, and back:
//!
//! z = (LN(h) - mu) Down, g = softmax(z G), h += \[sum_m g_m (gelu(z) B_m)\] Up.
//!
//! Down, Up, mu and G stay on the node and are frozen. They are fitted so that the same code means the same on every
//! backbone ([`alignment`]); without that, sharing branches between different backbones is sharing noise.

mod adapter;
pub mod algebra;
pub mod alignment;
mod projection;

pub use adapter::{Adapter, gates};
pub use alignment::Features;
pub(crate) use projection::le_bytes;
pub use projection::{Entry, Projection, Projections, encode};

/// How many blocks come before each slot: ceil((s + 1) L / S) for slot s of S in a backbone of L blocks.
pub fn positions(depth: usize, slots: usize) -> Vec<usize> {
    (1..=slots).map(|slot| (slot * depth).div_ceil(slots)).collect()
}

/// What is wrong with anchors, references or saved projections.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemaError {
    /// Values that do not have the shape they must have.
    #[error("{what} has {found} values, but must have {expected}")]
    Shape {
        /// Which values.
        what: String,
        /// How many there are.
        found: usize,
        /// How many there must be.
        expected: usize,
    },
    /// Something that nothing can be fitted to.
    #[error("the alignment failed: {0}")]
    Fit(String),
    /// Saved projections that are damaged or belong to another network or backbone.
    #[error("the saved projections can't be used: {0}; remove the file to align anew")]
    Saved(String),
    /// The tensor library refused to compute.
    #[error("the adapters could not be computed: {0}")]
    Compute(#[from] candle_core::Error),
}

#[cfg(test)]
mod tests {
    #[test]
    fn slots_are_spread_over_the_depth_and_end_at_the_end() {
        assert_eq!(super::positions(6, 1), [6]);
        assert_eq!(super::positions(6, 2), [3, 6]);
        assert_eq!(super::positions(5, 2), [3, 5]);
        assert_eq!(super::positions(2, 4), [1, 1, 2, 2]);
    }
}
