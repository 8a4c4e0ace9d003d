//! An audit's options: the world as it was, a page for people, and the command; another policy and audits that are broken
//! off have files of their own.

mod against;
mod resume;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Stdio},
};

use tribunal_engine::{
    audit::{
        Against, AuditFault, AuditOptions, AuditReport, DETAILS_SHOWN_MAX, PageOptions, Policy, Scope, audit, page,
    },
    store::{Append, Fsync, NewRecord, Store, StreamAppend},
    view,
};
use tribunal_events::{DealId, Party, Timestamp};
use tribunal_fixtures::{START_S, TermsBuilder, keys};
use tribunal_verifiers::{OperatorLimits, Service};

use super::audit::{caught, copied, drawn, find, played, script, wordcount};

fn audited(store: &Store, options: AuditOptions<'_>) -> AuditReport {
    audit(store, Scope::All, options).unwrap()
}

fn at(store: &Store, position: u64) -> AuditReport {
    audited(store, AuditOptions { at: Some(position), ..AuditOptions::default() })
}

#[test]
fn at_every_position_the_world_is_as_it_was() {
    let (engine, _) = played();
    let end = engine.store.last_position();
    for position in 1..=end {
        let report = at(&engine.store, position);
        assert!(report.is_clean(), "{position}: {:#?}", report.discrepancies);
        assert_eq!((report.records, report.log_end, report.at), (position, position, Some(position)));
        assert_eq!(report.signatures, position);
        let recorded_at = engine.store.record(position).unwrap().unwrap().recorded_at;
        assert_eq!(report.log_end_at, Some(recorded_at.to_string()));
        let mut outcomes = BTreeMap::new();
        for deal in view::deals(&engine.store, Some(position)).unwrap() {
            *outcomes.entry(deal.outcome).or_insert(0) += 1;
        }
        assert_eq!(report.outcomes, outcomes, "{position}");
        // A store that really ended there says the same of its deals.
        let (_folder, ended) = copied(&engine.store, |records| records.truncate(position as usize));
        let there = audited(&ended, AuditOptions::default());
        assert_eq!((there.outcomes, there.deals, there.records), (outcomes, report.deals, position));
    }
    assert!(at(&engine.store, end).outcomes.contains_key("judge-timeout"));
    assert!(!at(&engine.store, end / 2).outcomes.contains_key("judge-timeout"));
}

#[test]
fn what_came_later_is_no_discrepancy_of_what_was() {
    let (engine, _) = played();
    let it = caught();
    let mut wrong = 0;
    let (_folder, store) = copied(&engine.store, |records| {
        let index = find(records, &it, "verdict_reached");
        let kind = records[index].kind();
        records[index].forge(&it, &kind, &keys::key("stranger"));
        wrong = records[index].position;
    });
    assert!(at(&store, wrong - 1).is_clean());
    assert_eq!(at(&store, wrong).discrepancies[0].code, "operator");
    // Time that went back is seen from there on.
    let (_folder, store) = copied(&engine.store, |records| {
        let index = find(records, &it, "disputed");
        records[index].new.recorded_at = Timestamp::from_s(START_S);
        wrong = records[index].position;
    });
    assert!(at(&store, wrong - 1).is_clean());
    assert!(at(&store, wrong).discrepancies.iter().any(|it| it.code == "log-time"));
}

#[test]
fn a_position_past_the_end_names_the_end() {
    let (engine, _) = played();
    let end = engine.store.last_position();
    for position in [0, end + 1] {
        let options = AuditOptions { at: Some(position), ..AuditOptions::default() };
        match audit(&engine.store, Scope::All, options) {
            Err(AuditFault::BeyondEnd { at, end: named }) => assert_eq!((at, named), (position, end)),
            other => panic!("{other:?}"),
        }
    }
    // A deal that came later is not there yet.
    let late = drawn().terms().deal_id();
    let options = AuditOptions { at: Some(1), ..AuditOptions::default() };
    let report = audit(&engine.store, Scope::Deals(vec![late]), options).unwrap();
    assert_eq!((report.unknown, report.deals), (vec![late], 0));
}

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

