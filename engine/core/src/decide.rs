use std::sync::Arc;

use tribunal_events::{
    Address, B256, Claim, Digest, Domain, EventKind, Method, MoveAction, Outcome, Party, Payout, Role, Signature,
    SignedEvent, Terms, Timestamp, VerdictKind, VerdictVote,
};
use tribunal_mediators::{Tally, candidates, draw, draw_seed};

use crate::{
    DeadlineKind, Deal, Dispute, Phase, REORGANISED, Rejection, Settlement, deadline::commit_deadline, evolve,
    next_deadline,
};

/// The reason code of a verdict against the party that did not serve what it had to.
pub(crate) const WITHHELD: &str = "withheld";

/// What a decision may depend on beside the deal: all of it is recorded, so that an audit decides alike.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The bus's time of the input.
    pub now: Timestamp,
    /// The account this engine signs as.
    pub operator: Address,
    /// The contracts this engine serves, beside deals without one.
    pub domains: &'a [Domain],
}

/// What asks for a decision.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// Somebody said something.
    Said(&'a SignedEvent),
    /// Time went on to [`Context::now`].
    Tick,
    /// A step on the chain is known to have worked or to have failed for good.
    Chain(ChainReport),
}

/// What became of a step on the chain.
#[derive(Clone, Debug)]
pub struct ChainReport {
    /// The effect that asked for it.
    pub effect_id: Digest,
    /// Its name: "open", "submit", "accept", "dispute", "reveal-client", "reveal-provider", "silence-<round>", "settle".
    pub step: String,
    /// The transaction; zero if it never got one.
    pub transaction: B256,
    /// Its block.
    pub block: u64,
    /// Why it failed for good, if it did; [`REORGANISED`] where the transaction counted and is in that block no more.
    pub failure: Option<String>,
    /// The block's unix time, where a reorganisation had undone the step before.
    pub block_time_s: Option<u64>,
}

/// An event to record.
#[derive(Clone, Debug)]
pub enum DealEvent {
    /// The input itself, in the sender's words.
    Said(SignedEvent),
    /// The engine's, to be signed by its operator.
    Recorded(EventKind),
}

/// Decides what an input makes happen in a deal; `deal` is none before it is proposed.
///
/// # Errors
/// A [`Rejection`] tells which rule says no; then nothing happens.
pub fn decide(deal: Option<&Deal>, input: &Input<'_>, context: &Context<'_>) -> Result<Vec<DealEvent>, Rejection> {
    match input {
        Input::Said(event) => said(deal, event, context),
        // Most of the time nothing follows: then no copy is made.
        Input::Tick => Ok(deal
            .filter(|deal| consequence(deal, context).is_some())
            .map_or_else(Vec::new, |deal| consequences(deal.clone(), context))),
        Input::Chain(report) => {
            let Some(deal) = deal else { return Ok(Vec::new()) };
            Ok(chain(deal, report, context))
        }
    }
}

fn said(deal: Option<&Deal>, event: &SignedEvent, context: &Context<'_>) -> Result<Vec<DealEvent>, Rejection> {
    let kind = event.kind();
    if kind.is_engine() {
        return Err(Rejection::EngineOnly { kind: kind.name() });
    }
    match (deal, kind) {
        (None, EventKind::Proposed { .. }) => propose(event, context)?,
        (None, _) => return Err(Rejection::UnknownDeal(event.deal_id())),
        (Some(deal), EventKind::Proposed { .. }) => return Err(Rejection::AlreadyProposed(deal.id())),
        (Some(deal), _) => {
            // First, so that two signed words that contradict each other are evidence whenever the second one comes.
            if let Some(first) = slot(event).and_then(|slot| deal.slots.get(&slot)) {
                return Err(Rejection::Equivocation { signer: event.signer(), first: *first });
            }
            if deal.is_settled() {
                return Err(Rejection::WrongState { kind: kind.name(), state: deal.state() });
            }
            admit(deal, event, context)?;
        }
    }
    let next = evolve(deal.cloned(), kind, event.signer(), event.id(), context.now);
    let mut events = vec![DealEvent::Said(event.clone())];
    events.extend(consequences(next, context));
    Ok(events)
}

