//! Holds the record against the chain: recorded transactions and what their events say, cases as they stand, and what the
//! escrow holds.
//!
//! Works beside a running engine: where record and chain differ, the record is read again, and only what differs from a
//! record that did not move meanwhile is a discrepancy. Steps that are asked for and not observed yet may be on the chain
//! or not.
//!
//! **Invariant:** a node that is silent, behind or contradicts itself makes a fault, never a discrepancy.

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
use tribunal_contracts::{CaseEvent, CaseState, CaseView, ChainFault, Witness, WitnessedTransaction};
use tribunal_core::{Decision, EffectKind, Phase, Settlement};
use tribunal_events::{Address, Amount, B256, DealId, EventKind, Outcome, Party, Role, Terms};

use super::{AuditReport, ChainStep, Examined, Examiner, Findings, Scope, Surroundings, lock};
use crate::store::{Head, Record, Store, StoreFault};

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

/// What the record says about a deal's case.
struct Recorded {
    deal_id: DealId,
    head: Head,
    terms: Arc<Terms>,
    taken: Vec<ChainStep>,
    /// States that steps which are under way may have brought the case to.
    under_way: Option<CaseState>,
    /// Count and digest of the result.
    claim: Option<(u64, B256)>,
    /// Revealed seeds by party.
    seeds: BTreeMap<u8, B256>,
    /// Silent mediators by round.
    silent: BTreeMap<u32, Vec<Address>>,
    decision: Option<Decision>,
    /// Where the end is recorded, if it is.
    settled_at: Option<u64>,
    replayed: bool,
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
                Some(transaction) => transacted(recorded, step, &transaction, &mut findings),
                None => self.unknown(step, &mut findings).await?,
            }
        }
        state(recorded, &case, &mut findings);
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

/// Reads a deal; nothing where there is none, or no terms can be read.
fn recorded(store: &Store, deal_id: &DealId) -> Result<Option<Recorded>, StoreFault> {
    // The head first: what is recorded after it makes it another one.
    let Some(head) = store.head(deal_id).or_else(nothing)? else { return Ok(None) };
    of_records(deal_id, head, store.stream(deal_id, 1))
}

/// The steps of a deal that the chain has taken, by the record.
///
/// # Errors
/// Where the store cannot be read.
pub fn taken_steps(store: &Store, deal_id: &DealId) -> Result<Vec<ChainStep>, StoreFault> {
    Ok(recorded(store, deal_id)?.map_or_else(Vec::new, |recorded| recorded.taken))
}

/// Compares the records of a deal with receipts that were kept beside them; gives how many steps have one.
pub(crate) fn compare_receipts(
    deal_id: &DealId,
    records: &[Record],
    receipts: &BTreeMap<B256, WitnessedTransaction>,
    findings: &mut Findings,
) -> u64 {
    let Some(last) = records.last() else { return 0 };
    let head = Head { version: last.version, last_position: last.position, open: true, link: last.link };
    let Ok(Some(recorded)) = of_records(deal_id, head, records.iter().cloned().map(Ok)) else { return 0 };
    let mut found = 0;
    for step in &recorded.taken {
        if let Some(transaction) = receipts.get(&step.transaction) {
            found += 1;
            transacted(&recorded, step, transaction, findings);
        }
    }
    for hash in receipts.keys().filter(|hash| !recorded.taken.iter().any(|step| step.transaction == **hash)) {
        findings.whole("receipt", "receipts of transactions that the record names", format!("{hash:#x}"));
    }
    found
}

fn of_records(
    deal_id: &DealId,
    head: Head,
    records: impl Iterator<Item = Result<Record, StoreFault>>,
) -> Result<Option<Recorded>, StoreFault> {
    let mut examiner = Examiner::new(*deal_id);
    let (mut seeds, mut silent, mut settled_at) = (BTreeMap::new(), BTreeMap::new(), None);
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(StoreFault::Damaged { .. }) => break,
            Err(fault) => return Err(fault),
        };
        examiner.take(&record);
        match record.envelope.clone().parse().map(tribunal_events::ParsedEvent::into_kind) {
            Ok(EventKind::SeedRevealed { seed, .. }) => drop(seeds.insert(record.signer, B256::new(seed))),
            Ok(EventKind::DeadlineElapsed { deadline, round, silent: who, .. }) if deadline == "mediate" => {
                silent.insert(round, who);
            }
            Ok(EventKind::Settled { .. }) => settled_at = Some(record.position),
            _ => {}
        }
    }
    let examined = examiner.finish(&Surroundings::default());
    let taken = examined.taken().into_iter().cloned().collect();
    let Examined { terms: Some(terms), deal, claim, replayed, pending, .. } = examined else { return Ok(None) };
    let decision = deal.as_ref().and_then(|deal| match deal.phase() {
        Phase::Decided(decision) | Phase::Settled { decision, .. } => Some(decision.clone()),
        _ => None,
    });
    // A deal that is over and moved no money moves none any more.
    let over = deal.as_ref().is_some_and(|deal| deal.is_settled()) && decision.as_ref().is_some_and(|it| !it.funded);
    let under_way = pending.iter().filter_map(|kind| state_after(&kind.step())).max().filter(|_| !over);
    let party = |account| if account == terms.client { Party::Client as u8 } else { Party::Provider as u8 };
    Ok(Some(Recorded {
        deal_id: *deal_id,
        head,
        taken,
        under_way,
        claim: claim.map(|claim| (claim.instruction_count, B256::new(*claim.digest().bytes()))),
        seeds: seeds.into_iter().map(|(account, seed)| (party(account), seed)).collect(),
        silent,
        decision,
        settled_at,
        replayed,
        terms,
    }))
}

