//! What the record says about the chain: deals of one contract, and the transactions that their steps were taken by.

use std::collections::{BTreeMap, BTreeSet};

use tribunal_core::REORGANISED;
use tribunal_events::{Address, B256, DealId, Digest, Domain, EventKind};

use super::Place;
use crate::{
    replay::ReplayFault,
    store::{Record, Store},
};

/// A step as recorded, while it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// The effect that asked for it.
    pub effect_id: Digest,
    pub transaction: B256,
    pub block: u64,
    /// Where it is recorded.
    position: u64,
    /// The writer was told that it counts no more, and has not recorded that yet.
    told: bool,
}

struct Tracked {
    terms_hash: B256,
    version: u64,
    disputed: bool,
    settled: bool,
    /// Names a mediator that runs here, or nobody in particular judges here.
    judged_here: bool,
    steps: BTreeMap<String, Taken>,
}

/// See the module. A fold of the log, of which what is over and final is forgotten.
pub(super) struct Ledger {
    domain: Domain,
    judges: Vec<Address>,
    position: u64,
    final_block: u64,
    deals: BTreeMap<DealId, Tracked>,
    by_terms: BTreeMap<B256, DealId>,
    news: BTreeSet<Place>,
    /// Open deals are read once, whatever the place in the log.
    opened: bool,
}

impl Ledger {
    /// Of this contract's deals: those that are open, and those with steps after `position`.
    pub fn new(domain: Domain, judges: Vec<Address>, position: u64, final_block: u64) -> Self {
        let (deals, by_terms, news) = Default::default();
        Self { domain, judges, position, final_block, deals, by_terms, news, opened: false }
    }

    /// Stands in while another is read elsewhere.
    pub fn nothing() -> Self {
        Self::new(Domain::default(), Vec::new(), 0, 0)
    }

    /// Up to where the log is read.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Steps up to this block are taken to stand.
    pub const fn final_block(&self) -> u64 {
        self.final_block
    }

    /// Reads the log on to where it ends now.
    pub fn catch_up(&mut self, store: &Store) -> Result<(), ReplayFault> {
        if !self.opened {
            for deal_id in store.open_deals()? {
                self.track(store, &deal_id)?;
            }
            self.opened = true;
        }
        for record in store.log(self.position + 1) {
            let record = record?;
            self.position = record.position;
            let known = self.deals.contains_key(&record.deal_id);
            let kind = kind(&record)?;
            if known || matches!(kind, EventKind::Proposed { .. }) {
                self.take(&record, &kind);
            } else if matches!(kind, EventKind::ChainObserved { .. }) {
                self.track(store, &record.deal_id)?;
            }
        }
        Ok(())
    }

    /// Reads a deal from its beginning.
    fn track(&mut self, store: &Store, deal_id: &DealId) -> Result<(), ReplayFault> {
        for record in store.stream(deal_id, 1) {
            let record = record?;
            self.take(&record, &kind(&record)?);
            if !self.deals.contains_key(deal_id) {
                // Another contract's.
                return Ok(());
            }
        }
        Ok(())
    }

    fn take(&mut self, record: &Record, kind: &EventKind) {
        let deal_id = record.deal_id;
        if let EventKind::Proposed { terms, .. } = kind
            && terms.domain() == self.domain
            && !self.deals.contains_key(&deal_id)
        {
            let named = terms.mediation.mediators.iter().any(|mediator| self.judges.contains(mediator));
            let (terms_hash, judged_here) = (terms.hash(), named || self.judges.is_empty());
            let (disputed, settled, steps) = Default::default();
            let tracked = Tracked { terms_hash, version: 0, disputed, settled, judged_here, steps };
            self.deals.insert(deal_id, tracked);
            self.by_terms.insert(terms_hash, deal_id);
        }
        let Some(tracked) = self.deals.get_mut(&deal_id) else { return };
        if record.version <= tracked.version {
            return;
        }
        tracked.version = record.version;
        match kind {
            EventKind::Disputed { .. } => tracked.disputed = true,
            EventKind::Settled { .. } => tracked.settled = true,
            EventKind::ChainObserved { step, effect_id, transaction, block, failure, .. } => match failure.as_deref() {
                None => {
                    let (effect_id, transaction, block) = (*effect_id, *transaction, *block);
                    let taken = Taken { effect_id, transaction, block, position: record.position, told: false };
                    tracked.steps.insert(step.clone(), taken);
                    if block > self.final_block {
                        self.news.insert((deal_id, step.clone()));
                    }
                }
                Some(REORGANISED) => drop(tracked.steps.remove(step)),
                Some(_) => {}
            },
            _ => {}
        }
    }

