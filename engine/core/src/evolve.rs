use std::{collections::BTreeMap, sync::Arc};

use tribunal_events::{Address, EventId, EventKind, Outcome, Party, Timestamp};
use tribunal_mediators::Round;

use crate::{
    Deal, Decision, Phase, REORGANISED, Request, Submission,
    deal::{Consent, Consents, Dispute, Step},
    decide::slot_of,
    react::effect_id,
};

/// Folds one recorded event into the deal: the only thing that replay does.
///
/// # Panics
/// Where the events are no history that [`crate::decide`] could have made. Readers of foreign histories, such as an
/// audit, ask `decide` first.
pub fn evolve(deal: Option<Deal>, kind: &EventKind, signer: Address, id: EventId, at: Timestamp) -> Deal {
    let Some(mut deal) = deal else {
        let EventKind::Proposed { terms, .. } = kind else {
            panic!("a deal begins with `proposed`, not `{}`", kind.name())
        };
        let by = terms.party(signer).expect("decide admits proposals of parties only");
        let slots = slot_of(kind, signer).into_iter().map(|slot| (slot, id)).collect();
        return Deal {
            terms: Arc::clone(terms),
            version: 1,
            phase: Phase::Negotiating { by, consent: consent(kind) },
            slots,
            withdrawals: BTreeMap::new(),
            steps: BTreeMap::new(),
        };
    };
    let of_chain = matches!(kind, EventKind::ChainObserved { .. });
    assert!(!deal.is_settled() || of_chain, "a settled deal keeps its outcome and its payouts");
    deal.version += 1;
    if let Some(slot) = slot_of(kind, signer) {
        deal.slots.insert(slot, id);
    }
    let phase = std::mem::replace(&mut deal.phase, Phase::Negotiating { by: Party::Unspecified, consent: NOBODY });
    deal.phase = next(&mut deal, phase, kind, signer, at);
    deal
}

/// Stands in while a phase is taken apart; never seen outside.
const NOBODY: Consent = Consent {
    terms_signature: tribunal_events::Signature::ZERO,
    seed_commitment: tribunal_events::B256::ZERO,
    move_signature: None,
};

fn consent(kind: &EventKind) -> Consent {
    match kind {
        EventKind::Proposed { terms_signature, seed_commitment, move_signature, .. }
        | EventKind::Agreed { terms_signature, seed_commitment, move_signature, .. } => Consent {
            terms_signature: *terms_signature,
            seed_commitment: *seed_commitment,
            move_signature: *move_signature,
        },
        other => panic!("`{}` is no consent", other.name()),
    }
}

