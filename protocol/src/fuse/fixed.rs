//! Integer arithmetic: norms that are compared exactly, weights, rounding.

use crate::mixture::power_of_two;
use std::cmp::Ordering;

/// Weights, cosines and evidence have so many bits behind the point.
pub(super) const FRACTION_BITS: u32 = 30;

/// 1 in units of 2^-30.
pub(super) const ONE: i64 = 1 << FRACTION_BITS;

/// 1/2 in units of 2^-30.
const HALF: i64 = 1 << (FRACTION_BITS - 1);

/// The L2 norm of a group that isn't zero, exactly: its square is `square` times 4^`exponent`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm {
    square: u128,
    exponent: i16,
}

impl Norm {
    /// The norm of a group whose mantissas' squares add up to `square`; none for a group of zeros.
    pub(super) fn new(square: i128, exponent: i16) -> Option<Self> {
        u128::try_from(square).ok().filter(|square| *square > 0).map(|square| Self { square, exponent })
    }

    /// Which of two norms is larger, without rounding either.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        // The place of the leading bit decides; where that is the same, the bits from there on.
        let place = |norm: &Self| 2 * i32::from(norm.exponent) - norm.square.leading_zeros() as i32;
        let bits = |norm: &Self| norm.square << norm.square.leading_zeros();
        place(self).cmp(&place(other)).then(bits(self).cmp(&bits(other)))
    }

    /// This norm divided by another. Charters allow 60 exponents and squares of a mixture's groups are below 2^62, so
    /// that it is between 2^-91 and 2^91.
    pub(super) fn over(&self, other: &Self) -> f64 {
        let mantissas = (self.square as f64).sqrt() / (other.square as f64).sqrt();
        mantissas * power_of_two(self.exponent.saturating_sub(other.exponent))
    }
}

