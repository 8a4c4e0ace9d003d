//! Holds the record against the chain: recorded transactions and what their events say, cases as they stand, and what the
//! escrow holds.
//!
//! Works beside a running engine: where record and chain differ, the record is read again, and only what differs from a
//! record that did not move meanwhile is a discrepancy. Steps that are asked for and not observed yet may be on the chain
//! or not.
//!
//! **Invariant:** a node that is silent, behind or contradicts itself makes a fault, never a discrepancy.

mod case;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tribunal_contracts::{CaseState, ChainFault, Witness};
use tribunal_core::Settlement;
use tribunal_events::{Address, Amount, DealId, Outcome, Terms};

pub(crate) use self::case::compare_receipts;
pub use self::case::taken_steps;
use self::case::{Recorded, expected, recorded};
use super::{AuditReport, ChainStep, Findings, Scope, lock};
use crate::store::{Store, StoreFault};

/// Questions to the nodes side by side.
const ASKED_AT_ONCE: usize = 8;
/// How often a deal is compared anew because record or chain moved meanwhile, and the wait before.
const ATTEMPTS_MAX: u32 = 4;
const PAUSE: Duration = Duration::from_millis(300);

/// How to hold a record against a chain.
#[derive(Clone, Copy, Default)]
pub struct ChainOptions<'a> {
    /// Deals of other escrows are left out, with a note; nothing: every escrow that terms name is asked.
    pub escrow: Option<Address>,
    /// Hears how many deals are done and how many there are.
    pub progress: Option<&'a (dyn Fn(u64, u64) + Sync)>,
}

/// What was compared with the chain.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ChainAudit {
    /// The nodes.
    pub node: String,
    /// EIP-155 id.
    pub chain_id: u64,
    /// The chain's head when it ended.
    pub block: u64,
    /// Deals compared.
    pub deals: u64,
    /// Recorded transactions looked up.
    pub transactions: u64,
    /// Deals whose money is in no contract, or in one that is not asked.
    pub left_out: u64,
    /// Tokens of escrows: what is owed and what is there; for all deals alone.
    pub holdings: Vec<Holding>,
}

/// What an escrow owes and holds of a token.
#[derive(Clone, Debug, Serialize)]
pub struct Holding {
    /// The escrow.
    pub escrow: Address,
    /// The token; zero: native currency.
    pub token: Address,
    /// Locked in open cases of this record.
    pub locked: Amount,
    /// Balances in the escrow of everybody whom this record names.
    pub balances: Amount,
    /// What the escrow has.
    pub holds: Amount,
}

/// The comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ChainAuditFault {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// A node does not answer, or not sensibly.
    #[error(transparent)]
    Chain(#[from] ChainFault),
}

/// What comparing one deal gave.
struct Compared {
    findings: Findings,
    terms: Arc<Terms>,
    deal_id: DealId,
    transactions: u64,
    open: bool,
}

struct Comparison<'a> {
    store: &'a Store,
    witness: &'a Witness,
    options: ChainOptions<'a>,
    done: AtomicU64,
    total: u64,
}

