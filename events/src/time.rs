use std::fmt;

use serde::{Deserialize, Serialize};

/// A moment in microseconds since 1970-01-01 UTC. Always data that came in with a message, never read from a clock here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// `us` microseconds since 1970-01-01 UTC.
    pub const fn from_us(us: u64) -> Self {
        Self(us)
    }

    /// `s` whole seconds since 1970-01-01 UTC; saturates.
    pub const fn from_s(s: u64) -> Self {
        Self(s.saturating_mul(1_000_000))
    }

    /// Microseconds since 1970-01-01 UTC.
    pub const fn us(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970-01-01 UTC, rounded down: what a block's timestamp can say.
    pub const fn s(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The last microsecond that is still within `duration_s` of this moment when both are read in whole seconds,
    /// as a contract reads them; saturates.
    pub const fn deadline_after_s(self, duration_s: u64) -> Self {
        Self::last_us_of_s(self.s().saturating_add(duration_s))
    }

    /// The last microsecond of the unix second `s`; saturates.
    pub const fn last_us_of_s(s: u64) -> Self {
        Self(s.saturating_mul(1_000_000).saturating_add(999_999))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, to the microsecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, us) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let (days, rest) = (secs / 86_400, secs % 86_400);
        // Civil date from days since the epoch (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
        let z = days + 719_468;
        let era = z / 146_097;
        let doe = z % 146_097;
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u64::from(month <= 2);
        let (h, m, s) = (rest / 3_600, rest / 60 % 60, rest % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{us:06}Z")
    }
}
