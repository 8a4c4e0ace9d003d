//! One account that sends transactions on one chain, each effect once, over crashes of this process and moods of nodes.
//!
//! Whatever is to be sent is signed, written to a journal and synced before any node sees it. What is asked for a second
//! time resumes what is in the journal: a transaction that a node forgot is sent again as it was signed, one that is not
//! mined in time is sent again with a higher fee under the same nonce, and one that a reorganisation took out of its block
//! is sent again too. Of all that is signed for one nonce the chain takes one.
//!
//! **Invariant:** no node sees a transaction that is not in the journal.
//! **Invariant:** an effect gets a second nonce only when the chain used its first one for a transaction of somebody else
//! or for one that reverted, or when a node refused it before any other could have taken it.
//! **Invariant:** no transaction offers more for gas than the cap.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use alloy::{
    consensus::{Transaction as _, TxEnvelope},
    eips::{
        BlockNumberOrTag,
        eip2718::{Decodable2718 as _, Encodable2718 as _},
    },
    network::{EthereumWallet, NetworkTransactionBuilder as _, TransactionBuilder as _},
    providers::{DynProvider, Provider},
    rpc::types::{BlockId, TransactionRequest},
    transports::{RpcError, TransportError},
};
use alloy_primitives::{Bytes, TxHash, U256, keccak256};
use alloy_sol_types::SolValue as _;
use tokio::time::Instant;
use tribunal_events::{Address, B256};

use crate::{
    Account, ChainFault, Endpoints, SentReceipt,
    endpoints::{POLL_INTERVAL, is_known},
    json_rpc::{fault, source},
};
use fees::{Fees, OverCap, Quote};
use lane::{Attempt, Ending, Entry, Lane};
use receipts::{Found, Receipts, read};

mod fees;
mod lane;
pub(crate) mod receipts;

/// An end of the chain that counts as final where a node names none.
const FINAL_BLOCKS: u64 = 256;

/// How an account sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderSettings {
    /// Blocks, the transaction's own included, that must stand before it counts; at least 1.
    pub confirmations: u64,
    /// A transaction offers at most this for a unit of gas.
    pub fee_per_gas_wei_max: u128,
    /// After this long in which a transaction was next and not mined, its fee is raised.
    pub bump_after: Duration,
    /// After this long [`Sender::send`] gives a fault; the transaction stays out, and the next call waits on.
    pub give_up_after: Duration,
    /// How often a node is asked at first, and at last.
    pub poll_every: (Duration, Duration),
    /// Ended effects that are remembered however old; others are forgotten once they are final.
    pub ended_kept: usize,
}

impl Default for SenderSettings {
    /// 1 confirmation, at most 500 gwei, a higher fee after 30 s, 120 s in all, 1024 effects remembered.
    fn default() -> Self {
        Self {
            confirmations: 1,
            fee_per_gas_wei_max: 500_000_000_000,
            bump_after: Duration::from_secs(30),
            give_up_after: Duration::from_secs(120),
            poll_every: (POLL_INTERVAL, Duration::from_secs(2)),
            ended_kept: 1024,
        }
    }
}

/// See the module.
pub struct Sender {
    provider: DynProvider,
    chain_id: u64,
    account: Address,
    wallet: EthereumWallet,
    settings: SenderSettings,
    /// So many ended effects are a reason to forget some.
    forget_at: AtomicUsize,
    /// Held from taking a nonce until a node has the transaction: two at once would take the same one.
    turn: tokio::sync::Mutex<()>,
    lane: Arc<Mutex<Lane>>,
}

/// Where an attempt stands.
enum Progress {
    Waits(&'static str),
    Done(Result<SentReceipt, ChainFault>),
    Replaced(Option<B256>),
}

/// What a node said to a transaction.
enum Heard {
    /// It has it, or had it.
    Taken,
    /// It offers too little.
    Underpriced,
    /// Another transaction of this nonce is there and offers too much to be replaced.
    Occupied,
    Unfunded(String),
    Rejected(TransportError),
    /// Nothing that says whether it has it.
    Unclear(TransportError),
}

impl Sender {
    /// An account on the chain of `endpoints`, with a journal in the file at `journal`; without one, what was sent is known
    /// to this process only. A journal is of one chain and one account.
    ///
    /// # Errors
    /// Where no node answers, the account has no key, or the journal is in use or damaged.
    pub async fn connect(
        endpoints: &Endpoints,
        account: Account,
        settings: SenderSettings,
        journal: Option<&Path>,
    ) -> Result<Self, ChainFault> {
        let (provider, chain_id) = endpoints.connect().await?;
        Self::over(provider, chain_id, account, settings, journal).await
    }

