//! The NATS micro service `tribunal`: `tribunal.{verify, deal, audit, bundle, checkpoint, proof}`.
//!
//! Requests are JSON; `verify` also takes protobuf (`tribunal.v1.VerificationRequest`, `Content-Type: application/x-protobuf`)
//! and answers then in kind. Errors come as NATS micro defines them: `Nats-Service-Error-Code` (as in HTTP) and
//! `Nats-Service-Error`, which begins with a stable code and a colon.
//!
//! A `verify` request may say how long its sender waits (`Tribunal-Timeout-Ms`): the answer is `deadline` then, and the job
//! is not run any longer. A message with the header `Tribunal-Cancel: <request_id>` in the place of a request ends that one
//! wherever it runs; its sender gets `cancelled`. Who knows a request's id may cancel it: choose one that nobody guesses.
//!
//! Of engines that share the deals each answers `tribunal.partition.<index>.<endpoint>`; a question that names a deal is
//! passed on to the engine that keeps it, whichever was asked.

mod protobuf;

use std::{sync::Arc, time::Duration};

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
    bus::BusPartition,
    http::{HEADER_CANCEL, HEADER_TIMEOUT, HttpState, Problem, read, timeout},
    log::{self, Wanted},
};

/// Requests under way at most; more are turned away at once.
const REQUESTS_MAX: usize = 128;
/// Bytes of an error's text at most: it travels in a header.
const ERROR_BYTES_MAX: usize = 512;
/// Where every instance hears that a request is not wanted any more: its id.
const CANCEL_SUBJECT: &str = "cancel.verify";
/// How long another engine may take for what is passed on to it, unless the request says.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(900);

const ENDPOINTS: [(&str, &str); 6] = [
    ("verify", "a verification request as JSON or protobuf; the signed verdict comes back"),
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

/// Serves until cancelled, and then finishes what is under way. `partition` is the share of the deals that is kept here.
///
/// # Errors
/// Where the service cannot be registered.
pub async fn serve(
    client: async_nats::Client,
    state: HttpState,
    partition: Option<BusPartition>,
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
        let about = || [("takes".to_owned(), takes.to_owned())].into();
        let endpoint = group.endpoint_builder().name(name).metadata(about()).add(name).await.map_err(fault)?;
        endpoints.push(endpoint.map(move |request| (name, true, request)).boxed());
        if let Some(own) = partition {
            let subject = format!("partition.{}.{name}", own.index());
            let named = format!("{name}-{}", own.index());
            let endpoint = group.endpoint_builder().name(named).metadata(about()).add(subject).await.map_err(fault)?;
            endpoints.push(endpoint.map(move |request| (name, false, request)).boxed());
        }
    }
    let mut cancelled = client.subscribe(CANCEL_SUBJECT).await.map_err(|error| ServiceFault(error.to_string()))?;
    tracing::info!(subjects = "tribunal.{verify,deal,audit,bundle,checkpoint,proof}", "the NATS service answers");
    let mut requests = select_all(endpoints);
    let (places, tasks) = (Arc::new(Semaphore::new(REQUESTS_MAX)), TaskTracker::new());
    loop {
        let next = tokio::select! {
            () = cancel.cancelled() => break,
            next = requests.next() => next,
            word = cancelled.next() => {
                if let Some(request_id) = word.as_ref().and_then(|word| std::str::from_utf8(&word.payload).ok()) {
                    state.reporter().cancel(request_id);
                }
                continue;
            }
        };
        let Some((name, public, request)) = next else { break };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            respond(&client, request, Err(error(503, "busy", "too many requests are under way; ask again later")))
                .await;
            continue;
        };
        let (client, state) = (client.clone(), state.clone());
        tasks.spawn(async move {
            let _held = place;
            let elsewhere = partition.filter(|_| public).and_then(|own| {
                let other = own.of(&named_deal(name, &request)?);
                (other != own.index()).then_some(other)
            });
            let answer = match elsewhere {
                Some(other) => forward(&client, other, name, &request).await,
                None => answer(&client, &state, name, &request).await,
            };
            respond(&client, request, answer).await;
        });
    }
    tasks.close();
    tasks.wait().await;
    service.stop().await.map_err(fault)
}

/// The deal that a request is about, if it names one.
fn named_deal(name: &str, request: &Request) -> Option<DealId> {
    #[derive(Deserialize)]
    struct Named {
        deal_id: DealId,
    }
    let payload = &request.message.payload;
    match name {
        "verify" if is_protobuf(&media_type(request.message.headers.as_ref())) => {
            protobuf::deal_id(payload)?.parse().ok()
        }
        "verify" | "proof" => serde_json::from_slice::<Named>(payload).ok().map(|named| named.deal_id),
        "deal" | "audit" | "bundle" => deal_id(payload).ok(),
        _ => None,
    }
}

