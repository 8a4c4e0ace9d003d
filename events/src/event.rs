use std::sync::Arc;

use alloy_primitives::{Address, B256};
use serde::{Deserialize, Serialize};

use crate::{
    Amount, Claim, ContentAddress, Digest, Foreign, MoveAction, Outcome, Party, Signature, SignedVerdict, Terms,
    VerdictKind, proto,
};

/// Text of a reason at most, in bytes.
const REASON_BYTES_MAX: usize = 2048;
/// A published report at most, in bytes.
const REPORT_BYTES_MAX: usize = 64 * 1024;

/// What happened, with every field checked for shape. Whether it may happen is for the core to decide.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "field meanings are in the schema")]
pub enum EventKind {
    Proposed {
        terms: Arc<Terms>,
        terms_signature: Signature,
        seed_commitment: B256,
        move_signature: Option<Signature>,
        holds_inputs: bool,
    },
    Agreed {
        terms_signature: Signature,
        seed_commitment: B256,
        move_signature: Option<Signature>,
        holds_inputs: bool,
    },
    ResultSubmitted {
        claim: Arc<Claim>,
        move_signature: Option<Signature>,
    },
    ReplicaSubmitted {
        claim: Arc<Claim>,
    },
    Accepted {
        move_signature: Option<Signature>,
    },
    Disputed {
        reason: String,
        move_signature: Option<Signature>,
    },
    SeedRevealed {
        seed: [u8; 32],
        move_signature: Option<Signature>,
    },
    ArtifactRequested {
        round: u32,
        artifact: ContentAddress,
        party: Party,
    },
    ArtifactMissing {
        round: u32,
        artifact: ContentAddress,
        party: Party,
    },
    ArtifactServed {
        artifact: ContentAddress,
    },
    VoteCommitted {
        round: u32,
        commitment: [u8; 32],
    },
    VoteRevealed {
        vote: VerdictVote,
        salt: [u8; 32],
    },
    VerdictGiven {
        vote: VerdictVote,
    },
    Withdrawn {
        move_signature: Option<Signature>,
    },
    PanelDrawn {
        round: u32,
        seed: Digest,
        candidates: Vec<Address>,
        panel: Vec<Address>,
        panel_signature: Option<Signature>,
    },
    VerdictReached {
        round: u32,
        outcome: Outcome,
        reason_code: String,
        voters: Vec<Address>,
    },
    DeadlineElapsed {
        deadline: String,
        deadline_us: u64,
        round: u32,
        silent: Vec<Address>,
        silence_signature: Option<Signature>,
    },
    ChainObserved {
        step: String,
        effect_id: Digest,
        transaction: B256,
        block: u64,
        failure: Option<String>,
        block_time_s: Option<u64>,
    },
    Settled {
        outcome: Outcome,
        payouts: Vec<Payout>,
        transaction: Option<B256>,
        block: u64,
    },
    ForeignObserved(Arc<Foreign>),
}

/// A vote as sent: what the EIP-712 signature covers, and its reason for readers. The mediator is the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictVote {
    /// The round it counts in, from 0.
    pub round: u32,
    /// The vote.
    pub verdict: VerdictKind,
    /// The instruction count that the provider claimed.
    pub instruction_count: u64,
    /// Verdict digest.
    pub digest: B256,
    /// EIP-712 `Verdict` signature.
    pub signature: Signature,
    /// Stable code of the reason.
    pub reason_code: String,
    /// The verdict in full; may be empty.
    pub report_json: String,
}

impl VerdictVote {
    /// The vote with its sender.
    pub const fn signed_by(&self, mediator: Address) -> SignedVerdict {
        SignedVerdict {
            mediator,
            round: self.round,
            verdict: self.verdict,
            instruction_count: self.instruction_count,
            digest: self.digest,
            signature: self.signature,
        }
    }
}

/// One account's share of a settlement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payout {
    /// Who.
    pub account: Address,
    /// As what.
    pub role: Role,
    /// What it had locked in the deal.
    pub locked: Amount,
    /// What it gets out.
    pub paid: Amount,
}

/// As what an account is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Role {
    Client,
    Provider,
    Mediator,
    Treasury,
}

impl Role {
    /// The word in the schema.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Provider => "provider",
            Self::Mediator => "mediator",
            Self::Treasury => "treasury",
        }
    }

    fn parse(word: &str) -> Result<Self, String> {
        [Self::Client, Self::Provider, Self::Mediator, Self::Treasury]
            .into_iter()
            .find(|role| role.word() == word)
            .ok_or_else(|| format!("payouts.role is client, provider, mediator or treasury, not {word:?}"))
    }
}

