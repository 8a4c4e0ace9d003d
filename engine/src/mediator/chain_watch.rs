//! Disputes that the chain knows and the record does not: a client who disputes at the contract and tells the operator
//! nothing could let a mediator's time run out unheard.
//!
//! The contract keeps hashes only, so such a case cannot be judged from the chain; what can be done is to notice it while
//! there is time to ask the client for its signed `disputed` event.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tribunal_contracts::{CaseState, Chain};
use tribunal_events::{Address, DealId};

use super::inbox::{self, Stage};
use crate::{replay::load, store::Store};

/// How often the chain is asked, unless told otherwise.
pub const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Cases that are looked at in one turn, at most; the others have theirs later.
const CASES_MAX: usize = 256;

/// Looks `every` so often, until cancelled, at every undisputed case that names one of these mediators; `only_on_chain` is
/// how many are disputed at the contract.
pub async fn watch(
    store: Store,
    chain: Arc<dyn Chain>,
    mediators: Vec<Address>,
    only_on_chain: Arc<AtomicU64>,
    every: Duration,
    cancel: CancellationToken,
) {
    let mut told = BTreeMap::<DealId, u64>::new();
    let mut after = DealId::default();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let (reader, judges) = (store.clone(), mediators.clone());
        let Ok(Ok(mut cases)) = tokio::task::spawn_blocking(move || inbox::inbox(&reader, &judges)).await else {
            continue;
        };
        cases.retain(|case| case.stage == Stage::Named);
        told.retain(|deal_id, _| cases.iter().any(|case| case.deal_id == *deal_id));
        cases.sort_by_key(|case| (case.deal_id <= after, case.deal_id));
        for case in cases.iter().take(CASES_MAX) {
            after = case.deal_id;
            let Ok(Some(deal)) = load(&store, &case.deal_id) else { continue };
            if !deal.terms().domain().on_chain() {
                continue;
            }
            match chain.case(deal.terms().hash()).await {
                Ok(view) if view.state == CaseState::Disputed => {
                    if told.insert(case.deal_id, view.disputed_at_s).is_none() {
                        tracing::error!(deal_id = %case.deal_id, mediator = %case.mediator,
                            disputed_at_s = view.disputed_at_s,
                            "disputed on the chain and not in the record: get the client's signed event, someone must act");
                    }
                }
                Ok(_) => drop(told.remove(&case.deal_id)),
                Err(fault) => {
                    tracing::warn!(%fault, "the chain could not be asked for disputes");
                    break;
                }
            }
        }
        only_on_chain.store(told.len() as u64, Ordering::Relaxed);
    }
}
