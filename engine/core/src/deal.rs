use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use tribunal_events::{
    Address, B256, Claim, ContentAddress, DealId, Digest, EventId, Outcome, Party, Payout, Signature, Terms, Timestamp,
};
use tribunal_mediators::Round;

/// One exchange between a client and a provider, as its recorded events make it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deal {
    pub(crate) terms: Arc<Terms>,
    pub(crate) version: u64,
    pub(crate) phase: Phase,
    /// What each account has said where it may speak once: slot name to event id, to tell equivocation from repeats.
    pub(crate) slots: BTreeMap<String, EventId>,
    /// Who wants to end the deal unfinished, with the move for the contract.
    pub(crate) withdrawals: BTreeMap<u8, Option<Signature>>,
    pub(crate) steps: BTreeMap<String, Step>,
}

/// Why a step that was taken counts no more: its block left the chain, or the transaction its block.
pub const REORGANISED: &str = "reorganised";

/// A step of the contract that was observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) transaction: B256,
    pub(crate) failure: Option<String>,
    /// Only where a reorganisation undid it once: the effect that is to take it again, or took it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) effect: Option<Digest>,
}

impl Step {
    pub(crate) fn is_undone(&self) -> bool {
        self.failure.as_deref() == Some(REORGANISED)
    }
}

/// Where a deal stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// One party has proposed.
    Negotiating {
        /// Who proposed.
        by: Party,
        /// Its consent.
        consent: Consent,
    },
    /// Both agreed; the provider works.
    Agreed {
        /// When.
        at: Timestamp,
        /// Both consents.
        consents: Consents,
        /// Whether the money is locked.
        funded: bool,
        /// Claims of replicators.
        replicas: Replicas,
    },
    /// The provider says it is done.
    ResultSubmitted {
        /// Both consents.
        consents: Consents,
        /// The result.
        submission: Submission,
        /// Claims of replicators.
        replicas: Replicas,
    },
    /// The client doubts it.
    Disputed {
        /// Both consents.
        consents: Consents,
        /// The result.
        submission: Submission,
        /// Claims of replicators.
        replicas: Replicas,
        /// How far the dispute is.
        dispute: Dispute,
    },
    /// The outcome is known; the money is still locked.
    Decided(Decision),
    /// Over. Nothing changes any more but the transaction, where a reorganisation of the chain puts another in its place.
    Settled {
        /// What was decided.
        decision: Decision,
        /// Who got what.
        payouts: Vec<Payout>,
        /// The contract's transaction, if a contract holds the money.
        transaction: Option<B256>,
    },
}

/// Claims of replicators by address.
pub type Replicas = BTreeMap<Address, Arc<Claim>>;

/// Both parties' consents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consents {
    /// The client's.
    pub client: Consent,
    /// The provider's.
    pub provider: Consent,
}

/// What a party gave when it agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// EIP-712 `Terms`.
    pub terms_signature: Signature,
    /// keccak256 of its seed; zero where nobody is drawn.
    pub seed_commitment: B256,
    /// EIP-712 `Move` agree; none where no contract holds the money.
    pub move_signature: Option<Signature>,
}

/// A result as submitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// When.
    pub at: Timestamp,
    /// What the provider claims.
    pub claim: Arc<Claim>,
    /// EIP-712 `Move` submit.
    pub move_signature: Option<Signature>,
}

/// A dispute that is going on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dispute {
    /// When it was opened.
    pub at: Timestamp,
    /// EIP-712 `Move` dispute.
    pub move_signature: Option<Signature>,
    /// Revealed seeds with the moves for the contract, by party.
    pub seeds: BTreeMap<u8, ([u8; 32], Option<Signature>)>,
    /// The current round, once its panel is known.
    pub round: Option<Round>,
    /// The operator's signature over the panel.
    pub panel_signature: Option<Signature>,
    /// Whether commitments of the round are over, so that votes may be revealed.
    pub revealing: bool,
    /// Who was silent in earlier rounds, with the operator's signature, by round.
    pub silences: BTreeMap<u32, (Vec<Address>, Option<Signature>)>,
    /// Artifacts that mediators asked for.
    pub requests: BTreeMap<String, Request>,
}

