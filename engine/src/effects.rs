//! Performs what the outbox holds: steps on the chain, judging, publishing. At least once; recognised by effect id.
//!
//! Steps on the chain of one deal are done in order, one at a time; all else of all deals side by side. What came of a
//! step goes back to the writer as an input; what a mediator says goes out on the bus like anybody's word.
//!
//! A reorganisation of the chain may take steps back while later ones wait. What is asked for again then comes first, by
//! [`EffectKind::rank`], and no refusal of the contract counts that the missing steps explain.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tribunal_contracts::{Chain, ChainFault, Mined, Step};
use tribunal_core::{ChainReport, Deal, EffectKind, Phase, Settlement};
use tribunal_events::{Address, B256, DealId, Digest, Envelope, Role, Timestamp};

use crate::{
    bus::{Bus, Outgoing},
    chain_steps::{asked_for, behind, step_for},
    equivocation,
    failure::with_causes,
    mediator::desk::Desk,
    outbox,
    partition::{Job, subject_of},
    replay::{load, load_at},
    store::{OutboxEntry, Store},
};

/// First wait before a failed effect is tried again; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How long a step on the chain may still take once everything is to end.
const STEP_GRACE: Duration = Duration::from_secs(2);

/// Counts that tell whether anything is under way.
#[derive(Debug, Default)]
pub struct Activity {
    /// Effects being performed, those that wait for something else to happen left out.
    pub effects: AtomicUsize,
    /// Effects that wait before they are tried again.
    pub waiting: AtomicUsize,
    /// Jobs on their way to the writer.
    pub jobs: AtomicUsize,
    /// Sequence of the last bus message that is durable.
    pub sequence: AtomicU64,
    /// The writer's time in microseconds.
    pub clock_us: AtomicU64,
    /// Records covered by the newest checkpoint.
    pub signed: AtomicU64,
    /// Whether the log is not signed though it should be.
    pub unsigned: AtomicBool,
    /// Records that others may see; all of them where nothing is fenced.
    pub released: AtomicU64,
    /// Whether nothing is recorded because the bus's clock and this machine's differ.
    pub clocks_differ: AtomicBool,
    /// Messages that were recorded before, from a sender that asked again or from a bus that was read again.
    pub duplicates: AtomicU64,
    /// Following the own contracts.
    pub chain: FollowedChain,
}

/// Counts of following the own contracts.
#[derive(Debug, Default)]
pub struct FollowedChain {
    /// The last block whose events are known; 0 where nothing is followed.
    pub block: AtomicU64,
    /// Recorded steps that a reorganisation undid.
    pub undone: AtomicU64,
    /// Faults of the nodes.
    pub faults: AtomicU64,
}

/// A step on the chain that is to be taken.
struct Waiting {
    entry: OutboxEntry,
    version: u64,
    kind: EffectKind,
    pause: Duration,
}

/// Everything that effects need.
pub struct Performer {
    /// The record.
    pub store: Store,
    /// Where words go out.
    pub bus: Arc<dyn Bus>,
    /// Where money is.
    pub chain: Option<Arc<dyn Chain>>,
    /// Where the keys that judge here work, if there are any.
    pub desk: Option<Arc<Desk>>,
    /// Back to the writer.
    pub jobs: mpsc::Sender<Vec<Job>>,
    /// What is under way.
    pub activity: Arc<Activity>,
    /// Ends everything.
    pub cancel: CancellationToken,
}

