use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use alloy::providers::{DynProvider, Provider};
use alloy_primitives::{Bytes, U256, keccak256};
use tempfile::TempDir;
use tribunal_contracts::{
    Account, Addresses, Chain as _, ChainFault, EndpointLimits, Endpoints, JsonRpcChain, LineFileFault, RpcSettings,
    Sender, SenderSettings, SentReceipt,
};
use tribunal_events::{Address, B256};

use crate::{
    anvil::{Anvil, DEPLOYER_KEY, NO_NODE, until},
    case::Case,
    proxy::{ALWAYS, Proxy, Trouble},
    world::{START_S, World},
};

const GWEI: u128 = 1_000_000_000;
/// What an effect pays to its receiver: seen once there, it happened once.
const VALUE: u64 = 1000;

/// Polls and bumps in no time, and gives up late.
fn hasty() -> SenderSettings {
    SenderSettings {
        bump_after: Duration::from_millis(100),
        give_up_after: Duration::from_secs(30),
        poll_every: (Duration::from_millis(10), Duration::from_millis(20)),
        ..SenderSettings::default()
    }
}

/// Never bumps.
fn calm() -> SenderSettings {
    SenderSettings { bump_after: Duration::from_secs(3600), ..hasty() }
}

/// A node, and the place of a journal.
struct Bench {
    anvil: Anvil,
    node: DynProvider,
    folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let anvil = Anvil::start(START_S);
        let (node, _) = Endpoints::new(std::slice::from_ref(&anvil.url), None).unwrap().connect().await.unwrap();
        Self { anvil, node, folder: tempfile::tempdir().unwrap() }
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("sender.jsonl")
    }

    async fn sender(&self, settings: SenderSettings) -> Sender {
        connect(&[&self.anvil.url], settings, Some(&self.journal())).await.unwrap()
    }

    async fn ask(&self, method: &'static str, params: serde_json::Value) -> serde_json::Value {
        self.node.client().request(method, params).await.unwrap()
    }

    async fn automine(&self, on: bool) {
        self.ask("evm_setAutomine", serde_json::json!([on])).await;
    }

    async fn mine(&self) {
        self.ask("evm_mine", serde_json::json!([])).await;
    }

    async fn nonce(&self) -> u64 {
        self.node.get_transaction_count(account()).latest().await.unwrap()
    }

    async fn paid(&self, number: u8) -> u64 {
        self.node.get_balance(receiver(number)).await.unwrap().to()
    }

    /// Hashes of this account's transactions that wait in the pool.
    async fn pool(&self) -> Vec<(String, B256)> {
        let content = self.ask("txpool_content", serde_json::json!([])).await;
        let mut found = Vec::new();
        for part in ["pending", "queued"] {
            for (by, transactions) in content[part].as_object().unwrap() {
                for (nonce, transaction) in transactions.as_object().unwrap() {
                    if by.parse::<Address>().unwrap() == account() {
                        found.push((nonce.clone(), transaction["hash"].as_str().unwrap().parse().unwrap()));
                    }
                }
            }
        }
        found
    }

    /// Waits until this many transactions are in the pool, and the newest is another than `not`.
    async fn until_pool(&self, count: usize, not: Option<B256>) -> B256 {
        let mut newest = B256::ZERO;
        until("a transaction in the pool", async || {
            let pool = self.pool().await;
            newest = pool.last().map_or(B256::ZERO, |(_, hash)| *hash);
            pool.len() == count && Some(newest) != not
        })
        .await;
        newest
    }

    async fn until_nonce(&self, nonce: u64) {
        until("a nonce", async || self.nonce().await >= nonce).await;
    }

    /// Lines of the journal that hold a word.
    fn lines(&self, word: &str) -> usize {
        let text = std::fs::read_to_string(self.journal()).unwrap_or_default();
        text.lines().filter(|line| line.contains(&format!("\"{word}\""))).count()
    }
}

async fn connect(urls: &[&str], settings: SenderSettings, journal: Option<&Path>) -> Result<Sender, ChainFault> {
    let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
    let limits = EndpointLimits { timeout: Duration::from_secs(1), ..EndpointLimits::default() };
    let endpoints = Endpoints::new(&urls, None).unwrap().with_limits(limits);
    Sender::connect(&endpoints, Account::with_key(&DEPLOYER_KEY).unwrap(), settings, journal).await
}

fn account() -> Address {
    Account::with_key(&DEPLOYER_KEY).unwrap().address()
}

fn effect(number: u8) -> B256 {
    keccak256([number])
}

fn receiver(number: u8) -> Address {
    Address::from_slice(&keccak256([number])[..20])
}

