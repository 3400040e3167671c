//! A canary for the machine's floating point.

use std::hint::black_box;

/// Whether f64 on this thread is IEEE 754's: subnormals are kept, rounding is to nearest even and once, square roots
/// and division are correctly rounded. Some libraries switch subnormals off for the thread that loads them; a node
/// whose fusing thread fails this can't agree with the others and must not say that it does.
pub fn canary() -> bool {
    let same = |value: f64, bits: u64| black_box(value).to_bits() == bits;
    let tiny = black_box(f64::MIN_POSITIVE);
    let ulp = black_box(f64::EPSILON);
    let one = black_box(1.0f64);
    let subnormals = same(tiny / 4.0, 1 << 50)
        && same(black_box(f64::from_bits(1)) * black_box(4.0), 4)
        && same(black_box(f64::from_bits(3)) + black_box(f64::from_bits(5)), 8)
        && (black_box(1e-40f64) as f32).to_bits() == 0x0001_16c2;
    // Halves to even, on both sides; and once: with a wider register in between, the last would come out as 1.
    let rounding = same(one + ulp / 2.0, one.to_bits())
        && same(one + ulp * 1.5, one.to_bits() + 2)
        && same(-one - ulp / 2.0, (-one).to_bits())
        && same(-one - ulp * 1.5, (-one).to_bits() + 2)
        && same(one + ulp / 2.0 * (one + ulp), one.to_bits() + 1);
    let roots = same(black_box(2.0f64).sqrt(), 0x3ff6_a09e_667f_3bcd)
        && same(black_box(3.0f64).sqrt(), 0x3ffb_b67a_e858_4caa)
        && same(black_box(f64::from_bits(1)).sqrt(), 0x1e60_0000_0000_0000);
    let division = same(one / black_box(3.0), 0x3fd5_5555_5555_5555)
        && same(black_box(2.0) / black_box(3.0), 0x3fe5_5555_5555_5555);
    // In one step without rounding in between, this would be 2^-59 and a little.
    let unfused = same(black_box(0.1f64) * black_box(0.1) - black_box(0.01), 0x3c40_0000_0000_0000);
    subnormals && rounding && roots && division && unfused
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_is_fit_to_fuse() {
        assert!(super::canary());
    }
}
