//! Nothing that comes off a wire makes this crate panic, and nothing but what was signed gets through it.

use proptest::prelude::*;
use prost::Message;
use tribunal_events::{
    Address, B256, DecodeError, Domain, ENVELOPE_BYTES_MAX, Envelope, EventKind, Foreign, ForeignCall, ForeignSaid,
    Party, SignatureError, SignedEvent, Terms, VerdictKind, proto, proto::event::Kind,
};
use tribunal_fixtures::{Script, chain, keys};

use crate::{claim, foreign, script, terms};

/// One envelope of every kind that is sent.
fn envelopes() -> Vec<Envelope> {
    let script = Script::new(terms().drawn(&["m1", "m2", "m3"], 3, 2, 1).build());
    let m1 = keys::key("m1");
    let vote = script.vote(&m1, 0, VerdictKind::Invalid, 7, "output-differs");
    let stdout = claim().stdout;
    vec![
        script.proposed(Party::Client),
        script.agreed(Party::Provider),
        script.result_submitted(claim()),
        script.replica_submitted(&keys::key("r1"), claim()),
        script.accepted(),
        script.disputed("no"),
        script.seed_revealed(Party::Client),
        script.artifact_requested(&m1, 0, &stdout, Party::Provider),
        script.artifact_missing(&m1, 0, &stdout, Party::Provider),
        script.artifact_served(Party::Provider, &stdout),
        script.vote_committed(&m1, &vote),
        script.vote_revealed(&m1, &vote),
        script.verdict_given(&m1, &vote),
        script.withdrawn(Party::Provider),
    ]
}

/// The whole way in.
fn take(bytes: &[u8]) -> Result<SignedEvent, String> {
    let parsed = Envelope::decode(bytes).and_then(Envelope::parse).map_err(|error| error.code().to_owned())?;
    parsed.authenticate(&chain::domain()).map_err(|error| error.to_string())
}

fn code(envelope: Envelope) -> &'static str {
    envelope.parse().expect_err("malformed").code()
}

fn event(kind: Kind) -> proto::Event {
    proto::Event {
        schema_version: 1,
        deal_id: script().terms().deal_id().bytes().to_vec(),
        sender: keys::address("client").to_vec(),
        kind: Some(kind),
    }
}

fn unsigned(event: &proto::Event) -> Envelope {
    Envelope::from_parts(event.encode_to_vec(), script().accepted().signature().to_vec())
}

#[test]
fn every_kind_gets_through_as_it_was_sent() {
    for envelope in envelopes() {
        let event = take(&envelope.encode()).expect("well-formed");
        assert_eq!((event.envelope(), event.id()), (&envelope, envelope.event_id()));
    }
}

