//! Read models of deals: what the command line, HTTP and the page show. Folds of the store, nothing else.

use serde::{Deserialize, Serialize};
use tribunal_core::{Deal, Phase, REORGANISED, Settlement, next_deadline, price};
use tribunal_events::{Address, Amount, DealId, EventKind, Payout, Role, Timestamp};

use crate::{
    import::view::{Origin, imported},
    replay::{ReplayFault, fold, reopen},
    store::{Record, Store},
};

/// One line about a deal.
#[derive(Clone, Debug, Serialize)]
pub struct DealSummary {
    /// The deal.
    pub deal_id: DealId,
    /// `negotiating`, `agreed`, `result-submitted`, `disputed`, `decided` or `settled`.
    pub state: &'static str,
    /// The outcome's word once decided, else `open`.
    pub outcome: &'static str,
    /// Stable reason code once decided.
    pub reason_code: Option<String>,
    /// Pays.
    pub client: Address,
    /// Computes.
    pub provider: Address,
    /// Events so far.
    pub version: u64,
    /// Log position of the last one.
    pub last_position: u64,
    /// When the last one was recorded.
    pub updated_at: String,
    /// What ends next, if anything.
    pub next_deadline: Option<DeadlineView>,
    /// Who got what, once settled.
    pub payouts: Vec<PayoutView>,
    /// The transaction that moved the money.
    pub transaction: Option<String>,
    /// Where the deal was imported from; then `state` is `imported`, and `outcome` where it stands there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imported: Option<Origin>,
}

/// A deadline for readers.
#[derive(Clone, Debug, Serialize)]
pub struct DeadlineView {
    /// What ends.
    pub kind: &'static str,
    /// When, RFC 3339.
    pub at: String,
}

/// A share of a settlement for readers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutView {
    /// Who.
    pub account: Address,
    /// As what.
    #[serde(deserialize_with = "crate::audit::word")]
    pub role: crate::audit::Word,
    /// What it had locked.
    pub locked: Amount,
    /// What it got out.
    pub paid: Amount,
    /// The difference, signed decimal.
    pub net: String,
}

/// One step of a deal's timeline.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineEntry {
    /// Version in the deal.
    pub version: u64,
    /// Position in the log.
    pub position: u64,
    /// When it was recorded, RFC 3339.
    pub at: String,
    /// What happened.
    pub kind: &'static str,
    /// Who said it, by role and account.
    pub by: String,
    /// One sentence.
    pub what: String,
    /// Its id.
    pub event_id: String,
    /// The deal's chain after it.
    pub link: String,
}

impl From<&Payout> for PayoutView {
    fn from(payout: &Payout) -> Self {
        Self {
            account: payout.account,
            role: payout.role.word(),
            locked: payout.locked,
            paid: payout.paid,
            net: net(payout.locked, payout.paid),
        }
    }
}

/// What came out minus what was locked, signed decimal.
pub fn net(locked: Amount, paid: Amount) -> String {
    match paid.checked_sub(locked) {
        Some(gain) if gain.is_zero() => "0".into(),
        Some(gain) => format!("+{gain}"),
        None => format!("-{}", locked.checked_sub(paid).unwrap_or_default()),
    }
}

/// The summary of a deal whose last record is at `position`.
pub fn summary(deal: &Deal, position: u64, at: Timestamp) -> DealSummary {
    let (reason_code, payouts, transaction) = match deal.phase() {
        Phase::Decided(decision) => (Some(decision.reason_code.clone()), Vec::new(), None),
        Phase::Settled { decision, payouts, transaction } => (
            Some(decision.reason_code.clone()),
            payouts.iter().map(PayoutView::from).collect(),
            transaction.map(|hash| format!("{hash:#x}")),
        ),
        _ => (None, Vec::new(), None),
    };
    DealSummary {
        deal_id: deal.id(),
        state: deal.state(),
        outcome: deal.outcome().map_or("open", |outcome| outcome.word()),
        reason_code,
        client: deal.terms().client,
        provider: deal.terms().provider,
        version: deal.version(),
        last_position: position,
        updated_at: at.to_string(),
        next_deadline: next_deadline(deal)
            .map(|deadline| DeadlineView { kind: deadline.kind.word(), at: deadline.at.to_string() }),
        payouts,
        transaction,
        imported: None,
    }
}

/// Every deal, in the order of ids; with `at`, as it stood when the log had that many records.
///
/// # Errors
/// Where the store cannot be read.
pub fn deals(store: &Store, at: Option<u64>) -> Result<Vec<DealSummary>, ReplayFault> {
    let mut summaries = Vec::new();
    for entry in store.deals() {
        let (deal_id, _) = entry?;
        summaries.extend(summary_until(store, &deal_id, at)?);
    }
    Ok(summaries)
}

/// The summary of a deal, imported or not, counting records up to log position `at`.
///
/// # Errors
/// Where the store cannot be read.
pub fn summary_until(store: &Store, deal_id: &DealId, at: Option<u64>) -> Result<Option<DealSummary>, ReplayFault> {
    if let Some((deal, last)) = deal_until(store, deal_id, at)? {
        return Ok(Some(summary(&deal, last.position, last.recorded_at)));
    }
    Ok(imported(store, deal_id, at)?.map(|it| it.summary()))
}

/// A deal and its last record, counting records up to log position `at`; nothing for one that was imported.
///
/// # Errors
/// Where the store cannot be read.
pub fn deal_until(store: &Store, deal_id: &DealId, at: Option<u64>) -> Result<Option<(Deal, Record)>, ReplayFault> {
    let mut folded: Option<(Deal, Record)> = None;
    for record in store.stream(deal_id, 1) {
        let record = record?;
        if at.is_some_and(|at| record.position > at) {
            break;
        }
        match fold(folded.take().map(|(deal, _)| deal), &record) {
            Err(ReplayFault::Imported { .. }) => return Ok(None),
            deal => folded = Some((deal?, record)),
        }
    }
    Ok(folded)
}

