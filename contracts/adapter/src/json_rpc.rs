use std::{sync::Arc, time::Duration};

use alloy::{
    network::{EthereumWallet, TransactionBuilder},
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::types::{BlockId, Filter, TransactionReceipt, TransactionRequest},
    signers::local::PrivateKeySigner,
    transports::{RpcError, TransportError, TransportErrorKind, http::reqwest},
};
use alloy_primitives::{Bytes, TxHash};
use alloy_sol_types::SolCall;
use tokio::sync::Mutex;
use tribunal_events::{Address, Amount, B256, Signer};

use crate::{
    Addresses, BondView, BoxFuture, CaseView, Chain, ChainFault, Finding, Mined, Step,
    bindings::{escrow::TribunalEscrow, registry::MediatorRegistry, token::TestToken},
    endpoints::{Endpoints, POLL_INTERVAL},
    perform::{self, Node, Receipt, refusal},
    wallet::TransactionSigner,
};

/// How long a transaction may take to be mined before the chain counts as unreachable.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(120);

/// A chain behind a node's JSON-RPC over HTTP, with one account that pays for transactions.
pub struct JsonRpcChain {
    provider: DynProvider,
    /// Held from taking a nonce until the node has the transaction: two at once would take the same one.
    lane: Arc<Mutex<()>>,
    account: Address,
    /// Reads for the account and sends nothing.
    watches: bool,
    chain_id: u64,
    addresses: Addresses,
    first_block: u64,
    confirmations: u64,
    host: String,
}

/// Whose account a chain is used with.
pub(crate) enum Account {
    /// Sends transactions.
    Signs(Address, EthereumWallet),
    /// Is read about.
    Watched(Address),
}

impl Account {
    /// `key`: 32 bytes, big-endian.
    fn with_key(key: &[u8; 32]) -> Result<Self, ChainFault> {
        let problem = || ChainFault::Unexpected { what: "connect", problem: "the key is out of range".into() };
        let signer = PrivateKeySigner::from_slice(key).map_err(|_| problem())?;
        Ok(Self::Signs(signer.address(), EthereumWallet::from(signer)))
    }

    pub(crate) fn of(signer: Arc<dyn Signer>) -> Self {
        Self::Signs(signer.address(), EthereumWallet::from(TransactionSigner(signer)))
    }
}

impl JsonRpcChain {
    /// Deploys token, registry and escrow, and connects to them. `key`: 32 bytes, big-endian, of an account that pays.
    ///
    /// # Errors
    /// Where the node does not answer or refuses a transaction.
    pub async fn deploy(
        rpc_url: &str,
        key: &[u8; 32],
        treasury: Address,
        unbond_delay_s: u64,
    ) -> Result<Self, ChainFault> {
        let placeholder = Addresses { token: Address::ZERO, registry: Address::ZERO, escrow: Address::ZERO };
        let mut chain = Self::dial(rpc_url, Account::with_key(key)?, placeholder).await?;
        let nonce = chain.next_nonce("deploy").await?;
        chain.addresses = Addresses::predict(chain.account, nonce);
        for creation in chain.addresses.creations(treasury, unbond_delay_s) {
            let receipt = chain.transact("deploy", TransactionRequest::default().with_deploy_code(creation)).await?;
            if chain.first_block == 0 {
                chain.first_block = receipt.mined.block;
            }
        }
        chain.check_deployment().await?;
        Ok(chain)
    }

    /// Connects to contracts that are there. `key`: 32 bytes, big-endian, of the account that pays.
    ///
    /// # Errors
    /// [`ChainFault::Unreachable`] where the node does not answer, [`ChainFault::Unexpected`] where the addresses hold
    /// something else.
    pub async fn connect(rpc_url: &str, key: &[u8; 32], addresses: Addresses) -> Result<Self, ChainFault> {
        let chain = Self::dial(rpc_url, Account::with_key(key)?, addresses).await?;
        chain.check_deployment().await?;
        Ok(chain)
    }