#[test]
fn an_envelope_cut_off_anywhere_is_refused() {
    for envelope in envelopes() {
        let bytes = envelope.encode();
        for length in 0..bytes.len() {
            assert!(take(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
        }
    }
}

#[test]
fn an_event_cut_off_anywhere_is_not_what_was_signed() {
    for envelope in envelopes() {
        for length in 0..envelope.event().len() {
            let cut = Envelope::from_parts(envelope.event()[..length].to_vec(), envelope.signature().to_vec());
            assert!(take(&cut.encode()).is_err());
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    for envelope in envelopes() {
        let honest = take(&envelope.encode()).expect("well-formed");
        let bytes = envelope.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(event) = take(&flipped) {
                // What is left to flip is the framing around the same event.
                assert_eq!((event.id(), event.signer()), (honest.id(), honest.signer()), "bit {bit}");
            }
        }
    }
}

#[test]
fn terms_with_a_flipped_bit_are_other_terms_or_none() {
    let bytes = terms().bytes();
    let id = terms().build().deal_id();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(terms) = Terms::decode(&flipped) {
            assert_ne!(terms.deal_id(), id);
        }
    }
    for length in 0..bytes.len() {
        assert!(Terms::decode(&bytes[..length]).map_or(true, |terms| terms.deal_id() != id));
    }
}

#[test]
fn an_envelope_has_a_limit() {
    assert_eq!(Envelope::decode(&vec![0; ENVELOPE_BYTES_MAX + 1]), Err(DecodeError::Oversized(ENVELOPE_BYTES_MAX + 1)));
    assert_eq!(DecodeError::Oversized(0).code(), "oversized");
    let padded = Envelope::from_parts(vec![0; ENVELOPE_BYTES_MAX - 75], vec![0; 65]);
    assert!(padded.encode().len() <= ENVELOPE_BYTES_MAX);
    assert!(Envelope::decode(&padded.encode()).is_ok());
}

#[test]
fn every_field_has_a_limit() {
    let long = |bytes: usize| "x".repeat(bytes);
    let disputed =
        |bytes| unsigned(&event(Kind::Disputed(proto::Disputed { reason: long(bytes), ..Default::default() })));
    assert!(disputed(2048).parse().is_ok());
    assert_eq!(code(disputed(2049)), "malformed-field");
    let file = |index: u32| proto::ClaimedFile { path: format!("/out/{index:05}"), artifact: claim().stdout };
    let submitted = |count: u32| {
        let claim = proto::Claim { outputs: (0..count).map(file).collect(), ..claim() };
        unsigned(&event(Kind::ResultSubmitted(proto::ResultSubmitted { claim: Some(claim), ..Default::default() })))
    };
    assert!(submitted(1024).parse().is_ok());
    assert_eq!(code(submitted(1025)), "malformed-field");
    let voters = |count: usize| {
        let voters = vec![vec![1; 20]; count];
        unsigned(&event(Kind::VerdictReached(proto::VerdictReached { outcome: 2, voters, ..Default::default() })))
    };
    assert!(voters(64).parse().is_ok());
    assert_eq!(code(voters(65)), "malformed-field");
}

#[test]
fn what_is_no_event_is_refused_with_its_code() {
    let accepted = event(Kind::Accepted(proto::Accepted::default()));
    let with = |change: fn(&mut proto::Event)| {
        let mut event = accepted.clone();
        change(&mut event);
        code(unsigned(&event))
    };
    assert_eq!(with(|event| event.schema_version = 0), "schema-version");
    assert_eq!(with(|event| event.schema_version = 2), "schema-version");
    assert_eq!(with(|event| event.deal_id = vec![0; 31]), "malformed-field");
    assert_eq!(with(|event| event.deal_id.clear()), "malformed-field");
    assert_eq!(with(|event| event.sender.clear()), "malformed-field");
    assert_eq!(with(|event| event.sender = vec![0; 32]), "malformed-field");
    assert_eq!(with(|event| event.kind = None), "malformed-field");
    assert_eq!(code(Envelope::from_parts(vec![0xff; 9], Vec::new())), "malformed");
    assert_eq!(Envelope::decode(&[0xff; 9]).expect_err("malformed").code(), "malformed");
    assert_eq!(Envelope::decode(b"{\"event\": 1}").expect_err("malformed").code(), "malformed");
    assert_eq!(Envelope::decode(b"{\xff}").expect_err("malformed").code(), "malformed");
    assert_eq!(code(Envelope::from_parts(accepted.encode_to_vec(), vec![0; 65])), "malformed-signature");
    let mut other = event(Kind::Proposed(script().proposed_message(Party::Client)));
    other.deal_id = vec![1; 32];
    assert_eq!(code(unsigned(&other)), "terms-mismatch");
}

#[test]
fn fields_of_a_wrong_shape_are_refused_by_name() {
    let vote = script().vote(&keys::key("m1"), 0, VerdictKind::Valid, 7, "ok");
    let verdict = Script::verdict_message(&vote);
    let given = |change: fn(&mut proto::Verdict)| {
        let mut verdict = verdict.clone();
        change(&mut verdict);
        Kind::VerdictGiven(proto::VerdictGiven { verdict: Some(verdict) })
    };
    let submitted = |change: fn(&mut proto::Claim)| {
        let mut claim = claim();
        change(&mut claim);
        Kind::ResultSubmitted(proto::ResultSubmitted { claim: Some(claim), ..Default::default() })
    };
    fn entry(name: &str, value: &str) -> proto::EnvironmentEntry {
        proto::EnvironmentEntry { name: name.into(), value: value.into() }
    }
    let cases: Vec<(Kind, &str)> = vec![
        (given(|it| it.verdict = 0), "verdict"),
        (given(|it| it.verdict = 4), "verdict"),
        (given(|it| it.digest = vec![0; 33]), "verdict.digest"),
        (given(|it| it.signature.clear()), "verdict.signature"),
        (given(|it| it.reason_code = "x".repeat(65)), "verdict.reason_code"),
        (Kind::VerdictGiven(proto::VerdictGiven { verdict: None }), "verdict is missing"),
        (submitted(|it| it.stdout = "stdout.txt".into()), "claim.stdout"),
        (submitted(|it| it.outputs[0].path = "out/b".into()), "claim.outputs.path"),
        (submitted(|it| it.outputs[0].artifact.make_ascii_uppercase()), "claim.outputs.artifact"),
        (submitted(|it| it.outputs.push(it.outputs[0].clone())), "claim.outputs"),
        (submitted(|it| it.termination = "crash".into()), "claim.termination"),
        (submitted(|it| it.termination = "trap".into()), "claim.exit_code"),
        (submitted(|it| it.proof = it.stdout.clone()), "claim.public_inputs"),
        (submitted(|it| it.environment = vec![entry("driver", "1"), entry("device", "a")]), "claim.environment"),
        (submitted(|it| it.environment = vec![entry("device", "a"), entry("device", "b")]), "claim.environment"),
        (submitted(|it| it.environment = vec![entry("Device", "a")]), "claim.environment"),
        (submitted(|it| it.environment = vec![entry("device", "")]), "claim.environment"),
        (
            submitted(|it| it.environment = (0..17).map(|index| entry(&format!("n{index:02}"), "x")).collect()),
            "claim.environment",
        ),
        (Kind::ResultSubmitted(proto::ResultSubmitted::default()), "claim is missing"),
        (Kind::SeedRevealed(proto::SeedRevealed { seed: vec![0; 31], ..Default::default() }), "seed_revealed.seed"),
        (Kind::VoteCommitted(proto::VoteCommitted::default()), "vote_committed.commitment"),
        (Kind::Accepted(proto::Accepted { move_signature: vec![1; 64] }), "accepted.move_signature"),
        (
            Kind::ArtifactRequested(proto::ArtifactRequested { artifact: claim().stdout, party: 3, round: 0 }),
            "artifact_requested.party",
        ),
        (Kind::Settled(proto::Settled { outcome: 0, ..Default::default() }), "settled.outcome"),
    ];
    for (kind, field) in cases {
        let error = unsigned(&event(kind)).parse().expect_err("malformed");
        assert!(error.to_string().contains(field), "{error} does not name {field}");
    }
}

#[test]
fn unknown_fields_are_kept_in_the_bytes_and_signed() {
    let script = script();
    let mut bytes = script.accepted().event().to_vec();
    bytes.extend([0x98, 0x06, 0x01]); // field 99, varint 1
    let id = tribunal_events::EventId::of_event(&bytes);
    let digest = script.terms().domain().event_digest(&script.terms().deal_id(), &id);
    let signature = keys::key("client").sign(digest).bytes().to_vec();
    let event = take(&Envelope::from_parts(bytes.clone(), signature).encode()).expect("well-formed");
    assert_eq!((event.envelope().event(), event.id()), (bytes.as_slice(), id));
    assert_ne!(event.id(), script.accepted().event_id());
}

#[test]
fn an_unknown_kind_is_refused_not_ignored() {
    let mut bytes = proto::Event { kind: None, ..event(Kind::Accepted(proto::Accepted::default())) }.encode_to_vec();
    bytes.extend([0xf2, 0x01, 0x00]); // field 30, empty message
    assert_eq!(code(Envelope::from_parts(bytes, vec![1; 65])), "malformed-field");
}

#[test]
fn a_sender_that_did_not_sign_is_found_out() {
    let (script, stranger) = (script(), keys::key("stranger"));
    let event = script.accepted().event().to_vec();
    let id = tribunal_events::EventId::of_event(&event);
    let digest = script.terms().domain().event_digest(&script.terms().deal_id(), &id);
    let forged = Envelope::from_parts(event, stranger.sign(digest).bytes().to_vec());
    let error = forged.parse().expect("well-formed").authenticate(&script.terms().domain()).expect_err("forged");
    let expected = SignatureError::Sender { expected: keys::address("client"), found: stranger.address() };
    assert_eq!(error, expected);
}

#[test]
fn a_signature_of_another_deals_domain_is_nobodys_here() {
    let elsewhere = Script::new(terms().without_contract().build());
    let parsed = elsewhere.accepted().parse().expect("well-formed");
    let error = parsed.authenticate(&script().terms().domain()).expect_err("another domain");
    assert!(matches!(error, SignatureError::Sender { .. }));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = take(&bytes);
        let _ = take(&Envelope::from_parts(bytes.clone(), vec![1; 65]).encode());
        let _ = Terms::decode(&bytes);
        let _ = Envelope::from_parts(bytes, Vec::new()).deal_id_hint();
    }

    #[test]
    fn no_mixture_of_events_makes_it_panic(
        which in 0usize..14,
        at in any::<prop::sample::Index>(),
        splice in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let envelope = &envelopes()[which];
        let mut event = envelope.event().to_vec();
        let at = at.index(event.len());
        event.splice(at..(at + splice.len()).min(event.len()), splice.iter().copied());
        let changed = event != envelope.event();
        let taken = take(&Envelope::from_parts(event, envelope.signature().to_vec()).encode());
        prop_assert_eq!(taken.is_err(), changed);
    }
}

#[test]
fn an_imported_observation_gets_through_as_it_was_made() {
    let log = ForeignSaid::Log { transaction: B256::ZERO, index: 1, topics: vec![B256::ZERO; 4], data: vec![1, 2] };
    let answer = ForeignSaid::Answer { call: ForeignCall::GetResult, data: Vec::new() };
    for said in [log, answer] {
        for time in [None, Some(7)] {
            let observed = Foreign { block_time_s: time, ..foreign(said.clone()) };
            let envelope =
                Envelope::sign(&observed.event(), &Domain::default(), &keys::key("operator")).expect("an id");
            let parsed = Envelope::decode(&envelope.encode()).and_then(Envelope::parse).expect("well-formed");
            let signed = parsed.authenticate(&Domain::default()).expect("signed");
            assert_eq!(signed.kind(), &EventKind::ForeignObserved(observed.clone().into()));
            assert!(signed.kind().is_engine() && signed.deal_id() == observed.deal_id());
        }
    }
}

#[test]
fn an_imported_observation_of_another_shape_is_refused() {
    let good = foreign(ForeignSaid::Answer { call: ForeignCall::GetDeal, data: vec![1] }).message();
    let of = |message: proto::ForeignObserved| {
        let storage = Address::from_slice(&[&message.storage[..], &[0; 20]].concat()[..20]);
        let id = tribunal_events::DealId::imported(message.chain_id, &storage.0.0, &message.foreign_id);
        proto::Event { deal_id: id.bytes().to_vec(), ..event(Kind::ForeignObserved(message)) }
    };
    assert!(unsigned(&of(good.clone())).parse().is_ok());
    let other = proto::Event { deal_id: vec![1; 32], ..of(good.clone()) };
    assert_eq!(code(unsigned(&other)), "foreign-mismatch");
    let long = vec![0; 64 * 1024 + 1];
    let wrong: [&dyn Fn(&mut proto::ForeignObserved); 11] = [
        &|it| it.marketplace = "another".into(),
        &|it| it.storage = vec![1; 19],
        &|it| it.contract = Vec::new(),
        &|it| it.foreign_id = String::new(),
        &|it| it.foreign_id = "x".repeat(513),
        &|it| it.role = "owner".into(),
        &|it| it.block_hash = vec![1; 31],
        &|it| it.said = None,
        &|it| it.said = Some(said_answer("getAgreement", Vec::new())),
        &|it| it.said = Some(said_answer("getDeal", long.clone())),
        &|it| {
            let topics = vec![vec![0; 32]; 5];
            let log = proto::ForeignLog { transaction: vec![0; 32], index: 0, topics, data: Vec::new() };
            it.said = Some(proto::foreign_observed::Said::Log(log));
        },
    ];
    for (index, alter) in wrong.into_iter().enumerate() {
        let mut message = good.clone();
        alter(&mut message);
        assert_eq!(code(unsigned(&of(message))), "malformed-field", "{index}");
    }
}

fn said_answer(call: &str, data: Vec<u8>) -> proto::foreign_observed::Said {
    proto::foreign_observed::Said::Answer(proto::ForeignAnswer { call: call.into(), data })
}
