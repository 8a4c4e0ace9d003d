//! Looking for transactions in blocks.

use std::time::Duration;

use alloy::{
    providers::{DynProvider, Provider},
    rpc::types::TransactionReceipt,
    transports::TransportError,
};
use tokio::time::Instant;
use tribunal_events::B256;

use crate::{ChainFault, Mined, SentReceipt, endpoints::POLL_INTERVAL, json_rpc::source};

/// How long a transaction of somebody else may be looked for before the chain counts as unreachable.
const LOOK_TIMEOUT: Duration = Duration::from_secs(120);

/// Where a transaction stands.
pub(crate) enum Found {
    /// In no block, as far as the node knows.
    No,
    /// In a block that does not have its confirmations yet.
    Shallow,
    /// In a block with its confirmations, at this unix time.
    Deep(Box<TransactionReceipt>, u64),
}

/// Reads receipts once they count.
#[derive(Clone)]
pub(crate) struct Receipts {
    pub provider: DynProvider,
    /// Blocks, the transaction's own included; at least 1.
    pub confirmations: u64,
}

impl Receipts {
    pub(crate) async fn find(&self, hash: B256) -> Result<Found, TransportError> {
        let Some(receipt) = self.provider.get_transaction_receipt(hash).await? else { return Ok(Found::No) };
        let Some(number) = receipt.block_number else { return Ok(Found::No) };
        if self.confirmations > 1 && !self.is_deep(number).await? {
            return Ok(Found::Shallow);
        }
        // One of several nodes behind an address may lack a block that another has, or have another in its place.
        let block = self.provider.get_block_by_number(number.into()).await?;
        match block {
            Some(block) if receipt.block_hash == Some(block.header.hash) => {
                Ok(Found::Deep(Box::new(receipt), block.header.timestamp))
            }
            _ => Ok(Found::Shallow),
        }
    }

    pub(crate) async fn is_deep(&self, block: u64) -> Result<bool, TransportError> {
        Ok(self.provider.get_block_number().await? >= block.saturating_add(self.confirmations - 1))
    }

    /// Waits until a transaction that is out is mined. What the node cannot answer is asked again.
    pub(crate) async fn wait(&self, what: &'static str, hash: B256) -> Result<SentReceipt, ChainFault> {
        let deadline = Instant::now() + LOOK_TIMEOUT;
        loop {
            // Asked again at every turn: a reorganisation may take a transaction out of its block.
            let last = match self.find(hash).await {
                Ok(Found::Deep(receipt, block_time_s)) => return read(what, &receipt, block_time_s),
                Ok(_) => "it is not mined".into(),
                Err(error) => source(error),
            };
            if Instant::now() >= deadline {
                let what = format!("{what}: transaction {hash} was not seen mined in {} s", LOOK_TIMEOUT.as_secs());
                return Err(ChainFault::Unreachable { what, source: last });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// What came of a transaction in a block.
pub(crate) fn read(
    what: &'static str,
    receipt: &TransactionReceipt,
    block_time_s: u64,
) -> Result<SentReceipt, ChainFault> {
    let hash = receipt.transaction_hash;
    if !receipt.status() {
        // Another transaction came between the estimate and this one.
        let reason = format!("transaction {hash} failed when mined");
        return Err(ChainFault::Reverted { step: what, reason, too_early: false });
    }
    let block = receipt.block_number.unwrap_or_default();
    let mined = Mined { transaction: hash, block, block_time_s, gas_used: receipt.gas_used, settlement: None };
    Ok(SentReceipt { mined, logs: receipt.logs().iter().map(|log| log.inner.clone()).collect() })
}
