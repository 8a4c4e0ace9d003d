use VerdictKind::{Inconclusive, Invalid, Valid};
use alloy::providers::Provider;
use alloy_primitives::address;
use tribunal_contracts::{
    Addresses, Chain, ChainFault, IN_PROCESS_UNBOND_DELAY_S, InProcessChain, JsonRpcChain, Mined, Step,
    settle_verdicts_calldata, unbond_delay_needed_s,
};
use tribunal_events::{Address, Amount, B256, MoveAction, Outcome, Party, SigningKey, VerdictKind};

use crate::{
    anvil::DEPLOYER_KEY,
    batch::GAS_EACH,
    case::{BOND, Case, FUNDS, SLASH},
    proxy::{Proxy, Trouble},
    world::World,
};

async fn accepted(world: &World) {
    let case = Case::funded(world, 1, true).await;
    case.to_submitted().await;
    assert_eq!(case.settled(&case.accept()).await, Outcome::Accepted);
    case.expect(Outcome::Accepted, 0).await;
}

async fn valid(world: &World) {
    let case = Case::funded(world, 2, true).await;
    case.to_drawn().await;
    let step = case.verdict(0, Outcome::Valid, &[Valid, Invalid, Valid]);
    assert_eq!(case.settled(&step).await, Outcome::Valid);
    case.expect(Outcome::Valid, 3).await;
}

async fn invalid(world: &World) {
    let case = Case::funded(world, 3, true).await;
    case.to_drawn().await;
    let step = case.verdict(1, Outcome::Invalid, &[Invalid, Invalid]);
    assert_eq!(case.settled(&step).await, Outcome::Invalid);
    case.expect(Outcome::Invalid, 2).await;
}

async fn inconclusive(world: &World) {
    let case = Case::funded(world, 4, true).await;
    case.to_drawn().await;
    let split = [Valid, Invalid, Inconclusive];
    let early = case.perform(&case.verdict(0, Outcome::Inconclusive, &split)).await;
    assert_reverts(early, "WrongRound");
    assert_eq!(case.settled(&case.verdict(1, Outcome::Inconclusive, &split)).await, Outcome::Inconclusive);
    case.expect(Outcome::Inconclusive, 3).await;
}

async fn appointed(world: &World) {
    let case = Case::funded(world, 5, false).await;
    case.to_disputed().await;
    assert_eq!(case.settled(&case.verdict(0, Outcome::Valid, &[Valid])).await, Outcome::Valid);
    case.expect(Outcome::Valid, 1).await;
}

async fn withdrawn(world: &World) {
    let case = Case::funded(world, 6, true).await;
    case.to_disputed().await;
    assert_eq!(case.settled(&case.withdraw()).await, Outcome::Withdrawn);
    case.expect(Outcome::Withdrawn, 0).await;
}

/// A timeout that comes before its time is refused, and helped by waiting.
async fn waits(case: &Case<'_>, step: &Step, seconds: u64, outcome: Outcome, row: Outcome) {
    let early = case.perform(step).await.expect_err("too early");
    assert!(matches!(&early, ChainFault::Reverted { too_early: true, .. }) && early.retry_helps(), "{early}");
    case.world.wait(seconds).await;
    assert_eq!(case.settled(step).await, outcome);
    case.expect(row, 0).await;
}

async fn submit_timeout(world: &World) {
    let case = Case::funded(world, 7, true).await;
    case.must(&case.open()).await;
    let step = Step::TimeoutSubmit { terms: case.terms.clone() };
    waits(&case, &step, 1001, Outcome::SubmitTimeout, Outcome::SubmitTimeout).await;
}

async fn judge_timeout(world: &World) {
    let case = Case::funded(world, 8, true).await;
    case.to_submitted().await;
    let step = Step::TimeoutJudge { terms: case.terms.clone() };
    waits(&case, &step, 501, Outcome::JudgeTimeout, Outcome::JudgeTimeout).await;
}

async fn draw_timeout(world: &World) {
    for (number, revealed, outcome) in [(9, Party::Client, Outcome::Invalid), (10, Party::Provider, Outcome::Accepted)]
    {
        let case = Case::funded(world, number, true).await;
        case.to_disputed().await;
        case.must(&case.reveal(revealed)).await;
        let step = Step::TimeoutDraw { terms: case.terms.clone() };
        waits(&case, &step, 201, outcome, outcome).await;
    }
}

