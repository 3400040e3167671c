//! Who speaks in a tensor, and how loud: copies as one voice, none longer than the median.

use super::{
    copies::Copies,
    fixed::{Norm, lower_median},
    tensor::Tensor,
};
use crate::genesis::linalg::Square;
use std::cmp::Ordering;

/// With so few voices there is no majority to set a norm, and the lower median is the smaller one, which could shrink
/// the other to nothing: nothing is clipped but by the codec's bounds.
const UNCLIPPED_MOST: usize = 2;

/// Below this the squared length of a mean of unit vectors is rounding noise.
const LENGTH_NEGLIGIBLE: f64 = 1e-9;

/// The voices of a tensor. Each points where its members' unit updates point on average.
pub(super) struct Voices {
    /// Their norms in units of the median norm, clipped to it.
    pub(super) clipped: Vec<f64>,
    /// The cosines between them, `[voices, voices]`.
    pub(super) cosines: Square,
    /// Who speaks with each.
    members: Vec<Vec<usize>>,
    /// How long the mean of the members' unit updates is; 1 for a single member.
    coherence: Vec<f64>,
    /// The senders' norms in units of the median norm; 0 for those who don't speak.
    lengths: Vec<f64>,
}

impl Voices {
    /// The voices of those who are `kept` and have a norm in `tensor`; none where nobody has one.
    ///
    /// The median is over all families with a norm, those left out too: it is exact, and a minority can't move it far.
    pub(super) fn new(tensor: &Tensor<'_>, copies: &Copies, kept: &[bool]) -> Option<Self> {
        let speaks = |at: usize| tensor.norms[at].is_some();
        let all: Vec<Norm> = copies.families(speaks).iter().filter_map(|family| longest(tensor, family)).collect();
        let clip = all.len() > UNCLIPPED_MOST;
        let median = lower_median(all, Norm::compare)?;
        let members = copies.families(|at| speaks(at) && kept[at]);
        // As loud as its longest member, so that a faint copy takes nothing from what it copies.
        let clipped = members
            .iter()
            .filter_map(|family| longest(tensor, family))
            .map(|norm| if clip && norm.compare(&median) != Ordering::Less { 1.0 } else { norm.over(&median) })
            .collect();
        // The inner product of two families' mean unit updates.
        let inner = |left: &[usize], right: &[usize]| {
            let sum = left.iter().flat_map(|i| right.iter().map(move |j| (*i, *j)));
            sum.fold(0.0, |sum, (i, j)| sum + tensor.cosines.at(i, j)) / (left.len() * right.len()) as f64
        };
        let coherence: Vec<f64> = members
            .iter()
            .map(|family| inner(family, family))
            .map(|square| if square > LENGTH_NEGLIGIBLE { square.sqrt() } else { f64::INFINITY })
            .collect();
        let cosines = Square::from_fn(members.len(), |row, column| {
            let cosine = inner(&members[row], &members[column]) / (coherence[row] * coherence[column]);
            if row == column { 1.0 } else { cosine.clamp(-1.0, 1.0) }
        });
        let lengths = tensor.norms.iter().map(|norm| norm.map_or(0.0, |norm| norm.over(&median))).collect();
        Some(Self { clipped, cosines, members, coherence, lengths })
    }

    /// The weight of each sender's own values where the voices, as unit vectors, have `coefficients`. Everyone else's
    /// is 0.
    pub(super) fn weights(&self, coefficients: &[f64]) -> Vec<f64> {
        let mut weights = vec![0.0; self.lengths.len()];
        for ((members, coherence), coefficient) in self.members.iter().zip(&self.coherence).zip(coefficients) {
            let share = coefficient / (members.len() as f64 * coherence);
            members.iter().for_each(|at| weights[*at] = share / self.lengths[*at]);
        }
        weights
    }
}

/// The largest norm in a family.
fn longest(tensor: &Tensor<'_>, family: &[usize]) -> Option<Norm> {
    family.iter().filter_map(|at| tensor.norms[*at]).max_by(Norm::compare)
}
