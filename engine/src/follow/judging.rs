//! Judging from records that are followed: a desk over each copy, heard over the operator's HTTP API.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tribunal_core::{EffectKind, react};
use tribunal_events::{Address, DealId, Envelope, EventId};

use super::{FollowFault, Follower};
use crate::{
    config::{FollowConfig, MediatorConfig},
    effects::Activity,
    engine::now,
    failure::Failure,
    mediator::{
        Mediator, MediatorFault,
        desk::{self, Desk},
        history::{CLAIM_BYTES, History, Slot},
        schedule::Urgency,
        voice::Voice,
    },
    store::Store,
    submit::{HttpSender, Operators, Patience},
    watch::Watcher,
};

/// Wait before a connection is made anew.
const AGAIN: Duration = Duration::from_secs(1);
/// Finished cases that wait to be checked again, at most.
const FINISHED_MAX: usize = 10_000;
/// By how much an operator's clock may be ahead of ours before it is not believed, in microseconds.
const AHEAD_US_MAX: u64 = 5_000_000;

/// A voice that is heard over the operator's HTTP API. It shares no bus with other machines, so nothing holds a slot but the
/// own signing history: use a key on one machine only.
pub struct OverHttp {
    sender: HttpSender,
    operators: Operators,
}

impl OverHttp {
    /// A voice to the engine of `operator` at `url`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the address.
    pub fn new(url: &str, operator: Address, token: Option<String>) -> Result<Self, String> {
        let operators = Operators::given(Some(operator));
        HttpSender::new(url, token, Patience::default()).map(|sender| Self { sender, operators })
    }
}

impl Voice for OverHttp {
    fn say<'a>(&'a self, envelope: &'a Envelope, _again: bool) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let answer = self.sender.send(envelope, &self.operators).await.map_err(|fault| fault.to_string())?;
            if !answer.is_recorded() {
                let event_id: EventId = envelope.event_id();
                tracing::warn!(%event_id, code = answer.receipt.reason_code, reason = answer.receipt.reason,
                    "what this mediator said was refused");
            }
            Ok(())
        })
    }

    fn clock_ahead_us(&self) -> BoxFuture<'_, Result<Option<i64>, String>> {
        // What is recorded while we listen tells it.
        Box::pin(async move { Ok(None) })
    }

    fn claim<'a>(&'a self, slot: &'a Slot, message: Vec<u8>) -> BoxFuture<'a, Result<[u8; CLAIM_BYTES], String>> {
        Box::pin(async move { slot.read_claim(&message).ok_or_else(|| "this is no claim".to_owned()) })
    }
}

/// Follows a record and lets a desk judge from it, until cancelled.
struct Judging {
    /// The copy.
    follower: Follower,
    /// Where the mediators work; over the copy's store.
    desk: Arc<Desk>,
    /// The record's clock.
    activity: Arc<Activity>,
    /// Becomes true once the copy has what the service held when it was first reached.
    caught_up: watch::Sender<bool>,
    /// Checks finished cases again.
    watcher: Option<Arc<Watcher>>,
    /// Ends it.
    cancel: CancellationToken,
}