async fn mediate_timeout(world: &World) {
    let case = Case::funded(world, 11, true).await;
    case.to_drawn().await;
    let step = Step::TimeoutMediate { terms: case.terms.clone() };
    waits(&case, &step, 200 + 2 * 350 + 1, Outcome::MediateTimeout, Outcome::MediateTimeout).await;
    assert_eq!(bond(&case, 0).await, BOND, "the drawn are slashed by the operator's word only");

    let case = Case::funded(world, 12, false).await;
    case.to_disputed().await;
    let step = Step::TimeoutMediate { terms: case.terms.clone() };
    waits(&case, &step, 351, Outcome::MediateTimeout, Outcome::MediateTimeout).await;
    assert_eq!(bond(&case, 0).await, BOND - SLASH, "the appointed agreed to be slashed");
}

async fn silence(world: &World) {
    let case = Case::funded(world, 13, true).await;
    case.to_drawn().await;
    let first = case.must(&case.slash_silent(0, &[1, 2])).await;
    assert_eq!(case.must(&case.slash_silent(0, &[1, 2])).await, first);
    assert_eq!([bond(&case, 0).await, bond(&case, 1).await, bond(&case, 2).await], [BOND, BOND - SLASH, BOND - SLASH]);
    let Step::SlashSilent { terms, round, silent, .. } = case.slash_silent(1, &[1]) else { unreachable!() };
    let signature = case.client.sign(B256::ZERO);
    assert_reverts(case.perform(&Step::SlashSilent { terms, round, silent, signature }).await, "BadSignature");
}

async fn equivocation(world: &World) {
    let case = Case::funded(world, 14, true).await;
    let step = Step::SlashEquivocation {
        terms_hash: case.terms.hash(),
        a: case.vote(0, 0, Valid),
        b: case.vote(0, 0, Invalid),
    };
    let first = case.must(&step).await;
    assert_eq!(case.must(&step).await, first, "the second time finds the first");
    let it = world.chain().bond(case.mediators[0].address()).await.unwrap();
    assert!(it.tombstoned && it.active.is_zero());

    let a = case.vote(1, 0, Valid);
    let terms_hash = case.terms.hash();
    assert_reverts(case.perform(&Step::SlashEquivocation { terms_hash, a, b: a }).await, "NoEquivocation");
    let b = case.vote(1, 1, Invalid);
    assert_reverts(case.perform(&Step::SlashEquivocation { terms_hash, a, b }).await, "BadSignature");
    assert_eq!(bond(&case, 1).await, BOND);
}

async fn forgeries(world: &World) {
    let case = Case::funded(world, 15, true).await;
    let Step::Open {
        terms, client_terms, client_agree, client_commitment, provider_agree, provider_commitment, ..
    } = case.open()
    else {
        unreachable!()
    };
    let provider_terms = client_terms; // the client signs for both
    let forged = Step::Open {
        terms,
        client_terms,
        provider_terms,
        client_agree,
        client_commitment,
        provider_agree,
        provider_commitment,
    };
    let fault = case.perform(&forged).await.expect_err("forged");
    assert!(!fault.retry_helps());
    assert!(
        fault.to_string().contains(&format!("BadSignature {{ signer: {:?} }}", case.provider.address())),
        "{fault}"
    );

    case.to_submitted().await;
    let terms = case.terms.clone();
    let signature = case.signed(&case.provider, MoveAction::Accept, 0, B256::ZERO);
    assert_reverts(case.perform(&Step::Accept { terms, signature }).await, "BadSignature");
    assert_reverts(case.perform(&case.submit_claim(B256::ZERO)).await, "WrongState");

    case.must(&case.dispute()).await;
    assert_reverts(case.perform(&case.accept()).await, "WrongState");
    let step = case.verdict(0, Outcome::Valid, &[Valid, Valid]);
    assert_reverts(case.perform(&step).await, "SeedsMissing");
    case.must(&case.reveal(Party::Client)).await;
    case.must(&case.reveal(Party::Provider)).await;

    let Step::SettleVerdict { terms, round, outcome, panel, panel_signature, mut votes } = step else { unreachable!() };
    votes[0].signature = votes[1].signature;
    let forged = Step::SettleVerdict { terms, round, outcome, panel, panel_signature, votes };
    assert_reverts(case.perform(&forged).await, "BadSignature");
    assert_reverts(case.perform(&case.verdict(0, Outcome::Valid, &[Valid, Invalid])).await, "NoQuorum");
}

