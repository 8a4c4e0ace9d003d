//! The HTTP API and the web page, over the store and the bus.
//!
//! Start at [`router`]; [`HttpState`] is what it answers from. Reading goes to the store alone, writing through the bus
//! like everybody's words, verification through the [`Reporter`].
//!
//! **Invariant:** nothing here writes to the store.
//! **Invariant:** every answer is bounded in time, size and number; a slow reader of events is served from the store.

mod events;
mod imported;
mod log;
mod markets;
mod mediators;
mod metrics;
mod openapi;
pub(crate) mod page;
mod problem;
pub mod read;

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, Query, Request, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, broadcast},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tribunal_events::{Address, DealId, SigningKey};
use tribunal_verifiers::{ArtifactSource, REQUEST_BYTES_MAX, Service};

pub use self::problem::Problem;
use crate::{
    accounts::Accounts,
    bundle::ExportFault,
    bus::Bus,
    effects::Activity,
    engine::Engine,
    external::{ANSWER_BYTES_MAX, Callbacks},
    market::Market,
    mediator::{
        desk::Desk,
        inbox::{self, Case},
    },
    replay::ReplayFault,
    report::{Reporter, ReporterLimits},
    store::Store,
    submit::Patience,
};

/// Header of a verification request: milliseconds after which its sender does not wait any more.
pub const HEADER_TIMEOUT: &str = "Tribunal-Timeout-Ms";
/// Header in place of a verification request: the `request_id` of one that is not wanted any more.
pub const HEADER_CANCEL: &str = "Tribunal-Cancel";
/// Bytes of posted events at most.
const EVENTS_BODY_BYTES_MAX: usize = 4 << 20;
/// Requests under way at most, streams of events apart.
const REQUESTS_MAX: usize = 256;
/// Streams of events at most.
const STREAMS_MAX: usize = 128;
/// Reads of the store side by side at most: each folds deals on a thread of its own.
const READS_MAX: usize = 8;
/// Connections at most.
const CONNECTIONS_MAX: usize = 1024;
/// Seconds that a request may take.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const EVENTS_TIMEOUT: Duration = Duration::from_secs(60);
const VERIFY_TIMEOUT: Duration = Duration::from_secs(900);
/// For the head of a request, and between two of one connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// For what is under way when the service stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Deals on one page at most.
const DEALS_MAX: usize = 500;

/// What HTTP and the NATS service answer from. Clones share everything.
#[derive(Clone)]
pub struct HttpState(Arc<Shared>);

struct Shared {
    store: Store,
    bus: Arc<dyn Bus>,
    activity: Arc<Activity>,
    recorded: broadcast::Sender<u64>,
    artifacts: Arc<dyn ArtifactSource>,
    reporter: Reporter,
    operator: Address,
    token: Option<blake3::Hash>,
    ready: Box<dyn Fn() -> bool + Send + Sync>,
    patience: Patience,
    store_hint: Option<String>,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    answers: [AtomicU64; 5],
    metrics: metrics::Cache,
    /// Books of mediators, kept up to where they were asked for last.
    accounts: Mutex<Accounts>,
    /// Answers of out-of-process verifiers that come later.
    callbacks: Arc<Callbacks>,
    /// Mediators that run here.
    mediators: Vec<Address>,
    /// Where they work: on this engine's record, and on those that are followed.
    desks: Vec<Arc<Desk>>,
    markets: Vec<Arc<Market>>,
    closing: CancellationToken,
}

impl HttpState {
    /// Answers from a running engine; verdicts and receipts are its operator's. With a token, writing needs it.
    pub fn new(
        engine: &Engine,
        verifier: Arc<Service>,
        artifacts: Arc<dyn ArtifactSource>,
        operator: SigningKey,
        token: Option<String>,
    ) -> Self {
        let (store, bus) = (engine.store().clone(), Arc::clone(engine.bus()));
        let (watched, connected) = (store.clone(), Arc::clone(&bus));
        let address = operator.address();
        let reporter =
            Reporter::new(verifier, Arc::clone(&artifacts), store.clone(), operator, ReporterLimits::default());
        Self(Arc::new(Shared {
            bus,
            activity: Arc::clone(engine.activity()),
            recorded: engine.recorded_sender(),
            artifacts,
            reporter,
            operator: address,
            token: token.map(|token| blake3::hash(token.as_bytes())),
            // A store whose writer failed answers nothing any more.
            ready: Box::new(move || connected.connected() && watched.head(&DealId::default()).is_ok()),
            patience: Patience { resend_after: Duration::from_secs(2), total: Duration::from_secs(20) },
            store_hint: None,
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            answers: Default::default(),
            metrics: metrics::Cache::default(),
            accounts: Mutex::default(),
            callbacks: Arc::default(),
            mediators: Vec::new(),
            desks: engine.desk().cloned().into_iter().collect(),
            markets: Vec::new(),
            closing: CancellationToken::new(),
            store,
        }))
    }

