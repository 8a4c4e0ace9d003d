//! Replays what happened and finds what does not fit.
//!
//! [`audit`] reads a store; [`Examiner`] takes the records of one deal from wherever they come and is what an evidence
//! bundle is verified with as well. Nothing is believed that can be computed again: record frames, chain, ids,
//! signatures, every transition (`decide` is asked before `evolve`), draws, deadlines, payouts, effects.
//!
//! | code | what does not fit |
//! |---|---|
//! | `damage`, `log-gap`, `log-time` | the store itself: rows, positions of the whole log, times of the whole log |
//! | `version`, `position`, `time`, `deal-id`, `event-id`, `previous-link`, `link` | the frame of a record |
//! | `event`, `signature`, `signer`, `operator`, `panel-signature`, `silence-signature` | what was signed, and by whom |
//! | `not-admitted` | a party's or mediator's word that the rules refuse |
//! | `unfounded` | an engine event that no rule calls for |
//! | `event-missing`, `deadline-missed`, `group-time` | an engine event that must stand here and does not, or at another time |
//! | `after-settlement` | anything after the end |
//! | `round`, `draw-seed`, `candidates`, `panel`, `outcome`, `reason`, `voters`, `deadline`, `silent` | an engine event that says something else than the rules give |
//! | `payouts`, `conservation`, `transaction` | money |
//! | `effect`, `effect-lost`, `outbox` | steps on the chain that nobody asked for, or that were asked for and forgotten |
//! | `log-key`, `checkpoint-signature`, `checkpoint` | what the store keeps of its signed log: keys, signatures, tree and heads |
//! | `rewritten` | the log beside a checkpoint that somebody kept: it is not the log that was signed |
//! | `head`, `snapshot` | what the store says about a deal beside its records |
//! | `vote` | a vote that carried the day, and that verification today contradicts |
//! | `replay` | a history that made this program fail |
//!
//! With a node ([`audit_chain`]) beside:
//!
//! | code | what differs between record and chain |
//! |---|---|
//! | `chain-contract` | there is no escrow where the terms name one |
//! | `chain-receipt`, `chain-block`, `chain-log` | a recorded transaction: it is not there or failed, is in another block, or its events say something else about this case |
//! | `chain-outcome`, `chain-payouts` | how the contract settled, beside the record and the rule |
//! | `chain-state` | how far the contract says that the case is |
//! | `anchor` | a checkpoint on the chain: the log here is another |
//! | `chain-holdings` | an escrow holds less of a token than it owes |
//!
//! **Invariant:** no history, however foreign or damaged, makes an audit fail or panic; it makes discrepancies.
//! **Invariant:** what could not be checked is said, never passed over.

mod chain;
mod differences;
mod examiner;
mod findings;
mod log;
mod reverify;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use serde::Serialize;
use tribunal_events::{DealId, Timestamp};
use tribunal_verifiers::{ArtifactSource, Service};

pub(crate) use self::chain::compare_receipts;
use self::log::LogExaminer;
pub use self::{
    chain::{ChainAudit, ChainAuditFault, ChainOptions, Holding, audit_chain, taken_steps},
    examiner::{ChainStep, Examined, Examiner, RecordedVote, Surroundings},
    findings::{Discrepancy, FINDINGS_MAX, Findings, Note},
    log::{Held, LogAudit, audit_anchors},
    reverify::{Reverified, named_artifacts, reverify},
};
use crate::store::{OutboxEntry, Place, Store, StoreFault};

/// How often a deal is read again because the engine wrote to it meanwhile.
const ATTEMPTS_MAX: u32 = 4;

/// Which deals to audit.
#[derive(Clone, Debug)]
pub enum Scope {
    /// All, and the log as a whole.
    All,
    /// These.
    Deals(Vec<DealId>),
}