    pub(crate) async fn over(
        provider: DynProvider,
        chain_id: u64,
        account: Account,
        settings: SenderSettings,
        journal: Option<&Path>,
    ) -> Result<Self, ChainFault> {
        let address = account.address();
        let Some(wallet) = account.into_wallet() else {
            let problem = format!("there is no key of {address} here to send with");
            return Err(ChainFault::Unexpected { what: "connect", problem });
        };
        let lane = Arc::new(Mutex::new(Lane::open(journal, chain_id, address)?));
        let settings = SenderSettings { confirmations: settings.confirmations.max(1), ..settings };
        let turn = tokio::sync::Mutex::default();
        let forget_at = AtomicUsize::new(settings.ended_kept.saturating_mul(2));
        let this = Self { provider, chain_id, account: address, wallet, settings, forget_at, turn, lane };
        this.forget_if_many().await?;
        Ok(this)
    }

    /// Whose transactions these are.
    pub const fn account(&self) -> Address {
        self.account
    }

    /// EIP-155 id of the chain.
    pub const fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// A provider of the chain.
    pub const fn provider(&self) -> &DynProvider {
        &self.provider
    }

    pub(crate) const fn set_confirmations(&mut self, confirmations: u64) {
        self.settings.confirmations = confirmations;
    }

    /// The id of an effect that is what a transaction does: keccak256 of chain id, account, receiver, data and value.
    pub fn effect_id(&self, to: Option<Address>, data: &[u8], value: U256) -> B256 {
        let receiver = (to.is_none(), to.unwrap_or_default());
        keccak256((U256::from(self.chain_id), self.account, receiver, keccak256(data), value).abi_encode())
    }

    /// The nonce that the next new transaction will have.
    ///
    /// # Errors
    /// Where the node does not say.
    pub async fn next_nonce(&self, what: &'static str) -> Result<u64, ChainFault> {
        Ok(self.pending(what).await?.max(self.lane().next_nonce()))
    }

    /// Sends a transaction for an effect, or waits for the one that is out for it, until it is mined with its
    /// confirmations. What was mined for it before is looked at again and given again. No receiver creates a contract.
    ///
    /// # Errors
    /// [`ChainFault::Reverted`] where the contract refuses, mostly before anything is sent; [`ChainFault::FeeCap`],
    /// [`ChainFault::Unfunded`], [`ChainFault::Unreachable`] and [`ChainFault::Replaced`] are worth another call, before
    /// which it is as well to look whether the effect is still wanted.
    pub async fn send(
        &self,
        effect_id: B256,
        what: &'static str,
        to: Option<Address>,
        data: Bytes,
        value: U256,
    ) -> Result<SentReceipt, ChainFault> {
        let known = self.lane().nonce_of(&effect_id);
        let nonce = match known {
            Some(nonce) => {
                self.check_same(nonce, what, to, &data, value)?;
                nonce
            }
            None => self.begin(effect_id, what, to, data, value).await?,
        };
        self.watch(nonce, effect_id, what).await
    }

