//! Events in, and the stream of recorded events out.

use std::{
    collections::VecDeque,
    convert::Infallible,
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::Bytes,
    extract::{
        Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tribunal_events::{DealId, Envelope};

use super::{HttpState, Problem, deal_id, media_type, read};
use crate::{
    store::StoreFault,
    submit::{Answer, Operators, Patience, SendFault, send},
};

/// Envelopes in one request at most.
const ENVELOPES_MAX: usize = 256;
/// For all envelopes of one request together; within the time that a request may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(50);
/// Records that a stream of events reads at once, at most.
const CHUNK_RECORDS: usize = 512;
/// Bytes of event that a stream of events reads at once, about.
const CHUNK_BYTES: usize = 1 << 20;

/// Takes one envelope or several, and answers with their signed receipts.
pub(super) async fn post(
    State(state): State<HttpState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    authorize(&state, &headers)?;
    let kind = media_type(&headers)?;
    let body = body?;
    let envelopes = envelopes(&kind, &body)?;
    let operators = Operators::given(Some(state.0.operator));
    let end = Instant::now() + SEND_TIMEOUT;
    let mut answers: Vec<Answer> = Vec::new();
    // One after the other: an event often needs the one before.
    for envelope in &envelopes {
        let left = end.saturating_duration_since(Instant::now());
        let patience = Patience { total: state.0.patience.total.min(left), ..state.0.patience };
        match send(state.0.bus.as_ref(), envelope, &operators, patience).await {
            Ok(answer) => answers.push(answer),
            Err(fault) => {
                let (status, code) = match &fault {
                    SendFault::NoReceipt(_) => (StatusCode::GATEWAY_TIMEOUT, "no-receipt"),
                    SendFault::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
                    SendFault::Bus(_) | SendFault::Service(_) => (StatusCode::SERVICE_UNAVAILABLE, "bus"),
                };
                let detail = format!("event {} of {}: {fault}", answers.len() + 1, envelopes.len());
                return Err(Problem::new(status, code, detail).with("receipts", receipts(&answers)));
            }
        }
    }
    let refused: Vec<_> = answers.iter().filter(|answer| !answer.is_recorded()).collect();
    let Some(first) = refused.first() else {
        return Ok(Json(json!({ "receipts": receipts(&answers) })).into_response());
    };
    let in_its_turn = refused.iter().all(|answer| may_be_admitted_later(&answer.receipt.reason_code));
    let status = if in_its_turn { StatusCode::CONFLICT } else { StatusCode::UNPROCESSABLE_ENTITY };
    let detail = match refused.len() {
        1 => first.receipt.reason.clone(),
        count => format!("{count} of {} events are refused, the first: {}", answers.len(), first.receipt.reason),
    };
    Err(Problem::new(status, "refused", detail)
        .with("reason_code", first.receipt.reason_code.as_str())
        .with("receipts", receipts(&answers)))
}

fn receipts(answers: &[Answer]) -> Vec<serde_json::Value> {
    answers.iter().map(Answer::to_json).collect()
}

/// Whether the same bytes may be admitted in another state of the deal.
fn may_be_admitted_later(code: &str) -> bool {
    matches!(
        code,
        "unknown-deal"
            | "already-proposed"
            | "wrong-state"
            | "too-late"
            | "too-early"
            | "not-funded"
            | "equivocation"
            | "not-on-panel"
            | "wrong-round"
            | "spoken-already"
            | "not-committed"
            | "already-requested"
            | "not-requested"
            | "withheld-unattested"
    )
}

fn authorize(state: &HttpState, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(expected) = &state.0.token else { return Ok(()) };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    // Hashes are compared in constant time.
    if given.is_some_and(|token| blake3::hash(token.as_bytes()) == *expected) {
        return Ok(());
    }
    let detail = "writing needs the header Authorization: Bearer TOKEN";
    Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail))
}

