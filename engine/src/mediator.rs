//! A mediator run by this engine: judges the cases that name or draw its key.
//!
//! **Invariant:** what is signed was stored and synced before; a second, different verdict for the same deal and round is
//! never signed, whatever happens in between.
//! **Invariant:** a fault of this machine becomes an inconclusive vote, never guilt.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use tribunal_core::{Deal, Dispute};
use tribunal_events::{
    B256, ContentAddress, Digest, Envelope, Party, SignedVerdict, SigningKey, Terms, VerdictKind, proto,
};
use tribunal_verifiers::{ArtifactSource, Reference, Request, Service};

use crate::store::{Intent, Store, StoreFault};

/// What a mediator means to sign, as stored before it signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vote {
    verdict: VerdictKind,
    instruction_count: u64,
    digest: Digest,
    reason_code: String,
    report_json: String,
}

/// One key that judges.
#[derive(Clone)]
pub struct Mediator {
    key: SigningKey,
    store: Store,
    verifier: Arc<Service>,
    artifacts: Arc<dyn ArtifactSource>,
}

/// A published report at most, in bytes; a longer one stays here.
const REPORT_BYTES_MAX: usize = 60 * 1024;

impl Mediator {
    /// A mediator with this key over this engine's store, verifier and artifacts.
    pub fn new(key: SigningKey, store: Store, verifier: Arc<Service>, artifacts: Arc<dyn ArtifactSource>) -> Self {
        Self { key, store, verifier, artifacts }
    }

    /// Its account.
    pub const fn address(&self) -> tribunal_events::Address {
        self.key.address()
    }

