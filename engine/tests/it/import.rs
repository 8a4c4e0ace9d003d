//! Past deals of other marketplaces: hand-made logs of every outcome, logs of contracts on a real node, and logs that lie.

mod tape;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use alloy_primitives::U256;
use alloy_sol_types::SolEvent as _;
use prost::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tribunal_contracts::lilypad::{
    DealState,
    calls::{acceptResultCall, addResultCall},
    history::encode,
};
use tribunal_engine::{
    audit::{AuditOptions, AuditReport, Scope, audit},
    bundle::{ExportFault, export},
    http::read,
    import::{Deployment, ImportFault, Tally, file, node, record, view::imported},
    replay,
    store::{Fsync, Store},
    view,
};
use tribunal_events::{Address, DealId, Domain, Envelope, EventKind, Foreign, ForeignSaid, Timestamp, proto};
use tribunal_fixtures::keys;

use self::tape::{CLIENT, MEDIATOR, PROVIDER, START_S, Tape, Terms, account, deployment, scenes, tokens};
use crate::lilypad::{World, abi};

/// A day after the first block of the hand-made logs.
fn a_day_later() -> Timestamp {
    Timestamp::from_s(START_S + 86_400)
}

/// A store with nothing in it.
struct Place {
    folder: TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store"), Fsync::Never).unwrap();
        Self { folder, store }
    }

    fn write(&self, json: &Value) -> PathBuf {
        let path = self.folder.path().join("logs.json");
        std::fs::write(&path, json.to_string()).unwrap();
        path
    }

    fn import(&self, chain_id: u64, json: &Value) -> Result<Tally, ImportFault> {
        let (observations, ignored) = file::read(&self.write(json), &deployment(chain_id))?;
        let tally = record(&self.store, &keys::key("operator"), a_day_later(), observations)?;
        Ok(Tally { ignored, ..tally })
    }

    fn audit(&self) -> AuditReport {
        audit(&self.store, Scope::All, AuditOptions::default()).unwrap()
    }
}

/// What each account gained, in whole tokens: client, provider, mediator, owner of the token.
fn gained(place: &Place, deal: &DealId) -> [i64; 4] {
    let imported = imported(&place.store, deal, None).unwrap().unwrap();
    let net = |name: &str| {
        let found = imported.accounts().into_iter().find(|(who, ..)| *who == account(name));
        found.map_or(0, |(_, _, it)| whole(&it.net()))
    };
    let owner = (imported.replay.ledger.slashed / tokens(1)).to::<i64>();
    [net(CLIENT), net(PROVIDER), net(MEDIATOR), owner]
}

fn whole(net: &str) -> i64 {
    let digits = net.trim_start_matches(['+', '-']);
    let units: U256 = digits.parse().unwrap();
    assert_eq!(units % tokens(1), U256::ZERO, "{net}");
    let whole = (units / tokens(1)).to::<i64>();
    if net.starts_with('-') { -whole } else { whole }
}

fn codes(report: &AuditReport) -> Vec<&'static str> {
    let mut codes: Vec<_> = report.notes.iter().map(|note| note.code).filter(|code| *code != "imported").collect();
    codes.sort_unstable();
    codes
}

fn deal_id(tape: &Tape) -> DealId {
    DealId::imported(tape.chain_id, &account("storage").0.0, &tape.deal)
}