/// Where an account may speak once: a second, different event there is equivocation.
pub(crate) fn slot(event: &SignedEvent) -> Option<String> {
    slot_of(event.kind(), event.signer())
}

pub(crate) fn slot_of(kind: &EventKind, signer: Address) -> Option<String> {
    let name = kind.name();
    match kind {
        EventKind::Proposed { .. } | EventKind::Agreed { .. } => Some(format!("consent/{signer}")),
        EventKind::ResultSubmitted { .. } | EventKind::ReplicaSubmitted { .. } | EventKind::SeedRevealed { .. } => {
            Some(format!("{name}/{signer}"))
        }
        EventKind::Accepted { .. } | EventKind::Disputed { .. } => Some(format!("judgement/{signer}")),
        EventKind::Withdrawn { .. } => Some(format!("{name}/{signer}")),
        EventKind::VoteCommitted { round, .. } => Some(format!("commit/{round}/{signer}")),
        EventKind::VoteRevealed { vote, .. } | EventKind::VerdictGiven { vote } => {
            Some(format!("vote/{}/{signer}", vote.round))
        }
        _ => None,
    }
}

fn propose(event: &SignedEvent, context: &Context<'_>) -> Result<(), Rejection> {
    let EventKind::Proposed { terms, terms_signature, seed_commitment, move_signature, holds_inputs } = event.kind()
    else {
        unreachable!("called for proposals")
    };
    let domain = terms.domain();
    if terms.operator != context.operator {
        return Err(Rejection::ForeignOperator { expected: context.operator, found: terms.operator });
    }
    if domain.on_chain() && !context.domains.contains(&domain) {
        return Err(Rejection::ForeignContract { chain_id: domain.chain_id(), contract: domain.contract() });
    }
    if terms.party(event.signer()).is_none() {
        return Err(Rejection::NotAllowed { signer: event.signer(), kind: "proposed" });
    }
    within("proposed", context.now, Timestamp::last_us_of_s(terms.timeouts.agree_by_s))?;
    consent(terms, event, terms_signature, *seed_commitment, move_signature.as_ref(), *holds_inputs)
}

fn consent(
    terms: &Terms,
    event: &SignedEvent,
    terms_signature: &Signature,
    seed_commitment: B256,
    move_signature: Option<&Signature>,
    holds_inputs: bool,
) -> Result<(), Rejection> {
    let signer = event.signer();
    if event.recover(terms_signature, terms.domain().terms_digest(terms.money())) != Ok(signer) {
        return Err(Rejection::TermsSignature);
    }
    let needed = terms.timeouts.draw_s > 0;
    if seed_commitment.is_zero() == needed {
        return Err(Rejection::SeedCommitment { needed });
    }
    if signer == terms.provider && !holds_inputs {
        return Err(Rejection::InputsNotHeld);
    }
    check_move(terms, event, move_signature, MoveAction::Agree, 0, seed_commitment)
}

fn check_move(
    terms: &Terms,
    event: &SignedEvent,
    signature: Option<&Signature>,
    action: MoveAction,
    instruction_count: u64,
    data: B256,
) -> Result<(), Rejection> {
    if !terms.domain().on_chain() {
        return Ok(());
    }
    let signature = signature.ok_or(Rejection::MoveSignatureMissing)?;
    let digest = terms.domain().move_digest(terms.hash(), action, instruction_count, data);
    if event.recover(signature, digest) == Ok(event.signer()) { Ok(()) } else { Err(Rejection::MoveSignature) }
}

fn within(kind: &'static str, at: Timestamp, deadline: Timestamp) -> Result<(), Rejection> {
    if at <= deadline { Ok(()) } else { Err(Rejection::TooLate { kind, at, deadline }) }
}