/// How to audit.
#[derive(Clone, Copy, Default)]
pub struct AuditOptions<'a> {
    /// Run the verifiers again, over these artifacts.
    pub reverify: Option<(&'a Service, &'a dyn ArtifactSource)>,
    /// Hears how many records are done and how many there are; called from several threads.
    pub progress: Option<&'a (dyn Fn(u64, u64) + Sync)>,
    /// Checkpoints that somebody kept: a log that was rewritten since contradicts them. Needs [`Scope::All`].
    pub held: &'a [Held],
}

/// What an audit found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AuditReport {
    /// Deals replayed.
    pub deals: u64,
    /// Records replayed.
    pub records: u64,
    /// Signatures of events recovered again.
    pub signatures: u64,
    /// Results whose verification was run again and could be compared.
    pub reverified: u64,
    /// Votes that verification today confirms.
    pub votes_confirmed: u64,
    /// Deals by outcome; `open` is none yet.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Ids asked for that the store does not know.
    pub unknown: Vec<DealId>,
    /// Discrepancies in all; the list holds the first [`FINDINGS_MAX`].
    pub discrepancy_count: u64,
    /// What does not fit, by deal and position.
    pub discrepancies: Vec<Discrepancy>,
    /// What an auditor should know and is no discrepancy: what could not be checked, dissenting votes.
    pub notes: Vec<Note>,
    /// The log as a whole against what was signed of it, where all was audited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogAudit>,
    /// What was compared with the chain, where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainAudit>,
}

impl AuditReport {
    /// Whether everything fits.
    pub const fn is_clean(&self) -> bool {
        self.discrepancy_count == 0
    }

    fn add(&mut self, findings: Findings) {
        self.discrepancy_count += findings.discrepancy_count;
        let room = FINDINGS_MAX.saturating_sub(self.discrepancies.len());
        self.discrepancies.extend(findings.discrepancies.into_iter().take(room));
        let room = FINDINGS_MAX.saturating_sub(self.notes.len());
        self.notes.extend(findings.notes.into_iter().take(room));
    }
}

/// What the threads of an audit share.
struct Audit<'a> {
    store: &'a Store,
    options: AuditOptions<'a>,
    /// Where the log ended when the audit began.
    last_position: u64,
    /// The time it had reached.
    now: Timestamp,
    outbox: Option<BTreeMap<DealId, Vec<OutboxEntry>>>,
    done: AtomicU64,
    total: u64,
    /// Records at or before `last_position` that streams hold.
    within: AtomicU64,
    stopped: AtomicBool,
    report: Mutex<(AuditReport, Option<StoreFault>)>,
}

/// Audits deals of a store, which may be in use. Memory is bounded by one record, one folded deal and, with `reverify`,
/// one job a core.
///
/// # Errors
/// Where the disk fails; damage is a discrepancy.
pub fn audit(store: &Store, scope: Scope, options: AuditOptions<'_>) -> Result<AuditReport, StoreFault> {
    let mut findings = Findings::new(None);
    let last_position = store.last_position();
    let last = tolerate(store.record(last_position), &mut findings)?.flatten();
    let outbox = tolerate(store.outbox(), &mut findings)?.map(by_deal);
    let mut heads = Vec::new();
    let mut unknown = Vec::new();
    if let Scope::Deals(ids) = &scope {
        let mut ids = ids.clone();
        ids.sort_unstable();
        ids.dedup();
        for deal_id in ids {
            match tolerate(store.head(&deal_id), &mut findings)? {
                Some(Some(head)) => heads.push((deal_id, head)),
                Some(None) => unknown.push(deal_id),
                None => {}
            }
        }
    }
    let total = match &scope {
        Scope::All => last_position,
        Scope::Deals(_) => heads.iter().map(|(_, head)| head.version).sum(),
    };
    let mut report = AuditReport { unknown, ..AuditReport::default() };
    report.add(findings);
    let audit = Audit {
        store,
        options,
        last_position,
        now: last.map_or_else(Timestamp::default, |record| record.recorded_at),
        outbox,
        done: AtomicU64::new(0),
        total,
        within: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        report: Mutex::new((report, None)),
    };
    let all = matches!(scope, Scope::All);
    let deals: Box<dyn Iterator<Item = Result<DealId, StoreFault>> + Send> = match scope {
        Scope::All => Box::new(store.deals().map(|deal| deal.map(|(deal_id, _)| deal_id))),
        Scope::Deals(_) => Box::new(heads.into_iter().map(|(deal_id, _)| Ok(deal_id))),
    };
    let deals = Mutex::new(deals);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| audit.work(&deals));
        }
        if all {
            audit.whole_log();
        }
    });
    audit.end(all)
}

