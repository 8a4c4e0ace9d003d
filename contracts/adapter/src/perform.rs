//! What both chains share: whether a step was taken already, and reading what the contracts keep.

use alloy_primitives::{Bytes, Log};
use alloy_sol_types::{SolCall, SolEvent};
use tribunal_events::{Address, Amount, B256, Outcome, Party, Terms};

use crate::{
    Addresses, BondView, BoxFuture, CaseState, CaseView, ChainFault, Finding, Mined, SettlementView, Step,
    bindings::{escrow::TribunalEscrow, registry::MediatorRegistry},
};

/// A finder gets one in this many of an equivocator's bond, rounded down: the contract's constant.
const FINDER_SHARE: u64 = 10;

/// A transaction that was mined, and its logs.
#[derive(Clone, Debug)]
pub struct SentReceipt {
    /// Where.
    pub mined: Mined,
    /// In their order.
    pub logs: Vec<Log>,
}

/// What a chain must be able to do for the rest of this file.
pub(crate) trait Node: Send + Sync {
    fn addresses(&self) -> Addresses;

    fn chain_id(&self) -> u64;

    /// Runs a call without a transaction.
    fn call<'a>(&'a self, what: &'static str, to: Address, data: Bytes) -> BoxFuture<'a, Result<Bytes, ChainFault>>;

    /// Sends a transaction and waits until it is mined.
    fn send<'a>(
        &'a self,
        what: &'static str,
        to: Address,
        data: Bytes,
    ) -> BoxFuture<'a, Result<SentReceipt, ChainFault>>;

    /// Transactions with an event of `contract` that has this signature and first indexed topic, oldest first.
    fn find<'a>(
        &'a self,
        contract: Address,
        signature: B256,
        topic: B256,
    ) -> BoxFuture<'a, Result<Vec<SentReceipt>, ChainFault>>;
}

/// Takes a step or finds what came of it.
pub(crate) async fn perform(node: &dyn Node, step: &Step) -> Result<Mined, ChainFault> {
    let addresses = node.addresses();
    if let Some(terms) = step.terms() {
        check_contract(node, terms)?;
    }
    if let Some(earlier) = earlier(node, step).await? {
        tracing::debug!(step = step.name(), terms_hash = %step.terms_hash(), "step was taken before");
        return Ok(earlier);
    }
    let to = if matches!(step, Step::SlashEquivocation { .. }) { addresses.registry } else { addresses.escrow };
    match node.send(step.name(), to, step.calldata()).await {
        Ok(receipt) => Ok(with_settlement(addresses.escrow, step.terms_hash(), &receipt)),
        // Somebody else may have been first between the look and the transaction.
        Err(refused @ ChainFault::Reverted { .. }) => match earlier(node, step).await {
            Ok(Some(earlier)) => Ok(earlier),
            // What cannot be looked at is not known to be refused for good.
            Err(fault) if fault.retry_helps() => Err(fault),
            _ => Err(refused),
        },
        Err(fault) => Err(fault),
    }
}

/// Refuses terms that name another chain or contract.
pub(crate) fn check_contract(node: &dyn Node, terms: &Terms) -> Result<(), ChainFault> {
    let (domain, escrow) = (terms.domain(), node.addresses().escrow);
    if (domain.chain_id(), domain.contract()) == (node.chain_id(), escrow) {
        return Ok(());
    }
    Err(ChainFault::OtherContract {
        expected: domain.contract(),
        expected_chain: domain.chain_id(),
        actual: escrow,
        actual_chain: node.chain_id(),
    })
}

