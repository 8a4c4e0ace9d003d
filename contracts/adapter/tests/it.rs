//! The same scenarios on both chains, with an expectation of their own of what everybody gets.

#[path = "it/anvil.rs"]
mod anvil;
#[path = "it/artifacts.rs"]
mod artifacts;
#[path = "it/batch.rs"]
mod batch;
#[path = "it/case.rs"]
mod case;
#[path = "it/proxy.rs"]
mod proxy;
#[path = "it/scenarios.rs"]
mod scenarios;
#[path = "it/world.rs"]
mod world;