impl Performer {
    /// Performs effects as they come until cancelled.
    pub async fn run(self: Arc<Self>, mut effects: mpsc::UnboundedReceiver<Vec<OutboxEntry>>) {
        let tasks = TaskTracker::new();
        let (free, mut freed) = mpsc::unbounded_channel::<(DealId, Option<Waiting>)>();
        let mut queues: BTreeMap<DealId, Vec<Waiting>> = BTreeMap::new();
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => break,
                Some(entries) = effects.recv() => {
                    for entry in entries {
                        let Ok((version, kind)) = outbox::decode(&entry.payload) else {
                            tracing::error!(deal_id = %entry.deal_id, "an effect in the outbox cannot be read");
                            continue;
                        };
                        if !kind.is_chain() {
                            let this = Arc::clone(&self);
                            tasks.spawn(async move { this.perform(entry, version, kind).await });
                            continue;
                        }
                        let idle = !queues.contains_key(&entry.deal_id);
                        let deal_id = entry.deal_id;
                        queues.entry(deal_id).or_default().push(Waiting { entry, version, kind, pause: RETRY_FIRST });
                        if idle {
                            let _ = free.send((deal_id, None));
                        }
                    }
                }
                Some((deal_id, again)) = freed.recv() => {
                    let queue = queues.entry(deal_id).or_default();
                    queue.extend(again);
                    // What a reorganisation undid comes before what waited for it.
                    let first = (0..queue.len()).min_by_key(|at| (queue[*at].kind.rank(), queue[*at].version));
                    let Some(first) = first else { queues.remove(&deal_id); continue };
                    let waiting = queue.remove(first);
                    let (this, free) = (Arc::clone(&self), free.clone());
                    tasks.spawn(async move {
                        let again = this.attempt(waiting).await;
                        let _ = free.send((deal_id, again));
                    });
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Performs one effect that waits for no other, again and again until it is done or the engine stops.
    async fn perform(&self, entry: OutboxEntry, version: u64, kind: EffectKind) {
        let mut next = Some(Waiting { entry, version, kind, pause: RETRY_FIRST });
        while let Some(waiting) = next {
            next = self.attempt(waiting).await;
        }
    }

    /// Performs an effect once; gives it back, after a pause, where it is to be tried again.
    async fn attempt(&self, waiting: Waiting) -> Option<Waiting> {
        let Waiting { entry, version, kind, pause } = &waiting;
        let outcome = match *kind {
            EffectKind::Judge { .. } | EffectKind::RevealVotes { .. } => self.mediate(entry, *kind).await,
            EffectKind::Publish => self.publish_verdict(entry, *version).await,
            EffectKind::Equivocation { mediator, round } => self.accuse(entry, mediator, round).await,
            // A transaction that is out and not mined is found again at the next start.
            _ => tokio::select! {
                outcome = self.step(entry, *version, *kind) => outcome,
                () = self.stopped_for(STEP_GRACE) => return None,
            },
        };
        match outcome {
            Ok(job) => {
                self.activity.jobs.fetch_add(1, Ordering::SeqCst);
                self.activity.effects.fetch_sub(1, Ordering::SeqCst);
                let _ = self.jobs.send(vec![job]).await;
                None
            }
            Err(problem) => {
                tracing::warn!(deal_id = %entry.deal_id, ?kind, %problem, "effect will be tried again");
                self.activity.waiting.fetch_add(1, Ordering::SeqCst);
                self.activity.effects.fetch_sub(1, Ordering::SeqCst);
                let stopped = tokio::select! {
                    () = self.cancel.cancelled() => true,
                    () = tokio::time::sleep(*pause) => false,
                };
                self.activity.effects.fetch_add(1, Ordering::SeqCst);
                self.activity.waiting.fetch_sub(1, Ordering::SeqCst);
                let pause = (*pause * 2).min(RETRY_MAX);
                (!stopped).then_some(Waiting { pause, ..waiting })
            }
        }
    }

    /// Resolves so long after everything was told to end.
    async fn stopped_for(&self, grace: Duration) {
        self.cancel.cancelled().await;
        tokio::time::sleep(grace).await;
    }

    async fn step(&self, entry: &OutboxEntry, version: u64, kind: EffectKind) -> Result<Job, String> {
        let effect_id = Digest::new(entry.id);
        let report = |transaction, block, failure| ChainReport {
            effect_id,
            step: kind.step(),
            transaction,
            block,
            failure,
            block_time_s: None,
        };
        let job = |report, gas_used| Job::Report { deal_id: entry.deal_id, report, gas_used };
        let failed = |failure: &str| Ok(job(report(B256::ZERO, 0, Some(failure.into())), 0));
        let load = |version| load_at(&self.store, &entry.deal_id, version).map_err(|fault| fault.to_string());
        let (Some(deal), Some(latest)) = (load(version)?, load(u64::MAX)?) else {
            return Err("the deal is not in the store".into());
        };
        let Some(chain) = &self.chain else { return failed("no chain is configured") };
        // Money that would be locked for a deal that is over would have to be got out again.
        if let Phase::Settled { decision, .. } = latest.phase()
            && !decision.funded
        {
            return failed("the deal is over");
        }
        let asked = match step_for(&deal, kind) {
            Some(step) => Some(step),
            None => asked_for(&self.store, &entry.deal_id, version, kind).map_err(|fault| fault.to_string())?,
        };
        let Some(step) = asked else { return failed("the deal lacks what the contract asks for") };
        if let Some(first) = undone_before(&latest, kind) {
            return Err(format!("a reorganisation undid {first}, which comes first"));
        }
        let now = Timestamp::from_us(self.activity.clock_us.load(Ordering::SeqCst));
        chain.advance_time(now.s()).await.map_err(|fault| with_causes(&fault))?;
        let mut outcome = chain.perform(&step).await;
        if outcome.as_ref().is_err_and(|fault| !fault.retry_helps()) {
            // What the contract refuses for good it may refuse because a reorganisation took away what comes before, and
            // that is found out a moment later only.
            let case = chain.case(step.terms_hash()).await.map_err(|fault| with_causes(&fault))?;
            if let Some(missing) = behind(&latest, &case) {
                return Err(format!("{missing} is recorded, and the contract knows nothing of it any more"));
            }
            outcome = chain.perform(&step).await;
        }
        match outcome {
            Ok(mined) => {
                let failure = disagreement(&deal, &step, &mined);
                if let Some(failure) = &failure {
                    tracing::error!(deal_id = %entry.deal_id, failure, "the contract paid otherwise than the rule says");
                }
                let block_time_s = latest.is_undone(&kind.step()).then_some(mined.block_time_s);
                let report = ChainReport { block_time_s, ..report(mined.transaction, mined.block, failure) };
                Ok(job(report, mined.gas_used))
            }
            Err(fault) if fault.retry_helps() && !over(&deal, kind, now) => Err(with_causes(&fault)),
            Err(fault @ ChainFault::Unreachable { .. }) => Err(with_causes(&fault)),
            Err(fault) => {
                tracing::error!(deal_id = %entry.deal_id, ?kind, %fault, "a step on the chain failed for good");
                failed(&fault.to_string())
            }
        }
    }

    /// Shows the contract that a mediator equivocated.
    async fn accuse(&self, entry: &OutboxEntry, mediator: Address, round: u32) -> Result<Job, String> {
        let done = Job::Done { effect_id: entry.id };
        let deal = load(&self.store, &entry.deal_id).map_err(|fault| fault.to_string())?;
        let Some(deal) = deal else { return Err("the deal is not in the store".into()) };
        let found = equivocation::evidence(&self.store, deal.terms(), mediator, round);
        let Some(evidence) = found.map_err(|fault| fault.to_string())? else { return Ok(done) };
        let own = self.desk.iter().flat_map(|desk| desk.addresses()).collect::<Vec<_>>();
        evidence.show(&self.store, self.chain.as_deref(), &own).await.map(|()| done)
    }

    async fn mediate(&self, entry: &OutboxEntry, kind: EffectKind) -> Result<Job, String> {
        match (&self.desk, kind) {
            (Some(desk), EffectKind::Judge { round }) => desk.judge(&entry.deal_id, round).await?,
            (Some(desk), EffectKind::RevealVotes { round }) => desk.reveal(&entry.deal_id, round).await?,
            _ => {}
        }
        Ok(Job::Done { effect_id: entry.id })
    }

    async fn publish_verdict(&self, entry: &OutboxEntry, version: u64) -> Result<Job, String> {
        let deal = load_at(&self.store, &entry.deal_id, version).map_err(|fault| fault.to_string())?;
        let Some(deal) = deal else { return Err("the deal is not in the store".into()) };
        if let Phase::Decided(decision) = deal.phase() {
            let votes: Vec<_> = decision
                .round
                .iter()
                .flat_map(|round| round.votes())
                .map(|vote| {
                    serde_json::json!({
                        "mediator": format!("{:#x}", vote.mediator), "round": vote.round, "verdict": vote.verdict,
                        "instruction_count": vote.instruction_count.to_string(),
                        "digest": format!("blake3:{}", hex::encode(vote.digest)), "signature": vote.signature,
                    })
                })
                .collect();
            let verdict = serde_json::json!({
                "deal_id": deal.id(), "terms_hash": format!("{:#x}", deal.terms().hash()),
                "chain_id": deal.terms().domain().chain_id(),
                "contract": format!("{:#x}", deal.terms().domain().contract()),
                "outcome": decision.outcome.word(), "reason_code": decision.reason_code, "votes": votes,
            });
            let out = Outgoing::new(format!("verdicts.{}", deal.id()), verdict.to_string())
                .with_message_id(Digest::new(entry.id).to_string())
                .with_header("Content-Type", "application/json");
            self.bus.publish(out).await.map_err(|fault| fault.to_string())?;
        }
        Ok(Job::Done { effect_id: entry.id })
    }
}

/// The message that carries an envelope: its subject names deal and kind, its id the event.
///
/// # Errors
/// Where the envelope is malformed.
pub fn outgoing(envelope: &Envelope) -> Result<Outgoing, String> {
    let parsed = envelope.clone().parse().map_err(|error| error.to_string())?;
    Ok(Outgoing::new(subject_of(&parsed), envelope.encode()).with_message_id(parsed.id().to_string()))
}

/// Whether waiting cannot help any more: a deal that was not funded in time.
fn over(deal: &Deal, kind: EffectKind, now: Timestamp) -> bool {
    kind == EffectKind::Open && now > Timestamp::last_us_of_s(deal.terms().timeouts.agree_by_s)
}

/// A step that a reorganisation undid, and that the contract must take before this one.
fn undone_before(deal: &Deal, kind: EffectKind) -> Option<&str> {
    deal.undone().find(|step| EffectKind::of_step(step).is_some_and(|undone| undone.rank() < kind.rank()))
}

/// How the contract's payment differs from the rule's, if it does.
fn disagreement(deal: &Deal, step: &Step, mined: &Mined) -> Option<String> {
    let (Some(paid), Phase::Decided(decision) | Phase::Settled { decision, .. }) = (&mined.settlement, deal.phase())
    else {
        return None;
    };
    if !step.settles() {
        return None;
    }
    let voters = decision.round.as_ref().map(|round| round.voters()).unwrap_or_default();
    let rule = Settlement::new(deal.terms(), decision.outcome, decision.instruction_count, &voters, decision.funded);
    let expected = [Role::Client, Role::Provider, Role::Mediator, Role::Treasury].map(|role| rule.paid_to(role));
    let found = [paid.client, paid.provider, paid.mediators, paid.treasury];
    if paid.outcome != decision.outcome {
        return Some(format!(
            "the contract settled as {}, the record says {}",
            paid.outcome.word(),
            decision.outcome.word()
        ));
    }
    (expected != found).then(|| {
        let list = |amounts: [tribunal_events::Amount; 4]| amounts.map(|amount| amount.to_string()).join(", ");
        format!("client, provider, mediators, treasury got {}, the rule says {}", list(found), list(expected))
    })
}