    /// Looks for events only from this block on; nodes often refuse to search all.
    #[must_use]
    pub fn with_first_block(mut self, first_block: u64) -> Self {
        self.first_block = first_block;
        self
    }

    /// Waits until this many blocks, the transaction's own included, stand before a step counts; 1 unless told.
    #[must_use]
    pub fn with_confirmations(mut self, confirmations: u64) -> Self {
        self.confirmations = confirmations.max(1);
        self
    }

    /// The block of the first deployment, or what [`JsonRpcChain::with_first_block`] said.
    pub const fn first_block(&self) -> u64 {
        self.first_block
    }

    /// Where the contracts are.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The account that pays, and finds equivocators.
    pub const fn account(&self) -> Address {
        self.account
    }

    /// Approves and deposits `amount` of an ERC-20 token, or native currency for the zero address, as the own account.
    ///
    /// # Errors
    /// Where the account has less.
    pub async fn deposit(&self, token: Address, amount: Amount) -> Result<Mined, ChainFault> {
        let amount = amount.base_units();
        let escrow = self.addresses.escrow;
        let receipt = if token.is_zero() {
            let call = TribunalEscrow::depositNativeCall {}.abi_encode();
            let request = TransactionRequest::default().with_to(escrow).with_input(call).with_value(amount);
            self.transact("deposit", request).await?
        } else {
            let approve = TestToken::approveCall { spender: escrow, value: amount };
            self.send("approve", token, approve.abi_encode().into()).await?;
            self.send("deposit", escrow, TribunalEscrow::depositCall { token, amount }.abi_encode().into()).await?
        };
        Ok(receipt.mined)
    }

    /// Pays out of the escrow to the own account.
    ///
    /// # Errors
    /// Where there is less.
    pub async fn withdraw(&self, token: Address, amount: Amount) -> Result<Mined, ChainFault> {
        let call = TribunalEscrow::withdrawCall { token, amount: amount.base_units() };
        self.send("withdraw", self.addresses.escrow, call.abi_encode().into()).await.map(|receipt| receipt.mined)
    }

    /// Development chains only: makes new test tokens and puts them into the escrow as any `account`.
    ///
    /// # Errors
    /// Where the node impersonates nobody.
    pub async fn mint_and_deposit(&self, account: Address, amount: Amount) -> Result<(), ChainFault> {
        let Addresses { token, escrow, .. } = self.addresses;
        let amount = amount.base_units();
        self.send_as(account, token, TestToken::mintCall { account, amount }).await?;
        self.send_as(account, token, TestToken::approveCall { spender: escrow, value: amount }).await?;
        self.send_as(account, escrow, TribunalEscrow::depositCall { token, amount }).await
    }

    /// Development chains only: makes new test tokens for any `account`, and gives it native currency for gas.
    ///
    /// # Errors
    /// Where the node impersonates nobody.
    pub async fn fund(&self, account: Address, amount: Amount) -> Result<(), ChainFault> {
        let amount = amount.base_units();
        self.send_as(account, self.addresses.token, TestToken::mintCall { account, amount }).await
    }

    /// Development chains only: bonds new test tokens as any `account`, like `InProcessChain::bond_mediator`.
    ///
    /// # Errors
    /// Where the node impersonates nobody.
    pub async fn bond_mediator(&self, account: Address, amount: Amount, operator: Address) -> Result<(), ChainFault> {
        let Addresses { token, registry, .. } = self.addresses;
        let amount = amount.base_units();
        self.send_as(account, token, TestToken::mintCall { account, amount }).await?;
        self.send_as(account, token, TestToken::approveCall { spender: registry, value: amount }).await?;
        self.send_as(account, registry, MediatorRegistry::bondCall { amount }).await?;
        self.send_as(account, registry, MediatorRegistry::setOperatorCall { operator, allowed: true }).await?;
        self.send_as(account, registry, MediatorRegistry::setAppointmentSlashMaxCall { amount }).await
    }

