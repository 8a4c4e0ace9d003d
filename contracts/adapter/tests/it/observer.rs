//! Events are told in order, each once, whatever the node and the chain do.

use alloy::{
    primitives::U256,
    providers::{Provider as _, ProviderBuilder, RootProvider},
};
use alloy_primitives::B256;
use tribunal_contracts::{ChainFault, Cursor, Observed, Observer, RpcNode, Watched};

use crate::{
    anvil::Anvil,
    fake_node::{Block, CONTRACT, FakeNode, Lies, event},
};

fn node(url: &str) -> RpcNode {
    tribunal_contracts::install_tls();
    RpcNode::new(RootProvider::<alloy::network::Ethereum>::new_http(url.parse().unwrap()))
}

fn watched(confirmations: u64) -> Watched {
    Watched { contracts: vec![CONTRACT], events: vec![event()], first_block: 1, confirmations }
}

fn observer(fake: &FakeNode, confirmations: u64) -> Observer {
    Observer::new(node(&fake.url), watched(confirmations), Cursor::default())
}

/// Blocks with these logs, of one history.
fn blocks(history: u64, logs: &[&[u64]]) -> Vec<Block> {
    logs.iter().map(|logs| Block { salt: history, logs: logs.to_vec() }).collect()
}

/// Everything that is told until there is nothing new: data of logs, and how far it went back.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Log(u64),
    BackTo(Option<u64>),
}

async fn all(observer: &mut Observer) -> Result<Vec<Told>, ChainFault> {
    let mut told = Vec::new();
    while let Some(observed) = observer.next().await? {
        match observed {
            Observed::Logs { logs, .. } => {
                told.extend(logs.iter().map(|log| Told::Log(U256::from_be_slice(&log.data).to::<u64>())));
            }
            Observed::RolledBack { to } => told.push(Told::BackTo(to.map(|to| to.number))),
        }
    }
    Ok(told)
}

fn logs(data: impl IntoIterator<Item = u64>) -> Vec<Told> {
    data.into_iter().map(Told::Log).collect()
}

#[tokio::test]
async fn events_are_told_once_they_have_their_confirmations_and_never_again() {
    let fake = FakeNode::start(blocks(0, &[&[], &[1, 2], &[], &[3], &[4]]));
    let mut observer = observer(&fake, 2);
    assert_eq!(all(&mut observer).await.unwrap(), logs([1, 2, 3]), "the newest block has one confirmation");
    let kept = serde_json::to_string(observer.cursor()).unwrap();
    fake.state().blocks.extend(blocks(0, &[&[5], &[]]));
    let mut again = Observer::new(node(&fake.url), watched(2), serde_json::from_str(&kept).unwrap());
    assert_eq!(all(&mut again).await.unwrap(), logs([4, 5]), "a restart goes on after the cursor");
    assert_eq!(all(&mut again).await.unwrap(), []);
}

#[tokio::test]
async fn a_reorganisation_is_told_and_the_new_blocks_after_it() {
    let old = blocks(0, &[&[], &[1], &[2], &[3]]);
    let fake = FakeNode::start(old.clone());
    let mut observer = observer(&fake, 1);
    assert_eq!(all(&mut observer).await.unwrap(), logs([1, 2, 3]));
    // One range is one mark: all of it is told again.
    let new = [&old[..2], &blocks(1, &[&[7], &[], &[8]])].concat();
    fake.state().blocks = new;
    let mut expected = vec![Told::BackTo(None)];
    expected.extend(logs([1, 7, 8]));
    assert_eq!(all(&mut observer).await.unwrap(), expected);
    // Block by block as they come, it goes back to the newest that stands.
    for data in [9, 10, 11] {
        fake.state().blocks.extend(blocks(1, &[&[data]]));
        assert_eq!(all(&mut observer).await.unwrap(), logs([data]));
    }
    let head = fake.state().blocks.len() as u64 - 1;
    fake.state().blocks.truncate(head as usize - 1);
    fake.state().blocks.extend(blocks(2, &[&[12], &[13], &[14]]));
    let mut expected = vec![Told::BackTo(Some(head - 2))];
    expected.extend(logs([12, 13, 14]));
    assert_eq!(all(&mut observer).await.unwrap(), expected);
}

#[tokio::test]
async fn an_older_node_is_waited_for() {
    let fake = FakeNode::start(blocks(0, &[&[], &[1], &[2]]));
    let mut observer = observer(&fake, 1);
    assert_eq!(all(&mut observer).await.unwrap(), logs([1, 2]));
    fake.state().lies.behind = 2;
    assert_eq!(all(&mut observer).await.unwrap(), [], "no reorganisation");
    fake.state().lies.behind = 0;
    fake.state().blocks.extend(blocks(0, &[&[3]]));
    assert_eq!(all(&mut observer).await.unwrap(), logs([3]));
}

