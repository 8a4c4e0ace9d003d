//! The transparency log over HTTP: signed checkpoints, proofs against them, and the tree itself as C2SP's tlog-tiles has it
//! (`/log/checkpoint`, `/log/tile/<level>/<number>[.p/<width>]`; records are larger than its entry bundles hold).

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tribunal_events::{DealId, EventId, tlog::Evidence};

use super::{HttpState, Problem};
use crate::log::{EvidenceFault, Wanted, certificates, evidence, signed};

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
    let found = state.read(move |store| signed(store, size)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], found.note().to_owned()).into_response())
}

/// A tile of the tree: up to 256 hashes of 32 bytes.
pub(super) async fn tile(
    State(state): State<HttpState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(path) = path?;
    let Some((level, number, width)) = tile_of(&path) else {
        return Err(Problem::bad("path", "a tile is <level>/<number>[.p/<width>], the number in groups like x001/234"));
    };
    let found = state.read(move |store| store.tile(level, number, width)).await?;
    let bytes = found.ok_or_else(|| Problem::missing("the log has not grown so far"))?;
    // A tile never changes; a partial one is another file than the full one.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, bytes).into_response())
}

/// Level, number and width in the path of a tile.
fn tile_of(path: &str) -> Option<(u8, u64, usize)> {
    let (tile, width) = match path.split_once(".p/") {
        Some((tile, width)) => (tile, digits(width, 1..=3).filter(|width| (1..256).contains(width))? as usize),
        None => (path, 256),
    };
    let mut parts = tile.split('/');
    let level = digits(parts.next()?, 1..=2)?;
    let mut number = 0_u64;
    let mut groups = parts.peekable();
    groups.peek()?;
    while let Some(group) = groups.next() {
        let group = if groups.peek().is_some() { group.strip_prefix('x')? } else { group };
        number = number.checked_mul(1000)?.checked_add(digits(group, 3..=3)?)?;
    }
    Some((u8::try_from(level).ok()?, number, width))
}

fn digits(text: &str, length: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let plain = length.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
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

#[cfg(test)]
mod tests {
    use super::tile_of;

    #[test]
    fn the_path_of_a_tile_has_one_form() {
        assert_eq!(tile_of("0/000"), Some((0, 0, 256)));
        assert_eq!(tile_of("1/x001/x234/067.p/5"), Some((1, 1_234_067, 5)));
        for wrong in
            ["", "0", "0/", "0/0", "0/x000", "0/0000", "0/001/x002", "x/000", "0/000.p/0", "0/000.p/256", "256/000"]
        {
            assert_eq!(tile_of(wrong), None, "{wrong}");
        }
        assert_eq!(tile_of("0/x999/x999/x999/x999/x999/x999/x999/999"), None, "beyond 64 bits");
    }
}
