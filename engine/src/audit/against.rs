//! What if: the verdicts and payments of recorded deals under another policy.
//!
//! No discrepancy comes of it. The record stands as the parties agreed; this says what another policy would have made of
//! the same words, votes and results.
//!
//! | recorded | under the policy |
//! |---|---|
//! | a verdict by votes | the votes counted again, round by round, or our own verdict |
//! | accepted, or left to a timeout of the client | with `dispute = "all"` invalid where our own verdict is; else it stands |
//! | mediators who stayed silent | our own verdict, where that decides; else it stands |
//! | any other end | stands; the money may differ |
//!
//! Where another panel would have been drawn whose votes nobody knows, where an artifact is missing, and where a verification
//! is inconclusive for reasons of this machine, nothing is compared, and it says why.
//!
//! **Invariant:** money under a policy is the core's own settlement of changed parameters, so it conserves.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use tribunal_core::{Decision, Phase, Settlement};
use tribunal_events::{Address, Claim, DealId, Outcome, Payout, Terms, VerdictKind};
use tribunal_verifiers::{ArtifactSource, Request, Service};

use super::{
    Examined, FINDINGS_MAX, Policy,
    findings::{Word, word},
    policy::Count,
    reverify::{SHARED_CODES, WITHHELD, verdict},
};
use crate::view::PayoutView;

/// A policy, and what verifying under it needs.
#[derive(Clone, Copy)]
pub struct Against<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// A verifier with the policy's limits.
    pub service: &'a Service,
    /// Where artifacts are.
    pub source: &'a dyn ArtifactSource,
}

/// What a policy would have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgainstReport {
    /// BLAKE3 of the policy's file.
    pub policy: String,
    /// Deals compared.
    pub deals: u64,
    /// Deals left out because they have no outcome yet.
    pub open: u64,
    /// Deals that would differ; the list holds the first [`FINDINGS_MAX`].
    pub changed_count: u64,
    /// Those, by id.
    pub changed: Vec<Change>,
    /// Deals that could not be compared; the list holds the first [`FINDINGS_MAX`].
    pub not_comparable_count: u64,
    /// Those, by id.
    pub not_comparable: Vec<NotComparable>,
}

/// A deal that would differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The deal.
    pub deal_id: DealId,
    /// Log position of its last record.
    pub position: Option<u64>,
    /// What is recorded.
    pub recorded: Judged,
    /// What the policy gives.
    pub policy: Judged,
    /// Whether the outcomes differ.
    pub verdict_differs: bool,
    /// Whether anybody would get or lock something else.
    pub payouts_differ: bool,
    /// One sentence.
    pub why: String,
}

/// An outcome and its money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The outcome's word.
    #[serde(deserialize_with = "word")]
    pub outcome: Word,
    /// Stable reason code.
    pub reason_code: String,
    /// Who gets what.
    pub payouts: Vec<PayoutView>,
}

/// A deal of which nobody can say what the policy would give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotComparable {
    /// The deal.
    pub deal_id: DealId,
    /// Why.
    pub why: String,
}

/// What comparing one deal gave.
pub(super) enum Compared {
    /// It has no outcome yet.
    Open,
    Same,
    Changed(Box<Change>),
    Not(NotComparable),
}

impl AgainstReport {
    pub(super) fn new(policy: &Policy) -> Self {
        Self { policy: policy.digest().to_owned(), ..Self::default() }
    }

    pub(super) fn add(&mut self, compared: Compared) {
        match compared {
            Compared::Open => self.open += 1,
            Compared::Same => self.deals += 1,
            Compared::Changed(change) => {
                self.deals += 1;
                self.changed_count += 1;
                if self.changed.len() < FINDINGS_MAX {
                    self.changed.push(*change);
                }
            }
            Compared::Not(why) => {
                self.not_comparable_count += 1;
                if self.not_comparable.len() < FINDINGS_MAX {
                    self.not_comparable.push(why);
                }
            }
        }
    }

    /// Whether the lists hold everything.
    pub(super) fn is_complete(&self) -> bool {
        self.changed.len() as u64 == self.changed_count && self.not_comparable.len() as u64 == self.not_comparable_count
    }

    /// Takes a deal out again.
    pub(super) fn remove(&mut self, deal_id: &DealId, compared: &Compared) {
        match compared {
            Compared::Open => self.open = self.open.saturating_sub(1),
            Compared::Same | Compared::Changed(_) => self.deals = self.deals.saturating_sub(1),
            Compared::Not(_) => {}
        }
        self.changed.retain(|it| it.deal_id != *deal_id);
        self.changed_count = self.changed.len() as u64;
        self.not_comparable.retain(|it| it.deal_id != *deal_id);
        self.not_comparable_count = self.not_comparable.len() as u64;
    }

