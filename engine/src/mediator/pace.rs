//! How fast this machine is: how long a case is expected to take, learned from those that were judged.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tribunal_core::Deal;
use tribunal_events::Method;

/// How many times slower than its settings say a machine is taken to be at most, whatever was measured.
const SLOWER_MAX: u64 = 20;
/// A run on less fuel says nothing about a machine.
const FUEL_MEASURED_MIN: u64 = 50_000_000;
/// What is expected of a check that burns no fuel.
const PLAIN_US: u64 = 500_000;
/// What every case takes beside its job.
const OVERHEAD_US: u64 = 10_000;

/// The speed of a machine.
#[derive(Debug)]
pub struct Pace {
    /// Microseconds for 10^6 fuel, as known.
    us_per_megafuel: AtomicU64,
    /// Slower than this it is never taken to be.
    us_per_megafuel_max: u64,
}

impl Pace {
    /// A machine that is said to burn so much fuel in a second.
    pub fn new(fuel_per_s: u64) -> Self {
        let us_per_megafuel = 1_000_000 * 1_000_000 / fuel_per_s.max(1);
        let us_per_megafuel_max = SLOWER_MAX.saturating_mul(us_per_megafuel);
        Self { us_per_megafuel: AtomicU64::new(us_per_megafuel), us_per_megafuel_max }
    }

    /// How many microseconds a case is expected to take, from the fuel that is claimed.
    pub fn needed_us(&self, deal: &Deal) -> u64 {
        let Some(submission) = deal.submission() else { return PLAIN_US };
        let limits = &deal.terms().job.limits;
        match deal.terms().method {
            Method::Reexecution => {
                let fuel = submission.claim.instruction_count.min(limits.fuel);
                let us = u128::from(fuel) * u128::from(self.us_per_megafuel.load(Ordering::Relaxed)) / 1_000_000;
                let us = u64::try_from(us).unwrap_or(u64::MAX);
                us.min(limits.wall_ms.saturating_mul(1000)).saturating_add(OVERHEAD_US)
            }
            _ => PLAIN_US,
        }
    }

    /// Learns from a job that burned `fuel`; slow runs count sooner than fast ones, none of them much by itself.
    pub fn measured(&self, fuel: u64, took: Duration) {
        if fuel < FUEL_MEASURED_MIN {
            return;
        }
        let found = u64::try_from(took.as_micros() * 1_000_000 / u128::from(fuel)).unwrap_or(u64::MAX).max(1);
        let known = self.us_per_megafuel.load(Ordering::Relaxed);
        let next = if found > known { found.min(known.saturating_mul(2)) } else { known - (known - found) / 8 };
        self.us_per_megafuel.store(next.min(self.us_per_megafuel_max), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_run_says_little_and_many_say_at_most_twenty_times() {
        let pace = Pace::new(1_000_000_000);
        let known = || pace.us_per_megafuel.load(Ordering::Relaxed);
        assert_eq!(known(), 1000);
        pace.measured(1000, Duration::from_secs(1000));
        assert_eq!(known(), 1000, "too little fuel to say anything");
        pace.measured(FUEL_MEASURED_MIN, Duration::from_secs(1000));
        assert_eq!(known(), 2000);
        for _ in 0..20 {
            pace.measured(FUEL_MEASURED_MIN, Duration::from_secs(1000));
        }
        assert_eq!(known(), 20_000);
        for _ in 0..100 {
            pace.measured(FUEL_MEASURED_MIN, Duration::from_millis(50));
        }
        assert!(known() < 1100, "fast runs bring it back: {}", known());
    }
}
