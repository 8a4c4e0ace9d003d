//! What the sections hold.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tribunal_contracts::WitnessedTransaction;
use tribunal_events::{
    Address, B256, ChainLink, ContentAddress, DealId, EventKind,
    tlog::{Base64, LogCertificate, SignedCheckpoint},
};

use super::{
    container::{BundleFault, malformed},
    frame::decode_frame,
};
use crate::store::Record;

pub(super) const DEAL: &str = "deal.json";
pub(super) const TERMS: &str = "terms";
pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const LOG_KEY: &str = "log-key.json";
pub(super) const PROOFS: &str = "proofs.json";
const RECORD: &str = "record/";
const REPORT: &str = "report/";
const ARTIFACT: &str = "artifact/";
const RECEIPT: &str = "receipt/";

/// `deal.json`: what the file is about, for readers. Every field follows from the records, and is compared with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DealFile {
    /// The deal.
    pub deal_id: DealId,
    /// Keeps the record: draws, deadlines and settlements are its signed word.
    pub operator: Address,
    /// The chain that holds the money, 0 for none.
    pub chain_id: u64,
    /// The contract that holds the money, zero for none.
    pub contract: Address,
    /// Records in the file.
    pub records: u64,
    /// Log position of the first, as the operator's store has it.
    pub first_position: u64,
    /// Log position of the last.
    pub last_position: u64,
    /// The deal's chain after the last record.
    pub last_link: ChainLink,
    /// Artifacts that the deal names and the file does not hold, ascending.
    pub left_out: Vec<ContentAddress>,
}

/// `proofs.json`: that the records are in the log of the checkpoint, and that none of the deal's is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProofsFile {
    /// Records in that log.
    pub(super) tree_size: u64,
    /// The audit path of each record, in order of versions, sibling first.
    pub(super) inclusion: Vec<Vec<Base64>>,
    /// The siblings of the deal in the head map, from the root down.
    pub(super) head: Vec<Base64>,
}

/// What the operator's log says of the deal.
pub(super) struct Logged {
    pub(super) checkpoint: SignedCheckpoint,
    pub(super) certificate: LogCertificate,
    pub(super) proofs: ProofsFile,
}

/// Sections by what they are.
pub(super) struct Contents<'a> {
    pub(super) deal: DealFile,
    pub(super) terms: &'a [u8],
    pub(super) records: Vec<Record>,
    pub(super) reports: BTreeMap<u64, &'a [u8]>,
    pub(super) artifacts: BTreeMap<ContentAddress, &'a [u8]>,
    pub(super) logged: Option<Logged>,
    /// By transaction.
    pub(super) receipts: BTreeMap<B256, WitnessedTransaction>,
}

pub(super) fn record_name(version: u64) -> String {
    format!("{RECORD}{version:08}")
}

pub(super) fn report_name(version: u64) -> String {
    format!("{REPORT}{version:08}")
}

pub(super) fn receipt_name(transaction: &B256) -> String {
    format!("{RECEIPT}{transaction:#x}")
}

pub(super) fn artifact_name(address: &ContentAddress) -> String {
    format!("{ARTIFACT}{address}")
}

/// The published report of a vote, if this is one.
pub(super) fn report_of(kind: &EventKind) -> Option<&str> {
    match kind {
        EventKind::VoteRevealed { vote, .. } | EventKind::VerdictGiven { vote } => {
            Some(vote.report_json.as_str()).filter(|report| !report.is_empty())
        }
        _ => None,
    }
}

impl<'a> Contents<'a> {
    /// Sorts sections; none may be missing and none unknown.
    pub(super) fn read(sections: &BTreeMap<&'a str, &'a [u8]>) -> Result<Self, BundleFault> {
        let part = |name: &str| sections.get(name).copied().ok_or_else(|| malformed(name, "the section is missing"));
        let deal = json(DEAL, part(DEAL)?)?;
        let mut this = Self {
            deal,
            terms: part(TERMS)?,
            records: Vec::new(),
            reports: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            logged: Logged::read(sections)?,
            receipts: BTreeMap::new(),
        };
        for (name, body) in sections {
            if let Some(digits) = name.strip_prefix(RECORD) {
                let record = decode_frame(body).map_err(|problem| malformed(*name, problem))?;
                let expected = this.records.len() as u64 + 1;
                if number(digits) != Some(expected) {
                    return Err(malformed(*name, format!("the next record is {}", record_name(expected))));
                }
                this.records.push(record);
            } else if let Some(digits) = name.strip_prefix(REPORT) {
                let version = number(digits).ok_or_else(|| malformed(*name, "a report has a version of 8 digits"))?;
                this.reports.insert(version, body);
            } else if let Some(text) = name.strip_prefix(ARTIFACT) {
                let address =
                    text.parse().map_err(|error: tribunal_events::IdError| malformed(*name, error.to_string()))?;
                this.artifacts.insert(address, body);
            } else if let Some(text) = name.strip_prefix(RECEIPT) {
                let (hash, receipt) =
                    WitnessedTransaction::from_receipt(body).map_err(|problem| malformed(*name, problem))?;
                if text != format!("{hash:#x}") {
                    return Err(malformed(*name, format!("the receipt is of transaction {hash:#x}")));
                }
                this.receipts.insert(hash, receipt);
            } else if ![DEAL, TERMS, CHECKPOINT, LOG_KEY, PROOFS].contains(name) {
                return Err(malformed(*name, "no section of format 2 has this name"));
            }
        }
        if this.records.is_empty() {
            return Err(malformed(record_name(1), "the section is missing"));
        }
        Ok(this)
    }
}

impl Logged {
    fn read(sections: &BTreeMap<&str, &[u8]>) -> Result<Option<Self>, BundleFault> {
        let part = |name: &str| sections.get(name).copied().ok_or_else(|| malformed(name, "the section is missing"));
        if ![CHECKPOINT, LOG_KEY, PROOFS].iter().any(|name| sections.contains_key(name)) {
            return Ok(None);
        }
        let checkpoint = SignedCheckpoint::parse(part(CHECKPOINT)?);
        Ok(Some(Self {
            checkpoint: checkpoint.map_err(|error| malformed(CHECKPOINT, error.to_string()))?,
            certificate: json(LOG_KEY, part(LOG_KEY)?)?,
            proofs: json(PROOFS, part(PROOFS)?)?,
        }))
    }
}

fn json<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, BundleFault> {
    serde_json::from_slice(bytes).map_err(|error| malformed(name, error.to_string()))
}

/// A version in 8 digits.
fn number(digits: &str) -> Option<u64> {
    let plain = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

impl DealFile {
    /// What follows from records and terms.
    pub(super) fn of(
        terms: &tribunal_events::Terms,
        records: u64,
        first: &Record,
        last: &Record,
        left_out: BTreeSet<ContentAddress>,
    ) -> Self {
        Self {
            deal_id: terms.deal_id(),
            operator: terms.operator,
            chain_id: terms.domain().chain_id(),
            contract: terms.domain().contract(),
            records,
            first_position: first.position,
            last_position: last.position,
            last_link: last.link,
            left_out: left_out.into_iter().collect(),
        }
    }
}