    /// By id, as deals that were audited again come out of turn.
    pub(super) fn order(&mut self) {
        self.changed.sort_by_key(|it| it.deal_id);
        self.not_comparable.sort_by_key(|it| it.deal_id);
    }
}

/// What the policy makes of a deal.
struct Found {
    outcome: Outcome,
    reason_code: String,
    voters: Vec<Address>,
    why: String,
}

/// Compares a replayed deal with what it would be under the policy.
pub(super) fn compare(examined: &Examined, against: &Against<'_>) -> Compared {
    let not = |why: String| Compared::Not(NotComparable { deal_id: examined.deal_id, why });
    let (Some(terms), Some(deal)) = (&examined.terms, &examined.deal) else {
        return not("its terms cannot be read".into());
    };
    if !examined.replayed {
        return not("it could not be replayed".into());
    }
    let (decision, paid) = match deal.phase() {
        Phase::Decided(decision) => (decision, None),
        Phase::Settled { decision, payouts, .. } => (decision, Some(payouts.clone())),
        _ => return Compared::Open,
    };
    let found = match found(examined, terms, decision, against) {
        Ok(found) => found,
        Err(why) => return not(why),
    };
    let changed_terms = match against.policy.terms(terms) {
        Ok(changed) => changed,
        Err(why) => return not(why),
    };
    let settlement = |terms: &Terms, outcome, voters: &[Address]| {
        Settlement::new(terms, outcome, decision.instruction_count, voters, decision.funded).payouts().to_vec()
    };
    let recorded = paid.unwrap_or_else(|| settlement(terms, decision.outcome, &voters(decision)));
    let policy = settlement(&changed_terms, found.outcome, &found.voters);
    let (verdict_differs, payouts_differ) = (found.outcome != decision.outcome, recorded != policy);
    if !verdict_differs && !payouts_differ {
        return Compared::Same;
    }
    let why = match (verdict_differs, found.voters == voters(decision)) {
        (true, _) | (false, false) => found.why,
        (false, true) => "the outcome stands; the policy's money is another".into(),
    };
    let judged = |outcome: Outcome, reason_code: &str, payouts: &[Payout]| Judged {
        outcome: outcome.word(),
        reason_code: reason_code.to_owned(),
        payouts: payouts.iter().map(PayoutView::from).collect(),
    };
    Compared::Changed(Box::new(Change {
        deal_id: examined.deal_id,
        position: examined.last.map(|(position, _)| position),
        recorded: judged(decision.outcome, &decision.reason_code, &recorded),
        policy: judged(found.outcome, &found.reason_code, &policy),
        verdict_differs,
        payouts_differ,
        why,
    }))
}

fn voters(decision: &Decision) -> Vec<Address> {
    decision.round.as_ref().map(|round| round.voters()).unwrap_or_default()
}

/// The outcome under the policy, or why nobody can say.
fn found(examined: &Examined, terms: &Terms, decision: &Decision, against: &Against<'_>) -> Result<Found, String> {
    let policy = against.policy;
    let stands = || Found {
        outcome: decision.outcome,
        reason_code: decision.reason_code.clone(),
        voters: voters(decision),
        why: "the outcome stands".into(),
    };
    let Some(claim) = examined.claim.as_ref().filter(|_| policy.judges(terms) && decision.funded) else {
        return Ok(stands());
    };
    let voted = examined.votes.iter().any(|it| decision.round.as_ref().is_some_and(|of| of.number() == it.vote.round));
    match (decision.outcome, policy.count()) {
        (Outcome::Valid | Outcome::Invalid | Outcome::Inconclusive, Count::Votes) if voted => {
            if policy.recounts() {
                recount(examined, terms, decision, policy)
            } else {
                Ok(stands())
            }
        }
        (Outcome::MediateTimeout, Count::Votes) if voted && policy.recounts() => {
            recount(examined, terms, decision, policy)
        }
        (Outcome::Valid | Outcome::Invalid | Outcome::Inconclusive, Count::Verifier) if voted => {
            if decision.reason_code == WITHHELD {
                return Err("its verdict rests on what was not served then, which no verifier sees".into());
            }
            own(examined, terms, claim, decision, against)
        }
        (Outcome::MediateTimeout, Count::Verifier) => own(examined, terms, claim, decision, against),
        (Outcome::Accepted | Outcome::JudgeTimeout, _) if policy.disputes_all() => {
            let own = own(examined, terms, claim, decision, against)?;
            // A check that finds nothing wrong moves nothing.
            Ok(if own.outcome == Outcome::Invalid { own } else { stands() })
        }
        _ => Ok(stands()),
    }
}

