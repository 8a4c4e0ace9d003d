//! The deal's state machine: pure functions from recorded events to state, from inputs to new events, and from events
//! to effects. No clock, no randomness, no IO: time and identity come in as data, so that replay decides alike.
//!
//! Start reading at [`Deal`] (state), [`decide`] (what may happen), [`evolve`] (what it changes), [`react`] (what is to
//! be done about it), [`next_deadline`] and [`Settlement`] (who is paid what).
//!
//! **Invariant:** `decide` only proposes what `evolve` accepts; replay runs `evolve` alone.
//! **Invariant:** what is paid out of a deal is exactly what was locked in it.
//! **Invariant:** a settled deal keeps its outcome and its payouts for ever; a reorganisation of the chain can put another
//! transaction in the place of the one that moved the money, nothing else.
//! **Invariant:** nothing but recorded terms and events decides an outcome.

mod deadline;
mod deal;
mod decide;
mod evolve;
mod react;
mod rejection;
mod settlement;

pub use deadline::{Deadline, DeadlineKind, next_deadline, voting_deadline};
pub use deal::{Consent, Consents, Deal, Decision, Dispute, Phase, REORGANISED, Replicas, Request, Submission};
pub use decide::{ChainReport, Context, DealEvent, Input, decide};
pub use evolve::evolve;
pub use react::{Effect, EffectKind, react};
pub use rejection::Rejection;
pub use settlement::{Settlement, price};
