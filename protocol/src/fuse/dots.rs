//! Inner products of bytes, with the widest multiply-and-add that the processor has.

use crate::limits::GRAM_BLOCK;
use pulp::{Arch, NullaryFnOnce, Scalar, cast};
#[cfg(target_arch = "x86_64")]
use pulp::{i16x16, i16x32, i32x8, i32x16, x86::V3, x86::V4};

/// A block's part of a row: values from -128 to 127, and zeros behind the last. Sums of products fit 32 bits: 7 + 7 + 12
/// and a sign.
pub(super) type Part = [i16; GRAM_BLOCK];

/// A part of a row of bytes, at most [`GRAM_BLOCK`] of them.
pub(super) fn part(bytes: &[i8]) -> Part {
    let mut part = [0; GRAM_BLOCK];
    part.iter_mut().zip(bytes).for_each(|(value, byte)| *value = i16::from(*byte));
    part
}

/// Calls `take(i, j, product)` for every pair of `rows` with `j <= i`.
pub(super) fn products(rows: &[Part], take: impl FnMut(usize, usize, i32)) {
    match Arch::new() {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(simd) => simd.vectorize(Products { simd, rows, take }),
        #[cfg(target_arch = "x86_64")]
        Arch::V3(simd) => simd.vectorize(Products { simd, rows, take }),
        _ => Products { simd: Scalar::new(), rows, take }.call(),
    }
}

/// What [`products`] is to do, for one kind of processor.
struct Products<'a, S, F> {
    simd: S,
    rows: &'a [Part],
    take: F,
}

impl<S: MultiplyAdd, F: FnMut(usize, usize, i32)> NullaryFnOnce for Products<'_, S, F> {
    type Output = ();

    /// Two rows by four at a time, so that what is loaded is used more than once.
    #[inline(always)]
    fn call(mut self) {
        for (i, left) in self.rows.chunks(2).enumerate() {
            for (j, right) in self.rows[..2 * i + left.len()].chunks(4).enumerate() {
                // Rows that are missing at an end are the first ones again.
                let lefts = [0, 1].map(|at| left.get(at).unwrap_or(&left[0]));
                let rights = [0, 1, 2, 3].map(|at| right.get(at).unwrap_or(&right[0]));
                let totals = tile(self.simd, lefts, rights);
                for (row, totals) in (2 * i..).zip(totals).take(left.len()) {
                    for (column, total) in (4 * j..).zip(totals).take(right.len()).filter(|(column, _)| *column <= row)
                    {
                        (self.take)(row, column, total);
                    }
                }
            }
        }
    }
}

/// The products of each left row with each right one.
#[inline(always)]
fn tile<S: MultiplyAdd>(simd: S, left: [&Part; 2], right: [&Part; 4]) -> [[i32; 4]; 2] {
    let (left, right) = (left.map(S::split), right.map(S::split));
    let mut sums = [[simd.zero(); 4]; 2];
    for at in 0..left[0].len() {
        for (sums, left) in sums.iter_mut().zip(left) {
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = simd.add(*sum, &left[at], &right[at]);
            }
        }
    }
    sums.map(|sums| sums.map(S::total))
}

/// Vectors of 16-bit numbers.
trait MultiplyAdd: Copy {
    /// As many as are multiplied at once.
    type Values;
    /// Partial sums.
    type Sums: Copy;

    /// A part in such pieces.
    fn split(part: &Part) -> &[Self::Values];

    /// Nothing added yet.
    fn zero(self) -> Self::Sums;

    /// Adds a . b.
    fn add(self, sums: Self::Sums, a: &Self::Values, b: &Self::Values) -> Self::Sums;

    /// The sum of all.
    fn total(sums: Self::Sums) -> i32;
}

#[cfg(target_arch = "x86_64")]
impl MultiplyAdd for V4 {
    type Values = [i16; 32];
    type Sums = i32x16;

    #[inline(always)]
    fn split(part: &Part) -> &[[i16; 32]] {
        part.as_chunks().0
    }

    #[inline(always)]
    fn zero(self) -> i32x16 {
        self.splat_i32x16(0)
    }

    #[inline(always)]
    fn add(self, sums: i32x16, a: &[i16; 32], b: &[i16; 32]) -> i32x16 {
        let (a, b): (i16x32, i16x32) = (cast(*a), cast(*b));
        self.wrapping_add_i32x16(sums, self.multiply_wrapping_add_adjacent_i16x32(a, b))
    }

    #[inline(always)]
    fn total(sums: i32x16) -> i32 {
        cast::<_, [i32; 16]>(sums).iter().sum()
    }
}

#[cfg(target_arch = "x86_64")]
impl MultiplyAdd for V3 {
    type Values = [i16; 16];
    type Sums = i32x8;

    #[inline(always)]
    fn split(part: &Part) -> &[[i16; 16]] {
        part.as_chunks().0
    }

    #[inline(always)]
    fn zero(self) -> i32x8 {
        self.splat_i32x8(0)
    }

    #[inline(always)]
    fn add(self, sums: i32x8, a: &[i16; 16], b: &[i16; 16]) -> i32x8 {
        let (a, b): (i16x16, i16x16) = (cast(*a), cast(*b));
        self.wrapping_add_i32x8(sums, self.multiply_wrapping_add_adjacent_i16x16(a, b))
    }

    #[inline(always)]
    fn total(sums: i32x8) -> i32 {
        cast::<_, [i32; 8]>(sums).iter().sum()
    }
}

/// Any processor: what a compiler makes vectors of by itself where there are any.
impl MultiplyAdd for Scalar {
    type Values = [i16; 8];
    type Sums = [i32; 4];

    #[inline(always)]
    fn split(part: &Part) -> &[[i16; 8]] {
        part.as_chunks().0
    }

    #[inline(always)]
    fn zero(self) -> [i32; 4] {
        [0; 4]
    }

    #[inline(always)]
    fn add(self, sums: [i32; 4], a: &[i16; 8], b: &[i16; 8]) -> [i32; 4] {
        let product = |at: usize| i32::from(a[at]) * i32::from(b[at]);
        std::array::from_fn(|at| sums[at] + product(2 * at) + product(2 * at + 1))
    }

    #[inline(always)]
    fn total(sums: [i32; 4]) -> i32 {
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesis::samples::Numbers;

    /// Every kind of processor that this one can be, at the largest values too.
    #[test]
    fn all_vectors_make_the_same_products() {
        let mut numbers = Numbers::new(3);
        let mut rows: Vec<Part> = vec![[-128; GRAM_BLOCK], [127; GRAM_BLOCK]];
        rows.extend((0..5).map(|_| part(&(0..4_000).map(|_| numbers.bits() as i8).collect::<Vec<_>>())));
        let exact = |i: usize, j: usize| rows[i].iter().zip(&rows[j]).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
        let expected: Vec<(usize, usize, i64)> =
            (0..rows.len()).flat_map(|i| (0..=i).map(move |j| (i, j))).map(|(i, j)| (i, j, exact(i, j))).collect();
        let check = |mut found: Vec<(usize, usize, i64)>| {
            found.sort_unstable();
            assert_eq!(found, expected);
        };
        let mut found = Vec::new();
        products(&rows, |i, j, product| found.push((i, j, product.into())));
        check(found);
        let mut found = Vec::new();
        Products { simd: Scalar::new(), rows: &rows, take: |i, j, p: i32| found.push((i, j, p.into())) }.call();
        check(found);
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = V3::try_new() {
            let mut found = Vec::new();
            simd.vectorize(Products { simd, rows: &rows, take: |i, j, p: i32| found.push((i, j, p.into())) });
            check(found);
        }
    }
}
