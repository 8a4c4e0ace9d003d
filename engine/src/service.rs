//! The NATS micro service `tribunal`: `tribunal.{verify, deal, audit, bundle, checkpoint, proof}`.
//!
//! Requests are JSON. Errors come as NATS micro defines them: `Nats-Service-Error-Code` (as in HTTP) and
//! `Nats-Service-Error`, which begins with a stable code and a colon.

use std::sync::Arc;

use async_nats::{
    HeaderMap,
    service::{Request, ServiceExt as _, error::Error},
};
use futures::{StreamExt, stream::select_all};
use prost::bytes::Bytes;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tribunal_events::{DealId, EventId};

use crate::{
    audit::{AuditOptions, Scope, audit},
    http::{HttpState, Problem, read},
    log::{self, Wanted},
};

/// Requests under way at most; more are turned away at once.
const REQUESTS_MAX: usize = 128;
/// Bytes of an error's text at most: it travels in a header.
const ERROR_BYTES_MAX: usize = 512;

const ENDPOINTS: [(&str, &str); 6] = [
    ("verify", "a verification request as JSON; the signed verdict comes back"),
    ("deal", "a deal id, as text or {\"deal_id\": \"0x…\"}; all about the deal comes back"),
    ("audit", "a deal id; what an audit of its records finds comes back"),
    ("bundle", "a deal id; its evidence bundle comes back, as bytes"),
    ("checkpoint", "nothing, or {\"size\": N}; the newest signed checkpoint comes back, or that of N records"),
    (
        "proof",
        "{\"position\": N}, {\"event_id\": \"0x…\"}, {\"deal_id\": \"0x…\"} or {\"from\": N}, with \"size\": N or without",
    ),
];

/// The service could not start.
#[derive(Debug, thiserror::Error)]
#[error("the NATS service could not start: {0}")]
pub struct ServiceFault(String);

/// Serves until cancelled, and then finishes what is under way.
///
/// # Errors
/// Where the service cannot be registered.
pub async fn serve(
    client: async_nats::Client,
    state: HttpState,
    cancel: CancellationToken,
) -> Result<(), ServiceFault> {
    let fault = |error: async_nats::Error| ServiceFault(error.to_string());
    let service = client
        .service_builder()
        .description("Mediation and verification for compute markets")
        .start("tribunal", env!("CARGO_PKG_VERSION"))
        .await
        .map_err(fault)?;
    let group = service.group("tribunal");
    let mut endpoints = Vec::new();
    for (name, takes) in ENDPOINTS {
        let about = [("takes".to_owned(), takes.to_owned())].into();
        let endpoint = group.endpoint_builder().name(name).metadata(about).add(name).await.map_err(fault)?;
        endpoints.push(endpoint.map(move |request| (name, request)));
    }
    tracing::info!(subjects = "tribunal.{verify,deal,audit,bundle,checkpoint,proof}", "the NATS service answers");
    let mut requests = select_all(endpoints);
    let (places, tasks) = (Arc::new(Semaphore::new(REQUESTS_MAX)), TaskTracker::new());
    loop {
        let next = tokio::select! {
            () = cancel.cancelled() => break,
            next = requests.next() => next,
        };
        let Some((name, request)) = next else { break };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            respond(&client, request, Err(error(503, "busy", "too many requests are under way; ask again later")))
                .await;
            continue;
        };
        let (client, state) = (client.clone(), state.clone());
        tasks.spawn(async move {
            let _held = place;
            let answer = answer(&client, &state, name, &request).await;
            respond(&client, request, answer).await;
        });
    }
    tasks.close();
    tasks.wait().await;
    service.stop().await.map_err(fault)
}