/// What came of a step that needs not be taken any more.
async fn earlier(node: &dyn Node, step: &Step) -> Result<Option<Mined>, ChainFault> {
    let Addresses { registry, escrow, .. } = node.addresses();
    let terms_hash = step.terms_hash();
    match step {
        Step::SlashEquivocation { a, .. } => {
            if !bond(node, a.mediator).await?.tombstoned {
                return Ok(None);
            }
            let proven = node.find(registry, MediatorRegistry::EquivocationProven::SIGNATURE_HASH, terms_hash).await?;
            let this = proven.iter().find(|receipt| {
                decoded::<MediatorRegistry::EquivocationProven>(registry, receipt)
                    .any(|event| event.mediator == a.mediator && event.round == a.round)
            });
            return Ok(this.map(|receipt| receipt.mined));
        }
        Step::SlashSilent { round, silent, .. } => {
            for mediator in silent {
                let call =
                    TribunalEscrow::isSilencePunishedCall { termsHash: terms_hash, round: *round, mediator: *mediator };
                if !view(node, escrow, "silence", call).await? {
                    return Ok(None);
                }
            }
            let slashed = node.find(escrow, TribunalEscrow::SilenceSlashed::SIGNATURE_HASH, terms_hash).await?;
            let last = slashed.iter().rfind(|receipt| {
                decoded::<TribunalEscrow::SilenceSlashed>(escrow, receipt)
                    .any(|event| event.round == *round && silent.contains(&event.mediator))
            });
            return Ok(last.map(|receipt| receipt.mined));
        }
        _ => {}
    }
    let case = case(node, terms_hash).await?;
    // The contract says that it happened: a node that does not find it is behind, or is asked too late a part.
    let missing = |event: &str| ChainFault::Unreachable {
        what: format!("{}: the step was taken, but no event {event} is found", step.name()),
        source: "the node is behind, or the first block to search is too high".into(),
    };
    let first = async |signature: B256, event: &str| {
        let found = node.find(escrow, signature, terms_hash).await?;
        let first = found.first().map(|receipt| with_settlement(escrow, terms_hash, receipt));
        first.map(Some).ok_or_else(|| missing(event))
    };
    let taken = match step {
        Step::Open { .. } if case.state >= CaseState::Open => {
            first(TribunalEscrow::CaseOpened::SIGNATURE_HASH, "CaseOpened").await?
        }
        // Another claim than the one on chain is another step, which the contract refuses.
        Step::Submit { count, claim_digest, .. }
            if case.submitted_at_s > 0 && (case.instruction_count, case.claim_digest) == (*count, *claim_digest) =>
        {
            first(TribunalEscrow::ResultSubmitted::SIGNATURE_HASH, "ResultSubmitted").await?
        }
        Step::Dispute { .. } if case.disputed_at_s > 0 => {
            first(TribunalEscrow::CaseDisputed::SIGNATURE_HASH, "CaseDisputed").await?
        }
        Step::Reveal { party, .. } if revealed(&case, *party) => {
            let found = node.find(escrow, TribunalEscrow::SeedRevealed::SIGNATURE_HASH, terms_hash).await?;
            let this = found.iter().find(|receipt| {
                decoded::<TribunalEscrow::SeedRevealed>(escrow, receipt).any(|it| i32::from(it.party) == *party as i32)
            });
            Some(this.ok_or_else(|| missing("SeedRevealed"))?.mined)
        }
        _ if case.state == CaseState::Settled && !matches!(step, Step::Open { .. } | Step::Submit { .. }) => {
            first(TribunalEscrow::CaseSettled::SIGNATURE_HASH, "CaseSettled").await?
        }
        Step::Submit { .. } if case.state == CaseState::Settled && case.submitted_at_s == 0 => {
            first(TribunalEscrow::CaseSettled::SIGNATURE_HASH, "CaseSettled").await?
        }
        _ => None,
    };
    Ok(taken)
}

/// Who showed an equivocation, and what that cost and earned.
pub(crate) async fn finding(
    node: &dyn Node,
    account: Address,
    terms_hash: B256,
    mediator: Address,
    round: u32,
) -> Result<Option<Finding>, ChainFault> {
    let registry = node.addresses().registry;
    let proven = node.find(registry, MediatorRegistry::EquivocationProven::SIGNATURE_HASH, terms_hash).await?;
    let event = proven.iter().find_map(|receipt| {
        decoded::<MediatorRegistry::EquivocationProven>(registry, receipt)
            .find(|event| event.mediator == mediator && event.round == round)
    });
    Ok(event.map(|it| Finding {
        finder: it.finder,
        ours: it.finder == account,
        slashed: Amount::new(it.slashed),
        reward: Amount::new(it.slashed).split(FINDER_SHARE),
    }))
}

fn revealed(case: &CaseView, party: Party) -> bool {
    if party == Party::Client { case.client_revealed } else { case.provider_revealed }
}

