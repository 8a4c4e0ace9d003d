use VerdictKind::{Invalid, Valid};
use tribunal_contracts::{ChainFault, Step, settle_verdicts_calldata};
use tribunal_events::{Address, Outcome, VerdictKind};

use crate::{case::Case, world::World};

/// Enough for a verdict of three votes and as much again.
pub const GAS_EACH: u64 = 400_000;

/// Verdicts of several deals in one transaction, one of them bad: everyone is settled and found by itself.
async fn each_is_settled_as_by_itself(world: &World) {
    let first = Case::funded(world, 50, true).await;
    let others = [first.beside(1, true).await, first.beside(2, false).await, first.beside(3, true).await];
    let cases = [&first, &others[0], &others[1], &others[2]];
    for case in cases {
        case.to_drawn().await;
    }
    let outcomes = [Outcome::Valid, Outcome::Invalid, Outcome::Valid, Outcome::Invalid];
    let mut steps: Vec<_> = cases
        .iter()
        .zip(outcomes)
        .map(|(case, outcome)| {
            let votes = if outcome == Outcome::Valid { [Valid, Valid, Invalid] } else { [Invalid, Invalid, Valid] };
            case.verdict(1, outcome, &votes)
        })
        .collect();
    // A vote that another one signed.
    let Step::SettleVerdict { votes, .. } = &mut steps[2] else { unreachable!() };
    votes[0].signature = votes[1].signature;

    let batch = world.settle_verdicts(&steps, GAS_EACH).await.unwrap();
    let [(2, reason)] = &batch.refused[..] else { panic!("{batch:?}") };
    assert!(reason.starts_with("BadSignature"), "{reason}");
    for (index, case) in cases.into_iter().enumerate() {
        if index == 2 {
            assert_eq!(world.chain().case(case.terms.hash()).await.unwrap().outcome, None);
            continue;
        }
        // The step finds the transaction that took it, and in it the payout of its own case.
        let mined = case.must(&steps[index]).await;
        assert_eq!(mined.transaction, batch.mined.transaction);
        assert_eq!(mined.settlement.unwrap().outcome, outcomes[index], "{index}");
    }
    // Mended it is settled, alone.
    let mended = others[1].verdict(1, Outcome::Valid, &[Valid, Valid, Invalid]);
    assert_eq!(others[1].settled(&mended).await, Outcome::Valid);
}

mod in_process {
    #[tokio::test]
    async fn many_verdicts_settle_at_once_and_a_bad_one_stops_no_other() {
        super::each_is_settled_as_by_itself(&super::World::in_process().await).await;
    }
}

mod anvil {
    #[tokio::test]
    async fn many_verdicts_settle_at_once_and_a_bad_one_stops_no_other() {
        super::each_is_settled_as_by_itself(&super::World::anvil().await).await;
    }
}

#[tokio::test]
async fn what_is_no_verdict_of_one_mediation_makes_no_batch() {
    let world = World::in_process().await;
    let (case, other) = (Case::funded(&world, 51, true).await, Case::funded(&world, 52, true).await);
    let good = case.verdict(1, Outcome::Valid, &[Valid, Valid]);
    settle_verdicts_calldata(std::slice::from_ref(&good), GAS_EACH).unwrap();
    let elsewhere = other.verdict(1, Outcome::Valid, &[Valid, Valid]);
    let mut stranger = good.clone();
    let Step::SettleVerdict { votes, .. } = &mut stranger else { unreachable!() };
    votes[0].mediator = Address::repeat_byte(1);
    for (steps, problem) in [
        (vec![], "no verdict"),
        (vec![case.open()], "open is no verdict"),
        (vec![good.clone(), case.accept()], "accept is no verdict"),
        (vec![good.clone(), elsewhere], "under another mediation"),
        (vec![good, stranger], "is no mediator of deal"),
    ] {
        let fault = settle_verdicts_calldata(&steps, GAS_EACH).expect_err(problem);
        assert!(matches!(fault, ChainFault::Unexpected { .. }) && !fault.retry_helps());
        assert!(fault.to_string().contains(problem), "{fault}");
    }
}
