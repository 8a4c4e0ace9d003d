//! A mediator run by this engine: judges the cases that name or draw its key.
//!
//! [`Mediator`] finds and signs; [`desk`] decides when, and retries; [`history`] keeps what was ever to be signed;
//! [`inbox`] shows the cases to people; [`schedule`] shares the machine among them by deadline.
//!
//! **Invariant:** what is signed was made durable before, in the store and outside of it; a second, different verdict for
//! the same deal and round is never signed, whatever happens in between.
//! **Invariant:** a fault of this machine becomes an inconclusive vote, never guilt.

pub mod desk;
pub mod history;
pub mod inbox;
pub mod pace;
pub mod schedule;
pub mod voice;

use std::{collections::BTreeMap, sync::Arc};

use alloy::signers::k256::elliptic_curve::rand_core::{OsRng, RngCore as _};
use serde::{Deserialize, Serialize};
use tribunal_core::{Deal, Dispute};
use tribunal_events::{
    Address, B256, ContentAddress, Digest, Envelope, Party, SignFault, Signature, SignedVerdict, Signer, SignerFault,
    Terms, VerdictKind, proto,
};
use tribunal_mediators::Round;
use tribunal_verifiers::{ArtifactSource, Reference, Request, Service, Verdict};

use self::history::{Entry, History, HistoryFault, Slot};
use crate::{
    engine::now,
    store::{Intent, Store, StoreFault},
};

/// A published report at most, in bytes; a longer one stays here.
const REPORT_BYTES_MAX: usize = 60 * 1024;
/// A reason code in an event at most, in bytes.
const REASON_CODE_BYTES_MAX: usize = 64;
/// The reason code of a vote that comes because there is no time left to find out.
pub const NO_TIME: &str = "no-time";

/// What this machine makes of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The verdict.
    pub verdict: VerdictKind,
    /// Verdict digest.
    pub digest: Digest,
    /// Why, as a stable code.
    pub reason_code: String,
    /// The verifier's report, or empty.
    pub report_json: String,
    /// Whose fault it is that it is inconclusive, if it is ours.
    pub own_fault: Option<OwnFault>,
    /// Fuel that the job burned here, if one ran to its end.
    pub fuel_used: Option<u64>,
}

/// A fault of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnFault {
    /// Trying again may help.
    Passing,
    /// It stays until somebody acts.
    Lasting,
}

impl Finding {
    /// Inconclusive for a reason of our own, or of nobody's.
    pub fn inconclusive(reason_code: &str, detail: &str, own_fault: Option<OwnFault>) -> Self {
        let report = serde_json::json!({
            "verdict": "inconclusive", "reason": { "code": reason_code, "detail": detail },
        });
        Self {
            verdict: VerdictKind::Inconclusive,
            digest: Digest::blake3(reason_code.as_bytes()),
            reason_code: reason_code.into(),
            report_json: report.to_string(),
            own_fault,
            fuel_used: None,
        }
    }
}

/// What is to be done next about a case.
#[derive(Clone, Debug)]
pub enum Next {
    /// Nothing now: it is not our turn, or others are asked first.
    Nothing,
    /// Say this: artifacts to ask for, or to attest missing.
    Say(Vec<proto::event::Kind>),
    /// Vote by this finding.
    Vote(Finding),
}

