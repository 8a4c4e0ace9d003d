use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Mutex, MutexGuard},
};

use alloy_primitives::{Bytes, TxKind, U256, address, keccak256};
use alloy_sol_types::{SolCall, SolValue};
use revm::{
    Context, DatabaseCommit, ExecuteEvm, MainBuilder,
    context::{BlockEnv, CfgEnv, Journal, TxEnv},
    context_interface::result::{ExecutionResult, ResultAndState},
    database::{CacheDB, EmptyDB},
    primitives::hardfork::SpecId,
};
use serde::{Deserialize, Serialize};
use tribunal_events::{Address, Amount, B256};

use crate::{
    Addresses, BondView, BoxFuture, CaseView, Chain, ChainFault, Finding, Mined, Step,
    bindings::{escrow::TribunalEscrow, registry::MediatorRegistry, token::TestToken},
    line_file::{LineFile, LineFileFault},
    perform::{self, Node, SentReceipt, refusal},
};

/// EIP-155 id of the in-process EVM, that of development chains.
pub const IN_PROCESS_CHAIN_ID: u64 = 31337;
/// Deploys the contracts and sends every step: the first account of development chains, so that a fresh anvil puts the
/// contracts at the same addresses.
pub const IN_PROCESS_DEPLOYER: Address = address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
/// `TestToken` of the in-process EVM.
pub const IN_PROCESS_TOKEN: Address = address!("5FbDB2315678afecb367f032d93F642f64180aa3");
/// `MediatorRegistry` of the in-process EVM.
pub const IN_PROCESS_REGISTRY: Address = address!("e7f1725E7734CE288F8367e1Bb143E90bb3F0512");
/// `TribunalEscrow` of the in-process EVM.
pub const IN_PROCESS_ESCROW: Address = address!("9fE46736679d2D9a65F0992F2272dE9f3c7fa6e0");
/// Gets what slashes take from bonds in the in-process EVM; a deal's own treasury is in its terms.
pub const IN_PROCESS_TREASURY: Address = address!("a0Ee7A142d267C1f36714E4a8F75612F20a79720");
/// Seconds between starting to unbond and being paid: a week.
pub const IN_PROCESS_UNBOND_DELAY_S: u64 = 7 * 86_400;

/// The hard fork whose rules it follows.
const SPEC: SpecId = SpecId::PRAGUE;
/// Gas that a transaction may use; the largest needs a tenth.
const GAS_LIMIT: u64 = 16_000_000;

/// An EVM in this process with the contracts deployed: no node, no keys, no gas price, one block a transaction, time as
/// told by [`Chain::advance_time`]. With a file it survives the process: every transaction is written there and synced
/// before anybody hears of it, and all are run again, and compared, when the file is opened.
pub struct InProcessChain {
    evm: Mutex<Evm>,
}

/// A line of the file: a transaction that succeeded.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    caller: Address,
    /// None creates a contract.
    to: Option<Address>,
    data: Bytes,
    time_s: u64,
    transaction: B256,
    /// keccak256 of what it changed for others to see: gas and logs.
    outcome: B256,
}

struct Evm {
    db: CacheDB<EmptyDB>,
    /// None keeps nothing.
    file: Option<LineFile<Taken>>,
    block: u64,
    time_s: u64,
    mined: Vec<SentReceipt>,
    hashes: BTreeSet<B256>,
    /// Transactions by the first indexed topic of their events, in order.
    by_topic: BTreeMap<B256, Vec<usize>>,
}

impl InProcessChain {
    /// A new chain at time 0.
    pub fn new() -> Self {
        let mut evm = Evm {
            db: CacheDB::default(),
            file: None,
            block: 0,
            time_s: 0,
            mined: Vec::new(),
            hashes: BTreeSet::new(),
            by_topic: BTreeMap::new(),
        };
        let addresses = Addresses::predict(IN_PROCESS_DEPLOYER, 0);
        for creation in addresses.creations(IN_PROCESS_TREASURY, IN_PROCESS_UNBOND_DELAY_S) {
            evm.transact("deploy", IN_PROCESS_DEPLOYER, TxKind::Create, creation)
                .expect("the committed contracts can be deployed");
        }
        Self { evm: Mutex::new(evm) }
    }