/// The value, or nothing where it is damaged, which is a discrepancy.
fn tolerate<T>(read: Result<T, StoreFault>, findings: &mut Findings) -> Result<Option<T>, StoreFault> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(StoreFault::Damaged { place, what }) => {
            findings.damage(&place, &what);
            Ok(None)
        }
        Err(fault) => Err(fault),
    }
}

fn by_deal(entries: Vec<OutboxEntry>) -> BTreeMap<DealId, Vec<OutboxEntry>> {
    let mut deals: BTreeMap<DealId, Vec<OutboxEntry>> = BTreeMap::new();
    for entry in entries {
        deals.entry(entry.deal_id).or_default().push(entry);
    }
    deals
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Audit<'_> {
    fn work(&self, deals: &Mutex<Box<dyn Iterator<Item = Result<DealId, StoreFault>> + Send>>) {
        while !self.stopped.load(Ordering::Relaxed) {
            let next = lock(deals).next();
            let worked = match next {
                None => break,
                Some(Ok(deal_id)) => self.deal(&deal_id),
                Some(Err(StoreFault::Damaged { place, what })) => {
                    let mut findings = Findings::new(None);
                    findings.damage(&place, &what);
                    lock(&self.report).0.add(findings);
                    Ok(())
                }
                Some(Err(fault)) => Err(fault),
            };
            if let Err(fault) = worked {
                self.stop(fault);
            }
        }
    }

    fn stop(&self, fault: StoreFault) {
        self.stopped.store(true, Ordering::Relaxed);
        lock(&self.report).1.get_or_insert(fault);
    }

    fn deal(&self, deal_id: &DealId) -> Result<(), StoreFault> {
        let known = self.outbox.as_ref().map(|outbox| outbox.get(deal_id).map_or(&[][..], Vec::as_slice));
        let mut examined = self.examine(deal_id, known, true)?;
        // The engine may have written between our reading of the outbox and of the stream: then read both again.
        for _ in 1..ATTEMPTS_MAX {
            let moving = ["effect-lost", "outbox", "head", "snapshot"];
            if !examined.findings.discrepancies.iter().any(|it| moving.contains(&it.code)) {
                break;
            }
            let before = self.store.head(deal_id);
            let fresh = tolerate(self.store.outbox(), &mut Findings::new(None))?.map(by_deal);
            let fresh = fresh.as_ref().map(|outbox| outbox.get(deal_id).map_or(&[][..], Vec::as_slice));
            examined = self.examine(deal_id, fresh, false)?;
            if let (Ok(before), Ok(after)) = (before, self.store.head(deal_id))
                && before == after
            {
                break;
            }
        }
        let mut reverified = None;
        if let Some((service, artifacts)) = self.options.reverify {
            reverified = reverify(&mut examined, service, artifacts);
        }
        let outcome = examined.deal.as_ref().and_then(|deal| deal.outcome()).map_or("open", |outcome| outcome.word());
        let report = &mut lock(&self.report).0;
        report.deals += 1;
        report.records += examined.records;
        report.signatures += examined.signatures;
        if let Some(reverified) = reverified {
            report.reverified += u64::from(reverified.verdict.is_some());
            report.votes_confirmed += reverified.confirmed;
        }
        *report.outcomes.entry(outcome).or_default() += 1;
        report.add(examined.findings);
        Ok(())
    }

    fn examine(&self, deal_id: &DealId, outbox: Option<&[OutboxEntry]>, count: bool) -> Result<Examined, StoreFault> {
        let mut examiner = Examiner::new(*deal_id);
        let snapshot = tolerate(self.store.snapshot(deal_id), examiner.findings())?.flatten();
        if let Some((version, bytes)) = snapshot {
            examiner.expect_snapshot(version, bytes);
        }
        let head = tolerate(self.store.head(deal_id), examiner.findings())?.flatten();
        let mut whole = true;
        for record in self.store.stream(deal_id, 1) {
            match tolerate(record, examiner.findings())? {
                Some(record) => {
                    examiner.take(&record);
                    if count {
                        self.within.fetch_add(u64::from(record.position <= self.last_position), Ordering::Relaxed);
                        self.step();
                    }
                }
                None => whole = false,
            }
        }
        if !whole {
            return Ok(examiner.give_up("the store cannot read the records that follow"));
        }
        Ok(examiner.finish(&Surroundings { now: Some(self.now), head, outbox }))
    }

    fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(progress) = self.options.progress {
            progress(done, self.total.max(done));
        }
    }

    /// What belongs to no single deal: every row of the store, and the times of the log.
    fn whole_log(&self) {
        let mut findings = Findings::new(None);
        match self.store.check(|_| {}) {
            Ok(check) => {
                for fault in check.damage {
                    match fault {
                        StoreFault::Damaged { place, what } => findings.damage(&place, &what),
                        fault => return self.stop(fault),
                    }
                }
            }
            Err(fault) => return self.stop(fault),
        }
        let mut log = match LogExaminer::new(self.store, self.options.held, &mut findings) {
            Ok(log) => log,
            Err(fault) => return self.stop(fault),
        };
        let mut before = Timestamp::default();
        let mut expected = 1;
        for record in self.store.log(1) {
            // What cannot be read was reported by the check above.
            let Ok(record) = record else { break };
            if record.position > self.last_position || self.stopped.load(Ordering::Relaxed) {
                break;
            }
            if record.position != expected {
                findings.at(None, Some(record.position), "log-gap", expected, record.position);
            }
            if record.recorded_at < before {
                findings.about(
                    record.deal_id,
                    record.position,
                    "log-time",
                    format!("not before {before}"),
                    record.recorded_at,
                );
            }
            if let Err(fault) = log.take(&record, &mut findings) {
                return self.stop(fault);
            }
            (before, expected) = (record.recorded_at, record.position + 1);
        }
        let log = log.finish(&mut findings);
        let report = &mut lock(&self.report).0;
        report.add(findings);
        report.log = Some(log);
    }

    fn end(self, all: bool) -> Result<AuditReport, StoreFault> {
        let (mut report, fault) = self.report.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = fault {
            return Err(fault);
        }
        let within = self.within.into_inner();
        if all && report.is_clean() && within != self.last_position {
            let mut findings = Findings::new(None);
            let expected = format!("{} records in the streams of all deals, as in the log", self.last_position);
            findings.at(None, None, "log-gap", expected, within);
            report.add(findings);
        }
        report.discrepancies.sort();
        let kept = report.discrepancies.len();
        // The store's check and the reading of a stream may have met the same damage.
        report.discrepancies.dedup();
        report.discrepancy_count -= (kept - report.discrepancies.len()) as u64;
        report.notes.sort();
        report.notes.dedup();
        Ok(report)
    }
}

/// The deal and position that a place names.
const fn located(place: &Place) -> (Option<DealId>, Option<u64>) {
    match place {
        Place::Deal(deal_id) => (Some(*deal_id), None),
        Place::Position(position) => (None, Some(*position)),
        Place::Files | Place::Row(..) => (None, None),
    }
}