/// The lower of the middle values, in the order that `compare` gives.
pub(super) fn lower_median<T: Copy>(mut values: Vec<T>, compare: impl Fn(&T, &T) -> Ordering) -> Option<T> {
    values.sort_by(compare);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// `value` in units of 2^-30, half to even, saturating.
pub(super) fn to_fixed(value: f64) -> i64 {
    (value * ONE as f64).round_ties_even() as i64
}

/// `value` / 2^30, half to even on both sides of zero. Any value below 2^127 less 1/2.
pub(super) fn round_fraction(value: i128) -> i128 {
    // Just below a half, and that little more that makes an odd half go up.
    (value + (i128::from(HALF) - 1 + (value >> FRACTION_BITS & 1))) >> FRACTION_BITS
}

/// The same in 64 bits. Any value below 2^63 less 1/2.
pub(super) fn round_short_fraction(value: i64) -> i64 {
    (value + (HALF - 1 + (value >> FRACTION_BITS & 1))) >> FRACTION_BITS
}

/// `value` / `divisor`, half to even on both sides of zero. A divisor from 1 to 2^126.
pub(super) fn round_ratio(value: i128, divisor: i128) -> i128 {
    let (down, rest) = (value.div_euclid(divisor), value.rem_euclid(divisor));
    match (2 * rest).cmp(&divisor) {
        Ordering::Less => down,
        Ordering::Equal => down + (down & 1),
        Ordering::Greater => down + 1,
    }
}

/// Whether two vectors' cosine is above 0.999, from their inner product and their squares, without rounding.
pub(super) fn nearly_parallel(inner: i128, left: i128, right: i128) -> bool {
    let times = |value: i128, factor: u128| u128::try_from(value).unwrap_or(0).saturating_mul(factor);
    let inner = times(inner, 1_000);
    product(inner, inner) > product(times(left, 999), times(right, 999))
}

/// `a` times `b` as (high, low) halves of 128 bits.
fn product(a: u128, b: u128) -> (u128, u128) {
    let halves = |value: u128| (value >> 64, value & u128::from(u64::MAX));
    let ((a_high, a_low), (b_high, b_low)) = (halves(a), halves(b));
    let (carry, low) = halves(a_low * b_low);
    let (carry_high, middle) = halves(a_high * b_low + carry);
    let (carry, middle) = halves(a_low * b_high + middle);
    (a_high * b_high + carry_high + carry, middle << 64 | low)
}

/// The nearest i64.
pub(super) fn saturate(value: i128) -> i64 {
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// The places of a number's bits: 0 for 0, else the smallest n with |value| < 2^n.
pub(super) fn bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn norms_compare_like_numbers(a in 1i128..1 << 40, b in 1i128..1 << 40, e in -12i16..12, f in -12i16..12) {
            let (x, y) = (Norm::new(a, e).unwrap(), Norm::new(b, f).unwrap());
            let (left, right) = (a << (2 * (e + 12)), b << (2 * (f + 12)));
            prop_assert_eq!(x.compare(&y), left.cmp(&right));
            let ratio = (a as f64 / b as f64).sqrt() * power_of_two(e - f);
            prop_assert!((x.over(&y) / ratio - 1.0).abs() < 1e-14);
        }

        #[test]
        fn rounding_is_to_the_nearest_and_odd(value in -(1i128 << 100)..1 << 100) {
            let rounded = round_fraction(value);
            prop_assert!(((rounded << 30) - value).abs() <= 1 << 29);
            prop_assert_eq!(round_fraction(-value), -rounded);
            prop_assert_eq!(round_ratio(value, 1 << 30), rounded);
            let short = (value >> 42) as i64;
            prop_assert_eq!(i128::from(round_short_fraction(short)), round_fraction(short.into()));
        }

        #[test]
        fn ratios_round_to_the_nearest(value in -(1i128 << 100)..1 << 100, divisor in 1i128..1000) {
            let rounded = round_ratio(value, divisor);
            prop_assert!(2 * (rounded * divisor - value).abs() <= divisor);
            prop_assert_eq!(round_ratio(-value, divisor), -rounded);
        }

        #[test]
        fn products_are_exact(a: u128, b: u128, c: u64, d: u64) {
            prop_assert_eq!(product(c.into(), d.into()), (0, u128::from(c) * u128::from(d)));
            // Modulo 2^128, and modulo 2^61 - 1, in which 2^128 is 64.
            let (high, low) = product(a, b);
            prop_assert_eq!(low, a.wrapping_mul(b));
            let m = (1u128 << 61) - 1;
            prop_assert_eq!((high % m * 64 + low % m) % m, (a % m) * (b % m) % m);
        }
    }

    #[test]
    fn norms_far_apart_are_compared_without_overflow() {
        let (small, large) = (Norm::new(1, -120).unwrap(), Norm::new((1 << 62) - 1, 60).unwrap());
        assert_eq!(small.compare(&large), Ordering::Less);
        assert_eq!(large.compare(&large), Ordering::Equal);
        assert_eq!(Norm::new(4, 0).unwrap().compare(&Norm::new(1, 1).unwrap()), Ordering::Equal);
        assert_eq!(Norm::new((1 << 61) - 1, 0).unwrap().compare(&Norm::new(1 << 61, 0).unwrap()), Ordering::Less);
        assert!(Norm::new(0, 3).is_none());
    }

    #[test]
    fn nearly_parallel_is_above_0_999() {
        // (1000, x) against (1000, 0): the cosine is 0.999 at x = 44.755..
        let pair = |x: i128| nearly_parallel(1_000_000, 1_000_000 + x * x, 1_000_000);
        assert_eq!([0, 44, 45].map(pair), [true, true, false]);
        assert!(!nearly_parallel(-1_000_000, 1_000_000, 1_000_000));
        // At the bound itself it isn't, and one unit above it is; in numbers whose squares leave 128 bits, too.
        for unit in [1, 1 << 60] {
            assert!(!nearly_parallel(999 * unit, 1000 * unit, 1000 * unit));
            assert!(nearly_parallel(999 * unit + 1, 1000 * unit, 1000 * unit));
        }
    }

    #[test]
    fn halves_go_to_even() {
        let half = 1i128 << 29;
        assert_eq!([-3, -1, 1, 3, 5].map(|odd| round_fraction(odd * half)), [-2, 0, 0, 2, 2]);
        assert_eq!([-3, -1, 1, 3, 5].map(|odd| round_short_fraction(odd * HALF)), [-2, 0, 0, 2, 2]);
        assert_eq!([-15, -5, 4, 5, 6, 15].map(|value| round_ratio(value, 10)), [-2, 0, 0, 0, 1, 2]);
        assert_eq!(to_fixed(1.0), ONE);
        assert_eq!(to_fixed(1e300), i64::MAX);
        assert_eq!(saturate(i128::MAX), i64::MAX);
        assert_eq!([0, 1, 2, 255, u64::MAX].map(bits), [0, 1, 2, 8, 64]);
        assert_eq!(lower_median(vec![4, 1, 3, 2], i32::cmp), Some(2));
        assert_eq!(lower_median(vec![], i32::cmp), None);
    }
}
