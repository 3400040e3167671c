//! What `heterotune bench` measures: the parts of a node that cost time, memory or bytes, each by itself.

mod fusion;
mod round;
mod shape;
mod step;

pub use fusion::{Coded, Fused, codecs, fusion};
pub use round::{Round, round};
pub use shape::Shape;
#[cfg(test)]
pub(crate) use step::charter_of;
pub use step::{Options, Step, step, write};
