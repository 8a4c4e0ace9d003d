//! The verification service's signed answers, over HTTP and NATS alike.
//!
//! **Invariant:** what is signed is a `Report` over the digests of request and verdict, never a mediator's `Verdict`: else
//! anyone could have a vote signed by asking.
//! **Invariant:** a request that names a deal is verified only if it asks what that deal's terms and claim say.

mod answers;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tribunal_events::{
    Address, B256, Claim, DealId, Digest, Domain, EventKind, ReportStruct, Signer, SignerFault, SigningKey, Terms,
    VerdictKind,
};
use tribunal_verifiers::{ArtifactFault, ArtifactSource, BadRequest, Method, Reference, Request, Service, Vote};

use self::answers::Answers;
use crate::{
    replay::ReplayFault,
    store::Store,
    work::{WorkQueue, is_conclusive},
};

/// Requests that are read and looked up side by side.
const PREPARING_MAX: usize = 4;
/// What is added to the time that a job may take where another machine does it: for the way, and for its turn there.
const QUEUE_PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum ReportFault {
    /// The request is wrong.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// The id was used for another request.
    #[error("request_id: {0:?} was used for another request before; choose a new one")]
    RequestIdReused(String),
    /// As many as allowed run and wait already.
    #[error("too many verifications run and wait here already; ask again later")]
    Busy,
    /// The time that the caller gave is over.
    #[error("not verified within the {0} ms that the request gives")]
    Deadline(u128),
    /// Whoever asked does not want to know any more.
    #[error("cancelled")]
    Cancelled,
    /// The deal cannot be read.
    #[error("the record of the deal cannot be read: {0}")]
    Record(#[from] ReplayFault),
    /// A bug.
    #[error("the verification ended unexpectedly: {0}")]
    Ended(String),
}

impl ReportFault {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::RequestIdReused(_) => "request-id-reused",
            Self::Busy => "busy",
            Self::Deadline(_) => "deadline",
            Self::Cancelled => "cancelled",
            Self::Record(_) => "record",
            Self::Ended(_) => "internal",
        }
    }

    /// The field of the request that is wrong, if one is.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::BadRequest(bad) => Some(&bad.field),
            Self::RequestIdReused(_) => Some("request_id"),
            _ => None,
        }
    }
}

/// How many verifications a reporter takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReporterLimits {
    /// Side by side.
    pub running_max: usize,
    /// Waiting for their turn; more are turned away.
    pub waiting_max: usize,
}

impl Default for ReporterLimits {
    /// One a core, 64 waiting.
    fn default() -> Self {
        Self { running_max: std::thread::available_parallelism().map_or(1, usize::from), waiting_max: 64 }
    }
}

/// What a reporter has answered so far.
#[derive(Debug, Default)]
pub struct ReportCounts {
    /// Verdicts by kind: valid, invalid, inconclusive.
    pub verdicts: [AtomicU64; 3],
    /// Bad requests.
    pub bad_requests: AtomicU64,
    /// Turned away.
    pub busy: AtomicU64,
}

/// Verifies and signs. Clones share everything.
#[derive(Clone)]
pub struct Reporter(Arc<Inner>);

struct Inner {
    verifier: Arc<Service>,
    artifacts: Arc<dyn ArtifactSource>,
    store: Store,
    key: SigningKey,
    preparing: Arc<Semaphore>,
    running: Arc<Semaphore>,
    places: Arc<Semaphore>,
    /// Other machines that verify where all places here are taken.
    queue: OnceLock<Arc<WorkQueue>>,
    answers: Mutex<Answers>,
    /// Requests under way that their sender may cancel, by request id.
    under_way: Mutex<BTreeMap<String, Vec<CancellationToken>>>,
    counts: ReportCounts,
}

/// A request that is ready to be verified.
struct Prepared {
    request: Request,
    /// The same with content addresses in the place of file names.
    pinned: Request,
    digest: Digest,
    domain: Domain,
    artifacts: ReadOnce,
}

