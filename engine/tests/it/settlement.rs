//! Kills a whole engine while it moves money on a real node: every step is taken once, and everybody gets what is due.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use alloy_primitives::keccak256;
use serde_json::json;
use tribunal_contracts::{Addresses, Chain as _, IN_PROCESS_TREASURY, JsonRpcChain, Witness};
use tribunal_engine::{
    audit::{AuditOptions, Scope, audit, taken_steps},
    bundle::{Standing, VerifyOptions, export_with, verify},
    replay::load,
    store::Store,
};
use tribunal_events::{B256, DealId, Envelope, Outcome, Party};
use tribunal_fixtures::{Script, TermsBuilder, jobs, keys};

use crate::{anvil::DEPLOYER_KEY, dev_chain::DevChain, http::lines};

const KILLS: u32 = 30;

fn write_key(folder: &Path, name: &str) {
    let key = keys::key(name);
    let text = json!({ "insecure_dev_key": format!("0x{}", hex::encode(**key.secret())),
        "address": format!("{:#x}", key.address()) });
    std::fs::write(folder.join(format!("{name}.json")), text.to_string()).unwrap();
}

fn engine(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tribunal"))
        .args(["serve", "--config", "tribunal.toml"])
        .current_dir(folder)
        .stderr(std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_any_two_steps_money_moves_once() {
    let node = DevChain::start();
    let chain = JsonRpcChain::deploy(node.url(), &DEPLOYER_KEY, IN_PROCESS_TREASURY, 7 * 86_400).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["operator", "m1", "finder"] {
        write_key(folder.path(), name);
    }
    let payer = keys::address("finder");
    node.ask("anvil_setBalance", json!([payer, "0x56bc75e2d63100000"])).await;
    for (party, amount) in [("client", 20_000_000u64), ("provider", 40_000_000)] {
        chain.mint_and_deposit(keys::address(party), amount.into()).await.unwrap();
    }
    chain.bond_mediator(keys::address("m1"), 5_000_000u64.into(), keys::address("operator")).await.unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Addresses { token, registry, escrow } = chain.addresses();
    let settings = format!(
        "[store]\npath = \"store\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n[verifiers]\nartifacts = [{:?}]\n[operator]\nkeystore \
         = \"operator.json\"\n[mediator]\nkeystore = \"m1.json\"\ngrace_s = 0\n[policy]\nenforce = false\n[chain]\nrpc_url = \
         {:?}\nchain_id = 31337\nkeystore = \"finder.json\"\n[chain.contracts]\nescrow = \"{escrow:#x}\"\nregistry = \
         \"{registry:#x}\"\ntoken = \"{token:#x}\"\n",
        jobs::folder().join("wordcount"),
        node.url()
    );
    std::fs::write(folder.path().join("tribunal.toml"), settings).unwrap();

    // Two are accepted, two are cheats that a mediator finds out.
    let job = jobs::load("wordcount").unwrap();
    let mut deals = Vec::new();
    for number in 0..4 {
        let cheats = number % 2 == 1;
        let terms = TermsBuilder::new(&format!("killed {number}"))
            .agree_by_s(4_000_000_000)
            .appointed("m1", 0)
            .job(job.message.clone())
            .build();
        let script = Script::new(terms);
        let mut claim = job.claim(1);
        if cheats {
            claim.exit_code = 3;
        }
        let last = if cheats { script.disputed("it does not exit so") } else { script.accepted() };
        let events =
            [script.proposed(Party::Client), script.agreed(Party::Provider), script.result_submitted(claim), last];
        deals.push((script.terms().clone(), events, if cheats { Outcome::Invalid } else { Outcome::Accepted }));
    }
    let steps: u64 = deals.iter().map(|(_, _, outcome)| if *outcome == Outcome::Invalid { 4 } else { 3 }).sum();

    // The parties say their words until each is admitted, as anybody does who wants a receipt.
    let words: Vec<Vec<Envelope>> = deals.iter().map(|(_, events, _)| events.to_vec()).collect();
    let parties = tokio::spawn(async move {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
        let url = format!("http://127.0.0.1:{port}/api/v1/events");
        let mut left = words;
        while left.iter().any(|words| !words.is_empty()) {
            for words in &mut left {
                let Some(first) = words.first() else { continue };
                let body = lines(std::slice::from_ref(first));
                let request = client.post(&url).header("Content-Type", "application/x-ndjson").body(body);
                if request.send().await.is_ok_and(|answer| answer.status().is_success()) {
                    words.remove(0);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..KILLS {
        let mut child = engine(folder.path());
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // A random moment is the point here, not a wait for something to happen.
        tokio::time::sleep(Duration::from_millis(150 + seed % 700)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut child = engine(folder.path());
    let give_up = Instant::now() + Duration::from_secs(120);
    let settled = |store: &Store| {
        deals.iter().all(|(terms, ..)| matches!(load(store, &terms.deal_id()), Ok(Some(deal)) if deal.is_settled()))
    };
    while !Store::open_read_only(folder.path().join("store")).is_ok_and(|store| settled(&store)) {
        let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        assert!(Instant::now() < give_up, "not all deals were settled in time: {}", log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    parties.await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();

    assert_eq!(node.nonce(payer).await, steps, "every step of every deal in one transaction, and no other");
    let settled = keccak256("CaseSettled(bytes32,address,address,uint8,uint256,uint256,uint256,uint256)");
    for (terms, _, outcome) in &deals {
        let filter = json!([{ "address": escrow, "fromBlock": "0x0", "topics": [settled, terms.hash()] }]);
        let logs = node.ask("eth_getLogs", filter).await;
        assert_eq!(logs.as_array().unwrap().len(), 1, "settled once");
        assert_eq!(chain.case(terms.hash()).await.unwrap().outcome, Some(*outcome));
    }
    let store = Store::open_read_only(folder.path().join("store")).unwrap();
    let report = audit(&store, Scope::All, AuditOptions::default()).unwrap();
    assert!(report.is_clean(), "{:?}", report.discrepancies);
    evidence_with_receipts(
        &store,
        &chain.witness(),
        &deals.iter().map(|(terms, ..)| terms.deal_id()).collect::<Vec<_>>(),
    )
    .await;
}

/// Files that hold what a node said of the deals' transactions; it is compared, and not believed.
async fn evidence_with_receipts(store: &Store, witness: &Witness, deals: &[DealId]) {
    let mut of_deals = Vec::new();
    for id in deals {
        let mut receipts = BTreeMap::new();
        for step in taken_steps(store, id).unwrap() {
            receipts.insert(step.transaction, witness.receipt(step.transaction).await.unwrap().unwrap());
        }
        let file = export_with(store, id, None, &receipts).unwrap();
        assert_eq!(file, export_with(store, id, None, &receipts).unwrap());
        let report = verify(&file, &VerifyOptions::default()).unwrap();
        assert!(report.is_sound(), "{:?}", report.discrepancies);
        let chain = report.claims.iter().find(|it| it.claim == "chain").unwrap();
        assert!(chain.why.contains(&format!("{} receipts", receipts.len())), "{}", chain.why);
        of_deals.push(receipts);
    }
    let unsound = |receipts: &BTreeMap<B256, Vec<u8>>, code: &str| {
        let file = export_with(store, &deals[0], None, receipts).unwrap();
        let report = verify(&file, &VerifyOptions::default()).unwrap();
        assert!(report.discrepancies.iter().any(|it| it.code == code), "no {code}: {:?}", report.discrepancies);
        assert_eq!(report.standing("chain"), Some(Standing::Failed));
    };
    unsound(&of_deals[1], "receipt");
    // The last step is the settlement; its last figure is somebody's payout.
    let last = taken_steps(store, &deals[0]).unwrap().pop().unwrap().transaction;
    let mut changed = of_deals[0].clone();
    let mut receipt: serde_json::Value = serde_json::from_slice(&changed[&last]).unwrap();
    let settled =
        format!("{:#x}", keccak256("CaseSettled(bytes32,address,address,uint8,uint256,uint256,uint256,uint256)"));
    let logs = receipt["logs"].as_array_mut().unwrap();
    let log = logs.iter_mut().find(|log| log["topics"][0] == settled.as_str()).unwrap();
    let mut data = log["data"].as_str().unwrap().to_owned();
    let digit = data.pop().unwrap();
    data.push(if digit == '1' { '2' } else { '1' });
    log["data"] = data.into();
    changed.insert(last, serde_json::to_vec(&receipt).unwrap());
    unsound(&changed, "chain-payouts");
    changed.insert(last, b"{}".to_vec());
    let file = export_with(store, &deals[0], None, &changed).unwrap();
    assert!(verify(&file, &VerifyOptions::default()).unwrap_err().to_string().starts_with("receipt/0x"));
}