/// State, gains and notes of every scene whose logs contradict nothing.
type Row = (&'static str, DealState, [i64; 4], &'static [&'static str]);

const TABLE: [Row; 18] = [
    ("accepted", DealState::ResultsAccepted, [-10, 10, 0, 0], &[]),
    ("mediated-valid", DealState::MediationAccepted, [-15, 10, 5, 0], &["mediation-cut-short"]),
    (
        "mediated-invalid",
        DealState::MediationRejected,
        [-5, -40, 5, 40],
        &["guilt-or-fault", "mediation-cut-short", "victim-unpaid"],
    ),
    ("cost-above-payment", DealState::ResultsAccepted, [-30, 30, 0, 0], &["unpaid-work"]),
    ("late-result", DealState::ResultsAccepted, [-10, 10, 0, 0], &["late-result"]),
    ("nothing-at-stake", DealState::ResultsAccepted, [0, 0, 0, 0], &["nothing-at-stake"]),
    ("cheat-escapes", DealState::TimeoutMediateResults, [0, 0, 0, 0], &["cheat-escapes", "mediation-cut-short"]),
    (
        "mediator-silent",
        DealState::TimeoutMediateResults,
        [0, 0, 0, 0],
        &["cheat-escapes", "mediation-cut-short", "mediator-silent"],
    ),
    (
        "mediator-awaited",
        DealState::ResultsChecked,
        [-35, -40, 0, 0],
        &["escape-open", "mediation-cut-short", "unclaimed"],
    ),
    ("two-mediators", DealState::MediationAccepted, [-15, 10, 5, 0], &["drawn-by-time", "mediation-cut-short"]),
    ("no-result", DealState::DealAgreed, [-40, -10, 0, 0], &["hostage"]),
    ("no-judgement", DealState::ResultsSubmitted, [-40, -40, 0, 0], &["hostage"]),
    ("one-side", DealState::DealNegotiating, [-40, 0, 0, 0], &["unclaimed"]),
    ("agree-timeout", DealState::TimeoutAgree, [0, 0, 0, 0], &[]),
    ("agree-timeout-stranded", DealState::TimeoutAgree, [-3, 0, 0, 0], &["stranded"]),
    ("agree-timeout-borrowed", DealState::TimeoutAgree, [6, 0, 0, 0], &["borrowed"]),
    ("submit-timeout", DealState::TimeoutSubmitResults, [0, -10, 0, 10], &["not-as-deployed"]),
    ("judge-timeout", DealState::TimeoutJudgeResults, [-40, 0, 0, 10], &["not-as-deployed", "stranded"]),
];

#[test]
fn every_outcome_is_replayed_to_the_published_money_and_its_defects_explained() {
    let scenes = scenes();
    for (name, state, money, notes) in TABLE {
        let (_, tape) = scenes.iter().find(|(scene, _)| *scene == name).unwrap();
        let place = Place::new();
        let tally = place.import(tape.chain_id, &tape.json()).unwrap();
        assert_eq!((tally.deals, tally.ignored), (1, 0), "{name}");
        let report = place.audit();
        assert_eq!(report.discrepancies, [], "{name}");
        assert!(report.is_clean() && report.outcomes["imported"] == 1 && report.signatures == tally.recorded, "{name}");
        let imported = imported(&place.store, &deal_id(tape), None).unwrap().unwrap();
        assert_eq!(imported.replay.state, state, "{name}");
        assert_eq!(gained(&place, &deal_id(tape)), money, "{name}");
        assert_eq!(codes(&report), notes, "{name}: {:#?}", report.notes);
    }
    // Every scene is in the table, or is the forged one.
    assert_eq!(scenes.len(), TABLE.len() + 1);
}

#[test]
fn the_notes_say_how_much_is_lost_and_why() {
    let text = |name: &str, code: &str| {
        let (_, tape) = scenes().into_iter().find(|(scene, _)| *scene == name).unwrap();
        let place = Place::new();
        place.import(tape.chain_id, &tape.json()).unwrap();
        place.audit().notes.into_iter().find(|note| note.code == code).unwrap().text
    };
    let stranded = text("judge-timeout", "stranded");
    assert!(
        stranded.starts_with(&format!("30 tokens of the client {:#x} stays in escrow", account(CLIENT))),
        "{stranded}"
    );
    assert!(stranded.contains("meant was 10 tokens to the provider and 20 tokens back to the client"), "{stranded}");
    let escapes = text("cheat-escapes", "cheat-escapes");
    assert!(escapes.contains("101 s after the check, though the terms gave the mediator 3600 s"), "{escapes}");
    assert!(escapes.contains("has 40 tokens back"), "{escapes}");
    assert!(text("cheat-escapes", "mediation-cut-short").contains("end the mediation after 100 s"));
    assert!(text("late-result", "late-result").starts_with("the result came 1400 s after its time was over"));
    let hostage = text("no-result", "hostage");
    // 40 and 10 of the parties; the provider had until 12 + 3600 s.
    assert!(hostage.contains("40 tokens of the client") && hostage.contains("10 tokens of the provider"), "{hostage}");
    assert!(
        hostage.contains("82788 s after the time was over") && hostage.contains("reverts as deployed"),
        "{hostage}"
    );
    assert!(text("agree-timeout-stranded", "stranded").starts_with("3 tokens of the client"));
    assert!(text("agree-timeout-borrowed", "borrowed").starts_with("6 tokens more went back to the client"));
    let victim = text("mediated-invalid", "victim-unpaid");
    assert!(victim.contains("40 tokens to the owner") && victim.contains("paid the mediator 5 tokens"), "{victim}");
    assert!(text("cost-above-payment", "unpaid-work").contains("cost 50 tokens, the provider was paid 30 tokens"));
}

#[test]
fn logs_that_break_the_marketplaces_rules_are_discrepancies() {
    let place = Place::new();
    let (_, tape) = scenes().into_iter().find(|(scene, _)| *scene == "forged").unwrap();
    place.import(tape.chain_id, &tape.json()).unwrap();
    let report = place.audit();
    let found: Vec<_> = report.discrepancies.iter().map(|it| it.code).collect();
    for code in ["transition", "conservation", "mediator", "order"] {
        assert!(found.contains(&code), "{code}: {:#?}", report.discrepancies);
    }
    let transition = report.discrepancies.iter().find(|it| it.code == "transition").unwrap();
    assert_eq!(transition.expected, "DealAgreed or TimeoutAgree");
    assert_eq!(transition.found, "MediationAccepted after DealNegotiating");
}

/// One thing wrong in an otherwise whole deal: which discrepancies an audit makes of it.
fn discrepancies(alter: impl FnOnce(Tape) -> Tape) -> Vec<(&'static str, String)> {
    let place = Place::new();
    let tape = alter(Tape::new(1, "Qm", Terms::default()));
    place.import(tape.chain_id, &tape.json()).unwrap();
    place.audit().discrepancies.into_iter().map(|it| (it.code, it.found)).collect()
}

#[test]
fn each_lie_is_found_by_its_own_code() {
    use tribunal_contracts::lilypad::history::{Direction as D, Reason as R};
    let one = |found: Vec<(&'static str, String)>, code: &str, part: &str| {
        assert!(found.len() == 1 && found[0].0 == code && found[0].1.contains(part), "{code}: {found:#?}");
    };
    // A payment that is missing, one too many, one of another sum, one to somebody else.
    let submitted = |it: Tape| it.agreed().after(600).submitted(1);
    let state = |it: Tape| submitted(it).after(60).state(DealState::ResultsAccepted);
    let settled = |it: Tape, who: &str, cost: u64| {
        it.pay(who, cost, R::JobPayment, D::PaidOut).pay(CLIENT, 20, R::PaymentCollateral, D::Refunded).pay(
            PROVIDER,
            40,
            R::ResultsCollateral,
            D::Refunded,
        )
    };
    one(discrepancies(|it| settled(state(it), PROVIDER, 10)), "payments", "nothing");
    let refunded = |it: Tape| it.pay(CLIENT, 10, R::TimeoutCollateral, D::Refunded);
    one(discrepancies(|it| refunded(settled(state(it), PROVIDER, 9))), "payments", "9 tokens as job payment");
    one(
        discrepancies(|it| refunded(settled(state(it), "stranger", 10))),
        "payments",
        &format!("{:#x}", account("stranger")),
    );
    one(
        discrepancies(|it| submitted(it).after(60).accepted(1).after(9).pay("stranger", 1, R::JobPayment, D::PaidIn)),
        "payments",
        "1 tokens",
    );
    // More out than in is told beside the payment that does it.
    let twice = discrepancies(|it| refunded(submitted(it).after(60).accepted(1)));
    assert_eq!(twice.iter().map(|it| it.0).collect::<Vec<_>>(), ["conservation", "payments"], "{twice:#?}");
    // A timeout before its time, by one second.
    let early = |it: Tape| submitted(it).after(3_500).checked().after(100).mediate_timeout(1);
    one(discrepancies(early), "too-early", &format!("at {}", START_S + 12 + 600 + 3_600));
    // States after the end, results that differ, mediators that nobody agreed to.
    one(
        discrepancies(|it| submitted(it).after(60).accepted(1).after(60).state(DealState::TimeoutMediateResults)),
        "transition",
        "TimeoutMediateResults after ResultsAccepted",
    );
    let other = |it: Tape| {
        let mut it = submitted(it);
        it.reads.truncate(1);
        let second = Tape::new(1, "Qm", Terms::default()).agreed().after(600).submitted(2);
        it.reads.push(second.reads[1].clone());
        it
    };
    assert!(discrepancies(other).iter().any(|it| it.0 == "result"));
    let stranger = |it: Tape| {
        let it = submitted(it).after(60).state(DealState::ResultsChecked);
        let it = refunded(it).pay(CLIENT, 5, R::MediationFee, D::PaidIn);
        it.asked(account("stranger"))
    };
    one(discrepancies(stranger), "mediator", &format!("{:#x}", account("stranger")));
    one(discrepancies(|it| submitted(it).after(9).added(1)), "order", "a result alone");
}

#[test]
fn the_order_of_a_file_does_not_matter_and_a_second_import_adds_nothing() {
    let (_, tape) = scenes().into_iter().find(|(scene, _)| *scene == "mediated-invalid").unwrap();
    let (first, second) = (Place::new(), Place::new());
    let whole = first.import(tape.chain_id, &tape.json()).unwrap();
    let mut shuffled = tape.json();
    shuffled["logs"].as_array_mut().unwrap().reverse();
    shuffled["reads"].as_array_mut().unwrap().reverse();
    second.import(tape.chain_id, &shuffled).unwrap();
    let ids = |place: &Place| place.store.log(1).map(|record| record.unwrap().link).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&second), "the same bytes, whatever the order");
    let again = first.import(tape.chain_id, &tape.json()).unwrap();
    assert_eq!((again.recorded, again.known), (0, whole.recorded));
    // By another operator, too, and without the blocks' times.
    let mut timeless = tape.json();
    for log in timeless["logs"].as_array_mut().unwrap() {
        log.as_object_mut().unwrap().remove("blockTimestamp");
    }
    let (observations, _) = file::read(&first.write(&timeless), &deployment(tape.chain_id)).unwrap();
    let by_other = record(&first.store, &keys::key("m1"), a_day_later(), observations).unwrap();
    assert_eq!((by_other.recorded, first.store.last_position()), (0, whole.recorded));
    // Overlapping parts, the later one first: replayed in the order of the chain.
    let parts = Place::new();
    let part = |range: std::ops::Range<usize>| json!({ "logs": tape.logs[range].to_vec() });
    parts.import(tape.chain_id, &part(8..tape.logs.len())).unwrap();
    parts.import(tape.chain_id, &part(0..12)).unwrap();
    parts.import(tape.chain_id, &json!({ "logs": [], "reads": tape.reads })).unwrap();
    assert_eq!(parts.store.last_position(), whole.recorded);
    assert!(parts.audit().is_clean());
    assert_eq!(gained(&parts, &deal_id(&tape)), [-5, -40, 5, 40]);
}