fn next(deal: &mut Deal, phase: Phase, kind: &EventKind, signer: Address, at: Timestamp) -> Phase {
    let terms = Arc::clone(&deal.terms);
    match (kind, phase) {
        (EventKind::Agreed { .. }, Phase::Negotiating { by, consent: first }) => {
            let second = consent(kind);
            let (client, provider) = if by == Party::Client { (first, second) } else { (second, first) };
            let funded = !terms.domain().on_chain();
            Phase::Agreed { at, consents: Consents { client, provider }, funded, replicas: BTreeMap::new() }
        }
        (EventKind::ResultSubmitted { claim, move_signature }, Phase::Agreed { consents, replicas, .. }) => {
            let submission = Submission { at, claim: Arc::clone(claim), move_signature: *move_signature };
            Phase::ResultSubmitted { consents, submission, replicas }
        }
        (EventKind::ReplicaSubmitted { claim }, mut phase) => {
            match &mut phase {
                Phase::Agreed { replicas, .. }
                | Phase::ResultSubmitted { replicas, .. }
                | Phase::Disputed { replicas, .. } => replicas.insert(signer, Arc::clone(claim)),
                _ => panic!("a replica in a deal that is not running"),
            };
            phase
        }
        (EventKind::Accepted { move_signature }, Phase::ResultSubmitted { consents, submission, .. }) => {
            Phase::Decided(Decision {
                at,
                outcome: Outcome::Accepted,
                reason_code: "accepted".into(),
                instruction_count: submission.claim.instruction_count,
                round: None,
                panel_signature: None,
                moves: move_signature.iter().copied().collect(),
                consents: Some(consents),
                funded: true,
            })
        }
        (EventKind::Disputed { move_signature, .. }, Phase::ResultSubmitted { consents, submission, replicas }) => {
            let dispute = Dispute {
                at,
                move_signature: *move_signature,
                seeds: BTreeMap::new(),
                round: None,
                panel_signature: None,
                revealing: false,
                silences: BTreeMap::new(),
                requests: BTreeMap::new(),
            };
            Phase::Disputed { consents, submission, replicas, dispute }
        }
        (EventKind::Withdrawn { move_signature }, phase) => {
            let party = terms.party(signer).expect("decide admits withdrawals of parties only");
            deal.withdrawals.insert(party as u8, *move_signature);
            phase
        }
        (EventKind::ChainObserved { step, transaction, failure, block_time_s, .. }, phase) => {
            let again = deal.is_undone(step);
            let undone = failure.as_deref() == Some(REORGANISED);
            // The one effect that follows from this event takes the step again.
            let effect = if undone { Some(effect_id(deal, 0)) } else { deal.steps.get(step).and_then(|it| it.effect) };
            deal.steps.insert(step.clone(), Step { transaction: *transaction, failure: failure.clone(), effect });
            match (step.as_str(), phase) {
                ("open", phase) if failure.is_none() => opened(phase, block_time_s.filter(|_| again)),
                ("open", phase) if undone => unfunded(phase),
                ("open", phase) => never_funded(phase, at),
                ("settle", Phase::Settled { decision, payouts, .. }) if failure.is_none() => {
                    Phase::Settled { decision, payouts, transaction: Some(*transaction) }
                }
                (_, phase) => phase,
            }
        }
        (EventKind::Settled { payouts, transaction, .. }, Phase::Decided(decision)) => {
            Phase::Settled { decision, payouts: payouts.clone(), transaction: *transaction }
        }
        (EventKind::DeadlineElapsed { deadline, round, silent, silence_signature, .. }, phase) => {
            elapsed(phase, deadline, *round, silent, *silence_signature, &terms, at)
        }
        (EventKind::VerdictReached { outcome, reason_code, .. }, phase) => {
            let moves = deal.withdrawals.values().flatten().copied().collect();
            decided(phase, *outcome, reason_code, moves, at)
        }
        (kind, Phase::Disputed { consents, submission, replicas, mut dispute }) => {
            disputed(&mut dispute, kind, signer, at, &terms);
            Phase::Disputed { consents, submission, replicas, dispute }
        }
        (kind, _) => panic!("`{}` in a deal where decide does not admit it", kind.name()),
    }
}

/// The money is locked. Where it had been before, and was not for a while, the provider's time runs from the new opening,
/// as it does in the contract.
fn opened(mut phase: Phase, again_at_s: Option<u64>) -> Phase {
    if let Phase::Agreed { at, funded, .. } = &mut phase {
        *funded = true;
        *at = again_at_s.map_or(*at, |s| Timestamp::from_s(s).max(*at));
    }
    phase
}

/// The money is not locked any more. What was said since stays said; the contract is told all of it again.
const fn unfunded(mut phase: Phase) -> Phase {
    if let Phase::Agreed { funded, .. } = &mut phase {
        *funded = false;
    }
    phase
}

/// The money cannot be locked: the deal is off, however far it had come.
fn never_funded(phase: Phase, at: Timestamp) -> Phase {
    let consents = match &phase {
        Phase::Agreed { consents, .. } | Phase::ResultSubmitted { consents, .. } | Phase::Disputed { consents, .. } => {
            Some(*consents)
        }
        Phase::Decided(decision) => decision.consents,
        Phase::Negotiating { .. } | Phase::Settled { .. } => return phase,
    };
    Phase::Decided(Decision {
        at,
        outcome: Outcome::AgreeTimeout,
        reason_code: "not-funded".into(),
        instruction_count: 0,
        round: None,
        panel_signature: None,
        moves: Vec::new(),
        consents,
        funded: false,
    })
}

