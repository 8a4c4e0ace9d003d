//! The running engine: ingestion, the writer, effects and the clock, wired together.
//!
//! One thread writes ([`Partition`]); everything else feeds it through a bounded channel or follows what it recorded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use prost::Message as _;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tribunal_contracts::Chain;
use tribunal_events::{ReceiptStatus, Signer, Timestamp, proto};
use tribunal_verifiers::{ArtifactSource, Service};

use crate::{
    bus::{BatchLimits, Bus, BusFault, Message, Outgoing},
    chain_observer::{self, Following},
    effects::{Activity, Performer},
    fence::{Fence, FenceFault},
    log::{LogFault, LogSigner},
    mediator::{
        Mediator, MediatorFault,
        desk::{self, Desk},
        history::History,
        inbox,
        pace::Pace,
        schedule::Schedule,
        voice::OnBus,
    },
    partition::{CLOCK_SUBJECT, Job, Partition, PartitionFault, Processed, Settings},
    store::{OutboxEntry, Store, StoreFault},
};

/// Batches on their way to the writer at most.
const BATCHES_IN_FLIGHT: usize = 4;
/// Receipts on their way to the bus at most, in batches.
const RECEIPTS_IN_FLIGHT: usize = 64;

/// Receipts and refusals that wait for the bus's answer at once.
const PUBLISHED_IN_FLIGHT: usize = 256;
/// How far the bus's clock may be ahead of this machine's.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(60);

/// What an engine is made of.
pub struct Parts {
    /// The record.
    pub store: Store,
    /// The conveyor.
    pub bus: Arc<dyn Bus>,
    /// Where money is, if anywhere.
    pub chain: Option<Arc<dyn Chain>>,
    /// Checks claims.
    pub verifier: Arc<Service>,
    /// Serves artifacts.
    pub artifacts: Arc<dyn ArtifactSource>,
    /// Keys, contracts and time source of the writer.
    pub settings: Settings,
    /// Keys that judge here.
    pub mediators: Vec<Arc<dyn Signer>>,
    /// What they mean to sign; needed where there are any.
    pub history: Option<Arc<History>>,
    /// Verifications side by side.
    pub workers: usize,
    /// Fuel that this machine is taken to burn in a second until it was measured.
    pub fuel_per_s: u64,
    /// Whether other engines may write the same stream: nothing leaves then that does not follow what left before.
    pub fencing: Fencing,
}

/// Whether what is recorded is fenced before it is released; see [`crate::fence`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fencing {
    /// Nobody else can write: the bus is in this process.
    #[default]
    Off,
    /// On the bus.
    On {
        /// What names this run of the engine.
        holder: String,
        /// Whether what was released before counts for nothing: its store is lost.
        take_over: bool,
    },
}

