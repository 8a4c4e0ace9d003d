//! Anchors: checkpoints of transparency logs on a chain, where nobody can take them back.

use alloy_primitives::U256;
use alloy_sol_types::SolCall;
use tribunal_events::{Address, B256};

use crate::{
    Account, Addresses, ChainFault, JsonRpcChain, Mined, RpcSettings, bindings::checkpoints::CheckpointRegistry,
    perform::view,
};

/// A checkpoint on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Anchor {
    /// Records of the log.
    pub tree_size: u64,
    /// Root of the tree over them.
    pub root: B256,
    /// Unix time of the block.
    pub published_at_s: u64,
}

impl JsonRpcChain {
    /// Connects as an account that publishes checkpoints, or is only read about; knows no escrow.
    ///
    /// # Errors
    /// As [`JsonRpcChain::connect`].
    pub async fn connect_checkpoints(rpc_url: &str, account: Account) -> Result<Self, ChainFault> {
        let nothing = Addresses { token: Address::ZERO, registry: Address::ZERO, escrow: Address::ZERO };
        Self::dial(RpcSettings::at(rpc_url), account, nothing).await
    }

    /// Deploys a `CheckpointRegistry`: one is enough for all logs of a chain.
    ///
    /// # Errors
    /// Where the node does not answer or refuses.
    pub async fn deploy_checkpoints(&self) -> Result<Address, ChainFault> {
        let nonce = self.sender("deploy")?.next_nonce("deploy").await?;
        self.send_again("deploy", None, CheckpointRegistry::BYTECODE.clone(), U256::ZERO).await?;
        Ok(self.account().create(nonce))
    }

    /// Publishes a checkpoint as the own account. The contract refuses a log that shrank or forked; the same again changes
    /// nothing.
    ///
    /// # Errors
    /// Where the contract refuses or the node fails.
    pub async fn anchor(
        &self,
        contract: Address,
        origin: &str,
        tree_size: u64,
        root: B256,
    ) -> Result<Mined, ChainFault> {
        let call = CheckpointRegistry::publishCall { origin: origin.to_owned(), treeSize: tree_size, root };
        let receipt = self.send_again("anchor", Some(contract), call.abi_encode().into(), U256::ZERO).await?;
        Ok(receipt.mined)
    }

    /// How many checkpoints of a log an account has published.
    ///
    /// # Errors
    /// Where the chain cannot be read.
    pub async fn anchors(&self, contract: Address, publisher: Address, origin: &str) -> Result<u64, ChainFault> {
        let call = CheckpointRegistry::countCall { publisher, origin: origin.to_owned() };
        let count = view(self, contract, "anchors", call).await?;
        u64::try_from(count)
            .map_err(|_| ChainFault::Unexpected { what: "anchors", problem: format!("{count} checkpoints") })
    }

    /// One of them, from 0, the oldest first.
    ///
    /// # Errors
    /// Where the chain cannot be read, or there is none.
    pub async fn anchor_at(
        &self,
        contract: Address,
        publisher: Address,
        origin: &str,
        index: u64,
    ) -> Result<Anchor, ChainFault> {
        let index = U256::from(index);
        let call = CheckpointRegistry::checkpointAtCall { publisher, origin: origin.to_owned(), index };
        let it = view(self, contract, "anchor", call).await?;
        Ok(Anchor { tree_size: it.treeSize, root: it.root, published_at_s: it.publishedAt })
    }
}