    async fn send_as<C: SolCall>(&self, account: Address, to: Address, call: C) -> Result<(), ChainFault> {
        let client = self.provider.client();
        let asked = |error| fault(C::SIGNATURE, error);
        let _: serde_json::Value = client.request("anvil_impersonateAccount", (account,)).await.map_err(asked)?;
        // One ether for gas.
        let _: serde_json::Value =
            client.request("anvil_setBalance", (account, "0xde0b6b3a7640000")).await.map_err(asked)?;
        let request = TransactionRequest::default().with_from(account).with_to(to).with_input(call.abi_encode());
        let hash: TxHash = client.request("eth_sendTransaction", (request,)).await.map_err(asked)?;
        self.receipt(C::SIGNATURE, hash).await.map(|_| ())
    }

    pub(crate) async fn dial(rpc_url: &str, account: Account, addresses: Addresses) -> Result<Self, ChainFault> {
        let endpoints = Endpoints::new(&[rpc_url.to_owned()], None)?;
        let (client, chain_id) = endpoints.client().await?;
        let (account, watches, provider) = match account {
            Account::Signs(address, wallet) => {
                (address, false, ProviderBuilder::new().wallet(wallet).connect_client(client).erased())
            }
            Account::Watched(address) => (address, true, ProviderBuilder::new().connect_client(client).erased()),
        };
        let host = endpoints.describe();
        Ok(Self {
            provider,
            lane: Arc::default(),
            account,
            watches,
            chain_id,
            addresses,
            first_block: 0,
            confirmations: 1,
            host,
        })
    }

    /// The escrow names the registry and the registry the escrow, else the address book is wrong.
    pub(crate) async fn check_deployment(&self) -> Result<(), ChainFault> {
        let Addresses { registry, escrow, .. } = self.addresses;
        let named = perform::view(self, escrow, "connect", TribunalEscrow::registryCall {}).await?;
        let back = perform::view(self, registry, "connect", MediatorRegistry::escrowCall {}).await?;
        if (named, back) == (registry, escrow) {
            return Ok(());
        }
        let problem = format!("escrow {escrow} names registry {named}, registry {registry} names escrow {back}");
        Err(ChainFault::Unexpected { what: "connect", problem })
    }

    pub(crate) const fn provider(&self) -> &DynProvider {
        &self.provider
    }

    pub(crate) const fn set_addresses(&mut self, addresses: Addresses) {
        self.addresses = addresses;
    }

    /// Why a transaction was not taken: as for anything, or because the account cannot pay for it.
    fn unsent(&self, what: &'static str, error: TransportError) -> ChainFault {
        if let RpcError::ErrorResp(answer) = &error
            && answer.message.to_lowercase().contains("insufficient funds")
        {
            return ChainFault::Unfunded { what, account: self.account, problem: answer.message.to_string() };
        }
        fault(what, error)
    }

    async fn next_nonce(&self, what: &'static str) -> Result<u64, ChainFault> {
        self.provider.get_transaction_count(self.account).pending().await.map_err(|error| fault(what, error))
    }

    /// Why a transaction was not taken, looked at once more: what the contract refuses while a transaction of this account
    /// waits to be mined may be what that one does.
    async fn refused(&self, what: &'static str, error: TransportError) -> ChainFault {
        let refused = self.unsent(what, error);
        if !matches!(refused, ChainFault::Reverted { .. }) {
            return refused;
        }
        let mined = async {
            let latest = self.provider.get_transaction_count(self.account).latest();
            latest.await.map_err(|error| fault(what, error))
        };
        match (self.next_nonce(what).await, mined.await) {
            (Ok(pending), Ok(latest)) if pending <= latest => refused,
            (Ok(_), Ok(_)) => ChainFault::Unreachable {
                what: format!("{what}: an earlier transaction of this account is not mined yet"),
                source: Box::new(refused),
            },
            (Err(unknown), _) | (_, Err(unknown)) => unknown,
        }
    }