#[test]
fn one_foreign_id_on_two_chains_is_two_deals() {
    let place = Place::new();
    let tape = |chain_id| Tape::new(chain_id, "QmSame", Terms::default()).agreed();
    let one = tape(421_614).after(600).submitted(1).after(60).accepted(1);
    let other = tape(42_161);
    place.import(one.chain_id, &one.json()).unwrap();
    place.import(other.chain_id, &other.json()).unwrap();
    assert_ne!(deal_id(&one), deal_id(&other));
    let report = place.audit();
    assert!(report.is_clean() && report.deals == 2, "{report:#?}");
    let state = |tape: &Tape| imported(&place.store, &deal_id(tape), None).unwrap().unwrap().replay.state;
    assert_eq!((state(&one), state(&other)), (DealState::ResultsAccepted, DealState::DealAgreed));
}

#[test]
fn figures_that_were_not_read_are_said_and_nothing_is_made_up() {
    let place = Place::new();
    let (_, tape) = scenes().into_iter().find(|(scene, _)| *scene == "mediated-valid").unwrap();
    let mut logs = tape.logs.clone();
    logs.iter_mut().for_each(|log| drop(log.as_object_mut().unwrap().remove("blockTimestamp")));
    place.import(tape.chain_id, &Value::Array(logs)).unwrap();
    let report = place.audit();
    assert!(report.is_clean(), "{:#?}", report.discrepancies);
    assert_eq!(codes(&report), ["unread", "unread"]);
    assert_eq!(gained(&place, &deal_id(&tape)), [-15, 10, 5, 0]);
}

