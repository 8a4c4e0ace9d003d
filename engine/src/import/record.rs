//! Writes observations into the store: what is new, once, in whole deals.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tribunal_events::{
    B256, DealId, Domain, Envelope, EventKind, Foreign, ForeignCall, ForeignSaid, SigningKey, Timestamp,
};

use super::{ImportFault, log_place};
use crate::store::{Append, NewRecord, Place, Store, StoreFault, StreamAppend};

/// Observations of one deal at most.
pub const DEAL_OBSERVATIONS_MAX: usize = 4_096;
/// Records that one write has, about.
const BATCH_RECORDS: usize = 512;

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Deals that were observed.
    pub deals: u64,
    /// Observations that were recorded.
    pub recorded: u64,
    /// Observations that were recorded before.
    pub known: u64,
    /// Logs of other contracts, or about no deal.
    pub ignored: u64,
}

/// What is known of a deal's chain: blocks, logs and answers.
#[derive(Default)]
struct Known {
    version: u64,
    blocks: BTreeMap<u64, (B256, Option<u64>)>,
    logs: BTreeMap<(B256, u64), Foreign>,
    answers: BTreeMap<ForeignCall, Vec<u8>>,
}

/// Records what is new of these observations, in the order of the chain; all of them, or with a fault none.
///
/// # Errors
/// [`ImportFault::Fork`] and [`ImportFault::Contradiction`] where they contradict each other or the record: then nothing
/// was written. A fault of the store in the middle leaves whole deals.
pub fn record(
    store: &Store,
    operator: &SigningKey,
    now: Timestamp,
    observations: Vec<Foreign>,
) -> Result<Tally, ImportFault> {
    one_chain(&observations)?;
    let mut deals: BTreeMap<DealId, Vec<Foreign>> = BTreeMap::new();
    for it in observations {
        deals.entry(it.deal_id()).or_default().push(it);
    }
    let mut tally = Tally { deals: deals.len() as u64, ..Tally::default() };
    // Everything is compared before anything is written.
    let mut news = Vec::new();
    for (deal_id, mut observed) in deals {
        observed.sort_by_key(order);
        let mut known = Known::read(store, &deal_id)?;
        let version = known.version;
        let mut new = Vec::new();
        for it in observed {
            if known.is_new(&it)? { new.push(it) } else { tally.known += 1 }
        }
        let total = version as usize + new.len();
        if total > DEAL_OBSERVATIONS_MAX {
            let (found, most) = (total as u64, DEAL_OBSERVATIONS_MAX as u64);
            return Err(ImportFault::TooMuch { what: "observations of one deal", found, most });
        }
        if !new.is_empty() {
            tally.recorded += new.len() as u64;
            news.push((deal_id, version, new));
        }
    }
    let last = store.record(store.last_position())?.map_or_else(Timestamp::default, |last| last.recorded_at);
    let recorded_at = now.max(last);
    let mut append = Append::default();
    let mut records = 0;
    for (deal_id, expected_version, new) in news {
        records += new.len();
        let sign = |it: &Foreign| NewRecord {
            envelope: Envelope::sign(&it.event(), &Domain::default(), operator).expect("a deal id has 32 bytes"),
            signer: operator.address(),
            recorded_at,
        };
        let records_of = new.iter().map(sign).collect();
        append.streams.push(StreamAppend {
            deal_id,
            expected_version,
            records: records_of,
            open: false,
            snapshot: None,
        });
        if records >= BATCH_RECORDS {
            store.append(std::mem::take(&mut append))?;
            records = 0;
        }
    }
    store.append(append)?;
    Ok(tally)
}

/// As the chain has it; answers come after the logs of their block.
fn order(it: &Foreign) -> (u64, u8, u64) {
    match &it.said {
        ForeignSaid::Log { index, .. } => (it.block, 0, *index),
        ForeignSaid::Answer { call, .. } => (it.block, 1, *call as u64),
    }
}