/// An artifact that a mediator asked a party for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What.
    pub artifact: ContentAddress,
    /// Who must serve it.
    pub party: Party,
    /// When it was first asked for.
    pub at: Timestamp,
    /// Whether the party says that it is served: its word alone; whether it can be had the panel attests.
    pub served: bool,
    /// Whether the time to serve it is over.
    pub elapsed: bool,
    /// Who of the current panel attests that it is missing.
    pub missing: Vec<Address>,
}

/// How a deal ended, before the money moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// The outcome that decides the money.
    pub outcome: Outcome,
    /// Why, as a stable code.
    pub reason_code: String,
    /// The claimed instruction count, 0 without a result.
    pub instruction_count: u64,
    /// The last round, if mediators were asked.
    pub round: Option<Round>,
    /// The operator's signature over its panel.
    pub panel_signature: Option<Signature>,
    /// The move that ended the deal, where a party's did: accept, or both withdrawals.
    pub moves: Vec<Signature>,
    /// Both parties' consents, if they had agreed.
    pub consents: Option<Consents>,
    /// Whether money was locked.
    pub funded: bool,
}

impl Deal {
    /// What both parties signed.
    pub fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// The deal's id.
    pub fn id(&self) -> DealId {
        self.terms.deal_id()
    }

    /// Events so far.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Where it stands.
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether it is over for good.
    pub const fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Settled { .. })
    }

    /// The outcome, once decided.
    pub const fn outcome(&self) -> Option<Outcome> {
        match &self.phase {
            Phase::Decided(decision) | Phase::Settled { decision, .. } => Some(decision.outcome),
            _ => None,
        }
    }

    /// The result as submitted, while it is still needed.
    pub const fn submission(&self) -> Option<&Submission> {
        match &self.phase {
            Phase::ResultSubmitted { submission, .. } | Phase::Disputed { submission, .. } => Some(submission),
            _ => None,
        }
    }

    /// Claims of replicators, while they are still needed.
    pub const fn replicas(&self) -> Option<&Replicas> {
        match &self.phase {
            Phase::Agreed { replicas, .. }
            | Phase::ResultSubmitted { replicas, .. }
            | Phase::Disputed { replicas, .. } => Some(replicas),
            _ => None,
        }
    }

    /// The dispute that is going on.
    pub const fn dispute(&self) -> Option<&Dispute> {
        match &self.phase {
            Phase::Disputed { dispute, .. } => Some(dispute),
            _ => None,
        }
    }

    /// Both consents, once given.
    pub const fn consents(&self) -> Option<&Consents> {
        match &self.phase {
            Phase::Negotiating { .. } => None,
            Phase::Agreed { consents, .. }
            | Phase::ResultSubmitted { consents, .. }
            | Phase::Disputed { consents, .. } => Some(consents),
            Phase::Decided(decision) | Phase::Settled { decision, .. } => decision.consents.as_ref(),
        }
    }

    /// Steps that the contract has taken, as far as recorded, with their transactions, by name.
    pub fn taken(&self) -> impl Iterator<Item = (&str, B256)> {
        let taken = self.steps.iter().filter(|(_, step)| step.failure.is_none());
        taken.map(|(name, step)| (name.as_str(), step.transaction))
    }

    /// Steps that a reorganisation undid and that are not taken again yet, by name.
    pub fn undone(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter(|(_, step)| step.is_undone()).map(|(name, _)| name.as_str())
    }

    /// Whether a reorganisation undid this step and it is not taken again yet.
    pub fn is_undone(&self, step: &str) -> bool {
        self.steps.get(step).is_some_and(Step::is_undone)
    }

    /// Moves of parties that want to withdraw: client's, provider's.
    pub fn withdrawal(&self, party: Party) -> Option<Option<Signature>> {
        self.withdrawals.get(&(party as u8)).copied()
    }

    /// The one word for where it stands.
    pub const fn state(&self) -> &'static str {
        match &self.phase {
            Phase::Negotiating { .. } => "negotiating",
            Phase::Agreed { .. } => "agreed",
            Phase::ResultSubmitted { .. } => "result-submitted",
            Phase::Disputed { .. } => "disputed",
            Phase::Decided(_) => "decided",
            Phase::Settled { .. } => "settled",
        }
    }
}
