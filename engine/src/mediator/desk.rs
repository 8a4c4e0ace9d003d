//! Where the mediators of this machine work: every case in time, each step resumed where it stopped.
//!
//! Effects of the record wake the desk ([`Desk::judge`], [`Desk::reveal`]); a sweep looks again at every case that asks
//! something of us, so that a word which a broker lost, or a step that a crash cut off, is done again. A case is started
//! only if it can be finished in time, else it is given up early enough for a redraw.
//!
//! **Invariant:** nothing is judged before the record has caught up with the bus as it was at the start: what this key
//! said before a crash, or on another machine, may still be on its way.
//! **Invariant:** a slot is claimed on the bus before it is signed in, so that of two machines with one key one signs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tribunal_core::{Deal, voting_deadline};
use tribunal_events::{Address, DealId, Domain, Envelope, Timestamp, proto};

use super::{
    Finding, Mediator, MediatorFault, NO_TIME, Next, OwnFault,
    history::{Entry, History, Slot},
    inbox::{self, Case, Stage},
    pace::Pace,
    schedule::{Schedule, Urgency},
    voice::Voice,
};
use crate::{effects::Activity, engine::now, replay::load_at, store::Store};

/// First wait before a case is tried again after a fault of ours; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How often every case that asks something of us is looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// How often this machine's clock is compared with the record's, while cases ask something of us.
const COMPARE_CLOCKS_EVERY: Duration = Duration::from_secs(60);
/// A difference of clocks that somebody should know of.
const CLOCK_WRONG_US: u64 = 2_000_000;
/// Kept for signing and publishing before a deadline, at most; less where little time is given at all.
const MARGIN_US_MAX: u64 = 2_000_000;
/// A case that is expected to take longer leaves a worker to the others.
const LONG_US: u64 = 2_000_000;
/// Longest wait before a word that the record does not show is said again.
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// How often cases are looked at while one is about to end.
const SWEEP_FAST: Duration = Duration::from_millis(250);
/// Longer than any recording.
const FOREVER: Duration = Duration::from_secs(86_400);
/// With less time left nothing is started.
const NEEDED_US_MIN: u64 = 10_000;

/// A mediator of ours on the panel of a deal's round.
type Seat = (DealId, u32, Address);

/// What happened at a desk since it was opened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Faults of this machine by reason code.
    pub faults: Mutex<BTreeMap<String, u64>>,
    /// Slots in which nothing is signed because something else was, or may have been.
    pub signing_refused: AtomicU64,
    /// Records of others that are not followed any more.
    pub following_stopped: AtomicU64,
    /// Cases whose deadline passed without a word of ours.
    pub deadlines_missed: AtomicU64,
    /// Cases given up because there was no time left for them.
    pub given_up: AtomicU64,
    /// Alarms about finished cases of others.
    pub divergences: AtomicU64,
    /// Cases disputed on the chain and not in the record, as last seen.
    pub only_on_chain: Arc<AtomicU64>,
}

impl Counts {
    fn fault(&self, code: &str) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner).entry(code.to_owned()).or_default() += 1;
    }
}

/// Everything a desk needs.
pub struct Desk {
    store: Store,
    voice: Arc<dyn Voice>,
    mediators: Vec<Mediator>,
    history: Arc<History>,
    schedule: Arc<Schedule>,
    activity: Arc<Activity>,
    /// Time is a recording's: it does not pass while we wait.
    recorded_time: bool,
    caught_up: watch::Receiver<bool>,
    counts: Arc<Counts>,
    cancel: CancellationToken,
    /// The contracts whose money counts here.
    domains: Vec<Domain>,
    pace: Arc<Pace>,
    /// Rounds in which a panel of ours was asked.
    asked: Mutex<BTreeSet<(DealId, u32)>>,
    /// Slots in which signing was refused.
    refused: Mutex<BTreeSet<Slot>>,
    /// Slots in which the time to vote was over before anything was said.
    missed: Mutex<BTreeSet<Slot>>,
    /// When a vote was last said that the record did not show, and how long to wait before it is said again.
    said: Mutex<BTreeMap<Seat, (Instant, Duration)>>,
    /// Who is at work on what.
    working: Mutex<BTreeSet<Seat>>,
    /// Somebody has finished.
    freed: Notify,
    /// When something was last said about an artifact: mediators of one panel that run here ask once.
    requested: Mutex<BTreeMap<(DealId, String), Instant>>,
    /// By how many microseconds the record's clock is ahead of this machine's, as measured.
    clock_ahead_us: AtomicI64,
}

