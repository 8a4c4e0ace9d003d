//! What happened in a deal and who signed it.
//!
//! This crate holds the protobuf schema, the ids, the EIP-712 signatures and the validated forms of terms, claims,
//! verdicts and events. It does no IO, keeps no clock, and decides nothing: the deal's rules are in `tribunal-core`.
//!
//! Start reading at [`Envelope`] (bytes off the wire), then [`Terms`] (what both parties signed), then [`EventKind`].
//!
//! What a log says of itself, and proofs against that, are in [`tlog`].
//!
//! **Invariant:** the bytes received are the bytes verified, hashed, stored and handed on; nothing is encoded again.
//! **Invariant:** a [`SignedEvent`] exists only with a recovered signer, so unverified data cannot reach the core.
//! **Invariant:** money is an [`Amount`]; every operation on it is checked.

mod amount;
mod claim;
mod comparator;
mod domain;
mod envelope;
mod event;
mod foreign;
mod id;
pub mod json;
mod receipt;
mod signature;
mod terms;
mod time;
pub mod tlog;
mod verdict;

/// Generated protobuf messages; field meanings are in `proto/tribunal/v1/tribunal.proto`.
pub mod proto {
    #![allow(missing_docs, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/tribunal.v1.rs"));

    /// The schema's `FileDescriptorSet`, encoded.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

pub use alloy_primitives::{Address, B256, U256};
pub use amount::{Amount, Bps};
pub use claim::{Claim, ClaimedFile, Termination, check_environment};
pub use comparator::{Band, Comparator, ComparatorProblem, Metric, Over, SequentialTest, ToplocErrors};
pub use domain::{
    Domain, LogHeadStruct, Move, MoveAction, PanelStruct, ReportStruct, SilenceStruct, TermsStruct, UpdateStruct,
    VerdictStruct, WorkResultStruct,
};
pub use envelope::{DecodeError, ENVELOPE_BYTES_MAX, Envelope, ParsedEvent, SignFault, SignedEvent};
pub use event::{EventKind, Payout, Role, VerdictVote};
pub use foreign::{FOREIGN_ID_BYTES_MAX, Foreign, ForeignCall, ForeignRole, ForeignSaid, Marketplace};
pub use id::{ChainLink, ContentAddress, DealId, Digest, EventId, IdError};
pub use proto::{Outcome, Party};
pub use receipt::{Receipt, ReceiptStatus};
pub use signature::{SECRET_BYTES, Signature, SignatureError, Signer, SignerFault, SigningKey};
pub use terms::{
    Job, JobInput, Limits, Mediation, Method, Pricing, ProofBinding, Protocol, Replicator, Rule, Terms, TermsError,
    Timeouts,
};
pub use time::Timestamp;
pub use verdict::{SignedVerdict, VerdictKind};