    async fn transact(&self, what: &'static str, request: TransactionRequest) -> Result<Receipt, ChainFault> {
        if self.watches {
            let problem = format!("there is no key of {} here to send with", self.account);
            return Err(ChainFault::Unexpected { what, problem });
        }
        let request = request.with_from(self.account);
        let sent = {
            let _lane = self.lane.lock().await;
            // The estimate runs the call: what the contract refuses is known, with its reason, before it costs gas.
            let gas = match self.provider.estimate_gas(request.clone()).block(BlockId::pending()).await {
                Ok(gas) => gas,
                Err(error) => return Err(self.refused(what, error).await),
            };
            let request = request.with_nonce(self.next_nonce(what).await?).with_gas_limit(gas.saturating_add(gas / 4));
            match self.provider.send_transaction(request).await {
                Ok(sent) => *sent.tx_hash(),
                Err(error) => return Err(self.refused(what, error).await),
            }
        };
        tracing::debug!(step = what, transaction = %sent, "transaction sent");
        self.receipt(what, sent).await
    }

    /// Waits until a transaction that was sent is mined. What the node cannot answer is asked again: the transaction is out,
    /// and sending it once more would be refused for what it did.
    async fn receipt(&self, what: &'static str, hash: TxHash) -> Result<Receipt, ChainFault> {
        let mut last = None;
        let polling = async {
            loop {
                // Asked again at every turn: a reorganisation may take a transaction out of its block.
                match self.poll(hash).await {
                    Ok(Some((receipt, block_time_s))) => return read(what, &receipt, block_time_s),
                    Ok(None) => last = None,
                    Err(error) => {
                        let source = source(error);
                        tracing::debug!(step = what, transaction = %hash, fault = %source, "a receipt could not be read");
                        last = Some(source);
                    }
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        let outcome = tokio::time::timeout(RECEIPT_TIMEOUT, polling).await;
        outcome.unwrap_or_else(|elapsed| {
            Err(ChainFault::Unreachable {
                what: format!("{what}: transaction {hash} was not seen mined in {} s", RECEIPT_TIMEOUT.as_secs()),
                source: last.unwrap_or_else(|| Box::new(elapsed)),
            })
        })
    }

    /// The receipt and its block's unix time, once it has its confirmations.
    async fn poll(&self, hash: TxHash) -> Result<Option<(TransactionReceipt, u64)>, TransportError> {
        let Some(receipt) = self.provider.get_transaction_receipt(hash).await? else { return Ok(None) };
        let Some(number) = receipt.block_number else { return Ok(None) };
        if self.confirmations > 1
            && self.provider.get_block_number().await? < number.saturating_add(self.confirmations - 1)
        {
            return Ok(None);
        }
        // One of several nodes behind an address may lack a block that another has.
        let block = self.provider.get_block_by_number(number.into()).await?;
        Ok(block.map(|block| (receipt, block.header.timestamp)))
    }
}

fn read(what: &'static str, receipt: &TransactionReceipt, block_time_s: u64) -> Result<Receipt, ChainFault> {
    let hash = receipt.transaction_hash;
    if !receipt.status() {
        // Another transaction came between the estimate and this one.
        let reason = format!("transaction {hash} failed when mined");
        return Err(ChainFault::Reverted { step: what, reason, too_early: false });
    }
    let block = receipt.block_number.unwrap_or_default();
    let mined = Mined { transaction: hash, block, block_time_s, gas_used: receipt.gas_used, settlement: None };
    Ok(Receipt { mined, logs: receipt.logs().iter().map(|log| log.inner.clone()).collect() })
}

/// Whether the contract refused or the node failed.
pub(crate) fn fault(what: &'static str, error: TransportError) -> ChainFault {
    if let RpcError::ErrorResp(answer) = &error {
        if let Some(data) = answer.as_revert_data() {
            return refusal(what, &data);
        }
        // Code 3 is "execution reverted" of every node; one without data has no reason to decode.
        if answer.code == 3 || answer.message.contains("revert") {
            let reason = answer.message.to_string();
            return ChainFault::Reverted { step: what, reason, too_early: false };
        }
    }
    ChainFault::Unreachable { what: what.into(), source: source(error) }
}

fn source(error: TransportError) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        // An HTTP client's error prints the URL, whose path may be a secret.
        RpcError::Transport(TransportErrorKind::Custom(error)) => match error.downcast::<reqwest::Error>() {
            Ok(error) => Box::new(error.without_url()),
            Err(error) => error,
        },
        other => Box::new(other),
    }
}

impl Node for JsonRpcChain {
    fn addresses(&self) -> Addresses {
        self.addresses
    }