async fn pay(sender: &Sender, number: u8) -> Result<SentReceipt, ChainFault> {
    sender.send(effect(number), "pay", Some(receiver(number)), Bytes::new(), U256::from(VALUE)).await
}

#[tokio::test]
async fn an_effect_happens_once_however_often_it_is_asked_for() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    let first = pay(&sender, 1).await.unwrap();
    assert_eq!(pay(&sender, 1).await.unwrap().mined, first.mined);
    drop(sender);
    let again = bench.sender(calm()).await;
    assert_eq!(pay(&again, 1).await.unwrap().mined, first.mined);
    assert_eq!((bench.nonce().await, bench.paid(1).await), (1, VALUE));
    assert_eq!((bench.lines("signed"), bench.lines("mined")), (1, 1));
}

#[tokio::test]
async fn without_a_journal_an_effect_happens_once_in_a_process() {
    let bench = Bench::new().await;
    let sender = connect(&[&bench.anvil.url], calm(), None).await.unwrap();
    let (first, second) = futures::future::join(pay(&sender, 1), pay(&sender, 1)).await;
    assert_eq!(first.unwrap().mined, second.unwrap().mined);
    pay(&sender, 1).await.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await), (1, VALUE));
}

#[tokio::test]
async fn an_effect_that_may_happen_again_does() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    for _ in 0..3 {
        sender.send_again(effect(1), "pay", Some(receiver(1)), Bytes::new(), U256::from(VALUE)).await.unwrap();
    }
    assert_eq!((bench.nonce().await, bench.paid(1).await), (3, 3 * VALUE));
}

#[tokio::test]
async fn an_effect_has_one_meaning() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    pay(&sender, 1).await.unwrap();
    let fault = sender.send(effect(1), "pay", Some(receiver(2)), Bytes::new(), U256::from(VALUE)).await.unwrap_err();
    assert!(matches!(fault, ChainFault::Unexpected { .. }), "{fault:?}");
    assert_eq!(bench.nonce().await, 1);
}

#[tokio::test]
async fn many_effects_at_once_are_one_lane() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    let all = futures::future::join_all((0..20).map(|number| pay(&sender, number))).await;
    for (number, sent) in all.into_iter().enumerate() {
        sent.unwrap();
        assert_eq!(bench.paid(number as u8).await, VALUE);
    }
    assert_eq!(bench.nonce().await, 20);
}

/// A process that dies while an effect is under way, once `reached`, and another that is asked for the same effect.
async fn dies_when<F: Future<Output = ()>>(bench: &Bench, proxy: &Proxy, reached: F) {
    let doomed = connect(&[&proxy.url], calm(), Some(&bench.journal())).await.unwrap();
    tokio::select! {
        biased;
        sent = pay(&doomed, 1) => panic!("{sent:?}"),
        () = reached => {}
    }
    drop(doomed);
    proxy.mend();
}

#[tokio::test]
async fn killed_between_journal_and_broadcast() {
    let bench = Bench::new().await;
    let proxy = Proxy::before(&bench.anvil.url);
    proxy.fail("eth_sendRawTransaction", ALWAYS, Trouble::Turned);
    let tried = async {
        until("a broadcast", async || proxy.asked("eth_sendRawTransaction") > 0).await;
    };
    dies_when(&bench, &proxy, tried).await;
    assert_eq!((bench.nonce().await, bench.lines("signed")), (0, 1));
    pay(&bench.sender(calm()).await, 1).await.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await, bench.lines("signed")), (1, VALUE, 1));
}

#[tokio::test]
async fn killed_between_broadcast_and_receipt() {
    let bench = Bench::new().await;
    let proxy = Proxy::before(&bench.anvil.url);
    bench.automine(false).await;
    let out = async {
        bench.until_pool(1, None).await;
    };
    dies_when(&bench, &proxy, out).await;
    let again = bench.sender(calm()).await;
    let mined = async {
        bench.mine().await;
    };
    let (sent, ()) = futures::future::join(pay(&again, 1), mined).await;
    sent.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await, bench.lines("signed")), (1, VALUE, 1));
}

#[tokio::test]
async fn killed_after_it_was_mined_and_before_anybody_heard() {
    let bench = Bench::new().await;
    let proxy = Proxy::before(&bench.anvil.url);
    proxy.fail("eth_getTransactionReceipt", ALWAYS, Trouble::Turned);
    let tried = async {
        until("a look", async || proxy.asked("eth_getTransactionReceipt") > 0).await;
    };
    dies_when(&bench, &proxy, tried).await;
    assert_eq!((bench.nonce().await, bench.lines("mined")), (1, 0));
    pay(&bench.sender(calm()).await, 1).await.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await), (1, VALUE));
    assert_eq!((bench.lines("signed"), bench.lines("mined")), (1, 1));
}