#[test]
fn the_files_in_the_repository_are_these() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/markets/lilypad/hand-made");
    for (name, tape) in scenes() {
        let text = serde_json::to_string_pretty(&tape.json()).unwrap() + "\n";
        expect_test::expect_file![folder.join(format!("{name}.json"))].assert_eq(&text);
    }
}

#[test]
fn bad_input_is_refused_by_name_and_nothing_is_written() {
    let place = Place::new();
    let good = Tape::new(1, "Qm", Terms::default()).agreed();
    let refused = |code: &str, part: &str, json: Value| {
        let fault = place.import(1, &json).unwrap_err();
        assert!(fault.code() == code && fault.to_string().contains(part), "{code}: {}: {fault}", fault.code());
        assert_eq!(place.store.last_position(), 0, "{code} {part}");
    };
    let logs = |change: &dyn Fn(&mut Value)| {
        let mut logs = good.logs.clone();
        change(logs.last_mut().unwrap());
        Value::Array(logs)
    };
    for (json, part) in [
        (json!(7), "an array of logs"),
        (json!([7]), "log 1"),
        (json!({}), "logs are missing"),
        (json!({ "logs": [], "more": 1 }), "\"more\""),
        (json!({ "logs": [{}] }), "missing field"),
        (json!({ "logs": [], "reads": [{ "call": "getDeal" }] }), "read 1"),
    ] {
        refused("malformed", part, json);
    }
    refused("malformed", "log 4: ", logs(&|log| log["blockNumber"] = json!("-1")));
    refused(
        "malformed",
        "not as the contract encodes it",
        logs(&|log| {
            let longer = format!("{}00", log["data"].as_str().unwrap());
            log["data"] = longer.into();
        }),
    );
    refused(
        "malformed",
        "Payment(",
        logs(&|log| {
            let data = log["data"].as_str().unwrap();
            log["data"] = data[..data.len() - 64].into();
        }),
    );
    refused("malformed", "no event of the storage contract", logs(&|log| log["address"] = json!(account("storage"))));
    refused(
        "malformed",
        "Payment(",
        logs(&|log| {
            let topic = log["topics"][0].clone();
            log["topics"] = json!([topic, topic]);
        }),
    );
    refused("removed", "of a fork", logs(&|log| log["removed"] = json!(true)));
    refused("fork", "in the same import", logs(&|log| log["blockHash"] = json!(alloy_primitives::B256::ZERO)));
    refused("contradiction", "its time is", logs(&|log| log["blockTimestamp"] = json!(7)));
    refused(
        "contradiction",
        "is in block",
        logs(&|log| log["transactionHash"] = good.logs[0]["transactionHash"].clone()),
    );
    // Two different logs at one place.
    let mut twice = good.logs.clone();
    let mut other = Tape::new(1, "Qm", Terms { judge_collateral: 9, ..Terms::default() }).agreed().logs.pop().unwrap();
    other["logIndex"] = good.logs.last().unwrap()["logIndex"].clone();
    twice.push(other);
    refused("contradiction", "with different contents", Value::Array(twice));
    // A deal that the storage does not know, and an answer about another one.
    let mut reads = good.json();
    reads["reads"][0]["dealId"] = json!("QmOther");
    refused("malformed", "is about deal \"Qm\"", reads);
    // No JSON at all.
    let path = place.folder.path().join("garbage");
    for garbage in [&b"\xff\xfe"[..], b"", b"[", b"{\"logs\":[]} x"] {
        std::fs::write(&path, garbage).unwrap();
        assert_eq!(file::read(&path, &deployment(1)).unwrap_err().code(), "malformed");
    }
    assert_eq!(file::read(Path::new("nowhere"), &deployment(1)).unwrap_err().code(), "unreadable");
    let same = Deployment::new(1, account("storage"), account("storage"), None).unwrap_err();
    assert_eq!(
        (same.code(), Deployment::new(0, account("storage"), account("payments"), None).unwrap_err().code()),
        ("deployment", "deployment")
    );
}

#[test]
fn what_contradicts_the_record_is_refused_and_the_record_stays() {
    let place = Place::new();
    let tape = Tape::new(1, "Qm", Terms::default()).agreed();
    place.import(1, &tape.json()).unwrap();
    let before = place.store.last_position();
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut json = tape.json();
        change(&mut json);
        let fault = place.import(1, &json).unwrap_err();
        assert_eq!(place.store.last_position(), before);
        fault.code()
    };
    let other_block = |json: &mut Value| {
        json["logs"].as_array_mut().unwrap().truncate(1);
        json["reads"] = json!([]);
        json["logs"][0]["blockHash"] = json!(alloy_primitives::B256::repeat_byte(9));
    };
    assert_eq!(refused(&other_block), "fork");
    let other_log = |json: &mut Value| {
        let it = encode::Payment {
            dealId: "Qm".into(),
            payee: account(PROVIDER),
            amount: U256::from(1),
            reason: 2,
            direction: 0,
        };
        json["logs"][0]["data"] = json!(it.encode_log_data().data);
    };
    assert_eq!(refused(&other_log), "contradiction");
    let other_answer = |json: &mut Value| {
        let other = Tape::new(1, "Qm", Terms { fee: 6, ..Terms::default() }).agreed();
        json["reads"] = Value::Array(other.reads);
    };
    assert_eq!(refused(&other_answer), "contradiction");
    assert!(place.audit().is_clean());
}

