//! Any Ethereum library can sign for this project, and read what it signed: ethers does here what a wallet would.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tribunal_events::{
    B256, Domain, EventId, MoveAction, Protocol, ReceiptStatus, ReportStruct, Signature, SignedVerdict, VerdictKind,
};
use tribunal_fixtures::keys;

use crate::terms;

const WORD: B256 = B256::repeat_byte(0x5a);

fn ethers(asked: &Value) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = root.join("../fixtures/node_modules/ethers/package.json");
    assert!(installed.is_file(), "ethers is not installed: run `npm ci` in fixtures");
    let mut node = Command::new("node")
        .arg(root.join("tests/ethers.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node 20 or newer is needed for this test");
    node.stdin.take().expect("piped").write_all(asked.to_string().as_bytes()).expect("node reads");
    let output = node.wait_with_output().expect("node runs");
    assert!(output.status.success(), "ethers.mjs failed");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn hex32(word: B256) -> String {
    format!("{word}")
}

#[test]
fn ethers_and_this_crate_sign_and_recover_the_same() {
    let terms = terms().drawn(&["m1", "m2", "m3"], 3, 2, 1).build();
    let (key, money) = (keys::key("m1"), terms.money());
    let domains = [terms.domain(), Domain::new(0, Default::default())];
    let account = |account: tribunal_events::Address| format!("{account:?}");
    let panel = keys::addresses(&["m2", "m3", "m1"]);
    let values = json!({
        "DealEvent": { "dealId": terms.deal_id(), "eventHash": hex32(WORD) },
        "Terms": {
            "dealId": hex32(money.dealId), "client": account(money.client), "provider": account(money.provider),
            "token": account(money.token), "treasury": account(money.treasury), "price": money.price.to_string(),
            "pricing": money.pricing, "paymentCollateral": money.paymentCollateral.to_string(),
            "resultsCollateral": money.resultsCollateral.to_string(),
            "submitCollateral": money.submitCollateral.to_string(),
            "judgeCollateral": money.judgeCollateral.to_string(), "mediationFee": money.mediationFee.to_string(),
            "victimBps": money.victimBps, "feeBps": money.feeBps, "mediatorsHash": hex32(money.mediatorsHash),
            "timeoutsHash": hex32(money.timeoutsHash), "rule": money.rule,
        },
        "Verdict": {
            "termsHash": hex32(terms.hash()), "round": 3, "verdict": 2, "instructionCount": u64::MAX.to_string(),
            "digest": hex32(WORD),
        },
        "Report": { "requestDigest": hex32(WORD), "verdictDigest": hex32(terms.hash()) },
        "Receipt": { "eventId": hex32(WORD), "streamVersion": "7", "logPosition": u64::MAX.to_string(), "status": 2 },
        "Move": { "termsHash": hex32(terms.hash()), "action": 2, "instructionCount": "9", "data": hex32(WORD) },
        "Panel": { "termsHash": hex32(terms.hash()), "round": 1, "panelHash": hex32(tribunal_events::Mediation::panel_hash(&panel)) },
        "Silence": { "termsHash": hex32(terms.hash()), "round": 1, "silentHash": hex32(tribunal_events::Mediation::panel_hash(&panel)) },
    });
    let digest = |domain: &Domain, kind: &str| match kind {
        "DealEvent" => domain.event_digest(&terms.deal_id(), &EventId::new(WORD.0)),
        "Terms" => domain.terms_digest(money),
        "Verdict" => domain.verdict_digest(terms.hash(), 3, VerdictKind::Invalid, u64::MAX, WORD),
        "Report" => domain.digest(&ReportStruct { requestDigest: WORD, verdictDigest: terms.hash() }),
        "Receipt" => domain.receipt_digest(&EventId::new(WORD.0), 7, u64::MAX, ReceiptStatus::Duplicate),
        "Move" => domain.move_digest(terms.hash(), MoveAction::Submit, 9, WORD),
        "Panel" => domain.panel_digest(terms.hash(), 1, &panel),
        "Silence" => domain.silence_digest(terms.hash(), 1, &panel),
        other => panic!("no type {other}"),
    };
    let kinds: Vec<_> = values.as_object().expect("an object").keys().cloned().collect();
    let ours: Vec<_> = domains
        .iter()
        .enumerate()
        .flat_map(|(index, domain)| kinds.iter().map(move |kind| (index, domain, kind)))
        .map(|(index, domain, kind)| {
            let signature = format!("0x{}", hex::encode(key.sign(digest(domain, kind)).bytes()));
            json!({ "domain": index, "type": kind, "signature": signature })
        })
        .collect();
    let Protocol::Drawn = terms.mediation.protocol else { panic!("a drawn panel") };
    let mediators: Vec<_> = terms.mediation.mediators.iter().map(|it| account(*it)).collect();
    let timeouts = terms.timeouts;
    let answer = ethers(&json!({
        "secret": format!("0x{}", hex::encode(**key.secret())),
        "domains": domains.map(|domain| json!({
            "name": "Tribunal", "version": "1", "chainId": domain.chain_id(),
            "verifyingContract": account(domain.contract()),
        })),
        "values": values,
        "signatures": ours,
        "mediation": [account(terms.operator), mediators, 3, 2, 1, true, terms.mediation.silence_slash],
        "timeouts": [timeouts.agree_by_s, timeouts.submit_s, timeouts.judge_s, timeouts.draw_s,
            timeouts.availability_s, timeouts.mediate_s],
        "panel": panel.iter().map(|it| account(*it)).collect::<Vec<_>>(),
    }));

    let address = account(key.address());
    assert_eq!(answer["address"], address.as_str());
    let theirs = answer["signed"].as_array().expect("a list");
    assert_eq!(theirs.len(), 2 * kinds.len());
    for signed in theirs {
        let kind = signed["type"].as_str().expect("a type");
        let domain = &domains[signed["domain"].as_u64().expect("an index") as usize];
        let digest = digest(domain, kind);
        assert_eq!(signed["digest"], hex32(digest).as_str(), "{kind}");
        let bytes = hex::decode(&signed["signature"].as_str().expect("hex")[2..]).expect("hex");
        let signature = Signature::from_slice(&bytes).expect("65 bytes, low s, v 27 or 28");
        assert_eq!(signature.recover(digest), Ok(key.address()), "{kind}");
    }
    let recovered = answer["recovered"].as_array().expect("a list");
    assert_eq!(recovered.len(), ours.len());
    assert!(recovered.iter().all(|it| *it == address.as_str()), "{recovered:?}");
    assert_eq!(answer["termsHash"], hex32(terms.hash()).as_str());
    assert_eq!(answer["mediatorsHash"], hex32(money.mediatorsHash).as_str());
    assert_eq!(answer["timeoutsHash"], hex32(money.timeoutsHash).as_str());
    assert_eq!(answer["panelHash"], hex32(tribunal_events::Mediation::panel_hash(&panel)).as_str());
    // The vote as mediators make it is the same typed data.
    let vote = SignedVerdict::sign(&key, &domains[0], terms.hash(), 3, VerdictKind::Invalid, u64::MAX, WORD);
    assert_eq!(vote.signer(&domains[0], terms.hash()), Ok(key.address()));
}
