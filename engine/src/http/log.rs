//! The transparency log over HTTP: signed checkpoints, and proofs against them.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tribunal_events::{DealId, EventId, tlog::Evidence};

use super::{HttpState, Problem};
use crate::{
    log::{EvidenceFault, Wanted, certificates, evidence},
    store::Store,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointQuery {
    size: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InclusionQuery {
    position: Option<u64>,
    event_id: Option<EventId>,
    size: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsistencyQuery {
    from: u64,
    to: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeadQuery {
    deal_id: DealId,
}

impl From<EvidenceFault> for Problem {
    fn from(fault: EvidenceFault) -> Self {
        match fault {
            EvidenceFault::Store(fault) => fault.into(),
            EvidenceFault::NotSigned(what) => Self::new(StatusCode::NOT_FOUND, "not-signed", what),
            EvidenceFault::Unknown(what) => Self::missing(what),
        }
    }
}

/// The newest checkpoint, or that of `size` records, as the note that was signed.
pub(super) async fn checkpoint(
    State(state): State<HttpState>,
    query: Result<Query<CheckpointQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(CheckpointQuery { size }) = query?;
    let note = state.read(move |store| note(store, size)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], note).into_response())
}

/// The note of the newest checkpoint, or of that of `size` records.
pub fn note(store: &Store, size: Option<u64>) -> Result<String, EvidenceFault> {
    let found = match size {
        Some(size) => store.checkpoint_at(size)?,
        None => store.newest_checkpoint()?,
    };
    let missing = || {
        let which = size.map_or_else(|| "no checkpoint".into(), |size| format!("no checkpoint of {size} records"));
        EvidenceFault::NotSigned(format!("{which} is signed in this log"))
    };
    found.map(|found| found.note().to_owned()).ok_or_else(missing)
}

/// The keys that signed this log, newest last, each with the operator's word on it.
pub(super) async fn keys(State(state): State<HttpState>) -> Result<Json<Value>, Problem> {
    let keys = state.read(certificates).await?;
    Ok(Json(json!({ "keys": keys })))
}

pub(super) async fn inclusion(
    State(state): State<HttpState>,
    query: Result<Query<InclusionQuery>, QueryRejection>,
) -> Result<Json<Evidence>, Problem> {
    let Query(InclusionQuery { position, event_id, size }) = query?;
    let wanted = match (position, event_id) {
        (Some(position), None) => Wanted::Position(position),
        (None, Some(event_id)) => Wanted::Event(event_id),
        _ => return Err(Problem::bad("query", "give position or event_id, one of them")),
    };
    state.read(move |store| evidence(store, wanted, size)).await.map(Json)
}

pub(super) async fn consistency(
    State(state): State<HttpState>,
    query: Result<Query<ConsistencyQuery>, QueryRejection>,
) -> Result<Json<Evidence>, Problem> {
    let Query(ConsistencyQuery { from, to }) = query?;
    state.read(move |store| evidence(store, Wanted::Growth(from), to)).await.map(Json)
}

pub(super) async fn head(
    State(state): State<HttpState>,
    query: Result<Query<HeadQuery>, QueryRejection>,
) -> Result<Json<Evidence>, Problem> {
    let Query(HeadQuery { deal_id }) = query?;
    state.read(move |store| evidence(store, Wanted::Head(deal_id), None)).await.map(Json)
}