/// A vote could not be prepared.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MediatorFault {
    #[error(transparent)]
    Store(#[from] StoreFault),
    #[error(transparent)]
    History(#[from] HistoryFault),
    #[error(transparent)]
    Sign(#[from] SignFault),
    #[error(transparent)]
    Signer(#[from] SignerFault),
}

/// What the store keeps of a vote: the entry of the history, and the report that goes out with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    entry: Entry,
    report_json: String,
}

/// One key that judges.
#[derive(Clone)]
pub struct Mediator {
    signer: Arc<dyn Signer>,
    store: Store,
    history: Arc<History>,
    verifier: Arc<Service>,
    artifacts: Arc<dyn ArtifactSource>,
}

impl Mediator {
    /// A mediator with this key over this engine's store, verifier and artifacts. What the store remembers and the history
    /// does not, the history learns.
    ///
    /// # Errors
    /// Where either cannot be read or written.
    pub fn new(
        signer: Arc<dyn Signer>,
        store: Store,
        history: Arc<History>,
        verifier: Arc<Service>,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Self, MediatorFault> {
        let remembered = store.intents()?.into_iter().map(|(_, bytes)| read(&bytes).entry);
        let of_this = remembered.filter(|entry| entry.mediator == signer.address());
        let imported = history.import(of_this)?;
        if imported.added > 0 {
            tracing::warn!(count = imported.added, path = %history.path().display(),
                "the signing history lacked verdicts that the store remembers; it has them now");
        }
        if imported.blocked > 0 {
            tracing::error!(
                count = imported.blocked,
                "store and signing history differ: nothing is signed in these rounds any more"
            );
        }
        Ok(Self { signer, store, history, verifier, artifacts })
    }

    /// Its account.
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// Where a second, different signature of this key would be equivocation.
    pub fn slot(&self, terms: &Terms, round: u32) -> Slot {
        Slot { mediator: self.address(), terms_hash: terms.hash(), round }
    }

    /// What was to be signed in a round, if that is settled.
    pub fn intended(&self, terms: &Terms, round: u32) -> Option<Entry> {
        self.history.entry(&self.slot(terms, round))
    }

    /// Looks into a case in round `round`. Blocks while it fetches and verifies, a job for at most `wall_ms_max`.
    pub fn examine(&self, deal: &Deal, round: u32, wall_ms_max: u64) -> Next {
        let Some((dispute, submission)) = deal.dispute().zip(deal.submission()) else { return Next::Nothing };
        let Some(current) = self.current(dispute, round) else { return Next::Nothing };
        if current.has_voted(self.address()) || current.has_committed(self.address()) {
            return Next::Nothing;
        }
        let terms = deal.terms();
        let replicas: Vec<_> =
            deal.replicas().into_iter().flatten().map(|(address, claim)| (*address, Arc::clone(claim))).collect();
        let request = Request::for_deal(terms, &submission.claim, &replicas);
        match self.missing(deal, dispute, round, &request) {
            Missing::Nothing => Next::Vote(self.verify(terms, &request, wall_ms_max)),
            Missing::Wait => Next::Nothing,
            Missing::Say(kinds) => Next::Say(kinds),
            Missing::Withheld(verdict, artifact) => Next::Vote(Finding {
                verdict,
                digest: Digest::new(blake3::derive_key("tribunal.v1 withheld", artifact.as_bytes())),
                reason_code: "withheld".into(),
                report_json: String::new(),
                own_fault: None,
                fuel_used: None,
            }),
        }
    }

    /// Makes it durable that this key means to sign this finding, and gives what it is to sign: the finding, or what was
    /// settled before.
    ///
    /// # Errors
    /// Where history or store fail; then nothing may be signed.
    pub fn intend(&self, deal: &Deal, round: u32, finding: &Finding) -> Result<Entry, MediatorFault> {
        let terms = deal.terms();
        let mut salt = [0; 32];
        OsRng.fill_bytes(&mut salt);
        let mut reason_code = finding.reason_code.clone();
        while reason_code.len() > REASON_CODE_BYTES_MAX {
            reason_code.pop();
        }
        let entry = self.history.intend(Entry {
            mediator: self.address(),
            chain_id: terms.domain().chain_id(),
            contract: terms.domain().contract(),
            deal_id: terms.deal_id(),
            terms_hash: terms.hash(),
            round,
            verdict: finding.verdict,
            instruction_count: deal.submission().map_or(0, |submission| submission.claim.instruction_count),
            digest: B256::new(*finding.digest.bytes()),
            claim_digest: claim_digest(deal),
            reason_code,
            salt: B256::new(salt),
            at_us: now().us(),
            other_salts: Vec::new(),
            blocked: false,
        })?;
        if entry.claim_digest != claim_digest(deal) {
            // Somebody told another record of this deal than this one: what was meant for that claim says nothing of this.
            self.history.block(&entry.slot())?;
        }
        let fits = finding.report_json.len() <= REPORT_BYTES_MAX && entry.digest.0 == *finding.digest.bytes();
        let report_json = if fits { finding.report_json.clone() } else { String::new() };
        let stored = Stored { entry: entry.clone(), report_json };
        let bytes = serde_json::to_vec(&stored).expect("a vote has a JSON form");
        match self.store.put_intent(&intent_key(&entry.slot()), &bytes)? {
            Intent::New => {}
            Intent::Existing(bytes) if read(&bytes).entry.agrees_with(&entry) => {}
            Intent::Existing(_) => self.history.block(&entry.slot())?,
        }
        Ok(self.history.entry(&entry.slot()).unwrap_or(entry))
    }

    /// The words that give this vote: a commitment where the panel votes in secret first, else the verdict.
    ///
    /// # Errors
    /// Where store or signer fail.
    pub fn vote(&self, deal: &Deal, entry: &Entry) -> Result<Envelope, MediatorFault> {
        let terms = deal.terms();
        let kind = if deal.is_drawn() {
            let commitment = commitment(terms, entry);
            proto::event::Kind::VoteCommitted(proto::VoteCommitted {
                round: entry.round,
                commitment: commitment.to_vec(),
            })
        } else {
            proto::event::Kind::VerdictGiven(proto::VerdictGiven { verdict: Some(self.verdict(terms, entry)?) })
        };
        self.sign(terms, kind)
    }

    /// The vote that this mediator committed to in round `round`, once it may be revealed.
    ///
    /// # Errors
    /// Where store or signer fail.
    pub fn reveal(&self, deal: &Deal, round: u32) -> Result<Option<Envelope>, MediatorFault> {
        let Some(dispute) = deal.dispute() else { return Ok(None) };
        let Some(current) = self.current(dispute, round) else { return Ok(None) };
        let Some(committed) = current.commitment(self.address()) else { return Ok(None) };
        if !dispute.revealing || current.has_voted(self.address()) {
            return Ok(None);
        }
        let terms = deal.terms();
        // Another engine with this key may have committed to something else: revealing ours would be a second verdict.
        let ours =
            self.intended(terms, round).filter(|entry| !entry.blocked && entry.claim_digest == claim_digest(deal));
        let salted = ours.and_then(|entry| {
            let salts = entry.other_salts.iter().copied().chain([entry.salt]).collect::<Vec<_>>();
            let each = salts.into_iter().map(|salt| Entry { salt, ..entry.clone() });
            each.into_iter().find(|entry| commitment(terms, entry) == *committed)
        });
        let Some(entry) = salted else {
            tracing::error!(deal_id = %deal.id(), round, mediator = %self.address(),
                "the record has a commitment that is not this machine's: is the key used elsewhere?");
            return Ok(None);
        };
        let verdict = Some(self.verdict(terms, &entry)?);
        let reveal = proto::VoteRevealed { verdict, salt: entry.salt.to_vec() };
        self.sign(terms, proto::event::Kind::VoteRevealed(reveal)).map(Some)
    }

    /// Signs the claim of an entry's slot: what is published on the bus before the entry is signed.
    ///
    /// # Errors
    /// Where the signer does not sign.
    pub fn claim(&self, entry: &Entry) -> Result<Vec<u8>, MediatorFault> {
        let claim = entry.claim();
        let signature = self.signer.sign_preimage(&entry.slot().claim_preimage(&claim))?;
        Ok([&claim[..], signature.bytes()].concat())
    }

    /// Signs an event of this mediator's.
    ///
    /// # Errors
    /// Where the signer does not sign.
    pub fn sign(&self, terms: &Terms, kind: proto::event::Kind) -> Result<Envelope, MediatorFault> {
        let event = proto::Event {
            schema_version: 1,
            deal_id: terms.deal_id().bytes().to_vec(),
            sender: Vec::new(),
            kind: Some(kind),
        };
        Ok(Envelope::sign_with(&event, &terms.domain(), self.signer.as_ref())?)
    }

    /// Signs the verdict of an entry that is durable.
    fn verdict(&self, terms: &Terms, entry: &Entry) -> Result<proto::Verdict, MediatorFault> {
        assert!(self.history.entry(&entry.slot()).is_some_and(|it| it.agrees_with(entry) && !it.blocked));
        let unsigned = unsigned(entry);
        let signed = SignedVerdict::sign_with(
            self.signer.as_ref(),
            &terms.domain(),
            terms.hash(),
            entry.round,
            entry.verdict,
            entry.instruction_count,
            unsigned.digest,
        )?;
        let report = self.store.intent(&intent_key(&entry.slot()))?.map(|bytes| read(&bytes));
        let report = report.filter(|stored| stored.entry.agrees_with(entry));
        Ok(proto::Verdict {
            round: signed.round,
            verdict: signed.verdict as i32,
            instruction_count: signed.instruction_count,
            digest: signed.digest.to_vec(),
            signature: signed.signature.bytes().to_vec(),
            reason_code: entry.reason_code.clone(),
            report_json: report.map(|stored| stored.report_json).unwrap_or_default(),
        })
    }

    fn current<'a>(&self, dispute: &'a Dispute, round: u32) -> Option<&'a Round> {
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

    fn verify(&self, terms: &Terms, request: &Request, wall_ms_max: u64) -> Finding {
        match self.verifier.verify_within(request, wall_ms_max) {
            Ok(verdict) => Finding {
                fuel_used: fuel_used(&verdict),
                verdict: verdict.verdict,
                digest: verdict.digest,
                own_fault: own_fault(verdict.verdict, &verdict.reason.code),
                report_json: verdict.to_json().to_string(),
                reason_code: verdict.reason.code,
            },
            // The terms passed every check, so this is ours to answer for.
            Err(bad) => {
                tracing::error!(deal_id = %terms.deal_id(), %bad, "the deal's own request is refused by the verifier");
                Finding::inconclusive("verifier-fault", &bad.to_string(), Some(OwnFault::Lasting))
            }
        }
    }
}

/// Fuel in a verdict's evidence; beyond 2^53 it is a decimal string.
fn fuel_used(verdict: &Verdict) -> Option<u64> {
    let fuel = verdict.evidence.fields.get("fuel_used")?;
    fuel.as_u64().or_else(|| fuel.as_str()?.parse().ok())
}

/// Whether an inconclusive verdict is this machine's fault.
fn own_fault(verdict: VerdictKind, code: &str) -> Option<OwnFault> {
    if verdict != VerdictKind::Inconclusive {
        return None;
    }
    match code {
        "artifact-unavailable" | "executor-fault" | "verifier-unavailable" => Some(OwnFault::Passing),
        "unknown-runtime" | "operator-limit" | "unsupported-proof-system" | "stack-exhausted" => {
            Some(OwnFault::Lasting)
        }
        _ => None,
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

/// Mediator, terms hash, round: the same slot in which contracts recognise equivocation.
fn intent_key(slot: &Slot) -> Vec<u8> {
    let mut key = slot.mediator.to_vec();
    key.extend_from_slice(slot.terms_hash.as_slice());
    key.extend_from_slice(&slot.round.to_be_bytes());
    key
}

/// BLAKE3 of the claim that a deal is about; zero without one.
fn claim_digest(deal: &Deal) -> B256 {
    deal.submission().map_or(B256::ZERO, |submission| B256::new(*submission.claim.digest().bytes()))
}

/// The verdict of an entry before it is signed.
fn unsigned(entry: &Entry) -> SignedVerdict {
    SignedVerdict {
        mediator: entry.mediator,
        round: entry.round,
        verdict: entry.verdict,
        instruction_count: entry.instruction_count,
        digest: entry.digest,
        signature: Signature::ZERO,
    }
}

/// What a mediator commits to: it needs no signature yet.
fn commitment(terms: &Terms, entry: &Entry) -> [u8; 32] {
    unsigned(entry).commitment(&terms.domain(), terms.hash(), &entry.salt)
}

fn read(bytes: &[u8]) -> Stored {
    serde_json::from_slice(bytes).expect("intents are written by this program and sealed by the store")
}
