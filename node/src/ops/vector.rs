//! Functions of single values that a compiler can compute many at a time: no calls, no tables, no branches. And the way
//! to have loops over them compiled for the widest vectors that the processor has.

/// Runs `work` with its loops compiled for this processor's vectors.
#[inline(always)]
pub(super) fn wide<T>(work: impl FnOnce() -> T) -> T {
    pulp::Arch::new().dispatch(work)
}

/// 1.5 x 2^23: adding it rounds to whole numbers, which are then in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// e^x within 2 units in the last place; beyond +-87 as there. NaN stays NaN.
///
/// By x = n ln 2 + r and a polynomial for e^r (S. L. Moshier, Methods and Programs for Mathematical Functions, 1989).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = x.clamp(-87.0, 87.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    // 2^n, by its exponent's bits.
    e * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent, within 1e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (1.0 + exp(2.0 * x))
}

/// The distribution function of N(0, 1), within 3e-7.
#[inline(always)]
pub(super) fn normal(x: f32) -> f32 {
    normal_and_bell(x).0
}

/// The same, and e^(-x^2 / 2) (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
pub(super) fn normal_and_bell(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = 1.061_405_4 * t - 1.453_152;
    let p = p * t + 1.421_413_7;
    let p = p * t - 0.284_496_74;
    let p = p * t + 0.254_829_6;
    let bell = exp(-0.5 * x * x);
    let tail = 0.5 * p * t * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

/// Values that are added up side by side.
const LANES: usize = 16;

/// The sum of a function of some values.
#[inline(always)]
pub(super) fn sum_of(values: &[f32], function: impl Fn(f32) -> f32) -> f32 {
    let (lanes, rest) = values.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for lane in lanes {
        sums.iter_mut().zip(lane).for_each(|(sum, value)| *sum += function(*value));
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| function(*value)).sum::<f32>()
}

/// The sum of some values.
#[inline(always)]
pub(super) fn sum(values: &[f32]) -> f32 {
    sum_of(values, |value| value)
}

/// The inner product of two lists that are equally long.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((lanes, rest), (others, other_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0f32; LANES];
    for (lane, other) in lanes.iter().zip(others) {
        sums.iter_mut().zip(lane.iter().zip(other)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f32>() + rest.iter().zip(other_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// The largest of some values; what is no number is passed over.
#[inline(always)]
pub(super) fn largest(values: &[f32]) -> f32 {
    let (lanes, rest) = values.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for lane in lanes {
        most.iter_mut().zip(lane).for_each(|(most, value)| *most = if *value > *most { *value } else { *most });
    }
    most.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| a.max(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> impl Iterator<Item = f32> {
        (-1_400..=1_400).map(|i| i as f32 * 0.01)
    }

    #[test]
    fn they_are_as_near_as_they_say() {
        for x in values() {
            let wide = f64::from(x);
            assert!((f64::from(exp(x)) / wide.exp() - 1.0).abs() < 2.4e-7, "e^{x} is not {}", exp(x));
            assert!((f64::from(sigmoid(x)) - 1.0 / (1.0 + (-wide).exp())).abs() < 1.5e-7);
            assert!((f64::from(tanh(x)) - wide.tanh()).abs() < 2e-7);
            let erf = candle_core::cpu::erf::erf_f64(wide * std::f64::consts::FRAC_1_SQRT_2);
            assert!((f64::from(normal(x)) - 0.5 * (1.0 + erf)).abs() < 3e-7);
        }
    }

    #[test]
    fn far_away_they_stay_finite_and_no_number_stays_none() {
        assert!(exp(1e9).is_finite() && exp(-1e9) < 1e-37);
        assert_eq!((sigmoid(1e9), tanh(1e9), tanh(-1e9), normal(1e9), normal(-1e9)), (1.0, 1.0, -1.0, 1.0, 0.0));
        assert!([exp, sigmoid, tanh, normal].iter().all(|function| function(f32::NAN).is_nan()));
    }

    #[test]
    fn wide_loops_compute_the_same() {
        let some: Vec<f32> = values().collect();
        let wide: Vec<f32> = wide(|| some.iter().map(|x| exp(*x)).collect());
        assert!(wide.iter().zip(&some).all(|(wide, x)| (wide / exp(*x) - 1.0).abs() < 3e-7));
    }
}