    /// Steps that were recorded since this was asked last.
    pub fn news(&mut self) -> BTreeSet<Place> {
        std::mem::take(&mut self.news)
    }

    /// Deals that may still move.
    pub fn open(&self) -> BTreeSet<DealId> {
        self.deals.iter().filter(|(_, it)| !it.settled).map(|(deal_id, _)| *deal_id).collect()
    }

    /// Steps in blocks after this one.
    pub fn taken_after(&self, block: u64) -> BTreeSet<Place> {
        self.steps().filter(|(_, taken)| taken.block > block).map(|(place, _)| place).collect()
    }

    /// Steps of one deal.
    pub fn taken_of(&self, deal_id: &DealId) -> Vec<Place> {
        let steps = self.deals.get(deal_id).into_iter().flat_map(|it| it.steps.keys());
        steps.map(|step| (*deal_id, step.clone())).collect()
    }

    fn steps(&self) -> impl Iterator<Item = (Place, &Taken)> {
        self.deals
            .iter()
            .flat_map(|(deal_id, it)| it.steps.iter().map(|(step, taken)| ((*deal_id, step.clone()), taken)))
    }

    /// A step, while it counts and nobody was told otherwise.
    pub fn taken(&self, deal_id: &DealId, step: &str) -> Option<&Taken> {
        self.deals.get(deal_id)?.steps.get(step).filter(|taken| !taken.told)
    }

    /// The writer is told that it counts no more; the record will say so.
    pub fn tell(&mut self, deal_id: &DealId, step: &str) {
        if let Some(taken) = self.deals.get_mut(deal_id).and_then(|it| it.steps.get_mut(step)) {
            taken.told = true;
        }
    }

    /// The case of a deal.
    pub fn terms_hash(&self, deal_id: &DealId) -> Option<B256> {
        self.deals.get(deal_id).map(|it| it.terms_hash)
    }

    /// The deal of a case.
    pub fn deal_of(&self, terms_hash: &B256) -> Option<DealId> {
        self.by_terms.get(terms_hash).copied()
    }

    /// Whether nobody disputed the deal, as far as recorded, and it is not over.
    pub fn is_undisputed(&self, deal_id: &DealId) -> bool {
        self.deals.get(deal_id).is_some_and(|it| !it.disputed && !it.settled)
    }

    /// Whether a dispute of it would be judged here.
    pub fn is_judged_here(&self, deal_id: &DealId) -> bool {
        self.deals.get(deal_id).is_some_and(|it| it.judged_here)
    }

    /// Whether a deal's money is in this contract.
    pub fn is_ours(&self, store: &Store, deal_id: &DealId) -> Result<bool, ReplayFault> {
        if self.deals.contains_key(deal_id) {
            return Ok(true);
        }
        let first = store.stream(deal_id, 1).next().transpose()?;
        let Some(first) = first else { return Ok(false) };
        Ok(matches!(kind(&first)?, EventKind::Proposed { terms, .. } if terms.domain() == self.domain))
    }

    /// Forgets deals that are over and whose steps are all in blocks up to this one.
    pub fn forget(&mut self, final_block: u64) {
        self.final_block = self.final_block.max(final_block);
        let (last, by_terms) = (self.final_block, &mut self.by_terms);
        self.deals.retain(|_, it| {
            let kept = !it.settled || it.steps.values().any(|taken| taken.block > last);
            if !kept {
                by_terms.remove(&it.terms_hash);
            }
            kept
        });
    }

    /// A place in the log after which every step in a block that is not final was recorded.
    pub fn covered(&self) -> u64 {
        let unfinal = self.steps().filter(|(_, taken)| taken.block > self.final_block);
        unfinal.map(|(_, taken)| taken.position - 1).min().unwrap_or(self.position)
    }
}

fn kind(record: &Record) -> Result<EventKind, ReplayFault> {
    let position = record.position;
    let parsed = record.envelope.clone().parse().map_err(|source| ReplayFault::Decode { position, source })?;
    Ok(parsed.into_kind())
}
