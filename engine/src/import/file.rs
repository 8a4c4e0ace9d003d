//! Logs in a file: an array of `eth_getLogs` results, or an object `{"logs": […], "reads": […]}`.
//!
//! A read is what a view of the storage answered: `{"call": "getDeal" | "getResult", "dealId": "…", "answer": "0x…",
//! "blockNumber": "0x…", "blockHash": "0x…", "blockTimestamp": "0x…"}`. Block times may be missing. Fields that are not
//! named here are passed over, as nodes add their own.

use std::{fs::File, io::BufReader, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use tribunal_contracts::lilypad::history::{read_agreed, read_given};
use tribunal_events::{Address, B256, Foreign, ForeignCall, ForeignRole, ForeignSaid};

use super::{Deployment, ImportFault, Place, RawLog, log_place};

/// Bytes of a file at most.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
/// Logs and reads of a file at most.
pub const FILE_ENTRIES_MAX: usize = 200_000;

/// Reads a file as observations of a deployment, with the number of logs that are none of its business.
///
/// # Errors
/// What is wrong, and where; a file that is wrong anywhere gives nothing.
pub fn read(path: &Path, deployment: &Deployment) -> Result<(Vec<Foreign>, u64), ImportFault> {
    let shown = path.display().to_string();
    let unreadable = |source| ImportFault::Unreadable { path: shown.clone(), source };
    let file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(ImportFault::TooMuch { what: "bytes of a file", found: bytes, most: FILE_BYTES_MAX });
    }
    parse(BufReader::new(file), &shown, deployment)
}

fn parse(reader: impl std::io::Read, shown: &str, deployment: &Deployment) -> Result<(Vec<Foreign>, u64), ImportFault> {
    let malformed = |error: serde_json::Error| {
        // The limit is the only error of ours that is not about the form.
        if error.to_string().contains(TOO_MANY) {
            let most = FILE_ENTRIES_MAX as u64;
            return ImportFault::TooMuch { what: "entries of a file", found: most + 1, most };
        }
        ImportFault::Malformed { place: shown.to_owned(), problem: error.to_string() }
    };
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    let Entries { logs, reads } = Entries::deserialize(&mut deserializer).map_err(malformed)?;
    deserializer.end().map_err(malformed)?;
    let mut observations = Vec::with_capacity(logs.len() + reads.len());
    let mut ignored = 0;
    for log in logs {
        if log.removed {
            return Err(ImportFault::Removed { place: log_place(log.block, log.index) });
        }
        match deployment.observe(log.into())? {
            Some(it) => observations.push(it),
            None => ignored += 1,
        }
    }
    for read in reads {
        observations.push(read.observe(deployment)?);
    }
    Ok((observations, ignored))
}

const TOO_MANY: &str = "more entries than a file may have";

/// What a file holds.
struct Entries {
    logs: Vec<FileLog>,
    reads: Vec<FileRead>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an array of logs, or an object with logs and reads")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, entries: A) -> Result<Entries, A::Error> {
        Ok(Entries { logs: list(entries, "log")?, reads: Vec::new() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let (mut logs, mut reads) = (None, None);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "logs" if logs.is_none() => logs = Some(map.next_value::<List<FileLog>>()?.0),
                "reads" if reads.is_none() => reads = Some(map.next_value::<List<FileRead>>()?.0),
                "logs" | "reads" => return Err(A::Error::custom(format!("{name} twice"))),
                other => return Err(A::Error::custom(format!("{other:?} beside logs and reads"))),
            }
        }
        let logs = logs.ok_or_else(|| A::Error::custom("logs are missing"))?;
        Ok(Entries { logs, reads: reads.unwrap_or_default() })
    }
}

struct List<T>(Vec<T>);

impl<'de, T: Entry> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(std::marker::PhantomData<T>);
        impl<'de, T: Entry> Visitor<'de> for Items<T> {
            type Value = Vec<T>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, entries: A) -> Result<Vec<T>, A::Error> {
                list(entries, T::NAME)
            }
        }
        deserializer.deserialize_seq(Items(std::marker::PhantomData)).map(List)
    }
}

trait Entry: serde::de::DeserializeOwned {
    const NAME: &str;
}

impl Entry for FileLog {
    const NAME: &str = "log";
}

impl Entry for FileRead {
    const NAME: &str = "read";
}

