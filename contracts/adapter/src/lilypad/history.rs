//! Everything that Lilypad v2 and CoopHive v1 say about their deals: what an import of past deals keeps and reads again.
//!
//! Logs and answers are read strictly: what the contracts' own encoder would not have written is nothing of theirs.

use alloy::{
    eips::BlockId,
    network::TransactionBuilder as _,
    providers::{DynProvider, Provider},
    rpc::types::TransactionRequest,
};
use alloy_primitives::{Bytes, U256};
use alloy_sol_types::{SolCall, SolEvent, SolValue};
use tribunal_events::{Address, B256, ForeignCall, ForeignRole};

use super::{DealState, abi};
use crate::{ChainFault, json_rpc::fault};

/// For what money moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Reason {
    PaymentCollateral,
    ResultsCollateral,
    TimeoutCollateral,
    JobPayment,
    MediationFee,
}

impl Reason {
    /// All of them; the index is the number.
    pub const ALL: [Self; 5] = [
        Self::PaymentCollateral,
        Self::ResultsCollateral,
        Self::TimeoutCollateral,
        Self::JobPayment,
        Self::MediationFee,
    ];

    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PaymentCollateral => "payment collateral",
            Self::ResultsCollateral => "results collateral",
            Self::TimeoutCollateral => "timeout collateral",
            Self::JobPayment => "job payment",
            Self::MediationFee => "mediation fee",
        }
    }
}

/// Where money moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the payee into escrow.
    PaidIn,
    /// From the job creator's escrow to the payee.
    PaidOut,
    /// Out of escrow, back to the payee.
    Refunded,
    /// Out of the payee's escrow to the owner of the token.
    Slashed,
}

impl Direction {
    /// All of them; the index is the number.
    pub const ALL: [Self; 4] = [Self::PaidIn, Self::PaidOut, Self::Refunded, Self::Slashed];

    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PaidIn => "paid in",
            Self::PaidOut => "paid out",
            Self::Refunded => "refunded",
            Self::Slashed => "slashed",
        }
    }
}

/// What a log says about its deal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The deal came into a state.
    State(DealState),
    /// The provider gave its result; CoopHive alone says so.
    Result {
        /// Id of the results.
        results_id: String,
        /// Content address of the data.
        data_id: String,
        /// Instructions that are to be paid.
        instruction_count: U256,
    },
    /// A mediator was drawn.
    Mediator(Address),
    /// Money moved.
    Payment {
        /// Whose: who pays in, is paid, is refunded or is slashed.
        payee: Address,
        /// Base units of the token.
        amount: U256,
        /// For what.
        reason: Reason,
        /// Where.
        direction: Direction,
    },
}

/// What was agreed, as `getDeal` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the contract names them; timeouts in seconds, amounts in base units")]
pub struct Agreed {
    pub job_creator: Address,
    pub resource_provider: Address,
    pub solver: Address,
    pub mediators: Vec<Address>,
    pub instruction_price: U256,
    pub payment_collateral: U256,
    pub results_collateral_multiple: U256,
    pub mediation_fee: U256,
    pub agree_timeout: U256,
    pub submit_timeout: U256,
    pub submit_collateral: U256,
    pub judge_timeout: U256,
    pub judge_collateral: U256,
    pub mediate_timeout: U256,
}

/// What the provider gave, as `getResult` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Given {
    pub results_id: String,
    pub data_id: String,
    pub instruction_count: U256,
}

/// First topics of everything that the contracts say about deals.
pub fn topics() -> Vec<B256> {
    vec![
        abi::DealStateChange::SIGNATURE_HASH,
        abi::Payment::SIGNATURE_HASH,
        abi::MediationRequested::SIGNATURE_HASH,
        abi::ResultAdded::SIGNATURE_HASH,
    ]
}