impl Outcome {
    /// The word that `tribunal demo` prints.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "open",
            Self::Accepted => "accepted",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Inconclusive => "inconclusive",
            Self::AgreeTimeout => "agree-timeout",
            Self::SubmitTimeout => "submit-timeout",
            Self::JudgeTimeout => "judge-timeout",
            Self::MediateTimeout => "mediate-timeout",
            Self::Withdrawn => "withdrawn",
        }
    }
}

impl EventKind {
    /// What a party signs inside this event beside the event itself, and what each signature must be over: its consent to the
    /// terms, and on chain what it does there, so that anyone can relay that. Nothing for what no party says.
    pub fn consents(&self, terms: &Terms) -> Vec<(Signature, B256)> {
        let domain = terms.domain();
        let moved = |signature: &Option<Signature>, action, count, data| {
            let on_chain = signature.filter(|_| domain.on_chain());
            on_chain.map(|signature| (signature, domain.move_digest(terms.hash(), action, count, data)))
        };
        match self {
            Self::Proposed { terms_signature, seed_commitment, move_signature, .. }
            | Self::Agreed { terms_signature, seed_commitment, move_signature, .. } => {
                let consent = (*terms_signature, domain.terms_digest(terms.money()));
                let moved = moved(move_signature, MoveAction::Agree, 0, *seed_commitment);
                std::iter::once(consent).chain(moved).collect()
            }
            Self::ResultSubmitted { claim, move_signature } => {
                let digest = B256::new(*claim.digest().bytes());
                moved(move_signature, MoveAction::Submit, claim.instruction_count, digest).into_iter().collect()
            }
            Self::Accepted { move_signature } => {
                moved(move_signature, MoveAction::Accept, 0, B256::ZERO).into_iter().collect()
            }
            Self::Disputed { move_signature, .. } => {
                moved(move_signature, MoveAction::Dispute, 0, B256::ZERO).into_iter().collect()
            }
            Self::SeedRevealed { seed, move_signature } => {
                moved(move_signature, MoveAction::Reveal, 0, B256::new(*seed)).into_iter().collect()
            }
            Self::Withdrawn { move_signature } => {
                moved(move_signature, MoveAction::Withdraw, 0, B256::ZERO).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// The name of the kind, as in subjects.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Proposed { .. } => "proposed",
            Self::Agreed { .. } => "agreed",
            Self::ResultSubmitted { .. } => "result_submitted",
            Self::ReplicaSubmitted { .. } => "replica_submitted",
            Self::Accepted { .. } => "accepted",
            Self::Disputed { .. } => "disputed",
            Self::SeedRevealed { .. } => "seed_revealed",
            Self::ArtifactRequested { .. } => "artifact_requested",
            Self::ArtifactMissing { .. } => "artifact_missing",
            Self::ArtifactServed { .. } => "artifact_served",
            Self::VoteCommitted { .. } => "vote_committed",
            Self::VoteRevealed { .. } => "vote_revealed",
            Self::VerdictGiven { .. } => "verdict_given",
            Self::Withdrawn { .. } => "withdrawn",
            Self::PanelDrawn { .. } => "panel_drawn",
            Self::VerdictReached { .. } => "verdict_reached",
            Self::DeadlineElapsed { .. } => "deadline_elapsed",
            Self::ChainObserved { .. } => "chain_observed",
            Self::Settled { .. } => "settled",
            Self::ForeignObserved(_) => "foreign_observed",
        }
    }

    /// Whether only the engine's operator says this.
    pub const fn is_engine(&self) -> bool {
        matches!(
            self,
            Self::PanelDrawn { .. }
                | Self::VerdictReached { .. }
                | Self::DeadlineElapsed { .. }
                | Self::ChainObserved { .. }
                | Self::Settled { .. }
                | Self::ForeignObserved(_)
        )
    }

    /// Checks the shape of a decoded event.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn parse(kind: proto::event::Kind) -> Result<Self, String> {
        use proto::event::Kind;
        Ok(match kind {
            Kind::Proposed(it) => Self::Proposed {
                terms: Arc::new(Terms::decode(&it.terms).map_err(|error| error.to_string())?),
                terms_signature: signature("proposed.terms_signature", &it.terms_signature)?,
                seed_commitment: bytes32_or_zero("proposed.seed_commitment", &it.seed_commitment)?,
                move_signature: optional_signature("proposed.move_signature", &it.move_signature)?,
                holds_inputs: it.holds_inputs,
            },
            Kind::Agreed(it) => Self::Agreed {
                terms_signature: signature("agreed.terms_signature", &it.terms_signature)?,
                seed_commitment: bytes32_or_zero("agreed.seed_commitment", &it.seed_commitment)?,
                move_signature: optional_signature("agreed.move_signature", &it.move_signature)?,
                holds_inputs: it.holds_inputs,
            },
            Kind::ResultSubmitted(it) => Self::ResultSubmitted {
                claim: claim(it.claim)?,
                move_signature: optional_signature("result_submitted.move_signature", &it.move_signature)?,
            },
            Kind::ReplicaSubmitted(it) => Self::ReplicaSubmitted { claim: claim(it.claim)? },
            Kind::Accepted(it) => {
                Self::Accepted { move_signature: optional_signature("accepted.move_signature", &it.move_signature)? }
            }
            Kind::Disputed(it) => Self::Disputed {
                reason: text("disputed.reason", it.reason, REASON_BYTES_MAX)?,
                move_signature: optional_signature("disputed.move_signature", &it.move_signature)?,
            },
            Kind::SeedRevealed(it) => Self::SeedRevealed {
                seed: bytes32("seed_revealed.seed", &it.seed)?.0,
                move_signature: optional_signature("seed_revealed.move_signature", &it.move_signature)?,
            },
            Kind::ArtifactRequested(it) => Self::ArtifactRequested {
                round: it.round,
                artifact: artifact("artifact_requested.artifact", &it.artifact)?,
                party: party("artifact_requested.party", it.party)?,
            },
            Kind::ArtifactMissing(it) => Self::ArtifactMissing {
                round: it.round,
                artifact: artifact("artifact_missing.artifact", &it.artifact)?,
                party: party("artifact_missing.party", it.party)?,
            },
            Kind::ArtifactServed(it) => {
                Self::ArtifactServed { artifact: artifact("artifact_served.artifact", &it.artifact)? }
            }
            Kind::VoteCommitted(it) => Self::VoteCommitted {
                round: it.round,
                commitment: bytes32("vote_committed.commitment", &it.commitment)?.0,
            },
            Kind::VoteRevealed(it) => {
                Self::VoteRevealed { vote: vote(it.verdict)?, salt: bytes32("vote_revealed.salt", &it.salt)?.0 }
            }
            Kind::VerdictGiven(it) => Self::VerdictGiven { vote: vote(it.verdict)? },
            Kind::Withdrawn(it) => {
                Self::Withdrawn { move_signature: optional_signature("withdrawn.move_signature", &it.move_signature)? }
            }
            Kind::PanelDrawn(it) => Self::PanelDrawn {
                round: it.round,
                seed: Digest::new(bytes32("panel_drawn.seed", &it.seed)?.0),
                candidates: addresses("panel_drawn.candidates", &it.candidates)?,
                panel: addresses("panel_drawn.panel", &it.panel)?,
                panel_signature: optional_signature("panel_drawn.panel_signature", &it.panel_signature)?,
            },
            Kind::VerdictReached(it) => Self::VerdictReached {
                round: it.round,
                outcome: outcome("verdict_reached.outcome", it.outcome)?,
                reason_code: text("verdict_reached.reason_code", it.reason_code, 64)?,
                voters: addresses("verdict_reached.voters", &it.voters)?,
            },
            Kind::DeadlineElapsed(it) => Self::DeadlineElapsed {
                deadline: text("deadline_elapsed.deadline", it.deadline, 32)?,
                deadline_us: it.deadline_us,
                round: it.round,
                silent: addresses("deadline_elapsed.silent", &it.silent)?,
                silence_signature: optional_signature("deadline_elapsed.silence_signature", &it.silence_signature)?,
            },
            Kind::ChainObserved(it) => Self::ChainObserved {
                step: text("chain_observed.step", it.step, 32)?,
                effect_id: Digest::new(bytes32("chain_observed.effect_id", &it.effect_id)?.0),
                transaction: bytes32_or_zero("chain_observed.transaction", &it.transaction)?,
                block: it.block,
                failure: it.failed.then(|| it.failure.chars().take(500).collect()),
                block_time_s: (it.block_time_s > 0).then_some(it.block_time_s),
            },
            Kind::Settled(it) => Self::Settled {
                outcome: outcome("settled.outcome", it.outcome)?,
                payouts: it.payouts.into_iter().map(payout).collect::<Result<_, _>>()?,
                transaction: match it.transaction.as_slice() {
                    [] => None,
                    bytes => Some(bytes32("settled.transaction", bytes)?),
                },
                block: it.block,
            },
            Kind::ForeignObserved(it) => Self::ForeignObserved(Arc::new(Foreign::parse(it)?)),
        })
    }
}

