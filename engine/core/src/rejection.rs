use tribunal_events::{Address, DealId, EventId, Party, Timestamp};
use tribunal_mediators::RoundError;

/// A rule said no. Normal, not a fault; nothing was recorded, and the event may be admitted later in its turn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the sentences say it")]
pub enum Rejection {
    #[error("no deal {0} is known here; a deal begins with `proposed`")]
    UnknownDeal(DealId),
    #[error("deal {0} has been proposed already")]
    AlreadyProposed(DealId),
    #[error("the terms name operator {found}; this engine signs as {expected}")]
    ForeignOperator { expected: Address, found: Address },
    #[error("the terms settle on chain {chain_id} in contract {contract}, which this engine does not serve")]
    ForeignContract { chain_id: u64, contract: Address },
    #[error("{signer} may not say `{kind}` in this deal")]
    NotAllowed { signer: Address, kind: &'static str },
    #[error("`{kind}` is recorded by the engine, nobody can send it")]
    EngineOnly { kind: &'static str },
    #[error("`{kind}` has no place in a deal that is {state}")]
    WrongState { kind: &'static str, state: &'static str },
    #[error("`{kind}` came at {at}, the last moment was {deadline}")]
    TooLate { kind: &'static str, at: Timestamp, deadline: Timestamp },
    #[error("`{kind}` comes too early: {wait}")]
    TooEarly { kind: &'static str, wait: &'static str },
    #[error("the Terms signature is not the sender's")]
    TermsSignature,
    #[error("the deal's money is in a contract: a Move signature by the sender is needed")]
    MoveSignatureMissing,
    #[error("the Move signature is not the sender's for this move")]
    MoveSignature,
    #[error("a seed commitment is {}", if *.needed { "needed: mediators are drawn" } else { "not wanted: nobody is drawn" })]
    SeedCommitment { needed: bool },
    #[error("the seed is not the one that {0:?} committed to")]
    Seed(Party),
    #[error("the provider must say that it holds the inputs")]
    InputsNotHeld,
    #[error("the claim is incomplete or does not fit: {0}")]
    Claim(String),
    #[error("the money of this deal is not locked yet")]
    NotFunded,
    #[error("{signer} already said something else here: event {first}; both are kept as evidence")]
    Equivocation { signer: Address, first: EventId },
    #[error("{0}")]
    Round(#[from] RoundError),
    #[error("the verdict is about instruction count {found}, the claim says {expected}")]
    InstructionCount { expected: u64, found: u64 },
    #[error("the artifact has been asked for already")]
    AlreadyRequested,
    #[error("the artifact was not asked for in this dispute")]
    NotRequested,
    #[error("a verdict of `withheld` needs a quorum of the panel to attest that nothing was served in time")]
    WithheldUnattested,
}

impl Rejection {
    /// Stable code: in receipts and in the subject `refused.<code>`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownDeal(_) => "unknown-deal",
            Self::AlreadyProposed(_) => "already-proposed",
            Self::ForeignOperator { .. } => "foreign-operator",
            Self::ForeignContract { .. } => "foreign-contract",
            Self::NotAllowed { .. } => "not-allowed",
            Self::EngineOnly { .. } => "engine-only",
            Self::WrongState { .. } => "wrong-state",
            Self::TooLate { .. } => "too-late",
            Self::TooEarly { .. } => "too-early",
            Self::TermsSignature => "terms-signature",
            Self::MoveSignatureMissing => "move-signature-missing",
            Self::MoveSignature => "move-signature",
            Self::SeedCommitment { .. } => "seed-commitment",
            Self::Seed(_) => "seed",
            Self::InputsNotHeld => "inputs-not-held",
            Self::Claim(_) => "claim",
            Self::NotFunded => "not-funded",
            Self::Equivocation { .. } => "equivocation",
            Self::Round(error) => match error {
                RoundError::NotOnPanel(_) => "not-on-panel",
                RoundError::WrongRound { .. } => "wrong-round",
                RoundError::Again(_) => "spoken-already",
                RoundError::NotCommitted(_) => "not-committed",
                RoundError::CommitmentMismatch(_) => "commitment-mismatch",
                RoundError::Signature { .. } => "verdict-signature",
            },
            Self::InstructionCount { .. } => "instruction-count",
            Self::AlreadyRequested => "already-requested",
            Self::NotRequested => "not-requested",
            Self::WithheldUnattested => "withheld-unattested",
        }
    }
}
