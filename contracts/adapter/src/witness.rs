//! What a chain says about cases, read without an account: for following it, and for holding it against a record.
//!
//! A [`Witness`] judges nothing. What it reads belongs to one block where that matters: logs are asked for by a block's hash,
//! contracts at a block's number. A node that contradicts itself is a fault, no answer.

use alloy::{
    eips::BlockNumberOrTag,
    providers::{DynProvider, Provider},
    rpc::types::{BlockId, Header, TransactionReceipt, TransactionRequest},
};
use alloy_primitives::{Bytes, Log};
use alloy_sol_types::{SolCall, SolEvent};
use tribunal_events::{Address, Amount, B256, DealId, Outcome};

use crate::{
    BlockRef, CaseState, CaseView, Chain as _, ChainFault, Endpoints, JsonRpcChain, ObservedLog, RpcNode,
    SettlementView,
    bindings::{escrow::TribunalEscrow, registry::MediatorRegistry, token::TestToken},
    json_rpc::fault,
};

/// An event of the escrow about one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaseEvent {
    /// Both consented, the money is locked.
    Opened {
        /// As in the terms.
        client: Address,
        /// As in the terms.
        provider: Address,
        /// As in the terms.
        deal_id: DealId,
    },
    /// The provider's result.
    Submitted {
        /// As claimed.
        instruction_count: u64,
        /// BLAKE3 of the encoded claim.
        claim_digest: B256,
    },
    /// The client's doubt.
    Disputed,
    /// A party's seed.
    SeedRevealed {
        /// 1 the client, 2 the provider.
        party: u8,
        /// What was committed to.
        seed: B256,
    },
    /// The end: what was credited to whom.
    Settled(SettlementView),
    /// A mediator's silence in a round was dealt with.
    SilenceSlashed {
        /// Who.
        mediator: Address,
        /// The round.
        round: u32,
        /// Base units of the bond token.
        slashed: Amount,
    },
}

impl CaseEvent {
    /// First topics of these events.
    pub const TOPICS: [B256; 6] = [
        TribunalEscrow::CaseOpened::SIGNATURE_HASH,
        TribunalEscrow::ResultSubmitted::SIGNATURE_HASH,
        TribunalEscrow::CaseDisputed::SIGNATURE_HASH,
        TribunalEscrow::SeedRevealed::SIGNATURE_HASH,
        TribunalEscrow::CaseSettled::SIGNATURE_HASH,
        TribunalEscrow::SilenceSlashed::SIGNATURE_HASH,
    ];

    /// The case's terms hash and what happened; nothing for other events. Whose contract it is the caller must know.
    pub fn read(topics: &[B256], data: &Bytes) -> Option<(B256, Self)> {
        use TribunalEscrow::TribunalEscrowEvents as Event;
        let event = <Event as alloy_sol_types::SolEventInterface>::decode_raw_log(topics, data).ok()?;
        Some(match event {
            Event::CaseOpened(it) => {
                let deal_id = DealId::new(it.dealId.0);
                (it.termsHash, Self::Opened { client: it.client, provider: it.provider, deal_id })
            }
            Event::ResultSubmitted(it) => {
                let (instruction_count, claim_digest) = (it.instructionCount, it.claimDigest);
                (it.termsHash, Self::Submitted { instruction_count, claim_digest })
            }
            Event::CaseDisputed(it) => (it.termsHash, Self::Disputed),
            Event::SeedRevealed(it) => (it.termsHash, Self::SeedRevealed { party: it.party, seed: it.seed }),
            Event::CaseSettled(it) => {
                let view = SettlementView {
                    outcome: outcome(it.outcome).unwrap_or(Outcome::Unspecified),
                    client: Amount::new(it.clientPaid),
                    provider: Amount::new(it.providerPaid),
                    mediators: Amount::new(it.mediatorsPaid),
                    treasury: Amount::new(it.treasuryPaid),
                };
                (it.termsHash, Self::Settled(view))
            }
            Event::SilenceSlashed(it) => {
                let (mediator, round, slashed) = (it.mediator, it.round, Amount::new(it.slashed));
                (it.termsHash, Self::SilenceSlashed { mediator, round, slashed })
            }
            _ => return None,
        })
    }

    /// The same of what an observer tells.
    pub fn of(log: &ObservedLog) -> Option<(B256, Self)> {
        Self::read(&log.topics, &log.data)
    }
}

/// First topic of the registry's event that says that somebody showed an equivocation; the second is the terms hash.
pub const EQUIVOCATION_TOPIC: B256 = MediatorRegistry::EquivocationProven::SIGNATURE_HASH;

/// A transaction in a block of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessedTransaction {
    /// Its block.
    pub block: BlockRef,
    /// Whether it did what it should.
    pub succeeded: bool,
    /// To whom it was sent; nothing where it created a contract.
    pub to: Option<Address>,
    /// What contracts said, in order.
    pub logs: Vec<Log>,
}

