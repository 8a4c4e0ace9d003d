//! `make bench`: the observer beside the node that feeds it, and how long a verdict takes to be mined.
//!
//! Absolute figures wander on shared machines; the ratio is what to compare.

use std::time::{Duration, Instant};

use alloy_primitives::{Address, Bytes, U256};
use tribunal_contracts::{
    Account, Cursor, Endpoints, IN_PROCESS_TREASURY, JsonRpcChain, Observed, Observer, Sender, SenderSettings, Watched,
    get_logs_split,
};

#[allow(dead_code)] // tests use the rest
#[path = "../tests/it/anvil.rs"]
mod anvil;
#[allow(dead_code)] // tests use the rest
#[path = "../tests/it/fake_node.rs"]
mod fake_node;

use fake_node::{Block, CONTRACT, FakeNode, event};

/// A million logs, a hundred in a block.
const BLOCKS: u64 = 10_000;
const LOGS: u64 = 100;
const SENT: u64 = 20;

fn main() {
    // `cargo test --all-targets` runs benches too; a report there is only noise.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    runtime.block_on(async {
        observed().await;
        mined().await;
    });
}

async fn observed() {
    let blocks = (0..=BLOCKS).map(|number| Block { salt: 0, logs: (0..LOGS).map(|log| number * LOGS + log).collect() });
    let fake = FakeNode::start(blocks.collect());
    let endpoints = Endpoints::new(std::slice::from_ref(&fake.url), Some(31337)).expect("a URL");
    let (node, _) = endpoints.connect().await.expect("the node answers");
    let bare = || async {
        let start = Instant::now();
        let filter = alloy::rpc::types::Filter::new().address(CONTRACT).event_signature(event());
        let span = tribunal_contracts::LogSpan::new(1_000);
        let logs = get_logs_split(&node, &filter, 1, BLOCKS, &span).await.expect("logs");
        (logs.len(), start.elapsed())
    };
    let whole = || async {
        let start = Instant::now();
        let watched = Watched { contracts: vec![CONTRACT], events: vec![event()], first_block: 1, confirmations: 1 };
        let mut observer = Observer::new(node.clone(), watched, Cursor::default());
        let mut told = 0;
        while let Some(observed) = observer.next().await.expect("the node answers") {
            if let Observed::Logs { logs, .. } = observed {
                told += logs.len();
            }
        }
        (told, start.elapsed())
    };
    let (mut asked, mut told) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        asked.push(rate(bare().await));
        told.push(rate(whole().await));
    }
    let (asked, told) = (median(asked), median(told));
    println!("eth_getLogs alone, a million logs    {asked:>10.0} logs a second");
    println!("observer, every log checked          {told:>10.0} logs a second");
    println!("  observer / eth_getLogs             {:>10.2}\n", told / asked);
}

async fn mined() {
    let anvil = anvil::Anvil::start(2_000_000_000);
    let chain = JsonRpcChain::deploy(&anvil.url, &anvil::DEPLOYER_KEY, IN_PROCESS_TREASURY, 60).await.expect("deploys");
    let folder = std::env::temp_dir().join(format!("tribunal-bench-{}", std::process::id()));
    let journal = folder.join("transactions.jsonl");
    let endpoints = Endpoints::new(std::slice::from_ref(&anvil.url), None).expect("a URL");
    let account = Account::with_key(&anvil::DEPLOYER_KEY).expect("a key");
    let sender =
        Sender::connect(&endpoints, account, SenderSettings::default(), Some(&journal)).await.expect("connects");
    let mut times = Vec::new();
    for number in 0..SENT {
        let mint = alloy_primitives::keccak256("mint(address,uint256)");
        let account = Address::with_last_byte(number as u8 + 1).into_word();
        let data =
            Bytes::from([&mint[..4], account.as_slice(), U256::from(number).to_be_bytes::<32>().as_slice()].concat());
        let to = Some(chain.addresses().token);
        let start = Instant::now();
        let effect = sender.effect_id(to, &data, U256::ZERO);
        sender.send(effect, "bench", to, data, U256::ZERO).await.expect("mined");
        times.push(start.elapsed().as_secs_f64());
    }
    let _ = std::fs::remove_dir_all(&folder);
    println!(
        "decided to mined on anvil            {:>10.1} ms (journal synced, gas estimated, receipt seen)",
        median(times) * 1e3
    );
}

fn rate((count, took): (usize, Duration)) -> f64 {
    assert_eq!(count as u64, BLOCKS * LOGS, "nothing is lost");
    count as f64 / took.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