fn envelopes(kind: &str, body: &[u8]) -> Result<Vec<Envelope>, Problem> {
    let parts: Vec<&[u8]> = match kind {
        "application/json" => vec![body.trim_ascii()],
        "application/x-ndjson" | "application/jsonl" | "application/json-lines" => {
            body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect()
        }
        "application/x-protobuf" | "application/protobuf" => vec![body],
        other => {
            let detail = format!(
                "events come as application/json (one envelope), application/x-ndjson (one a line) or \
                 application/x-protobuf (one envelope), not as {other:?}"
            );
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail));
        }
    };
    if parts.is_empty() {
        return Err(Problem::bad("malformed", "the body holds no envelope"));
    }
    if parts.len() > ENVELOPES_MAX {
        let detail = format!("at most {ENVELOPES_MAX} envelopes at once, not {}", parts.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "oversized", detail));
    }
    let json = kind != "application/x-protobuf" && kind != "application/protobuf";
    let mut envelopes = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        if json && part.first() != Some(&b'{') {
            let detail = format!("envelope {}: a JSON object was expected", index + 1);
            return Err(Problem::bad("malformed", detail).with("envelope", index + 1));
        }
        let decoded = Envelope::decode(part).and_then(|envelope| envelope.clone().parse().map(|_| envelope));
        envelopes.push(decoded.map_err(|error| {
            let detail = format!("envelope {}: {error}", index + 1);
            Problem::bad(error.code(), detail).with("envelope", index + 1)
        })?);
    }
    Ok(envelopes)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamQuery {
    after: Option<u64>,
    deal: Option<String>,
}

/// Recorded events as server-sent events; the id of each is its log position.
pub(super) async fn stream(
    State(state): State<HttpState>,
    headers: HeaderMap,
    query: Result<Query<StreamQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    // Before the end of the log is read, so that nothing falls in between.
    let recorded = state.0.recorded.subscribe();
    let last = state.store().last_position();
    let resumed = match headers.get("Last-Event-ID") {
        None => query.after,
        Some(value) => {
            let position = value.to_str().ok().and_then(|text| text.trim().parse().ok());
            Some(position.ok_or_else(|| Problem::bad("last-event-id", "Last-Event-ID is a log position"))?)
        }
    };
    let after = resumed.unwrap_or(last);
    if after > last {
        let detail = format!("the log ends at position {last}, before {after}: is this another record?");
        return Err(Problem::bad("last-event-id", detail).with("log_position", last));
    }
    let deal = query.deal.as_deref().map(deal_id).transpose()?;
    let Ok(permit) = std::sync::Arc::clone(&state.0.streams).try_acquire_owned() else {
        let detail = "too many streams are open; ask again later";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail));
    };
    let tail = Tail { state, next: after + 1, read: VecDeque::new(), recorded, deal, _permit: permit };
    let stream = futures::stream::unfold(tail, Tail::step);
    let alive = KeepAlive::new().interval(Duration::from_secs(15)).text("");
    let mut response = Sse::new(stream).keep_alive(alive).into_response();
    response.headers_mut().insert("X-Accel-Buffering", header::HeaderValue::from_static("no"));
    Ok(response)
}

/// A reader that follows the log. What it sends always comes from the store; the channel only wakes it.
struct Tail {
    state: HttpState,
    next: u64,
    read: VecDeque<Event>,
    recorded: broadcast::Receiver<u64>,
    deal: Option<DealId>,
    _permit: OwnedSemaphorePermit,
}

impl Tail {
    async fn step(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if self.state.0.closing.is_cancelled() {
                return None;
            }
            if let Some(event) = self.read.pop_front() {
                return Some((Ok(event), self));
            }
            if self.next <= self.state.store().last_position() {
                self.fill().await?;
                continue;
            }
            tokio::select! {
                () = self.state.0.closing.cancelled() => return None,
                woken = self.recorded.recv() => match woken {
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            }
        }
    }

    /// Reads on from the store; nothing where it cannot be read.
    async fn fill(&mut self) -> Option<()> {
        let (from, deal) = (self.next, self.deal);
        let chunk = self.state.read(move |store| {
            let (mut events, mut next, mut bytes) = (VecDeque::new(), from, 0);
            for record in store.log(from).take(CHUNK_RECORDS) {
                let record = record?;
                next = record.position + 1;
                if deal.is_none_or(|deal| deal == record.deal_id) {
                    bytes += record.envelope.event().len();
                    let data = read::record(&record).to_string();
                    events.push_back(Event::default().id(record.position.to_string()).event("recorded").data(data));
                }
                if bytes > CHUNK_BYTES {
                    break;
                }
            }
            Ok::<_, StoreFault>((events, next))
        });
        let (events, next) = chunk.await.ok()?;
        (self.read, self.next) = (events, next);
        Some(())
    }
}
