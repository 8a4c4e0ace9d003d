//! Requests made from signed terms.

use std::sync::Arc;

use tribunal_events::{Address, Claim, Comparator, ContentAddress, Termination, Terms, proto};
use tribunal_verifiers::{MemorySource, Method, Request};

use crate::bench::{SERVICE, printer};

/// A claim of a job that prints "hello".
fn claim(stdout: &[u8]) -> Claim {
    let message = proto::Claim {
        stdout: ContentAddress::of(stdout).to_string(),
        instruction_count: 1,
        ..proto::Claim::default()
    };
    Claim::parse(&message).expect("a claim")
}

#[test]
fn a_claim_of_a_deal_becomes_a_claim_of_a_request() {
    let claim = claim(b"hello");
    let asked = tribunal_verifiers::Claim::from(&claim);
    assert_eq!(asked.termination, Termination::Exit);
    assert_eq!(asked.exit_code, Some(0));
    assert_eq!(asked.outputs, Some(Vec::new()), "a deal's claim is complete");
}
