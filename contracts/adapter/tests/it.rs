//! The same scenarios on both chains, with an expectation of their own of what everybody gets.

#[path = "it/anvil.rs"]
mod anvil;
#[path = "it/artifacts.rs"]
mod artifacts;
#[path = "it/batch.rs"]
mod batch;
#[path = "it/case.rs"]
mod case;
#[path = "it/endpoints.rs"]
mod endpoints;
#[path = "it/fake_node.rs"]
mod fake_node;
#[path = "it/observer.rs"]
mod observer;
#[path = "it/persistent.rs"]
mod persistent;
#[path = "it/proxy.rs"]
mod proxy;
#[path = "it/scenarios.rs"]
mod scenarios;
#[path = "it/sender.rs"]
mod sender;
#[path = "it/witness.rs"]
mod witness;
#[path = "it/world.rs"]
mod world;
