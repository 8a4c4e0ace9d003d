//! Tribunal's engine: all IO around the pure core. The binary `tribunal` is this crate.
//!
//! The way of one event: a message comes from the [`bus`]; [`partition`] decodes, authenticates, decides, folds and
//! writes it to the [`store`] in one synced append; receipts go out; [`effects`] are performed from the outbox, and what
//! comes of them enters like any other input. [`engine`] wires this together. Read models are folds of the store
//! ([`replay`], [`view`]); HTTP, page and commands read those alone.
//!
//! **Invariant:** the store is the truth; the bus is a conveyor, the chain a witness with its own clock.
//! **Invariant:** effects are performed after the append that holds them, at least once, recognised by their id.

pub mod accounts;
pub mod artifacts;
pub mod audit;
pub mod bundle;
pub mod bus;
pub mod chain_observer;
pub mod chain_steps;
pub mod commands;
pub mod config;
pub mod demo;
pub mod effects;
pub mod engine;
pub mod equivocation;
pub mod external;
pub mod failure;
pub mod fence;
pub mod follow;
pub mod http;
pub mod import;
pub mod keystore;
pub mod log;
pub mod market;
pub mod mediator;
pub mod moment;
pub mod outbox;
pub mod partition;
pub mod play_money;
pub mod policy;
pub mod remote_signer;
pub mod replay;
pub mod report;
pub mod reputation;
pub mod seal;
pub mod service;
pub mod store;
pub mod submit;
pub mod view;
pub mod watch;
pub mod whole_file;
pub mod work;
pub mod worker;
