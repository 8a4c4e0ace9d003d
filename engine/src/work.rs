//! Verifications that other machines of the same operator do: a work queue on the bus.
//!
//! An engine whose own workers are all busy puts the request on `work.verify` (stream `WORK`, a work queue); any number of
//! `tribunal worker` processes pull from it; the result comes back on `results.<request digest>` (stream `RESULTS`), signed
//! by the worker. A request is named by its digest: asked again, by whomever, what was found before is found again.
//!
//! **Invariant:** a result counts only with the signature of a worker that this operator listed; else the engine does the
//! work itself. A worker's fault is nobody's guilt: an inconclusive result that comes of one is not believed either.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::consumer::{AckPolicy, PullConsumer, pull},
};
use futures::StreamExt as _;
use serde_json::Value;
use tokio::time::Instant;
use tribunal_events::{Address, B256, Digest, Domain, Signature, Signer, SignerFault, SigningKey, WorkResultStruct};
use tribunal_verifiers::Request;

use crate::bus::{Bus as _, BusFault, NatsBus, Outgoing, RESULTS, WORK};

/// Where work is put.
pub const WORK_SUBJECT: &str = "work.verify";
/// Where workers hear that a verification is not wanted any more: its request's digest in hex.
pub const CANCEL_SUBJECT: &str = "cancel.work";
/// Header of work: milliseconds after which nobody waits for it any more.
pub const HEADER_EXPIRES: &str = "Tribunal-Expires-Ms";
/// Headers of a result: who signed it, and the signature, in hex.
pub const HEADER_SIGNER: &str = "Tribunal-Signer";
/// See [`HEADER_SIGNER`].
pub const HEADER_SIGNATURE: &str = "Tribunal-Signature";

/// How often the bus is looked through for a result that was not seen passing.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Name that all workers share at the server.
const CONSUMER: &str = "workers";
/// A job whose worker said nothing for so long goes to another.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Jobs under way at all workers together.
const ACK_PENDING_MAX: i64 = 10_000;

