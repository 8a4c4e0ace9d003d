//! The verifiers from outside: a request in, a verdict out.

mod aggregates;
mod artifacts;
mod attacks;
mod bench;
mod canonical;
mod combined;
mod comparators;
mod deals;
mod determinism;
mod folders;
mod fuzz;
mod jobs;
mod limits;
mod modules;
mod proofs;
mod requests;
mod samples;
mod votes;