/// Entries one after the other, so that a fault names its entry and no more than the limit is held.
fn list<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(mut entries: A, name: &str) -> Result<Vec<T>, A::Error> {
    let mut list = Vec::new();
    loop {
        let next = entries.next_element::<T>();
        match next.map_err(|error| A::Error::custom(format!("{name} {}: {error}", list.len() + 1)))? {
            None => return Ok(list),
            Some(_) if list.len() == FILE_ENTRIES_MAX => return Err(A::Error::custom(TOO_MANY)),
            Some(entry) => list.push(entry),
        }
    }
}

/// A log as `eth_getLogs` gives it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileLog {
    address: Address,
    topics: Vec<B256>,
    data: alloy_primitives::Bytes,
    #[serde(rename = "blockNumber", deserialize_with = "quantity")]
    block: u64,
    block_hash: B256,
    #[serde(default, deserialize_with = "optional_quantity")]
    block_timestamp: Option<u64>,
    transaction_hash: B256,
    #[serde(rename = "logIndex", deserialize_with = "quantity")]
    index: u64,
    #[serde(default)]
    removed: bool,
}

impl From<FileLog> for RawLog {
    fn from(log: FileLog) -> Self {
        Self {
            contract: log.address,
            topics: log.topics,
            data: log.data.to_vec(),
            block: log.block,
            block_hash: log.block_hash,
            block_time_s: log.block_timestamp.filter(|time| *time > 0),
            transaction: log.transaction_hash,
            index: log.index,
        }
    }
}

/// What a view answered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileRead {
    call: String,
    deal_id: String,
    answer: alloy_primitives::Bytes,
    #[serde(rename = "blockNumber", deserialize_with = "quantity")]
    block: u64,
    block_hash: B256,
    #[serde(default, deserialize_with = "optional_quantity")]
    block_timestamp: Option<u64>,
}

impl FileRead {
    fn observe(self, deployment: &Deployment) -> Result<Foreign, ImportFault> {
        let place = format!("{} of deal {:?}", self.call.chars().take(32).collect::<String>(), self.deal_id);
        let malformed = |problem: String| ImportFault::Malformed { place: place.clone(), problem };
        let call = ForeignCall::ALL.into_iter().find(|call| call.word() == self.call);
        let call = call.ok_or_else(|| malformed("a read is of getDeal or getResult".into()))?;
        answer(
            deployment,
            call,
            self.deal_id,
            self.answer.to_vec(),
            (self.block, self.block_hash, self.block_timestamp),
        )
        .map_err(malformed)?
        .ok_or_else(|| malformed("the storage knows nothing of it".into()))
    }
}

/// An answer as an observation; nothing where it says that there is nothing.
pub(super) fn answer(
    deployment: &Deployment,
    call: ForeignCall,
    deal_id: String,
    data: Vec<u8>,
    (block, block_hash, block_time_s): (u64, B256, Option<u64>),
) -> Result<Option<Foreign>, String> {
    let about = match call {
        ForeignCall::GetDeal => read_agreed(&data)?.map(|(id, _)| id),
        ForeignCall::GetResult => read_given(&data)?.map(|(id, _)| id),
    };
    let Some(about) = about else { return Ok(None) };
    if about != deal_id {
        return Err(format!("the answer is about deal {about:?}"));
    }
    let (contract, role) = (deployment.storage, ForeignRole::Storage);
    let block_time_s = block_time_s.filter(|time| *time > 0);
    let place = Place { contract, role, block, block_hash, block_time_s };
    Ok(Some(deployment.foreign(deal_id, place, ForeignSaid::Answer { call, data })))
}

/// A number as JSON-RPC writes it, `0x…`, or plain.
fn quantity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Quantity {
        Plain(u64),
        Text(String),
    }
    match Quantity::deserialize(deserializer)? {
        Quantity::Plain(number) => Ok(number),
        Quantity::Text(text) => {
            let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|it| it.is_ascii_hexdigit()));
            let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            number.ok_or_else(|| {
                D::Error::custom(format!("{:?} is no number", text.chars().take(40).collect::<String>()))
            })
        }
    }
}

fn optional_quantity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Inner(#[serde(deserialize_with = "quantity")] u64);
    Ok(Option::<Inner>::deserialize(deserializer)?.map(|it| it.0))
}
