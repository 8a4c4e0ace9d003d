//! From records back to events and deals: what loading, auditing and time travel share.

use tribunal_core::{Deal, evolve};
use tribunal_events::{DealId, DecodeError, Domain, EventKind, SignatureError, SignedEvent};

use crate::store::{Record, Store, StoreFault};

/// A record that does not say what the store says it says.
#[derive(Debug, thiserror::Error)]
pub enum ReplayFault {
    /// The store could not read it.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The bytes are no event.
    #[error("record {position}: {source}")]
    Decode {
        /// Log position.
        position: u64,
        /// What is wrong.
        source: DecodeError,
    },
    /// The signature does not hold.
    #[error("record {position}: {source}")]
    Signature {
        /// Log position.
        position: u64,
        /// What is wrong.
        source: SignatureError,
    },
    /// The record is of a deal that it does not begin.
    #[error("record {position} is the first of its deal, but no proposal")]
    NoProposal {
        /// Log position.
        position: u64,
    },
    /// The deal was imported from another marketplace: it has no fold.
    #[error("deal {deal} was imported from another marketplace and is no deal of this engine")]
    Imported {
        /// The deal.
        deal: DealId,
    },
    /// A snapshot cannot be read.
    #[error("the snapshot of deal {deal} cannot be read: {what}")]
    Snapshot {
        /// The deal.
        deal: DealId,
        /// What is wrong.
        what: String,
    },
}

/// The event of a record, with its signature checked again.
///
/// # Errors
/// Where the bytes are no event or nobody it may be signed them.
pub fn reopen(record: &Record, domain: Option<Domain>) -> Result<SignedEvent, ReplayFault> {
    let position = record.position;
    let parsed = record.envelope.clone().parse().map_err(|source| ReplayFault::Decode { position, source })?;
    let domain = match (domain, parsed.terms()) {
        (Some(domain), _) => domain,
        (None, Some(terms)) => terms.domain(),
        (None, None) => return Err(ReplayFault::NoProposal { position }),
    };
    parsed.authenticate(&domain).map_err(|source| ReplayFault::Signature { position, source })
}

/// The kind of a record whose signature was checked when it was written: for folding, which need not check again.
fn kind(record: &Record) -> Result<EventKind, ReplayFault> {
    let position = record.position;
    let parsed = record.envelope.clone().parse().map_err(|source| ReplayFault::Decode { position, source })?;
    Ok(parsed.into_kind())
}

/// Folds one record.
///
/// # Errors
/// Where the bytes are no event.
pub fn fold(deal: Option<Deal>, record: &Record) -> Result<Deal, ReplayFault> {
    let kind = kind(record)?;
    if deal.is_none() && matches!(kind, EventKind::ForeignObserved(_)) {
        return Err(ReplayFault::Imported { deal: record.deal_id });
    }
    if deal.is_none() && !matches!(kind, EventKind::Proposed { .. }) {
        return Err(ReplayFault::NoProposal { position: record.position });
    }
    Ok(evolve(deal, &kind, record.signer, record.event_id, record.recorded_at))
}

/// The deal as it stands, from its snapshot and what came after; nothing for one that was imported.
///
/// # Errors
/// Where the store cannot read it.
pub fn load(store: &Store, deal_id: &DealId) -> Result<Option<Deal>, ReplayFault> {
    load_at(store, deal_id, u64::MAX)
}

/// The deal as it stood after `version` events, from its snapshot where that is not younger.
///
/// # Errors
/// Where the store cannot read it.
pub fn load_at(store: &Store, deal_id: &DealId, version: u64) -> Result<Option<Deal>, ReplayFault> {
    let mut deal = None;
    if let Some((saved_at, bytes)) = store.snapshot(deal_id)?.filter(|(saved_at, _)| *saved_at <= version) {
        let read: Deal = serde_json::from_slice(&bytes)
            .map_err(|error| ReplayFault::Snapshot { deal: *deal_id, what: error.to_string() })?;
        if read.version() != saved_at {
            let what = format!("it is of version {}, not {saved_at}", read.version());
            return Err(ReplayFault::Snapshot { deal: *deal_id, what });
        }
        deal = Some(read);
    }
    let from = deal.as_ref().map_or(1, |deal: &Deal| deal.version() + 1);
    for record in store.stream(deal_id, from) {
        let record = record?;
        if record.version > version {
            break;
        }
        deal = match fold(deal, &record) {
            Err(ReplayFault::Imported { .. }) => return Ok(None),
            folded => Some(folded?),
        };
    }
    Ok(deal)
}
