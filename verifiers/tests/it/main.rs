//! The verifiers from outside: a request in, a verdict out.

mod aggregates;
mod artifacts;
mod attacks;
mod bench;
mod cache;
mod canonical;
mod cids;
mod combined;
mod comparators;
mod containers;
mod deals;
mod descriptions;
mod determinism;
mod downloads;
mod folders;
mod fuzz;
mod input_folders;
mod jobs;
mod limits;
mod modules;
mod proofs;
mod requests;
mod samples;
mod votes;
