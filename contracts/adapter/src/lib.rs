//! The contracts as the engine sees them: one trait over an EVM in this process and a chain behind JSON-RPC.
//!
//! The crate holds bindings made from the committed artifacts, the steps of a case, and two chains that run the same
//! bytecode. It decides nothing: which step comes when is the engine's, who may take it and what it pays is the
//! contracts'. It keeps no keys but the one that pays for transactions, and verifies no proofs of what a node says.
//!
//! Start reading at [`Chain`], then [`Step`]; `perform.rs` has what both chains share. Under a chain behind JSON-RPC are
//! [`Endpoints`], several nodes as one, and [`Sender`], which sends each effect once.
//!
//! **Invariant:** a step that was already taken is never sent again; its earlier outcome is found on chain.
//! **Invariant:** terms that name another chain or contract are refused before anything is sent.
//! **Invariant:** no node sees a transaction that is not in the journal, where there is one.
//! **Invariant:** the in-process EVM is a function of its steps: the same steps give the same hashes, blocks and gas.

pub mod alkahest;
mod batch;
mod bindings;
mod chain;
mod checkpoints;
mod deploy;
mod endpoints;
mod fault;
mod in_process;
mod json_rpc;
pub mod lilypad;
mod line_file;
mod logs;
mod observer;
mod perform;
mod registry;
mod sender;
mod step;
mod wallet;
mod witness;

pub use alloy::providers::DynProvider as RpcNode;
pub use batch::{Batch, settle_verdicts_calldata};
pub use bindings::{checkpoints_abi, escrow_abi, registry_abi, token_abi};
pub use chain::{BondView, BoxFuture, CaseState, CaseView, Chain, Finding, Mined, SettlementView};
pub use checkpoints::Anchor;
pub use deploy::Addresses;
pub use endpoints::{EndpointFault, EndpointLimits, Endpoints, NoEndpoint, install_tls};
pub use fault::ChainFault;
pub use in_process::{
    IN_PROCESS_CHAIN_ID, IN_PROCESS_DEPLOYER, IN_PROCESS_ESCROW, IN_PROCESS_REGISTRY, IN_PROCESS_TOKEN,
    IN_PROCESS_TREASURY, IN_PROCESS_UNBOND_DELAY_S, InProcessChain,
};
pub use json_rpc::{JsonRpcChain, RpcSettings};
pub use line_file::{LineFile, LineFileFault};
pub use logs::{LogSpan, get_logs_split};
pub use observer::{BlockRef, Cursor, Observed, ObservedLog, Observer, Watched, block_time_s};
pub use perform::SentReceipt;
pub use registry::Registry;
pub use sender::{Sender, SenderSettings};
pub use step::{Step, unbond_delay_needed_s};
pub use wallet::Account;
pub use witness::{CaseEvent, EQUIVOCATION_TOPIC, Witness, WitnessedTransaction};