/// Whether a party, replicator or mediator may say this now.
fn admit(deal: &Deal, event: &SignedEvent, context: &Context<'_>) -> Result<(), Rejection> {
    let (terms, signer, kind, now) = (&deal.terms, event.signer(), event.kind(), context.now);
    let name = kind.name();
    let party = terms.party(signer);
    let not_allowed = Rejection::NotAllowed { signer, kind: name };
    let wrong_state = Rejection::WrongState { kind: name, state: deal.state() };
    let check = |signature: &Option<Signature>, action, count, data| {
        check_move(terms, event, signature.as_ref(), action, count, data)
    };
    match kind {
        EventKind::Agreed { terms_signature, seed_commitment, move_signature, holds_inputs } => {
            let Phase::Negotiating { by, .. } = &deal.phase else { return Err(wrong_state) };
            if party.is_none_or(|party| party == *by) {
                return Err(not_allowed);
            }
            within(name, now, Timestamp::last_us_of_s(terms.timeouts.agree_by_s))?;
            consent(terms, event, terms_signature, *seed_commitment, move_signature.as_ref(), *holds_inputs)
        }
        EventKind::ResultSubmitted { claim, move_signature } => {
            if party != Some(Party::Provider) {
                return Err(not_allowed);
            }
            let Phase::Agreed { at, funded, .. } = &deal.phase else { return Err(wrong_state) };
            if !funded {
                return Err(Rejection::NotFunded);
            }
            within(name, now, at.deadline_after_s(terms.timeouts.submit_s))?;
            claim.fits(terms).map_err(Rejection::Claim)?;
            let digest = B256::new(*claim.digest().bytes());
            check(move_signature, MoveAction::Submit, claim.instruction_count, digest)
        }
        EventKind::ReplicaSubmitted { claim } => {
            let Method::Majority { replicators, .. } = &terms.method else { return Err(not_allowed) };
            if !replicators.iter().any(|replicator| replicator.address == signer) {
                return Err(not_allowed);
            }
            match &deal.phase {
                Phase::Agreed { .. } | Phase::ResultSubmitted { .. } => replica(terms, claim),
                // Once the panel is at work the votes it counts are fixed.
                Phase::Disputed { dispute, .. } if dispute.round.is_none() => replica(terms, claim),
                _ => Err(wrong_state),
            }
        }
        EventKind::Accepted { move_signature } | EventKind::Disputed { move_signature, .. } => {
            if party != Some(Party::Client) {
                return Err(not_allowed);
            }
            let Phase::ResultSubmitted { submission, .. } = &deal.phase else { return Err(wrong_state) };
            within(name, now, submission.at.deadline_after_s(terms.timeouts.judge_s))?;
            let accepts = matches!(kind, EventKind::Accepted { .. });
            let action = if accepts { MoveAction::Accept } else { MoveAction::Dispute };
            check(move_signature, action, 0, B256::ZERO)
        }
        EventKind::SeedRevealed { seed, move_signature } => {
            let party = party.ok_or(not_allowed)?;
            let Phase::Disputed { dispute, consents, .. } = &deal.phase else { return Err(wrong_state) };
            if dispute.round.is_some() || !deal.is_drawn() {
                return Err(wrong_state);
            }
            within(name, now, dispute.at.deadline_after_s(terms.timeouts.draw_s))?;
            let consent = if party == Party::Client { consents.client } else { consents.provider };
            if seed_commitment(seed) != consent.seed_commitment {
                return Err(Rejection::Seed(party));
            }
            check(move_signature, MoveAction::Reveal, 0, B256::new(*seed))
        }
        EventKind::Withdrawn { move_signature } => {
            if party.is_none() {
                return Err(not_allowed);
            }
            if matches!(deal.phase, Phase::Decided(_)) {
                return Err(wrong_state);
            }
            check(move_signature, MoveAction::Withdraw, 0, B256::ZERO)
        }
        _ => mediator(deal, event, context),
    }
}

fn replica(terms: &Terms, claim: &Arc<Claim>) -> Result<(), Rejection> {
    claim.fits(terms).map_err(Rejection::Claim)
}

