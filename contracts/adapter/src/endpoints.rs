//! Several JSON-RPC endpoints of one chain as one provider.
//!
//! Requests go to one endpoint as long as it works, and to the next in order of preference when it does not: no answer in
//! time, no connection, an HTTP error, a provider's limit, an answer that is no JSON-RPC or beyond the bound. What a node
//! says about the request itself (a revert, a bad parameter) is an answer and is not asked elsewhere. An endpoint whose
//! head is far behind the others' is asked only where no better one answers.
//!
//! **Invariant:** nothing is read from an endpoint before it said that it is on the expected chain, nor after it failed
//! and has not said so again.
//! **Invariant:** what is said of an endpoint names its host and port only; the rest of a URL is often a secret.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use alloy::{
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::{
        client::RpcClient,
        json_rpc::{Id, RequestPacket, Response, ResponsePacket, ResponsePayload},
    },
    transports::{
        RpcError, TransportError, TransportErrorKind, TransportFut,
        http::reqwest::{self, Client, Url, redirect},
    },
};
use tokio::time::Instant;
use tower_service::Service;

use crate::ChainFault;

/// How long an endpoint may take to answer unless [`Endpoints::with_limits`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that an answer may have unless [`Endpoints::with_limits`] says otherwise.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How many blocks an endpoint may be behind unless [`Endpoints::with_limits`] says otherwise.
const BEHIND_BLOCKS_MAX: u64 = 10;
/// How often several endpoints are compared unless [`Endpoints::with_limits`] says otherwise.
const COMPARE_EVERY: Duration = Duration::from_secs(15);
/// How long an endpoint may take to answer when it is compared with others, at most.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an endpoint that failed once is left alone while there are others; doubles with every failure.
const REST: Duration = Duration::from_secs(5);
/// How long an endpoint is left alone at most.
const REST_MAX: Duration = Duration::from_secs(300);
/// How often a node is asked whether something changed.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes of a node's words that are repeated.
const WORDS_BYTES_MAX: usize = 200;

/// Makes rustls with ring the TLS of this process, unless something else is already. HTTP clients need one before they are
/// built.
pub fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// What an endpoint may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointLimits {
    /// For a whole answer.
    pub timeout: Duration,
    /// Of an answer's body.
    pub answer_bytes_max: usize,
    /// By which an endpoint's head may be behind the others' before they are preferred.
    pub behind_blocks_max: u64,
    /// How often the heads of several endpoints are compared.
    pub compare_every: Duration,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self {
            timeout: TIMEOUT,
            answer_bytes_max: ANSWER_BYTES_MAX,
            behind_blocks_max: BEHIND_BLOCKS_MAX,
            compare_every: COMPARE_EVERY,
        }
    }
}

/// Why an endpoint was of no use.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum EndpointFault {
    /// Nothing, or not all, came in time.
    #[error("no answer in {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// There was no connection: it heard nothing.
    #[error("{0}")]
    Unconnected(String),
    /// The connection broke.
    #[error("{0}")]
    Connection(String),
    /// An HTTP status instead of an answer.
    #[error("HTTP status {0}")]
    Status(u16),
    /// More bytes than an answer may have.
    #[error("an answer of more than {0} bytes")]
    TooLarge(usize),
    /// What came is no JSON-RPC, or no answer to what was asked.
    #[error("garbage instead of an answer: {0}")]
    Garbage(String),
    /// The provider's limit, in its words.
    #[error("the provider's limit: {0}")]
    Limit(String),
    /// It is on another chain.
    #[error("it is on chain {actual}, not {expected}")]
    OtherChain {
        /// What it should be on.
        expected: u64,
        /// What it says.
        actual: u64,
    },
}

/// No endpoint was of use.
#[derive(Clone, Debug)]
pub struct NoEndpoint {
    /// Host and port, and why, in order of preference.
    pub faults: Vec<(String, EndpointFault)>,
}

