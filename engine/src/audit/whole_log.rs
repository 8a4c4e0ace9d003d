//! What belongs to no single deal: every row of the store, the times of the log, and what was signed of it. One pass.

use tribunal_events::Timestamp;

use super::{Audit, Findings, lock, log::LogExaminer};
use crate::store::{Record, StoreFault};

impl Audit<'_> {
    /// Checks the rows of the store and the order of the log's times; of a past log, those of its records alone.
    pub(super) fn whole_log(&self) {
        let mut findings = Findings::new(None);
        let mut log = match LogExaminer::new(self.store, self.options.held, &mut findings) {
            Ok(log) => Some(log),
            Err(fault) => return self.stop(fault),
        };
        let mut failed = None;
        let mut before = Timestamp::default();
        let mut seen = |position: u64, record: Option<&Record>| {
            // What cannot be read is among the damage below.
            let Some(record) = record.filter(|_| position <= self.last_position) else {
                // Without a record nobody can tell what was signed from it on.
                if position <= self.last_position {
                    log = None;
                }
                return;
            };
            if let Some(log) = &mut log {
                failed = failed.take().or(log.take(record, &mut findings).err());
            }
            if record.recorded_at < before {
                let expected = format!("not before {before}");
                findings.about(record.deal_id, position, "log-time", expected, record.recorded_at);
            }
            before = record.recorded_at;
        };
        let checked = match self.options.at {
            None => self.store.check_with(&mut seen),
            Some(at) => self.store.check_until(at, &mut seen),
        };
        match checked {
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
        if let Some(fault) = failed {
            return self.stop(fault);
        }
        *lock(&self.log) = log.map(|log| log.finish(&mut findings));
        lock(&self.whole).extend(findings);
    }
}