#[tokio::test]
async fn limits_of_the_node_on_ranges_and_answers_are_lived_with() {
    let many: Vec<_> = (0..300u64).map(|number| Block { salt: 0, logs: vec![number; (number % 3) as usize] }).collect();
    let expected: Vec<_> = many.iter().skip(1).flat_map(|block| block.logs.clone()).collect();
    let fake = FakeNode::start(many);
    for lies in [Lies { range_max: Some(7), ..Lies::default() }, Lies { logs_max: Some(3), ..Lies::default() }] {
        fake.state().lies = lies;
        assert_eq!(all(&mut observer(&fake, 1)).await.unwrap(), logs(expected.clone()));
    }
    fake.state().lies = Lies { logs_max: Some(1), ..Lies::default() };
    let fault = all(&mut observer(&fake, 1)).await.unwrap_err();
    assert!(fault.retry_helps() && fault.to_string().contains("logs"), "one block is too much: {fault}");
}

#[tokio::test]
async fn a_node_that_lies_is_not_believed() {
    let fake = FakeNode::start(blocks(0, &[&[], &[1, 2], &[], &[3]]));
    fake.state().lies.reversed = true;
    assert_eq!(all(&mut observer(&fake, 1)).await.unwrap(), logs([1, 2, 3]), "order is made");
    fake.state().lies = Lies { forgets: Some(3), ..Lies::default() };
    assert_eq!(all(&mut observer(&fake, 1)).await.unwrap(), logs([1, 2, 3]), "the bloom filter tells");
    for (lies, word) in [
        (Lies { removed: true, ..Lies::default() }, "removed"),
        (Lies { other_contract: true, ..Lies::default() }, "contract"),
        (Lies { other_block: true, ..Lies::default() }, "changed"),
    ] {
        fake.state().lies = lies;
        let mut observer = observer(&fake, 1);
        let fault = all(&mut observer).await.unwrap_err();
        let text = format!("{fault} {:?}", std::error::Error::source(&fault).map(ToString::to_string));
        assert!(text.contains(word), "{word}: {text}");
        assert_eq!(observer.cursor().last(), None, "nothing was told");
        fake.state().lies = Lies::default();
        assert_eq!(all(&mut observer).await.unwrap(), logs([1, 2, 3]), "and it goes on");
    }
}

#[tokio::test]
async fn a_chain_that_changes_while_it_is_read_is_read_again() {
    let old = blocks(0, &[&[], &[1], &[2]]);
    let new = [&old[..2], &blocks(1, &[&[7]])].concat();
    let fake = FakeNode::start(old);
    fake.state().lies.changes_after_logs = Some(new);
    let mut observer = observer(&fake, 1);
    let fault = all(&mut observer).await.unwrap_err();
    assert!(fault.retry_helps(), "{fault}");
    assert_eq!(all(&mut observer).await.unwrap(), logs([1, 7]));
}

#[tokio::test]
async fn a_real_nodes_reorganisation_is_seen() {
    tribunal_contracts::install_tls();
    let anvil = Anvil::start(2_000_000_000);
    let treasury = tribunal_contracts::IN_PROCESS_TREASURY;
    let chain = tribunal_contracts::JsonRpcChain::deploy(&anvil.url, &crate::anvil::DEPLOYER_KEY, treasury, 60);
    let chain = chain.await.unwrap();
    let provider = ProviderBuilder::new().connect_http(anvil.url.parse().unwrap());
    let transfer = alloy_primitives::keccak256("Transfer(address,address,uint256)");
    let watched =
        Watched { contracts: vec![chain.addresses().token], events: vec![transfer], first_block: 0, confirmations: 1 };
    let mut observer = Observer::new(node(&anvil.url), watched, Cursor::default());
    let account = alloy_primitives::Address::repeat_byte(0x77);
    assert_eq!(all(&mut observer).await.unwrap(), []);
    for amount in [11u64, 12, 13] {
        chain.fund(account, amount.into()).await.unwrap();
        assert_eq!(all(&mut observer).await.unwrap(), logs([amount]));
    }
    let before: B256 = observer.cursor().last().unwrap().hash;
    let () = provider.client().request("anvil_reorg", (2, Vec::<u8>::new())).await.unwrap();
    let told = all(&mut observer).await.unwrap();
    assert!(matches!(told[0], Told::BackTo(Some(_))), "{told:?}");
    assert!(!told.contains(&Told::Log(11)) && told.len() == 1, "both blocks are empty now: {told:?}");
    assert_ne!(observer.cursor().last().unwrap().hash, before);
    chain.fund(account, 14u64.into()).await.unwrap();
    assert_eq!(all(&mut observer).await.unwrap(), logs([14]));
}
