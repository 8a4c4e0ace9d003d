use serde::Serialize;
use tribunal_events::{Address, Amount, B256, Outcome};

use crate::{ChainFault, Step};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = futures::future::BoxFuture<'a, T>;

/// A chain that holds the escrow.
pub trait Chain: Send + Sync {
    /// EIP-155 id, as in the terms.
    fn chain_id(&self) -> u64;

    /// The escrow, as in the terms.
    fn escrow(&self) -> Address;

    /// For people: "in-process EVM", "JSON-RPC at 127.0.0.1:8545".
    fn describe(&self) -> String;

    /// Takes a step, unless it was taken already: then what came of it. A step that would settle a case that is settled
    /// gives that settlement, whatever its outcome; compare [`SettlementView::outcome`].
    ///
    /// # Errors
    /// [`ChainFault::retry_helps`] says whether to try again.
    fn perform<'a>(&'a self, step: &'a Step) -> BoxFuture<'a, Result<Mined, ChainFault>>;

    /// The case of these terms; [`CaseState::None`] where there is none.
    ///
    /// # Errors
    /// Where the chain cannot be read.
    fn case(&self, terms_hash: B256) -> BoxFuture<'_, Result<CaseView, ChainFault>>;

    /// What an account has in the escrow and is not locked in a case.
    ///
    /// # Errors
    /// Where the chain cannot be read.
    fn balance(&self, token: Address, account: Address) -> BoxFuture<'_, Result<Amount, ChainFault>>;

    /// A mediator's bond.
    ///
    /// # Errors
    /// Where the chain cannot be read.
    fn bond(&self, mediator: Address) -> BoxFuture<'_, Result<BondView, ChainFault>>;

    /// Who showed that `mediator` equivocated in this round, if somebody did.
    ///
    /// # Errors
    /// Where the chain cannot be read.
    fn finding(
        &self,
        terms_hash: B256,
        mediator: Address,
        round: u32,
    ) -> BoxFuture<'_, Result<Option<Finding>, ChainFault>>;

    /// Tells a chain without a clock of its own that it is `now_s` (unix seconds); never goes back. Others ignore it.
    ///
    /// # Errors
    /// None today.
    fn advance_time(&self, now_s: u64) -> BoxFuture<'_, Result<(), ChainFault>>;
}

/// A transaction in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mined {
    /// Transaction hash; in process a hash of the transaction's number, data and caller.
    pub transaction: B256,
    /// Block number.
    pub block: u64,
    /// The block's unix time.
    pub block_time_s: u64,
    /// Gas that it took.
    pub gas_used: u64,
    /// What it paid, if it settled the case.
    pub settlement: Option<SettlementView>,
}

/// What `CaseSettled` says: what was credited to whom, together all that was locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SettlementView {
    /// Which row of the table.
    #[serde(serialize_with = "word")]
    pub outcome: Outcome,
    /// To the client.
    pub client: Amount,
    /// To the provider.
    pub provider: Amount,
    /// To all voters together, in equal parts.
    pub mediators: Amount,
    /// To the treasury, what rounding left included.
    pub treasury: Amount,
}

fn word<S: serde::Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(outcome.word())
}

/// How far a case has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CaseState {
    /// Never opened.
    None,
    /// Both agreed and locked.
    Open,
    /// The provider submitted.
    Submitted,
    /// The client disputed.
    Disputed,
    /// Paid out.
    Settled,
}

/// A case as the contract keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaseView {
    /// How far it has come.
    pub state: CaseState,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// Unix time of opening, 0 before.
    pub opened_at_s: u64,
    /// Unix time of the result, 0 before.
    pub submitted_at_s: u64,
    /// Unix time of the dispute, 0 before.
    pub disputed_at_s: u64,
    /// Claimed with the result.
    pub instruction_count: u64,
    /// BLAKE3 of the encoded claim, zero before.
    pub claim_digest: B256,
    /// The client's seed is known.
    pub client_revealed: bool,
    /// The provider's seed is known.
    pub provider_revealed: bool,
}

/// What `EquivocationProven` says, in base units of the bond token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Who showed it first.
    pub finder: Address,
    /// Whether that is the account that this chain's transactions come from.
    pub ours: bool,
    /// The whole bond.
    pub slashed: Amount,
    /// The finder's share, which it collects.
    pub reward: Amount,
}

/// A mediator's stake, in base units of the bond token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BondView {
    /// Bonded.
    pub active: Amount,
    /// On its way out, still at stake.
    pub unbonding: Amount,
    /// Unix time from which that is paid, 0 if never started.
    pub unbond_at_s: u64,
    /// At most this is slashed for silence in a case that appoints it, without the operator's word.
    pub appointment_slash_max: Amount,
    /// Shown to have equivocated; never again.
    pub tombstoned: bool,
}