impl WitnessedTransaction {
    /// What a receipt in JSON says, as `eth_getTransactionReceipt` gives it, and whose it is. Nothing vouches for it.
    ///
    /// # Errors
    /// A sentence, where it is no receipt of a transaction in a block.
    pub fn from_receipt(json: &[u8]) -> Result<(B256, Self), String> {
        let receipt: TransactionReceipt = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let this = Self::of(&receipt).ok_or("the transaction is in no block")?;
        Ok((receipt.transaction_hash, this))
    }

    fn of(receipt: &TransactionReceipt) -> Option<Self> {
        Some(Self {
            block: BlockRef { number: receipt.block_number?, hash: receipt.block_hash? },
            succeeded: receipt.status(),
            to: receipt.to,
            logs: receipt.logs().iter().map(|log| log.inner.clone()).collect(),
        })
    }
}

/// See the module.
#[derive(Clone)]
pub struct Witness {
    node: DynProvider,
    chain_id: u64,
    hosts: String,
}

impl JsonRpcChain {
    /// The same nodes, to be read alone.
    pub fn witness(&self) -> Witness {
        Witness { node: self.provider().clone(), chain_id: self.chain_id(), hosts: self.describe() }
    }
}

impl Witness {
    /// HTTP URLs in order of preference, and the EIP-155 id of their chain; without one, the first that answers decides.
    ///
    /// # Errors
    /// As [`Endpoints::connect`].
    pub async fn connect(urls: &[String], chain_id: Option<u64>) -> Result<Self, ChainFault> {
        let endpoints = Endpoints::new(urls, chain_id)?;
        let (node, chain_id) = endpoints.connect().await?;
        Ok(Self { node, chain_id, hosts: format!("JSON-RPC at {}", endpoints.describe()) })
    }

    /// EIP-155 id.
    pub const fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// For people.
    pub fn describe(&self) -> &str {
        &self.hosts
    }

    /// The nodes.
    pub const fn node(&self) -> &RpcNode {
        &self.node
    }

    /// The newest block.
    ///
    /// # Errors
    /// Where the node cannot be asked or makes no sense, as for everything below.
    pub async fn head(&self) -> Result<BlockRef, ChainFault> {
        let block = self.node.get_block_by_number(BlockNumberOrTag::Latest).await;
        let block = block.map_err(|error| fault("head", error))?;
        let header = block.ok_or_else(|| unexpected("head", "the node has no newest block"))?.header;
        Ok(BlockRef { number: header.number, hash: header.hash })
    }

    /// The chain's block of a number; nothing where it has none yet.
    ///
    /// # Errors
    /// As [`Witness::head`].
    pub async fn block(&self, number: u64) -> Result<Option<BlockRef>, ChainFault> {
        Ok(self.header(number).await?.map(|header| BlockRef { number, hash: header.hash }))
    }

    /// Whether the chain's block of this number holds this transaction; nothing where the chain has no such block yet.
    ///
    /// # Errors
    /// As [`Witness::head`].
    pub async fn holds(&self, transaction: B256, block: u64) -> Result<Option<bool>, ChainFault> {
        Ok(self.held(transaction, block).await?.map(|(_, holds)| holds))
    }

    /// The block's hash, and whether it holds the transaction. The block says that itself, however late a node has its
    /// logs and receipts.
    async fn held(&self, transaction: B256, block: u64) -> Result<Option<(B256, bool)>, ChainFault> {
        let found = self.node.get_block_by_number(BlockNumberOrTag::Number(block)).await;
        let Some(found) = found.map_err(|error| fault("block", error))? else { return Ok(None) };
        if found.header.number != block {
            let problem = format!("the node answers with block {} for {block}", found.header.number);
            return Err(unexpected("block", problem));
        }
        Ok(Some((found.header.hash, found.transactions.hashes().any(|hash| hash == transaction))))
    }

    /// Whether the chain's block of this number holds this transaction, and it did what it should there; nothing where the
    /// chain has no such block yet.
    ///
    /// # Errors
    /// As [`Witness::head`].
    pub async fn stands(&self, transaction: B256, block: u64) -> Result<Option<bool>, ChainFault> {
        let Some((hash, holds)) = self.held(transaction, block).await? else { return Ok(None) };
        if !holds {
            return Ok(Some(false));
        }
        match self.node.get_transaction_receipt(transaction).await.map_err(|error| fault("receipt", error))? {
            Some(receipt) if receipt.transaction_hash == transaction && receipt.block_hash == Some(hash) => {
                Ok(Some(receipt.status()))
            }
            _ => Err(changed("receipt", block)),
        }
    }

    /// A transaction that is in a block of the chain; nothing where none is known.
    ///
    /// # Errors
    /// As [`Witness::head`].
    pub async fn transaction(&self, hash: B256) -> Result<Option<WitnessedTransaction>, ChainFault> {
        Ok(self.mined(hash).await?.and_then(|receipt| WitnessedTransaction::of(&receipt)))
    }