#[tokio::test]
async fn what_was_journalled_and_never_asked_for_again_does_not_stand_in_the_way() {
    let bench = Bench::new().await;
    let proxy = Proxy::before(&bench.anvil.url);
    proxy.fail("eth_sendRawTransaction", ALWAYS, Trouble::Turned);
    let tried = async {
        until("a broadcast", async || proxy.asked("eth_sendRawTransaction") > 0).await;
    };
    dies_when(&bench, &proxy, tried).await;
    // Nonce 0 is in the journal and on no node; this gets nonce 1 and sees to it that both are mined.
    pay(&bench.sender(calm()).await, 2).await.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await, bench.paid(2).await), (2, VALUE, VALUE));
}

#[tokio::test]
async fn a_node_that_takes_it_and_does_not_say_so_is_not_sent_a_second_one() {
    let bench = Bench::new().await;
    let proxy = Proxy::before(&bench.anvil.url);
    let sender = connect(&[&proxy.url, &bench.anvil.url], calm(), Some(&bench.journal())).await.unwrap();
    proxy.fail("eth_sendRawTransaction", 1, Trouble::Unheard);
    pay(&sender, 1).await.unwrap();
    proxy.fail("eth_sendRawTransaction", 1, Trouble::Stalled);
    pay(&sender, 2).await.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await, bench.paid(2).await), (2, VALUE, VALUE));
    assert_eq!(bench.lines("signed"), 2);
}

#[tokio::test]
async fn the_first_endpoint_may_be_dead() {
    let bench = Bench::new().await;
    let sender = connect(&[NO_NODE, &bench.anvil.url], calm(), None).await.unwrap();
    pay(&sender, 1).await.unwrap();
    assert_eq!(bench.paid(1).await, VALUE);
}

#[tokio::test]
async fn a_stuck_transaction_is_bumped_and_one_of_them_mined() {
    let bench = Bench::new().await;
    let sender = bench.sender(hasty()).await;
    bench.automine(false).await;
    let watching = async {
        let first = bench.until_pool(1, None).await;
        let second = bench.until_pool(1, Some(first)).await;
        let third = bench.until_pool(1, Some(second)).await;
        bench.automine(true).await;
        bench.mine().await;
        assert_ne!(first, third);
        first
    };
    let (sent, first) = futures::future::join(pay(&sender, 1), watching).await;
    let mined = sent.unwrap().mined;
    assert_ne!(mined.transaction, first);
    assert_eq!((bench.nonce().await, bench.paid(1).await), (1, VALUE));
    assert!(bench.node.get_transaction_receipt(first).await.unwrap().is_none());
    let fee = async |hash| {
        let transaction = bench.ask("eth_getTransactionByHash", serde_json::json!([hash])).await;
        u128::from_str_radix(&transaction["maxFeePerGas"].as_str().unwrap()[2..], 16).unwrap()
    };
    // Whichever was the newest when a block came; the first offered little more than 2 gwei.
    assert!(fee(mined.transaction).await > 3 * GWEI);
    assert!(bench.lines("signed") >= 3);
    assert_eq!(bench.lines("mined"), 1);
    // Asked again, in a new process too, it is the one that was mined.
    assert_eq!(pay(&sender, 1).await.unwrap().mined, mined);
    drop(sender);
    assert_eq!(pay(&bench.sender(hasty()).await, 1).await.unwrap().mined, mined);
    assert_eq!(bench.nonce().await, 1);
}

#[tokio::test]
async fn an_earlier_bump_that_is_mined_instead_counts() {
    let bench = Bench::new().await;
    let proxy = Proxy::before(&bench.anvil.url);
    let sender = connect(&[&proxy.url], hasty(), Some(&bench.journal())).await.unwrap();
    bench.automine(false).await;
    let watching = async {
        let first = bench.until_pool(1, None).await;
        // The node never hears of the raise, and mines the first.
        proxy.fail("eth_sendRawTransaction", ALWAYS, Trouble::Turned);
        until("a raise", async || bench.lines("signed") > 1).await;
        bench.mine().await;
        first
    };
    let (sent, first) = futures::future::join(pay(&sender, 1), watching).await;
    assert_eq!(sent.unwrap().mined.transaction, first);
    assert_eq!((bench.nonce().await, bench.paid(1).await), (1, VALUE));
}

