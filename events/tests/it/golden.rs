//! Bytes, ids and digests that must be the same for ever. Where one of these changes, every recorded deal breaks.

use expect_test::{Expect, expect};
use tribunal_events::{
    B256, ChainLink, Claim, Digest, Domain, Envelope, EventId, ForeignCall, ForeignSaid, MoveAction, Party, Receipt,
    ReceiptStatus, VerdictKind,
};
use tribunal_fixtures::{Script, keys};

use crate::{claim, foreign, script, terms};

fn check(actual: impl ToString, expected: Expect) {
    expected.assert_eq(&actual.to_string());
}

#[test]
fn terms_have_these_bytes_ids_and_hashes() {
    let terms = terms().build();
    check(
        hex::encode(terms.bytes()),
        expect![
            "08011220389e26209dfc8305c7f33d848252f516a2d7bfcdce3bb962ffe89b4e3a93109b1a420a14c1ca647e019c85f4e2ce5f118c85be67dba92120121458588ebb350853d3bea554e4ca2d5ae760d65f032214ddffb020544a38aad37fffe91af64c331cc8878f229c020a067761736d2d311247626c616b65333a303130313031303130313031303130313031303130313031303130313031303130313031303130313031303130313031303130313031303130313031303130311a036a6f621a052f696e2f6122090a044c414e471201432a47626c616b65333a3032303230323032303230323032303230323032303230323032303230323032303230323032303230323032303230323032303230323032303230323032303232500a052f696e2f611247626c616b65333a303330333033303330333033303330333033303330333033303330333033303330333033303330333033303330333033303330333033303330333033303330333a042f6f75744211088080808080201080804018800820e8072a020a0032020a003a200a001a1491a771b0582849e57e69dd3104a390504c4686a2220635303030303042250a090a07313030303030301a07313230303030302207333030303030312a063230303030334a2008bc8290cd0610d80418d804287830f0013a0631303030303042053530303030520608fa011888275a48080110e9f4011a149fe46736679d2d9a65f0992f2272de9f3c7fa6e022145fbdb2315678afecb367f032d93f642f64180aa32a1432cafbdebb3d9042f34b812269d9a21a0f6c214a"
        ],
    );
    check(terms.deal_id(), expect!["0x3328770f2be470745432471457ffdd19f793f2bf8209e016f6755e7e179284ed"]);
    check(terms.hash(), expect!["0x8aa5de02285a720f44b446d08ed4d15e2885179f3b3628f3abd4eb0f1536c160"]);
    check(
        terms.domain().terms_digest(terms.money()),
        expect!["0x90a5b5580218ccd3c2fa5785355a4d848d7fa4817ce394ce0c49d35edb90bae2"],
    );
    check(
        terms.mediation.hash(terms.operator),
        expect!["0xbae256fb52d40acf54824dd60c89652c8d43e625820ee49c64e42bf4bf28666a"],
    );
    check(terms.timeouts.hash(), expect!["0xbd134d36cda0d47c900b3d47eddaa64bdc0041c3faea9306773620f8c65bf276"]);
}

#[test]
fn an_event_has_these_bytes_this_id_and_this_signature() {
    let script = script();
    let envelope = script.result_submitted(claim());
    check(
        hex::encode(envelope.event()),
        expect![
            "080112203328770f2be470745432471457ffdd19f793f2bf8209e016f6755e7e179284ed1a1458588ebb350853d3bea554e4ca2d5ae760d65f0362f7010ab10108ffffffffffffffffff01108080808080808080101a477368613235363a3034303430343034303430343034303430343034303430343034303430343034303430343034303430343034303430343034303430343034303430343034303422510a062f6f75742f6212477368613235363a3035303530353035303530353035303530353035303530353035303530353035303530353035303530353035303530353035303530353035303530353035303512410921b319f9c87d7b1dbd7385e23929462acd734331198ebdbe8c79acc6ebb6e10516b2e6ee1218addf33eaae9997428ea0f371470caff61a45ac27d6514552111c"
        ],
    );
    check(envelope.event_id(), expect!["0xfc0eeb88ae3c6d943895f758f2c57956501cb10aa58b737a4f9a7f6aa58d84f6"]);
    let digest = script.terms().domain().event_digest(&script.terms().deal_id(), &envelope.event_id());
    check(digest, expect!["0xeb82aa92b98d8fae30d91bfd1690ddf45d7b3dbeb6ac8d201ea1b058845a5814"]);
    // RFC 6979: the same key and digest give the same signature.
    check(
        hex::encode(envelope.signature()),
        expect![
            "692ac8f7fd7e86183e917bf263ae107f398430fcfcb84f3dda3d0bd67660433b01bd81484dc93d0c2e9c4cc0ddd4d79282e93f3977601a53312a9ba0096099f31b"
        ],
    );
    check(
        Claim::parse(&claim()).expect("a claim").digest(),
        expect!["0x33e9e53dd0e0f6bea34192013264da8829c419dfcf6a04ff6861f3d3b52dd110"],
    );
}

