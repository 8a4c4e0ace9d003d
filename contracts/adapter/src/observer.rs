//! Follows contracts' events on a chain behind JSON-RPC, in order, each once, over restarts and reorganisations.
//!
//! An [`Observer`] reads logs of blocks that have their confirmations, range by range, and keeps a [`Cursor`]: the last
//! block it told about, with its hash and those of some before it. Where the chain has another block at the cursor, it
//! walks back to the newest one that still stands and says so: everything after that block is not true any more.
//!
//! A node is not believed: logs of other contracts, topics or blocks than asked for, in no order, marked as removed, or of
//! a block that is not the chain's, are a fault and nothing is told; where a block's bloom filter says that there may be logs
//! and the node gave none, it is asked again for that block alone. A node whose head is older than the cursor is waited for.
//!
//! **Invariant:** the cursor moves only together with what [`Observer::next`] returns.
//! **Invariant:** logs are told in the order of blocks and of their index, none twice unless rolled back between.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{
    eips::BlockNumberOrTag,
    providers::{DynProvider, Provider},
    rpc::types::{BlockNumHash, Filter, Header, Log},
    transports::TransportError,
};
use alloy_primitives::{BloomInput, Bytes};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use tribunal_events::{Address, B256};

use crate::{ChainFault, json_rpc::fault, logs::Verdict};

/// Blocks that a range has at first, and at most.
const RANGE_FIRST: u64 = 1_000;
const RANGE_MAX: u64 = 10_000;
/// Blocks whose hashes the cursor remembers: reorganisations up to this depth are found without starting over.
const REMEMBERED: usize = 256;
/// Blocks near the head whose bloom filters are looked at, where a node's answer may lag behind its blocks.
const LOOKED_AT: u64 = 64;
/// Headers asked for side by side.
const HEADERS_AT_ONCE: usize = 16;
/// Logs of one range at most; more is a range to be halved.
const LOGS_MAX: usize = 200_000;

/// A block by number and hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRef {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
}

/// How far an observer has come; kept by whoever acts on what it tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Blocks told about, oldest first, the last one included; not every one.
    blocks: Vec<BlockRef>,
}

impl Cursor {
    /// The last block told about.
    pub fn last(&self) -> Option<BlockRef> {
        self.blocks.last().copied()
    }

    /// Comes to a later block.
    pub fn push(&mut self, block: BlockRef) {
        self.blocks.push(block);
        if self.blocks.len() > REMEMBERED {
            self.blocks.remove(0);
        }
    }

    /// Forgets blocks after this one.
    pub fn roll_back(&mut self, to: Option<BlockRef>) {
        self.blocks.retain(|block| to.is_some_and(|to| block.number <= to.number));
    }
}

/// Whose events are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The contracts.
    pub contracts: Vec<Address>,
    /// First topics: hashes of the events' signatures.
    pub events: Vec<B256>,
    /// The first block that can have any: that of the deployment.
    pub first_block: u64,
    /// Blocks, an event's own included, that must stand before it is told; at least 1.
    pub confirmations: u64,
}

/// An event with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLog {
    /// Who emitted it.
    pub contract: Address,
    /// Topics, the signature's hash first.
    pub topics: Vec<B256>,
    /// The rest, ABI-encoded.
    pub data: Bytes,
    /// Its block.
    pub block: BlockRef,
    /// The block's unix time.
    pub block_time_s: u64,
    /// Its transaction.
    pub transaction: B256,
    /// Its index in the block.
    pub index: u64,
}

impl ObservedLog {
    /// Reads it as an event.
    pub fn decode<E: alloy_sol_types::SolEvent>(&self) -> Option<E> {
        E::decode_raw_log(self.topics.iter().copied(), &self.data).ok()
    }
}

/// What an observer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Events up to a block, in order; often none.
    Logs {
        /// The last block of the range.
        through: BlockRef,
        /// What happened.
        logs: Vec<ObservedLog>,
    },
    /// What was told of blocks after this one is not true any more. `None`: nothing that was told is known to stand.
    RolledBack {
        /// The newest block told about that stands.
        to: Option<BlockRef>,
    },
}

/// See the module.
pub struct Observer {
    provider: DynProvider,
    watched: Watched,
    cursor: Cursor,
    range: u64,
}

impl Observer {
    /// Goes on after a cursor; a new one begins at the first block.
    ///
    /// # Panics
    /// Where no contract or no event is watched.
    pub fn new(provider: DynProvider, watched: Watched, cursor: Cursor) -> Self {
        assert!(!watched.contracts.is_empty() && !watched.events.is_empty(), "something is watched");
        let watched = Watched { confirmations: watched.confirmations.max(1), ..watched };
        Self { provider, watched, cursor, range: RANGE_FIRST }
    }