impl std::fmt::Display for NoEndpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (host, fault)) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(formatter, "{separator}{host}: {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NoEndpoint {}

/// JSON-RPC over HTTP at one or several places, all of one chain.
#[derive(Clone)]
pub struct Endpoints(Arc<Shared>);

struct Shared {
    client: Client,
    places: Vec<Place>,
    limits: EndpointLimits,
    state: Mutex<State>,
}

struct Place {
    url: Url,
    /// Host and port.
    host: String,
}

struct State {
    /// The chain that all must be on, once it is known.
    chain_id: Option<u64>,
    /// The one that worked last.
    current: usize,
    /// The head to compare with, 0 before the first comparison.
    head: u64,
    compared_at: Option<Instant>,
    seen: Vec<Seen>,
}

/// What is known of an endpoint.
#[derive(Clone, Default)]
struct Seen {
    /// It said that it is on the right chain, and did not fail since.
    right_chain: bool,
    head: u64,
    failures: u32,
    /// Not asked before this while there are others.
    rests_until: Option<Instant>,
    fault: Option<EndpointFault>,
}

impl Endpoints {
    /// HTTP URLs in order of preference, and the EIP-155 id of their chain; without one, the first that answers decides.
    ///
    /// # Errors
    /// Where there is none, or one is no HTTP URL with a host.
    pub fn new(urls: &[String], chain_id: Option<u64>) -> Result<Self, ChainFault> {
        let unexpected = |problem: String| ChainFault::Unexpected { what: "connect", problem };
        install_tls();
        let mut places = Vec::with_capacity(urls.len());
        for url in urls {
            let parsed = url.parse::<Url>();
            let url = parsed.map_err(|error| unexpected(format!("a node's address is no URL: {error}")))?;
            let host = match (url.host_str(), url.port_or_known_default()) {
                (Some(host), Some(port)) if matches!(url.scheme(), "http" | "https") => format!("{host}:{port}"),
                (Some(host), _) => return Err(unexpected(format!("the URL of node {host} is not of HTTP"))),
                (None, _) => return Err(unexpected("the URL of a node names no host".into())),
            };
            places.push(Place { url, host });
        }
        if places.is_empty() {
            return Err(unexpected("no node is named".into()));
        }
        // A redirect would send the request, and what the URL holds, to somebody else.
        let client = Client::builder().redirect(redirect::Policy::none()).build();
        let client = client.map_err(|error| unexpected(format!("no HTTP client: {}", error.without_url())))?;
        let seen = vec![Seen::default(); places.len()];
        let state = State { chain_id, current: 0, head: 0, compared_at: None, seen };
        Ok(Self(Arc::new(Shared { client, places, limits: EndpointLimits::default(), state: Mutex::new(state) })))
    }

    /// With these limits instead of 10 s, 64 MiB, 10 blocks, and a comparison every 15 s.
    ///
    /// # Panics
    /// Where they are connected already.
    #[must_use]
    pub fn with_limits(mut self, limits: EndpointLimits) -> Self {
        Arc::get_mut(&mut self.0).expect("limits are set before connecting").limits = limits;
        self
    }

    /// For people: hosts and ports in order of preference.
    pub fn describe(&self) -> String {
        let hosts: Vec<_> = self.0.places.iter().map(|place| place.host.as_str()).collect();
        hosts.join(", ")
    }

    /// One provider over all of them, and the chain's EIP-155 id.
    ///
    /// # Errors
    /// [`ChainFault::Unreachable`] where none answers, [`ChainFault::Unexpected`] where all are on another chain.
    pub async fn connect(&self) -> Result<(DynProvider, u64), ChainFault> {
        let (client, chain_id) = self.client().await?;
        Ok((ProviderBuilder::default().connect_client(client).erased(), chain_id))
    }

    pub(crate) async fn client(&self) -> Result<(RpcClient, u64), ChainFault> {
        let mut faults = Vec::new();
        for index in 0..self.0.places.len() {
            match self.0.ensure_chain(index, self.0.limits.timeout).await {
                Ok(()) => break,
                Err(fault) => {
                    self.0.failed(index, &fault);
                    faults.push((self.0.places[index].host.clone(), fault));
                }
            }
        }
        let none = NoEndpoint { faults };
        if none.faults.len() == self.0.places.len() {
            if none.faults.iter().all(|(_, fault)| matches!(fault, EndpointFault::OtherChain { .. })) {
                return Err(ChainFault::Unexpected { what: "connect", problem: none.to_string() });
            }
            return Err(ChainFault::Unreachable { what: "connect".into(), source: Box::new(none) });
        }
        let chain_id = self.0.state().chain_id.expect("an endpoint said it");
        let client = RpcClient::new(Failover(Arc::clone(&self.0)), false);
        client.set_poll_interval(POLL_INTERVAL);
        Ok((client, chain_id))
    }
}

/// The transport under the provider.
#[derive(Clone)]
struct Failover(Arc<Shared>);

impl Service<RequestPacket> for Failover {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { shared.request(&packet).await })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request(&self, packet: &RequestPacket) -> Result<ResponsePacket, TransportError> {
        let body = serde_json::to_vec(packet).map_err(TransportError::ser_err)?;
        let asked = Asked::new(packet);
        self.compare_if_due().await;
        let (mut faults, mut unclear) = (BTreeMap::new(), false);
        // An answer to give where there is no better one: of an older node, or a provider's limit.
        let (mut older, mut limit): (Option<(u64, ResponsePacket)>, Option<ResponsePacket>) = (None, None);
        for (index, resting) in self.order() {
            if older.is_some() && resting {
                break;
            }
            let fault = match self.ask(index, &asked, body.clone()).await {
                Ok(answer) => match provider_limit(&answer) {
                    Some(words) => {
                        limit = Some(answer);
                        EndpointFault::Limit(words)
                    }
                    None => match asked.head(&answer) {
                        Some(head) if self.older(index, head) => {
                            if older.as_ref().is_none_or(|(other, _)| *other < head) {
                                older = Some((head, answer));
                            }
                            continue;
                        }
                        _ => {
                            self.worked(index);
                            // Whether the node that fell silent took it, no other can say.
                            if unclear && asked.submits && answer.is_error() && !knows_it(&answer) {
                                let words = answer.first_error_message().unwrap_or_default();
                                faults.insert(index, EndpointFault::Garbage(shortened(words)));
                                break;
                            }
                            return Ok(answer);
                        }
                    },
                },
                Err(fault) => fault,
            };
            tracing::debug!(host = self.places[index].host, method = asked.method, %fault, "a node was of no use");
            self.failed(index, &fault);
            use EndpointFault::{Limit, OtherChain, Unconnected};
            unclear |= !matches!(fault, Limit(_) | OtherChain { .. } | Unconnected(_));
            faults.insert(index, fault);
            if asked.once {
                break;
            }
        }
        if let Some(answer) = older.map(|(_, answer)| answer).or(limit) {
            return Ok(answer);
        }
        for (index, seen) in self.state().seen.iter().enumerate() {
            if let (false, Some(fault)) = (faults.contains_key(&index), &seen.fault) {
                faults.insert(index, fault.clone());
            }
        }
        let faults = faults.into_iter().map(|(index, fault)| (self.places[index].host.clone(), fault)).collect();
        Err(TransportErrorKind::custom(NoEndpoint { faults }))
    }

    /// Which to ask one after the other, and whether it is to be left alone while others answer.
    fn order(&self) -> Vec<(usize, bool)> {
        let state = self.state();
        let now = Instant::now();
        let mut order: Vec<_> = state.seen.iter().enumerate().collect();
        let rests = |seen: &Seen| seen.rests_until.is_some_and(|until| now < until);
        // One on another chain is asked again only to see whether it still is.
        let usable = |seen: &Seen| !(rests(seen) && matches!(seen.fault, Some(EndpointFault::OtherChain { .. })));
        order.retain(|(_, seen)| usable(seen));
        let behind =
            |seen: &Seen| seen.head > 0 && seen.head.saturating_add(self.limits.behind_blocks_max) < state.head;
        order.sort_by_key(|(index, seen)| (rests(seen), behind(seen), *index != state.current, *index));
        order.into_iter().map(|(index, seen)| (index, rests(seen))).collect()
    }

    async fn ask(&self, index: usize, asked: &Asked<'_>, body: Vec<u8>) -> Result<ResponsePacket, EndpointFault> {
        self.ensure_chain(index, self.limits.timeout).await?;
        let answer = self.post(index, body, self.limits.timeout).await?;
        asked.fits(&answer)?;
        Ok(answer)
    }

    /// Asks an endpoint for its chain, unless it said it before and did not fail since.
    async fn ensure_chain(&self, index: usize, timeout: Duration) -> Result<(), EndpointFault> {
        if self.state().seen[index].right_chain {
            return Ok(());
        }
        let actual = self.number(index, "eth_chainId", timeout).await?;
        let mut state = self.state();
        let expected = *state.chain_id.get_or_insert(actual);
        state.seen[index].right_chain = actual == expected;
        if actual == expected { Ok(()) } else { Err(EndpointFault::OtherChain { expected, actual }) }
    }

    async fn number(&self, index: usize, method: &str, timeout: Duration) -> Result<u64, EndpointFault> {
        let body = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"{method}","params":[]}}"#);
        let answer = self.post(index, body.into_bytes(), timeout).await?;
        if let Some(words) = provider_limit(&answer) {
            return Err(EndpointFault::Limit(words));
        }
        let payload = answer.single_payload().and_then(ResponsePayload::as_success);
        let number = payload.and_then(|payload| quantity(payload.get()));
        number.ok_or_else(|| EndpointFault::Garbage(format!("no number to {method}")))
    }

    /// One exchange, bounded in time and bytes.
    async fn post(&self, index: usize, body: Vec<u8>, timeout: Duration) -> Result<ResponsePacket, EndpointFault> {
        let request = self.client.post(self.places[index].url.clone()).header("content-type", "application/json");
        let exchange = async {
            let mut response = request.body(body).send().await.map_err(connection)?;
            let status = response.status();
            let bytes_max = self.limits.answer_bytes_max;
            let declared = response.content_length().unwrap_or_default();
            if declared > bytes_max as u64 {
                return Err(EndpointFault::TooLarge(bytes_max));
            }
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(connection)? {
                if bytes.len() + chunk.len() > bytes_max {
                    return Err(EndpointFault::TooLarge(bytes_max));
                }
                bytes.extend_from_slice(&chunk);
            }
            match serde_json::from_slice::<ResponsePacket>(&bytes) {
                Ok(answer) if status.is_success() || (answer.is_error() && status.as_u16() != 429) => Ok(answer),
                _ if !status.is_success() => Err(EndpointFault::Status(status.as_u16())),
                Ok(_) => unreachable!("a success was taken above"),
                Err(error) => Err(EndpointFault::Garbage(shortened(&error.to_string()))),
            }
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(EndpointFault::Silent(timeout)))
    }

    fn worked(&self, index: usize) {
        let mut state = self.state();
        if state.current != index {
            tracing::info!(host = self.places[index].host, "another node is asked from now on");
        }
        state.current = index;
        let seen = &mut state.seen[index];
        (seen.failures, seen.rests_until, seen.fault) = (0, None, None);
    }

    fn failed(&self, index: usize, fault: &EndpointFault) {
        let mut state = self.state();
        let seen = &mut state.seen[index];
        if seen.failures == 0 && self.places.len() > 1 {
            tracing::warn!(host = self.places[index].host, %fault, "a node is left alone for a while");
        }
        let rest = REST.saturating_mul(1 << seen.failures.min(10)).min(REST_MAX);
        seen.failures = seen.failures.saturating_add(1);
        seen.rests_until = Some(Instant::now() + rest);
        seen.fault = Some(fault.clone());
        // A limit says nothing about who answers; all else may mean that somebody else does.
        seen.right_chain &= matches!(fault, EndpointFault::Limit(_));
    }

    /// Notes a head; whether it is too far behind.
    fn older(&self, index: usize, head: u64) -> bool {
        let mut state = self.state();
        state.seen[index].head = head;
        head.saturating_add(self.limits.behind_blocks_max) < state.head
    }

    /// Asks several endpoints for their heads at the same time, now and then.
    async fn compare_if_due(&self) {
        let now = Instant::now();
        let indices: Vec<usize> = {
            let mut state = self.state();
            let due = state.compared_at.is_none_or(|at| now.duration_since(at) >= self.limits.compare_every);
            if self.places.len() < 2 || !due {
                return;
            }
            state.compared_at = Some(now);
            let rests = |seen: &Seen| seen.rests_until.is_some_and(|until| now < until);
            (0..self.places.len()).filter(|index| !rests(&state.seen[*index])).collect()
        };
        let timeout = self.limits.timeout.min(COMPARE_TIMEOUT);
        let heads = indices.iter().map(|index| async {
            self.ensure_chain(*index, timeout).await?;
            self.number(*index, "eth_blockNumber", timeout).await
        });
        let heads = futures::future::join_all(heads).await;
        let mut found = Vec::new();
        for (index, head) in indices.into_iter().zip(heads) {
            match head {
                Ok(head) => {
                    found.push(head);
                    let seen = &mut self.state().seen[index];
                    seen.head = head;
                    // Well again: it waits for its turn.
                    (seen.failures, seen.rests_until, seen.fault) = (0, None, None);
                }
                Err(fault) => self.failed(index, &fault),
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        // Of three or more, one alone does not say what is new: it may have made that up.
        let head = if found.len() > 2 { found.get(1) } else { found.first() };
        if let Some(head) = head {
            self.state().head = *head;
        }
    }
}

/// What a request asks for, to see whether an answer fits.
struct Asked<'a> {
    packet: &'a RequestPacket,
    method: &'a str,
    /// Must not be done twice: the node would sign another transaction.
    once: bool,
    /// A signed transaction.
    submits: bool,
}

