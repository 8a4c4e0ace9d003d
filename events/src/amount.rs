use std::{fmt, str::FromStr};

use alloy_primitives::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A sum of money in the token's base units, below 2^256. Written as a decimal string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(U256);

/// Hundredths of a percent, 0 to 10000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bps(u16);

/// The text is not a plain decimal number below 2^256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an amount is a decimal number below 2^256 without sign, point or leading zeros, not {0:?}")]
pub struct AmountError(pub String);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(U256::ZERO);

    /// `base_units` of the token.
    pub const fn new(base_units: U256) -> Self {
        Self(base_units)
    }

    /// The number of base units.
    pub const fn base_units(self) -> U256 {
        self.0
    }

    /// Sum, or nothing beyond 2^256.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Difference, or nothing below zero.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Product with a count, or nothing beyond 2^256.
    pub fn checked_mul(self, count: u64) -> Option<Self> {
        self.0.checked_mul(U256::from(count)).map(Self)
    }

    /// `self / parts`, rounded down. `parts` is not zero.
    pub fn split(self, parts: u64) -> Self {
        Self(self.0 / U256::from(parts))
    }

    /// `floor(self * bps / 10000)`; exact also where the product would not fit 256 bits.
    pub fn share(self, bps: Bps) -> Self {
        let tenthousand = U256::from(10_000u64);
        let bps = U256::from(bps.0);
        let (whole, rest) = (self.0 / tenthousand, self.0 % tenthousand);
        Self(whole * bps + rest * bps / tenthousand)
    }

    /// Whether this is nothing.
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl Bps {
    /// Hundredths of a percent; nothing above 10000.
    pub fn new(bps: u32) -> Option<Self> {
        u16::try_from(bps).ok().filter(|bps| *bps <= 10_000).map(Self)
    }

    /// 0 to 10000.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl From<u64> for Amount {
    fn from(base_units: u64) -> Self {
        Self(U256::from(base_units))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let bad = || AmountError(text.chars().take(90).collect());
        let digits = !text.is_empty() && text.len() <= 78 && text.bytes().all(|b| b.is_ascii_digit());
        if !digits || (text.len() > 1 && text.starts_with('0')) {
            return Err(bad());
        }
        U256::from_str_radix(text, 10).map(Self).map_err(|_| bad())
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
