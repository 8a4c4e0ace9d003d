//! Which step of the contract an effect asks for, read from the deal as it stood when the effect arose.

use tribunal_contracts::Step;
use tribunal_core::{Deal, EffectKind, Phase};
use tribunal_events::{B256, Outcome, Party};

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
