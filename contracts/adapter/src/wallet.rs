//! Transactions signed by any [`Signer`], here or remote.

use std::{pin::Pin, sync::Arc};

use alloy::{consensus::SignableTransaction, network::TxSigner, primitives::Signature, signers};
use tribunal_events::{Address, Signer};

/// A signer as alloy's wallets take it. What is signed is keccak256 of the transaction's own encoding.
pub(crate) struct TransactionSigner(pub Arc<dyn Signer>);

impl TxSigner<Signature> for TransactionSigner {
    fn address(&self) -> Address {
        self.0.address()
    }

    fn sign_transaction<'a, 'b, 'c>(
        &'a self,
        tx: &'b mut dyn SignableTransaction<Signature>,
    ) -> Pin<Box<dyn Future<Output = signers::Result<Signature>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        let (signer, bytes) = (Arc::clone(&self.0), tx.encoded_for_signing());
        Box::pin(async move {
            let signed = tokio::task::spawn_blocking(move || signer.sign_preimage(&bytes)).await;
            let signature = signed.map_err(signers::Error::other)?.map_err(signers::Error::other)?;
            Signature::from_raw_array(signature.bytes()).map_err(signers::Error::other)
        })
    }
}