async fn answer(client: &async_nats::Client, state: &HttpState, name: &str, request: &Request) -> Result<Bytes, Error> {
    let message = &request.message;
    match media_type(message.headers.as_ref()).as_str() {
        "" | "application/json" | "text/plain" => {}
        "application/x-protobuf" | "application/protobuf" => {
            return Err(error(415, "media-type", "requests are JSON for now; protobuf comes later"));
        }
        other => return Err(error(415, "media-type", &format!("requests are application/json, not {other}"))),
    }
    if name == "verify" {
        let verdict = state.reporter().verify(message.payload.to_vec()).await;
        let verdict = verdict.map_err(|fault| from_problem(&Problem::from(fault)))?;
        return Ok(verdict.to_string().into());
    }
    if let "checkpoint" | "proof" = name {
        let asked = LogRequest::read(&message.payload)?;
        let wanted = if name == "proof" { Some(asked.wanted()?) } else { None };
        let found = state.read(move |store| -> Result<_, Problem> {
            let Some(wanted) = wanted else {
                return Ok(Bytes::from(log::signed(store, asked.size)?.note().to_owned()));
            };
            let evidence = log::evidence(store, wanted, asked.size)?;
            serde_json::to_vec(&evidence).map(Bytes::from).map_err(|fault| Problem::internal(&fault))
        });
        return found.await.map_err(|problem| from_problem(&problem));
    }
    let id = deal_id(&message.payload)?;
    let artifacts = Arc::clone(state.artifacts());
    let found = match name {
        "deal" => {
            state
                .read(move |store| {
                    read::deal(store, &id, None).map(|deal| deal.map(|deal| Bytes::from(deal.to_string())))
                })
                .await
        }
        "audit" => {
            state
                .read(move |store| -> Result<_, Problem> {
                    if store.head(&id)?.is_none() {
                        return Ok(None);
                    }
                    let options = AuditOptions::default();
                    let report = audit(store, Scope::Deals(vec![id]), options)?;
                    let json = serde_json::to_vec(&report).map_err(|fault| Problem::internal(&fault))?;
                    Ok(Some(Bytes::from(json)))
                })
                .await
        }
        _ => {
            state
                .read(move |store| -> Result<_, Problem> {
                    if store.head(&id)?.is_none() {
                        return Ok(None);
                    }
                    let bundle = crate::bundle::export(store, &id, Some(artifacts.as_ref()));
                    bundle.map(|bytes| Some(Bytes::from(bytes))).map_err(|fault| Problem::internal(&fault))
                })
                .await
        }
    };
    let bytes = found.map_err(|problem| from_problem(&problem))?;
    let bytes = bytes.ok_or_else(|| error(404, "not-found", &format!("no deal {id} is recorded here")))?;
    // Headers and the like take some room, too.
    let most = client.max_payload().saturating_sub(1024);
    if bytes.len() > most {
        let detail = format!("the answer has {} bytes, more than this server carries; ask over HTTP", bytes.len());
        return Err(error(413, "oversized", &detail));
    }
    Ok(bytes)
}

/// Sends the answer and lets the service count it.
async fn respond(client: &async_nats::Client, request: Request, answer: Result<Bytes, Error>) {
    if request.message.reply.is_none() {
        return;
    }
    if let Err(fault) = request.respond(answer).await {
        tracing::warn!(%fault, connected = ?client.connection_state(), "an answer could not be sent");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DealRequest {
    deal_id: DealId,
}

/// A question about the log.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogRequest {
    position: Option<u64>,
    event_id: Option<EventId>,
    deal_id: Option<DealId>,
    from: Option<u64>,
    size: Option<u64>,
}

impl LogRequest {
    fn read(payload: &[u8]) -> Result<Self, Error> {
        if payload.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(payload).map_err(|fault| error(400, "bad-request", &fault.to_string()))
    }

    fn wanted(self) -> Result<Wanted, Error> {
        match self {
            Self { position: Some(position), event_id: None, deal_id: None, from: None, .. } => {
                Ok(Wanted::Position(position))
            }
            Self { position: None, event_id: Some(event_id), deal_id: None, from: None, .. } => {
                Ok(Wanted::Event(event_id))
            }
            Self { position: None, event_id: None, deal_id: Some(deal_id), from: None, .. } => {
                Ok(Wanted::Head(deal_id))
            }
            Self { position: None, event_id: None, deal_id: None, from: Some(from), .. } => Ok(Wanted::Growth(from)),
            _ => Err(error(400, "bad-request", "give one of position, event_id, deal_id and from")),
        }
    }
}

fn deal_id(payload: &[u8]) -> Result<DealId, Error> {
    let bad = |detail: &str| error(400, "bad-request", detail);
    let text = std::str::from_utf8(payload).map_err(|_| bad("a deal id is text"))?.trim();
    if text.starts_with('{') {
        let request: DealRequest = serde_json::from_str(text).map_err(|error| bad(&error.to_string()))?;
        return Ok(request.deal_id);
    }
    text.trim_matches('"').parse().map_err(|error: tribunal_events::IdError| bad(&error.to_string()))
}

fn media_type(headers: Option<&HeaderMap>) -> String {
    let value = headers.and_then(|headers| headers.get("Content-Type")).map_or("", |value| value.as_str());
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn from_problem(problem: &Problem) -> Error {
    let (status, detail) = problem.parts();
    error(status.as_u16(), problem.code(), detail)
}

/// An error as it stands in headers: one line, not too long.
fn error(status: u16, code: &str, detail: &str) -> Error {
    let mut text = format!("{code}: {detail}").replace(|c: char| c.is_control(), " ");
    while text.len() > ERROR_BYTES_MAX {
        text.pop();
    }
    Error { code: usize::from(status), status: text }
}
