//! Transactions signed by any [`Signer`], here or remote.

use std::{pin::Pin, sync::Arc};

use alloy::{
    consensus::SignableTransaction,
    network::{EthereumWallet, TxSigner},
    primitives::Signature,
    signers::{self, local::PrivateKeySigner},
};
use tribunal_events::{Address, Signer};

use crate::ChainFault;

/// The account that a chain is used as.
#[derive(Clone)]
pub struct Account {
    address: Address,
    /// None reads and sends nothing.
    wallet: Option<EthereumWallet>,
}

impl Account {
    /// Sends with a raw key: 32 bytes, big-endian.
    ///
    /// # Errors
    /// Where that is no secp256k1 key.
    pub fn with_key(key: &[u8; 32]) -> Result<Self, ChainFault> {
        let problem = || ChainFault::Unexpected { what: "connect", problem: "the key is out of range".into() };
        let signer = PrivateKeySigner::from_slice(key).map_err(|_| problem())?;
        Ok(Self { address: signer.address(), wallet: Some(EthereumWallet::from(signer)) })
    }

    /// Sends with any signer, here or remote.
    pub fn of(signer: Arc<dyn Signer>) -> Self {
        Self { address: signer.address(), wallet: Some(EthereumWallet::from(TransactionSigner(signer))) }
    }

    /// Is read about and sends nothing.
    pub const fn watched(address: Address) -> Self {
        Self { address, wallet: None }
    }

    /// Its address.
    pub const fn address(&self) -> Address {
        self.address
    }

    pub(crate) const fn signs(&self) -> bool {
        self.wallet.is_some()
    }

    pub(crate) fn into_wallet(self) -> Option<EthereumWallet> {
        self.wallet
    }
}

/// A signer as alloy's wallets take it. What is signed is keccak256 of the transaction's own encoding.
struct TransactionSigner(Arc<dyn Signer>);

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