/// The engine could not start or go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum EngineFault {
    #[error(transparent)]
    Store(#[from] StoreFault),
    #[error(transparent)]
    Bus(#[from] BusFault),
    #[error(transparent)]
    Partition(#[from] PartitionFault),
    #[error(transparent)]
    Mediator(#[from] MediatorFault),
    #[error(transparent)]
    Fence(#[from] FenceFault),
    #[error("mediators run here, but no signing history is given")]
    NoHistory,
}

/// A running engine.
pub struct Engine {
    store: Store,
    bus: Arc<dyn Bus>,
    activity: Arc<Activity>,
    recorded: broadcast::Sender<u64>,
    failed: watch::Receiver<Option<String>>,
    cancel: CancellationToken,
    tasks: TaskTracker,
    ready: Arc<AtomicBool>,
    desk: Option<Arc<Desk>>,
    jobs: mpsc::Sender<Vec<Job>>,
    effects: mpsc::UnboundedSender<Vec<OutboxEntry>>,
}

impl Engine {
    /// Starts reading the bus after the cursor in the store.
    ///
    /// # Errors
    /// Where the store or the bus cannot be read.
    pub async fn start(parts: Parts) -> Result<Self, EngineFault> {
        let Parts {
            store,
            bus,
            chain,
            verifier,
            artifacts,
            settings,
            mediators,
            history,
            workers,
            fuel_per_s,
            fencing,
        } = parts;
        // First of all: what is pending is performed at once.
        let fence = match fencing {
            Fencing::Off => None,
            Fencing::On { holder, take_over } => {
                let (bus, operator) = (Arc::clone(&bus), settings.operator.clone());
                Some(Fence::take(bus, store.clone(), operator, holder, take_over).await?)
            }
        };
        let cancel = CancellationToken::new();
        let tasks = TaskTracker::new();
        let activity = Arc::new(Activity::default());
        let (failures, failed) = watch::channel(None);
        let (recorded, _) = broadcast::channel(1024);
        let (to_writer, from_tasks) = mpsc::channel::<Vec<Job>>(BATCHES_IN_FLIGHT);
        let (to_performer, from_writer) = mpsc::unbounded_channel::<Vec<OutboxEntry>>();
        let (to_publisher, receipts) = mpsc::channel::<Processed>(RECEIPTS_IN_FLIGHT);
        let deadline_changed = Arc::new(Notify::new());
        let (deadlines, next_deadline) = watch::channel(None);

        let partition = Partition::new(store.clone(), settings.clone(), bus.stream())?;
        activity.clock_us.store(partition.clock().us(), Ordering::SeqCst);
        activity.released.store(fence.as_ref().map_or(u64::MAX, |_| store.last_position()), Ordering::SeqCst);
        let pending = store.outbox()?;
        activity.effects.fetch_add(pending.len(), Ordering::SeqCst);
        let _ = to_performer.send(pending);

        let (caught_up, has_caught_up) = watch::channel(false);
        let desk = match history {
            Some(history) => {
                let recorded = settings.recorded_time.then(|| Arc::clone(&activity));
                let mediator = |key| {
                    let (verifier, artifacts) = (Arc::clone(&verifier), Arc::clone(&artifacts));
                    Mediator::new(key, store.clone(), Arc::clone(&history), verifier, artifacts)
                };
                Some(Desk::new(desk::Parts {
                    store: store.clone(),
                    voice: Arc::new(OnBus { bus: Arc::clone(&bus), recorded }),
                    mediators: mediators.into_iter().map(mediator).collect::<Result<_, _>>()?,
                    history: Arc::clone(&history),
                    counts: Arc::default(),
                    schedule: Schedule::new(workers),
                    domains: settings.domains.clone(),
                    pace: Arc::new(Pace::new(fuel_per_s)),
                    activity: Arc::clone(&activity),
                    recorded_time: settings.recorded_time,
                    caught_up: has_caught_up,
                    cancel: cancel.clone(),
                }))
            }
            None if mediators.is_empty() => None,
            None => return Err(EngineFault::NoHistory),
        };
        if let Some(desk) = &desk {
            tasks.spawn(Arc::clone(desk).sweep());
        }
        let performer = Performer {
            store: store.clone(),
            bus: Arc::clone(&bus),
            chain,
            desk: desk.clone(),
            jobs: to_writer.clone(),
            activity: Arc::clone(&activity),
            cancel: cancel.clone(),
        };
        tasks.spawn(Arc::new(performer).run(from_writer));
        tasks.spawn(publish(Arc::clone(&bus), receipts, cancel.clone()));
        let writer = Writer {
            partition,
            fence,
            jobs: from_tasks,
            activity: Arc::clone(&activity),
            effects: to_performer.clone(),
            receipts: to_publisher,
            recorded: recorded.clone(),
            deadlines,
            deadline_changed: Arc::clone(&deadline_changed),
            failures,
            cancel: cancel.clone(),
            behind_until: None,
            caught_up,
        };
        if !settings.recorded_time {
            tasks.spawn(tick(Arc::clone(&bus), next_deadline, deadline_changed, cancel.clone()));
        }
        let cursor = store.cursor(bus.stream())?;
        if let Some(cursor) = &cursor {
            activity.sequence.store(cursor.sequence, Ordering::SeqCst);
        }
        let mut consumer = bus.consume(cursor).await?;
        if let crate::bus::ConsumeStart::Restarted { reason, incarnation } = consumer.start() {
            tracing::warn!(reason, incarnation, "the stream is not the one read before; it is read again");
            activity.sequence.store(0, Ordering::SeqCst);
        }
        let mut writer = writer;
        writer.catch_up_to(bus.last().await?);
        tasks.spawn_blocking(move || writer.run());
        let recorded_time = settings.recorded_time;
        let (stop, counts, jobs) = (cancel.clone(), Arc::clone(&activity), to_writer.clone());
        let ready = Arc::new(AtomicBool::new(true));
        let is_ready = Arc::clone(&ready);
        tasks.spawn(async move {
            loop {
                let batch = tokio::select! {
                    () = stop.cancelled() => return,
                    batch = consumer.next_batch(BatchLimits::default()) => batch,
                };
                match batch {
                    Ok(messages) => {
                        if !recorded_time && !clocks_agree(&messages, &is_ready, &counts, &stop).await {
                            return;
                        }
                        counts.jobs.fetch_add(messages.len(), Ordering::SeqCst);
                        if to_writer.send(messages.into_iter().map(Job::Message).collect()).await.is_err() {
                            return;
                        }
                    }
                    Err(fault) => {
                        tracing::error!(%fault, "reading the bus failed; someone must act");
                        is_ready.store(false, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        });
        Ok(Self { store, bus, activity, recorded, failed, cancel, tasks, ready, desk, jobs, effects: to_performer })
    }

    /// Follows the contracts that this engine serves, on a chain that others write to as well: what a reorganisation takes
    /// back goes back in the record and is done again. A chain in this process has none, so it needs none of this.
    pub fn follow_chain(&self, following: Following) {
        let desk = self.desk.as_ref();
        self.tasks.spawn(chain_observer::follow(chain_observer::Parts {
            following,
            store: self.store.clone(),
            jobs: self.jobs.clone(),
            effects: self.effects.clone(),
            activity: Arc::clone(&self.activity),
            judges: desk.map(|desk| desk.addresses()).unwrap_or_default(),
            only_on_chain: desk.map(|desk| Arc::clone(&desk.counts().only_on_chain)).unwrap_or_default(),
            cancel: self.cancel.clone(),
        }));
    }

    /// Has the log signed: `every` so often if it grew, at once when it grew by `records`, and at the end. Other programs may
    /// go by what is signed, so a log that contradicts what was signed before is an alarm and is not signed.
    pub fn keep_checkpoints(&self, signer: Arc<LogSigner>, every: Duration, records: u64) {
        let (store, cancel, counts) = (self.store.clone(), self.cancel.clone(), Arc::clone(&self.activity));
        let mut recorded = self.recorded.subscribe();
        let (every, records) = (every.max(Duration::from_millis(100)), records.max(1));
        self.tasks.spawn(async move {
            // Not at once: an engine that starts has more urgent things to do.
            let mut due = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
            due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut signed = counts.signed.load(Ordering::Relaxed);
            loop {
                let ended = tokio::select! {
                    () = cancel.cancelled() => true,
                    _ = due.tick() => false,
                    position = recorded.recv() => match position {
                        Ok(position) if position < signed + records => continue,
                        Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => false,
                        Err(broadcast::error::RecvError::Closed) => true,
                    },
                };
                let (signing, of, released) = (Arc::clone(&signer), store.clone(), Arc::clone(&counts));
                let released = move || released.released.load(Ordering::SeqCst);
                match tokio::task::spawn_blocking(move || signing.checkpoint_released(&of, &released)).await {
                    // A moment later it will be; or never, and then nobody else must see it either.
                    Ok(Err(LogFault::Unreleased)) => {}
                    Ok(Ok(note)) => {
                        signed = note.map_or(0, |note| note.checkpoint().size);
                        counts.signed.store(signed, Ordering::Relaxed);
                        counts.unsigned.store(false, Ordering::Relaxed);
                    }
                    Ok(Err(fault)) => {
                        counts.unsigned.store(true, Ordering::Relaxed);
                        tracing::error!(%fault, "the log is not signed; someone must act");
                    }
                    Err(fault) => tracing::error!(%fault, "signing the log ended unexpectedly"),
                }
                if ended {
                    return;
                }
            }
        });
    }

    /// The record, for reading.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The conveyor.
    pub fn bus(&self) -> &Arc<dyn Bus> {
        &self.bus
    }

    /// Log positions as they are recorded; a slow reader misses some and reads them from the store.
    pub fn recorded(&self) -> broadcast::Receiver<u64> {
        self.recorded.subscribe()
    }

    /// A handle to [`Engine::recorded`] that outlives a borrow.
    pub fn recorded_sender(&self) -> broadcast::Sender<u64> {
        self.recorded.clone()
    }

    /// Where the mediators of this engine work, if it runs any.
    pub const fn desk(&self) -> Option<&Arc<Desk>> {
        self.desk.as_ref()
    }

    /// What is under way.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Whether events are read from the bus and written to the store.
    pub fn is_ready(&self) -> bool {
        self.readiness()()
    }

    /// [`Engine::is_ready`] as a function that outlives a borrow.
    pub fn readiness(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let (bus, failed, ready) = (Arc::clone(&self.bus), self.failed.clone(), Arc::clone(&self.ready));
        move || failed.borrow().is_none() && bus.connected() && ready.load(Ordering::SeqCst)
    }

    /// Resolves when the writer has failed, with the reason.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        loop {
            if let Some(reason) = failed.borrow_and_update().clone() {
                return reason;
            }
            if failed.changed().await.is_err() {
                return "the writer is gone".into();
            }
        }
    }

    /// Waits until all that is on the bus is recorded and nothing is left to do but what waits for time or for others.
    ///
    /// # Errors
    /// Where the bus cannot be asked.
    pub async fn idle(&self) -> Result<(), EngineFault> {
        let mut calm = 0;
        loop {
            let last = self.bus.last().await?;
            let read = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::SeqCst);
            let still = self.activity.sequence.load(Ordering::SeqCst) >= last
                && read(&self.activity.jobs) == 0
                && read(&self.activity.effects) == 0;
            calm = if still { calm + 1 } else { 0 };
            if calm >= 2 || self.failed.borrow().is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Stops reading, gives what is at work `grace` to finish, and closes. What is left is resumed at the next start.
    pub async fn shutdown(self, grace: Duration) {
        self.cancel.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(grace, self.tasks.wait()).await;
        let cases = self.desk.iter().flat_map(|desk| inbox::inbox(&self.store, &desk.addresses()).unwrap_or_default());
        for case in cases.filter(|case| case.stage.is_our_turn()) {
            let deadline = case.deadline.map(|at| at.to_string());
            tracing::warn!(deal_id = %case.deal_id, stage = case.stage.word(), deadline,
                "left to the next start: do not wait long");
        }
    }
}

struct Writer {
    partition: Partition,
    fence: Option<Fence>,
    jobs: mpsc::Receiver<Vec<Job>>,
    activity: Arc<Activity>,
    effects: mpsc::UnboundedSender<Vec<OutboxEntry>>,
    receipts: mpsc::Sender<Processed>,
    recorded: broadcast::Sender<u64>,
    deadlines: watch::Sender<Option<Timestamp>>,
    deadline_changed: Arc<Notify>,
    failures: watch::Sender<Option<String>>,
    cancel: CancellationToken,
    /// Where the bus ended at the start, until the record has got there.
    behind_until: Option<u64>,
    caught_up: watch::Sender<bool>,
}

impl Writer {
    /// Says so once the record holds all that was on the bus up to this sequence.
    fn catch_up_to(&mut self, sequence: u64) {
        self.behind_until = Some(sequence);
        self.check_whether_caught_up();
    }

    fn check_whether_caught_up(&mut self) {
        if self.behind_until.is_some_and(|until| self.activity.sequence.load(Ordering::SeqCst) >= until) {
            self.behind_until = None;
            self.caught_up.send_replace(true);
        }
    }

    fn run(mut self) {
        let handle = tokio::runtime::Handle::current();
        loop {
            let cancel = self.cancel.clone();
            let jobs = &mut self.jobs;
            let batch = handle.block_on(async {
                tokio::select! {
                    () = cancel.cancelled() => None,
                    batch = jobs.recv() => batch,
                }
            });
            let Some(mut batch) = batch else { return };
            // What came in meanwhile shares the sync.
            while batch.len() < 4096
                && let Ok(more) = self.jobs.try_recv()
            {
                batch.extend(more);
            }
            let count = batch.len();
            let sequence = batch.iter().rev().find_map(|job| match job {
                Job::Message(message) => Some(message.stream_sequence),
                _ => None,
            });
            let processed = self.partition.process(batch).map_err(|fault| fault.to_string());
            match processed.and_then(|processed| self.fenced(&handle, processed)) {
                Ok(None) => return,
                Ok(Some(processed)) => {
                    self.activity.clock_us.store(self.partition.clock().us(), Ordering::SeqCst);
                    let again = |receipt: &&proto::Receipt| receipt.status == ReceiptStatus::Duplicate as i32;
                    let again = processed.receipts.iter().filter(again).count() as u64;
                    self.activity.duplicates.fetch_add(again, Ordering::Relaxed);
                    if !processed.effects.is_empty() {
                        self.activity.effects.fetch_add(processed.effects.len(), Ordering::SeqCst);
                        let _ = self.effects.send(processed.effects.clone());
                    }
                    if let Some(last) = processed.records.last() {
                        let _ = self.recorded.send(last.position);
                    }
                    self.deadlines.send_replace(self.partition.next_deadline());
                    self.deadline_changed.notify_one();
                    if !processed.receipts.is_empty() {
                        let _ = handle.block_on(self.receipts.send(processed));
                    }
                    if let Some(sequence) = sequence {
                        self.activity.sequence.store(sequence, Ordering::SeqCst);
                        self.check_whether_caught_up();
                    }
                    self.activity.jobs.fetch_sub(count, Ordering::SeqCst);
                }
                Err(fault) => {
                    // What reached the disk is known only after opening the store again: stop here.
                    tracing::error!(fault, "the writer stops; someone must act");
                    self.failures.send_replace(Some(fault));
                    return;
                }
            }
        }
    }
}

impl Writer {
    /// Hands on what may be released: at once without a fence, else when its head is on the bus. Nothing where the engine
    /// ends meanwhile; what is recorded is released at its next start.
    fn fenced(&mut self, handle: &tokio::runtime::Handle, processed: Processed) -> Result<Option<Processed>, String> {
        let quiet = processed.records.is_empty() && processed.receipts.is_empty() && processed.effects.is_empty();
        let Some(fence) = self.fence.as_mut().filter(|_| !quiet) else { return Ok(Some(processed)) };
        let cancel = self.cancel.clone();
        handle.block_on(async {
            tokio::select! {
                told = fence.advance() => match told {
                    Ok(records) => {
                        self.activity.released.store(records, Ordering::SeqCst);
                        Ok(Some(processed))
                    }
                    Err(fault) => Err(fault.to_string()),
                },
                () = cancel.cancelled() => Ok(None),
            }
        })
    }
}

/// Publishes receipts and refusals after they are durable, many at once. One that is lost is asked for again by its sender.
async fn publish(bus: Arc<dyn Bus>, mut receipts: mpsc::Receiver<Processed>, cancel: CancellationToken) {
    loop {
        let processed = tokio::select! {
            () = cancel.cancelled() => return,
            processed = receipts.recv() => processed,
        };
        let Some(processed) = processed else { return };
        let refused = processed.refused.into_iter().map(|refused| {
            let reason: String = refused.reason.chars().take(500).collect();
            Outgoing::new(format!("refused.{}", refused.reason_code), refused.bytes)
                .with_header("Tribunal-Reason", reason)
                .with_header("Tribunal-Subject", refused.subject)
        });
        let all = processed.receipts.iter().map(receipt_message).chain(refused);
        // In order on the wire: of two receipts for one event the later one must come later.
        let mut answers = futures::stream::iter(all.map(|out| bus.publish(out))).buffered(PUBLISHED_IN_FLIGHT);
        while let Some(published) = answers.next().await {
            if let Err(fault) = published {
                tracing::warn!(%fault, "a receipt or refusal was not published; its sender will ask again");
            }
        }
    }
}

/// The message that carries a signed receipt (protobuf).
fn receipt_message(receipt: &proto::Receipt) -> Outgoing {
    let hex = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
    let subject = format!("receipts.{}.{}", hex(&receipt.deal_id), hex(&receipt.event_id));
    let status = ReceiptStatus::Refused as i32;
    let out = Outgoing::new(subject, receipt.encode_to_vec());
    if receipt.status == status { out.with_header("Tribunal-Reason-Code", receipt.reason_code.clone()) } else { out }
}

/// Puts a message that only carries time on the bus whenever a deadline has passed, so that time comes in on the bus
/// like everything else, behind all that was sent before.
async fn tick(
    bus: Arc<dyn Bus>,
    next: watch::Receiver<Option<Timestamp>>,
    changed: Arc<Notify>,
    cancel: CancellationToken,
) {
    loop {
        let due = *next.borrow();
        let now = now();
        let wait = match due {
            Some(at) if at < now => Duration::ZERO,
            Some(at) => Duration::from_micros(at.us() - now.us() + 1_000).min(Duration::from_secs(60)),
            None => Duration::from_secs(60),
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = changed.notified() => continue,
            () = tokio::time::sleep(wait) => {}
        }
        if due.is_some_and(|at| at < self::now()) {
            if let Err(fault) = bus.publish(Outgoing::new(CLOCK_SUBJECT, Vec::new())).await {
                tracing::warn!(%fault, "time could not be put on the bus");
            }
            // The broker's clock may be behind ours; ask again in a while.
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
        }
    }
}

/// Waits until no message is from so far in the future that one of the two clocks must be wrong: time decides who was late,
/// and a deadline that a wrong clock brings on costs somebody money. Whether to go on.
async fn clocks_agree(messages: &[Message], ready: &AtomicBool, counts: &Activity, stop: &CancellationToken) -> bool {
    let latest = messages.iter().map(|message| message.at).max().unwrap_or_default();
    let most = u64::try_from(CLOCK_AHEAD_MAX.as_micros()).unwrap_or(u64::MAX);
    let mut said = false;
    while latest.us().saturating_sub(now().us()) > most {
        if !said {
            tracing::error!(
                bus = %latest, here = %now(),
                "the bus's clock and this machine's differ by more than a minute; nothing is recorded until they agree: someone must act"
            );
            said = true;
            counts.clocks_differ.store(true, Ordering::Relaxed);
            ready.store(false, Ordering::SeqCst);
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    if said {
        counts.clocks_differ.store(false, Ordering::Relaxed);
        ready.store(true, Ordering::SeqCst);
    }
    true
}

/// The time of this machine: for waiting, and for a bus in this process. Never for deciding.
#[allow(clippy::disallowed_methods, reason = "the one place where the clock is read")]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_us(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
