//! Real numbers as integers times a power of two, as genesis payloads carry them.

use crate::mixture::power_of_two;

/// `values` as integers of at most `most` times the smallest power of two between `lowest` and `highest` on which the
/// largest of them fits, half to even. Nothing where a value isn't finite or too large for any.
pub(super) fn quantise(values: &[f64], lowest: i16, highest: i16, most: i32) -> Option<(i16, Vec<i32>)> {
    if values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let largest = values.iter().fold(0f64, |largest, value| largest.max(value.abs()));
    let fits = |exponent: &i16| (largest / power_of_two(*exponent)).round_ties_even() <= f64::from(most);
    let exponent = (lowest..=highest).find(fits)?;
    let scale = power_of_two(exponent);
    Some((exponent, values.iter().map(|value| (value / scale).round_ties_even() as i32).collect()))
}

/// Whether `integers` are what [`quantise`] could have made with `exponent`: one number, one spelling.
pub(super) fn is_quantised(integers: &[i32], exponent: i16, lowest: i16, highest: i16, most: i32) -> bool {
    let largest = integers.iter().fold(0, |largest, integer| integer.unsigned_abs().max(largest));
    (lowest..=highest).contains(&exponent)
        && largest <= most.unsigned_abs()
        && (exponent == lowest || largest > most.unsigned_abs() / 2)
}

/// How many entries the upper triangle of an `[size, size]` matrix has, the diagonal included.
pub(super) fn triangle(size: usize) -> usize {
    size * (size + 1) / 2
}

/// Where the entry at `row` <= `column` stands in a row-major upper triangle.
pub(super) fn triangle_at(size: usize, row: usize, column: usize) -> usize {
    row * size - row * (row + 1) / 2 + column
}

/// The (row, column) pairs of an upper triangle, row-major.
pub(super) fn triangle_places(size: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..size).flat_map(move |row| (row..size).map(move |column| (row, column)))
}

/// Whether |`entry`| can be an inner product of two vectors whose squared norms are `a` and `b` (none negative), all
/// three rounded to integers: (|entry| - 1/2)^2 <= (a + 1/2)(b + 1/2), and one part in 4,096 for what was summed in
/// floating point. |entry|, a, b < 2^31, so both sides stay below 2^66.
pub(super) fn is_inner_product(entry: i32, a: i32, b: i32) -> bool {
    let least = (2 * i128::from(entry).abs() - 1).max(0);
    let most = (2 * i128::from(a) + 1) * (2 * i128::from(b) + 1);
    least * least <= most + (most >> 12)
}

/// `value` * `numerator` / `denominator` (positive), half to even. The caller keeps the product below 2^126.
pub(super) fn scale_half_even(value: i128, numerator: i128, denominator: i128) -> i128 {
    let product = value * numerator;
    let (down, rest) = (product.div_euclid(denominator), product.rem_euclid(denominator));
    match (2 * rest).cmp(&denominator) {
        std::cmp::Ordering::Less => down,
        std::cmp::Ordering::Equal => down + (down & 1),
        std::cmp::Ordering::Greater => down + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_quantised_is_near_and_canonical(values in prop::collection::vec(-1e6f64..1e6, 1..20)) {
            let (exponent, integers) = quantise(&values, -16, 16, i32::MAX).unwrap();
            prop_assert!(is_quantised(&integers, exponent, -16, 16, i32::MAX));
            for (value, integer) in values.iter().zip(&integers) {
                prop_assert!((value - f64::from(*integer) * power_of_two(exponent)).abs() <= power_of_two(exponent) / 2.0);
            }
            let doubled: Vec<i32> = integers.iter().map(|i| i / 4).collect();
            prop_assert!(exponent == -16 || !is_quantised(&doubled, exponent, -16, 16, i32::MAX));
        }
    }

    #[test]
    fn what_fits_no_grid_is_refused() {
        assert_eq!(quantise(&[f64::NAN], -16, 16, 100), None);
        assert_eq!(quantise(&[1e9], -16, 16, 100), None);
        assert_eq!(quantise(&[0.0, -0.0], -16, 16, 100), Some((-16, vec![0, 0])));
        assert_eq!(quantise(&[100.4, -100.5], 0, 3, 100), Some((0, vec![100, -100])));
        assert_eq!(quantise(&[100.6, -3.0], 0, 3, 100), Some((1, vec![50, -2])));
        assert!(!is_quantised(&[i32::MIN], 0, 0, 0, i32::MAX));
    }

    #[test]
    fn triangles_are_numbered_row_by_row() {
        for size in 1..6 {
            let places: Vec<_> = triangle_places(size).collect();
            assert_eq!(places.len(), triangle(size));
            for (at, (row, column)) in places.into_iter().enumerate() {
                assert_eq!(triangle_at(size, row, column), at);
            }
        }
    }

    #[test]
    fn halves_go_to_even_on_both_sides_of_zero() {
        let scaled: Vec<_> = [-7, -6, -5, -3, -2, -1, 1, 2, 3, 5, 6, 7].map(|v| scale_half_even(v, 1, 2)).into();
        assert_eq!(scaled, [-4, -3, -2, -2, -1, 0, 0, 1, 2, 2, 3, 4]);
        assert_eq!(scale_half_even(10, 2, 3), 7);
        assert_eq!(scale_half_even(-10, 2, 3), -7);
    }

    #[test]
    fn correlations_above_one_are_seen() {
        assert!(is_inner_product(10, 10, 10) && is_inner_product(-10, 10, 10) && is_inner_product(1, 0, 0));
        assert!(!is_inner_product(12, 10, 10) && !is_inner_product(-2, 0, 0) && !is_inner_product(30, 0, 200));
    }
}
