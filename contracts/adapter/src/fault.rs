use tribunal_events::{Address, Amount};

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
    /// deposits, somebody pays for gas.
    pub const fn retry_helps(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Insufficient { .. } | Self::Unfunded { .. } => true,
            Self::Reverted { too_early, .. } => *too_early,
            Self::OtherContract { .. } | Self::Unexpected { .. } => false,
        }
    }
}
