//! Books of mediators: over all recorded deals, on the command line and over HTTP.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tribunal_engine::{
    accounts::{Accounts, CSV_COLUMNS, Standing},
    demo::{BusChoice, RecordedDeal, play, read, stage},
    store::Store,
};
use tribunal_events::{Address, Amount, DealId, Party, Timestamp, VerdictKind};
use tribunal_fixtures::{jobs, keys};

use crate::http::{World, script};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// The books after all recorded deals, and where their store is.
async fn played(folder: &Path) -> (Accounts, Vec<RecordedDeal>) {
    let deals = read(&fixtures()).unwrap();
    let stage = stage(&fixtures(), folder, Some(BusChoice::InProcess)).await.unwrap();
    let stepwise = RefCell::new(Accounts::default());
    let store = stage.engine.store().clone();
    play(&stage, &deals, |_, _| stepwise.borrow_mut().catch_up(&store).unwrap()).await.unwrap();
    let mut stepwise = stepwise.into_inner();
    stepwise.catch_up(&store).unwrap();
    let mut accounts = Accounts::default();
    accounts.catch_up(&store).unwrap();
    let all = |books: &Accounts| -> Vec<_> {
        books.mediators().map(|it| (books.cases(it).to_vec(), books.record(it, Timestamp::default()))).collect()
    };
    assert_eq!(all(&accounts), all(&stepwise), "read at once or bit by bit, the books are the same");
    stage.engine.shutdown(std::time::Duration::from_secs(60)).await;
    (accounts, deals)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_of_all_recorded_deals_add_up_to_what_they_moved() {
    let folder = tempfile::tempdir().unwrap();
    let (accounts, deals) = played(folder.path()).await;
    let mut paid: BTreeMap<DealId, u64> = BTreeMap::new();
    let mut slashed: BTreeMap<DealId, BTreeMap<Address, Amount>> = BTreeMap::new();
    for mediator in accounts.mediators() {
        for case in accounts.cases(mediator) {
            *paid.entry(case.deal_id).or_default() += case.fee.to_string().parse::<u64>().unwrap();
            if !case.slash.is_zero() {
                let sum = slashed.entry(case.deal_id).or_default().entry(mediator).or_default();
                *sum = sum.checked_add(case.slash).unwrap();
                assert!(case.slash_transaction.is_some());
            }
            assert_ne!(case.standing, Standing::Open, "every deal is over");
            assert!(case.drawn || case.committed_at.is_none(), "who is appointed commits to nothing");
        }
    }
    for deal in &deals {
        let (id, expect) = (deal.recording.deal_id, &deal.recording.expect);
        assert_eq!(paid.get(&id).copied().unwrap_or_default().to_string(), expect.net.mediators, "{}", deal.name);
        assert_eq!(slashed.remove(&id).unwrap_or_default(), expect.slashed, "{}", deal.name);
    }
    let of = |name: &str| deals.iter().find(|deal| deal.name == name).unwrap().recording.deal_id;
    let case = |deal: &str, standing: Standing| {
        let id = of(deal);
        let all: Vec<_> = accounts.mediators().flat_map(|it| accounts.cases(it).to_vec()).collect();
        all.into_iter().find(|case| case.deal_id == id && case.standing == standing).unwrap_or_else(|| panic!("{deal}"))
    };
    let silent = case("silent-mediator-redraw", Standing::Silent);
    assert!(silent.redrawn && silent.vote.is_none() && silent.round == 0);
    let next = case("silent-mediator-redraw", Standing::Agreed);
    assert!(next.round == 1 && !next.redrawn && !next.fee.is_zero() && next.gas_used > 0, "{next:?}");
    let liar = case("panel-with-one-liar", Standing::Disagreed);
    assert_eq!(liar.with_majority, Some(false));
    assert!(!liar.fee.is_zero(), "it is paid for its vote all the same");
    assert_eq!(case("mediator-fault", Standing::Inconclusive).reason_code, "unknown-runtime");
    assert_eq!(case("provider-withholds-result", Standing::Agreed).reason_code, "withheld");
    assert!(case("mediate-timeout", Standing::Silent).slash_transaction.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn earnings_are_told_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let (accounts, _) = played(folder.path()).await;
    let store = folder.path().join("store");
    let m1 = keys::address("m1");
    let earnings = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tribunal"));
        command.args(args).args(["--store", store.to_str().unwrap()]).current_dir(folder.path());
        command.output().unwrap()
    };
    let address = format!("{m1:#x}");
    let output = earnings(&["mediator", "earnings", &address, "--csv"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.split("\r\n").collect();
    assert_eq!(lines[0], CSV_COLUMNS.join(","));
    assert_eq!(lines.len(), accounts.cases(m1).len() + 2, "a header, a line a case, and the end of the last");
    assert!(lines[1..lines.len() - 1].iter().all(|line| line.split(',').count() == CSV_COLUMNS.len()), "{text}");
    let output = earnings(&["--json", "mediator", "earnings", &address]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let record = accounts.record(m1, Timestamp::default());
    assert_eq!(answer["agreed"], record.agreed);
    assert_eq!(answer["records"].as_array().unwrap().len(), record.cases);
    // Days add up to all that was earned; nothing was after the recordings.
    let days: u64 = record.days.iter().map(|day| day.earned.to_string().parse::<u64>().unwrap()).sum();
    let earned: u64 = record.earned.values().map(|it| it.to_string().parse::<u64>().unwrap()).sum();
    assert!(days == earned && earned > 0);
    let output = earnings(&["--json", "mediator", "earnings", &address, "--since", "2036-01-01"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["cases"], &answer["score"]), (&0.into(), &record.score.into()));
    let output = earnings(&["mediator", "earnings", &address]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("agreed with the outcome"), "{output:?}");
    for (args, code) in [
        (&["mediator", "earnings"][..], 78),
        (&["--json", "mediator", "earnings", &address, "--csv"], 64),
        (&["mediator", "earnings", "0x12"], 64),
        (&["mediator", "earnings", &address, "--since", "yesterday"], 64),
    ] {
        assert_eq!(earnings(args).status.code(), Some(code), "{args:?}");
    }
    let missing = ["mediator", "earnings", &address, "--store", "nowhere"];
    let output = Command::new(env!("CARGO_BIN_EXE_tribunal")).args(missing).current_dir(folder.path()).output();
    assert_eq!(output.unwrap().status.code(), Some(69));
}

#[tokio::test(flavor = "multi_thread")]
async fn earnings_are_told_over_http_and_in_metrics() {
    let world = World::new().await;
    let m1 = format!("{:#x}", keys::address("m1"));
    let get = async |path: &str| {
        let answer = world.client.get(world.url(path)).send().await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind, answer.text().await.unwrap())
    };
    let record = format!("/api/v1/mediators/{m1}");
    let (status, kind, _) = get(&format!("/api/v1/mediators/{:#x}", keys::address("m2"))).await;
    assert_eq!((status, kind.as_str()), (404, "application/problem+json"));
    let (status, _, body) = get(&record).await;
    assert_eq!(status, 200, "it runs here: {body}");
    for path in ["/api/v1/mediators/0x12", &format!("{record}?since=yesterday"), &format!("{record}?limit=0")] {
        assert_eq!(get(path).await.0, 400, "{path}");
    }
    let script = script("a case over HTTP");
    let claim = jobs::load("wordcount").unwrap().claim(1_000_000_000);
    world
        .record(&[
            script.proposed(Party::Client),
            script.agreed(Party::Provider),
            script.result_submitted(claim),
            script.disputed("show me"),
        ])
        .await;
    world.engine.idle().await.unwrap();
    let (_, _, body) = get(&record).await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&answer["cases"], &answer["agreed"], &answer["score"]), (&1.into(), &1.into(), &1.into()), "{body}");
    assert_eq!(answer["records"][0]["deal_id"], script.terms().deal_id().to_string());
    assert_eq!((&answer["earned"]["none"], &answer["next_offset"]), (&"200003".into(), &Value::Null));
    let (status, kind, csv) = get(&format!("{record}/record.csv")).await;
    assert_eq!((status, kind.as_str()), (200, "text/csv; charset=utf-8; header=present"));
    assert_eq!(csv.lines().count(), 2, "{csv}");
    for path in ["/mediators", &format!("/mediators/{m1}")] {
        let (status, kind, page) = get(path).await;
        assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"), "{path}");
        assert!(page.contains(&m1) && page.contains("runs here"), "{path}: {page}");
    }
    assert_eq!(get("/mediators/nobody").await.0, 400);
    let (_, _, metrics) = get("/metrics").await;
    for line in [
        format!("tribunal_mediator_votes_total{{mediator=\"{m1}\"}} 1"),
        format!("tribunal_mediator_agreed_total{{mediator=\"{m1}\"}} 1"),
        format!("tribunal_mediator_silences_total{{mediator=\"{m1}\"}} 0"),
        format!("tribunal_mediator_earned_base_units_total{{mediator=\"{m1}\",token=\"none\"}} 200003"),
        "tribunal_policy_refused_total 0".to_owned(),
        "tribunal_own_key_equivocations 0".to_owned(),
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line:?} is not in {metrics}");
    }
    // Somebody else signs with the key: too late for the deal, and told all the same.
    let other = script.vote(&keys::key("m1"), 0, VerdictKind::Invalid, 1_000_000_000, "output-differs");
    let other = script.verdict_given(&keys::key("m1"), &other).encode();
    let kind = ("Content-Type", "application/x-protobuf");
    let refused =
        world.client.post(world.url("/api/v1/events")).header(kind.0, kind.1).body(other).send().await.unwrap();
    assert_eq!(refused.status(), 409);
    world.engine.idle().await.unwrap();
    let (_, _, metrics) = get("/metrics").await;
    assert!(metrics.lines().any(|it| it == "tribunal_own_key_equivocations 1"), "{metrics}");
    // Everything that is described is there, and the other way round.
    let (_, _, openapi) = get("/api/v1/openapi.json").await;
    let openapi: Value = serde_json::from_str(&openapi).unwrap();
    let described = &openapi["components"]["schemas"]["MediatorRecord"]["properties"];
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(keys(described), keys(&answer));
    assert_eq!(keys(&described["records"]["items"]["properties"]), keys(&answer["records"][0]));
    world.close().await;
}

#[test]
fn an_empty_store_has_empty_books() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), tribunal_engine::store::Fsync::Never).unwrap();
    let mut accounts = Accounts::default();
    accounts.catch_up(&store).unwrap();
    assert_eq!((accounts.position(), accounts.mediators().count()), (0, 0));
}