/// Compares deals with the chain of `witness`, and adds to the report what differs.
///
/// # Errors
/// Where the store cannot be read, or a node does not answer.
pub async fn audit_chain(
    store: &Store,
    scope: &Scope,
    witness: &Witness,
    options: ChainOptions<'_>,
    report: &mut AuditReport,
) -> Result<(), ChainAuditFault> {
    let ids: Vec<DealId> = match scope {
        Scope::All => {
            store.deals().map(|deal| deal.map(|(id, _)| id)).filter_map(tolerated).collect::<Result<_, _>>()?
        }
        Scope::Deals(ids) => ids.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
    };
    let total = ids.len() as u64;
    let comparison = Comparison { store, witness, options, done: AtomicU64::new(0), total };
    let foreign = Mutex::new(BTreeMap::new());
    let compared: Vec<Option<Compared>> = stream::iter(ids)
        .map(|deal_id| comparison.deal(deal_id, &foreign))
        .buffer_unordered(ASKED_AT_ONCE)
        .try_collect()
        .await?;
    let left_out = compared.iter().filter(|it| it.is_none()).count() as u64;
    let mut compared: Vec<_> = compared.into_iter().flatten().collect();
    compared.sort_by_key(|it| it.deal_id);
    let mut audit = ChainAudit {
        node: witness.describe().to_owned(),
        chain_id: witness.chain_id(),
        deals: compared.len() as u64,
        transactions: compared.iter().map(|it| it.transactions).sum(),
        left_out,
        ..ChainAudit::default()
    };
    if matches!(scope, Scope::All) {
        audit.holdings = comparison.holdings(&compared).await?;
    }
    audit.block = witness.head().await?.number;
    for it in compared {
        report.add(it.findings);
    }
    for (deal_id, text) in foreign.into_inner().unwrap_or_default() {
        let mut findings = Findings::new(Some(deal_id));
        findings.note(None, "other-chain", text);
        report.add(findings);
    }
    for held in &audit.holdings {
        let owed = held.locked.checked_add(held.balances);
        if owed.is_none_or(|owed| owed > held.holds) {
            let mut findings = Findings::new(None);
            let expected = format!(
                "escrow {:#x} holds {} locked and {} in balances of token {:#x}",
                held.escrow, held.locked, held.balances, held.token
            );
            findings.at(None, None, "chain-holdings", expected, held.holds);
            report.add(findings);
        }
    }
    report.discrepancies.sort();
    report.notes.sort();
    report.chain = Some(audit);
    Ok(())
}

/// What is damaged is a discrepancy of the replay, which is told there.
fn tolerated(deal: Result<DealId, StoreFault>) -> Option<Result<DealId, StoreFault>> {
    match deal {
        Err(StoreFault::Damaged { .. }) => None,
        other => Some(other),
    }
}

