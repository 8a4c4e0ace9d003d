use std::time::Duration;

use alloy::{
    providers::{DynProvider, Provider},
    rpc::types::Filter,
};
use alloy_primitives::Bytes;
use tribunal_contracts::{ChainFault, EndpointLimits, Endpoints, LogSpan, get_logs_split};
use tribunal_events::{Address, B256};

use crate::{
    anvil::{Anvil, NO_NODE, until},
    proxy::{ALWAYS, Proxy, Trouble},
    world::START_S,
};

const CHAIN_ID: u64 = 31337;

/// Short waits and small answers.
fn limits() -> EndpointLimits {
    EndpointLimits {
        timeout: Duration::from_millis(1500),
        answer_bytes_max: 1 << 20,
        behind_blocks_max: 10,
        compare_every: Duration::from_secs(3600),
    }
}

fn endpoints(urls: &[&str], chain_id: Option<u64>) -> Endpoints {
    let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
    Endpoints::new(&urls, chain_id).unwrap().with_limits(limits())
}

async fn mine(url: &str, blocks: u64) {
    let (node, _) = endpoints(&[url], None).connect().await.unwrap();
    let _: serde_json::Value = node.client().request("anvil_mine", (blocks,)).await.unwrap();
}

fn host(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

/// The first of two endpoints fails in some way after it worked; what it is asked is answered all the same.
async fn second_answers(trouble: Trouble) -> (Proxy, DynProvider, Anvil) {
    let anvil = Anvil::start(START_S);
    mine(&anvil.url, 7).await;
    let first = Proxy::before(&anvil.url);
    let (provider, _) = endpoints(&[&first.url, &anvil.url], None).connect().await.unwrap();
    assert_eq!(provider.get_block_number().await.unwrap(), 7);
    first.fail("", ALWAYS, trouble);
    assert_eq!(provider.get_block_number().await.unwrap(), 7);
    let asked = first.requests();
    for _ in 0..5 {
        assert_eq!(provider.get_balance(Address::ZERO).await.unwrap().to::<u64>(), 0);
    }
    assert_eq!(first.requests(), asked, "what failed is left alone");
    (first, provider, anvil)
}

#[tokio::test]
async fn an_endpoint_that_turns_requests_away_is_left_for_the_next() {
    second_answers(Trouble::Turned).await;
}

#[tokio::test]
async fn an_endpoint_that_stalls_is_left_for_the_next() {
    second_answers(Trouble::Stalled).await;
}

#[tokio::test]
async fn an_endpoint_that_talks_garbage_is_left_for_the_next() {
    second_answers(Trouble::Garbage).await;
}

#[tokio::test]
async fn an_endpoint_whose_answers_have_another_form_is_left_for_the_next() {
    second_answers(Trouble::Nonsense).await;
}

#[tokio::test]
async fn an_endpoint_whose_answers_have_no_end_is_left_for_the_next() {
    second_answers(Trouble::Endless).await;
    let anvil = Anvil::start(START_S);
    let endless = Proxy::before(&anvil.url);
    let (provider, _) = endpoints(&[&endless.url], None).connect().await.unwrap();
    endless.fail("", ALWAYS, Trouble::Endless);
    let error = provider.get_block_number().await.unwrap_err();
    assert!(error.to_string().contains("more than 1048576 bytes"), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_allows_no_more_requests_is_left_for_the_next() {
    second_answers(Trouble::Limited).await;
    second_answers(Trouble::LimitedPolitely).await;
}

#[tokio::test]
async fn the_first_endpoint_may_be_dead_from_the_start() {
    let anvil = Anvil::start(START_S);
    let (provider, chain_id) = endpoints(&[NO_NODE, &anvil.url], None).connect().await.unwrap();
    assert_eq!((chain_id, provider.get_block_number().await.unwrap()), (CHAIN_ID, 0));
}

#[tokio::test]
async fn the_first_is_asked_again_when_the_second_fails() {
    let (first, provider, anvil) = second_answers(Trouble::Turned).await;
    first.mend();
    drop(anvil);
    // The node is gone behind both, but the first is asked and says so.
    let before = first.requests();
    provider.get_block_number().await.unwrap_err();
    assert!(first.requests() > before);
}

#[tokio::test]
async fn a_revert_is_an_answer_and_not_asked_elsewhere() {
    let anvil = Anvil::start(START_S);
    let second = Proxy::before(&anvil.url);
    let (provider, _) = endpoints(&[&anvil.url, &second.url], None).connect().await.unwrap();
    provider.get_block_number().await.unwrap();
    let before = second.requests();
    // PUSH1 0 PUSH1 0 REVERT
    let request = alloy::rpc::types::TransactionRequest::default();
    let creation =
        alloy::network::TransactionBuilder::with_deploy_code(request, Bytes::from_static(&[0x60, 0, 0x60, 0, 0xfd]));
    let error = provider.call(creation).await.unwrap_err();
    assert!(error.is_error_resp(), "{error:?}");
    assert_eq!(second.requests(), before);
}

#[tokio::test]
async fn an_endpoint_of_another_chain_is_never_read_from() {
    let anvil = Anvil::start(START_S);
    let other = Proxy::before(&anvil.url);
    other.fail("eth_chainId", ALWAYS, Trouble::Number(1));
    let (provider, _) = endpoints(&[&other.url, &anvil.url], Some(CHAIN_ID)).connect().await.unwrap();
    for _ in 0..3 {
        provider.get_block_number().await.unwrap();
    }
    assert_eq!(other.requests(), other.asked("eth_chainId"), "asked for its chain only");

    let fault = endpoints(&[&other.url], Some(CHAIN_ID)).connect().await.unwrap_err();
    let ChainFault::Unexpected { problem, .. } = &fault else { panic!("{fault:?}") };
    assert_eq!(*problem, format!("{}: it is on chain 1, not 31337", host(&other.url)));
}

#[tokio::test]
async fn an_endpoint_that_comes_back_as_another_chain_is_not_read_from() {
    let anvil = Anvil::start(START_S);
    let first = Proxy::before(&anvil.url);
    let (provider, _) = endpoints(&[&first.url], None).connect().await.unwrap();
    first.fail("eth_blockNumber", 1, Trouble::Turned);
    provider.get_block_number().await.unwrap_err();
    first.fail("eth_chainId", ALWAYS, Trouble::Number(5));
    let before = first.asked("eth_blockNumber");
    let error = provider.get_block_number().await.unwrap_err();
    assert!(error.to_string().contains("it is on chain 5, not 31337"), "{error}");
    assert_eq!(first.asked("eth_blockNumber"), before);
}

#[tokio::test]
async fn an_endpoint_that_is_far_behind_is_left_for_a_better_one() {
    let anvil = Anvil::start(START_S);
    mine(&anvil.url, 50).await;
    let old = Proxy::before(&anvil.url);
    old.fail("eth_blockNumber", ALWAYS, Trouble::Number(12));
    let (provider, _) = endpoints(&[&old.url, &anvil.url], None).connect().await.unwrap();
    assert_eq!(provider.get_block_number().await.unwrap(), 50);
    let asked = old.asked("eth_getBalance");
    provider.get_balance(Address::ZERO).await.unwrap();
    assert_eq!(old.asked("eth_getBalance"), asked);

    // Alone it is better than nothing.
    let (provider, _) = endpoints(&[&old.url, NO_NODE], None).connect().await.unwrap();
    assert_eq!(provider.get_block_number().await.unwrap(), 12);
}

#[tokio::test]
async fn an_endpoint_that_falls_behind_is_noticed_when_it_says_so() {
    let anvil = Anvil::start(START_S);
    mine(&anvil.url, 50).await;
    let old = Proxy::before(&anvil.url);
    let (provider, _) = endpoints(&[&old.url, &anvil.url], None).connect().await.unwrap();
    assert_eq!(provider.get_block_number().await.unwrap(), 50);
    old.fail("eth_blockNumber", ALWAYS, Trouble::Number(12));
    assert_eq!(provider.get_block_number().await.unwrap(), 50);
    let asked = old.asked("eth_getBalance");
    provider.get_balance(Address::ZERO).await.unwrap();
    assert_eq!(old.asked("eth_getBalance"), asked);
}

#[tokio::test]
async fn one_of_three_that_boasts_of_a_head_does_not_make_the_others_old() {
    let anvil = Anvil::start(START_S);
    let boaster = Proxy::before(&anvil.url);
    boaster.fail("eth_blockNumber", ALWAYS, Trouble::Number(1 << 40));
    let others = [Proxy::before(&anvil.url), Proxy::before(&anvil.url)];
    let all = endpoints(&[&others[0].url, &boaster.url, &others[1].url], None);
    let (provider, _) = all.connect().await.unwrap();
    assert_eq!(provider.get_block_number().await.unwrap(), 0);
}

#[tokio::test]
async fn when_all_are_down_each_is_named_with_its_reason_and_no_secret() {
    let anvil = Anvil::start(START_S);
    let (stalled, garbled) = (Proxy::before(&anvil.url), Proxy::before(&anvil.url));
    stalled.fail("", ALWAYS, Trouble::Stalled);
    garbled.fail("", ALWAYS, Trouble::Garbage);
    let with_secret = |url: &str| url.replace("http://", "http://user:hunter2@") + "/v3/0123secret";
    let urls = [NO_NODE, &with_secret(&stalled.url), &with_secret(&garbled.url)];
    let all = endpoints(&urls, Some(CHAIN_ID));
    assert_eq!(all.describe(), format!("{}, {}, {}", host(NO_NODE), host(&stalled.url), host(&garbled.url)));
    let fault = all.connect().await.unwrap_err();
    let ChainFault::Unreachable { source, .. } = &fault else { panic!("{fault:?}") };
    let words = source.to_string();
    for part in [
        format!("{}: error sending request", host(NO_NODE)),
        format!("{}: no answer in 1.5 s", host(&stalled.url)),
        format!("{}: garbage instead of an answer", host(&garbled.url)),
    ] {
        assert!(words.contains(&part), "{words} has no {part}");
    }
    assert!(fault.retry_helps());
    let all = format!("{fault} {fault:?}");
    assert!(!all.contains("hunter2") && !all.contains("secret"), "{all}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    use std::io::{Read as _, Write as _};
    let anvil = Anvil::start(START_S);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let target = anvil.url.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
        }
    });
    let fault = endpoints(&[&url], None).connect().await.unwrap_err();
    let ChainFault::Unreachable { source, .. } = &fault else { panic!("{fault:?}") };
    assert!(source.to_string().contains("HTTP status 307"), "{source}");
}

#[test]
fn what_is_no_http_url_is_refused_without_repeating_it() {
    for url in ["127.0.0.1:8545", "ftp://user:hunter2@example.org/secret", "http://", "nonsense", ""] {
        let fault = Endpoints::new(&[url.to_owned()], None).err().expect("refused");
        assert!(!fault.retry_helps() && !fault.to_string().contains("hunter2"), "{fault}");
    }
    Endpoints::new(&[], None).err().expect("none is refused");
}

async fn until_block(node: &DynProvider, block: u64) {
    until("a block", async || node.get_block_number().await.unwrap() >= block).await;
}

/// A node with one event a block from 1 on: PUSH1 0 PUSH1 0 LOG0 in a constructor.
async fn node_with_events(blocks: u64) -> Anvil {
    let anvil = Anvil::start(START_S);
    let (node, _) = endpoints(&[&anvil.url], None).connect().await.unwrap();
    for _ in 0..blocks {
        let request = serde_json::json!({
            "from": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
            "data": "0x60006000a0",
        });
        let before = node.get_block_number().await.unwrap();
        let _: B256 = node.client().request("eth_sendTransaction", (request,)).await.unwrap();
        until_block(&node, before + 1).await;
    }
    assert_eq!(node.get_block_number().await.unwrap(), blocks);
    anvil
}

#[tokio::test]
async fn events_are_read_in_pieces_where_a_provider_refuses_all_of_them() {
    let anvil = node_with_events(40).await;
    let strict = Proxy::before(&anvil.url);
    let (provider, _) = endpoints(&[&strict.url], None).connect().await.unwrap();
    let span = LogSpan::default();
    // 41 blocks, 20, 10, 5: refused; then 2 at a time and a little more each time.
    strict.fail("eth_getLogs", 4, Trouble::TooManyBlocks);
    let logs = get_logs_split(&provider, &Filter::new(), 0, 40, &span).await.unwrap();
    let blocks: Vec<u64> = logs.iter().map(|log| log.block_number.unwrap()).collect();
    assert_eq!(blocks, (1..=40).collect::<Vec<_>>());
    assert_eq!(strict.left(), 0);
    let learned = span.blocks();
    assert!((2..41).contains(&learned), "{learned}");
    let before = strict.asked("eth_getLogs");
    get_logs_split(&provider, &Filter::new(), 1, 1, &span).await.unwrap();
    assert_eq!(strict.asked("eth_getLogs"), before + 1, "what was learned is used");
}

#[tokio::test]
async fn an_answer_with_too_many_events_is_asked_for_in_pieces() {
    let anvil = node_with_events(20).await;
    let urls = [anvil.url.clone()];
    let small = Endpoints::new(&urls, None).unwrap().with_limits(EndpointLimits { answer_bytes_max: 3000, ..limits() });
    let (provider, _) = small.connect().await.unwrap();
    let all = Filter::new().from_block(0).to_block(20);
    let error = provider.get_logs(&all).await.unwrap_err();
    assert!(error.to_string().contains("more than 3000 bytes"), "{error}");
    let logs = get_logs_split(&provider, &Filter::new(), 0, 20, &LogSpan::default()).await.unwrap();
    assert_eq!(logs.len(), 20);
}

#[tokio::test]
async fn a_node_that_refuses_every_block_is_a_fault_and_teaches_nothing() {
    let anvil = Anvil::start(START_S);
    let strict = Proxy::before(&anvil.url);
    let (provider, _) = endpoints(&[&strict.url], None).connect().await.unwrap();
    strict.fail("eth_getLogs", ALWAYS, Trouble::TooManyBlocks);
    let span = LogSpan::new(1000);
    let fault = get_logs_split(&provider, &Filter::new(), 0, 999, &span).await.unwrap_err();
    assert!(matches!(fault, ChainFault::Unreachable { .. }), "{fault:?}");
    assert_eq!((span.blocks(), strict.asked("eth_getLogs")), (1000, 10));
    // A limit on requests is no reason for more of them.
    strict.mend();
    strict.fail("eth_getLogs", ALWAYS, Trouble::Limited);
    get_logs_split(&provider, &Filter::new(), 0, 999, &span).await.unwrap_err();
    assert_eq!(strict.asked("eth_getLogs"), 11);
}

#[tokio::test]
async fn a_transaction_that_a_silent_endpoint_took_is_not_refused_by_the_next() {
    let anvil = Anvil::start(START_S);
    let (node, _) = endpoints(&[&anvil.url], None).connect().await.unwrap();
    let first = Proxy::before(&anvil.url);
    let second = Proxy::before(&anvil.url);
    let (provider, _) = endpoints(&[&first.url, &second.url], None).connect().await.unwrap();
    provider.get_block_number().await.unwrap();
    // Not a transaction: every node says so.
    let raw = Bytes::from_static(&[1, 2, 3]);
    let plain = provider.client().request::<_, B256>("eth_sendRawTransaction", (raw.clone(),)).await.unwrap_err();
    assert!(plain.is_error_resp(), "{plain:?}");
    first.fail("eth_sendRawTransaction", 1, Trouble::Stalled);
    let unclear = provider.client().request::<_, B256>("eth_sendRawTransaction", (raw,)).await.unwrap_err();
    assert!(unclear.is_transport_error(), "whether the first has it is not known: {unclear:?}");
    assert_eq!(second.asked("eth_sendRawTransaction"), 1);
    // A node that nobody reached has nothing.
    let (provider, _) = endpoints(&[NO_NODE, &second.url], None).connect().await.unwrap();
    let raw = Bytes::from_static(&[1, 2, 3]);
    let plain = provider.client().request::<_, B256>("eth_sendRawTransaction", (raw,)).await.unwrap_err();
    assert!(plain.is_error_resp(), "{plain:?}");
    // What a node itself signs is not asked for twice.
    let before = node.get_block_number().await.unwrap();
    let (third, fourth) = (Proxy::before(&anvil.url), Proxy::before(&anvil.url));
    let (provider, _) = endpoints(&[&third.url, &fourth.url], None).connect().await.unwrap();
    third.fail("eth_sendTransaction", 1, Trouble::Unheard);
    let request = serde_json::json!({ "from": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "data": "0x00" });
    provider.client().request::<_, B256>("eth_sendTransaction", (request,)).await.unwrap_err();
    until_block(&node, before + 1).await;
    assert_eq!(fourth.asked("eth_sendTransaction"), 0);
}
