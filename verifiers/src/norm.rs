//! Rows by their distance.
//!
//! With the metric `l2` the norm of a row is the root of the sum of its squares, added in the order of the row; with `linf` it
//! is the largest absolute value. Two rows a and b with d = ‖a − b‖ are near when d ≤ max(accept.absolute, accept.relative ×
//! max(‖a‖, ‖b‖)), far when d is above the same of `reject`, else between the bands. NaN beside NaN and an infinity beside
//! itself count as 0 in every norm; beside anything else they make the row far.
//!
//! Rows are scaled by a power of two first, so that squares neither overflow nor vanish, and only IEEE additions,
//! multiplications, square roots and comparisons are used: every machine decides alike, whichever side is which.

use tribunal_events::{Band, Metric};

use crate::{numeric::decimal, sequential::Sample};

/// What the comparator of that name asks for.
pub(crate) struct Norm {
    metric: Metric,
    accept: (f64, f64),
    reject: (f64, f64),
}

impl Norm {
    pub(crate) fn new(metric: Metric, accept: &Band, reject: &Band) -> Option<Self> {
        let band = |band: &Band| Some((decimal(&band.relative)?, decimal(&band.absolute)?));
        Some(Self { metric, accept: band(accept)?, reject: band(reject)? })
    }

    pub(crate) fn judge(&self, row: &str, own: &[f64], claimed: &[f64]) -> Sample {
        let shown = |index: usize| format!("[{index}]: expected {}, claimed {}", own[index], claimed[index]);
        let pairs = || own.iter().copied().zip(claimed.iter().copied());
        let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
        if let Some(index) = pairs().position(|(a, b)| !(same(a, b) || a.is_finite() && b.is_finite())) {
            return Sample::Far(format!("{row}{}", shown(index)));
        }
        let finite = || pairs().filter(|(a, b)| a.is_finite() && b.is_finite());
        let largest = finite().fold(0.0f64, |largest, (a, b)| largest.max(a.abs()).max(b.abs()));
        let scale = scale(largest);
        let (mut apart, mut left, mut right) = (0.0f64, 0.0f64, 0.0f64);
        for (a, b) in finite().map(|(a, b)| (a * scale, b * scale)) {
            let difference = (a - b).abs();
            match self.metric {
                Metric::L2 => {
                    apart += difference * difference;
                    left += a * a;
                    right += b * b;
                }
                Metric::Linf => {
                    apart = apart.max(difference);
                    left = left.max(a.abs());
                    right = right.max(b.abs());
                }
            }
        }
        let longer = left.max(right);
        let (apart, longer) = match self.metric {
            Metric::L2 => (apart.sqrt(), longer.sqrt()),
            Metric::Linf => (apart, longer),
        };
        let within = |(relative, absolute): (f64, f64)| apart <= absolute * scale || apart <= relative * longer;
        if pairs().all(|(a, b)| same(a, b)) {
            Sample::Same
        } else if within(self.accept) {
            Sample::Near
        } else {
            // The largest difference; of equal ones the first.
            let difference = |index: usize| (own[index] * scale - claimed[index] * scale).abs();
            let at = (0..own.len()).fold(0, |at, index| if difference(index) > difference(at) { index } else { at });
            let metric = self.metric.word();
            let what = format!("{row}: {metric} distance {}, largest at {}", apart / scale, shown(at));
            if within(self.reject) { Sample::Open(what) } else { Sample::Far(what) }
        }
    }
}

/// A power of two that brings the largest value of a row near 1, as far as doubles allow.
fn scale(largest: f64) -> f64 {
    if largest == 0.0 {
        return 1.0;
    }
    // The exponent field is 0 for the smallest doubles: they count as 2^-1022.
    let exponent = (largest.to_bits() >> 52 & 0x7ff).clamp(1, 2046);
    // 2^-(exponent − 1023), whose own field is 2046 − exponent; at least 1, so that it is no subnormal.
    f64::from_bits((2046 - exponent).max(1) << 52)
}
