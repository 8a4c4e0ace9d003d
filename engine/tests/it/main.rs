//! Tests of the engine against real parts: RocksDB, nats-server, the in-process EVM, anvil, a browser-less HTTP client.

mod anvil;
mod audit;
mod bundle;
mod bus;
mod chain;
mod cli;
mod crash;
mod demo;
mod dev_chain;
mod earnings;
mod equivocation;
mod follow;
mod http;
mod lilypad;
mod markets;
mod mediator;
mod operate;
mod packaging;
mod policy;
mod registry;
mod remote_signer;
mod service;
mod settlement;
mod store;
mod submit;
mod walkthroughs;