impl<'a> Asked<'a> {
    fn new(packet: &'a RequestPacket) -> Self {
        let any = |name: &str| packet.method_names().any(|method| method == name);
        Self {
            packet,
            method: packet.method_names().next().unwrap_or_default(),
            once: any("eth_sendTransaction"),
            submits: any("eth_sendRawTransaction"),
        }
    }

    /// Whether this answers what was asked: everything, each once, in a form that the method has.
    fn fits(&self, answer: &ResponsePacket) -> Result<(), EndpointFault> {
        let garbage = |what: String| Err(EndpointFault::Garbage(what));
        let requests = self.packet.requests();
        let single = matches!((self.packet, answer), (RequestPacket::Single(_), ResponsePacket::Single(_)));
        let batch = matches!((self.packet, answer), (RequestPacket::Batch(_), ResponsePacket::Batch(_)));
        // A batch that is refused as a whole gets one error.
        if !(single || batch || matches!(answer, ResponsePacket::Single(it) if it.payload.is_error())) {
            return garbage("not as many answers as requests".into());
        }
        let by_id: BTreeMap<String, &str> = requests.iter().map(|it| (it.id().to_string(), it.method())).collect();
        for Response { id, payload } in answer.responses() {
            let ResponsePayload::Success(value) = payload else { continue };
            let Some(method) = by_id.get(&id.to_string()) else {
                return garbage(format!("an answer to request {id}, which was not sent"));
            };
            if !plausible(method, value.get()) {
                return garbage(format!("no answer to {method}"));
            }
        }
        let answered = |id: &Id| answer.responses().iter().filter(|it| it.id == *id).count();
        if batch && requests.iter().any(|request| answered(request.id()) != 1) {
            return garbage("not as many answers as requests".into());
        }
        Ok(())
    }