    /// As [`Sender::send`] for an effect that may happen again: only what was not seen to its end is resumed.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send_again(
        &self,
        effect_id: B256,
        what: &'static str,
        to: Option<Address>,
        data: Bytes,
        value: U256,
    ) -> Result<SentReceipt, ChainFault> {
        self.lane().release_mined(&effect_id);
        self.send(effect_id, what, to, data, value).await
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes to the journal off the async threads.
    async fn record(&self, entry: Entry) -> Result<(), ChainFault> {
        let lane = Arc::clone(&self.lane);
        let written =
            tokio::task::spawn_blocking(move || lane.lock().unwrap_or_else(PoisonError::into_inner).record(entry));
        Ok(written.await.expect("writing a line does not panic")?)
    }

    async fn latest(&self, what: &'static str) -> Result<u64, ChainFault> {
        let count = self.provider.get_transaction_count(self.account).latest().await;
        count.map_err(|error| unread(what, error))
    }

    async fn pending(&self, what: &'static str) -> Result<u64, ChainFault> {
        let count = self.provider.get_transaction_count(self.account).pending().await;
        count.map_err(|error| unread(what, error))
    }

    /// One effect has one meaning.
    fn check_same(
        &self,
        nonce: u64,
        what: &'static str,
        to: Option<Address>,
        data: &Bytes,
        value: U256,
    ) -> Result<(), ChainFault> {
        let Some(attempt) = self.lane().attempt(nonce).cloned() else { return Ok(()) };
        let transaction = decoded(what, &attempt)?;
        if (transaction.to(), transaction.input(), transaction.value()) == (to, data, value) {
            return Ok(());
        }
        let problem = format!("effect {} was sent before with other data, as {}", attempt.effect, attempt.what);
        Err(ChainFault::Unexpected { what, problem })
    }

    /// Signs and sends the first transaction for an effect; gives its nonce.
    async fn begin(
        &self,
        effect: B256,
        what: &'static str,
        to: Option<Address>,
        data: Bytes,
        value: U256,
    ) -> Result<u64, ChainFault> {
        let _turn = self.turn.lock().await;
        if let Some(nonce) = self.lane().nonce_of(&effect) {
            return Ok(nonce);
        }
        self.forget_if_many().await?;
        let request = TransactionRequest::default().with_from(self.account).with_value(value);
        let request = match to {
            Some(to) => request.with_to(to).with_input(data),
            None => request.with_deploy_code(data),
        };
        // The estimate runs the call: what the contract refuses is known, with its reason, before it costs gas.
        let gas = match self.provider.estimate_gas(request.clone()).block(BlockId::pending()).await {
            Ok(gas) => gas,
            Err(error) => return Err(self.refused(what, error).await),
        };
        let quote = Quote::ask(&self.provider).await.map_err(|error| unread(what, error))?;
        let fees = quote.offer(self.settings.fee_per_gas_wei_max).map_err(|over| self.over_cap(what, over))?;
        let seen_block = self.provider.get_block_number().await.map_err(|error| unread(what, error))?;
        let nonce = self.next_nonce(what).await?;
        let request = request.with_nonce(nonce).with_gas_limit(gas.saturating_add(gas / 4));
        let (hash, raw) = self.sign(what, fees.on(request)).await?;
        let entry = Entry::Signed { effect, what: what.into(), nonce, seen_block, hash, raw: raw.clone() };
        self.record(entry).await?;
        tracing::debug!(step = what, transaction = %hash, nonce, "transaction sent");
        match self.broadcast(&raw).await {
            // Nobody else can have taken it, so the nonce is free again.
            Heard::Unfunded(problem) => {
                self.record(Entry::Ended { effect, nonce, ending: Ending::Refused }).await?;
                Err(ChainFault::Unfunded { what, account: self.account, problem })
            }
            Heard::Rejected(error) => {
                self.record(Entry::Ended { effect, nonce, ending: Ending::Refused }).await?;
                Err(fault(what, error))
            }
            heard => {
                self.note(nonce, |attempt| attempt.underpriced = matches!(heard, Heard::Underpriced));
                Ok(nonce)
            }
        }
    }

    /// Why a transaction was not signed, looked at once more: what the contract refuses while a transaction of this account
    /// waits to be mined may be what that one does.
    async fn refused(&self, what: &'static str, error: TransportError) -> ChainFault {
        if let RpcError::ErrorResp(answer) = &error
            && is_unfunded(&answer.message)
        {
            return ChainFault::Unfunded { what, account: self.account, problem: answer.message.to_string() };
        }
        let refused = fault(what, error);
        if !matches!(refused, ChainFault::Reverted { .. }) {
            return refused;
        }
        let (pending, latest) = match (self.pending(what).await, self.latest(what).await) {
            (Ok(pending), Ok(latest)) => (pending, latest),
            (Err(unknown), _) | (_, Err(unknown)) => return unknown,
        };
        let open = self.lane().first_open(latest);
        if pending <= latest && open.is_none() {
            return refused;
        }
        if let Some(open) = open {
            // Nobody else may be waiting for it.
            let _ = self.drive(open, what).await;
        }
        ChainFault::Unreachable {
            what: format!("{what}: an earlier transaction of this account is not mined yet"),
            source: Box::new(refused),
        }
    }

    fn over_cap(&self, what: &'static str, over: OverCap) -> ChainFault {
        ChainFault::FeeCap { what, asked_wei: over.asked_wei, cap_wei: self.settings.fee_per_gas_wei_max }
    }

    async fn sign(&self, what: &'static str, request: TransactionRequest) -> Result<(TxHash, Bytes), ChainFault> {
        let signed = request.with_chain_id(self.chain_id).build(&self.wallet).await;
        let signed = signed.map_err(|error| ChainFault::Unreachable {
            what: format!("{what}: the transaction cannot be signed"),
            source: Box::new(error),
        })?;
        Ok((*signed.tx_hash(), signed.encoded_2718().into()))
    }

    async fn broadcast(&self, raw: &Bytes) -> Heard {
        match self.provider.client().request::<_, TxHash>("eth_sendRawTransaction", (raw,)).await {
            Ok(_) => Heard::Taken,
            Err(RpcError::ErrorResp(answer)) => {
                let words = answer.message.to_lowercase();
                let any = |list: &[&str]| list.iter().any(|phrase| words.contains(phrase));
                if is_known(&words) || any(&["nonce too low", "oldnonce", "nonce is too low"]) {
                    Heard::Taken
                } else if any(&["replacement", "replace existing"]) {
                    Heard::Occupied
                } else if any(&["underpriced", "fee too low", "feetoolow", "less than block base fee", "below minimum"])
                {
                    Heard::Underpriced
                } else if is_unfunded(&words) {
                    Heard::Unfunded(answer.message.to_string())
                } else if answer.is_retry_err() {
                    Heard::Unclear(RpcError::ErrorResp(answer))
                } else {
                    Heard::Rejected(RpcError::ErrorResp(answer))
                }
            }
            Err(error) => Heard::Unclear(error),
        }
    }

    fn note(&self, nonce: u64, change: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.lane().attempt_mut(nonce) {
            change(attempt);
        }
    }

    async fn watch(&self, nonce: u64, effect: B256, what: &'static str) -> Result<SentReceipt, ChainFault> {
        let deadline = Instant::now() + self.settings.give_up_after;
        let (mut interval, interval_max) = self.settings.poll_every;
        loop {
            let unseen = |why: Box<dyn std::error::Error + Send + Sync>| ChainFault::Unreachable {
                what: format!("{what}: the transaction with nonce {nonce} of {} is not seen mined", self.account),
                source: why,
            };
            // Another call for the same effect may have seen its end.
            let ours = self.lane().attempt(nonce).is_some_and(|attempt| attempt.effect == effect);
            if !ours {
                return Err(ChainFault::Replaced { what, account: self.account, nonce, by: None });
            }
            let last = match self.drive(nonce, what).await {
                Ok(Progress::Done(result)) => return result,
                Ok(Progress::Replaced(by)) => {
                    return Err(ChainFault::Replaced { what, account: self.account, nonce, by });
                }
                Ok(Progress::Waits(why)) => unseen(why.into()),
                // The transaction is out, however long the node takes to say so.
                Err(fault @ ChainFault::Unreachable { .. }) => fault,
                Err(fault) => return Err(fault),
            };
            if Instant::now() >= deadline {
                return Err(last);
            }
            tracing::trace!(step = what, nonce, why = %last, "a transaction is waited for");
            tokio::time::sleep(interval).await;
            interval = (interval + interval / 2).min(interval_max);
        }
    }

    /// Looks at what is out for a nonce, and does what helps it into a block.
    async fn drive(&self, nonce: u64, what: &'static str) -> Result<Progress, ChainFault> {
        let Some(attempt) = self.lane().attempt(nonce).cloned() else { return Ok(Progress::Replaced(None)) };
        let latest = self.latest(what).await?;
        if latest > nonce {
            return self.look(nonce, what, &attempt).await;
        }
        self.note(nonce, |attempt| attempt.unfound_since = None);
        let newest = attempt.newest();
        let mut underpriced = attempt.underpriced;
        if !self.is_in_pool(what, newest.hash).await? {
            match self.broadcast(&newest.raw).await {
                Heard::Taken => {
                    tracing::debug!(step = what, transaction = %newest.hash, nonce, "transaction sent again")
                }
                Heard::Underpriced => underpriced = true,
                Heard::Occupied => {
                    let mut ours = false;
                    for older in &attempt.signed {
                        ours |= self.is_in_pool(what, older.hash).await?;
                    }
                    if !ours {
                        // Not ours to outbid.
                        return Ok(Progress::Waits("another transaction of this account has its nonce"));
                    }
                    underpriced = true;
                }
                Heard::Unfunded(problem) => {
                    return Err(ChainFault::Unfunded { what, account: self.account, problem });
                }
                Heard::Rejected(error) | Heard::Unclear(error) => return Err(unread(what, error)),
            }
        }
        if latest < nonce {
            return self.clear_way(latest, nonce, what).await;
        }
        let mut since = Instant::now();
        self.note(nonce, |attempt| since = *attempt.next_since.get_or_insert(since));
        if underpriced || since.elapsed() >= self.settings.bump_after {
            self.bump(nonce, what, newest.hash).await?;
        }
        Ok(Progress::Waits("it is not mined"))
    }

    /// What became of a nonce that the chain has used.
    async fn look(&self, nonce: u64, what: &'static str, attempt: &Attempt) -> Result<Progress, ChainFault> {
        let receipts = Receipts { provider: self.provider.clone(), confirmations: self.settings.confirmations };
        for signed in attempt.signed.iter().rev() {
            match receipts.find(signed.hash).await.map_err(|error| unread(what, error))? {
                Found::No => {}
                Found::Shallow => return Ok(Progress::Waits("it has not enough confirmations")),
                Found::Deep(receipt, block_time_s) => {
                    let (hash, block) = (signed.hash, receipt.block_number.unwrap_or_default());
                    let done = read(what, &receipt, block_time_s);
                    let ending = match &done {
                        Ok(_) => Ending::Mined { hash, block },
                        Err(_) => Ending::Failed { hash, block },
                    };
                    if attempt.ended != Some(ending) {
                        self.record(Entry::Ended { effect: attempt.effect, nonce, ending }).await?;
                    }
                    return Ok(Progress::Done(done));
                }
            }
        }
        let by = match self.who_used(nonce, attempt.seen_block).await {
            Ok(Some((by, _))) if attempt.signed.iter().any(|signed| signed.hash == by) => {
                return Ok(Progress::Waits("the node does not give its receipt"));
            }
            Ok(Some((by, block))) => {
                if !receipts.is_deep(block).await.map_err(|error| unread(what, error))? {
                    return Ok(Progress::Waits("another transaction that has its nonce lacks confirmations"));
                }
                Some(by)
            }
            Ok(None) => return Ok(Progress::Waits("its nonce is used, the node does not say by what")),
            Err(error @ RpcError::ErrorResp(_)) => {
                // A node without old states cannot say; what stays away this long was not taken.
                let mut since = Instant::now();
                self.note(nonce, |attempt| since = *attempt.unfound_since.get_or_insert(since));
                if since.elapsed() < self.settings.give_up_after {
                    return Err(unread(what, error));
                }
                None
            }
            Err(error) => return Err(unread(what, error)),
        };
        tracing::warn!(step = what, nonce, by = ?by, account = %self.account,
            "another transaction took the nonce; does somebody else send with this key?");
        self.record(Entry::Ended { effect: attempt.effect, nonce, ending: Ending::Replaced { by } }).await?;
        Ok(Progress::Replaced(by))
    }

    /// The transaction of this account with a nonce, and its block: the first block after which the account had used it.
    async fn who_used(&self, nonce: u64, from_block: u64) -> Result<Option<(B256, u64)>, TransportError> {
        let used = async |block: u64| {
            let count = self.provider.get_transaction_count(self.account).number(block).await?;
            Ok::<_, TransportError>(count > nonce)
        };
        let (mut before, mut after) = (from_block, self.provider.get_block_number().await?);
        if !used(after).await? {
            return Ok(None);
        }
        while after.saturating_sub(before) > 1 {
            let middle = before + (after - before) / 2;
            if used(middle).await? { after = middle } else { before = middle }
        }
        // As JSON: other chains have transactions of other forms.
        let request = (format!("{after:#x}"), true);
        let block: Option<serde_json::Value> = self.provider.client().request("eth_getBlockByNumber", request).await?;
        let transactions = block.as_ref().and_then(|block| block["transactions"].as_array());
        let field = |transaction: &serde_json::Value, name: &str| transaction[name].as_str().map(str::to_lowercase);
        let this = transactions.into_iter().flatten().find(|transaction| {
            let by = field(transaction, "from").and_then(|from| from.parse::<Address>().ok());
            let number =
                field(transaction, "nonce").and_then(|it| u64::from_str_radix(it.strip_prefix("0x")?, 16).ok());
            (by, number) == (Some(self.account), Some(nonce))
        });
        let hash = this.and_then(|transaction| field(transaction, "hash")?.parse::<B256>().ok());
        Ok(hash.map(|hash| (hash, after)))
    }

    async fn is_in_pool(&self, what: &'static str, hash: TxHash) -> Result<bool, ChainFault> {
        let client = self.provider.client();
        let found = client.request::<_, Option<serde_json::Value>>("eth_getTransactionByHash", (hash,)).await;
        found.map(|found| found.is_some()).map_err(|error| unread(what, error))
    }

    /// Helps along what must be mined before this nonce.
    async fn clear_way(&self, latest: u64, nonce: u64, what: &'static str) -> Result<Progress, ChainFault> {
        const EARLIER: &str = "an earlier transaction of this account is not mined yet";
        let first = self.lane().first_open(latest);
        if first == Some(latest) {
            match Box::pin(self.drive(latest, what)).await {
                Ok(_) | Err(ChainFault::Unreachable { .. }) => {}
                Err(fault) => return Err(fault),
            }
        } else if self.pending(what).await? <= latest {
            // Whose transaction had this nonce when ours was signed, no node has it any more: nothing after it is mined.
            let mut since = Instant::now();
            self.note(nonce, |attempt| since = *attempt.gap_since.get_or_insert(since));
            if since.elapsed() >= self.settings.bump_after {
                self.fill(latest, what).await?;
            }
            return Ok(Progress::Waits(EARLIER));
        }
        self.note(nonce, |attempt| attempt.gap_since = None);
        Ok(Progress::Waits(EARLIER))
    }

    /// Uses a nonce for nothing, so that those after it can be used.
    async fn fill(&self, nonce: u64, what: &'static str) -> Result<(), ChainFault> {
        let _turn = self.turn.lock().await;
        if self.lane().attempt(nonce).is_some() {
            return Ok(());
        }
        let quote = Quote::ask(&self.provider).await.map_err(|error| unread(what, error))?;
        let fees = quote.offer(self.settings.fee_per_gas_wei_max).map_err(|over| self.over_cap(what, over))?;
        let request =
            TransactionRequest::default().with_from(self.account).with_to(self.account).with_value(U256::ZERO);
        let gas = self.provider.estimate_gas(request.clone()).await.map_err(|error| unread(what, error))?;
        let seen_block = self.provider.get_block_number().await.map_err(|error| unread(what, error))?;
        let request = request.with_nonce(nonce).with_gas_limit(gas.saturating_add(gas / 4));
        let (hash, raw) = self.sign(what, fees.on(request)).await?;
        tracing::warn!(nonce, account = %self.account, transaction = %hash,
            "a nonce that nobody uses is filled with a transaction that does nothing");
        let effect = keccak256((keccak256("tribunal.v1 gap"), U256::from(nonce), hash).abi_encode());
        self.record(Entry::Signed { effect, what: "gap".into(), nonce, seen_block, hash, raw: raw.clone() }).await?;
        let _ = self.broadcast(&raw).await;
        Ok(())
    }

    /// Offers more under the same nonce, unless somebody did since `newest` was looked at.
    async fn bump(&self, nonce: u64, what: &'static str, newest: B256) -> Result<(), ChainFault> {
        let _turn = self.turn.lock().await;
        let attempt = self.lane().attempt(nonce).cloned().filter(|attempt| attempt.newest().hash == newest);
        let Some(attempt) = attempt else { return Ok(()) };
        let transaction = decoded(what, &attempt)?;
        let quote = Quote::ask(&self.provider).await.map_err(|error| unread(what, error))?;
        let fees = quote.raise(Fees::of(&transaction), self.settings.fee_per_gas_wei_max);
        let fees = fees.map_err(|over| self.over_cap(what, over))?;
        let request = TransactionRequest::default()
            .with_from(self.account)
            .with_kind(transaction.kind())
            .with_input(transaction.input().clone())
            .with_value(transaction.value())
            .with_nonce(nonce)
            .with_gas_limit(transaction.gas_limit());
        let (hash, raw) = self.sign(what, fees.on(request)).await?;
        let Attempt { effect, what: name, seen_block, .. } = attempt;
        self.record(Entry::Signed { effect, what: name, nonce, seen_block, hash, raw: raw.clone() }).await?;
        tracing::info!(step = what, nonce, transaction = %hash, "transaction sent with a higher fee");
        match self.broadcast(&raw).await {
            Heard::Underpriced | Heard::Occupied => self.note(nonce, |attempt| attempt.underpriced = true),
            Heard::Unfunded(problem) => return Err(ChainFault::Unfunded { what, account: self.account, problem }),
            Heard::Taken | Heard::Rejected(_) | Heard::Unclear(_) => {}
        }
        Ok(())
    }

    /// Forgets final effects once there are twice as many as are kept; rewriting a file is worth it then.
    async fn forget_if_many(&self) -> Result<(), ChainFault> {
        let kept = self.settings.ended_kept;
        let ended = self.lane().ended();
        if ended < self.forget_at.load(Ordering::Relaxed).max(1) {
            return Ok(());
        }
        let head = self.provider.get_block_number().await.map_err(|error| unread("forget", error))?;
        let named = match self.provider.get_block_by_number(BlockNumberOrTag::Finalized).await {
            Ok(block) => block.map(|block| block.header.number),
            Err(RpcError::ErrorResp(_)) => None,
            Err(error) => return Err(unread("forget", error)),
        };
        let final_block = named.unwrap_or(head.saturating_sub(FINAL_BLOCKS));
        let lane = Arc::clone(&self.lane);
        let forgotten = tokio::task::spawn_blocking(move || {
            lane.lock().unwrap_or_else(PoisonError::into_inner).forget(final_block, kept)
        });
        forgotten.await.expect("writing lines does not panic")?;
        // Those that are not final yet are not looked at for every transaction.
        self.forget_at.store(self.lane().ended().saturating_add(kept), Ordering::Relaxed);
        Ok(())
    }
}

fn decoded(what: &'static str, attempt: &Attempt) -> Result<TxEnvelope, ChainFault> {
    TxEnvelope::decode_2718(&mut &attempt.newest().raw[..]).map_err(|error| ChainFault::Unexpected {
        what,
        problem: format!("the journal's transaction {} cannot be read: {error}", attempt.newest().hash),
    })
}

fn is_unfunded(words: &str) -> bool {
    let words = words.to_lowercase();
    ["insufficient funds", "upfront cost exceeds", "insufficientfunds"].iter().any(|phrase| words.contains(phrase))
}

/// What a node does not say is no word of the contract's.
fn unread(what: &'static str, error: TransportError) -> ChainFault {
    ChainFault::Unreachable { what: what.into(), source: source(error) }
}