    /// What this mediator says next about a case in round `round`: an artifact to ask for, a vote, or nothing yet. Blocks
    /// while it verifies.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn judge(&self, deal: &Deal, round: u32) -> Result<Vec<Envelope>, StoreFault> {
        let Some((dispute, submission)) = deal.dispute().zip(deal.submission()) else { return Ok(Vec::new()) };
        let Some(current) = self.current(dispute, round) else { return Ok(Vec::new()) };
        if current.has_voted(self.address()) || current.has_committed(self.address()) {
            return Ok(Vec::new());
        }
        let terms = deal.terms();
        let vote = match self.store.intent(&self.intent_key(terms, round))? {
            Some(bytes) => read(&bytes),
            None => {
                let replicas: Vec<_> = deal
                    .replicas()
                    .into_iter()
                    .flatten()
                    .map(|(address, claim)| (*address, Arc::clone(claim)))
                    .collect();
                let request = Request::for_deal(terms, &submission.claim, &replicas);
                match self.missing(deal, dispute, round, &request) {
                    Missing::Nothing => self.verify(terms, round, &request, submission.claim.instruction_count)?,
                    Missing::Wait => return Ok(Vec::new()),
                    Missing::Say(kinds) => {
                        return Ok(kinds.into_iter().map(|kind| self.sign(terms, kind)).collect());
                    }
                    Missing::Withheld(verdict, artifact) => {
                        let vote = Vote {
                            verdict,
                            instruction_count: submission.claim.instruction_count,
                            digest: Digest::new(blake3::derive_key("tribunal.v1 withheld", artifact.as_bytes())),
                            reason_code: "withheld".into(),
                            report_json: String::new(),
                        };
                        self.intend(terms, round, vote)?
                    }
                }
            }
        };
        let signed = self.signed(terms, round, &vote);
        let drawn = terms.mediation.protocol == tribunal_events::Protocol::Drawn;
        let kind = if drawn {
            let commitment = signed.commitment(&terms.domain(), terms.hash(), &self.salt(terms, round));
            proto::event::Kind::VoteCommitted(proto::VoteCommitted { round, commitment: commitment.to_vec() })
        } else {
            proto::event::Kind::VerdictGiven(proto::VerdictGiven { verdict: Some(message(&signed, &vote)) })
        };
        Ok(vec![self.sign(terms, kind)])
    }

    /// The vote that this mediator committed to in round `round`, once it may be revealed.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn reveal(&self, deal: &Deal, round: u32) -> Result<Vec<Envelope>, StoreFault> {
        let Some(dispute) = deal.dispute() else { return Ok(Vec::new()) };
        let Some(current) = self.current(dispute, round) else { return Ok(Vec::new()) };
        if !dispute.revealing || !current.has_committed(self.address()) || current.has_voted(self.address()) {
            return Ok(Vec::new());
        }
        let terms = deal.terms();
        let Some(bytes) = self.store.intent(&self.intent_key(terms, round))? else {
            tracing::error!(deal_id = %deal.id(), round, mediator = %self.address(),
                "committed to a vote that this store does not know: is the key used elsewhere?");
            return Ok(Vec::new());
        };
        let vote = read(&bytes);
        let signed = self.signed(terms, round, &vote);
        let reveal =
            proto::VoteRevealed { verdict: Some(message(&signed, &vote)), salt: self.salt(terms, round).to_vec() };
        Ok(vec![self.sign(terms, proto::event::Kind::VoteRevealed(reveal))])
    }

    fn current<'a>(&self, dispute: &'a Dispute, round: u32) -> Option<&'a tribunal_mediators::Round> {
        let current = dispute.round.as_ref()?;
        (current.number() == round && current.panel().contains(&self.address())).then_some(current)
    }

    /// Whether every artifact that the verdict needs can be had, and if not, what is to be said about it.
    fn missing(&self, deal: &Deal, dispute: &Dispute, round: u32, request: &Request) -> Missing {
        let needs = request.needs();
        let outputs = needs.outputs_decide.then_some(&needs.outputs).into_iter().flatten();
        let mut missing = BTreeMap::new();
        for address in needs.inputs.iter().chain(outputs) {
            match self.artifacts.fetch(&Reference::Address(*address)) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    if let Some(party) = deal.responsible(address) {
                        missing.insert(*address, party);
                    }
                }
                // Our own source failed: nobody else is to blame, so nobody is asked. The verdict is inconclusive.
                Err(fault) => {
                    tracing::error!(deal_id = %deal.id(), %address, %fault, "an artifact source failed; someone must act");
                    return Missing::Nothing;
                }
            }
        }
        if missing.is_empty() {
            return Missing::Nothing;
        }
        let quorum = deal.terms().mediation.quorum as usize;
        let mut say = Vec::new();
        for (artifact, party) in &missing {
            match dispute.requests.get(&artifact.to_string()) {
                None => say.push(request_artifact(round, artifact, *party)),
                // The party answered, and nobody sits beside us who could say that the fault is not ours: inconclusive.
                Some(request) if request.served && request.elapsed && quorum == 1 => return Missing::Nothing,
                Some(request) if request.elapsed && !request.missing.contains(&self.address()) => {
                    say.push(proto::event::Kind::ArtifactMissing(proto::ArtifactMissing {
                        round,
                        artifact: artifact.to_string(),
                        party: *party as i32,
                    }));
                }
                Some(request) if request.elapsed && request.missing.len() >= quorum => {
                    let verdict = if *party == Party::Provider { VerdictKind::Invalid } else { VerdictKind::Valid };
                    return Missing::Withheld(verdict, artifact.to_string());
                }
                Some(_) => {}
            }
        }
        if say.is_empty() { Missing::Wait } else { Missing::Say(say) }
    }

    fn verify(&self, terms: &Terms, round: u32, request: &Request, claimed: u64) -> Result<Vote, StoreFault> {
        let vote = match self.verifier.verify(request) {
            Ok(verdict) => {
                let report = verdict.to_json().to_string();
                Vote {
                    verdict: verdict.verdict,
                    instruction_count: claimed,
                    digest: verdict.digest,
                    reason_code: verdict.reason.code,
                    report_json: if report.len() <= REPORT_BYTES_MAX { report } else { String::new() },
                }
            }
            // The terms passed every check, so this is ours to answer for.
            Err(bad) => {
                tracing::error!(deal_id = %terms.deal_id(), %bad, "the deal's own request is refused by the verifier");
                Vote {
                    verdict: VerdictKind::Inconclusive,
                    instruction_count: claimed,
                    digest: Digest::blake3(bad.to_string().as_bytes()),
                    reason_code: "verifier-fault".into(),
                    report_json: String::new(),
                }
            }
        };
        self.intend(terms, round, vote)
    }

    /// Stores what is about to be signed; what was stored before wins.
    fn intend(&self, terms: &Terms, round: u32, vote: Vote) -> Result<Vote, StoreFault> {
        let bytes = serde_json::to_vec(&vote).expect("a vote has a JSON form");
        match self.store.put_intent(&self.intent_key(terms, round), &bytes)? {
            Intent::New => Ok(vote),
            Intent::Existing(bytes) => Ok(read(&bytes)),
        }
    }

    /// Mediator, terms hash, round: the same slot in which contracts recognise equivocation.
    fn intent_key(&self, terms: &Terms, round: u32) -> Vec<u8> {
        let mut key = self.address().to_vec();
        key.extend_from_slice(terms.hash().as_slice());
        key.extend_from_slice(&round.to_be_bytes());
        key
    }

    /// Known to this key alone, and to nobody before it is revealed; needs no storing.
    fn salt(&self, terms: &Terms, round: u32) -> [u8; 32] {
        let mut input = terms.hash().to_vec();
        input.extend_from_slice(&round.to_be_bytes());
        self.key.derive_secret("tribunal.v1 vote salt", &input)
    }

    fn signed(&self, terms: &Terms, round: u32, vote: &Vote) -> SignedVerdict {
        let digest = B256::new(*vote.digest.bytes());
        let (domain, hash) = (terms.domain(), terms.hash());
        SignedVerdict::sign(&self.key, &domain, hash, round, vote.verdict, vote.instruction_count, digest)
    }

    fn sign(&self, terms: &Terms, kind: proto::event::Kind) -> Envelope {
        let event = proto::Event {
            schema_version: 1,
            deal_id: terms.deal_id().bytes().to_vec(),
            sender: Vec::new(),
            kind: Some(kind),
        };
        Envelope::sign(&event, &terms.domain(), &self.key).expect("a deal id has 32 bytes")
    }
}

enum Missing {
    Nothing,
    Wait,
    Say(Vec<proto::event::Kind>),
    Withheld(VerdictKind, String),
}

fn request_artifact(round: u32, artifact: &ContentAddress, party: Party) -> proto::event::Kind {
    proto::event::Kind::ArtifactRequested(proto::ArtifactRequested {
        round,
        artifact: artifact.to_string(),
        party: party as i32,
    })
}

fn message(signed: &SignedVerdict, vote: &Vote) -> proto::Verdict {
    proto::Verdict {
        round: signed.round,
        verdict: signed.verdict as i32,
        instruction_count: signed.instruction_count,
        digest: signed.digest.to_vec(),
        signature: signed.signature.bytes().to_vec(),
        reason_code: vote.reason_code.clone(),
        report_json: vote.report_json.clone(),
    }
}

fn read(bytes: &[u8]) -> Vote {
    serde_json::from_slice(bytes).expect("intents are written by this program and sealed by the store")
}