/// Our own verdict on the result.
fn own(
    examined: &Examined,
    terms: &Terms,
    claim: &Arc<Claim>,
    decision: &Decision,
    against: &Against<'_>,
) -> Result<Found, String> {
    let replicas: Vec<_> = examined.replicas.iter().map(|(who, claim)| (*who, Arc::clone(claim))).collect();
    let request = against.policy.request(Request::for_deal(terms, claim, &replicas));
    let verdict = verdict(&request, against.service, against.source).map_err(|unchecked| unchecked.why)?;
    let code = &verdict.reason.code;
    let shared = SHARED_CODES.contains(&code.as_str())
        || code == "operator-limit" && against.policy.limits_jobs()
        || decision.outcome == Outcome::Inconclusive && *code == decision.reason_code;
    if verdict.verdict == VerdictKind::Inconclusive && !shared {
        return Err(format!("verification was inconclusive here ({code}): {}", verdict.reason.detail));
    }
    let outcome = outcome(verdict.verdict);
    let why = format!("verification under the policy gives {} ({code}): {}", outcome.word(), verdict.reason.detail);
    Ok(Found { outcome, reason_code: code.clone(), voters: voters(decision), why })
}

const fn outcome(verdict: VerdictKind) -> Outcome {
    match verdict {
        VerdictKind::Valid => Outcome::Valid,
        VerdictKind::Invalid => Outcome::Invalid,
        VerdictKind::Inconclusive => Outcome::Inconclusive,
    }
}

/// The recorded votes under the policy's quorum and weights: the first round that decides, as in the core.
fn recount(examined: &Examined, terms: &Terms, decision: &Decision, policy: &Policy) -> Result<Found, String> {
    let quorum = policy.quorum(terms);
    let mut rounds: BTreeMap<u32, Vec<(Address, VerdictKind, &str)>> = BTreeMap::new();
    for it in &examined.votes {
        let vote = (it.mediator, it.vote.verdict, it.vote.reason_code.as_str());
        rounds.entry(it.vote.round).or_default().push(vote);
    }
    let last_recorded = decision.round.as_ref().map_or(0, |round| round.number());
    for (number, votes) in rounds {
        let last = number >= terms.mediation.redraws;
        let weight = |kind: VerdictKind| -> u64 {
            votes.iter().filter(|(_, verdict, _)| *verdict == kind).map(|(who, ..)| policy.weight(*who)).sum()
        };
        let kinds = [VerdictKind::Valid, VerdictKind::Invalid, VerdictKind::Inconclusive];
        let most = kinds.into_iter().map(weight).max().unwrap_or_default();
        let leading: Vec<_> = kinds.into_iter().filter(|kind| weight(*kind) == most).collect();
        let said = kinds.map(|kind| format!("{} {}", weight(kind), kind.word())).join(", ");
        let mut voters: Vec<_> = votes.iter().map(|(who, ..)| *who).collect();
        voters.sort_unstable();
        let why = |what: &str| format!("the votes of round {number} weigh {said}; with a quorum of {quorum} {what}");
        let verdict = match leading[..] {
            [verdict] if most >= quorum => Some(verdict),
            _ => None,
        };
        match verdict {
            Some(verdict) if verdict != VerdictKind::Inconclusive || last => {
                let outcome = outcome(verdict);
                let reason_code = commonest(votes.iter().filter(|it| it.1 == verdict).map(|it| it.2));
                let why = why(&format!("that is {}", outcome.word()));
                return Ok(Found { outcome, reason_code, voters, why });
            }
            None if last => {
                let (outcome, reason_code) = (Outcome::Inconclusive, "no-quorum".to_owned());
                return Ok(Found { outcome, reason_code, voters, why: why("nothing is decided") });
            }
            _ if number >= last_recorded => {
                return Err(why("another panel would be drawn, whose votes nobody knows"));
            }
            _ => {}
        }
    }
    Err("no round has votes that could be counted".into())
}

/// The commonest code; of equally common ones the first in alphabetical order.
fn commonest<'a>(codes: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for code in codes {
        *counts.entry(code).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or_default();
    counts.into_iter().find(|(_, count)| *count == most).map_or_else(String::new, |(code, _)| code.to_owned())
}