/// Events of one kind that a contract emitted in a transaction.
fn decoded<E: SolEvent>(contract: Address, receipt: &SentReceipt) -> impl Iterator<Item = E> {
    let from = receipt.logs.iter().filter(move |log| log.address == contract);
    from.filter_map(|log| E::decode_log(log).ok()).map(|log| log.data)
}

/// With what was paid for this case: a transaction may settle many.
fn with_settlement(escrow: Address, terms_hash: B256, receipt: &SentReceipt) -> Mined {
    let mut settled = decoded::<TribunalEscrow::CaseSettled>(escrow, receipt);
    let settled = settled.find(|it| it.termsHash == terms_hash);
    let settlement = settled.and_then(|it| {
        Some(SettlementView {
            outcome: outcome(it.outcome)?,
            client: Amount::new(it.clientPaid),
            provider: Amount::new(it.providerPaid),
            mediators: Amount::new(it.mediatorsPaid),
            treasury: Amount::new(it.treasuryPaid),
        })
    });
    Mined { settlement, ..receipt.mined }
}

fn outcome(number: u8) -> Option<Outcome> {
    Outcome::try_from(i32::from(number)).ok().filter(|outcome| *outcome != Outcome::Unspecified)
}

/// Calls a function that changes nothing.
pub(crate) async fn view<C: SolCall>(
    node: &dyn Node,
    to: Address,
    what: &'static str,
    call: C,
) -> Result<C::Return, ChainFault> {
    let answer = node.call(what, to, call.abi_encode().into()).await?;
    C::abi_decode_returns(&answer)
        .map_err(|error| ChainFault::Unexpected { what, problem: format!("{to} is no contract of ours: {error}") })
}

/// Reads a case.
pub(crate) async fn case(node: &dyn Node, terms_hash: B256) -> Result<CaseView, ChainFault> {
    let call = TribunalEscrow::caseOfCall { termsHash: terms_hash };
    let it = view(node, node.addresses().escrow, "case", call).await?;
    let state = match it.state {
        0 => CaseState::None,
        1 => CaseState::Open,
        2 => CaseState::Submitted,
        3 => CaseState::Disputed,
        4 => CaseState::Settled,
        other => return Err(ChainFault::Unexpected { what: "case", problem: format!("no state has number {other}") }),
    };
    Ok(CaseView {
        state,
        outcome: outcome(it.outcome),
        opened_at_s: it.openedAt.to(),
        submitted_at_s: it.submittedAt.to(),
        disputed_at_s: it.disputedAt.to(),
        instruction_count: it.instructionCount,
        claim_digest: it.claimDigest,
        client_revealed: it.clientRevealed,
        provider_revealed: it.providerRevealed,
    })
}

/// Reads a balance in the escrow.
pub(crate) async fn balance(node: &dyn Node, token: Address, account: Address) -> Result<Amount, ChainFault> {
    let call = TribunalEscrow::balanceOfCall { token, account };
    view(node, node.addresses().escrow, "balance", call).await.map(Amount::new)
}

/// Reads a bond.
pub(crate) async fn bond(node: &dyn Node, mediator: Address) -> Result<BondView, ChainFault> {
    let it = view(node, node.addresses().registry, "bond", MediatorRegistry::bondOfCall { mediator }).await?;
    Ok(BondView {
        active: Amount::new(it.active),
        unbonding: Amount::new(it.unbonding),
        unbond_at_s: it.unbondAt,
        appointment_slash_max: Amount::new(it.appointmentSlashMax),
        tombstoned: it.tombstoned,
    })
}

/// What a refused call or transaction means.
pub(crate) fn refusal(step: &'static str, data: &[u8]) -> ChainFault {
    use crate::bindings::{Revert, revert};
    match revert(data) {
        Revert::TooEarly(reason) => ChainFault::Reverted { step, reason, too_early: true },
        Revert::Other(reason) => ChainFault::Reverted { step, reason, too_early: false },
        Revert::Insufficient(it) => ChainFault::Insufficient {
            token: it.token,
            account: it.account,
            needed: Amount::new(it.needed),
            available: Amount::new(it.available),
        },
    }
}
