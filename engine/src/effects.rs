//! Performs what the outbox holds: steps on the chain, judging, publishing. At least once; recognised by effect id.
//!
//! Steps on the chain of one deal are done in order, one at a time; all else of all deals side by side. What came of a
//! step goes back to the writer as an input; what a mediator says goes out on the bus like anybody's word.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
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
    chain_steps::step_for,
    equivocation,
    failure::with_causes,
    mediator::desk::Desk,
    outbox,
    partition::Job,
    replay::{load, load_at},
    store::{OutboxEntry, Store},
};

/// First wait before a failed effect is tried again; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

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
        let (free, mut freed) = mpsc::unbounded_channel::<DealId>();
        let mut queues: BTreeMap<DealId, VecDeque<OutboxEntry>> = BTreeMap::new();
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
                        queues.entry(deal_id).or_default().push_back(entry);
                        if idle {
                            let _ = free.send(deal_id);
                        }
                    }
                }
                Some(deal_id) = freed.recv() => {
                    let next = queues.get_mut(&deal_id).and_then(VecDeque::pop_front);
                    let Some(entry) = next else { queues.remove(&deal_id); continue };
                    let (this, free) = (Arc::clone(&self), free.clone());
                    tasks.spawn(async move {
                        if let Ok((version, kind)) = outbox::decode(&entry.payload) {
                            this.perform(entry, version, kind).await;
                        }
                        let _ = free.send(deal_id);
                    });
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Performs one effect, again and again until it is done or the engine stops.
    async fn perform(&self, entry: OutboxEntry, version: u64, kind: EffectKind) {
        let mut pause = RETRY_FIRST;
        loop {
            let outcome = match kind {
                EffectKind::Judge { .. } | EffectKind::RevealVotes { .. } => self.mediate(&entry, kind).await,
                EffectKind::Publish => self.publish_verdict(&entry, version).await,
                EffectKind::Equivocation { mediator, round } => self.accuse(&entry, mediator, round).await,
                _ => self.step(&entry, version, kind).await,
            };
            match outcome {
                Ok(job) => {
                    self.activity.jobs.fetch_add(1, Ordering::SeqCst);
                    self.activity.effects.fetch_sub(1, Ordering::SeqCst);
                    let _ = self.jobs.send(vec![job]).await;
                    return;
                }
                Err(problem) => {
                    tracing::warn!(deal_id = %entry.deal_id, ?kind, %problem, "effect will be tried again");
                    self.activity.waiting.fetch_add(1, Ordering::SeqCst);
                    self.activity.effects.fetch_sub(1, Ordering::SeqCst);
                    let stopped = tokio::select! {
                        () = self.cancel.cancelled() => true,
                        () = tokio::time::sleep(pause) => false,
                    };
                    self.activity.effects.fetch_add(1, Ordering::SeqCst);
                    self.activity.waiting.fetch_sub(1, Ordering::SeqCst);
                    if stopped {
                        return;
                    }
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn step(&self, entry: &OutboxEntry, version: u64, kind: EffectKind) -> Result<Job, String> {
        let effect_id = Digest::new(entry.id);
        let report = |transaction, block, failure| {
            let report = ChainReport { effect_id, step: kind.step(), transaction, block, failure };
            Job::Report { deal_id: entry.deal_id, report, gas_used: 0 }
        };
        let deal = load_at(&self.store, &entry.deal_id, version).map_err(|fault| fault.to_string())?;
        let Some(deal) = deal else { return Err("the deal is not in the store".into()) };
        let Some(chain) = &self.chain else {
            return Ok(report(B256::ZERO, 0, Some("no chain is configured".into())));
        };
        let Some(step) = step_for(&deal, kind) else {
            return Ok(report(B256::ZERO, 0, Some("the deal lacks what the contract asks for".into())));
        };
        let now = Timestamp::from_us(self.activity.clock_us.load(Ordering::SeqCst));
        chain.advance_time(now.s()).await.map_err(|fault| with_causes(&fault))?;
        match chain.perform(&step).await {
            Ok(mined) => {
                let failure = disagreement(&deal, &step, &mined);
                if let Some(failure) = &failure {
                    tracing::error!(deal_id = %entry.deal_id, failure, "the contract paid otherwise than the rule says");
                }
                let mut job = report(mined.transaction, mined.block, failure);
                if let Job::Report { gas_used, .. } = &mut job {
                    *gas_used = mined.gas_used;
                }
                Ok(job)
            }
            Err(fault) if fault.retry_helps() && !over(&deal, kind, now) => Err(with_causes(&fault)),
            Err(fault @ ChainFault::Unreachable { .. }) => Err(with_causes(&fault)),
            Err(fault) => {
                tracing::error!(deal_id = %entry.deal_id, ?kind, %fault, "a step on the chain failed for good");
                Ok(report(B256::ZERO, 0, Some(fault.to_string())))
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
    let subject = format!("deals.{}.{}", parsed.deal_id(), parsed.kind_name());
    Ok(Outgoing::new(subject, envelope.encode()).with_message_id(parsed.id().to_string()))
}

/// Whether waiting cannot help any more: a deal that was not funded in time.
fn over(deal: &Deal, kind: EffectKind, now: Timestamp) -> bool {
    kind == EffectKind::Open && now > Timestamp::last_us_of_s(deal.terms().timeouts.agree_by_s)
}

/// How the contract's payment differs from the rule's, if it does.
fn disagreement(deal: &Deal, step: &Step, mined: &Mined) -> Option<String> {
    let (Some(paid), Phase::Decided(decision)) = (&mined.settlement, deal.phase()) else { return None };
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