/// The deal that a log of a contract in this role is about, and what it says of it.
///
/// # Errors
/// A sentence that says why it is no event of that contract.
pub fn read_log(role: ForeignRole, topics: &[B256], data: &[u8]) -> Result<(String, Said), String> {
    let first = topics.first().ok_or("it has no topic")?;
    match (role, *first) {
        (ForeignRole::Storage, abi::DealStateChange::SIGNATURE_HASH) => {
            let it: abi::DealStateChange = event(topics, data)?;
            let state = DealState::of(it.state).ok_or_else(|| format!("it knows a state {}", it.state))?;
            Ok((it.dealId, Said::State(state)))
        }
        (ForeignRole::Storage, abi::ResultAdded::SIGNATURE_HASH) => {
            let it: abi::ResultAdded = event(topics, data)?;
            let (results_id, data_id, instruction_count) = (it.resultsId, it.dataId, it.instructionCount);
            Ok((it.dealId, Said::Result { results_id, data_id, instruction_count }))
        }
        (ForeignRole::Mediation, abi::MediationRequested::SIGNATURE_HASH) => {
            let it: abi::MediationRequested = event(topics, data)?;
            Ok((it.dealId, Said::Mediator(it.mediator)))
        }
        (ForeignRole::Payments, abi::Payment::SIGNATURE_HASH) => {
            let it: abi::Payment = event(topics, data)?;
            let reason = Reason::ALL.get(usize::from(it.reason)).ok_or_else(|| format!("reason {}", it.reason))?;
            let direction = Direction::ALL.get(usize::from(it.direction));
            let direction = direction.ok_or_else(|| format!("direction {}", it.direction))?;
            let (payee, amount) = (it.payee, it.amount);
            Ok((it.dealId, Said::Payment { payee, amount, reason: *reason, direction: *direction }))
        }
        (role, topic) => Err(format!("no event of the {} contract has topic {topic}", role.word())),
    }
}

fn event<E: SolEvent>(topics: &[B256], data: &[u8]) -> Result<E, String> {
    let it = E::decode_raw_log(topics.iter().copied(), data).map_err(|error| format!("{}: {error}", E::SIGNATURE))?;
    let again = it.encode_log_data();
    if again.topics() != topics || again.data[..] != *data {
        return Err(format!("{}: not as the contract encodes it", E::SIGNATURE));
    }
    Ok(it)
}

/// The deal of an answer to `getDeal`, and what was agreed; nothing where the storage has no such deal.
///
/// # Errors
/// A sentence that says why it is no such answer.
pub fn read_agreed(data: &[u8]) -> Result<Option<(String, Agreed)>, String> {
    let it = abi::getDealCall::abi_decode_returns(data).map_err(|error| format!("getDeal: {error}"))?;
    canonical("getDeal", &it.abi_encode(), data)?;
    if it.dealId.is_empty() {
        return Ok(None);
    }
    let abi::DealTimeouts { agree, submitResults, judgeResults, mediateResults } = it.timeouts;
    let agreed = Agreed {
        job_creator: it.members.jobCreator,
        resource_provider: it.members.resourceProvider,
        solver: it.members.solver,
        mediators: it.members.mediators,
        instruction_price: it.pricing.instructionPrice,
        payment_collateral: it.pricing.paymentCollateral,
        results_collateral_multiple: it.pricing.resultsCollateralMultiple,
        mediation_fee: it.pricing.mediationFee,
        agree_timeout: agree.timeout,
        submit_timeout: submitResults.timeout,
        submit_collateral: submitResults.collateral,
        judge_timeout: judgeResults.timeout,
        judge_collateral: judgeResults.collateral,
        mediate_timeout: mediateResults.timeout,
    };
    Ok(Some((it.dealId, agreed)))
}

/// The deal of an answer to `getResult`, and what was given; nothing where there is no result.
///
/// # Errors
/// A sentence that says why it is no such answer.
pub fn read_given(data: &[u8]) -> Result<Option<(String, Given)>, String> {
    let it = abi::getResultCall::abi_decode_returns(data).map_err(|error| format!("getResult: {error}"))?;
    canonical("getResult", &it.abi_encode(), data)?;
    let given = Given { results_id: it.resultsId, data_id: it.dataId, instruction_count: it.instructionCount };
    Ok((!it.dealId.is_empty()).then_some((it.dealId, given)))
}

fn canonical(view: &str, again: &[u8], data: &[u8]) -> Result<(), String> {
    if again == data { Ok(()) } else { Err(format!("{view}: not as the contract encodes it")) }
}

