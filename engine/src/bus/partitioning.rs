use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tribunal_events::DealId;

/// Engines that share the deals at most.
const COUNT_MAX: u32 = 256;
/// The token that stands for a deal in the subject of messages that only carry time.
const CLOCK: &str = "clock";
const DEALS_PREFIX: &str = "deals.";

/// Which share of the deals an engine keeps: partition `index` of `count`, written `index/count`, `0/4`.
///
/// A deal belongs to the partition that nats-server's own `{{partition(count,1)}}` gives for the second token of
/// `deals.<deal id>.<kind>`: the FNV-1a hash (32 bits) of that token, modulo `count`. Its messages are on the wire as
/// `deals.<index>.<deal id>.<kind>`, put there by the server's subject mapping or by senders that know the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BusPartition {
    index: u32,
    count: u32,
}

impl BusPartition {
    /// Partition `index`, from 0, of `count`, at least 1 and at most 256.
    pub const fn new(index: u32, count: u32) -> Option<Self> {
        if index < count && count <= COUNT_MAX { Some(Self { index, count }) } else { None }
    }

    /// Its index.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// How many there are.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The partition that a deal belongs to.
    pub fn of(&self, deal_id: &DealId) -> u32 {
        self.of_token(&deal_id.to_string())
    }

    fn of_token(&self, token: &str) -> u32 {
        let hash = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        token.as_bytes().iter().fold(0x811c_9dc5, hash) % self.count
    }

    /// Name of the stream of partition `index`.
    pub(super) fn stream(base: &str, index: u32) -> String {
        format!("{base}_{index}")
    }

    /// The subjects of partition `index`.
    pub(super) fn subjects(index: u32) -> String {
        format!("{DEALS_PREFIX}{index}.>")
    }

    /// Where a message of `deals.<deal id>.<kind>` goes, and the partition; time goes to the own one. Nothing for other
    /// subjects.
    pub(super) fn wire(&self, subject: &str) -> Option<(String, u32)> {
        let (token, kind) = subject.strip_prefix(DEALS_PREFIX)?.split_once('.')?;
        let index = if token == CLOCK { self.index } else { self.of_token(token) };
        Some((format!("{DEALS_PREFIX}{index}.{token}.{kind}"), index))
    }

    /// The subject without the partition; as it stands where the message does not belong here.
    pub(super) fn logical(&self, subject: &str) -> String {
        let rest = subject.strip_prefix(DEALS_PREFIX).and_then(|rest| rest.split_once('.'));
        let inner = rest.filter(|(index, _)| index.parse() == Ok(self.index)).map(|(_, inner)| inner);
        match inner.and_then(|inner| inner.split_once('.')) {
            Some((token, kind)) if token == CLOCK || self.of_token(token) == self.index => {
                format!("{DEALS_PREFIX}{token}.{kind}")
            }
            _ => subject.to_owned(),
        }
    }
}

impl fmt::Display for BusPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for BusPartition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(index, count)| Self::new(index.parse().ok()?, count.parse().ok()?));
        parts.ok_or_else(|| {
            format!("a partition is INDEX/COUNT, 0/4 to 3/4 for four of at most {COUNT_MAX}, not {text:?}")
        })
    }
}

impl Serialize for BusPartition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BusPartition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_written_as_index_and_count() {
        let second: BusPartition = "1/4".parse().unwrap();
        assert_eq!((second.index(), second.count(), second.to_string()), (1, 4, "1/4".into()));
        for text in ["", "4/4", "1", "1/0", "-1/4", "0/257", "1/4/4"] {
            assert!(text.parse::<BusPartition>().is_err(), "{text}");
        }
    }

    /// The published test vectors of FNV-1a: "" and "a" and "foobar".
    #[test]
    fn the_hash_is_fnv_1a() {
        let whole = BusPartition { index: 0, count: u32::MAX };
        for (token, hash) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968_u32)] {
            assert_eq!(whole.of_token(token), hash);
        }
    }

    #[test]
    fn only_the_own_partition_loses_its_number() {
        let own = BusPartition::new(2, 4).unwrap();
        let token = ["0xa", "0xb", "0xc", "0xd", "0xe", "0xf"].into_iter().find(|it| own.of_token(it) == 2).unwrap();
        let subject = format!("deals.{token}.agreed");
        assert_eq!(own.wire(&subject), Some((format!("deals.2.{token}.agreed"), 2)));
        assert_eq!(own.logical(&format!("deals.2.{token}.agreed")), subject);
        assert_eq!(own.wire("deals.clock.tick"), Some(("deals.2.clock.tick".into(), 2)));
        assert_eq!(own.logical("deals.2.clock.tick"), "deals.clock.tick");
        // Somebody published it where it does not belong.
        for subject in [format!("deals.1.{token}.agreed"), subject, "receipts.a.b".into()] {
            assert_eq!(own.logical(&subject), subject);
        }
        assert_eq!(own.wire("receipts.a.b"), None);
    }
}