async fn repeats(world: &World) {
    let case = Case::funded(world, 16, true).await;
    let steps = [
        case.open(),
        case.submit(),
        case.dispute(),
        case.reveal(Party::Client),
        case.reveal(Party::Provider),
        case.verdict(0, Outcome::Invalid, &[Invalid, Invalid, Valid]),
    ];
    let mut first: Vec<Mined> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        first.push(case.must(step).await);
        for (earlier, mined) in steps.iter().zip(&first).take(index + 1) {
            assert_eq!(case.must(earlier).await, *mined, "{} after {}", earlier.name(), step.name());
        }
    }
    // Whatever would settle it otherwise finds how it was settled.
    let settled = first.last().unwrap();
    for other in [case.verdict(1, Outcome::Valid, &[Valid, Valid]), case.withdraw(), case.accept()] {
        assert_eq!(case.must(&other).await, *settled);
    }
    case.expect(Outcome::Invalid, 3).await;
}

async fn shortage(world: &World) {
    let case = Case::funded(world, 17, true).await;
    let poor = Case { world, client: SigningKey::new([7; 32]).unwrap(), ..case };
    // The same deal, but by a client that deposited nothing.
    let terms = {
        use prost::Message;
        let mut message = poor.terms.message().clone();
        message.members.as_mut().unwrap().client = poor.client.address().to_vec();
        std::sync::Arc::new(tribunal_events::Terms::decode(&message.encode_to_vec()).unwrap())
    };
    let poor = Case { terms, ..poor };
    let fault = poor.perform(&poor.open()).await.expect_err("nothing deposited");
    assert!(fault.retry_helps());
    let ChainFault::Insufficient { account, needed, available, .. } = fault else { panic!("{fault}") };
    assert_eq!((account, needed, available), (poor.client.address(), Amount::from(1134), Amount::ZERO));
    world.fund(account, FUNDS).await;
    poor.must(&poor.open()).await;
}

/// Terms that rely on bonds open only where bonds stay until their last round is over.
async fn early_bonds(world: &World) {
    use prost::Message;
    let case = Case::funded(world, 39, true).await;
    let changed = |judge_s, slash: &str| {
        let mut message = case.terms.message().clone();
        message.timeouts.as_mut().unwrap().judge_s = judge_s;
        message.mediation.as_mut().unwrap().silence_slash = slash.into();
        let terms = std::sync::Arc::new(tribunal_events::Terms::decode(&message.encode_to_vec()).unwrap());
        let (client, provider, operator) = (case.client.clone(), case.provider.clone(), case.operator.clone());
        Case { world, terms, client, provider, operator, mediators: case.mediators.clone(), treasury: case.treasury }
    };
    // submit, draw and two rounds, and the day after.
    let fits_s = IN_PROCESS_UNBOND_DELAY_S - (1000 + 200 + 2 * 350 + 86_400);
    let long = changed(fits_s + 1, "40");
    let needed_s = unbond_delay_needed_s(&long.terms).unwrap();
    assert_eq!(needed_s, IN_PROCESS_UNBOND_DELAY_S + 1);
    let error = format!("BondsLeaveEarly {{ needed: {needed_s}, unbondDelay: {IN_PROCESS_UNBOND_DELAY_S} }}");
    assert_reverts(long.perform(&long.open()).await, &error);
    let relaxed = changed(fits_s + 1, "0");
    assert_eq!(unbond_delay_needed_s(&relaxed.terms), None);
    relaxed.must(&relaxed.open()).await;
    let fitting = changed(fits_s, "40");
    assert_eq!(unbond_delay_needed_s(&fitting.terms), Some(IN_PROCESS_UNBOND_DELAY_S));
    fitting.must(&fitting.open()).await;
}

