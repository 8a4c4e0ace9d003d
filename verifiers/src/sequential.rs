//! How many far samples convict: a sequential probability ratio test over the samples of one result.
//!
//! A sample (a row of an array, a line, a proof) is near, far or open. Under the hypothesis "honest" at most a share h of the
//! samples is far, under "false" at least a share c; with n near and f far ones the likelihood ratio of false to honest is
//!
//! Λ = (c / h)^f × ((1 − c) / (1 − h))^n
//!
//! and the result is invalid where Λ ≥ (1 − β) / α, valid where Λ ≤ β / (1 − α), else nobody can tell yet (Wald,
//! "Sequential Tests of Statistical Hypotheses", 1945). All samples of a result are there at once, so Λ is taken over all of
//! them and their order decides nothing; by Markov's inequality the errors are then at most α / (1 − β) and β / (1 − α), as
//! Wald has them for a test that stops on the way. An open sample counts against whatever is said: as near where the result
//! would be invalid, as far where it would be valid. One far sample never convicts, whatever the error that was declared.
//!
//! Nothing is rounded towards a verdict: base-2 logarithms are integers in units of 2^-32, lower bounds where the result
//! would be invalid and upper bounds where it would be valid, found by repeated squaring of integers. So every machine says
//! the same, and a ratio within 2^-30 × samples of a boundary is no verdict.

use tribunal_events::{ComparatorProblem, SequentialTest};

use crate::comparator::Comparison;

/// One sample of two results.
pub(crate) enum Sample {
    /// Equal, without any tolerance.
    Same,
    /// In the accept band.
    Near,
    /// Between the bands; what it is.
    Open(String),
    /// In the reject band; what it is.
    Far(String),
}

/// The samples of two results, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Equal or in the accept band.
    near: u64,
    open: u64,
    far: u64,
    /// Whether any sample is not equal.
    apart: bool,
    first_far: Option<String>,
    first_open: Option<String>,
}

impl Tally {
    pub(crate) fn count(&mut self, sample: Sample) {
        self.apart |= !matches!(sample, Sample::Same);
        match sample {
            Sample::Same | Sample::Near => self.near += 1,
            Sample::Open(what) => {
                self.open += 1;
                self.first_open.get_or_insert(what);
            }
            Sample::Far(what) => {
                self.far += 1;
                self.first_far.get_or_insert(what);
            }
        }
    }

    /// Adds the samples of another file of the same result.
    pub(crate) fn add(&mut self, name: &str, other: Self) {
        self.near += other.near;
        self.open += other.open;
        self.far += other.far;
        self.apart |= other.apart;
        let named = |what: Option<String>| what.map(|what| format!("{name}: {what}"));
        self.first_far = self.first_far.take().or_else(|| named(other.first_far));
        self.first_open = self.first_open.take().or_else(|| named(other.first_open));
    }

    /// What they say together.
    pub(crate) fn decide(&self, test: &SequentialTest) -> Comparison {
        if !self.apart {
            return Comparison::Agree;
        }
        let test = match Boundaries::of(test) {
            Ok(test) => test,
            Err((field, problem)) => return Comparison::Unusable(format!("{field}: {problem}")),
        };
        let first = self.first_far.as_ref().or(self.first_open.as_ref());
        let first = first.map_or_else(String::new, |first| format!("; the first: {first}"));
        let Self { near, open, far, .. } = self;
        let counts = format!("of {} samples {near} are near, {open} between the bands, {far} far", near + open + far);
        if *far >= 2 && test.convicts(*far, near.saturating_add(*open)) {
            return Comparison::Differ(format!("{counts}{first}"));
        }
        if test.acquits(far.saturating_add(*open), *near) {
            return Comparison::Agree;
        }
        Comparison::Between(format!("{counts}: too few to tell{first}"))
    }
}

/// The test in units of 2^-32 of a base-2 logarithm.
struct Boundaries {
    /// log2(c / h): lower and upper bound.
    far: (i128, i128),
    /// log2((1 − c) / (1 − h)), below zero.
    near: (i128, i128),
    /// At least log2((1 − β) / α).
    invalid: i128,
    /// At most log2(β / (1 − α)).
    valid: i128,
}

impl Boundaries {
    fn of(test: &SequentialTest) -> Result<Self, ComparatorProblem> {
        let [alpha, beta, honest, cheat] = test.parts()?;
        let one = SequentialTest::ONE;
        Ok(Self {
            far: log2(cheat, honest),
            near: log2(one - cheat, one - honest),
            invalid: log2(one - beta, alpha).1,
            valid: log2(beta, one - alpha).0,
        })
    }

    fn convicts(&self, far: u64, near: u64) -> bool {
        i128::from(far) * self.far.0 + i128::from(near) * self.near.0 >= self.invalid
    }

    fn acquits(&self, far: u64, near: u64) -> bool {
        i128::from(far) * self.far.1 + i128::from(near) * self.near.1 <= self.valid
    }
}

/// Bounds of log2(a / b) in units of 2^-32, both numbers above zero.
fn log2(a: u64, b: u64) -> (i128, i128) {
    if a < b {
        let (low, high) = log2(b, a);
        return (-high, -low);
    }
    (
        log2_from(a, b, u128::div_euclid, |square| square >> 62),
        log2_from(a, b, u128::div_ceil, |square| square.div_ceil(1 << 62)) + 1,
    )
}

/// Bits of log2(a / b) for a ≥ b, by squaring what is left of the ratio (between 1 and 2, in units of 2^-62) once a bit.
fn log2_from(a: u64, b: u64, divide: fn(u128, u128) -> u128, shrink: fn(u128) -> u128) -> i128 {
    const TWO: u128 = 1 << 63;
    let whole = (a / b).ilog2();
    let mut rest = divide(u128::from(a) << 62, u128::from(b) << whole);
    let mut bits = i128::from(whole);
    for _ in 0..32 {
        rest = shrink(rest * rest);
        bits *= 2;
        if rest >= TWO {
            bits += 1;
            rest = divide(rest, 2);
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::log2;

    #[test]
    fn logarithms_are_bounded_from_both_sides() {
        for (a, b) in [(1, 1), (2, 1), (8, 1), (3, 1), (1, 3), (999_999_999, 1), (500_000_000, 10_000_000), (99, 100)] {
            let (low, high) = log2(a, b);
            let exact = (a as f64 / b as f64).log2() * (1u64 << 32) as f64;
            assert!(low as f64 <= exact + 1e-3 && exact <= high as f64 + 1e-3, "{a}/{b}: {low} {exact} {high}");
            assert!(high - low <= 4, "{a}/{b}: {low} {high}");
        }
        assert_eq!(log2(8, 1).0, 3 << 32);
        assert_eq!(log2(1, 8).1, -(3 << 32));
    }
}
