//! A stateless worker: pulls verifications from the queue, does them, and signs what it found. See [`crate::work`].
//!
//! A job is acknowledged only after its result is on the bus, and kept alive while it is worked on: a worker that dies
//! loses nothing, another one takes its job. A job that keeps killing workers is given up, inconclusively.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::{AckKind, Message, consumer::PullConsumer};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tribunal_events::{Digest, SigningKey};
use tribunal_verifiers::{Request, Service};

use crate::{
    bus::{Bus as _, BusFault, NatsBus},
    work::{self, CANCEL_SUBJECT, HEADER_EXPIRES, result_message},
};

/// How often a worker says that it is at work.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long the server holds a question for work.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// A job that was handed out so often without a result is given up.
const DELIVERIES_MAX: i64 = 5;
/// Attempts to publish a result before the job is left to another worker.
const PUBLISH_ATTEMPTS: u32 = 10;

/// What a worker is made of.
pub struct Worker {
    bus: NatsBus,
    service: Arc<Service>,
    key: SigningKey,
    /// Verifications side by side.
    places: usize,
    /// Work under way that nobody may want any more, by request digest.
    running: Mutex<BTreeMap<String, CancellationToken>>,
}

impl Worker {
    /// A worker with so many places.
    pub fn new(bus: NatsBus, service: Arc<Service>, key: SigningKey, places: usize) -> Arc<Self> {
        Arc::new(Self { bus, service, key, places: places.max(1), running: Mutex::default() })
    }

    /// Works until cancelled, then finishes what is under way.
    ///
    /// # Errors
    /// Where the queue cannot be read at the start.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), BusFault> {
        let consumer = work::consumer(&self.bus).await?;
        let (places, tasks) = (Arc::new(Semaphore::new(self.places)), TaskTracker::new());
        tasks.spawn(Arc::clone(&self).hear_cancellations(cancel.clone()));
        tracing::info!(worker = %self.key.address(), places = self.places, bus = self.bus.describe(), "worker starts");
        let mut pause = Duration::from_millis(100);
        loop {
            // A place first: what is pulled is worked on at once.
            let place = tokio::select! {
                () = cancel.cancelled() => break,
                place = Arc::clone(&places).acquire_owned() => place.expect("never closed"),
            };
            let pulled = tokio::select! {
                () = cancel.cancelled() => break,
                pulled = self.pull(&consumer) => pulled,
            };
            match pulled {
                Ok(None) => {}
                Ok(Some(message)) => {
                    pause = Duration::from_millis(100);
                    let this = Arc::clone(&self);
                    tasks.spawn(async move {
                        this.work(message).await;
                        drop(place);
                    });
                }
                Err(problem) => {
                    tracing::warn!(problem, "the queue cannot be read; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                    // The stream or its consumer may be gone with a server's files.
                    if let Err(fault) = work::consumer(&self.bus).await {
                        tracing::warn!(%fault, "the queue is not there");
                    }
                }
            }
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }

    async fn pull(&self, consumer: &PullConsumer) -> Result<Option<Message>, String> {
        let batch = consumer.fetch().max_messages(1).expires(PULL_EXPIRES).messages().await;
        let mut batch = batch.map_err(|error| error.to_string())?;
        batch.next().await.transpose().map_err(|error| error.to_string())
    }

    async fn work(&self, message: Message) {
        let info = match message.info() {
            Ok(info) => (info.delivered, info.published),
            Err(error) => {
                tracing::warn!(%error, "work without metadata is left");
                return;
            }
        };
        let header = |name: &str| message.headers.as_ref()?.get(name)?.as_str().parse::<u64>().ok();
        let expires = header(HEADER_EXPIRES).unwrap_or(u64::MAX);
        let age_us = crate::engine::now().us().saturating_sub(crate::bus::timestamp(info.1).us());
        let left_ms = expires.saturating_sub(age_us / 1000);
        let digest = Digest::blake3(&message.payload);
        let name = hex::encode(digest.bytes());
        if left_ms == 0 {
            tracing::info!(request = name, "nobody waits for this work any more");
            return acknowledge(&message).await;
        }
        if info.0 > DELIVERIES_MAX {
            let detail = format!("{} workers took this verification and none of them gave a result", info.0 - 1);
            tracing::error!(request = name, detail, "work is given up");
            let verdict = json!({
                "verdict": "inconclusive",
                "reason": { "code": "executor-fault", "detail": detail },
                "evidence": {},
            });
            return self.publish(&digest, &verdict, &message).await;
        }
        let unwanted = CancellationToken::new();
        self.running().insert(name.clone(), unwanted.clone());
        let (service, payload) = (Arc::clone(&self.service), message.payload.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut verifying = tokio::task::spawn_blocking(move || verify(&service, &payload, left_ms, &stopped));
        let verdict = loop {
            tokio::select! {
                verdict = &mut verifying => break verdict.ok(),
                () = unwanted.cancelled() => {
                    tracing::info!(request = name, "nobody wants this work any more");
                    stop.store(true, Ordering::Relaxed);
                    let _ = verifying.await;
                    break None;
                }
                () = tokio::time::sleep(ALIVE_EVERY) => {
                    if let Err(error) = message.ack_with(AckKind::Progress).await {
                        tracing::debug!(%error, "the server was not told that work goes on");
                    }
                }
            }
        };
        self.running().remove(&name);
        match verdict {
            Some(verdict) => self.publish(&digest, &verdict, &message).await,
            None if unwanted.is_cancelled() => acknowledge(&message).await,
            // It panicked: another worker takes it, and after a few of them nobody.
            None => tracing::error!(request = name, "a verification ended unexpectedly"),
        }
    }

    /// Publishes a result, and only then says that the job is done.
    async fn publish(&self, digest: &Digest, verdict: &Value, message: &Message) {
        let out = result_message(digest, verdict, &self.key).expect("the key is here");
        for attempt in 1..=PUBLISH_ATTEMPTS {
            match self.bus.publish(out.clone()).await {
                Ok(_) => return acknowledge(message).await,
                Err(fault @ BusFault::Oversized { .. }) => {
                    tracing::error!(%fault, "a result is too large for the bus; the engine does the work itself");
                    return acknowledge(message).await;
                }
                Err(fault) => tracing::warn!(%fault, attempt, "a result was not published; trying again"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn hear_cancellations(self: Arc<Self>, cancel: CancellationToken) {
        let Ok(mut words) = self.bus.client().subscribe(CANCEL_SUBJECT).await else { return };
        loop {
            let word = tokio::select! {
                () = cancel.cancelled() => return,
                word = words.next() => word,
            };
            let Some(word) = word else { return };
            let name = std::str::from_utf8(&word.payload).unwrap_or_default().trim().to_owned();
            if let Some(running) = self.running().get(&name) {
                running.cancel();
            }
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn verify(service: &Service, payload: &[u8], wall_ms_max: u64, stop: &Arc<AtomicBool>) -> Value {
    let text = String::from_utf8_lossy(payload);
    let verdict =
        Request::parse(&text).and_then(|request| service.verify_until(&request, service.source(), wall_ms_max, stop));
    match verdict {
        Ok(verdict) => verdict.to_json(),
        // The engine that put it here read it before: it is of another version.
        Err(bad) => json!({
            "verdict": "inconclusive",
            "reason": { "code": "executor-fault", "detail": format!("this worker cannot read the request: {bad}") },
            "evidence": {},
        }),
    }
}

async fn acknowledge(message: &Message) {
    if let Err(error) = message.double_ack().await {
        tracing::warn!(%error, "the server was not told that work is done; somebody will do it again");
    }
}