    /// How far it has come: to be kept together with what came of [`Observer::next`].
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The next range or reorganisation; `None` where the chain has nothing new.
    ///
    /// # Errors
    /// Where the node cannot be reached or gives what makes no sense; asked again it goes on where it was.
    pub async fn next(&mut self) -> Result<Option<Observed>, ChainFault> {
        let head = self.provider.get_block_number().await.map_err(|error| fault("head", error))?;
        let Some(target) = head.checked_sub(self.watched.confirmations - 1) else { return Ok(None) };
        if let Some(last) = self.cursor.last() {
            match self.header(last.number).await? {
                // An older node than the one before: it will catch up, or another will answer.
                None => return Ok(None),
                Some(header) if header.hash == last.hash => {}
                Some(_) => return self.roll_back().await.map(Some),
            }
        }
        let from = self.cursor.last().map_or(self.watched.first_block, |last| last.number + 1);
        if from > target {
            return Ok(None);
        }
        loop {
            let to = target.min(from.saturating_add(self.range - 1));
            match self.read(from, to).await {
                Ok((through, logs)) => {
                    // Slowly: what was refused a moment ago is refused again.
                    self.range = (self.range + self.range / 8 + 1).min(RANGE_MAX);
                    self.cursor.push(through);
                    return Ok(Some(Observed::Logs { through, logs }));
                }
                Err(Refused::TooMuch(_)) if to > from => self.range = (to - from).div_ceil(2),
                Err(Refused::Silent(refused)) => {
                    self.range = (to - from).div_ceil(2).max(1);
                    return Err(refused);
                }
                Err(Refused::TooMuch(refused) | Refused::Fault(refused)) => return Err(refused),
            }
        }
    }

    /// Forgets blocks that do not stand any more.
    async fn roll_back(&mut self) -> Result<Observed, ChainFault> {
        let mut cursor = self.cursor.clone();
        while let Some(last) = cursor.last() {
            match self.header(last.number).await? {
                Some(header) if header.hash == last.hash => break,
                Some(_) => drop(cursor.blocks.pop()),
                None => {
                    let problem = format!("the node has lost block {}", last.number);
                    return Err(ChainFault::Unreachable { what: "head".into(), source: problem.into() });
                }
            }
        }
        self.cursor = cursor;
        Ok(Observed::RolledBack { to: self.cursor.last() })
    }

    /// Logs of a range, checked.
    async fn read(&self, from: u64, to: u64) -> Result<(BlockRef, Vec<ObservedLog>), Refused> {
        let before = self.header(to).await?.ok_or_else(|| changed(to))?;
        let filter = Filter::new()
            .address(self.watched.contracts.clone())
            .event_signature(self.watched.events.clone())
            .from_block(from)
            .to_block(to);
        let logs = self.provider.get_logs(&filter).await.map_err(refused)?;
        if logs.len() > LOGS_MAX {
            return Err(Refused::TooMuch(unexpected(format!("{} logs in one answer", logs.len()))));
        }
        let mut by_block = BTreeMap::<u64, Vec<Log>>::new();
        for log in logs {
            let number = self.check(&log, from, to)?;
            by_block.entry(number).or_default().push(log);
        }
        let near: BTreeSet<u64> = (from.max(to.saturating_sub(LOOKED_AT - 1))..=to).collect();
        let numbers: BTreeSet<u64> = by_block.keys().copied().chain(near).collect();
        let headers: BTreeMap<u64, Option<Header>> = futures::stream::iter(numbers)
            .map(|number| async move { self.header(number).await.map(|header| (number, header)) })
            .buffered(HEADERS_AT_ONCE)
            .try_collect()
            .await?;
        let mut told = Vec::new();
        for (number, header) in headers {
            let header = header.ok_or_else(|| changed(number))?;
            let mut logs = by_block.remove(&number).unwrap_or_default();
            if logs.is_empty() && self.may_have_logs(&header) {
                logs = self.of_block(&header).await?;
            }
            if logs.iter().any(|log| log.block_hash != Some(header.hash)) {
                return Err(changed(number).into());
            }
            logs.sort_by_key(|log| log.log_index);
            logs.dedup_by_key(|log| log.log_index);
            told.extend(logs.into_iter().filter_map(|log| observed(log, &header)));
        }
        // The same block at the end and at the cursor as before: the answers in between are of one chain.
        let after = self.header(to).await?;
        let at_cursor = match self.cursor.last() {
            Some(last) => self.header(last.number).await?.map(|header| header.hash) == Some(last.hash),
            None => true,
        };
        if !at_cursor || after.map(|header| header.hash) != Some(before.hash) {
            return Err(changed(to).into());
        }
        Ok((BlockRef { number: to, hash: before.hash }, told))
    }

