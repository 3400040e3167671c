//! How a network begins: two steps that all founders take once, before round 1.
//!
//! - G0: every founder sends its [`Kernels`], and [`reference()`] makes of them what all backbones are aligned to.
//! - G1: every founder sends class [`Statistics`] in the aligned space, and [`start`] makes the first readout of them.
//!
//! Both are pure functions of what was sent: exact integer sums, then a little scalar linear algebra in a fixed
//! order, so that every node computes the same bits.

mod consistency;
mod grid;
mod kernel;
pub(crate) mod linalg;
mod readout;
mod reference;
#[cfg(test)]
pub(crate) mod samples;
mod statistics;

pub use kernel::{KernelBlock, Kernels};
pub use readout::{Start, start};
pub use reference::{Reference, reference};
pub use statistics::{Block, Statistics};

/// Below this many founders nobody is left out of genesis: with three, one that lies and one that is merely
/// different can't be told apart.
const SCREEN_FOUNDERS_MIN: usize = 4;

/// Why a genesis payload is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenesisError {
    /// Another size than the charter prescribes.
    #[error("wrong shape: {what} has {is} instead of {must}")]
    Shape {
        /// What it is.
        what: &'static str,
        /// Its size.
        is: usize,
        /// The size it must have.
        must: usize,
    },
    /// Values that are not finite, out of range, or not written in the one way they can be.
    #[error("out of range: {what} (number {at}) is not on its grid")]
    Grid {
        /// What it is.
        what: &'static str,
        /// Which one of them, from 0.
        at: usize,
    },
    /// A negative square.
    #[error("impossible: {what} is negative on its diagonal, at {row}")]
    Negative {
        /// What it is.
        what: &'static str,
        /// Where.
        row: usize,
    },
    /// An inner product larger than the norms allow.
    #[error("impossible: {what} has a correlation above 1 at ({row}, {column})")]
    Correlation {
        /// What it is.
        what: &'static str,
        /// Where.
        row: usize,
        /// Where.
        column: usize,
    },
    /// A kernel of features that are not centred.
    #[error("not centred: row {row} of an anchor kernel does not sum to 0")]
    Centre {
        /// Which row.
        row: usize,
    },
    /// Another scale than such a thing has.
    #[error("out of range: {what}")]
    Scale {
        /// What it is.
        what: &'static str,
    },
    /// Counts that nobody can have.
    #[error("out of range: the count of class {class}")]
    Count {
        /// Which class.
        class: usize,
    },
    /// No samples at all.
    #[error("no samples: a node without labelled data has no statistics to send")]
    Empty,
    /// A class sum that so many clipped codes can't have.
    #[error("out of range: the sum of class {class} is larger than its count allows")]
    Sum {
        /// Which class.
        class: usize,
    },
}
