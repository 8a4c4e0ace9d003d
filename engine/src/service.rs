//! The NATS micro service `tribunal`: `tribunal.verify`, `tribunal.deal`, `tribunal.audit`, `tribunal.bundle`.
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
use tribunal_events::DealId;

use crate::{
    audit::{AuditOptions, Scope, audit},
    http::{HttpState, Problem, read},
};

/// Requests under way at most; more are turned away at once.
const REQUESTS_MAX: usize = 128;
/// Bytes of an error's text at most: it travels in a header.
const ERROR_BYTES_MAX: usize = 512;

const ENDPOINTS: [(&str, &str); 4] = [
    ("verify", "a verification request as JSON; the signed verdict comes back"),
    ("deal", "a deal id, as text or {\"deal_id\": \"0x…\"}; all about the deal comes back"),
    ("audit", "a deal id; what an audit of its records finds comes back"),
    ("bundle", "a deal id; its evidence bundle comes back, as bytes"),
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
    tracing::info!(subjects = "tribunal.{verify,deal,audit,bundle}", "the NATS service answers");
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