/// What the contracts hash is what the events crate hashes.
async fn hashes(world: &World) {
    use alloy_sol_types::{SolCall, SolValue, sol};
    sol! {
        struct Timeouts { uint64 a; uint64 b; uint64 c; uint64 d; uint64 e; uint64 f; }
        struct Mediation { address operator; address[] mediators; uint8 panelSize; uint8 quorum; uint8 redraws; bool drawn; uint256 silenceSlash; }
        function hashTimeouts(Timeouts timeouts) external pure returns (bytes32);
        function hashMediation(Mediation mediation) external pure returns (bytes32);
        function hashVerdict(bytes32 termsHash, uint32 round, uint8 verdict, uint64 count, bytes32 digest) external view returns (bytes32);
        function hashMove(bytes32 termsHash, uint8 action, uint64 count, bytes32 data) external view returns (bytes32);
    }
    // `Terms` in a signature is its tuple; its encoding is the money struct's, field by field.
    let hash_terms = "hashTerms((bytes32,address,address,address,address,uint256,uint8,uint256,uint256,uint256,uint256,\
                      uint256,uint16,uint16,bytes32,bytes32,uint32))";
    let signature = |text: &str, tuple: &str| alloy_primitives::keccak256(format!("{text}({tuple})"))[..4].to_vec();
    let case = Case::funded(world, 18, true).await;
    let (terms, domain) = (&case.terms, case.terms.domain());
    let escrow = world.chain().escrow();

    let mut data = alloy_primitives::keccak256(hash_terms)[..4].to_vec();
    data.extend(terms.money().abi_encode());
    assert_eq!(world.call(escrow, data).await.unwrap()[..], terms.hash()[..], "terms");

    let it = terms.timeouts;
    let timeouts = Timeouts {
        a: it.agree_by_s,
        b: it.submit_s,
        c: it.judge_s,
        d: it.draw_s,
        e: it.availability_s,
        f: it.mediate_s,
    };
    let mut data = signature("hashTimeouts", "(uint64,uint64,uint64,uint64,uint64,uint64)");
    data.extend(timeouts.abi_encode());
    assert_eq!(world.call(escrow, data).await.unwrap()[..], it.hash()[..], "timeouts");

    let it = &terms.mediation;
    let mediation = Mediation {
        operator: terms.operator,
        mediators: it.mediators.clone(),
        panelSize: 3,
        quorum: 2,
        redraws: 1,
        drawn: true,
        silenceSlash: it.silence_slash.base_units(),
    };
    let mut data = signature("hashMediation", "(address,address[],uint8,uint8,uint8,bool,uint256)");
    data.extend((mediation,).abi_encode_params());
    assert_eq!(world.call(escrow, data).await.unwrap()[..], it.hash(terms.operator)[..], "mediation");

    let digest = B256::repeat_byte(9);
    let call = hashVerdictCall { termsHash: terms.hash(), round: 1, verdict: 2, count: 77, digest };
    let expected = domain.verdict_digest(terms.hash(), 1, Invalid, 77, digest);
    assert_eq!(world.call(escrow, call.abi_encode()).await.unwrap()[..], expected[..], "verdict");

    let call = hashMoveCall { termsHash: terms.hash(), action: 2, count: 77, data: digest };
    let expected = domain.move_digest(terms.hash(), MoveAction::Submit, 77, digest);
    assert_eq!(world.call(escrow, call.abi_encode()).await.unwrap()[..], expected[..], "move");
}

fn assert_reverts(result: Result<Mined, ChainFault>, error: &str) {
    match result {
        Err(ChainFault::Reverted { reason, too_early: false, .. }) if reason.starts_with(error) => {}
        other => panic!("expected {error}, not {other:?}"),
    }
}

async fn bond(case: &Case<'_>, mediator: usize) -> u64 {
    let bond = case.world.chain().bond(case.mediators[mediator].address()).await.unwrap();
    bond.active.to_string().parse().unwrap()
}

/// Each scenario as a test on either chain.
macro_rules! on_both_chains {
    ($($scenario:ident => $sentence:ident),* $(,)?) => {
        mod in_process {
            $(#[tokio::test]
            async fn $sentence() {
                super::$scenario(&super::World::in_process().await).await;
            })*
        }
        mod anvil {
            $(#[tokio::test]
            async fn $sentence() {
                super::$scenario(&super::World::anvil().await).await;
            })*
        }
    };
}

