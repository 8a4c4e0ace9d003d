//! Which step of the contract an effect asks for, read from the deal as it stood when the effect arose.

use tribunal_contracts::{CaseState, CaseView, Step};
use tribunal_core::{Deal, EffectKind, Phase, react};
use tribunal_events::{B256, DealId, Outcome, Party};

use crate::{
    replay::{ReplayFault, fold, reopen},
    store::Store,
};

/// The step that an effect of this version asks for. Where a reorganisation undid it the deal may have gone on since, and
/// no longer hold what the contract is to be told: then it is read from the deal as it stood when the step was due first.
///
/// # Errors
/// Where the store cannot be read.
pub fn asked_for(store: &Store, deal_id: &DealId, version: u64, kind: EffectKind) -> Result<Option<Step>, ReplayFault> {
    let (mut deal, mut asked): (Option<Deal>, _) = (None, None);
    for record in store.stream(deal_id, 1) {
        let record = record?;
        if record.version > version {
            break;
        }
        let event = reopen(&record, deal.as_ref().map(|deal| deal.terms().domain()))?;
        let next = fold(deal.take(), &record)?;
        if react(&next, event.kind(), event.signer()).iter().any(|effect| effect.kind == kind)
            && let Some(step) = step_for(&next, kind)
        {
            asked = Some(step);
        }
        deal = Some(next);
    }
    Ok(asked)
}

/// A step that is recorded as taken, and that the contract knows nothing of: the chain was reorganised.
pub fn behind<'a>(deal: &'a Deal, case: &CaseView) -> Option<&'a str> {
    if case.state == CaseState::Settled {
        return None;
    }
    let lacks = |step: &str| match step {
        "open" => case.state == CaseState::None,
        "submit" => case.submitted_at_s == 0,
        "dispute" => case.disputed_at_s == 0,
        "reveal-client" => !case.client_revealed,
        "reveal-provider" => !case.provider_revealed,
        // Of silences the case tells nothing.
        step => step == "settle",
    };
    deal.taken().map(|(step, _)| step).find(|step| lacks(step))
}

/// The step, or nothing where the effect is no step on the chain or the deal has nothing to say to the contract.
pub fn step_for(deal: &Deal, kind: EffectKind) -> Option<Step> {
    let terms = deal.terms().clone();
    match kind {
        EffectKind::Open => {
            let consents = deal.consents()?;
            Some(Step::Open {
                client_terms: consents.client.terms_signature,
                provider_terms: consents.provider.terms_signature,
                client_agree: consents.client.move_signature?,
                client_commitment: consents.client.seed_commitment,
                provider_agree: consents.provider.move_signature?,
                provider_commitment: consents.provider.seed_commitment,
                terms,
            })
        }
        EffectKind::Submit => {
            let submission = deal.submission()?;
            Some(Step::Submit {
                terms,
                count: submission.claim.instruction_count,
                claim_digest: B256::new(*submission.claim.digest().bytes()),
                signature: submission.move_signature?,
            })
        }
        EffectKind::Dispute => Some(Step::Dispute { terms, signature: deal.dispute()?.move_signature? }),
        EffectKind::Reveal { party } => {
            let (seed, signature) = deal.dispute()?.seeds.get(&party)?;
            let party = if party == Party::Client as u8 { Party::Client } else { Party::Provider };
            Some(Step::Reveal { terms, party, seed: *seed, signature: (*signature)? })
        }
        EffectKind::Silence { round } => {
            let (silent, signature) = deal.dispute()?.silences.get(&round)?;
            Some(Step::SlashSilent { terms, round, silent: silent.clone(), signature: (*signature)? })
        }
        EffectKind::Settle => settle(deal),
        EffectKind::Judge { .. }
        | EffectKind::RevealVotes { .. }
        | EffectKind::Publish
        | EffectKind::Equivocation { .. } => None,
    }
}

fn settle(deal: &Deal) -> Option<Step> {
    let Phase::Decided(decision) = deal.phase() else { return None };
    let terms = deal.terms().clone();
    match (decision.outcome, decision.reason_code.as_str()) {
        // Nobody voted: the contract sees for itself whose seed is missing.
        (Outcome::Accepted | Outcome::Invalid, "seed-withheld") => Some(Step::TimeoutDraw { terms }),
        (Outcome::Accepted, _) => Some(Step::Accept { terms, signature: *decision.moves.first()? }),
        (Outcome::Valid | Outcome::Invalid | Outcome::Inconclusive, _) => {
            let round = decision.round.as_ref()?;
            Some(Step::SettleVerdict {
                terms,
                round: round.number(),
                outcome: decision.outcome,
                panel: round.panel().to_vec(),
                panel_signature: decision.panel_signature,
                votes: round.votes().copied().collect(),
            })
        }
        (Outcome::SubmitTimeout, _) => Some(Step::TimeoutSubmit { terms }),
        (Outcome::JudgeTimeout, _) => Some(Step::TimeoutJudge { terms }),
        (Outcome::MediateTimeout, _) => Some(Step::TimeoutMediate { terms }),
        (Outcome::Withdrawn, _) => {
            let [client, provider] = decision.moves[..] else { return None };
            Some(Step::Withdraw { terms, client, provider })
        }
        (Outcome::AgreeTimeout | Outcome::Unspecified, _) => None,
    }
}