/// Asks the engine that keeps the deal.
async fn forward(client: &async_nats::Client, index: u32, name: &str, request: &Request) -> Result<Answer, Error> {
    let message = &request.message;
    let within = timeout_of(message.headers.as_ref())?.unwrap_or(FORWARD_TIMEOUT);
    let mut asked = async_nats::Request::new().payload(message.payload.clone()).timeout(Some(within));
    if let Some(headers) = &message.headers {
        asked = asked.headers(headers.clone());
    }
    let answer = client.send_request(format!("tribunal.partition.{index}.{name}"), asked).await;
    let answer = answer.map_err(|fault| {
        error(503, "partition-away", &format!("the deal is kept by partition {index}, which does not answer: {fault}"))
    })?;
    let header = |name: &str| Some(answer.headers.as_ref()?.get(name)?.as_str().to_owned());
    if let Some(status) = header("Nats-Service-Error") {
        let code = header("Nats-Service-Error-Code").and_then(|code| code.parse().ok()).unwrap_or(500);
        return Err(Error { code, status });
    }
    Ok(Answer { bytes: answer.payload, content_type: header("Content-Type") })
}

/// What is sent back.
struct Answer {
    bytes: Bytes,
    content_type: Option<String>,
}

impl From<Bytes> for Answer {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, content_type: None }
    }
}

fn is_protobuf(media_type: &str) -> bool {
    matches!(media_type, "application/x-protobuf" | "application/protobuf")
}

fn timeout_of(headers: Option<&HeaderMap>) -> Result<Option<Duration>, Error> {
    let value = headers.and_then(|headers| headers.get(HEADER_TIMEOUT)).map(|value| value.as_str());
    timeout(value).map_err(|problem| error(400, "bad-request", &problem))
}

async fn verify(
    client: &async_nats::Client,
    state: &HttpState,
    message: &async_nats::Message,
    media_type: &str,
) -> Result<Answer, Error> {
    let headers = message.headers.as_ref();
    if let Some(request_id) = headers.and_then(|headers| headers.get(HEADER_CANCEL)) {
        // Whoever runs it hears this, we among them.
        let told = client.publish(CANCEL_SUBJECT, request_id.as_str().to_owned().into()).await;
        told.map_err(|fault| error(503, "bus", &fault.to_string()))?;
        return Ok(Bytes::from(serde_json::json!({ "request_id": request_id.as_str() }).to_string()).into());
    }
    let within = timeout_of(headers)?;
    let bad = |detail: String| error(400, "bad-request", &detail);
    let text = match is_protobuf(media_type) {
        true => protobuf::request_json(&message.payload).map_err(bad)?,
        false => message.payload.to_vec(),
    };
    let verdict = state.reporter().verify_within(text, within).await;
    let verdict = verdict.map_err(|fault| from_problem(&Problem::from(fault)))?;
    if is_protobuf(media_type) {
        let bytes = protobuf::verdict_bytes(&verdict).map_err(|detail| error(500, "internal", &detail))?;
        return Ok(Answer { bytes: bytes.into(), content_type: Some("application/x-protobuf".into()) });
    }
    Ok(Bytes::from(verdict.to_string()).into())
}

async fn answer(
    client: &async_nats::Client,
    state: &HttpState,
    name: &str,
    request: &Request,
) -> Result<Answer, Error> {
    let message = &request.message;
    let kind = media_type(message.headers.as_ref());
    match kind.as_str() {
        "" | "application/json" | "text/plain" => {}
        kind if name == "verify" && is_protobuf(kind) => {}
        other => {
            let known =
                if name == "verify" { "application/json or application/x-protobuf" } else { "application/json" };
            return Err(error(415, "media-type", &format!("requests are {known}, not {other}")));
        }
    }
    if name == "verify" {
        return verify(client, state, message, &kind).await;
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
        return found.await.map(Answer::from).map_err(|problem| from_problem(&problem));
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
    Ok(bytes.into())
}

/// Sends the answer and lets the service count it.
async fn respond(client: &async_nats::Client, request: Request, answer: Result<Answer, Error>) {
    if request.message.reply.is_none() {
        return;
    }
    let sent = match answer {
        Ok(Answer { bytes, content_type: Some(kind) }) => {
            let mut headers = HeaderMap::new();
            headers.insert("Content-Type", kind);
            request.respond_with_headers(Ok(bytes), headers).await
        }
        answer => request.respond(answer.map(|answer| answer.bytes)).await,
    };
    if let Err(fault) = sent {
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