fn bytes32(field: &str, bytes: &[u8]) -> Result<B256, String> {
    bytes.try_into().map(B256::new).map_err(|_| format!("{field} has 32 bytes, not {}", bytes.len()))
}

fn bytes32_or_zero(field: &str, bytes: &[u8]) -> Result<B256, String> {
    if bytes.is_empty() { Ok(B256::ZERO) } else { bytes32(field, bytes) }
}

fn signature(field: &str, bytes: &[u8]) -> Result<Signature, String> {
    Signature::from_slice(bytes).map_err(|error| format!("{field}: {error}"))
}

fn optional_signature(field: &str, bytes: &[u8]) -> Result<Option<Signature>, String> {
    if bytes.is_empty() { Ok(None) } else { signature(field, bytes).map(Some) }
}

fn artifact(field: &str, text: &str) -> Result<ContentAddress, String> {
    text.parse().map_err(|error: crate::IdError| format!("{field}: {error}"))
}

fn text(field: &str, text: String, bytes_max: usize) -> Result<String, String> {
    match text.len() {
        length if length <= bytes_max => Ok(text),
        length => Err(format!("{field} has at most {bytes_max} bytes, not {length}")),
    }
}

fn party(field: &str, number: i32) -> Result<Party, String> {
    match Party::try_from(number) {
        Ok(party @ (Party::Client | Party::Provider)) => Ok(party),
        _ => Err(format!("{field}: 1 is the client, 2 the provider, {number} nobody")),
    }
}

