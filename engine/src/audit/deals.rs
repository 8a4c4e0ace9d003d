//! The deals of an audit: threads that take one after the other, and what examining one gives.

use std::sync::{Mutex, atomic::Ordering};

use tribunal_events::{ChainLink, DealId, Timestamp};

use super::{
    Audit, AuditFault, Examined, Examiner, Findings, Surroundings,
    against::{Compared, compare},
    by_deal, lock,
    reverify::reverify,
    tolerate,
};
use crate::store::{Head, OutboxEntry, StoreFault};

/// How often a deal is read again because the engine wrote to it meanwhile.
const ATTEMPTS_MAX: u32 = 4;
/// Findings that a write to the deal between two reads of ours may make.
const MOVING: [&str; 4] = ["effect-lost", "outbox", "head", "snapshot"];

/// What auditing one deal gave.
pub(super) struct Audited {
    pub(super) deal_id: DealId,
    /// Where its stream ended for this audit.
    pub(super) end: End,
    pub(super) records: u64,
    pub(super) signatures: u64,
    pub(super) outcome: &'static str,
    pub(super) reverified: bool,
    pub(super) votes_confirmed: u64,
    pub(super) compared: Option<Compared>,
    pub(super) findings: Findings,
}

/// Version and link of a deal's last record.
pub(super) type End = (u64, ChainLink);

/// As of when a deal is looked at.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// Later records are left out; nothing: none are.
    pub(super) until: Option<u64>,
    /// The time that the log had reached.
    pub(super) now: Timestamp,
}

impl Audit<'_> {
    /// Takes deals until there are none left.
    pub(super) fn work(&self, deals: &Mutex<impl Iterator<Item = (Result<(DealId, Head), StoreFault>, u64)> + Send>) {
        while !self.is_stopped() {
            // In a statement of its own, so that the lock is held no longer.
            let next = lock(deals).next();
            let Some((deal, number)) = next else { break };
            let audited = match deal {
                Ok((deal_id, _)) => self.deal(&deal_id, self.moment(), true).inspect(|audited| {
                    if audited.is_none() {
                        lock(&self.not_yet).push(deal_id);
                    }
                }),
                Err(StoreFault::Damaged { place, what }) => {
                    lock(&self.whole).damage(&place, &what);
                    Ok(None)
                }
                Err(fault) => Err(fault),
            };
            match audited.map_err(AuditFault::from).and_then(|audited| self.take(number, audited)) {
                Ok(()) => {}
                Err(fault) => self.stop(fault),
            }
        }
    }

    fn take(&self, number: u64, audited: Option<Audited>) -> Result<(), AuditFault> {
        Ok(self.fold.take(number, audited, &self.stopped)?)
    }

    /// As of when this audit looks at deals. One that can be resumed keeps to the end of the log as it was when it began,
    /// so that what it counted can be told from what came later.
    pub(super) fn moment(&self) -> Moment {
        let pinned = self.options.at.is_some() || self.options.resume.is_some();
        Moment { until: pinned.then_some(self.last_position), now: self.now }
    }

    /// Audits one deal; nothing where it did not exist yet. Its records count as done where `count` says so.
    pub(super) fn deal(&self, deal_id: &DealId, moment: Moment, count: bool) -> Result<Option<Audited>, StoreFault> {
        let known = self.outbox.as_ref().map(|outbox| outbox.get(deal_id).map_or(&[][..], Vec::as_slice));
        let Some((mut examined, mut end)) = self.examine(deal_id, known, moment, count)? else { return Ok(None) };
        // The engine may have written between our reading of the outbox and of the stream: then read both again.
        for _ in 1..ATTEMPTS_MAX {
            if !examined.findings.discrepancies.iter().any(|it| MOVING.contains(&it.code)) {
                break;
            }
            let before = self.store.head(deal_id);
            let fresh = match known {
                Some(_) => tolerate(self.store.outbox(), &mut Findings::new(None))?.map(by_deal),
                None => None,
            };
            let fresh = fresh.as_ref().map(|outbox| outbox.get(deal_id).map_or(&[][..], Vec::as_slice));
            let Some(again) = self.examine(deal_id, fresh, moment, false)? else { return Ok(None) };
            (examined, end) = again;
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
        let compared = self.options.against.map(|against| compare(&examined, &against));
        let outcome = examined.deal.as_ref().and_then(|deal| deal.outcome()).map_or("open", |outcome| outcome.word());
        let outcome = if examined.imported.is_some() { "imported" } else { outcome };
        Ok(Some(Audited {
            deal_id: *deal_id,
            end,
            records: examined.records,
            signatures: examined.signatures,
            outcome,
            reverified: reverified.as_ref().is_some_and(|it| it.verdict.is_some()),
            votes_confirmed: reverified.map_or(0, |it| it.confirmed),
            compared,
            findings: examined.findings,
        }))
    }

    /// Replays a deal, and says where it ended. What the store says beside its records is left out where the deal went on
    /// after the moment.
    fn examine(
        &self,
        deal_id: &DealId,
        outbox: Option<&[OutboxEntry]>,
        moment: Moment,
        count: bool,
    ) -> Result<Option<(Examined, End)>, StoreFault> {
        let mut examiner = Examiner::of_store(*deal_id);
        let snapshot = tolerate(self.store.snapshot(deal_id), examiner.findings())?.flatten();
        let head = tolerate(self.store.head(deal_id), examiner.findings())?.flatten();
        let until = moment.until.unwrap_or(u64::MAX);
        let went_on = head.is_some_and(|head| head.last_position > until);
        if let Some((version, bytes)) = snapshot.filter(|_| !went_on) {
            examiner.expect_snapshot(version, bytes);
        }
        let (mut whole, mut went_on_at) = (true, None);
        for record in self.store.stream(deal_id, 1) {
            match tolerate(record, examiner.findings())? {
                Some(record) if record.position > until => {
                    went_on_at = Some(record.recorded_at);
                    break;
                }
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
        let (head, outbox) = (head.filter(|_| !went_on), outbox.filter(|_| !went_on));
        let so_far = examiner.so_far();
        let end = head.map_or((so_far.records, so_far.link), |head| (head.version, head.link));
        if !whole {
            return Ok(Some((examiner.give_up("the store cannot read the records that follow"), end)));
        }
        if went_on && so_far.records == 0 {
            return Ok(None);
        }
        Ok(Some((examiner.finish(&Surroundings { now: Some(moment.now), head, outbox, went_on_at }), end)))
    }
}
