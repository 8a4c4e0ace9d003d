use std::path::PathBuf;

use alloy::{
    network::TransactionBuilder,
    providers::{DynProvider, Provider},
    rpc::types::{BlockId, Filter, TransactionRequest},
    transports::{RpcError, TransportError, TransportErrorKind},
};
use alloy_primitives::{Bytes, TxHash, U256};
use alloy_sol_types::SolCall;
use tribunal_events::{Address, Amount, B256};

use crate::{
    Account, Addresses, BondView, BoxFuture, CaseView, Chain, ChainFault, EndpointLimits, Endpoints, Finding, LogSpan,
    Mined, Sender, SenderSettings, SentReceipt, Step,
    bindings::{escrow::TribunalEscrow, registry::MediatorRegistry, token::TestToken},
    get_logs_split,
    perform::{self, Node, refusal},
    sender::receipts::Receipts,
};

/// A chain behind JSON-RPC, and how it is used.
#[derive(Clone, Default)]
pub struct RpcSettings {
    /// HTTP URLs in order of preference; one at least. Often secrets, so these settings are never printed.
    pub urls: Vec<String>,
    /// EIP-155 id that they must have; without one the first that answers decides.
    pub chain_id: Option<u64>,
    /// What the endpoints may take.
    pub limits: EndpointLimits,
    /// Events are looked for from this block on; nodes often refuse to search all.
    pub first_block: u64,
    /// Confirmations, fees and patience.
    pub sender: SenderSettings,
    /// What is sent is written here before; without one it is forgotten with the process.
    pub journal: Option<PathBuf>,
}

impl RpcSettings {
    /// One endpoint, all else as usual.
    pub fn at(url: &str) -> Self {
        Self { urls: vec![url.to_owned()], ..Self::default() }
    }
}

/// A chain behind JSON-RPC over HTTP, with one account that pays for transactions.
pub struct JsonRpcChain {
    provider: DynProvider,
    /// None where the account is only read about.
    sender: Option<Sender>,
    account: Address,
    chain_id: u64,
    addresses: Addresses,
    first_block: u64,
    confirmations: u64,
    log_span: LogSpan,
    hosts: String,
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
        let mut chain = Self::dial(RpcSettings::at(rpc_url), Account::with_key(key)?, placeholder).await?;
        let nonce = chain.sender("deploy")?.next_nonce("deploy").await?;
        chain.addresses = Addresses::predict(chain.account, nonce);
        for creation in chain.addresses.creations(treasury, unbond_delay_s) {
            let receipt = chain.send_again("deploy", None, creation, U256::ZERO).await?;
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
        Self::open(RpcSettings::at(rpc_url), Account::with_key(key)?, addresses).await
    }

    /// As [`JsonRpcChain::connect`], with several endpoints, a journal, and all else that can be set.
    ///
    /// # Errors
    /// As [`JsonRpcChain::connect`], and where the journal is in use or damaged.
    pub async fn open(settings: RpcSettings, account: Account, addresses: Addresses) -> Result<Self, ChainFault> {
        let chain = Self::dial(settings, account, addresses).await?;
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
        if let Some(sender) = &mut self.sender {
            sender.set_confirmations(self.confirmations);
        }
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
            self.send_again("deposit", Some(escrow), call.into(), amount).await?
        } else {
            let approve = TestToken::approveCall { spender: escrow, value: amount }.abi_encode();
            self.send_again("approve", Some(token), approve.into(), U256::ZERO).await?;
            let deposit = TribunalEscrow::depositCall { token, amount }.abi_encode();
            self.send_again("deposit", Some(escrow), deposit.into(), U256::ZERO).await?
        };
        Ok(receipt.mined)
    }

    /// Pays out of the escrow to the own account.
    ///
    /// # Errors
    /// Where there is less.
    pub async fn withdraw(&self, token: Address, amount: Amount) -> Result<Mined, ChainFault> {
        let call = TribunalEscrow::withdrawCall { token, amount: amount.base_units() }.abi_encode();
        let receipt = self.send_again("withdraw", Some(self.addresses.escrow), call.into(), U256::ZERO).await?;
        Ok(receipt.mined)
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
        self.receipts().wait(C::SIGNATURE, hash).await.map(|_| ())
    }

    pub(crate) async fn dial(
        settings: RpcSettings,
        account: Account,
        addresses: Addresses,
    ) -> Result<Self, ChainFault> {
        let endpoints = Endpoints::new(&settings.urls, settings.chain_id)?.with_limits(settings.limits);
        let (provider, chain_id) = endpoints.connect().await?;
        let address = account.address();
        let sender = if account.signs() {
            let journal = settings.journal.as_deref();
            Some(Sender::over(provider.clone(), chain_id, account, settings.sender, journal).await?)
        } else {
            None
        };
        Ok(Self {
            provider,
            sender,
            account: address,
            chain_id,
            addresses,
            first_block: settings.first_block,
            confirmations: settings.sender.confirmations.max(1),
            log_span: LogSpan::default(),
            hosts: endpoints.describe(),
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

    fn receipts(&self) -> Receipts {
        Receipts { provider: self.provider.clone(), confirmations: self.confirmations }
    }

    /// What sends for the account, for what the [`Chain`] trait does not.
    ///
    /// # Errors
    /// Where the account is only read about.
    pub fn sender(&self, what: &'static str) -> Result<&Sender, ChainFault> {
        let problem = || format!("there is no key of {} here to send with", self.account);
        self.sender.as_ref().ok_or_else(|| ChainFault::Unexpected { what, problem: problem() })
    }

    /// Sends what may be wanted again; only what was not seen to its end is resumed.
    pub(crate) async fn send_again(
        &self,
        what: &'static str,
        to: Option<Address>,
        data: Bytes,
        value: U256,
    ) -> Result<SentReceipt, ChainFault> {
        let sender = self.sender(what)?;
        sender.send_again(sender.effect_id(to, &data, value), what, to, data, value).await
    }
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

/// An error without the layers that say nothing.
pub(crate) fn source(error: TransportError) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        RpcError::Transport(TransportErrorKind::Custom(error)) => error,
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
            // Nodes differ in what they take for the state that is not asked for by name.
            self.provider.call(request).block(BlockId::latest()).await.map_err(|error| fault(what, error))
        })
    }

    fn send<'a>(
        &'a self,
        what: &'static str,
        to: Address,
        data: Bytes,
    ) -> BoxFuture<'a, Result<SentReceipt, ChainFault>> {
        Box::pin(async move {
            let sender = self.sender(what)?;
            let effect = sender.effect_id(Some(to), &data, U256::ZERO);
            sender.send(effect, what, Some(to), data, U256::ZERO).await
        })
    }

    fn find<'a>(
        &'a self,
        contract: Address,
        signature: B256,
        topic: B256,
    ) -> BoxFuture<'a, Result<Vec<SentReceipt>, ChainFault>> {
        Box::pin(async move {
            let filter = Filter::new().address(contract).event_signature(signature).topic1(topic);
            let head = self.provider.get_block_number().await.map_err(|error| fault("events", error))?;
            let logs = get_logs_split(&self.provider, &filter, self.first_block, head, &self.log_span).await?;
            let mut hashes: Vec<TxHash> = logs.iter().filter_map(|log| log.transaction_hash).collect();
            hashes.dedup();
            let mut receipts = Vec::with_capacity(hashes.len());
            for hash in hashes {
                receipts.push(self.receipts().wait("events", hash).await?);
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
        format!("JSON-RPC at {}", self.hosts)
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
