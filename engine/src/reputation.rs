//! What the record says of providers, and which of their results to check without anybody's dispute.
//!
//! A result counts as checked where a dispute about it was decided. *Consecutive valid results* are checked ones since the last
//! that was found wrong (BOINC); the *score* is iExec's (PoCo, `IexecPoco2Facet.sol`): one more for a valid one, two thirds,
//! rounded down, for an invalid one. A result that its client accepted says nothing: client and provider may be the same.
//! Inconclusive disputes count for nothing. A provider that missed its time to submit starts over like one that was wrong.
//!
//! *Adaptive replication* (BOINC, `sched_send.cpp`): a provider with fewer than ten consecutive valid results is always
//! checked, one with n of them with probability 1/n. Whoever builds up trust on cheap deals to cheat on a dear one gains
//! nothing by it: the probability is never below `p_min = C / (d·(1−r)·(R+S))`, at which cheating on this very deal does not
//! pay ([`Preflight::least_check_ppm`]).
//!
//! Which deals are checked follows from a seed that nobody knew when the results were given (a later block hash, a round of a
//! public beacon) and from nothing else: the first 64 bits of BLAKE3 `derive_key("tribunal.v1 check", seed, deal id, result
//! event id)` as a fraction of 2^64 are below the probability. Whoever has the same log and seed selects the same.
//!
//! **Invariant:** everything here is a function of the log up to a position, the policy and the seed. No rule of a deal looks
//! at it.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use tribunal_events::{Address, DealId, EventId, EventKind, Outcome, Terms};

use crate::{policy::Preflight, replay::ReplayFault, store::Store};

/// Consecutive valid results from which on a provider is not always checked.
const TRUSTED_FROM: u64 = 10;
const MILLION: u64 = 1_000_000;

/// What is known of one provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reputation {
    /// The provider.
    pub provider: Address,
    /// Deals in which it gave a result.
    pub results: u64,
    /// Accepted by the client, or by its silence.
    pub accepted: u64,
    /// Disputed and found right.
    pub valid: u64,
    /// Disputed and found wrong, or withheld.
    pub invalid: u64,
    /// Disputed, and nobody could tell.
    pub inconclusive: u64,
    /// Deals in which it gave no result in time.
    pub missed: u64,
    /// Checked results that stood since the last one that did not.
    pub consecutive_valid: u64,
    /// iExec's score.
    pub score: u64,
}

impl Reputation {
    const fn new(provider: Address) -> Self {
        Self {
            provider,
            results: 0,
            accepted: 0,
            valid: 0,
            invalid: 0,
            inconclusive: 0,
            missed: 0,
            consecutive_valid: 0,
            score: 0,
        }
    }

    fn ended(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Accepted | Outcome::JudgeTimeout => self.accepted += 1,
            Outcome::Valid => {
                self.valid += 1;
                self.consecutive_valid += 1;
                self.score += 1;
            }
            Outcome::Invalid => {
                self.invalid += 1;
                self.wrong();
            }
            Outcome::SubmitTimeout => {
                self.missed += 1;
                self.wrong();
            }
            Outcome::Inconclusive | Outcome::MediateTimeout => self.inconclusive += 1,
            Outcome::AgreeTimeout | Outcome::Withdrawn | Outcome::Unspecified => {}
        }
    }

    fn wrong(&mut self) {
        self.consecutive_valid = 0;
        self.score = self.score * 2 / 3;
    }

    /// How often a result of this provider is checked for its record alone, in parts per million.
    pub const fn check_ppm(&self) -> u64 {
        if self.consecutive_valid < TRUSTED_FROM { MILLION } else { MILLION.div_ceil(self.consecutive_valid) }
    }
}

/// A result that nobody disputed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The deal.
    pub deal_id: DealId,
    /// Who gave the result.
    pub provider: Address,
    /// The event that brought it.
    pub result: EventId,
    /// Its provider's consecutive valid results when it was given.
    pub consecutive_valid: u64,
    /// How often such a result is checked, in parts per million.
    pub check_ppm: u64,
    /// Whether it is checked.
    pub selected: bool,
}

/// The record of all providers up to a position of the log.
#[derive(Debug, Default)]
pub struct Reputations {
    by_provider: BTreeMap<Address, Reputation>,
    deals: BTreeMap<DealId, Standing>,
}

/// How one deal stands.
#[derive(Debug)]
struct Standing {
    terms: Arc<Terms>,
    /// The event that brought the result, and what was known of its provider then.
    result: Option<(EventId, Reputation)>,
    disputed: bool,
    outcome: Option<Outcome>,
}

