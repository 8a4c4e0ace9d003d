//! The verifiers from outside: a request in, a verdict out.

mod artifacts;
mod bench;
mod cache;
mod cids;
mod combined;
mod comparators;
mod deals;
mod descriptions;
mod downloads;
mod folders;
mod input_folders;
mod jobs;
mod limits;
mod modules;
mod proofs;
mod requests;
mod votes;
