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
//! In deals imported from another marketplace, by its own rules (their notes are in [`explain`](crate::import::explain)):
//!
//! | code | what does not fit |
//! |---|---|
//! | `log`, `answer`, `log-twice`, `contract`, `fork`, `block-time` | an observation: it is none of these contracts', or contradicts another |
//! | `transition`, `too-early`, `order`, `result`, `mediator` | a step that their table does not have, or not then, or not without another |
//! | `payments`, `conservation` | other money than their contracts move at that step; more out than in |
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
//! # The report
//!
//! `tribunal audit --json` prints [`AuditReport`] as one object. Positions, versions and counts are numbers, ids and
//! accounts `0x…`, amounts decimal strings, times RFC 3339. Lists hold the first [`FINDINGS_MAX`]; counts count all.
//!
//! | field | type | what |
//! |---|---|---|
//! | `clean` | bool | whether `discrepancy_count` is 0 |
//! | `options` | object | what was asked: `deals` (list of ids, or null: all), `reverify`, `chain` (bool), `at` (number or null), `against` (digest or null) |
//! | `log_end`, `log_end_at` | number, string | how far the audit goes: the log's last position that it takes in, and that record's time |
//! | `at` | number | with `--at`: the position as of which all is said; absent otherwise |
//! | `deals`, `records`, `signatures` | number | what was replayed |
//! | `reverified`, `votes_confirmed` | number | with `--reverify`: results verified again, votes that it confirms |
//! | `outcomes` | object | deals by outcome; `open` is none yet |
//! | `unknown` | list of ids | asked for and not there |
//! | `discrepancy_count` | number | all of them |
//! | `discrepancies` | list | `{deal_id, position, version, code, expected, found}`; the first three are null where it is about none |
//! | `notes` | list | `{deal_id, position, code, text}`: what could not be checked, and what else an auditor should know |
//! | `log` | object | of all deals: `{size, root, checkpoints, signed, held, anchors, keys}`, see [`LogAudit`] |
//! | `against` | object | with `--against`: `{policy, deals, open, changed_count, changed, not_comparable_count, not_comparable}`, see [`AgainstReport`] |
//! | `chain` | object | with `--chain`: `{node, chain_id, block, deals, transactions, left_out, holdings}`, see [`ChainAudit`] |
//!
//! An entry of `against.changed`: `{deal_id, position, recorded, policy, verdict_differs, payouts_differ, why}`, where
//! `recorded` and `policy` are `{outcome, reason_code, payouts}` and a payout `{account, role, locked, paid, net}`. An entry of
//! `against.not_comparable`: `{deal_id, why}`.
//!
//! **Invariant:** no history, however foreign or damaged, makes an audit fail or panic; it makes discrepancies.
//! **Invariant:** what could not be checked is said, never passed over.
//! **Invariant:** the same store and the same options give the same report, whatever the number of threads and however
//! often the audit was broken off and resumed.

mod against;
mod chain;
mod deals;
mod differences;
mod examiner;
mod findings;
mod fold;
mod log;
mod page;
mod policy;
mod progress;
mod reverify;
mod timeline;
mod whole_log;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use serde::{Deserialize, Serialize};
use tribunal_events::{DealId, Timestamp};
use tribunal_verifiers::{ArtifactSource, Service};

pub use self::{
    against::{Against, AgainstReport, Change, Judged, NotComparable},
    chain::{ChainAudit, ChainAuditFault, ChainOptions, Holding, audit_chain, taken_steps},
    examiner::{ChainStep, Examined, Examiner, RecordedVote, Surroundings},
    findings::{Discrepancy, FINDINGS_MAX, Findings, Note, Word},
    log::{Held, LogAudit, audit_anchors},
    page::{DEALS_SHOWN_MAX, DETAILS_SHOWN_MAX, PageOptions, page},
    policy::{Policy, PolicyError},
    progress::{ProgressFault, Resume},
    reverify::{Reverified, named_artifacts, reverify},
    timeline::{Entry, Timeline, timeline},
};
pub(crate) use self::{chain::compare_receipts, findings::word};
use self::{deals::Audited, fold::Fold};
use crate::store::{Head, OutboxEntry, Place, Store, StoreFault};

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
    /// The world as it was when the log ended at this position: later records, and what the store says beside the records
    /// without saying since when, are left out.
    pub at: Option<u64>,
    /// Say which verdicts and payments would differ under another policy.
    pub against: Option<Against<'a>>,
    /// Keep the progress in a file, and go on from what is there. For all deals alone.
    pub resume: Option<&'a Resume>,
}

