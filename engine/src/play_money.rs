//! The chain of an engine without one: the real contracts on an in-process EVM, with play money.
//!
//! Whoever is to lock money is given it first, so that an engine with no configuration at all runs whole deals. It lives
//! in a file beside the store. What the record says was taken and the file does not hold, as when the file is lost or
//! older than the store, is taken again when it is opened. What only the file holds, as when the store is older, is found
//! taken when it is asked for.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{FutureExt as _, future::BoxFuture};
use tribunal_contracts::{BondView, CaseView, Chain, ChainFault, Finding, InProcessChain, Mined, Step};
use tribunal_core::{EffectKind, react};
use tribunal_events::{Address, Amount, B256, EventKind};

use crate::{
    chain_steps::step_for,
    equivocation,
    replay::{ReplayFault, fold, load_at, reopen},
    store::Store,
};

/// See the module.
#[derive(Default)]
pub struct PlayMoney(InProcessChain);

impl PlayMoney {
    /// Where the play money of a store is: beside it, `<store>.evm.jsonl`.
    pub fn default_path(store: &Path) -> PathBuf {
        let mut name = store.file_name().unwrap_or_default().to_owned();
        name.push(".evm.jsonl");
        store.with_file_name(name)
    }

    /// The play money of the file at `path`, in step with the record of `store`.
    ///
    /// # Errors
    /// Where the store cannot be read, or the file is in use, damaged, or of other contracts.
    pub async fn open(path: &Path, store: &Store) -> Result<Arc<Self>, PlayMoneyFault> {
        let chain = InProcessChain::open(path)
            .map_err(|source| PlayMoneyFault::Chain { path: path.display().to_string(), source })?;
        let this = Arc::new(Self(chain));
        this.catch_up(store).await?;
        Ok(this)
    }

    /// Takes the recorded steps of a store that are not there.
    async fn catch_up(&self, store: &Store) -> Result<(), ReplayFault> {
        let mut shown = shown(store)?;
        let mut again = 0u64;
        for record in store.log(1) {
            let record = record?;
            // Looked at without its signature, which costs more than all else: what is there needs no second look.
            if let Ok(parsed) = record.envelope.clone().parse() {
                match parsed.into_kind() {
                    EventKind::ChainObserved { transaction, .. } if !self.0.has(&transaction) => {}
                    _ => continue,
                }
            }
            let deal = load_at(store, &record.deal_id, record.version)?;
            let Some(deal) = deal else { continue };
            let event = reopen(&record, Some(deal.terms().domain()))?;
            let EventKind::ChainObserved { step, transaction, block, failure: None, effect_id, .. } = event.kind()
            else {
                continue;
            };
            while shown.last().is_some_and(|(before, _)| before < block) {
                self.show_again(shown.pop()).await;
            }
            again += 1;
            let Some((version, kind)) = cause(store, &record.deal_id, record.version, effect_id)? else { continue };
            let Some(deal) = load_at(store, &record.deal_id, version)? else { continue };
            let Some(asked) = step_for(&deal, kind) else { continue };
            let _ = self.advance_time(record.recorded_at.s()).await;
            match self.perform(&asked).await {
                Ok(mined) if mined.transaction == *transaction => {}
                Ok(mined) => {
                    tracing::warn!(deal_id = %record.deal_id, step, found = %mined.transaction, expected = %transaction,
                        "a step taken again has another hash");
                }
                Err(fault) => {
                    tracing::warn!(deal_id = %record.deal_id, step, %fault, "a recorded step cannot be taken again");
                }
            }
        }
        while !shown.is_empty() {
            self.show_again(shown.pop()).await;
        }
        if again > 0 {
            tracing::warn!(steps = again, "the record knows steps that the play money did not; they were taken again");
        }
        Ok(())
    }

    async fn show_again(&self, step: Option<(u64, Step)>) {
        let Some((_, step)) = step else { return };
        if let Err(fault) = self.perform(&step).await {
            tracing::warn!(terms_hash = %step.terms_hash(), %fault, "an equivocation cannot be shown again");
        }
    }