    /// The chain of the file at `path`, new at time 0 where there is none. One process at a time holds it. A line that a
    /// crash cut off was never reported as taken, and is dropped.
    ///
    /// # Errors
    /// [`ChainFault::Journal`] where the file is in use, damaged, or of other contracts, or a transaction in it does
    /// something else than it did.
    pub fn open(path: &Path) -> Result<Self, ChainFault> {
        let chain = Self::new();
        let creations = chain.addresses().creations(IN_PROCESS_TREASURY, IN_PROCESS_UNBOND_DELAY_S);
        let contracts = keccak256(creations.concat());
        let (file, taken) =
            LineFile::<Taken>::open(path, format!(r#"{{"tribunal_evm":1,"contracts":"{contracts}"}}"#))?;
        {
            let mut evm = chain.evm();
            for (index, taken) in taken.into_iter().enumerate() {
                let damaged =
                    |problem| LineFileFault::Damaged { path: path.display().to_string(), line: index + 2, problem };
                evm.time_s = evm.time_s.max(taken.time_s);
                let kind = taken.to.map_or(TxKind::Create, TxKind::Call);
                let again = evm.transact("replay", taken.caller, kind, taken.data).map_err(|fault| {
                    damaged(format!("transaction {} cannot be taken again: {fault}", taken.transaction))
                })?;
                let found = (again.mined.transaction, outcome(&again));
                if found != (taken.transaction, taken.outcome) {
                    let problem = format!(
                        "transaction {} with outcome {} was expected, not {} with {}",
                        taken.transaction, taken.outcome, found.0, found.1
                    );
                    return Err(damaged(problem).into());
                }
            }
            evm.file = Some(file);
        }
        Ok(chain)
    }

    /// Whether a transaction was taken.
    pub fn has(&self, transaction: &B256) -> bool {
        self.evm().hashes.contains(transaction)
    }

    /// Where the contracts are: the constants of this module.
    pub const fn addresses(&self) -> Addresses {
        Addresses { token: IN_PROCESS_TOKEN, registry: IN_PROCESS_REGISTRY, escrow: IN_PROCESS_ESCROW }
    }

    /// Unix time of the next block.
    pub fn time_s(&self) -> u64 {
        self.evm().time_s
    }

    /// Makes new test tokens and puts them into the escrow as `account`.
    ///
    /// # Errors
    /// Where a contract refuses, as it does for nothing.
    pub fn mint_and_deposit(&self, account: Address, amount: Amount) -> Result<(), ChainFault> {
        let amount = amount.base_units();
        self.send_as(account, IN_PROCESS_TOKEN, &TestToken::mintCall { account, amount })?;
        self.send_as(account, IN_PROCESS_TOKEN, &TestToken::approveCall { spender: IN_PROCESS_ESCROW, value: amount })?;
        let deposit = TribunalEscrow::depositCall { token: IN_PROCESS_TOKEN, amount };
        self.send_as(account, IN_PROCESS_ESCROW, &deposit)?;
        Ok(())
    }

    /// Pays out of the escrow as `account`.
    ///
    /// # Errors
    /// Where there is less.
    pub fn withdraw(&self, account: Address, token: Address, amount: Amount) -> Result<Mined, ChainFault> {
        let call = TribunalEscrow::withdrawCall { token, amount: amount.base_units() };
        self.send_as(account, IN_PROCESS_ESCROW, &call).map(|receipt| receipt.mined)
    }

    /// Makes new test tokens and bonds them as `account`, which takes `operator`'s word on its silence and stakes the
    /// whole bond on answering when appointed.
    ///
    /// # Errors
    /// Where a contract refuses, as it does for nothing or an equivocator.
    pub fn bond_mediator(&self, account: Address, amount: Amount, operator: Address) -> Result<(), ChainFault> {
        let amount = amount.base_units();
        let approve = TestToken::approveCall { spender: IN_PROCESS_REGISTRY, value: amount };
        self.send_as(account, IN_PROCESS_TOKEN, &TestToken::mintCall { account, amount })?;
        self.send_as(account, IN_PROCESS_TOKEN, &approve)?;
        self.send_as(account, IN_PROCESS_REGISTRY, &MediatorRegistry::bondCall { amount })?;
        let allow = MediatorRegistry::setOperatorCall { operator, allowed: true };
        self.send_as(account, IN_PROCESS_REGISTRY, &allow)?;
        let stake = MediatorRegistry::setAppointmentSlashMaxCall { amount };
        self.send_as(account, IN_PROCESS_REGISTRY, &stake)?;
        Ok(())
    }

    /// Calls a contract without a transaction, for what the trait does not ask.
    ///
    /// # Errors
    /// Where the contract reverts.
    pub fn read(&self, to: Address, data: Vec<u8>) -> Result<Bytes, ChainFault> {
        self.evm().read("read", to, data.into())
    }

    fn send_as<C: SolCall>(&self, caller: Address, to: Address, call: &C) -> Result<SentReceipt, ChainFault> {
        self.evm().transact(C::SIGNATURE, caller, TxKind::Call(to), call.abi_encode().into())
    }

    fn evm(&self) -> MutexGuard<'_, Evm> {
        self.evm.lock().expect("no transaction panics")
    }
}

/// Of gas and logs: other contracts, or another EVM, would leave others.
fn outcome(receipt: &SentReceipt) -> B256 {
    let mut bytes = receipt.mined.gas_used.to_be_bytes().to_vec();
    for log in &receipt.logs {
        let topics = log.topics().to_vec();
        bytes.extend((log.address, topics, log.data.data.clone()).abi_encode());
    }
    keccak256(bytes)
}

impl Default for InProcessChain {
    fn default() -> Self {
        Self::new()
    }
}

impl Evm {
    /// A transaction in a block of its own.
    fn transact(
        &mut self,
        what: &'static str,
        caller: Address,
        kind: TxKind,
        data: Bytes,
    ) -> Result<SentReceipt, ChainFault> {
        let number = self.block + 1;
        let transaction = keccak256((self.block, data.clone(), caller).abi_encode());
        let ResultAndState { result, state } = self.run(what, number, caller, kind, data.clone())?;
        let gas_used = result.tx_gas_used();
        let logs = success(what, &result)?.1;
        let mined = Mined { transaction, block: number, block_time_s: self.time_s, gas_used, settlement: None };
        let receipt = SentReceipt { mined, logs };
        if let Some(file) = &mut self.file {
            let (to, time_s) = (kind.to().copied(), self.time_s);
            let outcome = outcome(&receipt);
            // What cannot be written down does not happen.
            file.append(&[Taken { caller, to, data, time_s, transaction, outcome }])?;
        }
        self.db.commit(state);
        self.block = number;
        self.hashes.insert(transaction);
        for log in &receipt.logs {
            let Some(topic) = log.topics().get(1) else { continue };
            let list = self.by_topic.entry(*topic).or_default();
            if list.last() != Some(&self.mined.len()) {
                list.push(self.mined.len());
            }
        }
        self.mined.push(receipt.clone());
        Ok(receipt)
    }