/// What was asked of an audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The deals asked for; nothing: all.
    pub deals: Option<Vec<DealId>>,
    /// Whether verifications were run again.
    pub reverify: bool,
    /// Whether the record was held against a chain.
    pub chain: bool,
    /// As of which position.
    pub at: Option<u64>,
    /// Digest of the policy that it was compared with.
    pub against: Option<String>,
}

/// What an audit found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AuditReport {
    /// What was asked.
    pub options: Asked,
    /// The log's last position that the audit takes in.
    pub log_end: u64,
    /// When that was recorded; nothing in an empty log.
    pub log_end_at: Option<String>,
    /// The position as of which all is said, if not the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
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
    #[serde(deserialize_with = "fold::outcomes")]
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
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub log: Option<LogAudit>,
    /// What another policy would have changed, where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<AgainstReport>,
    /// What was compared with the chain, where it was.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
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

    /// Puts everything in order; what was met twice, such as the same damage by two readers, is one.
    fn order(&mut self) {
        self.discrepancies.sort();
        let kept = self.discrepancies.len();
        self.discrepancies.dedup();
        self.discrepancy_count -= (kept - self.discrepancies.len()) as u64;
        self.notes.sort();
        self.notes.dedup();
        if let Some(against) = &mut self.against {
            against.order();
        }
    }
}

/// The audit could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuditFault {
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The file with the progress cannot be used.
    #[error(transparent)]
    Progress(#[from] ProgressFault),
    /// There is no such position.
    #[error("the log ends at position {end}: there is no position {at}")]
    BeyondEnd {
        /// The position asked for.
        at: u64,
        /// The last one.
        end: u64,
    },
}

/// Deals in the order of their ids, with where they stand.
type Queue<'a> = Box<dyn Iterator<Item = Result<(DealId, Head), StoreFault>> + Send + 'a>;

/// What the threads of an audit share.
struct Audit<'a> {
    store: &'a Store,
    options: AuditOptions<'a>,
    /// Where the log ended when the audit began, or the position asked for.
    last_position: u64,
    /// The time it had reached.
    now: Timestamp,
    outbox: Option<BTreeMap<DealId, Vec<OutboxEntry>>>,
    done: AtomicU64,
    total: u64,
    /// Records at or before `last_position` that streams hold.
    within: AtomicU64,
    stopped: AtomicBool,
    fault: Mutex<Option<AuditFault>>,
    /// Deals that did not exist as of then.
    not_yet: Mutex<Vec<DealId>>,
    /// What belongs to no deal.
    whole: Mutex<Findings>,
    log: Mutex<Option<LogAudit>>,
    fold: Fold<'a>,
}