#[tokio::test]
async fn a_transaction_that_the_node_dropped_comes_back() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    bench.automine(false).await;
    let watching = async {
        let hash = bench.until_pool(1, None).await;
        bench.ask("anvil_dropTransaction", serde_json::json!([hash])).await;
        let again = bench.until_pool(1, None).await;
        assert_eq!(again, hash, "as it was signed");
        bench.mine().await;
    };
    let (sent, ()) = futures::future::join(pay(&sender, 1), watching).await;
    sent.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await, bench.lines("signed")), (1, VALUE, 1));
}

#[tokio::test]
async fn a_reorganisation_that_takes_it_away_is_mended() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    let first = pay(&sender, 1).await.unwrap().mined;
    let block = bench.node.get_block_number().await.unwrap();
    bench.ask("anvil_reorg", serde_json::json!([1, []])).await;
    assert_eq!((bench.nonce().await, bench.paid(1).await), (0, 0), "it is gone");
    assert_eq!(bench.node.get_block_number().await.unwrap(), block);
    let second = pay(&sender, 1).await.unwrap().mined;
    assert_eq!(second.transaction, first.transaction);
    assert!(second.block > first.block);
    assert_eq!((bench.nonce().await, bench.paid(1).await, bench.lines("signed")), (1, VALUE, 1));

    // The same for a process that knows it from its journal only.
    drop(sender);
    bench.ask("anvil_reorg", serde_json::json!([1, []])).await;
    let again = bench.sender(calm()).await;
    assert_eq!(pay(&again, 1).await.unwrap().mined.transaction, first.transaction);
    // And for one that only sends what comes after it.
    bench.ask("anvil_reorg", serde_json::json!([1, []])).await;
    pay(&again, 2).await.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await, bench.paid(2).await), (2, VALUE, VALUE));
}

#[tokio::test]
async fn a_reorganisation_while_confirmations_are_waited_for_is_mended() {
    let bench = Bench::new().await;
    let sender = bench.sender(SenderSettings { confirmations: 3, ..calm() }).await;
    let watching = async {
        bench.until_nonce(1).await;
        bench.ask("anvil_reorg", serde_json::json!([1, []])).await;
        bench.until_nonce(1).await;
        bench.mine().await;
        bench.mine().await;
    };
    let (sent, ()) = futures::future::join(pay(&sender, 1), watching).await;
    let mined = sent.unwrap().mined;
    assert_eq!(bench.node.get_block_number().await.unwrap(), mined.block + 2);
    assert_eq!((bench.nonce().await, bench.paid(1).await), (1, VALUE));
}

/// Another process with the same key, and no regard for ours.
async fn foreign(bench: &Bench, nonce: u64, gwei: u64) -> serde_json::Value {
    let request = serde_json::json!([{
        "from": account(),
        "to": receiver(99),
        "value": "0x1",
        "nonce": format!("{nonce:#x}"),
        "maxFeePerGas": format!("{:#x}", u128::from(gwei) * GWEI),
        "maxPriorityFeePerGas": format!("{:#x}", u128::from(gwei) * GWEI),
    }]);
    bench.ask("eth_sendTransaction", request).await
}

#[tokio::test]
async fn a_nonce_that_somebody_else_used_is_noticed_and_another_taken() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    bench.automine(false).await;
    let watching = async {
        let ours = bench.until_pool(1, None).await;
        let theirs = foreign(&bench, 0, 100).await;
        bench.until_pool(1, Some(ours)).await;
        bench.mine().await;
        theirs
    };
    let (sent, theirs) = futures::future::join(pay(&sender, 1), watching).await;
    let fault = sent.unwrap_err();
    let ChainFault::Replaced { nonce: 0, by: Some(by), .. } = fault else { panic!("{fault:?}") };
    assert_eq!(serde_json::json!(by), theirs);
    assert!(fault.retry_helps());
    assert_eq!((bench.nonce().await, bench.paid(1).await), (1, 0));
    bench.automine(true).await;
    pay(&sender, 1).await.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await, bench.lines("replaced")), (2, VALUE, 1));
}

#[tokio::test]
async fn a_nonce_that_somebody_else_used_while_nobody_looked_is_noticed() {
    let bench = Bench::new().await;
    let proxy = Proxy::before(&bench.anvil.url);
    proxy.fail("eth_sendRawTransaction", ALWAYS, Trouble::Turned);
    let tried = async {
        until("a broadcast", async || proxy.asked("eth_sendRawTransaction") > 0).await;
    };
    dies_when(&bench, &proxy, tried).await;
    let theirs = foreign(&bench, 0, 100).await;
    bench.ask("anvil_mine", serde_json::json!([300])).await;
    let sender = bench.sender(calm()).await;
    let fault = pay(&sender, 1).await.unwrap_err();
    let ChainFault::Replaced { by: Some(by), .. } = fault else { panic!("{fault:?}") };
    assert_eq!(serde_json::json!(by), theirs);
    pay(&sender, 1).await.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await), (2, VALUE));
}