impl Reputations {
    /// Reads the log up to a position; all of it without one.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn read(store: &Store, at: Option<u64>) -> Result<Self, ReplayFault> {
        let mut this = Self::default();
        for record in store.log(1) {
            let record = record?;
            let (position, event_id) = (record.position, record.event_id);
            if at.is_some_and(|at| position > at) {
                break;
            }
            let parsed = record.envelope.parse().map_err(|source| ReplayFault::Decode { position, source })?;
            let deal_id = parsed.deal_id();
            this.take(deal_id, event_id, parsed.into_kind());
        }
        Ok(this)
    }

    fn take(&mut self, deal_id: DealId, event_id: EventId, kind: EventKind) {
        if let EventKind::Proposed { terms, .. } = kind {
            let standing = Standing { terms, result: None, disputed: false, outcome: None };
            self.deals.entry(deal_id).or_insert(standing);
            return;
        }
        let Some(standing) = self.deals.get_mut(&deal_id) else { return };
        let provider = standing.terms.provider;
        let known = self.by_provider.entry(provider).or_insert_with(|| Reputation::new(provider));
        match kind {
            EventKind::ResultSubmitted { .. } if standing.result.is_none() => {
                standing.result = Some((event_id, known.clone()));
                known.results += 1;
            }
            EventKind::Disputed { .. } => standing.disputed = true,
            EventKind::Settled { outcome, .. } if standing.outcome.is_none() => {
                standing.outcome = Some(outcome);
                known.ended(outcome);
            }
            _ => {}
        }
    }

    /// One provider; nothing where it is in no deal.
    pub fn of(&self, provider: &Address) -> Option<&Reputation> {
        self.by_provider.get(provider)
    }

    /// All providers, ascending by account.
    pub fn all(&self) -> impl Iterator<Item = &Reputation> {
        self.by_provider.values()
    }

    /// All results that nobody disputed, ascending by deal, and which of them this seed selects. `policy` says from which
    /// probability on cheating on a deal does not pay.
    pub fn select(&self, seed: &[u8; 32], policy: &Preflight) -> Vec<Candidate> {
        let candidate = |(deal_id, standing): (&DealId, &Standing)| {
            let (result, known) = standing.result.as_ref().filter(|_| !standing.disputed)?;
            let check_ppm = known.check_ppm().max(policy.least_check_ppm(&standing.terms)).min(MILLION);
            Some(Candidate {
                deal_id: *deal_id,
                provider: standing.terms.provider,
                result: *result,
                consecutive_valid: known.consecutive_valid,
                check_ppm,
                selected: is_selected(seed, deal_id, result, check_ppm),
            })
        };
        self.deals.iter().filter_map(candidate).collect()
    }
}

/// Whether the draw for a result is below the probability.
fn is_selected(seed: &[u8; 32], deal_id: &DealId, result: &EventId, check_ppm: u64) -> bool {
    let mut hasher = blake3::Hasher::new_derive_key("tribunal.v1 check");
    hasher.update(seed).update(deal_id.bytes()).update(result.bytes());
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    let draw = u64::from_be_bytes(first);
    // draw / 2^64 < ppm / 10^6, crosswise.
    u128::from(draw) * u128::from(MILLION) < (u128::from(check_ppm) << 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(outcomes: &[Outcome]) -> Reputation {
        let mut known = Reputation::new(Address::ZERO);
        outcomes.iter().for_each(|outcome| known.ended(*outcome));
        known
    }

    #[test]
    fn trust_grows_with_checked_results_alone_and_one_wrong_ends_it() {
        assert_eq!(after(&[Outcome::Accepted; 100]).check_ppm(), 1_000_000, "acceptance is the word of its client");
        assert_eq!(after(&[Outcome::Valid; 9]).check_ppm(), 1_000_000);
        assert_eq!(after(&[Outcome::Valid; 10]).check_ppm(), 100_000);
        assert_eq!(after(&[Outcome::Valid; 100]).check_ppm(), 10_000);
        assert_eq!(after(&[Outcome::Inconclusive; 5]).consecutive_valid, 0);
        for wrong in [Outcome::Invalid, Outcome::SubmitTimeout] {
            let known = after(&[&[Outcome::Valid; 30][..], &[wrong]].concat());
            assert_eq!((known.consecutive_valid, known.score, known.check_ppm()), (0, 20, 1_000_000));
        }
    }

    #[test]
    fn a_share_of_results_is_drawn_and_the_same_for_everybody() {
        let result = EventId::of_event(b"result");
        let drawn = |seed: u8, ppm| {
            let deals = (0..4000u32).map(|number| DealId::of_terms(&number.to_be_bytes()));
            deals.filter(|deal| is_selected(&[seed; 32], deal, &result, ppm)).count()
        };
        assert_eq!((drawn(1, 0), drawn(1, 1_000_000)), (0, 4000));
        // 400 are expected, with a standard deviation of 19.
        let some = drawn(1, 100_000);
        assert!((300..500).contains(&some), "{some}");
        assert_eq!(drawn(1, 100_000), some);
        let first = |seed: u8| {
            let deals = (0..4000u32).map(|number| DealId::of_terms(&number.to_be_bytes()));
            deals.filter(|deal| is_selected(&[seed; 32], deal, &result, 100_000)).collect::<Vec<_>>()
        };
        assert_ne!(first(1), first(2), "another seed, other deals");
    }
}
