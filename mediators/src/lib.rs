//! Dispute protocols as pure state machines: who judges, and what a panel's votes come to.
//!
//! [`draw`] turns both parties' seeds into a panel that anyone can draw again; [`Round`] takes commitments and votes
//! and tells the result. It does no IO, keeps no clock and knows no money: the core decides who may say what and when.
//!
//! **Invariant:** a panel is a function of both seeds, the terms hash, the round and the candidates, nothing else.
//! **Invariant:** a tally does not depend on the order of votes.
//! **Invariant:** only votes of the panel count, one a member.

mod draw;
mod round;

pub use draw::{candidates, draw, draw_seed};
pub use round::{Round, RoundError, Tally};