#[tokio::test]
async fn a_pending_transaction_of_somebody_else_is_not_outbid() {
    let bench = Bench::new().await;
    let proxy = Proxy::before(&bench.anvil.url);
    let sender = connect(&[&proxy.url], hasty(), Some(&bench.journal())).await.unwrap();
    bench.automine(false).await;
    let theirs = foreign(&bench, 0, 100).await;
    // This node does not count what waits in the pool.
    proxy.fail("eth_getTransactionCount", ALWAYS, Trouble::Number(0));
    let watching = async {
        until("many looks", async || proxy.asked("eth_getTransactionByHash") >= 20).await;
        assert_eq!(bench.lines("signed"), 1);
        assert_eq!(serde_json::json!(bench.pool().await[0].1), theirs);
        bench.mine().await;
        bench.automine(true).await;
        proxy.mend();
    };
    let (sent, ()) = futures::future::join(pay(&sender, 1), watching).await;
    assert!(matches!(sent, Err(ChainFault::Replaced { .. })), "{sent:?}");
    pay(&sender, 1).await.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await), (2, VALUE));
}

#[tokio::test]
async fn a_nonce_that_was_lost_on_the_way_is_filled() {
    let bench = Bench::new().await;
    let sender = bench.sender(hasty()).await;
    bench.automine(false).await;
    let theirs = foreign(&bench, 0, 2).await;
    let watching = async {
        bench.until_pool(2, None).await;
        bench.ask("anvil_dropTransaction", serde_json::json!([theirs])).await;
        bench.automine(true).await;
        until("both mined", async || {
            bench.mine().await;
            bench.nonce().await == 2
        })
        .await;
    };
    let (sent, ()) = futures::future::join(pay(&sender, 1), watching).await;
    sent.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await, bench.paid(99).await), (2, VALUE, 0));
}

#[tokio::test]
async fn a_chain_that_asks_more_than_the_cap_is_not_paid() {
    let bench = Bench::new().await;
    let sender = bench.sender(SenderSettings { fee_per_gas_wei_max: 50 * GWEI, ..calm() }).await;
    bench.ask("anvil_setNextBlockBaseFeePerGas", serde_json::json!([format!("{:#x}", 100 * GWEI)])).await;
    bench.mine().await;
    let fault = pay(&sender, 1).await.unwrap_err();
    let ChainFault::FeeCap { asked_wei, cap_wei, .. } = fault else { panic!("{fault:?}") };
    assert!(asked_wei > 80 * GWEI && cap_wei == 50 * GWEI, "{fault}");
    assert!(fault.retry_helps() && fault.to_string().contains("the cap is 50000000000"), "{fault}");
    assert_eq!((bench.nonce().await, bench.lines("signed")), (0, 0));
    for _ in 0..3 {
        bench.ask("anvil_setNextBlockBaseFeePerGas", serde_json::json!([format!("{GWEI:#x}")])).await;
        bench.mine().await;
    }
    pay(&sender, 1).await.unwrap();
    assert_eq!(bench.paid(1).await, VALUE);
}

#[tokio::test]
async fn bumps_end_at_the_cap_and_what_is_out_stays_out() {
    let bench = Bench::new().await;
    let sender = bench.sender(SenderSettings { fee_per_gas_wei_max: 5 * GWEI, ..hasty() }).await;
    bench.automine(false).await;
    let fault = pay(&sender, 1).await.unwrap_err();
    let ChainFault::FeeCap { asked_wei, .. } = fault else { panic!("{fault:?}") };
    assert!(asked_wei > 5 * GWEI && asked_wei < 7 * GWEI, "{fault}");
    assert!(bench.lines("signed") >= 3);
    let [(_, out)] = bench.pool().await[..] else { panic!("one") };
    let transaction = bench.ask("eth_getTransactionByHash", serde_json::json!([out])).await;
    let fee = u128::from_str_radix(&transaction["maxFeePerGas"].as_str().unwrap()[2..], 16).unwrap();
    assert!(fee <= 5 * GWEI);
    bench.mine().await;
    assert_eq!(pay(&sender, 1).await.unwrap().mined.transaction, out);
    assert_eq!((bench.nonce().await, bench.paid(1).await), (1, VALUE));
}