impl Reporter {
    /// A reporter that finds artifacts in `artifacts` alone and signs with `key`.
    pub fn new(
        verifier: Arc<Service>,
        artifacts: Arc<dyn ArtifactSource>,
        store: Store,
        key: SigningKey,
        limits: ReporterLimits,
    ) -> Self {
        let running_max = limits.running_max.max(1);
        Self(Arc::new(Inner {
            verifier,
            artifacts,
            store,
            key,
            preparing: Arc::new(Semaphore::new(PREPARING_MAX)),
            running: Arc::new(Semaphore::new(running_max)),
            places: Arc::new(Semaphore::new(running_max.saturating_add(limits.waiting_max))),
            queue: OnceLock::new(),
            answers: Mutex::default(),
            under_way: Mutex::default(),
            counts: ReportCounts::default(),
        }))
    }

    /// The account that signs.
    pub fn signer(&self) -> Address {
        self.0.key.address()
    }

    /// What was answered so far.
    pub fn counts(&self) -> &ReportCounts {
        &self.0.counts
    }

    /// Gives work to other machines where all places here are taken, and takes on as much more.
    pub fn share_work(&self, queue: Arc<WorkQueue>, waiting_more: usize) {
        if self.0.queue.set(queue).is_ok() {
            self.0.places.add_permits(waiting_more);
        }
    }

    /// The work that other machines do.
    pub fn queue(&self) -> Option<&Arc<WorkQueue>> {
        self.0.queue.get()
    }

    /// Verifies the request in this JSON text. Gives the verdict JSON of INTERFACES with `signer` and `signature`, and
    /// `request_digest`, the other half of what is signed.
    ///
    /// # Errors
    /// [`ReportFault`].
    pub async fn verify(&self, text: Vec<u8>) -> Result<Arc<Value>, ReportFault> {
        self.verify_within(text, None).await
    }

    /// [`Reporter::verify`] for a caller that waits so long at most.
    ///
    /// # Errors
    /// [`ReportFault`].
    pub async fn verify_within(&self, text: Vec<u8>, within: Option<Duration>) -> Result<Arc<Value>, ReportFault> {
        let answer = match within {
            None => self.answer(text, None).await,
            Some(within) => tokio::time::timeout(within, self.answer(text, Some(within)))
                .await
                .unwrap_or_else(|_| Err(ReportFault::Deadline(within.as_millis()))),
        };
        let counts = &self.0.counts;
        match &answer {
            Ok(_) | Err(ReportFault::Cancelled | ReportFault::Deadline(_)) => {}
            Err(ReportFault::BadRequest(_) | ReportFault::RequestIdReused(_)) => {
                counts.bad_requests.fetch_add(1, Ordering::Relaxed);
            }
            Err(ReportFault::Busy) => {
                counts.busy.fetch_add(1, Ordering::Relaxed);
            }
            Err(fault) => tracing::error!(%fault, "a verification request could not be answered"),
        }
        answer
    }

    /// Ends the verification of the request with this id; everybody who waits for it is told so. Whether there was one.
    pub fn cancel(&self, request_id: &str) -> bool {
        let found = self.0.under_way().remove(request_id).unwrap_or_default();
        found.iter().for_each(CancellationToken::cancel);
        !found.is_empty()
    }