fn outcome(field: &str, number: i32) -> Result<Outcome, String> {
    match Outcome::try_from(number) {
        Ok(outcome) if outcome != Outcome::Unspecified => Ok(outcome),
        _ => Err(format!("{field}: {number} is no outcome")),
    }
}

fn addresses(field: &str, list: &[Vec<u8>]) -> Result<Vec<Address>, String> {
    if list.len() > 64 {
        return Err(format!("{field} has at most 64 entries, not {}", list.len()));
    }
    let address = |bytes: &Vec<u8>| match bytes.len() {
        20 => Ok(Address::from_slice(bytes)),
        other => Err(format!("{field}: an address has 20 bytes, not {other}")),
    };
    list.iter().map(address).collect()
}

fn claim(claim: Option<proto::Claim>) -> Result<Arc<Claim>, String> {
    Claim::parse(&claim.ok_or("a claim is missing")?).map(Arc::new)
}

fn vote(verdict: Option<proto::Verdict>) -> Result<VerdictVote, String> {
    let it = verdict.ok_or("a verdict is missing")?;
    Ok(VerdictVote {
        round: it.round,
        verdict: VerdictKind::from_number(it.verdict)
            .ok_or_else(|| format!("verdict is 1, 2 or 3, not {}", it.verdict))?,
        instruction_count: it.instruction_count,
        digest: bytes32("verdict.digest", &it.digest)?,
        signature: signature("verdict.signature", &it.signature)?,
        reason_code: text("verdict.reason_code", it.reason_code, 64)?,
        report_json: text("verdict.report_json", it.report_json, REPORT_BYTES_MAX)?,
    })
}

fn payout(payout: proto::Payout) -> Result<Payout, String> {
    let amount = |text: &str| text.parse::<Amount>().map_err(|error| format!("settled.payouts: {error}"));
    Ok(Payout {
        account: addresses("settled.payouts.account", &[payout.account])?[0],
        role: Role::parse(&payout.role)?,
        locked: amount(&payout.locked)?,
        paid: amount(&payout.paid)?,
    })
}

impl From<&Payout> for proto::Payout {
    fn from(payout: &Payout) -> Self {
        Self {
            account: payout.account.to_vec(),
            role: payout.role.word().into(),
            locked: payout.locked.to_string(),
            paid: payout.paid.to_string(),
        }
    }
}