/// The place at which all workers take their jobs, made where it is missing: by an engine, since workers may have no right
/// to make anything.
///
/// # Errors
/// [`BusFault`] where the queue is not there, or is another than work can be done from.
pub async fn consumer(bus: &NatsBus) -> Result<PullConsumer, BusFault> {
    let failed = |what: String| BusFault::Timeout { doing: "joining the workers", what };
    let stream = bus.jetstream().get_stream(WORK).await.map_err(|error| failed(error.to_string()))?;
    let wanted = pull::Config {
        durable_name: Some(CONSUMER.into()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: ACK_PENDING_MAX,
        ..Default::default()
    };
    let consumer = stream.get_or_create_consumer(CONSUMER, wanted).await;
    let consumer = consumer.map_err(|error| failed(error.to_string()))?;
    let found = &consumer.cached_info().config;
    if found.ack_policy != AckPolicy::Explicit || found.ack_wait != ACK_WAIT || found.max_deliver > 0 {
        let (ack, wait, most) = (found.ack_policy, found.ack_wait, found.max_deliver);
        return Err(BusFault::StreamConfig {
            stream: WORK.into(),
            field: "consumer workers",
            expected: format!("ack Explicit, ack_wait {ACK_WAIT:?}, max_deliver -1"),
            found: format!("ack {ack:?}, ack_wait {wait:?}, max_deliver {most}"),
        });
    }
    Ok(consumer)
}

/// Why the queue has no result.
#[derive(Debug, thiserror::Error)]
pub enum WorkFault {
    /// The bus failed, or has no room.
    #[error(transparent)]
    Bus(#[from] BusFault),
    /// No worker was done in time.
    #[error("no worker was done in {} s", .0.as_secs())]
    Late(Duration),
}

/// The engine's side of the queue.
pub struct WorkQueue {
    bus: NatsBus,
    workers: BTreeSet<Address>,
    counts: WorkCounts,
}

/// What became of work since the start.
#[derive(Debug, Default)]
pub struct WorkCounts {
    /// Put on the queue.
    pub offered: AtomicU64,
    /// Answered by a worker.
    pub answered: AtomicU64,
    /// Not answered, or not so that it counts.
    pub failed: AtomicU64,
    /// Results that nobody listed has signed.
    pub forged: AtomicU64,
}

/// The subject of a request's result.
pub fn result_subject(request_digest: &Digest) -> String {
    format!("results.{}", hex::encode(request_digest.bytes()))
}

/// The message that carries a result, signed.
///
/// # Errors
/// Where the signer fails.
pub fn result_message(request_digest: &Digest, verdict: &Value, key: &SigningKey) -> Result<Outgoing, SignerFault> {
    let bytes = verdict.to_string().into_bytes();
    let signature = key.sign_preimage(&Domain::default().preimage(&typed(request_digest, &bytes)))?;
    Ok(Outgoing::new(result_subject(request_digest), bytes)
        .with_header("Content-Type", "application/json")
        .with_header(HEADER_SIGNER, format!("{:#x}", key.address()))
        .with_header(HEADER_SIGNATURE, format!("0x{}", hex::encode(signature.bytes()))))
}

fn typed(request_digest: &Digest, result: &[u8]) -> WorkResultStruct {
    WorkResultStruct {
        requestDigest: B256::new(*request_digest.bytes()),
        resultHash: B256::new(*blake3::hash(result).as_bytes()),
    }
}

impl WorkQueue {
    /// A queue whose results count where one of these accounts signed them.
    pub fn new(bus: NatsBus, workers: impl IntoIterator<Item = Address>) -> Self {
        Self { bus, workers: workers.into_iter().collect(), counts: WorkCounts::default() }
    }

    /// What became of work so far.
    pub const fn counts(&self) -> &WorkCounts {
        &self.counts
    }

    /// Has somebody verify a request that names no files, and gives the verdict as JSON and the worker.
    ///
    /// # Errors
    /// [`WorkFault`]: do it yourself.
    pub async fn verify(&self, request: &Request, patience: Duration) -> Result<(Value, Address), WorkFault> {
        self.counts.offered.fetch_add(1, Ordering::Relaxed);
        let result = self.wait(request, patience).await;
        let count = if result.is_ok() { &self.counts.answered } else { &self.counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
        result
    }

    async fn wait(&self, request: &Request, patience: Duration) -> Result<(Value, Address), WorkFault> {
        let failed = |doing: &'static str| move |what: String| BusFault::Timeout { doing, what };
        let digest = request.digest();
        let subject = result_subject(&digest);
        let until = Instant::now() + patience;
        let subscribed = self.bus.client().subscribe(subject.clone()).await;
        let mut passing = subscribed.map_err(|error| failed("subscribing")(error.to_string()))?;
        // What was found before, unless that was somebody's fault.
        let earlier = self.found(&subject, &digest).await?;
        if let Some((_, verdict, worker)) = earlier.as_ref().filter(|(_, verdict, _)| is_conclusive(verdict)) {
            return Ok((verdict.clone(), *worker));
        }
        let known = earlier.map_or(0, |(sequence, ..)| sequence);
        let out = Outgoing::new(WORK_SUBJECT, request.canonical_json())
            // Asked again it is new work: what was asked for before may have been given up.
            .with_message_id(format!("{}/{}", hex::encode(digest.bytes()), crate::engine::now().us()))
            .with_header("Content-Type", "application/json")
            .with_header(HEADER_EXPIRES, patience.as_millis().to_string());
        self.bus.publish(out).await?;
        let mut wanted = Wanted { queue: self, digest, wanted: true };
        loop {
            let next_look = (Instant::now() + LOOK_EVERY).min(until);
            let verdict = tokio::select! {
                biased;
                passing = passing.next() => {
                    let message = passing.ok_or(BusFault::Closed)?;
                    self.open(message.headers.as_ref(), &message.payload, &digest)
                }
                () = tokio::time::sleep_until(next_look) => match self.found(&subject, &digest).await {
                    Ok(found) => found.filter(|(sequence, ..)| *sequence > known).map(|(_, verdict, by)| (verdict, by)),
                    Err(fault) if fault.can_retry() => None,
                    Err(fault) => return Err(fault.into()),
                },
            };
            if let Some(verdict) = verdict {
                wanted.wanted = false;
                return Ok(verdict);
            }
            if Instant::now() >= until {
                return Err(WorkFault::Late(patience));
            }
        }
    }

    /// The last result that is kept.
    async fn found(&self, subject: &str, digest: &Digest) -> Result<Option<(u64, Value, Address)>, BusFault> {
        let failed = |what: String| BusFault::Timeout { doing: "looking for a result", what };
        let stream =
            self.bus.jetstream().get_stream_no_info(RESULTS).await.map_err(|error| failed(error.to_string()))?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => {
                let opened = self.open(Some(&message.headers), &message.payload, digest);
                Ok(opened.map(|(verdict, worker)| (message.sequence, verdict, worker)))
            }
            Err(error) if error.kind() == async_nats::jetstream::stream::LastRawMessageErrorKind::NoMessageFound => {
                Ok(None)
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// A result that one of our workers signed.
    fn open(&self, headers: Option<&HeaderMap>, payload: &[u8], digest: &Digest) -> Option<(Value, Address)> {
        let header = |name: &str| Some(headers?.get(name)?.as_str());
        let read = || {
            let signature: Signature = serde_json::from_value(Value::from(header(HEADER_SIGNATURE)?)).ok()?;
            let signer = signature.recover(Domain::default().digest(&typed(digest, payload))).ok()?;
            let verdict = serde_json::from_slice(payload).ok()?;
            self.workers.contains(&signer).then_some((verdict, signer))
        };
        let opened = read();
        if opened.is_none() {
            self.counts.forged.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(signer = header(HEADER_SIGNER), "a result that no listed worker signed counts for nothing");
        }
        opened
    }
}

/// Work that somebody waits for; dropped before there is a result, the workers are told.
struct Wanted<'a> {
    queue: &'a WorkQueue,
    digest: Digest,
    wanted: bool,
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        if self.wanted {
            let (client, digest) = (self.queue.bus.client().clone(), hex::encode(self.digest.bytes()));
            tokio::spawn(async move {
                if let Err(error) = client.publish(CANCEL_SUBJECT, digest.into()).await {
                    tracing::debug!(%error, "workers were not told that work is not wanted any more");
                }
            });
        }
    }
}

/// Whether another machine would find the same.
pub fn is_conclusive(verdict: &Value) -> bool {
    matches!(verdict["verdict"].as_str(), Some("valid" | "invalid"))
}
