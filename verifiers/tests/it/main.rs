//! The verifiers from outside: a request in, a verdict out.

mod artifacts;
mod bench;
mod combined;
mod comparators;
mod containers;
mod deals;
mod folders;
mod jobs;
mod limits;
mod modules;
mod proofs;
mod requests;
mod votes;