    fn read(&mut self, what: &'static str, to: Address, data: Bytes) -> Result<Bytes, ChainFault> {
        let number = self.block + 1;
        let ran = self.run(what, number, IN_PROCESS_DEPLOYER, TxKind::Call(to), data)?;
        Ok(success(what, &ran.result)?.0)
    }

    fn run(
        &mut self,
        what: &'static str,
        number: u64,
        caller: Address,
        kind: TxKind,
        data: Bytes,
    ) -> Result<ResultAndState, ChainFault> {
        let mut cfg = CfgEnv::new_with_spec(SPEC).with_chain_id(IN_PROCESS_CHAIN_ID);
        cfg.disable_nonce_check = true;
        let block = BlockEnv { number: U256::from(number), timestamp: U256::from(self.time_s), ..Default::default() };
        let mut tx = TxEnv { caller, gas_limit: GAS_LIMIT, gas_price: 0, kind, data, ..Default::default() };
        tx.chain_id = Some(IN_PROCESS_CHAIN_ID);
        let context: Context<BlockEnv, TxEnv, CfgEnv, &mut CacheDB<EmptyDB>, Journal<&mut CacheDB<EmptyDB>>, ()> =
            Context::new(&mut self.db, SPEC);
        let mut evm = context.with_cfg(cfg).with_block(block).build_mainnet();
        evm.transact(tx).map_err(|error| ChainFault::Unexpected { what, problem: error.to_string() })
    }
}

/// Output and logs of a transaction that succeeded.
fn success(what: &'static str, result: &ExecutionResult) -> Result<(Bytes, Vec<alloy_primitives::Log>), ChainFault> {
    match result {
        ExecutionResult::Success { logs, output, .. } => Ok((output.data().clone(), logs.clone())),
        ExecutionResult::Revert { output, .. } => Err(refusal(what, output)),
        ExecutionResult::Halt { reason, .. } => {
            Err(ChainFault::Reverted { step: what, reason: format!("{reason:?}"), too_early: false })
        }
    }
}

impl Node for InProcessChain {
    fn addresses(&self) -> Addresses {
        self.addresses()
    }