    /// The head, where that was asked.
    fn head(&self, answer: &ResponsePacket) -> Option<u64> {
        let payload = answer.single_payload().filter(|_| self.method == "eth_blockNumber")?;
        quantity(payload.as_success()?.get())
    }
}

/// Whether a value has a form that the method's answers have.
fn plausible(method: &str, value: &str) -> bool {
    match method {
        "eth_chainId"
        | "eth_blockNumber"
        | "eth_gasPrice"
        | "eth_maxPriorityFeePerGas"
        | "eth_estimateGas"
        | "eth_getBalance"
        | "eth_getTransactionCount"
        | "eth_sendRawTransaction"
        | "eth_call"
        | "eth_getCode"
        | "eth_getStorageAt" => value.starts_with("\"0x"),
        "eth_getLogs" => value.starts_with('['),
        "eth_getTransactionReceipt"
        | "eth_getTransactionByHash"
        | "eth_getBlockByNumber"
        | "eth_getBlockByHash"
        | "eth_feeHistory" => value.starts_with('{') || value == "null",
        _ => true,
    }
}

/// A JSON string of a hexadecimal number.
fn quantity(value: &str) -> Option<u64> {
    u64::from_str_radix(value.strip_prefix("\"0x")?.strip_suffix('"')?, 16).ok()
}