#[tokio::test]
async fn a_transaction_that_a_dearer_chain_leaves_behind_is_bumped_at_once_to_what_is_asked() {
    let bench = Bench::new().await;
    let sender = bench.sender(hasty()).await;
    bench.automine(false).await;
    let watching = async {
        bench.until_pool(1, None).await;
        bench.ask("anvil_setNextBlockBaseFeePerGas", serde_json::json!([format!("{:#x}", 60 * GWEI)])).await;
        until("it mined", async || {
            bench.mine().await;
            bench.nonce().await == 1
        })
        .await;
    };
    let (sent, ()) = futures::future::join(pay(&sender, 1), watching).await;
    let mined = sent.unwrap().mined;
    let transaction = bench.ask("eth_getTransactionByHash", serde_json::json!([mined.transaction])).await;
    let fee = u128::from_str_radix(&transaction["maxFeePerGas"].as_str().unwrap()[2..], 16).unwrap();
    assert!(fee > 20 * GWEI, "{fee}");
    assert_eq!((bench.nonce().await, bench.paid(1).await), (1, VALUE));
}

#[tokio::test]
async fn a_chain_without_a_base_fee_gets_old_transactions() {
    let anvil = Anvil::start_with(START_S, &["--hardfork", "berlin"]);
    let (node, _) = Endpoints::new(std::slice::from_ref(&anvil.url), None).unwrap().connect().await.unwrap();
    let sender = connect(&[&anvil.url], hasty(), None).await.unwrap();
    let _: serde_json::Value = node.client().request("evm_setAutomine", (false,)).await.unwrap();
    let watching = async {
        let hashes = async || {
            let content: serde_json::Value = node.client().request("txpool_content", ()).await.unwrap();
            content["pending"].to_string()
        };
        let mut first = String::new();
        until("a transaction in the pool", async || {
            first = hashes().await;
            first.contains("gasPrice")
        })
        .await;
        until("a raise", async || hashes().await != first).await;
        let _: serde_json::Value = node.client().request("evm_mine", ()).await.unwrap();
    };
    let (sent, ()) = futures::future::join(pay(&sender, 1), watching).await;
    let hash = sent.unwrap().mined.transaction;
    let transaction: serde_json::Value = node.client().request("eth_getTransactionByHash", (hash,)).await.unwrap();
    assert_eq!((&transaction["type"], &transaction["chainId"]), (&"0x0".into(), &"0x7a69".into()), "{transaction}");
    assert_eq!(node.get_balance(receiver(1)).await.unwrap(), U256::from(VALUE));
}

#[tokio::test]
async fn an_account_without_funds_is_named_and_another_try_helps() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    let balance = async |wei: u128| {
        bench.ask("anvil_setBalance", serde_json::json!([account(), format!("{wei:#x}")])).await;
    };
    balance(u128::from(VALUE) + 5).await;
    let fault = pay(&sender, 1).await.unwrap_err();
    let ChainFault::Unfunded { account: named, .. } = fault else { panic!("{fault:?}") };
    assert_eq!(named, account());
    balance(GWEI * GWEI).await;
    pay(&sender, 2).await.unwrap();
    pay(&sender, 1).await.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await, bench.paid(2).await), (2, VALUE, VALUE));
}

#[tokio::test]
async fn what_the_contract_refuses_costs_nothing() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    let reverts = Bytes::from_static(&[0x60, 0, 0x60, 0, 0xfd]);
    let fault = sender.send(effect(1), "create", None, reverts, U256::ZERO).await.unwrap_err();
    assert!(matches!(fault, ChainFault::Reverted { too_early: false, .. }), "{fault:?}");
    assert_eq!((bench.nonce().await, bench.lines("signed")), (0, 0));
}

#[tokio::test]
async fn a_transaction_that_fails_when_mined_is_a_refusal_and_may_be_tried_again() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    // NUMBER PUSH1 n LT PUSH1 8 JUMPI STOP JUMPDEST PUSH1 0 PUSH1 0 REVERT: as a creation it fails after block n.
    let after = Bytes::from(vec![0x43, 0x60, 1, 0x10, 0x60, 8, 0x57, 0x00, 0x5b, 0x60, 0, 0x60, 0, 0xfd]);
    bench.automine(false).await;
    let watching = async {
        bench.until_pool(1, None).await;
        let hash = bench.pool().await[0].1;
        bench.ask("anvil_dropTransaction", serde_json::json!([hash])).await;
        bench.mine().await;
        bench.until_pool(1, None).await;
        bench.mine().await;
    };
    let sent = sender.send(effect(1), "create", None, after.clone(), U256::ZERO);
    let (sent, ()) = futures::future::join(sent, watching).await;
    let fault = sent.unwrap_err();
    assert!(matches!(&fault, ChainFault::Reverted { reason, .. } if reason.contains("failed when mined")), "{fault:?}");
    assert_eq!((bench.nonce().await, bench.lines("failed")), (1, 1));
    let fault = sender.send(effect(1), "create", None, after, U256::ZERO).await.unwrap_err();
    assert!(matches!(&fault, ChainFault::Reverted { reason, .. } if !reason.contains("when mined")), "{fault:?}");
    assert_eq!(bench.nonce().await, 1);
}

