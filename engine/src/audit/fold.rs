//! Puts what the threads of an audit find together in the order of deals, so that the report depends on no thread's speed,
//! and so that a file can say how far it is.

use std::{
    collections::BTreeMap,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error as _};
use tribunal_events::DealId;

use super::{
    AuditReport, Audited, findings, lock,
    progress::{Keeper, ProgressFault},
};

/// Deals that may be done ahead of one that takes long.
const AHEAD_MAX: usize = 10_000;
/// How long a thread waits at most before it looks whether the audit was stopped.
const WAIT: Duration = Duration::from_millis(100);

/// The report so far.
pub(super) struct Fold<'a> {
    state: Mutex<State<'a>>,
    moved: Condvar,
}

struct State<'a> {
    /// The number of the deal that comes next.
    next: u64,
    /// Deals that were done out of turn.
    ahead: BTreeMap<u64, Option<Audited>>,
    report: AuditReport,
    keeper: Option<Keeper<'a>>,
}

impl<'a> Fold<'a> {
    pub(super) const fn new(report: AuditReport) -> Self {
        let state = State { next: 0, ahead: BTreeMap::new(), report, keeper: None };
        Self { state: Mutex::new(state), moved: Condvar::new() }
    }

    /// Starts from what a file holds, and keeps it up to date from now on.
    pub(super) fn resume(&mut self, report: AuditReport, keeper: Keeper<'a>) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        (state.report, state.keeper) = (report, Some(keeper));
    }

    /// The report so far, before any thread runs.
    pub(super) fn report(&mut self) -> &mut AuditReport {
        &mut self.state.get_mut().unwrap_or_else(PoisonError::into_inner).report
    }

    /// Takes what the deal of this number gave; nothing where it is none. Waits while others are too far behind.
    pub(super) fn take(
        &self,
        number: u64,
        audited: Option<Audited>,
        stopped: &AtomicBool,
    ) -> Result<(), ProgressFault> {
        let mut state = lock(&self.state);
        state.ahead.insert(number, audited);
        while let Some(audited) = {
            let next = state.next;
            state.ahead.remove(&next)
        } {
            state.next += 1;
            if let Some(audited) = audited {
                if let Some(keeper) = &mut state.keeper {
                    keeper.passed(&audited);
                }
                state.report.count(audited);
            }
        }
        let State { keeper, report, .. } = &mut *state;
        if let Some(keeper) = keeper {
            keeper.save_sometimes(report)?;
        }
        self.moved.notify_all();
        while state.ahead.len() >= AHEAD_MAX && !stopped.load(Ordering::Relaxed) {
            state = self.moved.wait_timeout(state, WAIT).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    pub(super) fn wake(&self) {
        self.moved.notify_all();
    }

    /// The report of all deals; saves it.
    pub(super) fn end(self) -> Result<AuditReport, ProgressFault> {
        let State { report, keeper, .. } = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut keeper) = keeper {
            keeper.save(&report)?;
        }
        Ok(report)
    }
}

impl AuditReport {
    pub(super) fn count(&mut self, audited: Audited) {
        self.deals += 1;
        self.records += audited.records;
        self.signatures += audited.signatures;
        self.reverified += u64::from(audited.reverified);
        self.votes_confirmed += audited.votes_confirmed;
        *self.outcomes.entry(audited.outcome).or_default() += 1;
        if let (Some(against), Some(compared)) = (&mut self.against, audited.compared) {
            against.add(compared);
        }
        self.add(audited.findings);
    }

    /// Whether the lists hold everything, so that what one deal brought in can be taken out again.
    pub(super) fn is_complete(&self) -> bool {
        self.discrepancies.len() as u64 == self.discrepancy_count
            && self.notes.len() < super::FINDINGS_MAX
            && self.against.as_ref().is_none_or(super::AgainstReport::is_complete)
    }

    /// Takes out what a deal brought in. Asks for [`AuditReport::is_complete`].
    pub(super) fn discount(&mut self, audited: &Audited) {
        self.deals = self.deals.saturating_sub(1);
        self.records = self.records.saturating_sub(audited.records);
        self.signatures = self.signatures.saturating_sub(audited.signatures);
        self.reverified = self.reverified.saturating_sub(u64::from(audited.reverified));
        self.votes_confirmed = self.votes_confirmed.saturating_sub(audited.votes_confirmed);
        let left = self.outcomes.get_mut(audited.outcome).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            self.outcomes.remove(audited.outcome);
        }
        if let (Some(against), Some(compared)) = (&mut self.against, &audited.compared) {
            against.remove(&audited.deal_id, compared);
        }
        let about = |deal_id: Option<DealId>| deal_id == Some(audited.deal_id);
        self.discrepancies.retain(|it| !about(it.deal_id));
        self.discrepancy_count = self.discrepancies.len() as u64;
        self.notes.retain(|it| !about(it.deal_id));
    }
}

/// Reads the counts by outcome.
pub(super) fn outcomes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<&'static str, u64>, D::Error> {
    let counts = BTreeMap::<String, u64>::deserialize(deserializer)?;
    counts.into_iter().map(|(word, count)| Ok((findings::known(word).map_err(D::Error::custom)?, count))).collect()
}