/// What the storage answers about a deal at a block; nothing where it refuses or the contract is none of these.
///
/// # Errors
/// Where the node does not answer.
pub async fn ask(
    node: &DynProvider,
    storage: Address,
    call: ForeignCall,
    deal_id: &str,
    block_hash: B256,
) -> Result<Option<Bytes>, ChainFault> {
    let id = deal_id.to_owned();
    let data = match call {
        ForeignCall::GetDeal => abi::getDealCall { dealId: id }.abi_encode(),
        ForeignCall::GetResult => abi::getResultCall { dealId: id }.abi_encode(),
    };
    let request = TransactionRequest::default().with_to(storage).with_input(data);
    match node.call(request).block(BlockId::hash(block_hash)).await.map_err(|error| fault("call", error)) {
        Ok(answer) => Ok(Some(answer)),
        Err(ChainFault::Reverted { .. } | ChainFault::Insufficient { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The raw forms, for fixtures and tests.
pub mod encode {
    pub use super::super::abi::{
        Deal, DealMembers, DealPricing, DealResult, DealStateChange, DealTimeout, DealTimeouts, MediationRequested,
        Payment, ResultAdded,
    };
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{address, hex};

    use super::*;

    const MEDIATOR: Address = address!("00000000000000000000000000000000000000cc");

    fn raw(it: impl SolEvent) -> (Vec<B256>, Vec<u8>) {
        let log = it.encode_log_data();
        (log.topics().to_vec(), log.data.to_vec())
    }

    fn payment(reason: u8, direction: u8) -> (Vec<B256>, Vec<u8>) {
        raw(abi::Payment { dealId: "Qm".into(), payee: MEDIATOR, amount: U256::MAX, reason, direction })
    }

    #[test]
    fn topics_are_the_marketplaces() {
        assert_eq!(topics()[1].0, hex!("64861f505d0cfce7a0cc3629c70eb54f7de27be35939b48300935694958a9842"));
    }

    #[test]
    fn a_payment_is_read_by_its_numbers() {
        let (topics, data) = payment(4, 3);
        let (deal, said) = read_log(ForeignRole::Payments, &topics, &data).unwrap();
        let (reason, direction) = (Reason::MediationFee, Direction::Slashed);
        assert_eq!(deal, "Qm");
        assert_eq!(said, Said::Payment { payee: MEDIATOR, amount: U256::MAX, reason, direction });
        for (reason, direction) in [(5, 0), (0, 4)] {
            let (topics, data) = payment(reason, direction);
            read_log(ForeignRole::Payments, &topics, &data).unwrap_err();
        }
    }

    #[test]
    fn what_the_contracts_would_not_have_written_is_refused() {
        let (topics, data) = payment(0, 0);
        let refused = |role, topics: &[B256], data: &[u8]| read_log(role, topics, data).unwrap_err();
        for length in 0..data.len() {
            refused(ForeignRole::Payments, &topics, &data[..length]);
        }
        assert!(refused(ForeignRole::Storage, &topics, &data).contains("storage contract"));
        refused(ForeignRole::Payments, &[], &data);
        refused(ForeignRole::Payments, &[topics[0], topics[0]], &data);
        refused(ForeignRole::Payments, &[B256::ZERO], &data);
        let longer = [&data[..], &[0; 32]].concat();
        assert!(refused(ForeignRole::Payments, &topics, &longer).contains("not as the contract encodes it"));
        let (topics, data) = raw(abi::DealStateChange { dealId: "Qm".into(), state: 11 });
        assert!(refused(ForeignRole::Storage, &topics, &data).contains("state 11"));
    }

    #[test]
    fn an_answer_about_no_deal_is_nothing() {
        let nobody = abi::DealResult {
            dealId: String::new(),
            resultsId: String::new(),
            dataId: String::new(),
            instructionCount: U256::ZERO,
        };
        assert_eq!(read_given(&nobody.abi_encode()), Ok(None));
        assert!(read_given(&nobody.abi_encode()[1..]).is_err() && read_agreed(&[]).is_err());
    }
}