#[tokio::test]
async fn one_process_at_a_time_holds_a_journal() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    pay(&sender, 1).await.unwrap();
    let fault = connect(&[&bench.anvil.url], calm(), Some(&bench.journal())).await.err().expect("held");
    assert!(matches!(fault, ChainFault::Journal(LineFileFault::InUse(_))), "{fault:?}");
    drop(sender);
    bench.sender(calm()).await;
}

#[tokio::test]
async fn a_line_that_a_crash_cut_off_was_never_sent() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    pay(&sender, 1).await.unwrap();
    pay(&sender, 2).await.unwrap();
    drop(sender);
    let text = std::fs::read_to_string(bench.journal()).unwrap();
    for cut in [1, 20, 200] {
        let mut file = std::fs::OpenOptions::new().append(true).open(bench.journal()).unwrap();
        let line = text.lines().nth(1).unwrap();
        file.write_all(&line.as_bytes()[..cut]).unwrap();
        drop(file);
        let sender = bench.sender(calm()).await;
        pay(&sender, 1).await.unwrap();
        drop(sender);
        assert_eq!(std::fs::read_to_string(bench.journal()).unwrap(), text);
    }
    assert_eq!(bench.nonce().await, 2);
}

#[tokio::test]
async fn other_damage_is_a_fault_that_names_the_line() {
    let bench = Bench::new().await;
    let sender = bench.sender(calm()).await;
    pay(&sender, 1).await.unwrap();
    pay(&sender, 2).await.unwrap();
    drop(sender);
    let text = std::fs::read_to_string(bench.journal()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let with = |index: usize, line: String| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        lines[index] = line;
        lines.join("\n") + "\n"
    };
    let without = |index: usize| {
        let mut lines = lines.clone();
        lines.remove(index);
        lines.join("\n") + "\n"
    };
    for (damaged, at) in [
        (with(1, lines[1].replace("\"nonce\":0", "\"nonce\":7")), 2),
        (with(3, "{}".into()), 4),
        (without(2), 3),
        (with(2, lines[2].to_owned() + "x"), 3),
    ] {
        std::fs::write(bench.journal(), damaged).unwrap();
        let fault = connect(&[&bench.anvil.url], calm(), Some(&bench.journal())).await.err().expect("damaged");
        let ChainFault::Journal(LineFileFault::Damaged { line, .. }) = fault else { panic!("{fault:?}") };
        assert_eq!(line, at);
    }
    // Another account's, or another chain's.
    std::fs::write(bench.journal(), with(0, lines[0].replace("31337", "1"))).unwrap();
    let fault = connect(&[&bench.anvil.url], calm(), Some(&bench.journal())).await.err().expect("foreign");
    let ChainFault::Journal(LineFileFault::Foreign { expected, actual, .. }) = &fault else { panic!("{fault:?}") };
    assert!(expected.contains("31337") && actual.contains(":1,"), "{fault}");
    assert_eq!(bench.nonce().await, 2);
}

#[tokio::test]
async fn what_is_final_is_forgotten_but_for_the_newest() {
    let bench = Bench::new().await;
    let few = SenderSettings { ended_kept: 3, ..calm() };
    let sender = bench.sender(few).await;
    for number in 0..7 {
        pay(&sender, number).await.unwrap();
    }
    assert_eq!(bench.lines("signed"), 7, "nothing is final yet");
    bench.ask("anvil_mine", serde_json::json!([300])).await;
    drop(sender);
    let sender = bench.sender(few).await;
    assert_eq!((bench.lines("signed"), bench.lines("mined")), (3, 3));
    for number in 4..9 {
        pay(&sender, number).await.unwrap();
    }
    assert_eq!(bench.nonce().await, 9);
    drop(sender);
    // What was written over is sound.
    let sender = bench.sender(few).await;
    pay(&sender, 8).await.unwrap();
    assert_eq!(bench.nonce().await, 9);
}

async fn chain(urls: &[&str], addresses: Addresses, journal: &Path) -> JsonRpcChain {
    let settings = RpcSettings {
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        chain_id: Some(31337),
        limits: EndpointLimits { timeout: Duration::from_secs(1), ..EndpointLimits::default() },
        sender: calm(),
        journal: Some(journal.to_owned()),
        ..RpcSettings::default()
    };
    JsonRpcChain::open(settings, Account::with_key(&DEPLOYER_KEY).unwrap(), addresses).await.unwrap()
}