/// What members of a panel, and a party that is asked for an artifact, may say.
fn mediator(deal: &Deal, event: &SignedEvent, context: &Context<'_>) -> Result<(), Rejection> {
    let (terms, signer, kind, now) = (&deal.terms, event.signer(), event.kind(), context.now);
    let name = kind.name();
    let Phase::Disputed { dispute, submission, .. } = &deal.phase else {
        return Err(Rejection::WrongState { kind: name, state: deal.state() });
    };
    if let EventKind::ArtifactServed { artifact } = kind {
        let request = dispute.requests.get(&artifact.to_string()).ok_or(Rejection::NotRequested)?;
        if terms.account(request.party) != signer {
            return Err(Rejection::NotAllowed { signer, kind: name });
        }
        return within(name, now, request.at.deadline_after_s(terms.timeouts.availability_s));
    }
    let round = dispute.round.as_ref().ok_or(Rejection::TooEarly { kind: name, wait: "nobody is drawn yet" })?;
    if !round.panel().contains(&signer) {
        return Err(tribunal_mediators::RoundError::NotOnPanel(signer).into());
    }
    let number = round.number();
    within(name, now, terms.timeouts.mediate_deadline(dispute.at, number))?;
    let drawn = deal.is_drawn();
    match kind {
        EventKind::ArtifactRequested { round: found, artifact, party } => {
            round_is(number, *found)?;
            if dispute.requests.contains_key(&artifact.to_string()) {
                return Err(Rejection::AlreadyRequested);
            }
            if deal.responsible(artifact) == Some(*party) { Ok(()) } else { Err(Rejection::NotRequested) }
        }
        EventKind::ArtifactMissing { round: found, artifact, party } => {
            round_is(number, *found)?;
            let request = dispute.requests.get(&artifact.to_string()).ok_or(Rejection::NotRequested)?;
            if request.party != *party {
                return Err(Rejection::NotRequested);
            }
            if !request.elapsed {
                return Err(Rejection::TooEarly { kind: name, wait: "the party still has time to serve it" });
            }
            if request.missing.contains(&signer) {
                return Err(tribunal_mediators::RoundError::Again(signer).into());
            }
            Ok(())
        }
        EventKind::VoteCommitted { round: found, .. } if drawn => {
            if dispute.revealing {
                return Err(Rejection::TooLate {
                    kind: name,
                    at: now,
                    deadline: commit_deadline(deal, dispute.at, number),
                });
            }
            within(name, now, commit_deadline(deal, dispute.at, number))?;
            Ok(round.check_commitment(signer, *found)?)
        }
        EventKind::VoteRevealed { vote, salt } if drawn => {
            if !dispute.revealing {
                return Err(Rejection::TooEarly { kind: name, wait: "others can still commit" });
            }
            round.check_vote(&vote.signed_by(signer), Some(salt), &terms.domain(), terms.hash())?;
            check_verdict(deal, dispute, submission.claim.instruction_count, vote)
        }
        EventKind::VerdictGiven { vote } if !drawn => {
            round.check_vote(&vote.signed_by(signer), None, &terms.domain(), terms.hash())?;
            check_verdict(deal, dispute, submission.claim.instruction_count, vote)
        }
        _ => Err(Rejection::WrongState {
            kind: name,
            state: if drawn { "with a drawn panel" } else { "with an appointed mediator" },
        }),
    }
}

fn round_is(expected: u32, found: u32) -> Result<(), Rejection> {
    if expected == found { Ok(()) } else { Err(tribunal_mediators::RoundError::WrongRound { expected, found }.into()) }
}

fn check_verdict(deal: &Deal, dispute: &Dispute, expected: u64, vote: &VerdictVote) -> Result<(), Rejection> {
    if vote.instruction_count != expected {
        return Err(Rejection::InstructionCount { expected, found: vote.instruction_count });
    }
    // Against a party that served nothing, a quorum must have seen it; against inputs the claim stands.
    if vote.reason_code == WITHHELD {
        let blamed = match vote.verdict {
            VerdictKind::Invalid => Party::Provider,
            VerdictKind::Valid => Party::Client,
            VerdictKind::Inconclusive => return Err(Rejection::WithheldUnattested),
        };
        let quorum = deal.terms.mediation.quorum as usize;
        let attested =
            |request: &crate::Request| request.party == blamed && request.elapsed && request.missing.len() >= quorum;
        if !dispute.requests.values().any(attested) {
            return Err(Rejection::WithheldUnattested);
        }
    }
    Ok(())
}