#[test]
fn typed_data_has_these_digests() {
    let domain = Domain::new(31337, keys::address("treasury"));
    let word = B256::repeat_byte(7);
    check(
        domain.move_digest(word, MoveAction::Submit, 5, word),
        expect!["0x3ec481de0888d539b2b24c54eaed6442e63654603a7273de0ca0d84d43731460"],
    );
    check(
        domain.verdict_digest(word, 2, VerdictKind::Invalid, 5, word),
        expect!["0x349ada627ea6b5b26a8c29b3dcbb187618ceae70804d797f2e05c172ff521c35"],
    );
    check(
        domain.receipt_digest(&EventId::new([9; 32]), 3, 4, ReceiptStatus::Duplicate),
        expect!["0x0a3e365861979f841eefc98a26d4009bc09c552eda980d2fdfbd34091abcaea7"],
    );
    check(
        domain.panel_digest(word, 1, &keys::addresses(&["m1", "m2"])),
        expect!["0xc6ca091fe25ed6279ca3badf100e8534efa552c4383329bec50bb680a7d6413f"],
    );
    check(
        domain.silence_digest(word, 1, &keys::addresses(&["m1", "m2"])),
        expect!["0xcf8da07b644f815fc45556ddffcdc80d026f036191b21dfabb00572ea5a856c9"],
    );
    let report = tribunal_events::ReportStruct { requestDigest: word, verdictDigest: B256::repeat_byte(8) };
    check(domain.digest(&report), expect!["0x00c2974e810ada2bf0d5b0be293890cb030ab023fb876bda846a10fcac476ce9"]);
}

#[test]
fn an_imported_observation_has_these_bytes_and_ids() {
    let log = foreign(ForeignSaid::Log {
        transaction: B256::repeat_byte(4),
        index: 5,
        topics: vec![B256::repeat_byte(6)],
        data: vec![7; 3],
    });
    check(log.deal_id(), expect!["0xa0c67b0da8cc761d0bb1327e9bbf6fb155b540d1fe219cc0ccf9a9a90751ae73"]);
    let signed = Envelope::sign(&log.event(), &Domain::default(), &keys::key("operator")).expect("32 bytes");
    check(
        hex::encode(signed.event()),
        expect![
            "08011220a0c67b0da8cc761d0bb1327e9bbf6fb155b540d1fe219cc0ccf9a9a90751ae731a14ddffb020544a38aad37fffe91af64c331cc8878fea02c1010a076c696c7970616410eedd191a1401010101010101010101010101010101010101012206516d4465616c2a140101010101010101010101010101010101010101320773746f726167653802422003030303030303030303030303030303030303030303030303030303030303034880e2cfaa06524b0a20040404040404040404040404040404040404040404040404040404040404040410051a2006060606060606060606060606060606060606060606060606060606060606062203070707"
        ],
    );
    check(signed.event_id(), expect!["0x2553245bbc3e98e4b41c5eeacd3c241c0c628d749380ac9cc6e7cd1d88d7e206"]);
    let answer = foreign(ForeignSaid::Answer { call: ForeignCall::GetDeal, data: vec![8; 3] });
    let again = Envelope::sign(&answer.event(), &Domain::default(), &keys::key("operator")).expect("32 bytes");
    check(again.event_id(), expect!["0x08dc30d217c8a2d438db3748b69cf74bb7b47b7d0e9cbc8daad657513bb8ccb9"]);
}

#[test]
fn a_commitment_and_a_chain_link_are_these() {
    let script = script();
    let vote = script.vote(&keys::key("m1"), 0, VerdictKind::Valid, 5, "ok");
    let commitment = vote.verdict.commitment(&script.terms().domain(), script.terms().hash(), &[1; 32]);
    check(hex::encode(commitment), expect!["7c66cd8276be654178256bc12033f49a4bb5a4aedf05a20f985ec43dd8dce723"]);
    check(
        ChainLink::GENESIS.extend(b"one").extend(b"two"),
        expect!["0x5df0456a1d553fa388196c12d5b06a0ca749a5181fe7cc82ced202ed5d25373f"],
    );
    check(Digest::blake3(b""), expect!["0xaf1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"]);
}

#[test]
fn a_signed_receipt_opens_to_what_was_signed() {
    let operator = keys::key("operator");
    let receipt = Receipt {
        event_id: EventId::new([1; 32]),
        deal_id: script().terms().deal_id(),
        stream_version: 3,
        log_position: 9,
        status: ReceiptStatus::Refused,
        reason_code: "too-late".into(),
        reason: "`accepted` came too late".into(),
        domain: script().terms().domain(),
    };
    let signed = receipt.sign(&operator);
    assert_eq!(Receipt::open(&signed), Ok((receipt, operator.address())));
    let mut moved = signed.clone();
    moved.log_position += 1;
    assert_ne!(Receipt::open(&moved).map(|(_, signer)| signer), Ok(operator.address()));
    let mut elsewhere = signed;
    elsewhere.chain_id = 1;
    assert_ne!(Receipt::open(&elsewhere).map(|(_, signer)| signer), Ok(operator.address()));
}

#[test]
fn who_says_the_same_as_another_says_another_event() {
    let script: Script = script();
    let stdout = claim().stdout;
    let missing = |name| script.artifact_missing(&keys::key(name), 0, &stdout, Party::Provider).event_id();
    assert_ne!(missing("m1"), missing("m2"));
}