    /// The receipt of a transaction in a block that stands, as JSON: evidence to keep. Read by
    /// [`WitnessedTransaction::from_receipt`].
    ///
    /// # Errors
    /// As [`Witness::head`].
    pub async fn receipt(&self, hash: B256) -> Result<Option<Vec<u8>>, ChainFault> {
        let Some(receipt) = self.mined(hash).await? else { return Ok(None) };
        let json = serde_json::to_value(&receipt).and_then(|json| serde_json::to_vec(&json));
        json.map(Some).map_err(|error| unexpected("receipt", error.to_string()))
    }

    async fn mined(&self, hash: B256) -> Result<Option<TransactionReceipt>, ChainFault> {
        let receipt = self.node.get_transaction_receipt(hash).await.map_err(|error| fault("receipt", error))?;
        let Some(receipt) = receipt else { return Ok(None) };
        let (Some(number), Some(block_hash)) = (receipt.block_number, receipt.block_hash) else { return Ok(None) };
        if receipt.transaction_hash != hash {
            return Err(unexpected("receipt", "the node answers with another transaction's"));
        }
        if self.header(number).await?.map(|header| header.hash) != Some(block_hash) {
            return Err(changed("receipt", number));
        }
        Ok(Some(receipt))
    }

    /// Whether there is a contract at an address.
    ///
    /// # Errors
    /// As [`Witness::head`].
    pub async fn is_contract(&self, address: Address) -> Result<bool, ChainFault> {
        let code = self.node.get_code_at(address).await.map_err(|error| fault("code", error))?;
        Ok(!code.is_empty())
    }

    /// A case of an escrow as it stands after a block.
    ///
    /// # Errors
    /// As [`Witness::head`].
    pub async fn case(&self, escrow: Address, terms_hash: B256, block: u64) -> Result<CaseView, ChainFault> {
        let it = self.call("case", escrow, TribunalEscrow::caseOfCall { termsHash: terms_hash }, block).await?;
        let state = match it.state {
            0 => CaseState::None,
            1 => CaseState::Open,
            2 => CaseState::Submitted,
            3 => CaseState::Disputed,
            4 => CaseState::Settled,
            _ => return Err(unexpected("case", "the contract gives a state that there is not")),
        };
        Ok(CaseView {
            state,
            outcome: outcome(it.outcome),
            opened_at_s: it.openedAt.to(),
            submitted_at_s: it.submittedAt.to(),
            disputed_at_s: it.disputedAt.to(),
            instruction_count: it.instructionCount,
            claim_digest: it.claimDigest,
            client_revealed: it.clientRevealed,
            provider_revealed: it.providerRevealed,
        })
    }

    /// What an account has in an escrow and is not locked in a case, after a block.
    ///
    /// # Errors
    /// As [`Witness::head`].
    pub async fn balance(
        &self,
        escrow: Address,
        token: Address,
        account: Address,
        block: u64,
    ) -> Result<Amount, ChainFault> {
        let call = TribunalEscrow::balanceOfCall { token, account };
        self.call("balance", escrow, call, block).await.map(Amount::new)
    }

    /// What an account holds of a token, native currency for the zero address, after a block.
    ///
    /// # Errors
    /// As [`Witness::head`].
    pub async fn holdings(&self, account: Address, token: Address, block: u64) -> Result<Amount, ChainFault> {
        if token.is_zero() {
            let balance = self.node.get_balance(account).number(block).await;
            return balance.map(Amount::new).map_err(|error| fault("holdings", error));
        }
        self.call("holdings", token, TestToken::balanceOfCall { account }, block).await.map(Amount::new)
    }

    async fn call<C: SolCall>(
        &self,
        what: &'static str,
        to: Address,
        call: C,
        block: u64,
    ) -> Result<C::Return, ChainFault> {
        let request = TransactionRequest { to: Some(to.into()), ..Default::default() };
        let request = request.input(Bytes::from(call.abi_encode()).into());
        let answer = self.node.call(request).block(BlockId::number(block)).await.map_err(|error| fault(what, error))?;
        C::abi_decode_returns(&answer)
            .map_err(|error| unexpected(what, format!("{to} is no contract of ours: {error}")))
    }

    async fn header(&self, number: u64) -> Result<Option<Header>, ChainFault> {
        let block = self.node.get_block_by_number(BlockNumberOrTag::Number(number)).await;
        let header = block.map_err(|error| fault("block", error))?.map(|block| block.header);
        match header {
            Some(header) if header.number != number => {
                Err(unexpected("block", format!("the node answers with block {} for {number}", header.number)))
            }
            header => Ok(header),
        }
    }
}

fn outcome(number: u8) -> Option<Outcome> {
    Outcome::try_from(i32::from(number)).ok().filter(|outcome| *outcome != Outcome::Unspecified)
}

fn unexpected(what: &'static str, problem: impl Into<String>) -> ChainFault {
    ChainFault::Unexpected { what, problem: problem.into() }
}

/// The chain changed while it was read, or one of several nodes behind an address lacks a block that another has.
fn changed(what: &str, number: u64) -> ChainFault {
    ChainFault::Unreachable { what: what.into(), source: format!("block {number} changed while it was read").into() }
}
