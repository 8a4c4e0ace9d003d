//! Follows the own contracts: what a reorganisation took back goes back in the record, and what only the chain knows is said.
//!
//! The observer of `tribunal-contracts` tells events and reorganisations from a cursor on that is kept in the store. The
//! record is compared with the chain step by step: a recorded transaction counts while the chain's block of the recorded
//! number holds it, and it did not fail there. Every step is looked at when it is recorded, when a reorganisation may have
//! touched its block, and at the start where it is not final or where the contract lacks what the deal's record has. What does
//! not stand any more is reported to the writer like any outcome of a step; that it is taken again follows from there.
//!
//! Events themselves decide nothing: what the contract keeps of a dispute are hashes, so that a case that only the chain
//! knows cannot be judged from there. It can be noticed while there is time to ask the client for its signed event.
//!
//! **Invariant:** nothing is reported as undone because a node is silent, behind, or contradicts itself.
//! **Invariant:** the cursor is kept after what it covers is known, never before.

mod ledger;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tribunal_contracts::{
    BlockRef, CaseEvent, CaseState, CaseView, ChainFault, Cursor, EQUIVOCATION_TOPIC, Observed, ObservedLog, Observer,
    Watched, Witness,
};
use tribunal_core::{ChainReport, EffectKind, Phase, REORGANISED};
use tribunal_events::{Address, DealId, Domain};

use self::ledger::{Ledger, Taken};
use crate::{
    chain_steps::behind,
    effects::Activity,
    equivocation,
    failure::with_causes,
    partition::Job,
    replay::{ReplayFault, load},
    store::{OutboxEntry, Store, StoreFault},
};

/// The cursor and the place in the log, beside the log.
const META: &str = "chain-observer";
/// Blocks after which a transaction is taken to stand for good, unless a reorganisation goes deeper.
const FINAL_BLOCKS: u64 = 256;
/// Blocks and time after which the cursor is kept though nothing happened.
const KEPT_BLOCKS: u64 = 1_000;
const KEPT_EVERY: Duration = Duration::from_secs(300);
/// Questions to the nodes side by side.
const ASKED_AT_ONCE: usize = 8;
/// Wait after a fault of the nodes, at most.
const FAULT_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Which contracts are followed, and how.
#[derive(Clone)]
pub struct Following {
    /// The nodes.
    pub witness: Witness,
    /// The escrow.
    pub escrow: Address,
    /// The registry of mediators.
    pub registry: Address,
    /// The first block that can have an event: that of the deployment.
    pub first_block: u64,
    /// Blocks, an event's own included, that must stand before it is told.
    pub confirmations: u64,
    /// How often the nodes are asked.
    pub poll: Duration,
}

/// What an observer needs beside.
pub(crate) struct Parts {
    pub following: Following,
    pub store: Store,
    /// To the writer.
    pub jobs: mpsc::Sender<Vec<Job>>,
    /// To who performs effects.
    pub effects: mpsc::UnboundedSender<Vec<OutboxEntry>>,
    pub activity: Arc<Activity>,
    /// Mediators that run here; where there are any, disputes of their cases alone are counted.
    pub judges: Vec<Address>,
    /// How many cases are disputed on the chain and not in the record.
    pub only_on_chain: Arc<AtomicU64>,
    pub cancel: CancellationToken,
}

impl Parts {
    fn domain(&self) -> Domain {
        Domain::new(self.following.witness.chain_id(), self.following.escrow)
    }
}