/// Many deals that were only proposed, written as an engine would.
fn proposals(path: &Path, count: usize) -> Store {
    let store = Store::open(path, Fsync::Never).unwrap();
    for first in (0..count).step_by(500) {
        let stream = |number: usize| {
            let it = script(&TermsBuilder::new(&format!("proposal {number}")).without_contract());
            let new = NewRecord {
                envelope: it.proposed(Party::Client),
                signer: keys::address("client"),
                recorded_at: Timestamp::from_s(START_S),
            };
            let deal_id = it.terms().deal_id();
            StreamAppend { deal_id, expected_version: 0, records: vec![new], open: true, snapshot: None }
        };
        let streams = (first..count.min(first + 500)).map(stream).collect();
        store.append(Append { streams, ..Append::default() }).unwrap();
    }
    store
}

fn tribunal(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tribunal"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn about() -> PageOptions {
    PageOptions { store: "a store's folder".into(), made_at: Timestamp::from_s(START_S), ..PageOptions::default() }
}

#[test]
fn the_page_says_everything_and_loads_nothing() {
    let (mut engine, source) = played();
    let rude = script(&TermsBuilder::new("rude").agree_by_s(START_S + 1_000));
    engine.hold.clear();
    engine.begin(&rude, 700, None);
    engine.say(701, &rude.result_submitted(wordcount().0.claim(1)));
    engine.say(702, &rude.disputed("<script src=\"https://evil.example\">alert('&')</script>"));
    let service = Service::new(OperatorLimits::default(), Vec::new());
    let other = policy("[audit]\ndispute = \"all\"\n[settlement]\nvictim_bps = 1\n");
    let against = Against { policy: &other, service: &service, source: &source };
    let options =
        AuditOptions { reverify: Some((&service, &source)), against: Some(against), ..AuditOptions::default() };
    let report = audited(&engine.store, options);
    let text = page(&engine.store, &report, &PageOptions { policy: Some("policy.toml".into()), ..about() }).unwrap();
    for deal in engine.store.deals() {
        assert!(text.contains(&format!("id=\"{}\"", deal.unwrap().0)));
    }
    for said in [
        "Everything that was checked fits",
        "&lt;script src=&quot;https://evil.example&quot;&gt;alert('&amp;')&lt;/script&gt;",
        "Under another policy",
        "tribunal audit --all --store 'a store'\\''s folder' --reverify --against policy.toml",
        "time to judge until",
        "verdict reached",
        "panel drawn",
        "the contract took step settle",
        "not asked for: <code>--chain</code>",
    ] {
        assert!(text.contains(said), "{said} is not in the page");
    }
    for loaded in ["<script", "src=\"", "href=\"http", "url(", "@import", "<link", "<img", "<iframe"] {
        assert!(!text.contains(loaded), "{loaded} is in the page");
    }
}

#[test]
fn discrepancies_stand_in_the_page_where_they_occur() {
    let (engine, _) = played();
    let it = caught();
    let mut position = 0;
    let (_folder, store) = copied(&engine.store, |records| {
        let index = find(records, &it, "verdict_reached");
        let kind = records[index].kind();
        records[index].forge(&it, &kind, &keys::key("stranger"));
        position = records[index].position;
    });
    let report = audited(&store, AuditOptions::default());
    let text = page(&store, &report, &about()).unwrap();
    assert!(text.contains("The record does not fit the rules"));
    let wrong: Vec<_> =
        text.split("<li class=\"").filter(|step| step.split('"').next().unwrap().contains("wrong")).collect();
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].contains(&format!("log {position} ·")) && wrong[0].contains("<b>operator</b>"), "{}", wrong[0]);
    // The deal with the finding comes first.
    let first = text.split("<section class=\"card deal\" id=\"").nth(1).unwrap();
    assert!(first.starts_with(&it.terms().deal_id().to_string()));
}

#[test]
fn a_page_of_a_record_that_nobody_can_read_is_a_page_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Fsync::Never).unwrap();
    let new = NewRecord {
        envelope: tribunal_events::Envelope::from_parts(vec![1, 2, 3], vec![4; 65]),
        signer: keys::address("client"),
        recorded_at: Timestamp::from_s(START_S),
    };
    let stream = StreamAppend {
        deal_id: DealId::new([5; 32]),
        expected_version: 0,
        records: vec![new],
        open: true,
        snapshot: None,
    };
    store.append(Append { streams: vec![stream], ..Append::default() }).unwrap();
    let report = audited(&store, AuditOptions::default());
    let text = page(&store, &report, &about()).unwrap();
    assert!(text.contains("is no event of this schema") && text.contains("<b>event</b>"), "{text}");
}

