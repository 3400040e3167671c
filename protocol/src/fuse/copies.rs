//! Copies: updates that are nearly the same speak with one voice, so that repeating an update gains it nothing.
//!
//! It keeps who copies from being paid for it. It is no defence against many keys in one hand, which can add as much
//! noise as makes their updates differ.

use super::tensor::Tensor;

/// Who copies whom in one tensor: per sender the first sender of its family. Families are what is connected by pairs
/// whose cosine is above 0.999.
pub(super) struct Copies(Vec<usize>);

impl Copies {
    /// Nobody copies: each of `senders` is its own family.
    pub(super) fn none(senders: usize) -> Self {
        Self((0..senders).collect())
    }

    /// The families in each of the `tensors` of a round.
    ///
    /// A bias has too few values to tell copying from agreeing (with two labels all biases lie on one line): there,
    /// copies are those who are in every other tensor in which both speak.
    pub(super) fn find(tensors: &[Tensor<'_>], senders: usize) -> Vec<Self> {
        let whole = |left, right| {
            let mut pairs =
                tensors.iter().filter(|tensor| tensor.counts).filter_map(|t| t.nearly_parallel(left, right));
            pairs.next().is_some_and(|first| first && pairs.all(|same| same))
        };
        let find = |tensor: &Tensor<'_>| match tensor.counts {
            true => Self::connect(senders, |left, right| tensor.nearly_parallel(left, right).unwrap_or(false)),
            false => Self::connect(senders, whole),
        };
        tensors.iter().map(find).collect()
    }

    fn connect(senders: usize, same: impl Fn(usize, usize) -> bool) -> Self {
        let Self(mut family) = Self::none(senders);
        for right in 0..senders {
            for left in 0..right {
                let (first, second) = (family[left].min(family[right]), family[left].max(family[right]));
                if first != second && same(left, right) {
                    family.iter_mut().filter(|of| **of == second).for_each(|of| *of = first);
                }
            }
        }
        Self(family)
    }

    /// The families of those who `speak`, as lists of senders; both in order.
    pub(super) fn families(&self, speaks: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
        let mut families = vec![Vec::new(); self.0.len()];
        self.0.iter().enumerate().filter(|(at, _)| speaks(*at)).for_each(|(at, family)| families[*family].push(at));
        families.retain(|family| !family.is_empty());
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_what_is_connected() {
        // 4 is like 0 and 2, which are not like each other.
        let pairs = [(0, 4), (2, 4), (3, 5)];
        let copies = Copies::connect(6, |left, right| pairs.contains(&(left, right)));
        assert_eq!(copies.families(|_| true), [vec![0, 2, 4], vec![1], vec![3, 5]]);
        assert_eq!(copies.families(|at| at != 0 && at != 1), [vec![2, 4], vec![3, 5]]);
        assert_eq!(Copies::none(2).families(|_| true), [[0], [1]]);
    }
}