    /// Asks this whether events are read and written. Before the state is cloned.
    #[must_use]
    pub fn with_ready(self, ready: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.change(|shared| shared.ready = Box::new(ready))
    }

    /// Shows this as the store in the commands on the page. Before the state is cloned.
    #[must_use]
    pub fn with_store_hint(self, store: impl Into<String>) -> Self {
        self.change(|shared| shared.store_hint = Some(store.into()))
    }

    /// Shows these as the mediators that run here, on the page and in metrics. Before the state is cloned.
    #[must_use]
    pub fn with_mediators(self, mediators: Vec<Address>) -> Self {
        self.change(|shared| shared.mediators = mediators)
    }

    /// Shows the work at these desks too. Before the state is cloned.
    #[must_use]
    pub fn with_desks(self, desks: &[Arc<Desk>]) -> Self {
        self.change(|shared| shared.desks.extend_from_slice(desks))
    }

    /// Takes answers of out-of-process verifiers. Before the state is cloned.
    #[must_use]
    pub fn with_callbacks(self, callbacks: Arc<Callbacks>) -> Self {
        self.change(|shared| shared.callbacks = callbacks)
    }

    /// Shows these marketplaces too. Before the state is cloned.
    #[must_use]
    pub fn with_markets(self, markets: Vec<Arc<Market>>) -> Self {
        self.change(|shared| shared.markets = markets)
    }

    /// The cases at all desks that ask something of a mediator here, the most urgent first.
    fn cases(&self) -> Vec<Case> {
        let mut cases: Vec<_> = self.0.desks.iter().flat_map(|desk| desk.cases()).collect();
        inbox::sort(&mut cases);
        cases
    }

    /// Waits otherwise for receipts of posted events. Before the state is cloned.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        self.change(|shared| shared.patience = patience)
    }

    fn change(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::get_mut(&mut self.0).expect("changed before it is cloned"));
        self
    }

    /// The verification service.
    pub fn reporter(&self) -> &Reporter {
        &self.0.reporter
    }

    /// The record, for reading.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Where artifacts are.
    pub fn artifacts(&self) -> &Arc<dyn ArtifactSource> {
        &self.0.artifacts
    }

    /// Ends the streams of events, so that what serves them can stop.
    pub fn close(&self) {
        self.0.closing.cancel();
    }

    /// Reads the books of mediators, kept up to where the log ends, on a thread of its own.
    ///
    /// # Errors
    /// Where the store cannot be read.
    async fn accounts<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Accounts) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let shared = Arc::clone(&self.0);
        self.read(move |store| -> Result<T, ReplayFault> {
            // A reader that panicked changed nothing that the next one would not read on from.
            let mut accounts = shared.accounts.lock().unwrap_or_else(PoisonError::into_inner);
            accounts.catch_up(store)?;
            Ok(work(&accounts))
        })
        .await
    }

    /// Reads the store on a thread of its own.
    ///
    /// # Errors
    /// What `work` gives, as a problem.
    pub async fn read<T, E>(&self, work: impl FnOnce(&Store) -> Result<T, E> + Send + 'static) -> Result<T, Problem>
    where
        T: Send + 'static,
        E: Send + 'static,
        Problem: From<E>,
    {
        let permit = Arc::clone(&self.0.reads).acquire_owned().await;
        let permit = permit.map_err(|error| Problem::internal(&error))?;
        let store = self.0.store.clone();
        let read = tokio::task::spawn_blocking(move || {
            let _held = permit;
            store.catch_up()?;
            work(&store).map_err(Problem::from)
        });
        read.await?
    }
}