impl Comparison<'_> {
    /// Nothing where the deal is not on this chain.
    async fn deal(
        &self,
        deal_id: DealId,
        foreign: &Mutex<BTreeMap<DealId, String>>,
    ) -> Result<Option<Compared>, ChainAuditFault> {
        let compared = self.compare(deal_id, foreign).await;
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(progress) = self.options.progress {
            progress(done, self.total);
        }
        compared
    }

    async fn compare(
        &self,
        deal_id: DealId,
        foreign: &Mutex<BTreeMap<DealId, String>>,
    ) -> Result<Option<Compared>, ChainAuditFault> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let store = self.store.clone();
            let read = tokio::task::spawn_blocking(move || recorded(&store, &deal_id)).await;
            let Some(recorded) = read.expect("an audit does not panic")? else { return Ok(None) };
            let domain = recorded.terms.domain();
            let (chain_id, contract) = (domain.chain_id(), domain.contract());
            if !domain.on_chain() {
                return Ok(None);
            }
            if chain_id != self.witness.chain_id() || self.options.escrow.is_some_and(|escrow| escrow != contract) {
                let text = format!("its money is in contract {contract:#x} on chain {chain_id}, which was not asked");
                lock(foreign).insert(deal_id, text);
                return Ok(None);
            }
            let again = attempt < ATTEMPTS_MAX;
            match self.look(&recorded).await {
                Ok(compared) => {
                    let clean = compared.findings.discrepancy_count == 0;
                    if clean || !again || !self.moved(&recorded).await? {
                        return Ok(Some(compared));
                    }
                }
                Err(fault) if again && fault.retry_helps() => {}
                Err(fault) => return Err(fault.into()),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether the record went on since it was read. A step that was just asked for moves the head, too.
    async fn moved(&self, recorded: &Recorded) -> Result<bool, StoreFault> {
        tokio::time::sleep(PAUSE).await;
        self.store.catch_up()?;
        Ok(self.store.head(&recorded.deal_id)? != Some(recorded.head))
    }

    async fn look(&self, recorded: &Recorded) -> Result<Compared, ChainFault> {
        let (terms, witness) = (&recorded.terms, self.witness);
        let contract = terms.domain().contract();
        let mut findings = Findings::new(Some(recorded.deal_id));
        let compared = |findings, transactions, open| Compared {
            findings,
            terms: Arc::clone(terms),
            deal_id: recorded.deal_id,
            transactions,
            open,
        };
        let head = witness.head().await?.number;
        let case = match witness.case(contract, terms.hash(), head).await {
            Ok(case) => case,
            Err(ChainFault::Reverted { .. } | ChainFault::Unexpected { .. }) => {
                let found = if witness.is_contract(contract).await? { "another contract" } else { "no contract" };
                findings.at(None, None, "chain-contract", format!("an escrow at {contract:#x}"), found);
                return Ok(compared(findings, 0, false));
            }
            Err(fault) => return Err(fault),
        };
        for step in &recorded.taken {
            match witness.transaction(step.transaction).await? {
                Some(transaction) => recorded.compare_step(step, &transaction, &mut findings),
                None => self.unknown(step, &mut findings).await?,
            }
        }
        recorded.compare_state(&case, &mut findings);
        let open = !matches!(case.state, CaseState::None | CaseState::Settled);
        Ok(compared(findings, recorded.taken.len() as u64, open))
    }

    /// A transaction that the node gives no receipt of: nodes forget those of old blocks, and keep the blocks.
    async fn unknown(&self, step: &ChainStep, findings: &mut Findings) -> Result<(), ChainFault> {
        match self.witness.holds(step.transaction, step.block).await? {
            Some(true) => {
                let text = format!("{} is in its block, but the node gives no receipt of it", step.step);
                findings.note(Some(step.position), "not-checkable", text);
                Ok(())
            }
            Some(false) => {
                let found = "no such transaction on the chain";
                findings.at(None, Some(step.position), "chain-receipt", expected(step), found);
                Ok(())
            }
            None => {
                let what =
                    format!("{}: the record names block {}, which the node does not have", step.step, step.block);
                let source = "the node is behind, or the record is wrong: ask another node".into();
                Err(ChainFault::Unreachable { what, source })
            }
        }
    }

    /// What escrows owe by this record, and hold, all of one block.
    async fn holdings(&self, compared: &[Compared]) -> Result<Vec<Holding>, ChainFault> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let at = self.witness.head().await?;
            let held = self.holdings_at(compared, at.number).await;
            let stood = self.witness.block(at.number).await?.map(|block| block.hash) == Some(at.hash);
            match held {
                Ok(held) if stood => return Ok(held),
                Err(fault) if attempt >= ATTEMPTS_MAX || stood && !fault.retry_helps() => return Err(fault),
                Ok(_) if attempt >= ATTEMPTS_MAX => {
                    let source = format!("block {} is another one again and again", at.number).into();
                    return Err(ChainFault::Unreachable { what: "holdings".into(), source });
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn holdings_at(&self, compared: &[Compared], block: u64) -> Result<Vec<Holding>, ChainFault> {
        type Owed = (BTreeSet<Address>, Vec<Arc<Terms>>);
        let mut owed: BTreeMap<(Address, Address), Owed> = BTreeMap::new();
        for it in compared {
            let (accounts, open) = owed.entry((it.terms.domain().contract(), it.terms.money().token)).or_default();
            accounts.extend([it.terms.client, it.terms.provider, it.terms.treasury]);
            accounts.extend(&it.terms.mediation.mediators);
            open.extend(it.open.then(|| Arc::clone(&it.terms)));
        }
        let witness = self.witness;
        let mut held = Vec::new();
        for ((escrow, token), (accounts, open)) in owed {
            // What the comparison could not read it has told of.
            if !witness.is_contract(escrow).await? {
                continue;
            }
            let balances = stream::iter(accounts).map(|account| witness.balance(escrow, token, account, block));
            let balances: Vec<_> = balances.buffer_unordered(ASKED_AT_ONCE).try_collect().await?;
            let locked = stream::iter(open).map(|terms| async move {
                let case = witness.case(escrow, terms.hash(), block).await?;
                let open = !matches!(case.state, CaseState::None | CaseState::Settled);
                let locked = Settlement::new(&terms, Outcome::Withdrawn, 0, &[], open).locked();
                Ok::<_, ChainFault>(locked)
            });
            let locked: Vec<_> = locked.buffer_unordered(ASKED_AT_ONCE).try_collect().await?;
            let sum = |amounts: Vec<Amount>| {
                let most = Amount::new(tribunal_events::U256::MAX);
                amounts.into_iter().fold(Amount::ZERO, |sum, amount| sum.checked_add(amount).unwrap_or(most))
            };
            let holds = witness.holdings(escrow, token, block).await?;
            held.push(Holding { escrow, token, locked: sum(locked), balances: sum(balances), holds });
        }
        Ok(held)
    }
}