fn disputed(dispute: &mut Dispute, kind: &EventKind, signer: Address, at: Timestamp, terms: &tribunal_events::Terms) {
    match kind {
        EventKind::SeedRevealed { seed, move_signature } => {
            let party = terms.party(signer).expect("decide admits seeds of parties only");
            dispute.seeds.insert(party as u8, (*seed, *move_signature));
        }
        EventKind::PanelDrawn { round, panel, panel_signature, .. } => {
            dispute.round = Some(Round::new(*round, panel.clone(), terms.mediation.quorum));
            dispute.panel_signature = *panel_signature;
            dispute.revealing = false;
            for request in dispute.requests.values_mut() {
                request.missing.clear();
            }
        }
        EventKind::ArtifactRequested { artifact, party, .. } => {
            let request =
                Request { artifact: *artifact, party: *party, at, served: false, elapsed: false, missing: Vec::new() };
            dispute.requests.entry(artifact.to_string()).or_insert(request);
        }
        EventKind::ArtifactServed { artifact } => {
            if let Some(request) = dispute.requests.get_mut(&artifact.to_string()) {
                request.served = true;
            }
        }
        EventKind::ArtifactMissing { artifact, .. } => {
            if let Some(request) = dispute.requests.get_mut(&artifact.to_string()) {
                request.missing.push(signer);
            }
        }
        EventKind::VoteCommitted { commitment, .. } => {
            let round = dispute.round.as_mut().expect("decide admits commitments after the draw only");
            round.commit(signer, *commitment);
            dispute.revealing = round.all_committed();
        }
        EventKind::VoteRevealed { vote, .. } | EventKind::VerdictGiven { vote } => {
            let round = dispute.round.as_mut().expect("decide admits votes after the draw only");
            round.vote(vote.signed_by(signer), vote.reason_code.clone());
        }
        other => panic!("`{}` in a dispute", other.name()),
    }
}

fn elapsed(
    phase: Phase,
    deadline: &str,
    number: u32,
    silent: &[Address],
    silence_signature: Option<tribunal_events::Signature>,
    terms: &tribunal_events::Terms,
    at: Timestamp,
) -> Phase {
    match (deadline, phase) {
        ("agree", phase) => decided(phase, Outcome::AgreeTimeout, "agree", Vec::new(), at),
        ("submit", phase) => decided(phase, Outcome::SubmitTimeout, "submit", Vec::new(), at),
        ("judge", phase) => decided(phase, Outcome::JudgeTimeout, "judge", Vec::new(), at),
        ("draw", Phase::Disputed { consents, submission, replicas, dispute }) => {
            // A client that stays silent has accepted, a provider that stays silent has lost.
            let client_spoke = dispute.seeds.contains_key(&(Party::Client as u8));
            let outcome = if client_spoke { Outcome::Invalid } else { Outcome::Accepted };
            let phase = Phase::Disputed { consents, submission, replicas, dispute };
            decided(phase, outcome, "seed-withheld", Vec::new(), at)
        }
        ("availability", Phase::Disputed { consents, submission, replicas, mut dispute }) => {
            for request in dispute.requests.values_mut() {
                request.elapsed |= at > request.at.deadline_after_s(terms.timeouts.availability_s);
            }
            Phase::Disputed { consents, submission, replicas, dispute }
        }
        ("commit", Phase::Disputed { consents, submission, replicas, mut dispute }) => {
            dispute.revealing = true;
            Phase::Disputed { consents, submission, replicas, dispute }
        }
        ("mediate", Phase::Disputed { consents, submission, replicas, mut dispute }) => {
            dispute.silences.insert(number, (silent.to_vec(), silence_signature));
            Phase::Disputed { consents, submission, replicas, dispute }
        }
        (other, _) => panic!("deadline `{other}` in a deal that has none"),
    }
}

fn decided(
    phase: Phase,
    outcome: Outcome,
    reason_code: &str,
    moves: Vec<tribunal_events::Signature>,
    at: Timestamp,
) -> Phase {
    let (consents, instruction_count, round, panel_signature, funded) = match phase {
        Phase::Negotiating { .. } => (None, 0, None, None, false),
        Phase::Agreed { consents, funded, .. } => (Some(consents), 0, None, None, funded),
        Phase::ResultSubmitted { consents, submission, .. } => {
            (Some(consents), submission.claim.instruction_count, None, None, true)
        }
        Phase::Disputed { consents, submission, dispute, .. } => {
            let Dispute { round, panel_signature, .. } = dispute;
            (Some(consents), submission.claim.instruction_count, round, panel_signature, true)
        }
        Phase::Decided(_) | Phase::Settled { .. } => panic!("decided twice"),
    };
    let reason_code = reason_code.to_owned();
    Phase::Decided(Decision {
        at,
        outcome,
        reason_code,
        instruction_count,
        round,
        panel_signature,
        moves,
        consents,
        funded,
    })
}