pub(crate) fn seed_commitment(seed: &[u8; 32]) -> B256 {
    alloy_primitives::keccak256(seed)
}

impl Deal {
    /// Whether the panel is drawn and votes in secret first.
    pub fn is_drawn(&self) -> bool {
        self.terms.mediation.protocol == tribunal_events::Protocol::Drawn
    }

    /// Who must serve an artifact in a dispute; none for what the deal does not name.
    pub fn responsible(&self, artifact: &tribunal_events::ContentAddress) -> Option<Party> {
        let job = &self.terms.job;
        let inputs = job.inputs.iter().map(|input| &input.artifact);
        let key = match &self.terms.method {
            Method::Proof { verification_key, .. } => Some(verification_key),
            _ => None,
        };
        if inputs.chain([&job.module]).chain(&job.stdin).chain(key).any(|it| it == artifact) {
            return Some(self.terms.inputs_served_by);
        }
        let claim = &self.submission()?.claim;
        let proof = claim.proof.iter().flat_map(|(proof, public)| [proof, public]);
        let outputs = claim.outputs.iter().map(|file| &file.artifact).chain([&claim.stdout]);
        outputs.chain(proof).any(|it| it == artifact).then_some(self.terms.outputs_served_by)
    }
}

/// What follows by itself from the state and the time: draws, deadlines, verdicts, settlements without a contract.
fn consequences(mut deal: Deal, context: &Context<'_>) -> Vec<DealEvent> {
    let mut events = Vec::new();
    while let Some(kind) = consequence(&deal, context) {
        deal = evolve(Some(deal), &kind, context.operator, tribunal_events::EventId::default(), context.now);
        events.push(DealEvent::Recorded(kind));
    }
    events
}

fn consequence(deal: &Deal, context: &Context<'_>) -> Option<EventKind> {
    let terms = &deal.terms;
    if let Phase::Decided(decision) = &deal.phase {
        // A contract moves its own money; what it did comes back as an input.
        let on_chain = terms.domain().on_chain() && decision.funded;
        return (!on_chain).then(|| settled(deal, decision, None, 0));
    }
    if deal.is_settled() {
        return None;
    }
    if deal.withdrawals.len() == 2 {
        return Some(reached(0, Outcome::Withdrawn, "withdrawn", Vec::new()));
    }
    if let Phase::Disputed { dispute, .. } = &deal.phase {
        let Some(round) = &dispute.round else {
            if !deal.is_drawn() || dispute.seeds.len() == 2 {
                return Some(panel(deal, dispute, 0));
            }
            return elapsed(deal, context);
        };
        let last = round.number() >= terms.mediation.redraws;
        match round.tally() {
            Tally::Open => {}
            Tally::Quorum(VerdictKind::Inconclusive, _) | Tally::Split if !last => {
                return Some(panel(deal, dispute, round.number() + 1));
            }
            Tally::Quorum(verdict, reason) => {
                return Some(reached(round.number(), outcome(verdict), &reason, round.voters()));
            }
            Tally::Split => {
                return Some(reached(round.number(), Outcome::Inconclusive, "no-quorum", round.voters()));
            }
        }
        // A round that time has ended goes on to the next panel.
        if dispute.silences.contains_key(&round.number()) {
            return match round.result() {
                Some(Tally::Quorum(verdict, reason)) if last || verdict != VerdictKind::Inconclusive => {
                    Some(reached(round.number(), outcome(verdict), &reason, round.voters()))
                }
                _ if last => Some(reached(round.number(), Outcome::MediateTimeout, "mediators-silent", Vec::new())),
                _ => Some(panel(deal, dispute, round.number() + 1)),
            };
        }
    }
    elapsed(deal, context)
}