    fn chain_id(&self) -> u64 {
        IN_PROCESS_CHAIN_ID
    }

    fn call<'a>(&'a self, what: &'static str, to: Address, data: Bytes) -> BoxFuture<'a, Result<Bytes, ChainFault>> {
        Box::pin(async move { self.evm().read(what, to, data) })
    }

    fn send<'a>(
        &'a self,
        what: &'static str,
        to: Address,
        data: Bytes,
    ) -> BoxFuture<'a, Result<SentReceipt, ChainFault>> {
        Box::pin(async move { self.evm().transact(what, IN_PROCESS_DEPLOYER, TxKind::Call(to), data) })
    }

    fn find<'a>(
        &'a self,
        contract: Address,
        signature: B256,
        topic: B256,
    ) -> BoxFuture<'a, Result<Vec<SentReceipt>, ChainFault>> {
        Box::pin(async move {
            let evm = self.evm();
            let indices = evm.by_topic.get(&topic).map(Vec::as_slice).unwrap_or_default();
            let receipts = indices.iter().map(|index| &evm.mined[*index]);
            let matching = receipts.filter(|receipt| {
                receipt.logs.iter().any(|log| {
                    log.address == contract && log.topics().len() > 1 && log.topics()[..2] == [signature, topic]
                })
            });
            Ok(matching.cloned().collect())
        })
    }
}

impl Chain for InProcessChain {
    fn chain_id(&self) -> u64 {
        IN_PROCESS_CHAIN_ID
    }

    fn escrow(&self) -> Address {
        IN_PROCESS_ESCROW
    }

    fn describe(&self) -> String {
        "in-process EVM".into()
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
        Box::pin(perform::finding(self, IN_PROCESS_DEPLOYER, terms_hash, mediator, round))
    }

    fn advance_time(&self, now_s: u64) -> BoxFuture<'_, Result<(), ChainFault>> {
        Box::pin(async move {
            let mut evm = self.evm();
            evm.time_s = evm.time_s.max(now_s);
            Ok(())
        })
    }
}
