//! What is read of the record, as JSON: the same over HTTP, NATS and on the command line.

use prost::Message as _;
use serde::Serialize;
use serde_json::{Value, json};
use tribunal_events::{DealId, EventKind, proto};

use crate::{
    import::view::imported,
    replay::ReplayFault,
    store::{Record, Store},
    view::{self, DealSummary},
};

/// A page of deals.
#[derive(Debug, Serialize)]
pub struct DealsPage {
    /// Newest first.
    pub deals: Vec<DealSummary>,
    /// Deals in all.
    pub total: usize,
    /// Where the next page begins, if there is one.
    pub next_offset: Option<usize>,
    /// The log position that this is as of.
    pub log_position: u64,
}

/// Deals, the one that changed last first; with `at`, as they stood when the log had that many records.
///
/// # Errors
/// Where the store cannot be read.
pub fn deals(store: &Store, offset: usize, limit: usize, at: Option<u64>) -> Result<DealsPage, ReplayFault> {
    let log_position = at.unwrap_or(u64::MAX).min(store.last_position());
    let (total, deals) = if at.is_some_and(|at| at < store.last_position()) {
        // How a deal stood in the past only its stream tells.
        let mut all = view::deals(store, at)?;
        all.sort_by_key(|deal| std::cmp::Reverse(deal.last_position));
        (all.len(), all.into_iter().skip(offset).take(limit).collect())
    } else {
        let mut heads = Vec::new();
        for entry in store.deals() {
            let (deal_id, head) = entry?;
            heads.push((head.last_position, deal_id));
        }
        heads.sort_unstable_by(|a, b| b.cmp(a));
        let mut page: Vec<DealSummary> = Vec::new();
        for (_, deal_id) in heads.iter().skip(offset).take(limit) {
            page.extend(view::summary_until(store, deal_id, at)?);
        }
        (heads.len(), page)
    };
    let end = offset.saturating_add(limit);
    Ok(DealsPage { deals, total, next_offset: (end < total).then_some(end), log_position })
}

/// A vote that was given or revealed in a dispute.
#[derive(Clone, Debug, Serialize)]
pub struct VoteView {
    /// Place in the log.
    pub position: u64,
    /// Who voted.
    pub mediator: String,
    /// In which round, from 0.
    pub round: u32,
    /// valid, invalid, inconclusive.
    pub verdict: &'static str,
    /// Stable code.
    pub reason_code: String,
    /// Digest of the verdict.
    pub digest: String,
    /// The verdict in full, if it was published and is JSON.
    pub report: Option<Value>,
}

/// The votes of a deal's disputes, in order of the log.
///
/// # Errors
/// Where the store cannot be read.
pub fn votes(store: &Store, deal_id: &DealId, at: Option<u64>) -> Result<Vec<VoteView>, ReplayFault> {
    let mut votes = Vec::new();
    for record in store.stream(deal_id, 1) {
        let record = record?;
        let position = record.position;
        if at.is_some_and(|at| position > at) {
            break;
        }
        let parsed = record.envelope.parse().map_err(|source| ReplayFault::Decode { position, source })?;
        if let EventKind::VoteRevealed { vote, .. } | EventKind::VerdictGiven { vote } = parsed.into_kind() {
            votes.push(VoteView {
                position,
                mediator: format!("{:#x}", record.signer),
                round: vote.round,
                verdict: vote.verdict.word(),
                reason_code: vote.reason_code,
                digest: format!("blake3:{}", hex::encode(vote.digest)),
                report: serde_json::from_str(&vote.report_json).ok(),
            });
        }
    }
    Ok(votes)
}

/// All about a deal; nothing where there is none.
///
/// # Errors
/// Where the store cannot be read.
pub fn deal(store: &Store, deal_id: &DealId, at: Option<u64>) -> Result<Option<Value>, ReplayFault> {
    let Some((deal, last)) = view::deal_until(store, deal_id, at)? else {
        return Ok(imported(store, deal_id, at)?.map(|it| it.json()));
    };
    let terms = deal.terms();
    let mut json = serde_json::to_value(view::summary(&deal, last.position, last.recorded_at))
        .expect("a summary has only text keys");
    json["operator"] = format!("{:#x}", terms.operator).into();
    json["terms_hash"] = format!("{:#x}", terms.hash()).into();
    json["chain_id"] = terms.domain().chain_id().into();
    json["contract"] = format!("{:#x}", terms.domain().contract()).into();
    json["link"] = last.link.to_string().into();
    json["terms"] = tribunal_events::json::to_value("Terms", terms.message());
    json["timeline"] = json!(view::timeline(store, deal_id, at)?);
    json["votes"] = json!(votes(store, deal_id, at)?);
    Ok(Some(json))
}

/// A record: where it is, who signed it, the signed bytes, and the event in them for readers.
pub fn record(record: &Record) -> Value {
    let event = proto::Event::decode(record.envelope.event()).ok();
    let kind = record.envelope.clone().parse().map_or("unknown", |parsed| parsed.kind_name());
    json!({
        "position": record.position,
        "version": record.version,
        "deal_id": record.deal_id,
        "event_id": record.event_id,
        "kind": kind,
        "recorded_at": record.recorded_at.to_string(),
        "recorded_at_us": record.recorded_at.us().to_string(),
        "signer": format!("{:#x}", record.signer),
        "previous": record.previous,
        "link": record.link,
        "envelope": tribunal_events::json::to_value("Envelope", &record.envelope.message()),
        "event": event.map(|event| tribunal_events::json::to_value("Event", &event)),
    })
}

/// Bytes of events in one answer, about.
const EVENTS_BYTES_MAX: usize = 4 << 20;

/// The records of a deal from a version on; nothing where there is no such deal.
///
/// # Errors
/// Where the store cannot be read.
pub fn events(
    store: &Store,
    deal_id: &DealId,
    from: u64,
    limit: usize,
    at: Option<u64>,
) -> Result<Option<Value>, ReplayFault> {
    if store.head(deal_id)?.is_none() {
        return Ok(None);
    }
    let (mut events, mut next, mut bytes) = (Vec::new(), None, 0);
    for found in store.stream(deal_id, from) {
        let found = found?;
        if at.is_some_and(|at| found.position > at) {
            break;
        }
        if events.len() >= limit || bytes > EVENTS_BYTES_MAX {
            next = Some(found.version);
            break;
        }
        bytes += found.envelope.event().len() * 3;
        events.push(record(&found));
    }
    Ok(Some(json!({ "deal_id": deal_id, "events": events, "next_version": next })))
}