    /// The number of a log's block, where the log is what was asked for.
    fn check(&self, log: &Log, from: u64, to: u64) -> Result<u64, Refused> {
        let problem = |what: &str| Refused::Fault(unexpected(format!("the node answers with a log {what}")));
        let number = log.block_number.ok_or_else(|| problem("without a block"))?;
        if log.removed || !(from..=to).contains(&number) {
            return Err(problem(&format!("of block {number}, removed {}, asked for {from} to {to}", log.removed)));
        }
        if !self.watched.contracts.contains(&log.address()) {
            return Err(problem(&format!("of contract {}", log.address())));
        }
        if !log.topic0().is_some_and(|topic| self.watched.events.contains(topic)) {
            return Err(problem("of another event"));
        }
        if log.log_index.is_none() || log.transaction_hash.is_none() {
            return Err(problem("without its place"));
        }
        Ok(number)
    }

    fn may_have_logs(&self, header: &Header) -> bool {
        let has = |bytes: &[u8]| header.logs_bloom.contains_input(BloomInput::Raw(bytes));
        self.watched.contracts.iter().any(|contract| has(contract.as_slice()))
            && self.watched.events.iter().any(|event| has(event.as_slice()))
    }

    /// Logs of one block, asked for by its hash.
    async fn of_block(&self, header: &Header) -> Result<Vec<Log>, Refused> {
        let filter = Filter::new()
            .address(self.watched.contracts.clone())
            .event_signature(self.watched.events.clone())
            .at_block_hash(header.hash);
        let logs = self.provider.get_logs(&filter).await.map_err(refused)?;
        for log in &logs {
            self.check(log, header.number, header.number)?;
        }
        Ok(logs)
    }

    async fn header(&self, number: u64) -> Result<Option<Header>, ChainFault> {
        let block = self.provider.get_block_by_number(BlockNumberOrTag::Number(number)).await;
        let header = block.map_err(|error| fault("block", error))?.map(|block| block.header);
        match header {
            Some(header) if header.number != number => {
                Err(unexpected(format!("the node answers with block {} for {number}", header.number)))
            }
            header => Ok(header),
        }
    }
}

/// Unix time of the newest block: the chain's own clock.
///
/// # Errors
/// Where the node cannot be asked.
pub async fn block_time_s(node: &DynProvider) -> Result<u64, ChainFault> {
    let block = node.get_block_by_number(BlockNumberOrTag::Latest).await.map_err(|error| fault("block", error))?;
    let missing = || ChainFault::Unexpected { what: "block", problem: "the node has no newest block".into() };
    Ok(block.ok_or_else(missing)?.header.timestamp)
}

enum Refused {
    /// A smaller range may do.
    TooMuch(ChainFault),
    /// Perhaps a smaller one, but not at once.
    Silent(ChainFault),
    Fault(ChainFault),
}

impl From<ChainFault> for Refused {
    fn from(fault: ChainFault) -> Self {
        Self::Fault(fault)
    }
}

/// Nodes limit ranges by blocks, by logs or by time, each with its own words.
fn refused(error: TransportError) -> Refused {
    let verdict = Verdict::of(&error);
    let fault = fault("logs", error);
    match verdict {
        Verdict::TooMuch => Refused::TooMuch(fault),
        Verdict::Perhaps => Refused::Silent(fault),
        Verdict::Other => Refused::Fault(fault),
    }
}

/// The chain changed while it was read, or one of several nodes behind an address lacks a block that another has.
fn changed(number: u64) -> ChainFault {
    ChainFault::Unreachable { what: "logs".into(), source: format!("block {number} changed while it was read").into() }
}

fn unexpected(problem: String) -> ChainFault {
    ChainFault::Unexpected { what: "logs", problem }
}

fn observed(log: Log, header: &Header) -> Option<ObservedLog> {
    Some(ObservedLog {
        contract: log.address(),
        topics: log.topics().to_vec(),
        block: BlockRef { number: header.number, hash: header.hash },
        block_time_s: header.timestamp,
        transaction: log.transaction_hash?,
        index: log.log_index?,
        data: log.inner.data.data,
    })
}

impl From<BlockNumHash> for BlockRef {
    fn from(block: BlockNumHash) -> Self {
        Self { number: block.number, hash: block.hash }
    }
}