    fn chain_id(&self) -> u64 {
        self.chain_id
    }

    fn call<'a>(&'a self, what: &'static str, to: Address, data: Bytes) -> BoxFuture<'a, Result<Bytes, ChainFault>> {
        Box::pin(async move {
            let request = TransactionRequest::default().with_to(to).with_input(data);
            self.provider.call(request).await.map_err(|error| fault(what, error))
        })
    }

    fn send<'a>(&'a self, what: &'static str, to: Address, data: Bytes) -> BoxFuture<'a, Result<Receipt, ChainFault>> {
        Box::pin(self.transact(what, TransactionRequest::default().with_to(to).with_input(data)))
    }

    fn find<'a>(
        &'a self,
        contract: Address,
        signature: B256,
        topic: B256,
    ) -> BoxFuture<'a, Result<Vec<Receipt>, ChainFault>> {
        Box::pin(async move {
            let filter = Filter::new().address(contract).event_signature(signature).topic1(topic);
            let filter = filter.from_block(self.first_block);
            let logs = self.provider.get_logs(&filter).await.map_err(|error| fault("events", error))?;
            let mut hashes: Vec<TxHash> = logs.iter().filter_map(|log| log.transaction_hash).collect();
            hashes.dedup();
            let mut receipts = Vec::with_capacity(hashes.len());
            for hash in hashes {
                receipts.push(self.receipt("events", hash).await?);
            }
            Ok(receipts)
        })
    }
}

impl Chain for JsonRpcChain {
    fn chain_id(&self) -> u64 {
        self.chain_id
    }

    fn escrow(&self) -> Address {
        self.addresses.escrow
    }

    fn describe(&self) -> String {
        format!("JSON-RPC at {}", self.host)
    }

    fn perform<'a>(&'a self, step: &'a Step) -> BoxFuture<'a, Result<Mined, ChainFault>> {
        Box::pin(perform::perform(self, step))
    }

    fn case(&self, terms_hash: B256) -> BoxFuture<'_, Result<CaseView, ChainFault>> {
        Box::pin(perform::case(self, terms_hash))
    }

    fn balance(&self, token: Address, account: Address) -> BoxFuture<'_, Result<Amount, ChainFault>> {
        Box::pin(perform::balance(self, token, account))
    }

    fn bond(&self, mediator: Address) -> BoxFuture<'_, Result<BondView, ChainFault>> {
        Box::pin(perform::bond(self, mediator))
    }

    fn finding(
        &self,
        terms_hash: B256,
        mediator: Address,
        round: u32,
    ) -> BoxFuture<'_, Result<Option<Finding>, ChainFault>> {
        Box::pin(perform::finding(self, self.account, terms_hash, mediator, round))
    }

    fn advance_time(&self, _now_s: u64) -> BoxFuture<'_, Result<(), ChainFault>> {
        Box::pin(async { Ok(()) })
    }
}