on_both_chains! {
    accepted => acceptance_pays_the_provider,
    valid => a_valid_verdict_pays_provider_and_mediators,
    invalid => an_invalid_verdict_slashes_the_provider,
    inconclusive => an_inconclusive_verdict_costs_both_a_quarter_and_only_in_the_last_round,
    appointed => an_appointed_mediator_settles_alone,
    withdrawn => withdrawal_refunds_both,
    submit_timeout => silence_after_opening_costs_the_submit_collateral,
    judge_timeout => silence_after_the_result_costs_the_judge_collateral,
    draw_timeout => a_missing_seed_loses,
    mediate_timeout => silent_mediators_leave_everybody_refunded,
    silence => silence_is_slashed_once_a_round_by_the_operators_word,
    equivocation => two_verdicts_in_one_round_cost_the_bond,
    forgeries => what_the_right_one_did_not_sign_is_refused,
    repeats => a_repeated_step_finds_its_earlier_outcome,
    shortage => too_small_a_deposit_is_named_and_can_be_mended,
    hashes => contract_and_events_hash_alike,
    early_bonds => a_case_that_outlasts_the_bonds_is_not_opened,
}

#[tokio::test]
async fn the_in_process_chain_is_a_function_of_its_steps() {
    let run = async || {
        let world = World::in_process().await;
        let case = Case::funded(&world, 19, true).await;
        case.to_drawn().await;
        case.must(&case.verdict(0, Outcome::Valid, &[Valid, Valid])).await
    };
    assert_eq!(run().await, run().await);
}

#[tokio::test]
async fn the_in_process_contracts_are_where_the_constants_say() {
    let chain = InProcessChain::new();
    assert_eq!(chain.escrow(), address!("9fE46736679d2D9a65F0992F2272dE9f3c7fa6e0"));
    let predicted = tribunal_contracts::Addresses::predict(tribunal_contracts::IN_PROCESS_DEPLOYER, 0);
    assert_eq!(chain.addresses(), predicted);
    // Reading them proves that they are there.
    assert_eq!(chain.balance(chain.addresses().token, Address::ZERO).await.unwrap(), Amount::ZERO);
    assert!(chain.bond(Address::ZERO).await.unwrap().active.is_zero());
}

#[tokio::test]
async fn in_process_time_never_goes_back() {
    let chain = InProcessChain::new();
    chain.advance_time(50).await.unwrap();
    chain.advance_time(40).await.unwrap();
    assert_eq!(chain.time_s(), 50);
}

#[tokio::test]
async fn terms_for_another_contract_are_refused_before_anything_is_sent() {
    use prost::Message;
    let world = World::in_process().await;
    let case = Case::funded(&world, 20, true).await;
    let mut message = case.terms.message().clone();
    message.settlement.as_mut().unwrap().chain_id = 1;
    let terms = std::sync::Arc::new(tribunal_events::Terms::decode(&message.encode_to_vec()).unwrap());
    let elsewhere = Case { terms, ..case };
    let fault = elsewhere.perform(&elsewhere.open()).await.expect_err("another chain");
    assert!(matches!(fault, ChainFault::OtherContract { expected_chain: 1, actual_chain: 31337, .. }), "{fault}");
}

#[tokio::test]
async fn an_address_book_that_is_wrong_is_noticed() {
    let World::Anvil { chain, anvil, .. } = World::anvil().await else { unreachable!() };
    assert_eq!(chain.describe(), anvil.url.replace("http://", "JSON-RPC at "));
    let good = chain.addresses();
    JsonRpcChain::connect(&anvil.url, &DEPLOYER_KEY, good).await.unwrap();
    let nobody = Address::repeat_byte(1);
    for wrong in [Addresses { escrow: nobody, ..good }, Addresses { escrow: good.token, ..good }] {
        let fault = JsonRpcChain::connect(&anvil.url, &DEPLOYER_KEY, wrong).await.err().expect("wrong");
        assert!(!fault.retry_helps(), "{fault}");
    }
}

#[tokio::test]
async fn a_node_that_is_gone_is_unreachable_and_worth_a_retry() {
    let (chain, url) = {
        let World::Anvil { chain, anvil, .. } = World::anvil().await else { unreachable!() };
        (chain, anvil.url.clone())
    };
    let fault = chain.case(B256::ZERO).await.expect_err("gone");
    assert!(matches!(fault, ChainFault::Unreachable { .. }) && fault.retry_helps(), "{fault}");
    assert!(!format!("{fault:?}").contains(&url), "a node's URL may hold a secret");
}