/// All paths of INTERFACES "HTTP".
pub fn router(state: HttpState) -> Router {
    let reading = Router::new()
        .route("/", get(page::index))
        .route("/deals/{id}", get(page::deal))
        .route("/mediators", get(mediators::index))
        .route("/mediators/{address}", get(mediators::page))
        .route("/markets", get(markets::page))
        .route("/api/v1/inbox", get(mediators::inbox))
        .route("/api/v1/markets", get(markets::list))
        .route("/api/v1/markets/{name}/cases", get(markets::cases))
        .route("/api/v1/markets/words/{case}", get(markets::word))
        .route("/api/v1/mediators/{address}", get(mediators::record))
        .route("/api/v1/mediators/{address}/record.csv", get(mediators::csv))
        .route("/api/v1/deals", get(deals))
        .route("/api/v1/deals/{id}", get(deal))
        .route("/api/v1/deals/{id}/events", get(deal_events))
        .route("/api/v1/deals/{id}/bundle", get(bundle))
        .route("/api/v1/openapi.json", get(|| async { Json(openapi::document()) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/checkpoint", get(log::checkpoint))
        .route("/api/v1/log/keys", get(log::keys))
        .route("/log/checkpoint", get(log::checkpoint))
        .route("/log/tile/{*path}", get(log::tile))
        .route("/api/v1/proofs/inclusion", get(log::inclusion))
        .route("/api/v1/proofs/consistency", get(log::consistency))
        .route("/api/v1/proofs/head", get(log::head))
        .layer(middleware::from_fn_with_state((state.clone(), READ_TIMEOUT), bounded));
    let writing = Router::new()
        .route("/api/v1/events", post(events::post))
        .layer(DefaultBodyLimit::max(EVENTS_BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state((state.clone(), EVENTS_TIMEOUT), bounded));
    let verifying = Router::new()
        .route("/api/v1/verify", post(verify))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .layer(middleware::from_fn_with_state((state.clone(), VERIFY_TIMEOUT), bounded));
    Router::new()
        .merge(reading)
        .merge(writing)
        .merge(verifying)
        .route("/api/v1/callbacks/{token}", post(callback).layer(DefaultBodyLimit::max(ANSWER_BYTES_MAX + 1)))
        .route("/api/v1/events/stream", get(events::stream))
        .fallback(|uri: Uri| async move { Problem::missing(format!("there is nothing at {}", uri.path())) })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            let detail = format!("{} does not answer {method}", uri.path());
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
        })
        .layer(middleware::from_fn_with_state(state.clone(), counted))
        .with_state(state)
}

/// Serves until `stop` resolves: takes no more requests then, ends streams of events, and gives the rest a few seconds.
/// Unlike `axum::serve` it bounds connections, and the time and size of a request's head.
pub async fn serve(listener: TcpListener, state: HttpState, stop: impl Future<Output = ()>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
    let app = router(state.clone());
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = async {
                let permit = Arc::clone(&connections).acquire_owned().await.ok();
                (permit, listener.accept().await)
            } => accepted,
        };
        let (permit, stream) = match accepted {
            (permit, Ok((stream, _))) => (permit, stream),
            (_, Err(error)) => {
                // Too many open files, most likely: others close theirs meanwhile.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (app, stopping) = (app.clone(), stopping.clone());
        tasks.spawn(async move {
            let _held = permit;
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_headers(HEADERS_MAX)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopping.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    match tokio::time::timeout(SHUTDOWN_TIMEOUT, connection).await {
                        Ok(ended) => ended,
                        Err(_) => return,
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    state.close();
    stopping.cancel();
    tasks.close();
    tasks.wait().await;
}

/// Bounds how many requests are under way, and how long one takes.
async fn bounded(State((state, timeout)): State<(HttpState, Duration)>, request: Request, next: Next) -> Response {
    let Ok(_permit) = state.0.requests.try_acquire() else {
        let detail = "too many requests are under way; ask again later";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).into_response();
    };
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer in {} seconds", timeout.as_secs());
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", detail).into_response()
        }
    }
}

/// Counts answers and adds the headers that every answer has.
async fn counted(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let class = usize::from(response.status().as_u16() / 100).clamp(1, 5) - 1;
    state.0.answers[class].fetch_add(1, Ordering::Relaxed);
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn deal_id(text: &str) -> Result<DealId, Problem> {
    text.parse().map_err(|error: tribunal_events::IdError| Problem::bad("deal-id", error.to_string()))
}

fn no_deal(deal_id: &DealId, at: Option<u64>) -> Problem {
    let when = at.map_or_else(String::new, |at| format!(" up to log position {at}"));
    Problem::missing(format!("no deal {deal_id} is recorded here{when}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DealsQuery {
    limit: Option<usize>,
    offset: Option<usize>,
    at: Option<u64>,
}

impl DealsQuery {
    fn page(&self) -> Result<(usize, usize), Problem> {
        let limit = self.limit.unwrap_or(50);
        if !(1..=DEALS_MAX).contains(&limit) {
            return Err(Problem::bad("query", format!("limit is 1 to {DEALS_MAX}, not {limit}")));
        }
        Ok((self.offset.unwrap_or(0), limit))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AtQuery {
    at: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    from: Option<u64>,
    limit: Option<usize>,
    at: Option<u64>,
}

async fn deals(
    State(state): State<HttpState>,
    query: Result<Query<DealsQuery>, QueryRejection>,
) -> Result<Json<read::DealsPage>, Problem> {
    let Query(query) = query?;
    let (offset, limit) = query.page()?;
    state.read(move |store| read::deals(store, offset, limit, query.at)).await.map(Json)
}

async fn deal(
    State(state): State<HttpState>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<AtQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let (Path(id), Query(query)) = (id?, query?);
    let id = deal_id(&id)?;
    let found = state.read(move |store| read::deal(store, &id, query.at)).await?;
    found.map(Json).ok_or_else(|| no_deal(&id, query.at))
}

async fn deal_events(
    State(state): State<HttpState>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let (Path(id), Query(query)) = (id?, query?);
    let id = deal_id(&id)?;
    let (from, limit) = (query.from.unwrap_or(1), query.limit.unwrap_or(100));
    if !(1..=1000).contains(&limit) {
        return Err(Problem::bad("query", format!("limit is 1 to 1000, not {limit}")));
    }
    let found = state.read(move |store| read::events(store, &id, from, limit, query.at)).await?;
    found.map(Json).ok_or_else(|| no_deal(&id, None))
}

async fn bundle(State(state): State<HttpState>, id: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let Path(id) = id?;
    let id = deal_id(&id)?;
    let artifacts = Arc::clone(state.artifacts());
    let bytes = state
        .read(move |store| -> Result<_, Problem> {
            if store.head(&id)?.is_none() {
                return Err(no_deal(&id, None));
            }
            crate::bundle::export(store, &id, Some(artifacts.as_ref())).map_err(|fault| match fault {
                ExportFault::Imported(_) => Problem::new(StatusCode::NOT_FOUND, "imported", fault.to_string()),
                fault => Problem::internal(&fault),
            })
        })
        .await?;
    let name = format!("attachment; filename=\"{id}.tribunal\"");
    Ok(([(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_DISPOSITION, name)], bytes)
        .into_response())
}

async fn verify(
    State(state): State<HttpState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let kind = media_type(&headers)?;
    if kind != "application/json" {
        let detail = format!("a verification request is application/json, not {kind:?}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail));
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(request_id) = header(HEADER_CANCEL) {
        let cancelled = state.reporter().cancel(request_id);
        return Ok(Json(json!({ "request_id": request_id, "cancelled": cancelled })));
    }
    let within = timeout(header(HEADER_TIMEOUT)).map_err(|problem| Problem::bad("bad-request", problem))?;
    let verdict = state.reporter().verify_within(body?.to_vec(), within).await?;
    Ok(Json(Value::clone(&verdict)))
}

/// Reads [`HEADER_TIMEOUT`].
///
/// # Errors
/// A sentence that says what it must be.
pub fn timeout(value: Option<&str>) -> Result<Option<Duration>, String> {
    let Some(value) = value else { return Ok(None) };
    match value.trim().parse::<u64>() {
        Ok(ms @ 1..=86_400_000) => Ok(Some(Duration::from_millis(ms))),
        _ => Err(format!("{HEADER_TIMEOUT} is a number of milliseconds, 1 to 86400000, not {value:?}")),
    }
}

/// An out-of-process verifier's answer that comes later.
async fn callback(
    State(state): State<HttpState>,
    token: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let Path(token) = token?;
    if state.0.callbacks.take(&token, body?.to_vec()) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::missing("nobody waits for an answer here, or not any more"))
    }
}

async fn ready(State(state): State<HttpState>) -> Response {
    let ready = (state.0.ready)();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": ready, "bus_connected": state.0.bus.connected() });
    (status, Json(body)).into_response()
}

/// The media type of the body without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Result<String, Problem> {
    let value = headers.get(header::CONTENT_TYPE).map_or(Ok(""), HeaderValue::to_str);
    let value = value.map_err(|_| Problem::bad("media-type", "Content-Type is no text"))?;
    Ok(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}
