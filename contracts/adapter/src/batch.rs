//! Many verdicts in one transaction.

use alloy_primitives::{Bytes, U256};
use alloy_sol_types::{SolCall, SolEvent, SolValue};
use tribunal_events::{Address, B256};

use crate::{
    ChainFault, InProcessChain, JsonRpcChain, Mined, Step,
    bindings::{self, ITribunalEscrow, Revert, escrow::TribunalEscrow},
    perform::Node,
};

/// What came of a transaction with many verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The transaction. What each case was paid is found by [`crate::Chain::perform`] with its step.
    pub mined: Mined,
    /// The steps that settled nothing, by their place, and why; all others settled their cases.
    pub refused: Vec<(usize, String)>,
}

/// The data of a call that settles these verdicts, all [`Step::SettleVerdict`] under one mediation, in their order.
/// `gas_each` is the most that one of them may use: what is enough for the longest, and some to spare.
///
/// # Errors
/// [`ChainFault::Unexpected`] where a step is no verdict, is under another mediation than the first, or names somebody
/// whom the mediation does not.
pub fn settle_verdicts_calldata(steps: &[Step], gas_each: u64) -> Result<Bytes, ChainFault> {
    let terms = steps.first().and_then(Step::terms).ok_or_else(|| unexpected("no verdict to settle".into()))?;
    let mediation = bindings::mediation(&terms.mediation, terms.operator);
    let mediators_hash = terms.money().mediatorsHash;
    let rulings: Result<_, _> = steps.iter().map(|step| ruling(step, mediators_hash).map(Bytes::from)).collect();
    let call = TribunalEscrow::settleVerdictsCall { mediation, rulings: rulings?, gasEach: U256::from(gas_each) };
    Ok(call.abi_encode().into())
}

/// The contract's short form of a verdict, see `Ruling` in ITribunalEscrow.
fn ruling(step: &Step, mediators_hash: B256) -> Result<Vec<u8>, ChainFault> {
    let Step::SettleVerdict { terms, round, outcome, panel, panel_signature, votes } = step else {
        return Err(unexpected(format!("{} is no verdict", step.name())));
    };
    if terms.money().mediatorsHash != mediators_hash {
        return Err(unexpected(format!("deal {} is under another mediation", terms.deal_id())));
    }
    let place = |account: Address| {
        let place = terms.mediation.mediators.iter().position(|mediator| *mediator == account);
        let place = place.and_then(|place| u8::try_from(place).ok());
        place.ok_or_else(|| unexpected(format!("{account} is no mediator of deal {}", terms.deal_id())))
    };
    let mut seats = B256::ZERO;
    if panel.len() > seats.len() {
        return Err(unexpected(format!("the panel of deal {} has {} members", terms.deal_id(), panel.len())));
    }
    for (seat, member) in seats.iter_mut().zip(panel) {
        *seat = place(*member)?;
    }
    let mut sorted: Vec<_> = votes.iter().collect();
    sorted.sort_by_key(|vote| vote.mediator);
    let mut packed = Vec::new();
    for vote in sorted {
        let signature = vote.signature.bytes();
        let length = u16::try_from(signature.len()).expect("a signature has 65 bytes");
        packed.extend([place(vote.mediator)?, vote.verdict as u8]);
        packed.extend(length.to_be_bytes());
        packed.extend(vote.digest);
        packed.extend(signature);
    }
    let ruling = ITribunalEscrow::Ruling {
        terms: bindings::terms(terms),
        round: *round,
        outcome: *outcome as u8,
        seats,
        operatorSig: panel_signature.map(|it| Bytes::copy_from_slice(it.bytes())).unwrap_or_default(),
        votes: packed.into(),
    };
    Ok(ruling.abi_encode())
}

fn unexpected(problem: String) -> ChainFault {
    ChainFault::Unexpected { what: "verdicts", problem }
}

async fn settle(node: &dyn Node, steps: &[Step], gas_each: u64) -> Result<Batch, ChainFault> {
    let escrow = node.addresses().escrow;
    for terms in steps.iter().filter_map(Step::terms) {
        crate::perform::check_contract(node, terms)?;
    }
    let receipt = node.send("verdicts", escrow, settle_verdicts_calldata(steps, gas_each)?).await?;
    let logs = receipt.logs.iter().filter(|log| log.address == escrow);
    let refused = logs.filter_map(|log| TribunalEscrow::RulingRefused::decode_log(log).ok());
    let refused = refused.map(|log| {
        let reason = match bindings::revert(&log.reason) {
            Revert::TooEarly(reason) | Revert::Other(reason) => reason,
            Revert::Insufficient(it) => format!("{it:?}"),
        };
        (log.index.saturating_to(), reason)
    });
    Ok(Batch { mined: receipt.mined, refused: refused.collect() })
}

impl InProcessChain {
    /// Settles many verdicts under one mediation in one transaction, see [`settle_verdicts_calldata`]. Each is as by
    /// itself: one that is refused stops no other.
    ///
    /// # Errors
    /// As [`settle_verdicts_calldata`] and [`crate::Chain::perform`].
    pub async fn settle_verdicts(&self, steps: &[Step], gas_each: u64) -> Result<Batch, ChainFault> {
        settle(self, steps, gas_each).await
    }
}

impl JsonRpcChain {
    /// As [`InProcessChain::settle_verdicts`].
    ///
    /// # Errors
    /// Likewise.
    pub async fn settle_verdicts(&self, steps: &[Step], gas_each: u64) -> Result<Batch, ChainFault> {
        settle(self, steps, gas_each).await
    }
}