#[tokio::test]
async fn own_deposits_come_and_go() {
    let World::Anvil { chain, anvil: _anvil, .. } = World::anvil().await else { unreachable!() };
    let token = Address::ZERO;
    chain.deposit(token, Amount::from(70)).await.unwrap();
    chain.withdraw(token, Amount::from(30)).await.unwrap();
    assert_eq!(chain.balance(token, chain.account()).await.unwrap(), Amount::from(40));
    let fault = chain.withdraw(token, Amount::from(41)).await.expect_err("more than there");
    assert!(matches!(fault, ChainFault::Insufficient { .. }), "{fault}");
}

#[tokio::test]
async fn steps_of_many_cases_can_be_sent_at_once() {
    let world = World::anvil().await;
    let mut cases = Vec::new();
    for number in 30..36 {
        cases.push(Case::funded(&world, number, false).await);
    }
    let opened = futures::future::join_all(cases.iter().map(async |case| case.must(&case.open()).await)).await;
    let mut transactions: Vec<_> = opened.iter().map(|mined| mined.transaction).collect();
    transactions.sort();
    transactions.dedup();
    assert_eq!(transactions.len(), cases.len());
}

#[tokio::test]
async fn a_step_counts_once_it_has_its_confirmations() {
    let world = World::anvil().await;
    let World::Anvil { chain, anvil, node } = &world else { unreachable!() };
    let case = Case::funded(&world, 36, false).await;
    let careful = JsonRpcChain::connect(&anvil.url, &DEPLOYER_KEY, chain.addresses()).await.unwrap();
    let careful = careful.with_confirmations(3);
    let step = case.open();
    let performed = careful.perform(&step);
    let mine = async {
        while chain.case(case.terms.hash()).await.unwrap().opened_at_s == 0 {
            tokio::task::yield_now().await;
        }
        let opened = node.get_block_number().await.unwrap();
        let _: serde_json::Value = node.client().request("anvil_mine", (2,)).await.unwrap();
        opened
    };
    let (mined, opened) = futures::future::join(performed, mine).await;
    assert_eq!(mined.unwrap().block, opened);
    assert_eq!(node.get_block_number().await.unwrap(), opened + 2);
}

#[tokio::test]
async fn a_node_that_stumbles_while_a_step_is_mined_is_waited_for() {
    let world = World::anvil().await;
    let World::Anvil { chain, anvil, node } = &world else { unreachable!() };
    let case = Case::funded(&world, 37, false).await;
    let proxy = Proxy::before(&anvil.url);
    let shaky = JsonRpcChain::connect(&proxy.url, &DEPLOYER_KEY, chain.addresses()).await.unwrap();
    let before = node.get_transaction_count(shaky.account()).await.unwrap();
    proxy.fail("eth_getTransactionReceipt", 3, Trouble::Turned);
    proxy.fail("eth_getBlockByNumber", 1, Trouble::Unheard);
    let opened = shaky.perform(&case.open()).await.expect("taken, however late the node says so");
    assert_eq!(proxy.left(), 0);
    assert_eq!(node.get_transaction_count(shaky.account()).await.unwrap(), before + 1);
    assert_eq!(shaky.perform(&case.open()).await.unwrap(), opened, "taken once");
    assert_eq!(node.get_transaction_count(shaky.account()).await.unwrap(), before + 1);
}

#[tokio::test]
async fn a_step_that_waits_to_be_mined_is_not_refused_for_good() {
    let world = World::anvil().await;
    let World::Anvil { chain, anvil, node } = &world else { unreachable!() };
    let case = Case::funded(&world, 38, false).await;
    let proxy = Proxy::before(&anvil.url);
    let shaky = JsonRpcChain::connect(&proxy.url, &DEPLOYER_KEY, chain.addresses()).await.unwrap();
    let before = node.get_transaction_count(shaky.account()).await.unwrap();
    let _: serde_json::Value = node.client().request("evm_setAutomine", (false,)).await.unwrap();
    proxy.fail("eth_sendRawTransaction", 1, Trouble::Unheard);
    for _ in 0..2 {
        // First nobody hears that the node took it, then it stands in the way of itself.
        let fault = shaky.perform(&case.open()).await.expect_err("not mined");
        assert!(matches!(fault, ChainFault::Unreachable { .. }) && fault.retry_helps(), "{fault:?}");
    }
    let fault = shaky.perform(&case.open()).await.expect_err("not mined");
    assert!(fault.to_string().contains("an earlier transaction of this account is not mined yet"), "{fault:?}");
    let _: serde_json::Value = node.client().request("evm_mine", ()).await.unwrap();
    let opened = shaky.perform(&case.open()).await.unwrap();
    assert_eq!(opened.block, node.get_block_number().await.unwrap());
    assert_eq!(node.get_transaction_count(shaky.account()).await.unwrap(), before + 1);
}

