//! Checks finished cases of others again: do verdicts hold, did everybody move in time, was enough at stake?
//!
//! | code | what a watcher is told |
//! |---|---|
//! | `divergence` | verification here contradicts the votes that carried the day |
//! | `record` | the operator's record does not fit the rules, as an audit finds |
//! | `late` | mediators were silent in a round, or the operator let a deadline pass long before it recorded it |
//! | `collateral` | cheating pays even where every result is checked (p_min above 1) |
//! | `unchecked` | the result could not be checked here; a note, no alarm |

use std::sync::Arc;

use serde::Serialize;
use tribunal_events::{DealId, EventKind, Timestamp};
use tribunal_verifiers::{ArtifactSource, Service};

use crate::{
    audit::{Examiner, Surroundings, reverify},
    config::Config,
    policy::{Level, Preflight},
    store::{Store, StoreFault},
};

/// An operator that records a deadline later than this after it passed is late, in microseconds.
const OPERATOR_LATE_US: u64 = 60_000_000;

/// Something a watcher is told about a deal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// Stable code, see the module.
    pub code: &'static str,
    /// The deal.
    pub deal_id: DealId,
    /// Log position, where it is about one record.
    pub position: Option<u64>,
    /// One sentence.
    pub what: String,
}

impl Alarm {
    /// Whether somebody must look; the others are notes.
    pub fn is_alarm(&self) -> bool {
        self.code != "unchecked"
    }
}

/// What checking needs.
pub struct Watcher {
    /// Verifies.
    pub service: Arc<Service>,
    /// Serves artifacts.
    pub source: Arc<dyn ArtifactSource>,
    /// What this operator takes to deter.
    pub preflight: Preflight,
}

impl Watcher {
    /// A watcher with these settings.
    pub fn new(config: &Config, service: Arc<Service>, source: Arc<dyn ArtifactSource>) -> Self {
        let (policy, limits) = (config.policy.clone(), config.verifiers.limits());
        let preflight = Preflight { policy, limits, mediators: Vec::new() };
        Self { service, source, preflight }
    }

    /// Examines a finished deal of a record and verifies its result again.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn check(&self, store: &Store, deal_id: &DealId) -> Result<Vec<Alarm>, StoreFault> {
        let mut alarms = Vec::new();
        let mut say = |code, position, what| alarms.push(Alarm { code, deal_id: *deal_id, position, what });
        let mut examiner = Examiner::new(*deal_id);
        for record in store.stream(deal_id, 1) {
            let record = record?;
            if let Ok(parsed) = record.envelope.clone().parse()
                && let EventKind::DeadlineElapsed { deadline, deadline_us, round, silent, .. } = parsed.into_kind()
            {
                let position = Some(record.position);
                if !silent.is_empty() {
                    let who = silent.iter().map(|who| format!("{who:#x}")).collect::<Vec<_>>().join(", ");
                    say("late", position, format!("{who} said nothing in round {round}"));
                }
                let late_us = record.recorded_at.us().saturating_sub(deadline_us);
                if late_us > OPERATOR_LATE_US {
                    let what = format!(
                        "the operator noticed {} s late that the time to {deadline} was over",
                        late_us / 1_000_000
                    );
                    say("late", position, what);
                }
            }
            examiner.take(&record);
        }
        // Nobody here judged it, and it may not be copied to its end yet.
        if examiner.is_imported() {
            return Ok(alarms);
        }
        let mut examined = examiner.finish(&Surroundings::default());
        let before = examined.findings.notes.len();
        reverify(&mut examined, &self.service, self.source.as_ref());
        if let Some(terms) = &examined.terms {
            let findings = self.preflight.check(terms, Timestamp::default());
            for found in findings.iter().filter(|it| (it.code, it.level) == ("collateral", Level::Refuse)) {
                say("collateral", None, found.sentence.clone());
            }
        }
        for found in &examined.findings.discrepancies {
            let code = if found.code == "vote" { "divergence" } else { "record" };
            say(code, found.position, format!("{}: expected {}, found {}", found.code, found.expected, found.found));
        }
        for note in examined.findings.notes.iter().skip(before).filter(|note| note.code == "not-checkable") {
            say("unchecked", note.position, note.text.clone());
        }
        Ok(alarms)
    }
}
