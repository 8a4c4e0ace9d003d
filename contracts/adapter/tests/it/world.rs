use std::sync::Arc;

use alloy::{
    primitives::{Bytes, TxKind},
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::types::TransactionRequest,
};
use tribunal_contracts::{
    Batch, Chain, ChainFault, IN_PROCESS_TREASURY, IN_PROCESS_UNBOND_DELAY_S, InProcessChain, JsonRpcChain, Step,
};
use tribunal_events::{Address, Amount};

use crate::anvil::{Anvil, DEPLOYER_KEY};

/// When every scenario begins.
pub const START_S: u64 = 2_000_000_000;

/// A chain with the contracts on it, and what tests may do to it beside.
pub enum World {
    InProcess(Arc<InProcessChain>),
    Anvil { chain: Arc<JsonRpcChain>, node: DynProvider, anvil: Anvil },
}

impl World {
    pub async fn in_process() -> Self {
        let chain = InProcessChain::new();
        chain.advance_time(START_S).await.unwrap();
        Self::InProcess(Arc::new(chain))
    }

    /// The in-process chain of a file, as a process that starts finds it.
    pub async fn persistent(path: &std::path::Path) -> Result<Self, ChainFault> {
        let chain = InProcessChain::open(path)?;
        chain.advance_time(START_S).await?;
        Ok(Self::InProcess(Arc::new(chain)))
    }

    pub async fn anvil() -> Self {
        let anvil = Anvil::start(START_S);
        let chain = JsonRpcChain::deploy(&anvil.url, &DEPLOYER_KEY, IN_PROCESS_TREASURY, IN_PROCESS_UNBOND_DELAY_S);
        let chain = Arc::new(chain.await.unwrap());
        let node = ProviderBuilder::new().connect_http(anvil.url.parse().unwrap()).erased();
        Self::Anvil { chain, node, anvil }
    }

    pub fn chain(&self) -> &dyn Chain {
        match self {
            Self::InProcess(chain) => &**chain,
            Self::Anvil { chain, .. } => &**chain,
        }
    }

    pub fn token(&self) -> Address {
        match self {
            Self::InProcess(chain) => chain.addresses().token,
            Self::Anvil { chain, .. } => chain.addresses().token,
        }
    }

    pub async fn fund(&self, account: Address, amount: u64) {
        let amount = Amount::from(amount);
        match self {
            Self::InProcess(chain) => chain.mint_and_deposit(account, amount),
            Self::Anvil { chain, .. } => chain.mint_and_deposit(account, amount).await,
        }
        .unwrap();
    }

    pub async fn bond(&self, mediator: Address, amount: u64, operator: Address) {
        let amount = Amount::from(amount);
        match self {
            Self::InProcess(chain) => chain.bond_mediator(mediator, amount, operator),
            Self::Anvil { chain, .. } => chain.bond_mediator(mediator, amount, operator).await,
        }
        .unwrap();
    }

    pub async fn settle_verdicts(&self, steps: &[Step], gas_each: u64) -> Result<Batch, ChainFault> {
        match self {
            Self::InProcess(chain) => chain.settle_verdicts(steps, gas_each).await,
            Self::Anvil { chain, .. } => chain.settle_verdicts(steps, gas_each).await,
        }
    }

    /// Lets the clock run `seconds` from the last block.
    pub async fn wait(&self, seconds: u64) {
        match self {
            Self::InProcess(chain) => chain.advance_time(chain.time_s() + seconds).await.unwrap(),
            Self::Anvil { node, .. } => {
                let _: serde_json::Value = node.client().request("evm_increaseTime", (seconds,)).await.unwrap();
                let _: serde_json::Value = node.client().request("evm_mine", ()).await.unwrap();
            }
        }
    }

    /// Asks a contract; only for what the trait does not.
    pub async fn call(&self, to: Address, data: Vec<u8>) -> Result<Bytes, ChainFault> {
        match self {
            Self::InProcess(chain) => chain.read(to, data),
            Self::Anvil { node, .. } => {
                let request = TransactionRequest { to: Some(TxKind::Call(to)), ..Default::default() };
                Ok(node.call(request.input(Bytes::from(data).into())).await.unwrap())
            }
        }
    }
}