impl Judging {
    /// Runs until cancelled, or until the record cannot be followed any more.
    async fn run(mut self) {
        let tasks = TaskTracker::new();
        tasks.spawn(Arc::clone(&self.desk).sweep());
        let (to_watcher, finished) = mpsc::channel(FINISHED_MAX);
        if let Some(watcher) = self.watcher.take() {
            let (store, desk) = (self.follower.store().clone(), Arc::clone(&self.desk));
            tasks.spawn(check_again(watcher, store, desk, finished, self.cancel.clone()));
        }
        loop {
            let cancel = self.cancel.clone();
            let once = tokio::select! {
                () = cancel.cancelled() => break,
                once = self.once(&tasks, &to_watcher) => once,
            };
            match once {
                Err(fault) if !fault.retry_helps() => {
                    self.desk.counts().following_stopped.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%fault, "a record is not followed any more; someone must act");
                    break;
                }
                Err(fault) => tracing::warn!(%fault, "the record is asked for again"),
                Ok(()) => {}
            }
            tokio::select! {
                () = self.cancel.cancelled() => break,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn once(&mut self, tasks: &TaskTracker, finished: &mpsc::Sender<DealId>) -> Result<(), FollowFault> {
        let Self { follower, desk, activity, caught_up, .. } = self;
        let end = follower.end().await?;
        if follower.store().last_position() >= end {
            caught_up.send_replace(true);
        }
        follower
            .read(|news| {
                if news.deal.is_some() {
                    let at = news.record.recorded_at.us().min(now().us().saturating_add(AHEAD_US_MAX));
                    activity.clock_us.fetch_max(at, Ordering::SeqCst);
                }
                if news.record.position >= end {
                    caught_up.send_replace(true);
                }
                // Recorded while we listened: a moment ago by the operator's clock.
                if news.deal.is_some() && news.record.position > end {
                    let ahead = news.record.recorded_at.us().cast_signed().saturating_sub(now().us().cast_signed());
                    // A clock that is off by more is somebody's mistake, not a measure.
                    if ahead.unsigned_abs() <= AHEAD_US_MAX {
                        desk.set_clock_ahead(ahead);
                    }
                }
                if news.closed {
                    // Full, or nobody checks: `mediator watch` finds what is left out here.
                    let _ = finished.try_send(news.record.deal_id);
                }
                let Some(deal) = news.deal else { return true };
                let Ok(parsed) = news.record.envelope.parse() else { return true };
                for effect in react(&deal, &parsed.into_kind(), news.record.signer) {
                    let (desk, deal_id) = (Arc::clone(desk), deal.id());
                    let work = async move {
                        match effect.kind {
                            EffectKind::Judge { round } => desk.judge(&deal_id, round).await,
                            EffectKind::RevealVotes { round } => desk.reveal(&deal_id, round).await,
                            _ => Ok(()),
                        }
                    };
                    if !effect.kind.is_chain() && effect.kind != EffectKind::Publish {
                        tasks.spawn(async move {
                            // What fails here the desk's sweep does again.
                            if let Err(problem) = work.await {
                                tracing::warn!(%deal_id, problem, "a case will be tried again");
                            }
                        });
                    }
                }
                true
            })
            .await
    }
}

/// Checks finished cases again, one at a time.
async fn check_again(
    watcher: Arc<Watcher>,
    store: Store,
    desk: Arc<Desk>,
    mut finished: mpsc::Receiver<DealId>,
    cancel: CancellationToken,
) {
    loop {
        let deal_id = tokio::select! {
            () = cancel.cancelled() => return,
            deal_id = finished.recv() => deal_id,
        };
        let Some(deal_id) = deal_id else { return };
        // Whatever is left of the machine: own cases come first, and a turn that is taken is not given back half-way.
        loop {
            let reader = Arc::clone(&desk);
            let cases = tokio::task::spawn_blocking(move || reader.cases()).await.unwrap_or_default();
            if !cases.iter().any(|case| case.stage.is_our_turn()) {
                break;
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
        let turn = tokio::select! {
            () = cancel.cancelled() => return,
            turn = desk.schedule().turn(Urgency::LEAST, true) => turn,
        };
        let (watcher, store) = (Arc::clone(&watcher), store.clone());
        match tokio::task::spawn_blocking(move || watcher.check(&store, &deal_id)).await {
            Ok(Ok(found)) => {
                for alarm in found.iter().filter(|alarm| alarm.is_alarm()) {
                    desk.counts().divergences.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%deal_id, code = alarm.code, what = alarm.what, "a case of others does not hold");
                }
            }
            Ok(Err(fault)) => tracing::error!(%deal_id, %fault, "a finished case cannot be read"),
            Err(error) => tracing::error!(%deal_id, %error, "checking a case again failed with a bug of ours"),
        }
        drop(turn);
    }
}

/// The records of others that a process follows.
#[derive(Default)]
pub struct Followed {
    cancel: CancellationToken,
    desks: Vec<Arc<Desk>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Followed {
    /// Follows every record that the settings name into copies below `folder`, and judges from them with mediators over
    /// each copy; workers and counts are those of the engine's `own` desk.
    ///
    /// # Errors
    /// 78 for an address that is none, 69 where a copy cannot be opened.
    pub fn start(
        config: &MediatorConfig,
        folder: &Path,
        own: &Desk,
        own_operator: Address,
        history: &Arc<History>,
        mediators: impl Fn(&Follower) -> Result<Vec<Mediator>, MediatorFault>,
        watcher: &Arc<Watcher>,
    ) -> Result<Self, Failure> {
        let mut this = Self::default();
        for FollowConfig { url, operator, token } in &config.follow {
            if *operator == own_operator {
                return Err(Failure::config(format!("mediator.follow: {url} is this engine's own operator")));
            }
            let copy = Follower::folder(folder, url);
            let follower = Follower::open(url, Some(*operator), &copy).map_err(Failure::unavailable)?;
            let voice = OverHttp::new(url, *operator, token.clone()).map_err(Failure::config)?;
            let (caught_up, has_caught_up) = watch::channel(false);
            let activity = Arc::new(Activity::default());
            let desk = Desk::new(desk::Parts {
                store: follower.store().clone(),
                voice: Arc::new(voice),
                mediators: mediators(&follower).map_err(Failure::unavailable)?,
                history: Arc::clone(history),
                counts: Arc::clone(own.counts()),
                schedule: Arc::clone(own.schedule()),
                domains: own.domains().to_vec(),
                pace: Arc::clone(own.pace()),
                activity: Arc::clone(&activity),
                recorded_time: false,
                caught_up: has_caught_up,
                cancel: this.cancel.clone(),
            });
            this.desks.push(Arc::clone(&desk));
            let watcher = config.watch.then(|| Arc::clone(watcher));
            let judging = Judging { follower, desk, activity, caught_up, watcher, cancel: this.cancel.clone() };
            tracing::info!(url, %operator, "follows this record and judges its cases too");
            this.tasks.push(tokio::spawn(judging.run()));
        }
        Ok(this)
    }

    /// Where its cases are judged.
    pub fn desks(&self) -> &[Arc<Desk>] {
        &self.desks
    }

    /// Gives what is at work `grace` to finish; the rest is resumed at the next start.
    pub async fn shutdown(self, grace: Duration) {
        self.cancel.cancel();
        let _ = tokio::time::timeout(grace, join_all(self.tasks)).await;
    }
}
