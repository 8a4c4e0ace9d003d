//! Runs the verifiers again over a recorded result, and compares with what mediators voted.

use std::{collections::BTreeSet, sync::Arc};

use tribunal_events::{Claim, ContentAddress, Method, Outcome, Terms, VerdictKind};
use tribunal_verifiers::{ArtifactSource, Reference, Request, Service, Verdict};

use super::examiner::Examined;

/// Codes of `inconclusive` that follow from the votes alone, so that everybody finds the same.
pub(super) const SHARED_CODES: [&str; 2] = ["tie", "no-quorum"];
/// The reason code of votes that rest on what a party did not serve.
pub(super) const WITHHELD: &str = "withheld";

/// What came of running the verification of a result again.
#[derive(Clone, Debug)]
pub struct Reverified {
    /// Our own verdict, where we could come to one that others can be compared with.
    pub verdict: Option<Verdict>,
    /// Artifacts that no source had.
    pub unavailable: Vec<ContentAddress>,
    /// Votes that say the same.
    pub confirmed: u64,
}

/// Every artifact that a deal's terms and claims name.
pub fn named_artifacts<'a>(
    terms: &Terms,
    claims: impl IntoIterator<Item = &'a Arc<Claim>>,
) -> BTreeSet<ContentAddress> {
    let job = &terms.job;
    let mut named = BTreeSet::from([job.module]);
    named.extend(job.stdin);
    named.extend(job.inputs.iter().map(|input| input.artifact));
    if let Method::Proof { verification_key, .. } = &terms.method {
        named.insert(*verification_key);
    }
    for claim in claims {
        named.insert(claim.stdout);
        named.extend(claim.outputs.iter().map(|file| file.artifact));
        named.extend(claim.proof.iter().flat_map(|(proof, public)| [*proof, *public]));
    }
    named
}

/// Why there is no verdict.
pub(super) struct Unchecked {
    /// Artifacts that no source had.
    pub(super) unavailable: Vec<ContentAddress>,
    /// One clause.
    pub(super) why: String,
}

/// Verifies with artifacts of a source alone; whatever is missing is named before anything runs.
pub(super) fn verdict(request: &Request, service: &Service, source: &dyn ArtifactSource) -> Result<Verdict, Unchecked> {
    let needs = request.needs();
    let decisive = needs.outputs_decide.then(|| needs.outputs.iter().chain(&needs.votes));
    let missing = |address: &&ContentAddress| !matches!(source.fetch(&Reference::Address(**address)), Ok(Some(_)));
    let unavailable: Vec<_> =
        needs.inputs.iter().chain(decisive.into_iter().flatten()).filter(missing).copied().collect();
    if !unavailable.is_empty() {
        let list = unavailable.iter().map(ContentAddress::to_string).collect::<Vec<_>>().join(", ");
        return Err(Unchecked { unavailable, why: format!("nobody serves {list}") });
    }
    service.verify_from(request, source).map_err(|bad| Unchecked { unavailable, why: bad.to_string() })
}

/// Verifies the result of a deal again; nothing where it has none. What does not fit goes into the deal's findings.
pub fn reverify(examined: &mut Examined, service: &Service, source: &dyn ArtifactSource) -> Option<Reverified> {
    let (terms, claim) = (examined.terms.clone()?, examined.claim.clone()?);
    let replicas: Vec<_> = examined.replicas.iter().map(|(who, claim)| (*who, Arc::clone(claim))).collect();
    let request = Request::for_deal(&terms, &claim, &replicas);
    let findings = &mut examined.findings;
    let verdict = match verdict(&request, service, source) {
        Ok(verdict) => verdict,
        Err(Unchecked { unavailable, why }) => {
            findings.note(None, "not-checkable", format!("the result was not verified again: {why}"));
            return Some(Reverified { verdict: None, unavailable, confirmed: 0 });
        }
    };
    let code = verdict.reason.code.as_str();
    if verdict.verdict == VerdictKind::Inconclusive && !SHARED_CODES.contains(&code) {
        let text = format!("verification was inconclusive here ({code}): {}", verdict.reason.detail);
        findings.note(None, "not-checkable", text);
        return Some(Reverified { verdict: None, unavailable: Vec::new(), confirmed: 0 });
    }
    let confirmed = compare(examined, &verdict);
    Some(Reverified { verdict: Some(verdict), unavailable: Vec::new(), confirmed })
}

/// Compares votes with our own verdict; gives how many say the same.
fn compare(examined: &mut Examined, own: &Verdict) -> u64 {
    let outcome = examined.deal.as_ref().and_then(|deal| deal.outcome());
    let findings = &mut examined.findings;
    let last_round = examined.votes.iter().map(|it| it.vote.round).max().unwrap_or_default();
    let mut confirmed = 0;
    let own_says = format!("{} ({}), digest {}", own.verdict.word(), own.reason.code, own.digest);
    for recorded in &examined.votes {
        let vote = &recorded.vote;
        let says = format!("{} ({}), digest {:#x}", vote.verdict.word(), vote.reason_code, vote.digest);
        let who = format!("{:#x}", recorded.mediator);
        if vote.reason_code == WITHHELD {
            let text = format!(
                "{who} voted {says}, which rests on what was not served then; now it is there, and verification gives {own_says}"
            );
            findings.note(Some(recorded.position), WITHHELD, text);
        } else if vote.verdict != own.verdict {
            let counted = vote.round == last_round && outcome.is_some_and(|outcome| decides(outcome, vote.verdict));
            if counted {
                let found = format!("{who} voted {says}, and that is the outcome");
                let deal_id = examined.deal_id;
                findings.at(Some(deal_id), Some(recorded.position), "vote", &own_says, found);
            } else {
                let text = format!("{who} voted {says}, verification gives {own_says}; the vote decided nothing");
                findings.note(Some(recorded.position), "vote", text);
            }
        } else {
            confirmed += 1;
            if vote.digest.as_slice() != own.digest.bytes() {
                let text =
                    format!("{who} voted {says}, verification gives {own_says}: the same verdict on other evidence");
                findings.note(Some(recorded.position), "digest", text);
            }
        }
    }
    if own.verdict == VerdictKind::Invalid
        && matches!(outcome, Some(Outcome::Accepted | Outcome::JudgeTimeout))
        && examined.votes.is_empty()
    {
        let text = format!("nobody judged the result, and verification gives {own_says}: {}", own.reason.detail);
        findings.note(None, "unjudged", text);
    }
    confirmed
}

fn decides(outcome: Outcome, verdict: VerdictKind) -> bool {
    matches!(
        (outcome, verdict),
        (Outcome::Valid, VerdictKind::Valid)
            | (Outcome::Invalid, VerdictKind::Invalid)
            | (Outcome::Inconclusive, VerdictKind::Inconclusive)
    )
}