    async fn answer(&self, text: Vec<u8>, within: Option<Duration>) -> Result<Arc<Value>, ReportFault> {
        let inner = &self.0;
        let place = Arc::clone(&inner.places).try_acquire_owned().map_err(|_| ReportFault::Busy)?;
        let place = Arc::new(place);
        // Set when this future is dropped or done: what is still running then is of no use to anybody.
        let wanted = Wanted::default();
        let stop = Arc::clone(&wanted.0);
        // Where there is room now, one turn on one thread does it all.
        let begun = match Arc::clone(&inner.running).try_acquire_owned() {
            Ok(turn) => {
                let wall_ms_max = wall_ms(within);
                let work = move |inner: &Inner| -> Result<Begun, ReportFault> {
                    let prepared = inner.prepare(&text)?;
                    match prepared.request.request_id {
                        // Others may be asking the same.
                        Some(_) => Ok(Begun::Prepared(Box::new(prepared))),
                        None => Ok(Begun::Answered(inner.verify(&prepared, wall_ms_max, &stop)?)),
                    }
                };
                self.on_a_thread(turn, &place, work).await??
            }
            Err(_) => {
                let turn = turn(&inner.preparing).await?;
                let prepared = self.on_a_thread(turn, &place, move |inner| inner.prepare(&text)).await??;
                Begun::Prepared(Box::new(prepared))
            }
        };
        let prepared = match begun {
            Begun::Answered(answer) => return Ok(Arc::new(answer)),
            Begun::Prepared(prepared) => *prepared,
        };
        let Some(id) = prepared.request.request_id.clone() else { return self.run(&place, prepared, within).await };
        let cell = inner.answers().cell(&id, prepared.digest)?;
        let under_way = UnderWay::of(inner, &id);
        let answer = tokio::select! {
            answer = cell.get_or_try_init(|| self.run(&place, prepared, within)) => answer?,
            () = under_way.cancelled.cancelled() => return Err(ReportFault::Cancelled),
        };
        inner.answers().keep(&id, &cell, answer);
        Ok(Arc::clone(answer))
    }

    async fn run(
        &self,
        place: &Arc<OwnedSemaphorePermit>,
        prepared: Prepared,
        within: Option<Duration>,
    ) -> Result<Arc<Value>, ReportFault> {
        let inner = &self.0;
        let wall = prepared.request.job.as_ref().map_or(0, |job| job.limits.wall_ms.min(inner.verifier.wall_ms_max()));
        if let Some(queue) = inner.queue.get().filter(|_| inner.running.available_permits() == 0) {
            let patience = within.unwrap_or_else(|| Duration::from_millis(wall) + QUEUE_PATIENCE);
            match queue.verify(&prepared.pinned, patience).await {
                Ok((verdict, worker)) if is_conclusive(&verdict) => {
                    return inner.countersign(verdict, worker, &prepared).map(Arc::new);
                }
                Ok((verdict, worker)) => {
                    let code = verdict["reason"]["code"].as_str().unwrap_or_default();
                    tracing::info!(%worker, code, "a worker could not tell; it is verified here");
                }
                Err(fault) => tracing::warn!(%fault, "the work queue gave no result; it is verified here"),
            }
        }
        let wanted = Wanted::default();
        let stop = Arc::clone(&wanted.0);
        let (wall_ms_max, turn) = (wall_ms(within), turn(&inner.running).await?);
        let verdict = self.on_a_thread(turn, place, move |inner| inner.verify(&prepared, wall_ms_max, &stop)).await??;
        Ok(Arc::new(verdict))
    }

    /// Runs work on a thread of its own. It keeps its turn and its place though nobody waits for it any more.
    async fn on_a_thread<T: Send + 'static>(
        &self,
        turn: OwnedSemaphorePermit,
        place: &Arc<OwnedSemaphorePermit>,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T, ReportFault> {
        let (inner, place) = (Arc::clone(&self.0), Arc::clone(place));
        let task = tokio::task::spawn_blocking(move || {
            let _held = (turn, place);
            work(&inner)
        });
        task.await.map_err(|error| ReportFault::Ended(error.to_string()))
    }
}

/// Somebody waits for a verification; dropped, nobody does.
#[derive(Default)]
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How far a request came at once.
enum Begun {
    Answered(Value),
    Prepared(Box<Prepared>),
}

async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ReportFault> {
    Arc::clone(turns).acquire_owned().await.map_err(|error| ReportFault::Ended(error.to_string()))
}

/// What a job may take where somebody waits so long at most.
fn wall_ms(within: Option<Duration>) -> u64 {
    within.map_or(u64::MAX, |within| u64::try_from(within.as_millis()).unwrap_or(u64::MAX))
}

