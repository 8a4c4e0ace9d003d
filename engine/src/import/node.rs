//! Logs from a node: range after range, each checked by the observer, recorded before the next is asked for.

use std::collections::BTreeSet;

use tribunal_contracts::{
    BlockRef, Cursor, Endpoints, Observed, ObservedLog, Observer, RpcNode, Watched,
    lilypad::{DealState, history},
};
use tribunal_events::{ForeignCall, ForeignSaid, SigningKey};

use super::{
    Deployment, ImportFault, RawLog, Tally,
    file::answer,
    record::{answered, record},
};
use crate::{engine::now, store::Store};

/// Answers that are recorded at once.
const READS_AT_ONCE: usize = 256;

/// What to import from a node.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The first block.
    pub from: u64,
    /// The last one; nothing: the newest that has its confirmations.
    pub to: Option<u64>,
    /// Blocks, an event's own included, that must stand.
    pub confirmations: u64,
}

/// Connects to a chain.
///
/// # Errors
/// Where no node answers, or one is on another chain.
pub async fn connect(urls: &[String], chain_id: Option<u64>) -> Result<(RpcNode, u64), ImportFault> {
    Ok(Endpoints::new(urls, chain_id)?.connect().await?)
}

/// Imports what the contracts said in a range of blocks, then reads what their storage says about those deals. Ranges
/// that are recorded stay; importing again goes on.
///
/// # Errors
/// Where the node or the store fails, or what it says is refused. `progress` hears of blocks.
pub async fn import(
    node: &RpcNode,
    deployment: &Deployment,
    range: Range,
    store: &Store,
    operator: &SigningKey,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Tally, ImportFault> {
    let watched = Watched {
        contracts: deployment.contracts(),
        events: history::topics(),
        first_block: range.from,
        confirmations: range.confirmations,
    };
    let mut observer = Observer::new(node.clone(), watched, Cursor::default());
    let mut tally = Tally::default();
    let mut deals: BTreeSet<(String, bool)> = BTreeSet::new();
    let mut end: Option<BlockRef> = None;
    while let Some(observed) = observer.next().await? {
        let Observed::Logs { through, logs } = observed else { return Err(ImportFault::Reorganised) };
        let mut observations = Vec::new();
        for log in logs.into_iter().filter(|log| range.to.is_none_or(|to| log.block.number <= to)) {
            match deployment.observe(raw(log))? {
                Some(it) => observations.push(it),
                None => tally.ignored += 1,
            }
        }
        for it in &observations {
            let ForeignSaid::Log { topics, data, .. } = &it.said else { continue };
            let given = matches!(
                history::read_log(it.role, topics, data),
                Ok((_, history::Said::State(DealState::ResultsSubmitted) | history::Said::Result { .. }))
            );
            deals.insert((it.foreign_id.clone(), given));
        }
        let of_range = record(store, operator, now(), observations)?;
        tally.recorded += of_range.recorded;
        tally.known += of_range.known;
        end = Some(through);
        progress(through.number);
        if range.to.is_some_and(|to| through.number >= to) {
            break;
        }
    }
    tally.deals = deals.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len() as u64;
    let Some(end) = end else { return Ok(tally) };
    let of_reads = reads(node, deployment, store, operator, &deals, end).await?;
    tally.recorded += of_reads.recorded;
    Ok(tally)
}

/// What the storage says about deals, where that is not recorded yet.
async fn reads(
    node: &RpcNode,
    deployment: &Deployment,
    store: &Store,
    operator: &SigningKey,
    deals: &BTreeSet<(String, bool)>,
    end: BlockRef,
) -> Result<Tally, ImportFault> {
    let mut tally = Tally::default();
    let mut observations = Vec::new();
    let mut asked: BTreeSet<(&str, ForeignCall)> = BTreeSet::new();
    for (foreign_id, given) in deals {
        let deal_id = tribunal_events::DealId::imported(deployment.chain_id, &deployment.storage, foreign_id);
        let known = answered(store, &deal_id)?;
        let wanted = [Some(ForeignCall::GetDeal), given.then_some(ForeignCall::GetResult)];
        for call in wanted.into_iter().flatten().filter(|call| !known.contains(call)) {
            if !asked.insert((foreign_id, call)) {
                continue;
            }
            let Some(data) = history::ask(node, deployment.storage, call, foreign_id, end.hash).await? else {
                continue;
            };
            let place = || format!("{} of deal {foreign_id:?}", call.word());
            let read = answer(deployment, call, foreign_id.clone(), data.to_vec(), (end.number, end.hash, None));
            let read = read.map_err(|problem| ImportFault::Malformed { place: place(), problem })?;
            observations.extend(read);
        }
        if observations.len() >= READS_AT_ONCE {
            tally.recorded += record(store, operator, now(), std::mem::take(&mut observations))?.recorded;
        }
    }
    tally.recorded += record(store, operator, now(), observations)?.recorded;
    Ok(tally)
}

fn raw(log: ObservedLog) -> RawLog {
    RawLog {
        contract: log.contract,
        topics: log.topics,
        data: log.data.to_vec(),
        block: log.block.number,
        block_hash: log.block.hash,
        block_time_s: Some(log.block_time_s),
        transaction: log.transaction,
        index: log.index,
    }
}