fn nothing(fault: StoreFault) -> Result<Option<Head>, StoreFault> {
    match fault {
        StoreFault::Damaged { .. } => Ok(None),
        fault => Err(fault),
    }
}

/// Where a step brings a case.
fn state_after(step: &str) -> Option<CaseState> {
    Some(match step {
        "open" => CaseState::Open,
        "submit" => CaseState::Submitted,
        "dispute" => CaseState::Disputed,
        "settle" => CaseState::Settled,
        _ => return None,
    })
}

fn expected(step: &ChainStep) -> String {
    format!("{} in transaction {:#x} of block {}", step.step, step.transaction, step.block)
}

/// Compares a recorded step with its transaction.
fn transacted(recorded: &Recorded, step: &ChainStep, transaction: &WitnessedTransaction, findings: &mut Findings) {
    let (contract, terms_hash) = (recorded.terms.domain().contract(), recorded.terms.hash());
    let mut differ = |code, expected: String, found: String| {
        if expected != found {
            findings.at(None, Some(step.position), code, expected, found);
        }
    };
    if !transaction.succeeded {
        return differ("chain-receipt", expected(step), "a transaction that failed".into());
    }
    let block = |number: u64| format!("{} {:#x} in block {number}", step.step, step.transaction);
    differ("chain-block", block(step.block), block(transaction.block.number));
    let of_contract = transaction.logs.iter().filter(|log| log.address == contract);
    let events = of_contract.filter_map(|log| CaseEvent::read(log.topics(), &log.data.data));
    let events: Vec<_> = events.filter(|(case, _)| *case == terms_hash).map(|(_, event)| event).collect();
    let Some(wanted) = wanted(recorded, &step.step) else { return };
    let of_kind: Vec<_> = events.iter().filter(|event| wanted.is_like(event)).collect();
    if of_kind.is_empty() {
        let others = events.iter().map(name).collect::<Vec<_>>().join(", ");
        let found = if others.is_empty() { "no event about this case".into() } else { others };
        let expected = format!("{} of case {terms_hash:#x} by contract {contract:#x}", wanted.name());
        return differ("chain-log", expected, found);
    }
    for (code, expected, found) in wanted.differences(&of_kind) {
        differ(code, expected, found);
    }
    if transaction.to != Some(contract) {
        let by = transaction.to.map_or_else(|| "a creation".into(), |to| format!("{to:#x}"));
        findings.note(Some(step.position), "relayed", format!("{} was taken by way of {by}", step.step));
    }
}

/// What the record says that an event of the contract must say.
enum Wanted {
    Opened(CaseEvent),
    Submitted(Option<(u64, B256)>),
    Disputed,
    Seed(u8, Option<B256>),
    Silence(u32, Vec<Address>),
    Settled(Option<(Outcome, [Amount; 4])>),
}

fn wanted(recorded: &Recorded, step: &str) -> Option<Wanted> {
    let terms = &recorded.terms;
    let seed = |party: Party| Wanted::Seed(party as u8, recorded.seeds.get(&(party as u8)).copied());
    Some(match EffectKind::of_step(step)? {
        EffectKind::Open => Wanted::Opened(CaseEvent::Opened {
            client: terms.client,
            provider: terms.provider,
            deal_id: recorded.deal_id,
        }),
        EffectKind::Submit => Wanted::Submitted(recorded.claim),
        EffectKind::Dispute => Wanted::Disputed,
        EffectKind::Reveal { party: 1 } => seed(Party::Client),
        EffectKind::Reveal { .. } => seed(Party::Provider),
        EffectKind::Silence { round } => {
            Wanted::Silence(round, recorded.silent.get(&round).cloned().unwrap_or_default())
        }
        EffectKind::Settle => {
            Wanted::Settled(recorded.decision.as_ref().filter(|_| recorded.replayed).map(|decision| {
                let voters = decision.round.as_ref().map(|round| round.voters()).unwrap_or_default();
                let rule =
                    Settlement::new(terms, decision.outcome, decision.instruction_count, &voters, decision.funded);
                let paid =
                    [Role::Client, Role::Provider, Role::Mediator, Role::Treasury].map(|role| rule.paid_to(role));
                (decision.outcome, paid)
            }))
        }
        _ => return None,
    })
}