#[test]
fn a_page_of_very_many_deals_is_bounded_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = proposals(folder.path(), 1_200);
    let report = audited(&store, AuditOptions::default());
    assert_eq!(report.deals, 1_200);
    let text = page(&store, &report, &about()).unwrap();
    assert_eq!(text.matches("<section class=\"card deal\"").count(), DETAILS_SHOWN_MAX);
    assert!(text.contains("The table has 1\u{202f}000 of them; details follow of 100"));
    // The newest are there, the oldest are not.
    let id =
        |number: usize| script(&TermsBuilder::new(&format!("proposal {number}")).without_contract()).terms().deal_id();
    assert!(text.contains(&format!("id=\"{}\"", id(1_199))) && !text.contains(&id(0).to_string()));
}

#[test]
fn the_command_takes_every_option() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, _) = played();
    engine.store.checkpoint(folder.path().join("store")).unwrap();
    let run = |args: &[&str]| {
        tribunal(folder.path(), &[&["--json", "audit", "--store", "store"], args].concat()).output().unwrap()
    };
    let value = |output: &std::process::Output| -> serde_json::Value {
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let output = run(&["--all", "--at", "9", "--html", "report.html"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let answer = value(&output);
    assert_eq!((&answer["at"], &answer["log_end"], &answer["clean"]), (&9.into(), &9.into(), &true.into()));
    assert_eq!(answer["options"]["at"], 9);
    let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(html.contains("as they stood at log position 9") && html.ends_with("</html>"));
    assert!(!folder.path().join("report.html.part").exists());

    let end = engine.store.last_position();
    let output = run(&["--all", "--at", &(end + 1).to_string()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("the log ends at position {end}")), "{output:?}");

    std::fs::write(folder.path().join("policy.toml"), "[settlement]\nvictim_bps = 1\n").unwrap();
    let output = run(&["--all", "--against", "policy.toml"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let answer = value(&output);
    assert_eq!((&answer["clean"], &answer["against"]["deals"]), (&true.into(), &5.into()));
    assert_eq!(answer["against"]["changed"][0]["recorded"]["outcome"], "invalid");
    assert_eq!(answer["options"]["against"], answer["against"]["policy"]);
    let output =
        tribunal(folder.path(), &["audit", "--all", "--store", "store", "--against", "policy.toml"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("5 deals compared with policy blake3:") && text.contains("invalid -> invalid"), "{text}");

    std::fs::write(folder.path().join("policy.toml"), "[settlement]\n\nvictims_bps = 1\n").unwrap();
    let output = run(&["--all", "--against", "policy.toml"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("policy.toml: line 3: ") && text.contains("victims_bps"), "{text}");

    let deal = caught().terms().deal_id().to_string();
    for (args, code) in [
        (&["--all", "--artifacts", "."][..], 64),
        (&[deal.as_str(), "--resume", "progress"], 64),
        (&["--all", "--against", "missing.toml"], 78),
    ] {
        assert_eq!(run(args).status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn the_machine_readable_report_has_every_field_of_its_table() {
    let (engine, source) = played();
    let service = Service::new(OperatorLimits::default(), Vec::new());
    let nothing = policy("");
    let against = Against { policy: &nothing, service: &service, source: &source };
    let at = Some(engine.store.last_position());
    let options = AuditOptions { at, against: Some(against), ..AuditOptions::default() };
    let answer = serde_json::to_value(audited(&engine.store, options)).unwrap();
    let table = include_str!("../../src/audit.rs");
    let section = &table[table.find("# The report").unwrap()..];
    let rows =
        section.lines().filter_map(|line| line.strip_prefix("//! | `")).map(|row| row.split(" | ").next().unwrap());
    let documented: BTreeSet<_> = rows.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`')).collect();
    let found: BTreeSet<_> = answer.as_object().unwrap().keys().map(String::as_str).chain(["clean", "chain"]).collect();
    assert_eq!(documented, found);
}