/// A provider's words about too many requests; not about too large a range, which another one asks to be smaller too.
fn provider_limit(answer: &ResponsePacket) -> Option<String> {
    let error = answer.iter_errors().find(|error| error.is_retry_err() && !too_much(&error.message))?;
    Some(shortened(&error.message))
}

/// Whether a node says that a search found, or would look at, too much.
pub(crate) fn too_much(words: &str) -> bool {
    let words = words.to_lowercase();
    let about = ["range", "results", "response size", "too many logs", "too large", "blocks"];
    !words.contains("rate limit") && !words.contains("rate exceeded") && about.iter().any(|about| words.contains(about))
}

/// Whether a node says that it has a transaction that it is sent.
pub(crate) fn is_known(words: &str) -> bool {
    let words = words.to_lowercase();
    ["already known", "known transaction", "already imported", "already in pool", "alreadyexists"]
        .iter()
        .any(|known| words.contains(known))
}

fn knows_it(answer: &ResponsePacket) -> bool {
    answer.iter_errors().any(|error| is_known(&error.message) || error.message.to_lowercase().contains("nonce too low"))
}

/// An HTTP client's error with its causes and without the URL.
fn connection(error: reqwest::Error) -> EndpointFault {
    let kind = if error.is_connect() { EndpointFault::Unconnected } else { EndpointFault::Connection };
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        words = format!("{words}: {next}");
        cause = next.source();
    }
    kind(shortened(&words))
}

fn shortened(words: &str) -> String {
    let end = (0..=WORDS_BYTES_MAX.min(words.len())).rev().find(|end| words.is_char_boundary(*end)).unwrap_or(0);
    words[..end].to_owned()
}

/// Why no endpoint gave an answer, where that was the reason.
pub(crate) fn no_endpoint(error: &TransportError) -> Option<&NoEndpoint> {
    let RpcError::Transport(TransportErrorKind::Custom(error)) = error else { return None };
    error.downcast_ref()
}
