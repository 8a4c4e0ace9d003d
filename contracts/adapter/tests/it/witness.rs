//! What a node does not say proves nothing.

use alloy_primitives::B256;
use tribunal_contracts::{ChainFault, Witness};

use crate::fake_node::{Block, FakeNode, Lies, transaction};

async fn witness(fake: &FakeNode) -> Witness {
    Witness::connect(std::slice::from_ref(&fake.url), None).await.unwrap()
}

fn chain() -> FakeNode {
    let logs: [&[u64]; 4] = [&[], &[1, 2], &[], &[3]];
    FakeNode::start(logs.iter().map(|logs| Block { salt: 0, logs: logs.to_vec() }).collect())
}

#[tokio::test]
async fn a_transaction_stands_where_its_block_holds_it_and_it_did_not_fail() {
    let fake = chain();
    let witness = witness(&fake).await;
    let stands = async |hash: B256, block: u64| witness.stands(hash, block).await.unwrap();
    assert_eq!(stands(transaction(1), 1).await, Some(true));
    assert_eq!(stands(transaction(3), 3).await, Some(true));
    assert_eq!(stands(transaction(1), 2).await, Some(false), "it is in another block");
    assert_eq!(stands(transaction(9), 3).await, Some(false), "it is in none");
    assert_eq!(stands(transaction(1), 4).await, None, "there is no such block yet");
    // Another history without it, and one in which it failed.
    fake.state().blocks[3] = Block { salt: 1, logs: vec![4] };
    assert_eq!(stands(transaction(3), 3).await, Some(false));
    fake.state().lies = Lies { failed: true, ..Lies::default() };
    assert_eq!(stands(transaction(4), 3).await, Some(false));
    assert_eq!(witness.holds(transaction(4), 3).await.unwrap(), Some(true));
}

#[tokio::test]
async fn a_node_that_is_silent_or_behind_or_contradicts_itself_makes_nothing_fall() {
    let fake = chain();
    let witness = witness(&fake).await;
    fake.state().lies.behind = 1;
    assert_eq!(witness.stands(transaction(3), 3).await.unwrap(), None);
    for lies in [Lies { silent: true, ..Lies::default() }, Lies { other_block: true, ..Lies::default() }] {
        fake.state().lies = lies;
        let fault = witness.stands(transaction(3), 3).await.unwrap_err();
        assert!(fault.retry_helps() && matches!(fault, ChainFault::Unreachable { .. }), "{fault}");
    }
}
