//! Sums and means of doubles without rounding, until the end.
//!
//! Every double is a whole number of 2^-1074, so sums of doubles, their products with whole weights and their means are
//! fractions of whole numbers. Those are kept in units of 2^-1076, which also holds the half of the half of a sum of two, and
//! only the result becomes a double: the nearest, of two equally near ones the even one.

use alloy_primitives::{Signed, Uint};

/// 2^1024 in units of 2^-1076 has 2,101 bits; there is room for weights, counts and thresholds below 2^180 together.
pub(super) type Units = Signed<2304, 36>;
type Magnitude = Uint<2304, 36>;

/// A finite double in units.
pub(super) fn units(value: f64) -> Units {
    let bits = value.to_bits();
    let (exponent, fraction) = (bits >> 52 & 0x7ff, bits & ((1 << 52) - 1));
    // value = mantissa × 2^(exponent − 1075); the smallest doubles have the exponent 1 and no leading bit.
    let (mantissa, exponent) = if exponent == 0 { (fraction, 1) } else { (fraction | 1 << 52, exponent as usize) };
    let magnitude = Units::from_raw(Magnitude::from(mantissa) << (exponent + 1));
    if bits >> 63 == 1 { -magnitude } else { magnitude }
}

/// The double nearest to `sum / count`; `count` is not 0 and the mean is no larger than all doubles.
pub(super) fn mean(sum: Units, count: u64) -> f64 {
    let (magnitude, count) = (sum.unsigned_abs(), Magnitude::from(count));
    let bits = (magnitude / count).bit_len();
    // Of the quotient 53 bits stay, and nothing below 2^-1074, which is 4 units.
    let dropped = bits.saturating_sub(53).max(2);
    let divisor = count << dropped;
    let (quotient, rest) = magnitude.div_rem(divisor);
    let mut mantissa: u64 = quotient.saturating_to();
    let twice = rest << 1usize;
    if twice > divisor || (twice == divisor && mantissa & 1 == 1) {
        mantissa += 1;
    }
    let mut exponent = dropped as u64 - 1;
    if mantissa == 1 << 53 {
        (mantissa, exponent) = (1 << 52, exponent + 1);
    }
    let bits = if mantissa >> 52 == 1 { exponent << 52 | (mantissa & ((1 << 52) - 1)) } else { mantissa };
    if sum.is_negative() { -f64::from_bits(bits) } else { f64::from_bits(bits) }
}

/// The middle of an ascending list that is not empty; of an even number, half the sum of the two in the middle.
pub(super) fn middle(ascending: &[Units]) -> Units {
    let half = ascending.len() / 2;
    match ascending.len() % 2 {
        1 => ascending[half],
        // Both are multiples of 2 units at least: the half is exact.
        _ => (ascending[half - 1] + ascending[half]).asr(1),
    }
}

#[cfg(test)]
mod tests {
    use super::{mean, units};

    #[test]
    fn doubles_come_back() {
        for value in
            [0.0, 1.0, -1.5, 5e-324, -2.2250738585072014e-308, f64::MAX, f64::MIN, 0.1, 1e300, 2.225073858507201e-308]
        {
            assert_eq!(mean(units(value), 1).to_bits(), value.to_bits(), "{value}");
        }
    }

    #[test]
    fn means_are_rounded_once() {
        let of = |values: &[f64]| mean(values.iter().map(|value| units(*value)).sum(), values.len() as u64);
        // With doubles 1e16 + 1 − 1e16 is 0.
        assert_eq!(of(&[1e16, 1.0, -1e16]), 1.0 / 3.0);
        assert_eq!(of(&[f64::MAX, f64::MAX]), f64::MAX);
        // Half of the smallest double is as near to 0 as to the double: the even one is 0.
        assert_eq!(of(&[5e-324, 0.0]), 0.0);
        assert_eq!(of(&[5e-324, 1e-323]), 1e-323);
        assert_eq!(of(&[1.0, 1.0 + f64::EPSILON]), 1.0);
        assert_eq!(of(&[1.0 + f64::EPSILON, 1.0 + 2.0 * f64::EPSILON]), 1.0 + 2.0 * f64::EPSILON);
        assert_eq!(of(&[-1.0, -2.0, -4.0]), -7.0 / 3.0);
    }
}