/// Audits deals of a store, which may be in use. Memory is bounded by one record, one folded deal and, with `reverify`,
/// one job a core.
///
/// # Errors
/// Where the disk fails, the position asked for is beyond the end, or the file of `resume` is of something else; damage is
/// a discrepancy.
pub fn audit(store: &Store, scope: Scope, options: AuditOptions<'_>) -> Result<AuditReport, AuditFault> {
    let mut findings = Findings::new(None);
    let end = store.last_position();
    if let Some(at) = options.at.filter(|at| *at == 0 || *at > end) {
        return Err(AuditFault::BeyondEnd { at, end });
    }
    let last_position = options.at.unwrap_or(end);
    let last = tolerate(store.record(last_position), &mut findings)?.flatten();
    let now = last.map(|record| record.recorded_at);
    // What is still to be done is known as of now alone.
    let outbox = match options.at {
        None => tolerate(store.outbox(), &mut findings)?.map(by_deal),
        Some(_) => None,
    };
    let all = matches!(scope, Scope::All);
    let (mut heads, mut unknown) = (Vec::new(), Vec::new());
    let mut asked = Asked {
        deals: None,
        reverify: options.reverify.is_some(),
        chain: false,
        at: options.at,
        against: options.against.map(|against| against.policy.digest().to_owned()),
    };
    if let Scope::Deals(ids) = scope {
        let mut ids = ids;
        ids.sort_unstable();
        ids.dedup();
        for deal_id in &ids {
            match tolerate(store.head(deal_id), &mut findings)? {
                Some(Some(head)) => heads.push((*deal_id, head)),
                Some(None) => unknown.push(*deal_id),
                None => {}
            }
        }
        asked.deals = Some(ids);
    }
    let report = AuditReport {
        options: asked,
        log_end: last_position,
        log_end_at: now.map(|now| now.to_string()),
        at: options.at,
        unknown,
        against: options.against.map(|against| AgainstReport::new(against.policy)),
        ..AuditReport::default()
    };
    let mut audit = Audit {
        store,
        options,
        last_position,
        now: now.unwrap_or_default(),
        outbox,
        done: AtomicU64::new(0),
        total: if all { last_position } else { heads.iter().map(|(_, head)| head.version).sum() },
        within: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        fault: Mutex::new(None),
        not_yet: Mutex::new(Vec::new()),
        whole: Mutex::new(findings),
        log: Mutex::new(None),
        fold: Fold::new(report),
    };
    let mut through = None;
    if let Some(resume) = options.resume.filter(|_| all) {
        through = audit.take_up(resume)?;
    }
    let deals: Queue<'_> = match (all, through) {
        (true, None) => Box::new(store.deals()),
        (true, Some(through)) => {
            Box::new(store.deals().skip_while(move |deal| deal.as_ref().is_ok_and(|(deal_id, _)| *deal_id <= through)))
        }
        (false, _) => Box::new(heads.into_iter().map(Ok)),
    };
    let deals = Mutex::new(deals.zip(0..));
    thread::scope(|scope| {
        for _ in 0..cores() {
            scope.spawn(|| audit.work(&deals));
        }
        if all {
            audit.whole_log();
        }
    });
    audit.end(all)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
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
    fn stop(&self, fault: impl Into<AuditFault>) {
        self.stopped.store(true, Ordering::Relaxed);
        lock(&self.fault).get_or_insert(fault.into());
        self.fold.wake();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(progress) = self.options.progress {
            progress(done, self.total.max(done));
        }
    }

    fn end(self, all: bool) -> Result<AuditReport, AuditFault> {
        if let Some(fault) = self.fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(fault);
        }
        let mut report = self.fold.end()?;
        if !all {
            report.unknown.extend(self.not_yet.into_inner().unwrap_or_else(PoisonError::into_inner));
            report.unknown.sort_unstable();
        }
        report.log = self.log.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.add(self.whole.into_inner().unwrap_or_else(PoisonError::into_inner));
        let within = self.within.into_inner();
        if all && report.is_clean() && within != self.last_position {
            let mut findings = Findings::new(None);
            let expected = format!("{} records in the streams of all deals, as in the log", self.last_position);
            findings.at(None, None, "log-gap", expected, within);
            report.add(findings);
        }
        report.order();
        Ok(report)
    }
}

/// The deal and position that a place names.
const fn located(place: &Place) -> (Option<DealId>, Option<u64>) {
    match place {
        Place::Deal(deal_id) => (Some(*deal_id), None),
        Place::Position(position) => (None, Some(*position)),
        Place::Record { position, deal_id, .. } => (Some(*deal_id), Some(*position)),
        Place::Files | Place::File { .. } | Place::Row(..) => (None, None),
    }
}