#[test]
fn too_many_logs_are_refused_before_they_fill_the_memory() {
    let place = Place::new();
    let mut log = Tape::new(1, "Qm", Terms::default()).provider_agrees().logs.remove(0);
    // Of somebody else's, and more than are taken.
    log["address"] = json!(Address::ZERO);
    let mut text = String::from("[");
    let one = log.to_string();
    for _ in 0..file::FILE_ENTRIES_MAX {
        text.push_str(&one);
        text.push(',');
    }
    text.push_str(&one);
    text.push(']');
    let path = place.folder.path().join("many.json");
    std::fs::write(&path, text).unwrap();
    assert_eq!(file::read(&path, &deployment(1)).unwrap_err().code(), "too-much");
    // Too many about one deal.
    let mut tape = Tape::new(1, "Qm", Terms::default());
    for _ in 0..=tribunal_engine::import::record::DEAL_OBSERVATIONS_MAX {
        tape = tape.pay(
            CLIENT,
            1,
            tribunal_contracts::lilypad::history::Reason::JobPayment,
            tribunal_contracts::lilypad::history::Direction::PaidIn,
        );
    }
    assert_eq!(place.import(1, &tape.json()).unwrap_err().code(), "too-much");
    assert_eq!(place.store.last_position(), 0);
    // Many deals in one import are written in batches.
    let mut logs = Vec::new();
    for number in 0..1_500u64 {
        let mut tape = Tape::new(1, &format!("Qm{number}"), Terms::default());
        for _ in 0..number {
            tape = tape.after(0);
        }
        logs.extend(tape.client_agrees().logs);
    }
    let tally = place.import(1, &Value::Array(logs)).unwrap();
    assert_eq!((tally.deals, tally.recorded, place.store.last_position()), (1_500, 3_000, 3_000));
    assert!(place.store.check(|_| {}).unwrap().damage.is_empty());
}

#[test]
fn read_models_tell_imported_deals_beside_others() {
    let place = Place::new();
    let (_, tape) = scenes().into_iter().find(|(scene, _)| *scene == "judge-timeout").unwrap();
    place.import(tape.chain_id, &tape.json()).unwrap();
    let id = deal_id(&tape);
    assert!(replay::load(&place.store, &id).unwrap().is_none(), "nothing that the engine's writer could go on with");
    assert!(place.store.open_deals().unwrap().is_empty() && !place.store.head(&id).unwrap().unwrap().open);
    let page = read::deals(&place.store, 0, 10, None).unwrap();
    let summary = serde_json::to_value(&page.deals[0]).unwrap();
    assert_eq!(
        (page.total, &summary["state"], &summary["outcome"]),
        (1, &json!("imported"), &json!("TimeoutJudgeResults"))
    );
    assert_eq!(summary["imported"]["foreign_id"], "QmWorked");
    assert_eq!(summary["client"], json!(account(CLIENT)));
    let deal = read::deal(&place.store, &id, None).unwrap().unwrap();
    let client = deal["accounts"].as_array().unwrap().iter().find(|it| it["role"] == "client").unwrap().clone();
    assert_eq!(client["in_escrow"], "30000000000000000000");
    assert_eq!(client["net"], "-40000000000000000000");
    assert_eq!(deal["token_owner"], "10000000000000000000");
    assert!(deal["notes"].as_array().unwrap().iter().any(|note| note["code"] == "stranded"));
    // As it stood: after the provider's payment alone.
    let then = read::deal(&place.store, &id, Some(1)).unwrap().unwrap();
    assert_eq!((&then["outcome"], &then["version"]), (&json!("DealNegotiating"), &json!(1)));
    assert!(read::deal(&place.store, &id, Some(0)).unwrap().is_none());
    assert_eq!(view::deals(&place.store, Some(3)).unwrap().len(), 1);
    let events = read::events(&place.store, &id, 1, 1, None).unwrap().unwrap();
    assert_eq!(events["events"][0]["kind"], "foreign_observed");
    assert_eq!(events["events"][0]["event"]["foreign_observed"]["foreign_id"], "QmWorked");
    assert!(matches!(export(&place.store, &id, None), Err(ExportFault::Imported(_))));
}