/// The timeline of a deal, up to log position `at`.
///
/// # Errors
/// Where the store cannot be read.
pub fn timeline(store: &Store, deal_id: &DealId, at: Option<u64>) -> Result<Vec<TimelineEntry>, ReplayFault> {
    let mut entries = Vec::new();
    let mut deal: Option<Deal> = None;
    for record in store.stream(deal_id, 1) {
        let record = record?;
        if at.is_some_and(|at| record.position > at) {
            break;
        }
        let event = reopen(&record, deal.as_ref().map(|deal| deal.terms().domain()))?;
        let next = fold(deal.take(), &record)?;
        entries.push(TimelineEntry {
            version: record.version,
            position: record.position,
            at: record.recorded_at.to_string(),
            kind: event.kind().name(),
            by: format!("{} {:#x}", role(&next, event.signer()), event.signer()),
            what: sentence(&next, event.kind()),
            event_id: record.event_id.to_string(),
            link: record.link.to_string(),
        });
        deal = Some(next);
    }
    Ok(entries)
}

/// What an account is in a deal.
pub fn role(deal: &Deal, account: Address) -> &'static str {
    let terms = deal.terms();
    match account {
        account if account == terms.client => "client",
        account if account == terms.provider => "provider",
        account if terms.mediation.mediators.contains(&account) => "mediator",
        account if account == terms.operator => "operator",
        _ => "replicator",
    }
}

/// One sentence about what an event says, in the deal as it is after it.
pub fn sentence(deal: &Deal, kind: &EventKind) -> String {
    let terms = deal.terms();
    match kind {
        EventKind::Proposed { .. } => {
            let pricing = &terms.pricing;
            let unit = if pricing.metered { " an instruction" } else { "" };
            format!(
                "proposes {} for {}{unit}; {} against {} at stake",
                terms.job.runtime, pricing.price, pricing.payment_collateral, pricing.results_collateral
            )
        }
        EventKind::Agreed { .. } => "agrees to the terms".into(),
        EventKind::ResultSubmitted { claim, .. } => format!(
            "claims {} {}, {} files, {} instructions: {}",
            claim.termination.word(),
            claim.exit_code,
            claim.outputs.len(),
            claim.instruction_count,
            price(terms, claim.instruction_count)
        ),
        EventKind::ReplicaSubmitted { claim } => {
            format!("computed the job too: {} files, claim {}", claim.outputs.len(), claim.digest())
        }
        EventKind::Accepted { .. } => "accepts the result".into(),
        EventKind::Disputed { reason, .. } => format!("disputes the result: {reason}"),
        EventKind::SeedRevealed { .. } => "reveals its seed of the draw".into(),
        EventKind::ArtifactRequested { artifact, party, .. } => {
            format!(
                "asks the {} for {artifact}",
                if *party == tribunal_events::Party::Client { "client" } else { "provider" }
            )
        }
        EventKind::ArtifactMissing { artifact, .. } => format!("attests that {artifact} was not served in time"),
        EventKind::ArtifactServed { artifact } => format!("says that {artifact} is served"),
        EventKind::VoteCommitted { round, .. } => format!("commits to a vote in round {round}"),
        EventKind::VoteRevealed { vote, .. } | EventKind::VerdictGiven { vote } => {
            format!("votes {} ({}) in round {}", vote.verdict.word(), vote.reason_code, vote.round)
        }
        EventKind::Withdrawn { .. } => "wants to withdraw".into(),
        EventKind::PanelDrawn { round, panel, candidates, .. } => {
            format!("round {round}: a panel of {} out of {} is to judge", panel.len(), candidates.len())
        }
        EventKind::VerdictReached { outcome, reason_code, .. } => format!("{} ({reason_code})", outcome.word()),
        EventKind::DeadlineElapsed { deadline, silent, .. } if silent.is_empty() => {
            format!("the time to {deadline} is over")
        }
        EventKind::DeadlineElapsed { deadline, silent, .. } => {
            format!("the time to {deadline} is over; {} said nothing", silent.len())
        }
        EventKind::ChainObserved { step, failure: None, block, .. } => {
            format!("the contract took step {step} in block {block}")
        }
        EventKind::ChainObserved { step, failure: Some(why), transaction, block, .. } if why == REORGANISED => {
            format!("a reorganisation took step {step} out of block {block}: {transaction:#x} counts no more")
        }
        EventKind::ChainObserved { step, failure: Some(why), .. } => format!("step {step} failed on the chain: {why}"),
        EventKind::ForeignObserved(foreign) => crate::import::view::sentence(foreign),
        EventKind::Settled { payouts, .. } => {
            let part = |role: Role| {
                let of = payouts.iter().filter(|payout| payout.role == role);
                of.map(|payout| net(payout.locked, payout.paid)).collect::<Vec<_>>().join(" ")
            };
            format!(
                "settled: client {}, provider {}, mediators {}, treasury {}",
                part(Role::Client),
                part(Role::Provider),
                if payouts.iter().any(|payout| payout.role == Role::Mediator) {
                    part(Role::Mediator)
                } else {
                    "0".into()
                },
                part(Role::Treasury)
            )
        }
    }
}

/// The money of a deal that is decided but not settled, as the rule gives it.
pub fn expected_settlement(deal: &Deal) -> Option<Settlement> {
    let Phase::Decided(decision) = deal.phase() else { return None };
    let voters = decision.round.as_ref().map(|round| round.voters()).unwrap_or_default();
    Some(Settlement::new(deal.terms(), decision.outcome, decision.instruction_count, &voters, decision.funded))
}