#[tokio::test]
async fn a_step_is_taken_once_over_a_crash_and_two_endpoints() {
    let world = World::anvil().await;
    let World::Anvil { chain: deployed, anvil, node } = &world else { unreachable!() };
    let case = Case::funded(&world, 70, false).await;
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("sender.jsonl");
    let before = node.get_transaction_count(account()).await.unwrap();
    let proxy = Proxy::before(&anvil.url);
    let step = case.open();
    {
        let doomed = chain(&[&proxy.url], deployed.addresses(), &journal).await;
        proxy.fail("eth_sendRawTransaction", ALWAYS, Trouble::Unheard);
        let heard = async {
            until("it mined", async || node.get_transaction_count(account()).await.unwrap() > before).await;
        };
        proxy.fail("eth_getTransactionReceipt", ALWAYS, Trouble::Turned);
        tokio::select! {
            biased;
            taken = doomed.perform(&step) => panic!("{taken:?}"),
            () = heard => {}
        }
    }
    proxy.fail("", ALWAYS, Trouble::Stalled);
    let again = chain(&[&proxy.url, &anvil.url], deployed.addresses(), &journal).await;
    let opened = again.perform(&step).await.unwrap();
    assert_eq!(again.perform(&step).await.unwrap(), opened);
    assert_eq!(node.get_transaction_count(account()).await.unwrap(), before + 1);
    assert!(again.describe().contains(", "), "{}", again.describe());
}

#[tokio::test]
async fn a_step_whose_event_a_node_does_not_find_is_no_refusal() {
    let world = World::anvil().await;
    let World::Anvil { chain: deployed, anvil, node } = &world else { unreachable!() };
    let case = Case::funded(&world, 71, false).await;
    let opened = case.must(&case.open()).await;
    let proxy = Proxy::before(&anvil.url);
    let shaky = JsonRpcChain::connect(&proxy.url, &DEPLOYER_KEY, deployed.addresses()).await.unwrap();
    proxy.fail("eth_getLogs", 2, Trouble::Nothing);
    for _ in 0..2 {
        let fault = shaky.perform(&case.open()).await.unwrap_err();
        assert!(matches!(fault, ChainFault::Unreachable { .. }) && fault.retry_helps(), "{fault:?}");
    }
    proxy.fail("eth_getLogs", 3, Trouble::TooManyBlocks);
    let before = node.get_transaction_count(account()).await.unwrap();
    assert_eq!(shaky.perform(&case.open()).await.unwrap(), opened);
    assert_eq!((proxy.left(), node.get_transaction_count(account()).await.unwrap()), (0, before));
}

#[tokio::test]
async fn the_same_deposit_twice_is_two_deposits() {
    let World::Anvil { chain: deployed, anvil, .. } = World::anvil().await else { unreachable!() };
    let folder = tempfile::tempdir().unwrap();
    let chain = chain(&[&anvil.url], deployed.addresses(), &folder.path().join("sender.jsonl")).await;
    for _ in 0..2 {
        chain.deposit(Address::ZERO, 70.into()).await.unwrap();
    }
    assert_eq!(chain.balance(Address::ZERO, chain.account()).await.unwrap(), 140.into());
}

#[tokio::test]
async fn a_node_that_lies_about_nonces_costs_time_and_nothing_else() {
    let bench = Bench::new().await;
    let proxy = Proxy::before(&bench.anvil.url);
    let settings = SenderSettings { give_up_after: Duration::from_millis(200), ..calm() };
    let sender = connect(&[&proxy.url], settings, Some(&bench.journal())).await.unwrap();
    pay(&sender, 1).await.unwrap();
    // It says that a nonce is used that is not, and knows no transaction that used it.
    bench.automine(false).await;
    proxy.fail("eth_getTransactionCount", 1, Trouble::Number(1));
    proxy.fail("eth_getTransactionCount", ALWAYS, Trouble::Number(9));
    for _ in 0..3 {
        let fault = pay(&sender, 2).await.unwrap_err();
        assert!(matches!(fault, ChainFault::Unreachable { .. }), "{fault:?}");
    }
    proxy.mend();
    assert_eq!(bench.lines("signed"), 2, "no second nonce for it");
    bench.automine(true).await;
    bench.mine().await;
    pay(&sender, 2).await.unwrap();
    assert_eq!((bench.nonce().await, bench.paid(1).await, bench.paid(2).await), (2, VALUE, VALUE));
}
