//! Requests made from signed terms.

use std::sync::Arc;

use prost::Message as _;
use tribunal_events::{Address, Claim, ContentAddress, Termination, Terms, proto};
use tribunal_verifiers::{MemorySource, Method, Request};

use crate::bench::{SERVICE, line, printer};

const fn account(digit: u8) -> Address {
    Address::repeat_byte(digit)
}

/// Terms for a job that prints "hello", and where its module is.
fn terms(method: proto::method::Kind) -> (Terms, MemorySource) {
    let mut source = MemorySource::new();
    let module = source.add(wat::parse_str(printer("hello", "")).expect("a module"));
    let message = proto::Terms {
        version: 1,
        nonce: vec![7; 32],
        members: Some(proto::Members {
            client: account(1).to_vec(),
            provider: account(2).to_vec(),
            solver: Vec::new(),
            operator: account(3).to_vec(),
        }),
        job: Some(proto::Job {
            runtime: "wasm-1".into(),
            module: module.to_string(),
            outputs: vec!["/out".into()],
            limits: Some(proto::Limits { fuel: 1_000_000, memory_bytes: 1 << 20, output_bytes: 100, wall_ms: 60_000 }),
            ..proto::Job::default()
        }),
        method: Some(proto::Method { kind: Some(method) }),
        mediation: Some(proto::Mediation {
            protocol: Some(proto::mediation::Protocol::Appointed(proto::Appointed { redraws: 0 })),
            mediators: vec![account(4).to_vec()],
            silence_slash: "1".into(),
        }),
        pricing: Some(proto::Pricing {
            kind: Some(proto::pricing::Kind::Fixed(proto::FixedPrice { price: "10".into() })),
            payment_collateral: "10".into(),
            results_collateral: "30".into(),
            mediation_fee: "2".into(),
        }),
        timeouts: Some(proto::Timeouts {
            agree_by_s: 1_772_355_600,
            submit_s: 600,
            judge_s: 600,
            draw_s: 0,
            availability_s: 120,
            mediate_s: 240,
            submit_collateral: "1".into(),
            judge_collateral: "1".into(),
        }),
        settlement: Some(proto::Settlement { rule: 1, treasury: account(5).to_vec(), ..proto::Settlement::default() }),
        ..proto::Terms::default()
    };
    (Terms::decode(&message.encode_to_vec()).expect("good terms"), source)
}

fn claim(stdout: &[u8]) -> Claim {
    let message = proto::Claim {
        stdout: ContentAddress::of(stdout).to_string(),
        instruction_count: 1,
        ..proto::Claim::default()
    };
    Claim::parse(&message).expect("a claim")
}

#[test]
fn a_claim_of_a_deal_is_complete() {
    let asked = tribunal_verifiers::Claim::from(&claim(b"hello"));
    assert_eq!(asked.termination, Termination::Exit);
    assert_eq!((asked.exit_code, asked.outputs), (Some(0), Some(Vec::new())));
}

#[test]
fn a_deal_is_re_executed_as_signed() {
    let (terms, source) = terms(proto::method::Kind::Reexecution(proto::Reexecution {}));
    let ask = |stdout: &[u8]| {
        let request = Request::for_deal(&terms, &claim(stdout), &[]);
        assert_eq!(request.deal_id, Some(terms.deal_id()));
        assert_eq!(Request::parse(&request.canonical_json()).expect("it reads back"), request);
        assert_eq!((request.needs().inputs.len(), request.needs().outputs.len()), (1, 1));
        line(&SERVICE.verify_from(&request, &source))
    };
    assert_eq!(ask(b"hello"), "valid ok: the claim is what the job gives");
    assert!(ask(b"help").starts_with("invalid stdout-differs: stdout: expected blake3:"), "nobody serves the lie");
}

#[test]
fn only_the_replicators_that_the_terms_name_vote() {
    let replicator = |digit| proto::Replicator { address: account(digit).to_vec(), weight: 1, score: 0 };
    let rule = proto::Rule { kind: Some(proto::rule::Kind::Quorum(proto::QuorumRule { quorum: 2 })) };
    let majority = proto::Majority { rule: Some(rule), replicators: vec![replicator(6), replicator(7), replicator(8)] };
    let (terms, source) = terms(proto::method::Kind::Majority(majority));
    let replica = |digit, stdout: &[u8]| (account(digit), Arc::new(claim(stdout)));
    let replicas = [replica(6, b"hello"), replica(9, b"lie"), replica(8, b"hello"), replica(10, b"lie")];
    let request = Request::for_deal(&terms, &claim(b"hello"), &replicas);
    assert!(matches!(&request.method, Method::Majority { votes, .. } if votes.len() == 2));
    assert_eq!(line(&SERVICE.verify_from(&request, &source)), "valid ok: 2 of 2 voters agree on the claim");
    let request = Request::for_deal(&terms, &claim(b"lie"), &replicas);
    assert!(line(&SERVICE.verify_from(&request, &source)).starts_with("invalid outvoted"));
}
