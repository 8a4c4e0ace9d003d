use tribunal_events::{Address, Amount, B256};

use crate::LineFileFault;

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ChainFault {
    /// The contract said no.
    #[error("{step}: the contract reverted: {reason}")]
    Reverted {
        /// [`crate::Step::name`], or what was read.
        step: &'static str,
        /// Name and arguments of the contract's error.
        reason: String,
        /// The deadline has not passed yet: later the same step may be taken.
        too_early: bool,
    },
    /// A party has deposited less than it must lock.
    #[error("{account} has {available} of token {token} in the escrow and needs {needed}")]
    Insufficient {
        /// The token, zero for the native one.
        token: Address,
        /// Who lacks it.
        account: Address,
        /// To be locked.
        needed: Amount,
        /// There.
        available: Amount,
    },
    /// The own account has too little native currency to pay for gas.
    #[error("{what}: account {account} cannot pay for gas, send it native currency: {problem}")]
    Unfunded {
        /// What was to be sent.
        what: &'static str,
        /// Who lacks it.
        account: Address,
        /// The node's words.
        problem: String,
    },
    /// The chain asks more for gas than the settings allow. What is out stays out.
    #[error("{what}: the chain asks {asked_wei} wei for a unit of gas, the cap is {cap_wei}; raise it or wait")]
    FeeCap {
        /// What was to be sent.
        what: &'static str,
        /// What the next offer would have to be.
        asked_wei: u128,
        /// In the settings.
        cap_wei: u128,
    },
    /// Another transaction of the account took the nonce: nothing of what was to be sent was done.
    #[error("{what}: another transaction took nonce {nonce} of account {account}; look again and send again")]
    Replaced {
        /// What was to be sent.
        what: &'static str,
        /// Whose nonce.
        account: Address,
        /// Which.
        nonce: u64,
        /// Hash of what was mined, where a node says it.
        by: Option<B256>,
    },
    /// What is to be sent cannot be written down, so it is not sent.
    #[error("the journal of transactions: {0}")]
    Journal(#[from] LineFileFault),
    /// The terms are for another chain or contract.
    #[error(
        "the terms are for contract {expected} on chain {expected_chain}, this is {actual} on chain {actual_chain}"
    )]
    OtherContract {
        /// In the terms.
        expected: Address,
        /// In the terms.
        expected_chain: u64,
        /// Here.
        actual: Address,
        /// Here.
        actual_chain: u64,
    },
    /// The node does not answer, or not in time.
    #[error("{what}: the chain cannot be reached")]
    Unreachable {
        /// What was asked.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node answers what makes no sense: a wrong address book, or another contract.
    #[error("{what}: {problem}")]
    Unexpected {
        /// What was asked.
        what: &'static str,
        /// What is wrong with the answer.
        problem: String,
    },
}

impl ChainFault {
    /// Whether the same step may succeed later without anybody changing it: the node comes back, time passes, a party
    /// deposits, somebody pays for gas, a disk is mended.
    pub const fn retry_helps(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Insufficient { .. }
            | Self::Unfunded { .. }
            | Self::FeeCap { .. }
            | Self::Replaced { .. } => true,
            Self::Journal(fault) => !matches!(fault, LineFileFault::TooLong { .. }),
            Self::Reverted { too_early, .. } => *too_early,
            Self::OtherContract { .. } | Self::Unexpected { .. } => false,
        }
    }
}
