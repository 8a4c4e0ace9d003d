//! What a record says about a deal's case at the contract, and what differs from what the chain says about it.

use std::{collections::BTreeMap, sync::Arc};

use tribunal_contracts::{CaseEvent, CaseState, CaseView, WitnessedTransaction};
use tribunal_core::{Decision, EffectKind, Phase, Settlement};
use tribunal_events::{Address, Amount, B256, DealId, EventKind, Outcome, Party, Role, Terms};

use super::super::{ChainStep, Examined, Examiner, Findings, Surroundings};
use crate::store::{Head, Record, Store, StoreFault};

/// What the record says about a deal's case.
pub(super) struct Recorded {
    pub(super) deal_id: DealId,
    pub(super) head: Head,
    pub(super) terms: Arc<Terms>,
    pub(super) taken: Vec<ChainStep>,
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

/// Reads a deal; nothing where there is none, or no terms can be read.
pub(super) fn recorded(store: &Store, deal_id: &DealId) -> Result<Option<Recorded>, StoreFault> {
    // The head first: what is recorded after it makes it another one.
    let Some(head) = store.head(deal_id).or_else(nothing)? else { return Ok(None) };
    let (mut examiner, mut said) = (Examiner::new(*deal_id), Said::default());
    for record in store.stream(deal_id, 1) {
        let record = match record {
            Ok(record) => record,
            Err(StoreFault::Damaged { .. }) => break,
            Err(fault) => return Err(fault),
        };
        examiner.take(&record);
        said.hear(&record);
    }
    Ok(Recorded::of(&examiner.finish(&Surroundings::default()), said, head))
}

/// The steps of a deal that the chain has taken, by the record.
///
/// # Errors
/// Where the store cannot be read.
pub fn taken_steps(store: &Store, deal_id: &DealId) -> Result<Vec<ChainStep>, StoreFault> {
    Ok(recorded(store, deal_id)?.map_or_else(Vec::new, |recorded| recorded.taken))
}

/// Compares a deal, examined from these records, with receipts that were kept beside them.
pub(crate) fn compare_receipts(
    examined: &mut Examined,
    records: &[Record],
    receipts: &BTreeMap<B256, WitnessedTransaction>,
) {
    let Some(last) = records.last().filter(|_| !receipts.is_empty()) else { return };
    let head = Head { version: last.version, last_position: last.position, open: true, link: last.link };
    let mut said = Said::default();
    records.iter().for_each(|record| said.hear(record));
    let Some(recorded) = Recorded::of(examined, said, head) else { return };
    let findings = &mut examined.findings;
    for step in &recorded.taken {
        if let Some(transaction) = receipts.get(&step.transaction) {
            recorded.compare_step(step, transaction, findings);
        }
    }
    for hash in receipts.keys().filter(|hash| !recorded.taken.iter().any(|step| step.transaction == **hash)) {
        findings.whole("receipt", "receipts of transactions that the record names", format!("{hash:#x}"));
    }
}

/// What records say that examining them does not keep.
#[derive(Default)]
struct Said {
    /// By account.
    seeds: BTreeMap<Address, B256>,
    /// By round.
    silent: BTreeMap<u32, Vec<Address>>,
    settled_at: Option<u64>,
}

impl Said {
    fn hear(&mut self, record: &Record) {
        match record.envelope.clone().parse().map(tribunal_events::ParsedEvent::into_kind) {
            Ok(EventKind::SeedRevealed { seed, .. }) => drop(self.seeds.insert(record.signer, B256::new(seed))),
            Ok(EventKind::DeadlineElapsed { deadline, round, silent, .. }) if deadline == "mediate" => {
                self.silent.insert(round, silent);
            }
            Ok(EventKind::Settled { .. }) => self.settled_at = Some(record.position),
            _ => {}
        }
    }
}

impl Recorded {
    /// Nothing where no terms can be read.
    fn of(examined: &Examined, said: Said, head: Head) -> Option<Self> {
        let terms = Arc::clone(examined.terms.as_ref()?);
        let decision = examined.deal.as_ref().and_then(|deal| match deal.phase() {
            Phase::Decided(decision) | Phase::Settled { decision, .. } => Some(decision.clone()),
            _ => None,
        });
        // A deal that is over and moved no money moves none any more.
        let settled = examined.deal.as_ref().is_some_and(|deal| deal.is_settled());
        let over = settled && decision.as_ref().is_some_and(|it| !it.funded);
        let under_way = examined.pending.iter().filter_map(|kind| state_after(&kind.step())).max().filter(|_| !over);
        let party = |account| if account == terms.client { Party::Client as u8 } else { Party::Provider as u8 };
        let claim = examined.claim.as_ref();
        Some(Self {
            deal_id: examined.deal_id,
            head,
            taken: examined.taken().into_iter().cloned().collect(),
            under_way,
            claim: claim.map(|claim| (claim.instruction_count, B256::new(*claim.digest().bytes()))),
            seeds: said.seeds.into_iter().map(|(account, seed)| (party(account), seed)).collect(),
            silent: said.silent,
            decision,
            settled_at: said.settled_at,
            replayed: examined.replayed,
            terms,
        })
    }

    /// Compares a recorded step with its transaction.
    pub(super) fn compare_step(&self, step: &ChainStep, transaction: &WitnessedTransaction, findings: &mut Findings) {
        let (contract, terms_hash) = (self.terms.domain().contract(), self.terms.hash());
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
        let Some(wanted) = wanted(self, &step.step) else { return };
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

    /// Compares the case as it stands with what is recorded of it.
    pub(super) fn compare_state(&self, case: &CaseView, findings: &mut Findings) {
        let last = self.taken.iter().max_by_key(|step| state_after(&step.step).unwrap_or(CaseState::None));
        let reached = last.and_then(|step| state_after(&step.step)).unwrap_or(CaseState::None);
        let farthest = self.under_way.map_or(reached, |state| state.max(reached));
        let at = self.settled_at.or(last.map(|step| step.position));
        if case.state < reached || case.state > farthest {
            let until = if farthest == reached { String::new() } else { format!(", or up to {}", word(farthest)) };
            findings.at(None, at, "chain-state", format!("a case that is {}{until}", word(reached)), word(case.state));
            return;
        }
        if let (Some((count, digest)), true) = (self.claim, case.submitted_at_s > 0)
            && (count, digest) != (case.instruction_count, case.claim_digest)
        {
            let say = |count: u64, digest: B256| format!("claim {digest:#x} with {count} instructions");
            let found = say(case.instruction_count, case.claim_digest);
            findings.at(None, at, "chain-state", say(count, digest), found);
        }
        if let (Some(decision), Some(outcome)) = (&self.decision, case.outcome)
            && self.replayed
            && decision.outcome != outcome
        {
            findings.at(None, at, "chain-outcome", decision.outcome.word(), outcome.word());
        }
    }
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

pub(super) fn expected(step: &ChainStep) -> String {
    format!("{} in transaction {:#x} of block {}", step.step, step.transaction, step.block)
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

const fn word(state: CaseState) -> &'static str {
    match state {
        CaseState::None => "not open",
        CaseState::Open => "open",
        CaseState::Submitted => "submitted",
        CaseState::Disputed => "disputed",
        CaseState::Settled => "settled",
    }
}