/// What a desk is opened with.
pub struct Parts {
    /// The record.
    pub store: Store,
    /// How words go out.
    pub voice: Arc<dyn Voice>,
    /// Keys that judge.
    pub mediators: Vec<Mediator>,
    /// What they mean to sign.
    pub history: Arc<History>,
    /// What happened so far; shared by the desks of one process.
    pub counts: Arc<Counts>,
    /// The machine's workers.
    pub schedule: Arc<Schedule>,
    /// The contracts whose money counts here; cases of others come last.
    pub domains: Vec<Domain>,
    /// How fast this machine is.
    pub pace: Arc<Pace>,
    /// The record's clock.
    pub activity: Arc<Activity>,
    /// Whether time is a recording's.
    pub recorded_time: bool,
    /// Becomes true once the record has caught up with the bus.
    pub caught_up: watch::Receiver<bool>,
    /// Ends everything.
    pub cancel: CancellationToken,
}

impl Desk {
    /// Opens a desk.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            store,
            voice,
            mediators,
            history,
            counts,
            schedule,
            domains,
            pace,
            activity,
            recorded_time,
            caught_up,
            cancel,
        } = parts;
        Arc::new(Self {
            store,
            voice,
            mediators,
            history,
            schedule,
            activity,
            recorded_time,
            caught_up,
            counts,
            cancel,
            domains,
            pace,
            asked: Mutex::default(),
            refused: Mutex::default(),
            missed: Mutex::default(),
            said: Mutex::default(),
            working: Mutex::default(),
            freed: Notify::new(),
            requested: Mutex::default(),
            clock_ahead_us: AtomicI64::new(0),
        })
    }

    /// What happened here.
    pub const fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// The contracts whose money counts here.
    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// How fast this machine is.
    pub const fn pace(&self) -> &Arc<Pace> {
        &self.pace
    }

    /// The machine's workers.
    pub const fn schedule(&self) -> &Arc<Schedule> {
        &self.schedule
    }

    /// The keys that judge here.
    pub fn addresses(&self) -> Vec<Address> {
        self.mediators.iter().map(Mediator::address).collect()
    }

    /// Cases that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.schedule.waiting()
    }

    /// A deal as far as its record fits the rules; nothing where it is over, or where what follows does not fit: a copy of
    /// somebody's record may hold anything, and only what is open may be folded.
    fn open(&self, deal_id: &DealId) -> Result<Option<Deal>, String> {
        let head = self.store.head(deal_id).map_err(|fault| fault.to_string())?;
        let Some(head) = head.filter(|head| head.open) else { return Ok(None) };
        load_at(&self.store, deal_id, head.version).map_err(|fault| fault.to_string())
    }

    /// The cases in which a panel of ours was asked and is not done, the most urgent first.
    pub fn cases(&self) -> Vec<Case> {
        let asked: Vec<_> = self.asked().iter().copied().collect();
        let mut cases = Vec::new();
        for (deal_id, round) in asked {
            let deal = match self.open(&deal_id) {
                Ok(Some(deal)) => deal,
                Ok(None) => {
                    self.asked().remove(&(deal_id, round));
                    continue;
                }
                Err(problem) => {
                    tracing::error!(%deal_id, problem, "a case cannot be read; someone must act");
                    continue;
                }
            };
            let of_all = self.mediators.iter().filter_map(|mediator| inbox::case(&deal, mediator.address()));
            let of_all: Vec<_> = of_all.filter(|case| case.round == Some(round)).collect();
            if of_all.iter().all(|case| matches!(case.stage, Stage::Voted | Stage::NotDrawn | Stage::Decided)) {
                self.asked().remove(&(deal_id, round));
            }
            cases.extend(of_all);
        }
        inbox::sort(&mut cases);
        cases
    }

    /// Looks again, every two seconds until cancelled, at every case that asks something of us; first at all that the
    /// record holds.
    pub async fn sweep(self: Arc<Self>) {
        if self.mediators.is_empty() || self.recorded_time || !self.has_caught_up().await {
            return;
        }
        let (store, addresses) = (self.store.clone(), self.addresses());
        match tokio::task::spawn_blocking(move || inbox::inbox(&store, &addresses)).await {
            Ok(Ok(cases)) => {
                let open = cases.iter().filter(|case| case.stage != Stage::NotDrawn);
                self.asked().extend(open.filter_map(|case| Some((case.deal_id, case.round?))));
            }
            Ok(Err(fault)) => tracing::error!(%fault, "the inbox cannot be read; someone must act"),
            Err(_) => {}
        }
        let tasks = tokio_util::task::TaskTracker::new();
        let mut compared: Option<Instant> = None;
        loop {
            // The clock of this machine may be wrong; the one that deadlines are compared with is the record's.
            let asked = !self.asked().is_empty();
            if asked && compared.is_none_or(|at| at.elapsed() > COMPARE_CLOCKS_EVERY) {
                self.compare_clocks().await;
                compared = Some(Instant::now());
            }
            let this = Arc::clone(&self);
            let cases = tokio::task::spawn_blocking(move || this.cases()).await.unwrap_or_else(|error| {
                tracing::error!(%error, "the cases could not be listed; someone must act");
                Vec::new()
            });
            let ends = cases.iter().filter(|case| case.stage.is_our_turn() || case.stage == Stage::Artifacts);
            let ends = ends.filter_map(|case| case.deadline).min();
            let now = self.now();
            let soon = ends.is_some_and(|at| {
                at.us().checked_sub(now.us()).is_some_and(|left| Duration::from_micros(left) < 5 * SWEEP_EVERY)
            });
            for case in cases {
                let Some(round) = case.round else { continue };
                match case.stage {
                    Stage::Judge | Stage::Artifacts | Stage::Reveal => {
                        let this = Arc::clone(&self);
                        tasks.spawn(async move {
                            let done = match case.stage {
                                Stage::Reveal => this.reveal_as(case.mediator, &case.deal_id, round, true).await,
                                _ => this.judge_as(case.mediator, &case.deal_id, round, true).await,
                            };
                            if let Err(problem) = done {
                                let on = (case.deal_id, round, case.mediator);
                                this.said.lock().unwrap_or_else(PoisonError::into_inner).remove(&on);
                                tracing::warn!(deal_id = %case.deal_id, round, problem, "a case will be tried again");
                            }
                        });
                    }
                    _ => {}
                }
            }
            tokio::select! {
                () = self.cancel.cancelled() => break,
                () = tokio::time::sleep(if soon { SWEEP_FAST } else { SWEEP_EVERY }) => {}
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Every mediator of ours on this round's panel looks into the case, says what it finds, and is done or has to wait
    /// for others.
    ///
    /// # Errors
    /// What failed; trying again may help.
    pub async fn judge(&self, deal_id: &DealId, round: u32) -> Result<(), String> {
        self.all(deal_id, round, |address| self.judge_as(address, deal_id, round, false)).await
    }

    /// Every mediator of ours that committed in this round reveals.
    ///
    /// # Errors
    /// What failed; trying again may help.
    pub async fn reveal(&self, deal_id: &DealId, round: u32) -> Result<(), String> {
        self.all(deal_id, round, |address| self.reveal_as(address, deal_id, round, false)).await
    }

    async fn all<F: Future<Output = Result<(), String>>>(
        &self,
        deal_id: &DealId,
        round: u32,
        each: impl Fn(Address) -> F,
    ) -> Result<(), String> {
        let on_panel = self.panel_of_ours(deal_id, round)?;
        if on_panel.is_empty() {
            return Ok(());
        }
        self.asked().insert((*deal_id, round));
        if self.recorded_time {
            // The same order every time.
            for address in on_panel {
                each(address).await?;
            }
            return Ok(());
        }
        join_all(on_panel.into_iter().map(each)).await.into_iter().collect()
    }

    fn panel_of_ours(&self, deal_id: &DealId, round: u32) -> Result<Vec<Address>, String> {
        if self.mediators.is_empty() {
            return Ok(Vec::new());
        }
        let deal = self.open(deal_id)?;
        let current = deal.as_ref().and_then(Deal::dispute).and_then(|dispute| dispute.round.as_ref());
        let current = current.filter(|current| current.number() == round);
        let ours = self.addresses().into_iter();
        Ok(ours.filter(|address| current.is_some_and(|it| it.panel().contains(address))).collect())
    }

    async fn judge_as(&self, address: Address, deal_id: &DealId, round: u32, again: bool) -> Result<(), String> {
        let Some(_working) = self.at_work(address, deal_id, round, again).await else { return Ok(()) };
        let Some(mediator) = self.mediators.iter().find(|mediator| mediator.address() == address) else {
            return Ok(());
        };
        if !self.has_caught_up().await {
            return Err("the engine stops".into());
        }
        let mut pause = RETRY_FIRST;
        let mut give_up_at = None;
        let (deal, finding) = loop {
            let deal = self.open(deal_id)?;
            let Some(deal) = deal else { return Ok(()) };
            let stage = inbox::case(&deal, address).filter(|case| case.round == Some(round)).map(|case| case.stage);
            if !matches!(stage, Some(Stage::Judge | Stage::Artifacts)) {
                return Ok(());
            }
            let Some(deadline) = voting_deadline(&deal) else { return Ok(()) };
            if mediator.intended(deal.terms(), round).is_some() {
                // Settled before a crash: nothing is verified again.
                break (deal, Finding::inconclusive("", "", None));
            }
            let now = self.now();
            if now > deadline {
                // Before saying nothing for good, the clock is asked whether it is really over.
                self.compare_clocks().await;
                if self.now() > deadline {
                    self.missed(&deal, mediator.slot(deal.terms(), round));
                    return Ok(());
                }
            }
            let next = self.examine(mediator, &deal, round, deadline).await?;
            match next {
                Next::Nothing if self.recorded_time || !self.is_ending(&deal, deadline) => return Ok(()),
                // What is missing here nobody else misses, so nobody is to blame but this machine.
                Next::Nothing => {
                    self.counts.fault("artifact-unavailable");
                    tracing::error!(%deal_id, round, mediator = %address,
                        "the time is nearly over and an artifact that others have is missing here; someone must act");
                    let detail = "an artifact could not be had here";
                    break (deal, Finding::inconclusive("artifact-unavailable", detail, None));
                }
                Next::Say(kinds) => {
                    for kind in kinds {
                        self.say_about(mediator, &deal, kind, again).await?;
                    }
                    return Ok(());
                }
                Next::Vote(finding) => {
                    if let Some(fault) = finding.own_fault {
                        self.counts.fault(&finding.reason_code);
                        tracing::error!(%deal_id, round, mediator = %address, code = finding.reason_code,
                            report = finding.report_json, "a fault of this machine; someone must act");
                        // Half of the time is for trying again, half is left to whoever is drawn next.
                        let half = now.us() + deadline.us().saturating_sub(now.us()) / 2;
                        let until = *give_up_at.get_or_insert(half);
                        if fault == OwnFault::Passing && !self.recorded_time && self.now().us() < until {
                            self.pause(pause).await?;
                            pause = (pause * 2).min(RETRY_MAX);
                            continue;
                        }
                    }
                    break (deal, finding);
                }
            }
        };
        if again && !self.says_again((*deal_id, round, address)) {
            return Ok(());
        }
        let entry = {
            let (mediator, deal) = (mediator.clone(), deal.clone());
            blocking(move || mediator.intend(&deal, round, &finding)).await?
        };
        let Some(entry) = self.may_sign(mediator, entry).await? else { return Ok(()) };
        let envelope = {
            let (mediator, deal, entry) = (mediator.clone(), deal.clone(), entry.clone());
            blocking(move || mediator.vote(&deal, &entry)).await?
        };
        self.voice.say(&envelope, again).await?;
        tracing::info!(%deal_id, round, mediator = %address, verdict = entry.verdict.word(),
            code = entry.reason_code, "voted");
        Ok(())
    }

    async fn reveal_as(&self, address: Address, deal_id: &DealId, round: u32, again: bool) -> Result<(), String> {
        let Some(_working) = self.at_work(address, deal_id, round, again).await else { return Ok(()) };
        let Some(mediator) = self.mediators.iter().find(|mediator| mediator.address() == address) else {
            return Ok(());
        };
        if !self.has_caught_up().await {
            return Err("the engine stops".into());
        }
        let deal = self.open(deal_id)?;
        let Some(deal) = deal else { return Ok(()) };
        if inbox::case(&deal, address).is_none_or(|case| (case.stage, case.round) != (Stage::Reveal, Some(round))) {
            return Ok(());
        }
        if again && !self.says_again((*deal_id, round, address)) {
            return Ok(());
        }
        let slot = mediator.slot(deal.terms(), round);
        let revealed = {
            let mediator = mediator.clone();
            blocking(move || mediator.reveal(&deal, round)).await?
        };
        match revealed {
            Some(envelope) => self.voice.say(&envelope, again).await,
            None => {
                self.refuse(slot);
                Ok(())
            }
        }
    }

    /// Looks into a case with a worker of this machine, within the time that is left.
    async fn examine(&self, mediator: &Mediator, deal: &Deal, round: u32, deadline: Timestamp) -> Result<Next, String> {
        let needed_us = self.pace.needed_us(deal);
        let no_time = |left_us: u64| {
            self.counts.given_up.fetch_add(1, Ordering::Relaxed);
            let detail = format!("{} ms are left and about {} ms are needed", left_us / 1000, needed_us / 1000);
            tracing::warn!(deal_id = %deal.id(), round, detail, "a case is given up early, so that others can be drawn");
            Next::Vote(Finding::inconclusive(NO_TIME, &detail, None))
        };
        let budget = |now: Timestamp| {
            let margin = MARGIN_US_MAX.min(deal.terms().timeouts.mediate_s.saturating_mul(100_000));
            deadline.us().saturating_sub(now.us()).saturating_sub(margin)
        };
        let mut long = needed_us > LONG_US;
        let urgency = Urgency { unpaid: !self.domains.contains(&deal.terms().domain()), deadline };
        loop {
            let left_us = budget(self.now());
            if !self.recorded_time && left_us < NEEDED_US_MIN {
                return Ok(no_time(left_us));
            }
            // The count is the provider's word, perhaps inflated to scare mediators away: what looks too long is tried all
            // the same, for half of the time, so that the other half is left to whoever is drawn next.
            let looks_too_long = needed_us > left_us;
            let turn = self.schedule.turn(urgency, long);
            let turn = if self.recorded_time {
                turn.await
            } else {
                let patience = if looks_too_long { left_us / 4 } else { left_us - needed_us };
                tokio::select! {
                    () = self.cancel.cancelled() => return Err("the engine stops".into()),
                    turn = tokio::time::timeout(Duration::from_micros(patience.max(NEEDED_US_MIN)), turn) => match turn {
                        Ok(turn) => turn,
                        Err(_) => return Ok(no_time(budget(self.now()))),
                    }
                }
            };
            let left_us = if looks_too_long { budget(self.now()) / 2 } else { budget(self.now()) };
            // Or deflated: a job that runs on far beyond what is claimed starts again among the long ones.
            let slice_us = if long { left_us } else { left_us.min(LONG_US.max(needed_us.saturating_mul(4))) };
            let wall_ms_max = if self.recorded_time { u64::MAX } else { (slice_us / 1000).max(1) };
            let (mediator, deal) = (mediator.clone(), deal.clone());
            let started = Instant::now();
            // The worker is busy until the work ends, whatever becomes of who waits for it.
            let work = tokio::task::spawn_blocking(move || {
                let next = mediator.examine(&deal, round, wall_ms_max);
                drop(turn);
                next
            });
            // What no limit of the job stops, fetching and compiling, must not outlast the deadline either.
            let patience = if self.recorded_time { FOREVER } else { Duration::from_micros(budget(self.now())) };
            let next = match tokio::time::timeout(patience, work).await {
                Err(_) => return Ok(no_time(0)),
                Ok(Ok(next)) => next,
                Ok(Err(error)) => {
                    tracing::error!(%error, "a verification failed with a bug of ours; someone must act");
                    let detail = "a bug of this machine";
                    Next::Vote(Finding::inconclusive("executor-fault", detail, Some(OwnFault::Passing)))
                }
            };
            let Next::Vote(finding) = next else { return Ok(next) };
            let took = started.elapsed();
            let cut = finding.reason_code == "operator-limit" && took.as_millis() >= u128::from(wall_ms_max);
            if cut && !long && !self.recorded_time {
                long = true;
                continue;
            }
            if let Some(fuel) = finding.fuel_used {
                self.pace.measured(fuel, took);
            }
            return Ok(if cut && !self.recorded_time { no_time(left_us) } else { Next::Vote(finding) });
        }
    }

    /// The entry as it may be signed: it is not blocked, and no other machine with this key holds the slot, unless for the
    /// same verdict with a salt that is known here.
    async fn may_sign(&self, mediator: &Mediator, entry: Entry) -> Result<Option<Entry>, String> {
        let slot = entry.slot();
        if !entry.blocked {
            let message = {
                let (mediator, entry) = (mediator.clone(), entry.clone());
                blocking(move || mediator.claim(&entry)).await?
            };
            let holds = self.voice.claim(&slot, message).await?;
            let salts = entry.other_salts.iter().chain([&entry.salt]);
            let mut same = salts.map(|salt| Entry { salt: *salt, ..entry.clone() });
            if let Some(entry) = same.find(|entry| entry.claim() == holds) {
                return Ok(Some(entry));
            }
            let history = Arc::clone(&self.history);
            blocking(move || history.block(&slot).map_err(MediatorFault::from)).await?;
        }
        self.refuse(slot);
        Ok(None)
    }

    /// Counts a slot in which nothing is signed, once.
    fn refuse(&self, slot: Slot) {
        if self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(slot) {
            self.counts.signing_refused.fetch_add(1, Ordering::Relaxed);
            tracing::error!(terms_hash = %slot.terms_hash, round = slot.round, mediator = %slot.mediator,
                "not signed: another machine with this key has, or may have, signed something else in this round");
        }
    }

    /// Whether it is time to say again what the record does not show: less and less often.
    fn says_again(&self, on: Seat) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, (at, _)| at.elapsed() < 10 * AGAIN_MAX);
        let pause = match said.get(&on) {
            Some((at, pause)) if at.elapsed() < *pause => return false,
            Some((_, pause)) => (*pause * 2).min(AGAIN_MAX),
            None => SWEEP_EVERY,
        };
        said.insert(on, (Instant::now(), pause));
        true
    }

    /// Whether so little time is left that a vote must come now or never.
    fn is_ending(&self, deal: &Deal, deadline: Timestamp) -> bool {
        let few_sweeps_us = 3 * SWEEP_EVERY.as_micros() as u64;
        let most_us = few_sweeps_us.min(deal.terms().timeouts.mediate_s.saturating_mul(250_000));
        deadline.us().saturating_sub(self.now().us()) <= most_us
    }

    async fn signed(&self, mediator: &Mediator, deal: &Deal, kind: proto::event::Kind) -> Result<Envelope, String> {
        let (mediator, terms) = (mediator.clone(), Arc::clone(deal.terms()));
        blocking(move || mediator.sign(&terms, kind)).await
    }

    /// Counts a round that ended without a word of ours, once; it is looked at until the record goes on.
    fn missed(&self, deal: &Deal, slot: Slot) {
        if self.missed.lock().unwrap_or_else(PoisonError::into_inner).insert(slot) {
            self.counts.deadlines_missed.fetch_add(1, Ordering::Relaxed);
            tracing::error!(deal_id = %deal.id(), round = slot.round, mediator = %slot.mediator,
                "the time to vote is over; nothing was said");
        }
    }

    fn now(&self) -> Timestamp {
        let recorded = Timestamp::from_us(self.activity.clock_us.load(Ordering::SeqCst));
        if self.recorded_time {
            return recorded;
        }
        let ahead = self.clock_ahead_us.load(Ordering::Relaxed);
        Timestamp::from_us(now().us().saturating_add_signed(ahead)).max(recorded)
    }

    /// What is known of the record's clock: it is `ahead_us` microseconds ahead of this machine's.
    pub fn set_clock_ahead(&self, ahead_us: i64) {
        let before = self.clock_ahead_us.swap(ahead_us, Ordering::Relaxed);
        if ahead_us.abs_diff(before) > CLOCK_WRONG_US {
            tracing::warn!(ahead_ms = ahead_us / 1000, "this machine's clock differs from the record's, which counts");
        }
    }

    /// Asks for the record's clock.
    async fn compare_clocks(&self) {
        match self.voice.clock_ahead_us().await {
            Ok(Some(ahead_us)) => self.set_clock_ahead(ahead_us),
            Ok(None) => {}
            Err(problem) => tracing::warn!(problem, "the record's clock could not be asked"),
        }
    }

    async fn pause(&self, pause: Duration) -> Result<(), String> {
        tokio::select! {
            () = self.cancel.cancelled() => Err("the engine stops".into()),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    async fn has_caught_up(&self) -> bool {
        let mut caught_up = self.caught_up.clone();
        tokio::select! {
            () = self.cancel.cancelled() => false,
            caught_up = caught_up.wait_for(|caught_up| *caught_up) => caught_up.is_ok(),
        }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, BTreeSet<(DealId, u32)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place at a case. Where somebody is at work: nothing for a sweep, which comes again; an effect waits, so that
    /// what woke it is seen.
    async fn at_work(&self, address: Address, deal_id: &DealId, round: u32, sweeps: bool) -> Option<Working<'_>> {
        let on = (*deal_id, round, address);
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.working.lock().unwrap_or_else(PoisonError::into_inner).insert(on) {
                return Some(Working { desk: self, on });
            }
            if sweeps {
                return None;
            }
            tokio::select! {
                () = self.cancel.cancelled() => return None,
                () = freed => {}
            }
        }
    }

    /// Says something about an artifact, unless it was said here a moment ago.
    async fn say_about(
        &self,
        mediator: &Mediator,
        deal: &Deal,
        kind: proto::event::Kind,
        again: bool,
    ) -> Result<(), String> {
        let what = match &kind {
            proto::event::Kind::ArtifactRequested(asked) => asked.artifact.clone(),
            // Each member of a panel attests for itself.
            proto::event::Kind::ArtifactMissing(missing) => format!("{}/{}", missing.artifact, mediator.address()),
            _ => String::new(),
        };
        let key = (deal.id(), what);
        {
            let mut requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
            requested.retain(|_, at| at.elapsed() < SWEEP_EVERY);
            if requested.contains_key(&key) {
                return Ok(());
            }
            requested.insert(key.clone(), Instant::now());
        }
        let said = async {
            let envelope = self.signed(mediator, deal, kind).await?;
            self.voice.say(&envelope, again).await
        };
        said.await.inspect_err(|_| {
            self.requested.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        })
    }
}

/// Somebody at work; the place is free again when dropped.
struct Working<'a> {
    desk: &'a Desk,
    on: Seat,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.desk.working.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.on);
        self.desk.freed.notify_waiters();
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MediatorFault> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    done.map_err(|fault| fault.to_string())
}
