//! Past deals of other marketplaces in this store: imported from what their contracts said, replayed by `tribunal audit`.
//!
//! An observation is a contract's log, or a view's answer, raw as a node gave it, signed by this operator as a
//! `foreign_observed` event. One foreign deal is one stream, closed from its beginning, so that the engine's writer never
//! loads it: nobody can speak in it. What observations mean is read from them again each time.
//!
//! Start at [`Deployment`] and [`record()`]; [`file`] and [`node`] are where observations come from, [`rule`] has the
//! marketplace's table, [`replay`] follows it, [`explain`] says what its defects did.
//!
//! **Invariant:** an import writes nothing of a batch of observations that contradict each other or the record.
//! **Invariant:** the same log is recorded once, however often, by whomever and with whatever overlap it is imported.
//! **Invariant:** what a node or a file says is kept, not believed: an audit derives everything else from it again.

pub mod chronicle;
pub mod explain;
pub mod file;
pub mod ledger;
pub mod node;
pub mod record;
pub mod replay;
pub mod rule;
pub mod view;

use tribunal_contracts::{ChainFault, lilypad::history};
use tribunal_events::{Address, B256, Foreign, ForeignRole, ForeignSaid, Marketplace};

pub use self::record::{Tally, record};
use crate::store::StoreFault;

/// The contracts of a Lilypad or CoopHive marketplace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// EIP-155 id of their chain.
    pub chain_id: u64,
    /// Keeps deals.
    pub storage: Address,
    /// Moves money.
    pub payments: Address,
    /// Asks mediators; nothing: not imported.
    pub mediation: Option<Address>,
}

/// A log as a node or a file gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in eth_getLogs")]
pub struct RawLog {
    pub contract: Address,
    pub topics: Vec<B256>,
    pub data: Vec<u8>,
    pub block: u64,
    pub block_hash: B256,
    pub block_time_s: Option<u64>,
    pub transaction: B256,
    pub index: u64,
}

/// Why something is not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportFault {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// More than is taken at once.
    #[error("{what}: {found}, more than {most}; import it in parts")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much.
        found: u64,
        /// The limit.
        most: u64,
    },
    /// No JSON, or not of the form.
    #[error("{place}: {problem}")]
    Malformed {
        /// Where.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// A log that its node took back.
    #[error("{place} is marked as removed: it is of a fork that is not the chain any more")]
    Removed {
        /// Which log.
        place: String,
    },
    /// Two blocks of one number.
    #[error(
        "block {block} has hash {found} here and {known} {}; one of the two is a fork's",
        if *recorded { "in the record" } else { "in the same import" }
    )]
    Fork {
        /// Its number.
        block: u64,
        /// One hash.
        known: B256,
        /// The other.
        found: B256,
        /// Whether the first one is in the record already.
        recorded: bool,
    },
    /// Two things that cannot both be true.
    #[error("{place}: {problem}")]
    Contradiction {
        /// Where.
        place: String,
        /// What contradicts.
        problem: String,
    },
    /// The chain took blocks back while it was imported.
    #[error("the chain reorganised while it was imported; import again, with more --confirmations")]
    Reorganised,
    /// The contracts named make no sense together.
    #[error("{0}")]
    Deployment(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The node failed.
    #[error(transparent)]
    Chain(#[from] ChainFault),
}

impl ImportFault {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::TooMuch { .. } => "too-much",
            Self::Malformed { .. } => "malformed",
            Self::Removed { .. } => "removed",
            Self::Fork { .. } => "fork",
            Self::Contradiction { .. } => "contradiction",
            Self::Reorganised => "reorganised",
            Self::Deployment(_) => "deployment",
            Self::Store(_) => "store",
            Self::Chain(_) => "chain",
        }
    }
}

impl Deployment {
    /// Checks that the contracts are different ones.
    ///
    /// # Errors
    /// [`ImportFault::Deployment`] says what is wrong.
    pub fn new(
        chain_id: u64,
        storage: Address,
        payments: Address,
        mediation: Option<Address>,
    ) -> Result<Self, ImportFault> {
        if storage == payments || mediation.is_some_and(|it| it == storage || it == payments) {
            let sentence = "storage, payments and mediation are three different contracts";
            return Err(ImportFault::Deployment(sentence.into()));
        }
        if chain_id == 0 {
            return Err(ImportFault::Deployment("a chain's id is not 0".into()));
        }
        Ok(Self { chain_id, storage, payments, mediation })
    }

    /// All contracts.
    pub fn contracts(&self) -> Vec<Address> {
        [self.storage, self.payments].into_iter().chain(self.mediation).collect()
    }

    fn role(&self, contract: Address) -> Option<ForeignRole> {
        match contract {
            it if it == self.storage => Some(ForeignRole::Storage),
            it if it == self.payments => Some(ForeignRole::Payments),
            it if Some(it) == self.mediation => Some(ForeignRole::Mediation),
            _ => None,
        }
    }

    /// A log as an observation; nothing where it is of another contract, or about no deal.
    ///
    /// # Errors
    /// [`ImportFault::Malformed`] for what calls itself an event of these contracts and is none.
    pub fn observe(&self, log: RawLog) -> Result<Option<Foreign>, ImportFault> {
        let Some(role) = self.role(log.contract) else { return Ok(None) };
        if !log.topics.first().is_some_and(|topic| history::topics().contains(topic)) {
            return Ok(None);
        }
        let malformed = |problem| ImportFault::Malformed { place: log_place(log.block, log.index), problem };
        let (foreign_id, _) = history::read_log(role, &log.topics, &log.data).map_err(malformed)?;
        let bytes = foreign_id.len();
        if !(1..=tribunal_events::FOREIGN_ID_BYTES_MAX).contains(&bytes) {
            return Err(malformed(format!("the deal's id has {bytes} bytes")));
        }
        let RawLog { contract, topics, data, block, block_hash, block_time_s, transaction, index } = log;
        let said = ForeignSaid::Log { transaction, index, topics, data };
        let place = Place { contract, role, block, block_hash, block_time_s };
        Ok(Some(self.foreign(foreign_id, place, said)))
    }

    fn foreign(&self, foreign_id: String, place: Place, said: ForeignSaid) -> Foreign {
        let Place { contract, role, block, block_hash, block_time_s } = place;
        let (marketplace, chain_id, storage) = (Marketplace::Lilypad, self.chain_id, self.storage);
        Foreign { marketplace, chain_id, storage, foreign_id, contract, role, block, block_hash, block_time_s, said }
    }
}

/// Who said something, and in which block.
struct Place {
    contract: Address,
    role: ForeignRole,
    block: u64,
    block_hash: B256,
    block_time_s: Option<u64>,
}

/// A log in words.
fn log_place(block: u64, index: u64) -> String {
    format!("log {index} of block {block}")
}