impl Inner {
    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<CancellationToken>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts and signs what a worker found.
    fn countersign(&self, mut verdict: Value, worker: Address, prepared: &Prepared) -> Result<Value, ReportFault> {
        let ended = |what: &str| ReportFault::Ended(format!("worker {worker:#x} gave {what}"));
        let counted = usize::from(verdict["verdict"] != "valid");
        let digest = verdict["digest"].as_str().and_then(|text| text.strip_prefix("blake3:"));
        let digest: [u8; 32] = digest
            .and_then(|digits| hex::decode(digits).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| ended("no digest"))?;
        self.counts.verdicts[counted].fetch_add(1, Ordering::Relaxed);
        verdict["evidence"]["host"]["worker"] = format!("{worker:#x}").into();
        sign(&mut verdict, Digest::new(digest), prepared.digest, prepared.domain, &self.key).expect("the key is here");
        Ok(verdict)
    }

    fn prepare(&self, text: &[u8]) -> Result<Prepared, ReportFault> {
        let text = std::str::from_utf8(text).map_err(|error| bad("request", error.to_string()))?;
        let request = Request::parse(text)?;
        let artifacts = ReadOnce { source: Arc::clone(&self.artifacts), files: Mutex::default() };
        let pinned = self.verifier.pinned(&request, &artifacts)?;
        let digest = pinned.digest();
        let domain = match &request.deal_id {
            Some(deal_id) => self.check_recorded(&request, deal_id, digest, &artifacts)?,
            None => Domain::default(),
        };
        Ok(Prepared { request, pinned, digest, domain, artifacts })
    }

    /// The deal's domain, if the request asks what the deal says.
    fn check_recorded(
        &self,
        request: &Request,
        deal_id: &DealId,
        digest: Digest,
        artifacts: &ReadOnce,
    ) -> Result<Domain, ReportFault> {
        let Some(recorded) = recorded(&self.store, deal_id)? else {
            return Err(bad("deal_id", format!("no deal {deal_id} is recorded here")));
        };
        let Some(claim) = &recorded.claim else {
            return Err(bad("claim", format!("no result is submitted in deal {deal_id}")));
        };
        let expected = Request {
            request_id: request.request_id.clone(),
            ..by_voter(Request::for_deal(&recorded.terms, claim, &recorded.replicas))
        };
        let asked = by_voter(request.clone());
        let same = |part: &Request| -> Result<bool, ReportFault> {
            Ok(self.verifier.request_digest_from(part, artifacts)? == expected.digest())
        };
        if digest == expected.digest() || same(&asked)? {
            return Ok(recorded.terms.domain());
        }
        // One part at a time in the place of the recorded one tells which differs.
        let parts = [
            ("method", Request { method: asked.method.clone(), ..expected.clone() }),
            ("job", Request { job: asked.job.clone(), ..expected.clone() }),
            ("claim", Request { claim: asked.claim.clone(), ..expected.clone() }),
            ("comparator", Request { comparator: asked.comparator.clone(), ..expected.clone() }),
        ];
        for (field, part) in parts {
            if !same(&part)? {
                return Err(bad(field, format!("is not the one recorded in deal {deal_id}")));
            }
        }
        Err(bad("deal_id", format!("the request is not what deal {deal_id} records")))
    }

    fn verify(&self, prepared: &Prepared, wall_ms_max: u64, stop: &Arc<AtomicBool>) -> Result<Value, ReportFault> {
        let verdict = self.verifier.verify_until(&prepared.request, &prepared.artifacts, wall_ms_max, stop)?;
        let counted = match verdict.verdict {
            VerdictKind::Valid => 0,
            VerdictKind::Invalid => 1,
            VerdictKind::Inconclusive => 2,
        };
        self.counts.verdicts[counted].fetch_add(1, Ordering::Relaxed);
        let mut answer = verdict.to_json();
        sign(&mut answer, verdict.digest, prepared.digest, prepared.domain, &self.key).expect("the key is here");
        Ok(answer)
    }
}