/// What is kept beside the log.
#[derive(Serialize, Deserialize)]
struct Kept {
    domain: (u64, Address),
    cursor: Cursor,
    /// Every step in a block that is not final was recorded after this place in the log.
    position: u64,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Chain(#[from] ChainFault),
    #[error(transparent)]
    Record(#[from] ReplayFault),
    #[error(transparent)]
    Store(#[from] StoreFault),
    #[error("{0}")]
    Ended(String),
}

/// A step that is to be looked at.
type Place = (DealId, String);

struct Follower {
    parts: Parts,
    /// Threads that read the store.
    readers: TaskTracker,
    ledger: Ledger,
    /// To be looked at.
    unsure: BTreeSet<Place>,
    /// Deals whose cases are to be compared with the record as a whole.
    to_ask: BTreeSet<DealId>,
    /// Equivocations whose transactions are to be looked at, from this block on.
    equivocations_from: Option<u64>,
    /// Cases disputed on the chain, with the block.
    disputed: BTreeMap<DealId, u64>,
    /// Of these, said already.
    told: BTreeSet<DealId>,
    /// Cursor's block and time when it was kept last.
    kept: (u64, Instant),
    worth_keeping: bool,
}

/// Follows until cancelled. What a fault of the nodes or of the store interrupts is taken up again.
pub(crate) async fn follow(parts: Parts) {
    let (cancel, readers) = (parts.cancel.clone(), TaskTracker::new());
    tokio::select! {
        () = cancel.cancelled() => {}
        () = run(parts, &readers) => {}
    }
    // A thread that reads the store holds it.
    readers.close();
    readers.wait().await;
}

async fn run(parts: Parts, readers: &TaskTracker) {
    let poll = parts.following.poll;
    let (mut parts, mut pause) = (Some(parts), poll);
    // Whatever stopped it, it starts from what is kept: as after a restart.
    while let Some(it) = parts.take() {
        let (store, activity) = (it.store.clone(), Arc::clone(&it.activity));
        match Follower::start(it, readers.clone()).await {
            Ok((mut follower, mut observer)) => {
                pause = poll;
                let fault = follower.go_on(&mut observer).await;
                say(&fault);
                parts = Some(follower.parts);
            }
            Err((it, fault)) => {
                say(&fault);
                parts = Some(*it);
            }
        }
        activity.chain.faults.fetch_add(1, Ordering::Relaxed);
        if store.head(&DealId::default()).is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(FAULT_PAUSE_MAX);
    }
}

/// Reads the log on to where it ends now, off the async threads.
async fn read(store: &Store, readers: &TaskTracker, mut ledger: Ledger) -> Result<Ledger, Fault> {
    let store = store.clone();
    let read = readers.spawn_blocking(move || ledger.catch_up(&store).map(|()| ledger));
    Ok(read.await.map_err(|error| Fault::Ended(error.to_string()))??)
}

fn say(fault: &Fault) {
    match fault {
        Fault::Chain(fault) => tracing::warn!(fault = with_causes(fault), "the contracts cannot be followed for now"),
        fault => tracing::error!(%fault, "the contracts are not followed: someone must act"),
    }
}

impl Follower {
    async fn start(parts: Parts, readers: TaskTracker) -> Result<(Self, Observer), (Box<Parts>, Fault)> {
        match Self::opened(&parts, &readers).await {
            Ok((ledger, to_ask, cursor)) => {
                let Following { witness, escrow, registry, first_block, confirmations, .. } = &parts.following;
                let mut events = CaseEvent::TOPICS.to_vec();
                events.push(EQUIVOCATION_TOPIC);
                let watched = Watched {
                    contracts: vec![*escrow, *registry],
                    events,
                    first_block: *first_block,
                    confirmations: *confirmations,
                };
                let kept = (cursor.last().map_or(0, |last| last.number), Instant::now());
                let observer = Observer::new(witness.node().clone(), watched, cursor);
                let unsure = ledger.taken_after(ledger.final_block());
                let follower = Self {
                    equivocations_from: Some(ledger.final_block()),
                    parts,
                    readers,
                    ledger,
                    unsure,
                    to_ask,
                    disputed: BTreeMap::new(),
                    told: BTreeSet::new(),
                    kept,
                    worth_keeping: false,
                };
                Ok((follower, observer))
            }
            Err(fault) => Err((Box::new(parts), fault)),
        }
    }

    /// The ledger up to the end of the log, deals to be compared with the chain as a whole, and the cursor.
    async fn opened(parts: &Parts, readers: &TaskTracker) -> Result<(Ledger, BTreeSet<DealId>, Cursor), Fault> {
        let (witness, domain) = (&parts.following.witness, parts.domain());
        let kept = parts.store.meta(META)?.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let kept = kept.filter(|kept| kept.domain == (domain.chain_id(), domain.contract()));
        let (cursor, position) = kept.map_or_else(Default::default, |kept| (kept.cursor, kept.position));
        // What the chain would have to be reorganised deeply to touch is not looked at step by step.
        let head = witness.head().await?.number;
        let reached = cursor.last().map_or(head, |last| last.number);
        let final_block = reached.saturating_sub(FINAL_BLOCKS);
        let ledger = Ledger::new(domain, parts.judges.clone(), position, final_block);
        let ledger = read(&parts.store, readers, ledger).await?;
        let to_ask = ledger.open();
        Ok((ledger, to_ask, cursor))
    }

    /// Follows until something fails that is not the nodes' fault.
    async fn go_on(&mut self, observer: &mut Observer) -> Fault {
        let poll = self.parts.following.poll;
        let mut pause = poll;
        loop {
            match self.turn(observer).await {
                Ok(more) => {
                    pause = poll;
                    if !more {
                        tokio::time::sleep(poll).await;
                    }
                }
                // What was not answered is asked again; nothing is forgotten for it.
                Err(fault @ Fault::Chain(_)) => {
                    say(&fault);
                    self.parts.activity.chain.faults.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(FAULT_PAUSE_MAX);
                }
                Err(fault) => return fault,
            }
        }
    }

    /// One look at the chain and at the log; whether there may be more at once.
    async fn turn(&mut self, observer: &mut Observer) -> Result<bool, Fault> {
        let observed = observer.next().await?;
        // After the look: what the engine itself did is in the log before the chain tells of it.
        let before = self.ledger.position();
        let ledger = std::mem::replace(&mut self.ledger, Ledger::nothing());
        self.ledger = read(&self.parts.store, &self.readers, ledger).await?;
        if self.ledger.position() != before {
            let news = self.ledger.news();
            self.worth_keeping |= !news.is_empty();
            self.to_ask.extend(news.iter().map(|(deal_id, _)| *deal_id));
            self.unsure.extend(news);
        }
        let more = observed.is_some();
        match observed {
            Some(Observed::RolledBack { to }) => self.roll_back(to).await?,
            Some(Observed::Logs { through, logs }) => {
                for log in &logs {
                    self.take(log)?;
                }
                self.parts.activity.chain.block.store(through.number, Ordering::Relaxed);
            }
            None => {}
        }
        let reached = observer.cursor().last().map_or(0, |last| last.number);
        self.look(reached).await?;
        self.ask().await?;
        self.look_at_equivocations().await?;
        self.count();
        self.keep(observer.cursor(), reached)?;
        Ok(more)
    }

    /// Everything after this block may be different now.
    async fn roll_back(&mut self, to: Option<BlockRef>) -> Result<(), Fault> {
        let number = to.map(|to| to.number);
        tracing::warn!(to = number, "the chain of the contracts was reorganised");
        self.worth_keeping = true;
        let stands = number.unwrap_or(0);
        if stands < self.ledger.final_block() {
            // Deeper than anybody thought: all that was ever recorded is read again.
            let ledger = Ledger::new(self.parts.domain(), self.parts.judges.clone(), 0, stands);
            self.ledger = read(&self.parts.store, &self.readers, ledger).await?;
            drop(self.ledger.news());
        }
        self.unsure.extend(self.ledger.taken_after(stands));
        self.to_ask.extend(self.ledger.open());
        self.disputed.retain(|_, block| *block <= stands);
        self.equivocations_from = Some(self.equivocations_from.unwrap_or(stands).min(stands));
        Ok(())
    }

    /// What an event says that the record may not know.
    fn take(&mut self, log: &ObservedLog) -> Result<(), Fault> {
        if log.contract != self.parts.following.escrow {
            return Ok(());
        }
        let Some((terms_hash, event)) = CaseEvent::of(log) else { return Ok(()) };
        let Some(deal_id) = self.ledger.deal_of(&terms_hash) else { return Ok(()) };
        match event {
            CaseEvent::Disputed => drop(self.disputed.insert(deal_id, log.block.number)),
            CaseEvent::Settled(_) => self.settled_outside(deal_id)?,
            _ => {}
        }
        Ok(())
    }

    /// Says so where a case is settled that the record takes to be undecided.
    fn settled_outside(&self, deal_id: DealId) -> Result<(), Fault> {
        let deal = load(&self.parts.store, &deal_id)?;
        if deal.is_some_and(|deal| !matches!(deal.phase(), Phase::Decided(_) | Phase::Settled { .. })) {
            tracing::error!(%deal_id, "settled on the chain and not decided in the record: someone must act");
        }
        Ok(())
    }

    /// Looks at steps that may not stand any more.
    async fn look(&mut self, reached: u64) -> Result<(), Fault> {
        let witness = &self.parts.following.witness;
        let places = std::mem::take(&mut self.unsure);
        let looks = places.into_iter().filter_map(|place| {
            let taken = self.ledger.taken(&place.0, &place.1)?.clone();
            Some(async move {
                let stands = witness.stands(taken.transaction, taken.block).await;
                (place, taken, stands)
            })
        });
        let mut looked: Vec<_> = stream::iter(looks).buffer_unordered(ASKED_AT_ONCE).collect().await;
        let (mut undone, mut fault) = (Vec::new(), None);
        looked.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        for (place, taken, stands) in looked {
            match stands {
                // Beyond the cursor nobody would tell of its end.
                Ok(Some(true)) if taken.block <= reached => {}
                Ok(Some(false)) => {
                    self.ledger.tell(&place.0, &place.1);
                    undone.push((place, taken));
                }
                Ok(_) => drop(self.unsure.insert(place)),
                Err(problem) => {
                    self.unsure.insert(place);
                    fault = Some(problem);
                }
            }
        }
        self.report(undone).await?;
        fault.map_or(Ok(()), |fault| Err(fault.into()))
    }

    /// Tells the writer, in the order in which steps are taken.
    async fn report(&mut self, undone: Vec<(Place, Taken)>) -> Result<(), Fault> {
        if undone.is_empty() {
            return Ok(());
        }
        let rank = |step: &str| EffectKind::of_step(step).map_or(u8::MAX, |kind| kind.rank());
        let mut undone = undone;
        undone.sort_by_key(|((deal_id, step), _)| (*deal_id, rank(step)));
        let mut jobs = Vec::with_capacity(undone.len());
        for ((deal_id, step), Taken { effect_id, transaction, block, .. }) in undone {
            tracing::warn!(%deal_id, step, %transaction, block, "a reorganisation undid a step; it is taken again");
            let failure = Some(REORGANISED.to_owned());
            let report = ChainReport { effect_id, step, transaction, block, failure, block_time_s: None };
            jobs.push(Job::Report { deal_id, report, gas_used: 0 });
        }
        self.worth_keeping = true;
        self.parts.activity.chain.undone.fetch_add(jobs.len() as u64, Ordering::Relaxed);
        self.parts.activity.jobs.fetch_add(jobs.len(), Ordering::SeqCst);
        self.parts.jobs.send(jobs).await.map_err(|_| Fault::Ended("the writer is gone".into()))
    }

    /// Compares whole cases with what is recorded of them.
    async fn ask(&mut self) -> Result<(), Fault> {
        if self.to_ask.is_empty() {
            return Ok(());
        }
        let Following { witness, escrow, .. } = &self.parts.following;
        let head = witness.head().await?.number;
        let deals = std::mem::take(&mut self.to_ask);
        let asked = deals.into_iter().filter_map(|deal_id| {
            let terms_hash = self.ledger.terms_hash(&deal_id)?;
            Some(async move { (deal_id, witness.case(*escrow, terms_hash, head).await) })
        });
        let asked: Vec<_> = stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).collect().await;
        let mut fault = None;
        for (deal_id, case) in asked {
            match case {
                Ok(case) => self.compare(deal_id, &case, head)?,
                Err(problem) => {
                    self.to_ask.insert(deal_id);
                    fault = Some(problem);
                }
            }
        }
        fault.map_or(Ok(()), |fault| Err(fault.into()))
    }

    fn compare(&mut self, deal_id: DealId, case: &CaseView, head: u64) -> Result<(), Fault> {
        let Some(deal) = load(&self.parts.store, &deal_id)? else { return Ok(()) };
        if behind(&deal, case).is_some() {
            self.unsure.extend(self.ledger.taken_of(&deal_id));
        }
        match case.state {
            CaseState::Disputed => drop(self.disputed.entry(deal_id).or_insert(head)),
            CaseState::Settled => self.settled_outside(deal_id)?,
            _ => {}
        }
        Ok(())
    }

    /// Equivocations whose proof a reorganisation took away are shown again.
    async fn look_at_equivocations(&mut self) -> Result<(), Fault> {
        let Some(from) = self.equivocations_from.take() else { return Ok(()) };
        let witness = &self.parts.following.witness;
        for evidence in equivocation::found(&self.parts.store)? {
            let Some(equivocation::Outcome::Slashed { transaction, block, .. }) = evidence.outcome else { continue };
            if block <= from || !self.ledger.is_ours(&self.parts.store, &evidence.deal_id)? {
                continue;
            }
            match witness.stands(transaction, block).await {
                Ok(Some(true)) => {}
                Ok(Some(false)) => {
                    tracing::warn!(deal_id = %evidence.deal_id, mediator = %evidence.first.mediator, %transaction,
                        "a reorganisation undid the proof of an equivocation; it is shown again");
                    let entry = evidence.reopen(&self.parts.store)?;
                    self.parts.activity.effects.fetch_add(1, Ordering::SeqCst);
                    let _ = self.parts.effects.send(vec![entry]);
                }
                other => {
                    self.equivocations_from = Some(from);
                    other?;
                }
            }
        }
        Ok(())
    }

    /// How many disputes only the chain knows; each is said once.
    fn count(&mut self) {
        let ledger = &self.ledger;
        self.disputed.retain(|deal_id, _| ledger.is_undisputed(deal_id));
        self.told.retain(|deal_id| self.disputed.contains_key(deal_id));
        for deal_id in self.disputed.keys() {
            if self.told.insert(*deal_id) {
                tracing::error!(%deal_id,
                    "disputed on the chain and not in the record: get the client's signed event, someone must act");
            }
        }
        let judged_here = self.disputed.keys().filter(|deal_id| ledger.is_judged_here(deal_id));
        self.parts.only_on_chain.store(judged_here.count() as u64, Ordering::Relaxed);
    }

    /// Keeps cursor and place where something happened, and now and then.
    fn keep(&mut self, cursor: &Cursor, reached: u64) -> Result<(), Fault> {
        let due = reached >= self.kept.0 + KEPT_BLOCKS || self.kept.1.elapsed() >= KEPT_EVERY;
        // What is still to be looked at is not covered yet.
        let settled = self.unsure.is_empty() && self.to_ask.is_empty() && self.equivocations_from.is_none();
        if !(self.worth_keeping || due) || !settled {
            return Ok(());
        }
        self.ledger.forget(reached.saturating_sub(FINAL_BLOCKS));
        let domain = self.parts.domain();
        let domain = (domain.chain_id(), domain.contract());
        let kept = Kept { domain, cursor: cursor.clone(), position: self.ledger.covered() };
        let bytes = serde_json::to_vec(&kept).expect("a cursor has a JSON form");
        self.parts.store.put_meta(META, &bytes)?;
        self.kept = (reached, Instant::now());
        self.worth_keeping = false;
        Ok(())
    }
}