#[test]
fn a_record_that_was_changed_or_that_somebody_else_wrote_is_found() {
    let (_, tape) = scenes().into_iter().find(|(scene, _)| *scene == "accepted").unwrap();
    let place = Place::new();
    place.import(tape.chain_id, &tape.json()).unwrap();
    // The same deal as a record tells it, with one sum changed and without its signature, by the next record.
    let last = place.store.record(place.store.last_position()).unwrap().unwrap();
    let append = |event: proto::Event, sign: bool| {
        let copy = Place::new();
        copy.import(tape.chain_id, &tape.json()).unwrap();
        let key = keys::key("operator");
        let signed = Envelope::sign(&event, &Domain::default(), &key).unwrap();
        let signature = if sign { signed.signature() } else { last.envelope.signature() };
        let envelope = Envelope::from_parts(signed.event().to_vec(), signature.to_vec());
        let new = tribunal_engine::store::NewRecord { envelope, signer: key.address(), recorded_at: last.recorded_at };
        let stream = tribunal_engine::store::StreamAppend {
            deal_id: deal_id(&tape),
            expected_version: last.version,
            records: vec![new],
            open: false,
            snapshot: None,
        };
        let append = tribunal_engine::store::Append { streams: vec![stream], ..Default::default() };
        copy.store.append(append).unwrap();
        copy.audit().discrepancies.into_iter().map(|it| it.code).collect::<Vec<_>>()
    };
    let EventKind::ForeignObserved(observed) = last.envelope.clone().parse().unwrap().into_kind() else { panic!() };
    let foreign = Foreign {
        block: observed.block + 1,
        block_hash: alloy_primitives::B256::repeat_byte(3),
        ..(*observed).clone()
    };
    let it = encode::Payment {
        dealId: "QmWorked".into(),
        payee: account(CLIENT),
        amount: tokens(10),
        reason: 2,
        direction: 2,
    };
    let log = it.encode_log_data();
    let paid = |foreign: &Foreign, index| {
        let (topics, data) = (log.topics().to_vec(), log.data.to_vec());
        let said = ForeignSaid::Log { transaction: foreign.block_hash, index, topics, data };
        Foreign { role: tribunal_events::ForeignRole::Payments, contract: account("payments"), said, ..foreign.clone() }
    };
    assert_eq!(append(paid(&foreign, 0).event(), true), ["conservation", "payments"]);
    assert_eq!(append(paid(&foreign, 0).event(), false), ["conservation", "payments", "signature"]);
    // Another log where one is known, another contract, another block of that number.
    assert_eq!(append(paid(&observed, 0).event(), true), ["log-twice"]);
    let elsewhere = Foreign { contract: account("elsewhere"), ..paid(&foreign, 0) };
    assert!(append(elsewhere.event(), true).contains(&"contract"));
    let fork = Foreign { block: observed.block, ..paid(&foreign, 0) };
    assert!(append(fork.event(), true).contains(&"fork"));
    let strange = Foreign {
        said: ForeignSaid::Log { transaction: foreign.block_hash, index: 0, topics: vec![], data: vec![] },
        ..foreign.clone()
    };
    assert_eq!(append(strange.event(), true), ["log"]);
    // Nobody speaks in an imported deal.
    let accepted = proto::event::Kind::Accepted(proto::Accepted::default());
    let event = proto::Event { kind: Some(accepted), ..foreign.event() };
    assert_eq!(append(event, true), ["event"]);
    assert!(proto::Event::decode(last.envelope.event()).is_ok());
}

#[test]
fn nobody_speaks_in_an_imported_deal_and_the_writer_goes_on() {
    let mut engine = crate::audit::Engine::new();
    engine.refuses = true;
    let (_, tape) = scenes().into_iter().find(|(scene, _)| *scene == "no-result").unwrap();
    let place = Place::new();
    let (observations, _) = file::read(&place.write(&tape.json()), &deployment(tape.chain_id)).unwrap();
    let more = observations[0].clone();
    let now = Timestamp::from_s(tribunal_fixtures::START_S);
    let tally = record(&engine.store, &keys::key("operator"), now, observations).unwrap();
    // Not even what the operator's own import would record.
    let accepted = proto::event::Kind::Accepted(proto::Accepted::default());
    let more = Foreign { block: more.block + 9, block_hash: alloy_primitives::B256::ZERO, ..more };
    for event in [more.event(), proto::Event { kind: Some(accepted), ..more.event() }] {
        let envelope = Envelope::sign(&event, &Domain::default(), &keys::key("operator")).unwrap();
        engine.say(1, &envelope);
        let refused = engine.store.refused(1).unwrap();
        assert_eq!(refused[0].reason_code, "unknown-deal");
        assert_eq!(engine.store.last_position(), tally.recorded);
    }
    // Other deals are made as ever, and both audit clean.
    let script = tribunal_fixtures::Script::new(tribunal_fixtures::TermsBuilder::new("beside").build());
    engine.begin(&script, 2, None);
    let report = audit(&engine.store, Scope::All, AuditOptions::default()).unwrap();
    assert!(report.is_clean() && report.deals == 2, "{report:#?}");
}