/// Signs a verdict, by its digest, as a `Report` on the request with this digest: puts `request_digest`, `signer` and `signature` into its
/// JSON.
///
/// # Errors
/// Where a remote signer fails; a key that is here never does.
pub fn sign(
    answer: &mut Value,
    verdict_digest: Digest,
    request_digest: Digest,
    domain: Domain,
    key: &dyn Signer,
) -> Result<(), SignerFault> {
    let preimage = domain.preimage(&ReportStruct {
        requestDigest: B256::new(*request_digest.bytes()),
        verdictDigest: B256::new(*verdict_digest.bytes()),
    });
    answer["request_digest"] = format!("blake3:{}", hex::encode(request_digest.bytes())).into();
    answer["signer"] = format!("{:#x}", key.address()).into();
    answer["signature"] = format!("0x{}", hex::encode(key.sign_preimage(&preimage)?.bytes())).into();
    Ok(())
}

fn bad(field: &str, problem: String) -> ReportFault {
    ReportFault::BadRequest(BadRequest { field: field.into(), problem })
}

/// The order of votes never matters: by voter.
fn by_voter(mut request: Request) -> Request {
    if let Method::Majority { votes, .. } = &mut request.method {
        votes.sort_by_key(|vote: &Vote| vote.voter);
    }
    request
}

/// What a deal records about its job.
struct Recorded {
    terms: Arc<Terms>,
    claim: Option<Arc<Claim>>,
    replicas: Vec<(Address, Arc<Claim>)>,
}

fn recorded(store: &Store, deal_id: &DealId) -> Result<Option<Recorded>, ReplayFault> {
    let mut found: Option<Recorded> = None;
    for record in store.stream(deal_id, 1) {
        let record = record?;
        let position = record.position;
        let parsed = record.envelope.parse().map_err(|source| ReplayFault::Decode { position, source })?;
        match (parsed.into_kind(), &mut found) {
            (EventKind::Proposed { terms, .. }, None) => {
                found = Some(Recorded { terms, claim: None, replicas: Vec::new() });
            }
            (EventKind::ResultSubmitted { claim, .. }, Some(found)) => found.claim = Some(claim),
            (EventKind::ReplicaSubmitted { claim }, Some(found)) => found.replicas.push((record.signer, claim)),
            _ => {}
        }
    }
    Ok(found)
}

/// Reads a named file once, so that the request that is signed for is the one that is verified.
struct ReadOnce {
    source: Arc<dyn ArtifactSource>,
    files: Mutex<BTreeMap<String, Arc<[u8]>>>,
}

impl ArtifactSource for ReadOnce {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        let Reference::File(name) = reference else { return self.source.fetch(reference) };
        let files = || self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = files().get(name) {
            return Ok(Some(Arc::clone(bytes)));
        }
        let fetched = self.source.fetch(reference)?;
        if let Some(bytes) = &fetched {
            files().insert(name.clone(), Arc::clone(bytes));
        }
        Ok(fetched)
    }
}

/// A request under way that may be cancelled.
struct UnderWay<'a> {
    inner: &'a Inner,
    id: &'a str,
    cancelled: CancellationToken,
}

impl<'a> UnderWay<'a> {
    fn of(inner: &'a Inner, id: &'a str) -> Self {
        let cancelled = CancellationToken::new();
        inner.under_way().entry(id.to_owned()).or_default().push(cancelled.clone());
        Self { inner, id, cancelled }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        // One that is over is cancelled to be told from those that are not.
        self.cancelled.cancel();
        let mut under_way = self.inner.under_way();
        if let Some(tokens) = under_way.get_mut(self.id) {
            tokens.retain(|token| !token.is_cancelled());
            if tokens.is_empty() {
                under_way.remove(self.id);
            }
        }
    }
}