/// Gas of every step, as committed: a change is seen in review.
#[tokio::test]
async fn gas_is_what_was_committed() {
    let world = World::in_process().await;
    let mut lines = String::new();
    let mut note = |name: &str, mined: Mined| lines.push_str(&format!("{name:<28}{:>8}\n", mined.gas_used));
    let case = Case::funded(&world, 21, true).await;
    note("open", case.must(&case.open()).await);
    note("submit", case.must(&case.submit()).await);
    note("dispute", case.must(&case.dispute()).await);
    note("reveal, first", case.must(&case.reveal(Party::Client)).await);
    note("reveal, second", case.must(&case.reveal(Party::Provider)).await);
    note("verdict, 3 of 5 drawn", case.must(&case.verdict(0, Outcome::Valid, &[Valid, Valid, Invalid])).await);
    note("silence of one", case.must(&case.slash_silent(0, &[1])).await);
    let (terms_hash, a, b) = (case.terms.hash(), case.vote(0, 0, Valid), case.vote(0, 0, Invalid));
    note("equivocation", case.must(&Step::SlashEquivocation { terms_hash, a, b }).await);
    let case = Case::funded(&world, 22, false).await;
    case.to_submitted().await;
    note("accept", case.must(&case.accept()).await);
    let case = Case::funded(&world, 23, false).await;
    case.to_disputed().await;
    note("verdict, appointed", case.must(&case.verdict(0, Outcome::Invalid, &[Invalid])).await);
    let case = Case::funded(&world, 24, false).await;
    case.must(&case.open()).await;
    note("withdraw", case.must(&case.withdraw()).await);
    let late = [25, 26, 27, 28];
    for number in late {
        let case = Case::funded(&world, number, number > 26).await;
        let terms = case.terms.clone();
        case.must(&case.open()).await;
        if number > 25 {
            case.must(&case.submit()).await;
        }
        if number > 26 {
            case.must(&case.dispute()).await;
        }
        if number > 27 {
            case.must(&case.reveal(Party::Client)).await;
            case.must(&case.reveal(Party::Provider)).await;
        }
        world.wait(10_000).await;
        let step = match number {
            25 => Step::TimeoutSubmit { terms },
            26 => Step::TimeoutJudge { terms },
            27 => Step::TimeoutDraw { terms },
            _ => Step::TimeoutMediate { terms },
        };
        note(step.name(), case.must(&step).await);
    }

    // Verdicts of three votes; from the second on the panel and the treasury have been paid before.
    let case = Case::funded(&world, 29, true).await;
    let verdict = |case: &Case<'_>| case.verdict(0, Outcome::Valid, &[Valid, Valid, Invalid]);
    case.to_drawn().await;
    let first = case.must(&verdict(&case)).await;
    let second = case.beside(200, true).await;
    second.to_drawn().await;
    let single = second.must(&verdict(&second)).await;
    note("verdict, panel paid before", single);
    for (name, from, own_parties) in
        [("a deal of 100, same parties", 0, false), ("a deal of 100, own parties", 100, true)]
    {
        let mut steps = Vec::new();
        for number in from..from + 100 {
            let case = case.beside(number, own_parties).await;
            case.to_drawn().await;
            steps.push(verdict(&case));
        }
        let batch = world.settle_verdicts(&steps, GAS_EACH).await.unwrap();
        assert_eq!(batch.refused, []);
        let gas_used = batch.mined.gas_used / 100;
        note(name, Mined { gas_used, ..batch.mined });
        // Nodes take no larger transaction than 128 KiB; 256 bytes for what is around the data.
        assert!(settle_verdicts_calldata(&steps, GAS_EACH).unwrap().len() <= (128 << 10) - 256);
        // Half of a single one; where the parties differ, of one that pays its panel for the first time.
        let whole = if own_parties { first } else { single };
        assert!(2 * gas_used <= whole.gas_used, "{name}: {gas_used} of {}", whole.gas_used);
    }
    expect_test::expect_file!["gas.txt"].assert_eq(&lines);
}