fn tribunal(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tribunal")).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_command_imports_lists_shows_and_audits() {
    let folder = tempfile::tempdir().unwrap();
    let hand_made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/markets/lilypad/hand-made");
    let logs = hand_made.join("cheat-escapes.json").display().to_string();
    let at = |name: &str| format!("{:#x}", account(name));
    let (storage, payments, mediation) = (at("storage"), at("payments"), at("mediation"));
    let contracts = ["--storage", &storage, "--payments", &payments, "--mediation", &mediation];
    let import = |logs: &str| {
        let from = ["import", "lilypad", "--store", "store", "--chain-id", "421614", "--logs", logs];
        tribunal(&[&from[..], &contracts].concat(), folder.path())
    };
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let first = import(&logs);
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    assert_eq!(text(&first), "1 deals: 18 observations recorded, 0 known before, 0 logs ignored\n");
    assert_eq!(text(&import(&logs)), "1 deals: 0 observations recorded, 18 known before, 0 logs ignored\n");
    let listed = text(&tribunal(&["deals", "--store", "store"], folder.path()));
    assert!(listed.contains("TimeoutMediateResults") && listed.contains("lilypad 421614"), "{listed}");
    let id = DealId::imported(421_614, &account("storage").0.0, "QmWorked").to_string();
    let shown = text(&tribunal(&["deals", "show", &id[..12], "--store", "store"], folder.path()));
    assert!(shown.contains("cheat-escapes: ") && shown.contains("is asked to mediate (block 103, "), "{shown}");
    let audited = tribunal(&["audit", "--all", "--store", "store"], folder.path());
    assert_eq!(audited.status.code(), Some(0), "{audited:?}");
    let audited = text(&audited);
    assert!(audited.contains("1 deals (1 imported), 18 records, 18 signatures"), "{audited}");
    assert!(audited.contains("(cheat-escapes)") && audited.ends_with("clean\n"), "{audited}");
    let bundle = tribunal(&["bundle", "export", &id, "-o", "case.tribunal", "--store", "store"], folder.path());
    assert_eq!(bundle.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&bundle.stderr).contains("was imported from another marketplace"));

    // What lies is found, what cannot be is refused, and a store in use is left alone.
    let forged = import(&hand_made.join("forged.json").display().to_string());
    assert_eq!(forged.status.code(), Some(0), "{forged:?}");
    let audited = tribunal(&["audit", "--all", "--store", "store"], folder.path());
    assert_eq!(audited.status.code(), Some(1));
    assert!(text(&audited).contains("transition: expected DealAgreed or TimeoutAgree"), "{audited:?}");
    // The same deal with another history.
    let other = import(&hand_made.join("accepted.json").display().to_string());
    assert_eq!(other.status.code(), Some(65), "{other:?}");
    assert!(String::from_utf8_lossy(&other.stderr).contains("contradiction: block 103: its time is "), "{other:?}");
    std::fs::write(folder.path().join("garbage.json"), "[{}]").unwrap();
    assert_eq!(import("garbage.json").status.code(), Some(65));
    let usage = tribunal(&[&["import", "lilypad"][..], &contracts].concat(), folder.path());
    assert_eq!(usage.status.code(), Some(64), "{usage:?}");
    let held = Store::open(folder.path().join("store"), Fsync::Never).unwrap();
    let locked = import(&logs);
    assert_eq!(locked.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&locked.stderr).contains("stop the engine to import"), "{locked:?}");
    drop(held);
}

