//! One tensor group of all senders of a round: their mantissas, exact norms and cosines.

use super::{
    Sender,
    fixed::{Norm, nearly_parallel},
    gram::gram,
};
use crate::{
    charter::Charter,
    codec::Mantissas,
    genesis::linalg::Square,
    limits,
    mixture::{GroupShape, Kind},
};

/// One sender's values of a group: each mantissa times 2^(exponent_min + `shift`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    /// How far its exponent is above the charter's smallest: 0 to 60.
    pub(super) shift: u32,
    /// The values, |m| < 2^23.
    pub(super) mantissas: &'a Mantissas,
    /// What no |m| is above.
    pub(super) largest: u32,
}

/// One tensor group as all senders of a round have it.
pub(super) struct Tensor<'a> {
    /// How many values it has.
    pub(super) values: usize,
    /// Whether it counts in the screen and in the agreement: all but biases do.
    pub(super) counts: bool,
    /// The senders' values; none for a sender without this group.
    pub(super) rows: Vec<Option<Row<'a>>>,
    /// Their norms; none where a sender has no values or only zeros.
    pub(super) norms: Vec<Option<Norm>>,
    /// The cosines between them, `[senders, senders]`: 1 on the diagonal, 0 where one of the two has no norm.
    pub(super) cosines: Square,
    /// Which of them are nearly the same direction, `[senders, senders]`, lower triangle; none where one has no norm.
    parallel: Vec<Option<bool>>,
}

impl<'a> Tensor<'a> {
    /// Measures group `at` of `senders`.
    pub(super) fn measure(
        charter: &Charter,
        at: usize,
        shape: &GroupShape,
        senders: &[&Sender<'a>],
        threads: usize,
    ) -> Self {
        let values = shape.values();
        let rows: Vec<_> = senders.iter().map(|sender| Row::new(charter, sender, at, values)).collect();
        let count = rows.len();
        let gram = gram(values, &rows, threads);
        let inner = |row: usize, column: usize| gram[row.max(column) * count + row.min(column)];
        let exponent = |row: &Row<'_>| charter.codec.exponent_min.saturating_add(row.shift as i16);
        let norm = |(at, row): (usize, &Option<Row<'_>>)| Norm::new(inner(at, at), exponent(&(*row)?));
        let norms: Vec<_> = rows.iter().enumerate().map(norm).collect();
        let speak = |row: usize, column: usize| norms[row].is_some() && norms[column].is_some();
        // Exponents cancel in a cosine.
        let roots: Vec<f64> = (0..count).map(|at| (inner(at, at) as f64).sqrt()).collect();
        let cosines = Square::from_fn(count, |row, column| match speak(row, column) {
            true if row == column => 1.0,
            true => (inner(row, column) as f64 / (roots[row] * roots[column])).clamp(-1.0, 1.0),
            false => 0.0,
        });
        let parallel = |(row, column)| nearly_parallel(inner(row, column), inner(row, row), inner(column, column));
        let parallel = (0..count * count)
            .map(|at| (at / count, at % count))
            .map(|(row, column)| (column < row && speak(row, column)).then(|| parallel((row, column))))
            .collect();
        Self { values, counts: shape.kind != Kind::Bias, rows, norms, cosines, parallel }
    }

    /// Whether two different senders' updates are nearly the same direction, decided without rounding; none where one
    /// of them has no norm.
    pub(super) fn nearly_parallel(&self, left: usize, right: usize) -> Option<bool> {
        self.parallel[left.max(right) * self.rows.len() + left.min(right)]
    }

    /// The mean cosine between two senders that both have a norm here; none with fewer than two of them.
    pub(super) fn agreement(&self) -> Option<f64> {
        let speaking: Vec<usize> = (0..self.norms.len()).filter(|at| self.norms[*at].is_some()).collect();
        let (mut sum, mut pairs) = (0.0, 0.0);
        for (place, row) in speaking.iter().enumerate() {
            for column in &speaking[..place] {
                sum += self.cosines.at(*row, *column);
                pairs += 1.0;
            }
        }
        (pairs > 0.0).then(|| sum / pairs)
    }
}

impl<'a> Row<'a> {
    /// Group `at` of a sender, where it is what the codec lets through.
    pub(super) fn new(charter: &Charter, sender: &Sender<'a>, at: usize, values: usize) -> Option<Self> {
        let codec = &charter.codec;
        let group = sender.groups.get(at)?;
        let mantissas = &group.mantissas;
        let largest = match mantissas {
            // Nothing to look for: a byte is a byte.
            Mantissas::Narrow(_) => i8::MIN.unsigned_abs().into(),
            Mantissas::Wide(wide) => wide.iter().fold(0, |largest, m| m.unsigned_abs().max(largest)),
        };
        let fits = mantissas.len() == values
            && (codec.exponent_min..=codec.exponent_max).contains(&group.exponent)
            && largest < 1 << limits::MANTISSA_BITS;
        let shift = u32::try_from(group.exponent.saturating_sub(codec.exponent_min)).ok()?;
        (fits && shift <= limits::EXPONENT_RANGE_MAX as u32).then_some(Self { shift, mantissas, largest })
    }

    /// Its mantissas from the one at `start` on.
    pub(super) fn values(&self, start: usize) -> impl Iterator<Item = i32> + use<'a> {
        self.mantissas.iter_from(start)
    }
}