/// Whether all observations can be of one chain, whatever deals they are about.
fn one_chain(observations: &[Foreign]) -> Result<(), ImportFault> {
    let mut blocks: BTreeMap<u64, (B256, Option<u64>)> = BTreeMap::new();
    let mut transactions: BTreeMap<B256, u64> = BTreeMap::new();
    let mut logs: BTreeMap<(B256, u64), &Foreign> = BTreeMap::new();
    for it in observations {
        same_block(&mut blocks, it, false)?;
        let ForeignSaid::Log { transaction, index, .. } = &it.said else { continue };
        let place = log_place(it.block, *index);
        let block = *transactions.entry(*transaction).or_insert(it.block);
        if block != it.block {
            let problem = format!("its transaction {transaction} is in block {block}, too");
            return Err(ImportFault::Contradiction { place, problem });
        }
        let first = logs.entry((it.block_hash, *index)).or_insert(it);
        if !same(first, it) {
            return Err(ImportFault::Contradiction {
                place,
                problem: "two logs there, with different contents".into(),
            });
        }
    }
    let times = blocks.iter().filter_map(|(block, (_, time))| time.map(|time| (*block, time)));
    let times: Vec<_> = times.collect();
    if let Some(pair) = times.windows(2).find(|pair| pair[1].1 < pair[0].1) {
        let problem = format!("its time {} is before that of block {}, {}", pair[1].1, pair[0].0, pair[0].1);
        return Err(ImportFault::Contradiction { place: format!("block {}", pair[1].0), problem });
    }
    Ok(())
}

fn same_block(
    blocks: &mut BTreeMap<u64, (B256, Option<u64>)>,
    it: &Foreign,
    recorded: bool,
) -> Result<(), ImportFault> {
    let (known, time) = blocks.entry(it.block).or_insert((it.block_hash, it.block_time_s));
    if *known != it.block_hash {
        return Err(ImportFault::Fork { block: it.block, known: *known, found: it.block_hash, recorded });
    }
    match (*time, it.block_time_s) {
        (Some(known), Some(told)) if known != told => {
            let problem = format!("its time is {known} and {told}");
            Err(ImportFault::Contradiction { place: format!("block {}", it.block), problem })
        }
        (None, told) => {
            *time = told;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether two observations at one place are one. A block's time may be known to one of them alone.
fn same(a: &Foreign, b: &Foreign) -> bool {
    let timeless = |it: &Foreign| Foreign { block_time_s: None, ..it.clone() };
    timeless(a) == timeless(b)
}

impl Known {
    fn read(store: &Store, deal_id: &DealId) -> Result<Self, ImportFault> {
        let mut this = Self::default();
        for record in store.stream(deal_id, 1) {
            let record = record?;
            let damaged = |what: String| StoreFault::Damaged { place: Place::Position(record.position), what };
            let parsed = record.envelope.clone().parse().map_err(|error| damaged(error.to_string()))?;
            let EventKind::ForeignObserved(it) = parsed.into_kind() else {
                return Err(damaged("an imported deal holds another event".into()).into());
            };
            this.version = record.version;
            this.blocks.entry(it.block).or_insert((it.block_hash, it.block_time_s));
            match &it.said {
                ForeignSaid::Log { index, .. } => drop(this.logs.insert((it.block_hash, *index), (*it).clone())),
                ForeignSaid::Answer { call, data } => drop(this.answers.insert(*call, data.clone())),
            }
        }
        Ok(this)
    }

    /// Whether this is not recorded yet; from then on it is.
    fn is_new(&mut self, it: &Foreign) -> Result<bool, ImportFault> {
        same_block(&mut self.blocks, it, true)?;
        match &it.said {
            ForeignSaid::Log { index, .. } => match self.logs.get(&(it.block_hash, *index)) {
                None => {
                    self.logs.insert((it.block_hash, *index), it.clone());
                    Ok(true)
                }
                Some(known) if same(known, it) => Ok(false),
                Some(_) => {
                    let problem = "the record holds another log there".into();
                    Err(ImportFault::Contradiction { place: log_place(it.block, *index), problem })
                }
            },
            // What was agreed and what was given never change, so one answer is all there is to know.
            ForeignSaid::Answer { call, data } => match self.answers.get(call) {
                None => {
                    self.answers.insert(*call, data.clone());
                    Ok(true)
                }
                Some(known) if known == data => Ok(false),
                Some(_) => {
                    let place = format!("{} of deal {:?}", call.word(), it.foreign_id);
                    Err(ImportFault::Contradiction { place, problem: "the record holds another answer".into() })
                }
            },
        }
    }
}

/// The answers that are recorded of a deal.
///
/// # Errors
/// Where the store cannot be read.
pub fn answered(store: &Store, deal_id: &DealId) -> Result<BTreeSet<ForeignCall>, ImportFault> {
    Ok(Known::read(store, deal_id)?.answers.into_keys().collect())
}