fn elapsed(deal: &Deal, context: &Context<'_>) -> Option<EventKind> {
    let deadline = next_deadline(deal)?;
    (context.now > deadline.at).then(|| EventKind::DeadlineElapsed {
        deadline: deadline.kind.word().into(),
        deadline_us: deadline.at.us(),
        round: deadline.round,
        silent: if deadline.kind == DeadlineKind::Mediate { deadline.silent } else { Vec::new() },
        silence_signature: None,
    })
}

const fn outcome(verdict: VerdictKind) -> Outcome {
    match verdict {
        VerdictKind::Valid => Outcome::Valid,
        VerdictKind::Invalid => Outcome::Invalid,
        VerdictKind::Inconclusive => Outcome::Inconclusive,
    }
}

fn reached(round: u32, outcome: Outcome, reason: &str, voters: Vec<Address>) -> EventKind {
    EventKind::VerdictReached { round, outcome, reason_code: reason.into(), voters }
}

fn panel(deal: &Deal, dispute: &Dispute, round: u32) -> EventKind {
    let (terms, mediation) = (&deal.terms, &deal.terms.mediation);
    let silent: Vec<_> = dispute.silences.values().flat_map(|(silent, _)| silent.iter().copied()).collect();
    let (seed, candidates, panel) = if deal.is_drawn() {
        let seed_of = |party: Party| dispute.seeds.get(&(party as u8)).map(|(seed, _)| *seed).unwrap_or_default();
        let seed = draw_seed(&seed_of(Party::Client), &seed_of(Party::Provider), terms.hash(), round);
        let candidates = candidates(&mediation.mediators, &silent, mediation.panel_size as usize);
        let panel = draw(&seed, &candidates, mediation.panel_size as usize);
        (seed, candidates, panel)
    } else {
        (Digest::default(), mediation.mediators.clone(), mediation.mediators.clone())
    };
    EventKind::PanelDrawn { round, seed, candidates, panel, panel_signature: None }
}

fn settled(deal: &Deal, decision: &crate::Decision, transaction: Option<B256>, block: u64) -> EventKind {
    EventKind::Settled { outcome: decision.outcome, payouts: payouts(deal, decision), transaction, block }
}

fn payouts(deal: &Deal, decision: &crate::Decision) -> Vec<Payout> {
    let voters = decision.round.as_ref().map(|round| round.voters()).unwrap_or_default();
    let settlement =
        Settlement::new(&deal.terms, decision.outcome, decision.instruction_count, &voters, decision.funded);
    debug_assert!(settlement.payouts().iter().any(|payout| payout.role == Role::Treasury));
    settlement.payouts().to_vec()
}

/// The same report again changes nothing: effects are performed, and reorganisations told of, at least once.
fn is_news(deal: &Deal, report: &ChainReport) -> bool {
    let undoes = report.failure.as_deref() == Some(REORGANISED);
    match deal.steps.get(&report.step) {
        // What came after the end of a deal that no contract settled concerns nobody.
        None => !undoes && !deal.is_settled(),
        Some(step) if undoes => {
            step.failure.is_none()
                && step.transaction == report.transaction
                && step.effect.is_none_or(|effect| effect == report.effect_id)
        }
        Some(step) => step.is_undone() && step.effect == Some(report.effect_id),
    }
}

fn chain(deal: &Deal, report: &ChainReport, context: &Context<'_>) -> Vec<DealEvent> {
    if !is_news(deal, report) {
        return Vec::new();
    }
    let observed = EventKind::ChainObserved {
        step: report.step.clone(),
        effect_id: report.effect_id,
        transaction: report.transaction,
        block: report.block,
        failure: report.failure.clone(),
        block_time_s: report.block_time_s,
    };
    let next =
        evolve(Some(deal.clone()), &observed, context.operator, tribunal_events::EventId::default(), context.now);
    let mut events = vec![DealEvent::Recorded(observed)];
    match (&next.phase, report.step.as_str(), &report.failure) {
        (Phase::Decided(decision), "settle", None) => {
            events.push(DealEvent::Recorded(settled(&next, decision, Some(report.transaction), report.block)));
        }
        _ => events.extend(consequences(next, context)),
    }
    events
}
