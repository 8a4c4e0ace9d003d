use std::sync::Arc;

use alloy_primitives::Bytes;
use alloy_sol_types::SolCall;
use tribunal_events::{Address, B256, Outcome, Party, Signature, SignedVerdict, Terms};

use crate::bindings::{self, ITribunalEscrow, escrow::TribunalEscrow, registry::MediatorRegistry};

/// A transaction that a case may need, with every signature that the contract asks for.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // fields are the contract's, see ITribunalEscrow
pub enum Step {
    /// Opens the case and locks both parties' collateral. Commitments are zero where nobody is drawn.
    Open {
        terms: Arc<Terms>,
        client_terms: Signature,
        provider_terms: Signature,
        client_agree: Signature,
        client_commitment: B256,
        provider_agree: Signature,
        provider_commitment: B256,
    },
    /// The provider's result; signed `Move` 2 with count and digest.
    Submit { terms: Arc<Terms>, count: u64, claim_digest: B256, signature: Signature },
    /// The client accepts; signed `Move` 3, count 0, data zero.
    Accept { terms: Arc<Terms>, signature: Signature },
    /// The client disputes; signed `Move` 4, count 0, data zero.
    Dispute { terms: Arc<Terms>, signature: Signature },
    /// A party's seed of the draw; signed `Move` 5, count 0, data the seed.
    Reveal { terms: Arc<Terms>, party: Party, seed: [u8; 32], signature: Signature },
    /// Both call it off; signed `Move` 6, count 0, data zero.
    Withdraw { terms: Arc<Terms>, client: Signature, provider: Signature },
    /// A panel's verdict. Votes may come in any order; without `panel_signature` only an appointed mediator counts.
    SettleVerdict {
        terms: Arc<Terms>,
        round: u32,
        outcome: Outcome,
        panel: Vec<Address>,
        panel_signature: Option<Signature>,
        votes: Vec<SignedVerdict>,
    },
    /// Nothing was submitted in time.
    TimeoutSubmit { terms: Arc<Terms> },
    /// The client did not judge in time.
    TimeoutJudge { terms: Arc<Terms> },
    /// A seed is missing.
    TimeoutDraw { terms: Arc<Terms> },
    /// No round brought a verdict.
    TimeoutMediate { terms: Arc<Terms> },
    /// Drawn mediators that said nothing, by the operator's `Silence`.
    SlashSilent { terms: Arc<Terms>, round: u32, silent: Vec<Address>, signature: Signature },
    /// Two different verdicts of one mediator in one round. The finder's reward goes to the sending account.
    SlashEquivocation { terms_hash: B256, a: SignedVerdict, b: SignedVerdict },
}