    async fn fund(&self, step: &Step) -> Result<(), ChainFault> {
        let Step::Open { terms, .. } = step else { return Ok(()) };
        let pricing = &terms.pricing;
        let sum = |amounts: [Amount; 3]| {
            amounts.into_iter().fold(Amount::ZERO, |sum, amount| sum.checked_add(amount).unwrap_or_default())
        };
        let client = sum([pricing.payment_collateral, pricing.mediation_fee, pricing.judge_collateral]);
        let provider = sum([pricing.results_collateral, pricing.mediation_fee, pricing.submit_collateral]);
        for (account, amount) in [(terms.client, client), (terms.provider, provider)] {
            if !amount.is_zero() {
                self.0.mint_and_deposit(account, amount)?;
            }
        }
        let slash = terms.mediation.silence_slash;
        for mediator in &terms.mediation.mediators {
            // An equivocator can never bond again.
            if !slash.is_zero() && !self.0.bond(*mediator).await?.tombstoned {
                self.0.bond_mediator(*mediator, slash, terms.operator)?;
            }
        }
        Ok(())
    }
}

/// Why play money cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PlayMoneyFault {
    /// The file.
    #[error("play money: {source}; moved away, {path} is made again from the record")]
    Chain {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: ChainFault,
    },
    /// The record.
    #[error(transparent)]
    Record(#[from] ReplayFault),
}

/// Equivocations that were shown to the contract, by block, the latest first.
fn shown(store: &Store) -> Result<Vec<(u64, Step)>, ReplayFault> {
    let found = equivocation::found(store)?;
    let shown = found.into_iter().filter_map(|evidence| match evidence.outcome {
        Some(equivocation::Outcome::Slashed { block, .. }) => Some((block, evidence.step())),
        _ => None,
    });
    let mut shown: Vec<_> = shown.collect();
    shown.sort_by_key(|(block, _)| std::cmp::Reverse(*block));
    Ok(shown)
}

/// The event and effect that led to a chain step.
fn cause(
    store: &Store,
    deal_id: &tribunal_events::DealId,
    before: u64,
    effect_id: &tribunal_events::Digest,
) -> Result<Option<(u64, EffectKind)>, ReplayFault> {
    let mut deal = None;
    for record in store.stream(deal_id, 1) {
        let record = record?;
        if record.version >= before {
            break;
        }
        let next = fold(deal, &record)?;
        let event = reopen(&record, Some(next.terms().domain()))?;
        for effect in react(&next, event.kind(), event.signer()) {
            if effect.id == *effect_id {
                return Ok(Some((record.version, effect.kind)));
            }
        }
        deal = Some(next);
    }
    Ok(None)
}

impl Chain for PlayMoney {
    fn chain_id(&self) -> u64 {
        self.0.chain_id()
    }

    fn escrow(&self) -> Address {
        self.0.escrow()
    }

    fn describe(&self) -> String {
        format!("{} with play money", self.0.describe())
    }

    fn perform<'a>(&'a self, step: &'a Step) -> BoxFuture<'a, Result<Mined, ChainFault>> {
        async move {
            match self.0.perform(step).await {
                Err(ChainFault::Insufficient { .. }) => {
                    self.fund(step).await?;
                    self.0.perform(step).await
                }
                done => done,
            }
        }
        .boxed()
    }

    fn case(&self, terms_hash: B256) -> BoxFuture<'_, Result<CaseView, ChainFault>> {
        self.0.case(terms_hash)
    }

    fn balance(&self, token: Address, account: Address) -> BoxFuture<'_, Result<Amount, ChainFault>> {
        self.0.balance(token, account)
    }

    fn bond(&self, mediator: Address) -> BoxFuture<'_, Result<BondView, ChainFault>> {
        self.0.bond(mediator)
    }

    fn finding(
        &self,
        terms_hash: B256,
        mediator: Address,
        round: u32,
    ) -> BoxFuture<'_, Result<Option<Finding>, ChainFault>> {
        self.0.finding(terms_hash, mediator, round)
    }

    fn advance_time(&self, now_s: u64) -> BoxFuture<'_, Result<(), ChainFault>> {
        self.0.advance_time(now_s)
    }
}