/// Imports everything that a node has.
async fn from_node(world: &World, deployment: &Deployment, store: &Store, from: u64, to: Option<u64>) -> Tally {
    let (rpc, chain_id) = node::connect(std::slice::from_ref(world.node.url()), Some(31_337)).await.unwrap();
    assert_eq!(chain_id, deployment.chain_id);
    let range = node::Range { from, to, confirmations: 1 };
    node::import(&rpc, deployment, range, store, &keys::key("operator"), &|_| ()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn deals_of_real_contracts_are_imported_to_the_token_balances() {
    let world = World::new().await;
    let site = world.site("coophive", "m1").await;
    let mediator = keys::address("m1");
    let deployment = Deployment::new(31_337, site.storage, site.payments, Some(site.mediation)).unwrap();
    let answer = async |deal: String, valid: bool| {
        if valid {
            let call = abi::Mediation::mediationAcceptResultCall { dealId: deal };
            world.node.send(mediator, site.mediation, call).await;
        } else {
            let call = abi::Mediation::mediationRejectResultCall { dealId: deal };
            world.node.send(mediator, site.mediation, call).await;
        }
    };
    // One accepted; one mediated each way; one cheat that times its mediation out; one that goes on after the import.
    let accepted = world.agree(&site, mediator, 1).await;
    let result = addResultCall {
        dealId: accepted.to_string(),
        resultsId: "results".into(),
        dataId: "data".into(),
        instructionCount: U256::from(1),
    };
    world.node.send(site.provider, site.controller, result).await;
    world.node.send(site.client, site.controller, acceptResultCall { dealId: accepted.to_string() }).await;
    for (nonce, valid) in [(2, true), (3, false)] {
        let deal = world.agree(&site, mediator, nonce).await;
        world.submit(&site, deal, "data", 1).await;
        answer(deal.to_string(), valid).await;
    }
    let escaped = world.agree(&site, mediator, 4).await;
    world.submit(&site, escaped, "data", 2).await;
    world.wait(3_700).await;
    world.timeout(&site, escaped).await.unwrap();
    let open = world.agree(&site, mediator, 5).await;

    let place = Place::new();
    let tally = from_node(&world, &deployment, &place.store, 0, None).await;
    assert_eq!((tally.deals, tally.known, tally.ignored), (5, 0, 0));
    let report = place.audit();
    assert_eq!(report.discrepancies, []);
    assert_eq!((report.deals, report.outcomes["imported"]), (5, 5));
    let found = codes(&report);
    assert!(!found.contains(&"unread"), "the node was asked for every deal and result");
    for (code, times) in [("cheat-escapes", 1), ("victim-unpaid", 1), ("guilt-or-fault", 1), ("mediation-cut-short", 3)]
    {
        assert_eq!(found.iter().filter(|it| **it == code).count(), times, "{code}: {:#?}", report.notes);
    }
    // The sums of all deals are what the token's balances say.
    let sums = |store: &Store| {
        let mut sums = [0i64; 4];
        for deal in [accepted, escaped, open].map(|deal| deal.to_string()) {
            assert!(imported(store, &DealId::imported(31_337, &site.storage.0.0, &deal), None).unwrap().is_some());
        }
        for entry in store.deals() {
            let it = imported(store, &entry.unwrap().0, None).unwrap().unwrap();
            for (who, _, account) in it.accounts() {
                let at = [site.client, site.provider, mediator].iter().position(|it| *it == who).unwrap();
                sums[at] += whole(&account.net());
            }
            sums[3] += (it.replay.ledger.slashed / tokens(1)).to::<i64>();
        }
        sums
    };
    assert_eq!(sums(&place.store), world.gained(&site).await);
    let again = from_node(&world, &deployment, &place.store, 0, None).await;
    assert_eq!((again.recorded, again.known > 0), (0, true));

    // It goes on, and is imported from there, in overlapping ranges elsewhere.
    world.submit(&site, open, "data", 1).await;
    let middle = world.node.head().await;
    answer(open.to_string(), false).await;
    let more = from_node(&world, &deployment, &place.store, middle - 3, None).await;
    assert!(more.recorded > 0 && more.known > 0, "{more:?}");
    assert!(place.audit().is_clean());
    assert_eq!(sums(&place.store), world.gained(&site).await);
    let elsewhere = Place::new();
    from_node(&world, &deployment, &elsewhere.store, 0, Some(middle - 1)).await;
    assert!(elsewhere.store.last_position() < place.store.last_position(), "what comes later is not imported yet");
    from_node(&world, &deployment, &elsewhere.store, middle - 5, None).await;
    assert_eq!(elsewhere.store.last_position(), place.store.last_position());
    assert!(elsewhere.audit().is_clean());
    assert_eq!(sums(&elsewhere.store), world.gained(&site).await);

    // The same from a file of what the node itself gives, whatever else its contracts said.
    let asked = json!([{ "fromBlock": "0x0", "toBlock": "latest", "address": deployment.contracts() }]);
    let logs = world.node.ask("eth_getLogs", asked).await;
    let from_file = Place::new();
    let (observations, ignored) = file::read(&from_file.write(&logs), &deployment).unwrap();
    assert!(ignored > 0, "changes of owners are about no deal");
    record(&from_file.store, &keys::key("operator"), a_day_later(), observations).unwrap();
    assert!(from_file.audit().is_clean());
    assert_eq!(sums(&from_file.store), world.gained(&site).await);
    if let Some(path) = std::env::var_os("TRIBUNAL_RECORD") {
        let reads: Vec<Value> = place.store.log(1).filter_map(|it| as_read(&it.unwrap().envelope)).collect();
        let text = serde_json::to_string_pretty(&json!({ "logs": logs, "reads": reads })).unwrap() + "\n";
        std::fs::write(path, text).unwrap();
    }
}

#[test]
fn logs_that_were_recorded_of_real_contracts_replay_as_they_did() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/markets/lilypad/recorded/anvil.json");
    let [storage, payments, mediation] = [
        "0xe7f1725e7734ce288f8367e1bb143e90bb3f0512",
        "0x9fe46736679d2d9a65f0992f2272de9f3c7fa6e0",
        "0xcf7ed3acca5a467e9e704c703e8d87f634fb0fc9",
    ]
    .map(|address| address.parse::<Address>().unwrap());
    let deployment = Deployment::new(31_337, storage, payments, Some(mediation)).unwrap();
    let place = Place::new();
    let (observations, ignored) = file::read(&path, &deployment).unwrap();
    let now = observations.iter().filter_map(|it| it.block_time_s).max().unwrap();
    record(&place.store, &keys::key("operator"), Timestamp::from_s(now), observations).unwrap();
    assert_eq!(ignored, 3, "changes of owners");
    let report = place.audit();
    assert_eq!((report.discrepancies.len(), report.deals), (0, 5), "{:#?}", report.discrepancies);
    let (mut states, mut net, mut owner) = (Vec::new(), std::collections::BTreeMap::new(), U256::ZERO);
    for entry in place.store.deals() {
        let it = imported(&place.store, &entry.unwrap().0, None).unwrap().unwrap();
        states.push(it.replay.state as u8);
        owner += it.replay.ledger.slashed;
        for (_, role, account) in it.accounts() {
            *net.entry(role).or_insert(0) += whole(&account.net());
        }
    }
    states.sort_unstable();
    assert_eq!(states, [3, 5, 6, 6, 10]);
    // Accepted, mediated valid, twice invalid, and a cheat that loses nothing: the sums of the published table.
    assert_eq!(net, [("client", -35), ("provider", -60), ("mediator", 15)].into());
    assert_eq!(owner, tokens(80));
    let escapes = report.notes.iter().find(|note| note.code == "cheat-escapes").unwrap();
    assert!(escapes.text.contains("has 80 tokens back"), "{}", escapes.text);
}

/// A recorded answer as a file has it.
fn as_read(envelope: &Envelope) -> Option<Value> {
    let EventKind::ForeignObserved(it) = envelope.clone().parse().unwrap().into_kind() else { return None };
    let ForeignSaid::Answer { call, data } = &it.said else { return None };
    Some(json!({
        "call": call.word(), "dealId": it.foreign_id, "answer": format!("0x{}", hex::encode(data)),
        "blockNumber": format!("{:#x}", it.block), "blockHash": it.block_hash,
    }))
}
