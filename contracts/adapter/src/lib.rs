//! The contracts as the engine sees them: one trait over an EVM in this process and a chain behind JSON-RPC.
//!
//! The crate holds bindings made from the committed artifacts, the steps of a case, and two chains that run the same
//! bytecode. It decides nothing: which step comes when is the engine's, who may take it and what it pays is the
//! contracts'. It keeps no keys but the one that pays for transactions, and verifies no proofs of what a node says.
//!
//! Start reading at [`Chain`], then [`Step`]; `perform.rs` has what both chains share.
//!
//! **Invariant:** a step that was already taken is never sent again; its earlier outcome is found on chain.
//! **Invariant:** terms that name another chain or contract are refused before anything is sent.
//! **Invariant:** the in-process EVM is a function of its steps: the same steps give the same hashes, blocks and gas.

mod batch;
mod bindings;
mod chain;
mod deploy;
mod fault;
mod in_process;
mod json_rpc;
mod perform;
mod registry;
mod step;
mod wallet;

pub use batch::{Batch, settle_verdicts_calldata};
pub use bindings::{checkpoints_abi, escrow_abi, registry_abi, token_abi};
pub use chain::{BondView, BoxFuture, CaseState, CaseView, Chain, Finding, Mined, SettlementView};
pub use deploy::Addresses;
pub use fault::ChainFault;
pub use in_process::{
    IN_PROCESS_CHAIN_ID, IN_PROCESS_DEPLOYER, IN_PROCESS_ESCROW, IN_PROCESS_REGISTRY, IN_PROCESS_TOKEN,
    IN_PROCESS_TREASURY, IN_PROCESS_UNBOND_DELAY_S, InProcessChain,
};
pub use json_rpc::{JsonRpcChain, install_tls};
pub use registry::Registry;
pub use step::{Step, unbond_delay_needed_s};