impl Step {
    /// One word for logs: "open", "submit", "accept", "dispute", "reveal", "withdraw", "verdict", "timeout-submit",
    /// "timeout-judge", "timeout-draw", "timeout-mediate", "silence", "equivocation".
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Submit { .. } => "submit",
            Self::Accept { .. } => "accept",
            Self::Dispute { .. } => "dispute",
            Self::Reveal { .. } => "reveal",
            Self::Withdraw { .. } => "withdraw",
            Self::SettleVerdict { .. } => "verdict",
            Self::TimeoutSubmit { .. } => "timeout-submit",
            Self::TimeoutJudge { .. } => "timeout-judge",
            Self::TimeoutDraw { .. } => "timeout-draw",
            Self::TimeoutMediate { .. } => "timeout-mediate",
            Self::SlashSilent { .. } => "silence",
            Self::SlashEquivocation { .. } => "equivocation",
        }
    }

    /// The terms of the case, but for equivocation, which needs none.
    pub fn terms(&self) -> Option<&Terms> {
        match self {
            Self::Open { terms, .. }
            | Self::Submit { terms, .. }
            | Self::Accept { terms, .. }
            | Self::Dispute { terms, .. }
            | Self::Reveal { terms, .. }
            | Self::Withdraw { terms, .. }
            | Self::SettleVerdict { terms, .. }
            | Self::TimeoutSubmit { terms }
            | Self::TimeoutJudge { terms }
            | Self::TimeoutDraw { terms }
            | Self::TimeoutMediate { terms }
            | Self::SlashSilent { terms, .. } => Some(terms),
            Self::SlashEquivocation { .. } => None,
        }
    }

    /// Struct hash of the case's terms.
    pub fn terms_hash(&self) -> B256 {
        match self {
            Self::SlashEquivocation { terms_hash, .. } => *terms_hash,
            other => other.terms().expect("every other step has terms").hash(),
        }
    }

    /// Whether the step ends the case.
    pub const fn settles(&self) -> bool {
        matches!(
            self,
            Self::Accept { .. }
                | Self::Withdraw { .. }
                | Self::SettleVerdict { .. }
                | Self::TimeoutSubmit { .. }
                | Self::TimeoutJudge { .. }
                | Self::TimeoutDraw { .. }
                | Self::TimeoutMediate { .. }
        )
    }

    /// The call's data; the registry takes equivocation, the escrow all else.
    pub(crate) fn calldata(&self) -> Bytes {
        if let Self::SlashEquivocation { terms_hash, a, b } = self {
            let call = MediatorRegistry::slashEquivocationCall {
                termsHash: *terms_hash,
                a: bindings::registry_vote(a),
                b: bindings::registry_vote(b),
                round: a.round,
            };
            return call.abi_encode().into();
        }
        let it = self.terms().expect("every step but equivocation has terms");
        let terms = bindings::terms(it);
        let timeouts = bindings::timeouts(&it.timeouts);
        let mediation = bindings::mediation(&it.mediation, it.operator);
        match self {
            Self::Open {
                client_terms,
                provider_terms,
                client_agree,
                client_commitment,
                provider_agree,
                provider_commitment,
                ..
            } => {
                let client = consent(client_terms, client_agree, *client_commitment);
                let provider = consent(provider_terms, provider_agree, *provider_commitment);
                TribunalEscrow::openCall { terms, timeouts, mediation, client, provider }.abi_encode()
            }
            Self::Submit { count, claim_digest, signature, .. } => TribunalEscrow::submitResultCall {
                terms,
                timeouts,
                instructionCount: *count,
                claimDigest: *claim_digest,
                providerSig: bytes(signature),
            }
            .abi_encode(),
            Self::Accept { signature, .. } => {
                TribunalEscrow::acceptCall { terms, timeouts, clientSig: bytes(signature) }.abi_encode()
            }
            Self::Dispute { signature, .. } => {
                TribunalEscrow::disputeCall { terms, timeouts, clientSig: bytes(signature) }.abi_encode()
            }
            Self::Reveal { party, seed, signature, .. } => TribunalEscrow::revealCall {
                terms,
                timeouts,
                mediation,
                party: *party as u8,
                seed: B256::new(*seed),
                partySig: bytes(signature),
            }
            .abi_encode(),
            Self::Withdraw { client, provider, .. } => {
                TribunalEscrow::withdrawCaseCall { terms, clientSig: bytes(client), providerSig: bytes(provider) }
                    .abi_encode()
            }
            Self::SettleVerdict { round, outcome, panel, panel_signature, votes, .. } => {
                let mut votes: Vec<_> = votes.iter().map(bindings::vote).collect();
                votes.sort_by_key(|vote| vote.mediator);
                let panel = ITribunalEscrow::Panel {
                    round: *round,
                    members: panel.clone(),
                    operatorSig: panel_signature.as_ref().map(bytes).unwrap_or_default(),
                };
                TribunalEscrow::settleVerdictCall { terms, mediation, panel, outcome: *outcome as u8, votes }
                    .abi_encode()
            }
            Self::TimeoutSubmit { .. } => TribunalEscrow::timeoutSubmitCall { terms, timeouts }.abi_encode(),
            Self::TimeoutJudge { .. } => TribunalEscrow::timeoutJudgeCall { terms, timeouts }.abi_encode(),
            Self::TimeoutDraw { .. } => TribunalEscrow::timeoutDrawCall { terms, timeouts, mediation }.abi_encode(),
            Self::TimeoutMediate { .. } => {
                TribunalEscrow::timeoutMediateCall { terms, timeouts, mediation }.abi_encode()
            }
            Self::SlashSilent { round, silent, signature, .. } => TribunalEscrow::slashSilentCall {
                terms,
                mediation,
                round: *round,
                silent: silent.clone(),
                operatorSig: bytes(signature),
            }
            .abi_encode(),
            Self::SlashEquivocation { .. } => unreachable!("handled above"),
        }
        .into()
    }
}

/// Seconds that the registry's unbonding delay must have at least for a case of these terms to open: from opening to the
/// end of the last round if everybody takes all the time there is, and a day to bring the slash. `None` where silence
/// costs nothing: such terms do not rely on bonds.
pub fn unbond_delay_needed_s(terms: &Terms) -> Option<u64> {
    const SLASH_WINDOW_S: u64 = 86_400; // the contract's constant
    let (it, mediation) = (&terms.timeouts, &terms.mediation);
    // Each is ten years at most, checked when the terms were read.
    let rounds_s = (u64::from(mediation.redraws) + 1) * (it.availability_s + it.mediate_s);
    let needed_s = it.submit_s + it.judge_s + it.draw_s + rounds_s + SLASH_WINDOW_S;
    (!mediation.silence_slash.is_zero()).then_some(needed_s)
}

fn bytes(signature: &Signature) -> Bytes {
    Bytes::copy_from_slice(signature.bytes())
}

fn consent(terms: &Signature, agree: &Signature, commitment: B256) -> ITribunalEscrow::Consent {
    ITribunalEscrow::Consent { termsSig: bytes(terms), agreeSig: bytes(agree), commitment }
}
