//! Rust forms of the contracts, made by the compiler from the committed artifacts.

use alloy_primitives::{Address, Bytes, hex};
use alloy_sol_types::SolInterface;
use tribunal_events::{Mediation, Protocol, SignedVerdict, Terms, Timeouts};

pub(crate) mod escrow {
    #![allow(missing_docs, clippy::all, unsafe_code)]
    alloy_sol_types::sol!(
        #[sol(extra_derives(Debug))]
        TribunalEscrow,
        "../artifacts/TribunalEscrow.json"
    );
}

pub(crate) mod registry {
    #![allow(missing_docs, clippy::all, unsafe_code)]
    alloy_sol_types::sol!(
        #[sol(extra_derives(Debug))]
        MediatorRegistry,
        "../artifacts/MediatorRegistry.json"
    );
}

pub(crate) mod token {
    #![allow(missing_docs, clippy::all, unsafe_code)]
    alloy_sol_types::sol!(
        #[sol(extra_derives(Debug))]
        TestToken,
        "../artifacts/TestToken.json"
    );
}

pub(crate) mod checkpoints {
    #![allow(missing_docs, clippy::all, unsafe_code)]
    alloy_sol_types::sol!(
        #[sol(extra_derives(Debug))]
        CheckpointRegistry,
        "../artifacts/CheckpointRegistry.json"
    );
}

pub(crate) use escrow::ITribunalEscrow;

/// The escrow's artifact: JSON with `abi`, `bytecode` and `deployedBytecode`.
pub const fn escrow_abi() -> &'static str {
    include_str!("../../artifacts/TribunalEscrow.json")
}

/// The registry's artifact, likewise.
pub const fn registry_abi() -> &'static str {
    include_str!("../../artifacts/MediatorRegistry.json")
}

/// The test token's artifact, likewise.
pub const fn token_abi() -> &'static str {
    include_str!("../../artifacts/TestToken.json")
}

/// The checkpoint registry's artifact, likewise.
pub const fn checkpoints_abi() -> &'static str {
    include_str!("../../artifacts/CheckpointRegistry.json")
}

/// The terms' money as the contract takes it.
pub(crate) fn terms(terms: &Terms) -> ITribunalEscrow::Terms {
    let it = terms.money();
    ITribunalEscrow::Terms {
        dealId: it.dealId,
        client: it.client,
        provider: it.provider,
        token: it.token,
        treasury: it.treasury,
        price: it.price,
        pricing: it.pricing,
        paymentCollateral: it.paymentCollateral,
        resultsCollateral: it.resultsCollateral,
        submitCollateral: it.submitCollateral,
        judgeCollateral: it.judgeCollateral,
        mediationFee: it.mediationFee,
        victimBps: it.victimBps,
        feeBps: it.feeBps,
        mediatorsHash: it.mediatorsHash,
        timeoutsHash: it.timeoutsHash,
        rule: it.rule,
    }
}

/// The preimage of the terms' `mediatorsHash`.
pub(crate) fn mediation(it: &Mediation, operator: Address) -> ITribunalEscrow::Mediation {
    // Terms are checked: at most 31 mediators and 3 further rounds.
    let small = |number: u32| u8::try_from(number).expect("checked when the terms were read");
    ITribunalEscrow::Mediation {
        operator,
        mediators: it.mediators.clone(),
        panelSize: small(it.panel_size),
        quorum: small(it.quorum),
        redraws: small(it.redraws),
        drawn: it.protocol == Protocol::Drawn,
        silenceSlash: it.silence_slash.base_units(),
    }
}

/// The preimage of the terms' `timeoutsHash`.
pub(crate) fn timeouts(it: &Timeouts) -> ITribunalEscrow::Timeouts {
    ITribunalEscrow::Timeouts {
        agreeBy: it.agree_by_s,
        submit: it.submit_s,
        judge: it.judge_s,
        draw: it.draw_s,
        availability: it.availability_s,
        mediate: it.mediate_s,
    }
}

/// A vote for the escrow.
pub(crate) fn vote(it: &SignedVerdict) -> ITribunalEscrow::Vote {
    ITribunalEscrow::Vote {
        mediator: it.mediator,
        verdict: it.verdict as u8,
        instructionCount: it.instruction_count,
        digest: it.digest,
        signature: Bytes::copy_from_slice(it.signature.bytes()),
    }
}

/// A vote for the registry.
pub(crate) fn registry_vote(it: &SignedVerdict) -> registry::ITribunalEscrow::Vote {
    registry::ITribunalEscrow::Vote {
        mediator: it.mediator,
        verdict: it.verdict as u8,
        instructionCount: it.instruction_count,
        digest: it.digest,
        signature: Bytes::copy_from_slice(it.signature.bytes()),
    }
}

/// What a contract said when it reverted.
pub(crate) enum Revert {
    /// The deadline has not passed, or what is new waits for the end of a pause.
    TooEarly(String),
    /// Somebody has too little in the escrow.
    Insufficient(escrow::TribunalEscrow::DepositTooSmall),
    /// Anything else.
    Other(String),
}

/// Reads the data of a revert.
pub(crate) fn revert(data: &[u8]) -> Revert {
    use escrow::TribunalEscrow::TribunalEscrowErrors as Escrow;
    match Escrow::abi_decode(data) {
        Ok(Escrow::DepositTooSmall(it)) => return Revert::Insufficient(it),
        Ok(Escrow::TooEarly(it)) => return Revert::TooEarly(format!("{it:?}")),
        Ok(Escrow::Paused(it)) => return Revert::TooEarly(format!("{it:?}")),
        Ok(other) => return Revert::Other(inner(&format!("{other:?}"))),
        Err(_) => {}
    }
    if let Ok(error) = registry::MediatorRegistry::MediatorRegistryErrors::abi_decode(data) {
        return Revert::Other(inner(&format!("{error:?}")));
    }
    if let Ok(error) = token::TestToken::TestTokenErrors::abi_decode(data) {
        return Revert::Other(inner(&format!("{error:?}")));
    }
    Revert::Other(alloy_sol_types::decode_revert_reason(data).unwrap_or_else(|| {
        if data.is_empty() { "without a reason".into() } else { format!("0x{}", hex::encode(data)) }
    }))
}

/// `Variant(Error { … })` without the variant around it.
fn inner(debug: &str) -> String {
    let inside = debug.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(debug).to_owned()
}

#[cfg(test)]
mod tests {
    use alloy_primitives::U256;
    use alloy_sol_types::SolError;

    use super::{Revert, escrow::TribunalEscrow, revert};

    #[test]
    fn a_pause_is_waited_for() {
        let paused = TribunalEscrow::Paused { until: U256::from(77) }.abi_encode();
        assert!(matches!(revert(&paused), Revert::TooEarly(reason) if reason == "Paused { until: 77 }"));
        let too_long = TribunalEscrow::PauseTooLong { duration: U256::from(2), longest: U256::ONE }.abi_encode();
        assert!(matches!(revert(&too_long), Revert::Other(_)));
    }
}