impl Wanted {
    const fn name(&self) -> &'static str {
        match self {
            Self::Opened(_) => "CaseOpened",
            Self::Submitted(_) => "ResultSubmitted",
            Self::Disputed => "CaseDisputed",
            Self::Seed(..) => "SeedRevealed",
            Self::Silence(..) => "SilenceSlashed",
            Self::Settled(_) => "CaseSettled",
        }
    }

    fn is_like(&self, event: &CaseEvent) -> bool {
        match (self, event) {
            (Self::Silence(round, silent), CaseEvent::SilenceSlashed { mediator, round: found, .. }) => {
                round == found && silent.contains(mediator)
            }
            (Self::Seed(party, _), CaseEvent::SeedRevealed { party: found, .. }) => party == found,
            _ => self.name() == name(event),
        }
    }

    /// Code, expected and found of what none of the events says as the record does.
    fn differences(&self, events: &[&CaseEvent]) -> Vec<(&'static str, String, String)> {
        let Some(event) = events.first() else { return Vec::new() };
        let one = |code, expected: String, found: String| vec![(code, expected, found)];
        match (self, event) {
            (Self::Opened(expected), found) => one("chain-log", format!("{expected:?}"), format!("{found:?}")),
            (Self::Submitted(Some((count, digest))), CaseEvent::Submitted { instruction_count, claim_digest }) => {
                let say = |count: u64, digest: &B256| format!("claim {digest:#x} with {count} instructions");
                one("chain-log", say(*count, digest), say(*instruction_count, claim_digest))
            }
            (Self::Seed(_, Some(expected)), CaseEvent::SeedRevealed { seed, .. }) => {
                one("chain-log", format!("seed {expected:#x}"), format!("seed {seed:#x}"))
            }
            (Self::Settled(Some((outcome, paid))), CaseEvent::Settled(found)) => {
                let list = |it: [Amount; 4]| it.map(|amount| amount.to_string()).join(", ");
                let who = "client, provider, mediators, treasury get ";
                let found_paid = [found.client, found.provider, found.mediators, found.treasury];
                vec![
                    ("chain-outcome", outcome.word().into(), found.outcome.word().into()),
                    ("chain-payouts", format!("{who}{}", list(*paid)), format!("{who}{}", list(found_paid))),
                ]
            }
            _ => Vec::new(),
        }
    }
}

const fn name(event: &CaseEvent) -> &'static str {
    match event {
        CaseEvent::Opened { .. } => "CaseOpened",
        CaseEvent::Submitted { .. } => "ResultSubmitted",
        CaseEvent::Disputed => "CaseDisputed",
        CaseEvent::SeedRevealed { .. } => "SeedRevealed",
        CaseEvent::Settled(_) => "CaseSettled",
        CaseEvent::SilenceSlashed { .. } => "SilenceSlashed",
    }
}

/// Compares the case as it stands with what is recorded of it.
fn state(recorded: &Recorded, case: &CaseView, findings: &mut Findings) {
    let last = recorded.taken.iter().max_by_key(|step| state_after(&step.step).unwrap_or(CaseState::None));
    let reached = last.and_then(|step| state_after(&step.step)).unwrap_or(CaseState::None);
    let farthest = recorded.under_way.map_or(reached, |state| state.max(reached));
    let at = recorded.settled_at.or(last.map(|step| step.position));
    if case.state < reached || case.state > farthest {
        let until = if farthest == reached { String::new() } else { format!(", or up to {}", word(farthest)) };
        findings.at(None, at, "chain-state", format!("a case that is {}{until}", word(reached)), word(case.state));
        return;
    }
    if let (Some((count, digest)), true) = (recorded.claim, case.submitted_at_s > 0)
        && (count, digest) != (case.instruction_count, case.claim_digest)
    {
        let say = |count: u64, digest: B256| format!("claim {digest:#x} with {count} instructions");
        let found = say(case.instruction_count, case.claim_digest);
        findings.at(None, at, "chain-state", say(count, digest), found);
    }
    if let (Some(decision), Some(outcome)) = (&recorded.decision, case.outcome)
        && recorded.replayed
        && decision.outcome != outcome
    {
        findings.at(None, at, "chain-outcome", decision.outcome.word(), outcome.word());
    }
}

const fn word(state: CaseState) -> &'static str {
    match state {
        CaseState::None => "not open",
        CaseState::Open => "open",
        CaseState::Submitted => "submitted",
        CaseState::Disputed => "disputed",
        CaseState::Settled => "settled",
    }
}
