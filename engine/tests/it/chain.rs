//! An engine over contracts on anvil, whose chain is reorganised; and the chain as a witness of the record.

use std::{
    path::Path,
    process::{Command, Output},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tribunal_contracts::{
    Addresses, CaseState, Chain as _, ChainFault, IN_PROCESS_TREASURY, JsonRpcChain, Step, Witness,
};
use tribunal_core::{Deal, Phase, REORGANISED};
use tribunal_engine::{
    audit::{AuditOptions, AuditReport, ChainAuditFault, ChainOptions, Scope, audit, audit_chain},
    bus::{Bus, InProcessBus, InProcessLimits, Outgoing},
    chain_observer::Following,
    effects::outgoing,
    engine::{Engine, Fencing, Parts, now},
    mediator::history::History,
    partition::Settings,
    replay::load,
    store::{Fsync, Store},
};
use tribunal_events::{
    Address, Amount, B256, Domain, Envelope, EventKind, MoveAction, Outcome, Party, Role, Signature, VerdictKind,
};
use tribunal_fixtures::{Script, TermsBuilder, jobs, keys};
use tribunal_verifiers::{ArtifactSource, FolderSource, OperatorLimits, Service};

use crate::{
    anvil::{Anvil, DEPLOYER_KEY, OTHER_KEY},
    audit::{Altered, copied},
};

/// What both parties have in the escrow before the first deal, enough for two.
const DEPOSIT: u64 = 10_000_000;
const COUNT: u64 = 1_000_000;

struct World {
    anvil: Anvil,
    addresses: Addresses,
    bus: Arc<InProcessBus>,
    folder: TempDir,
    engine: Option<Engine>,
}

impl World {
    async fn new() -> Self {
        let anvil = Anvil::start();
        let chain = JsonRpcChain::deploy(&anvil.url, &DEPLOYER_KEY, IN_PROCESS_TREASURY, 7 * 86_400).await.unwrap();
        for party in ["client", "provider"] {
            chain.mint_and_deposit(keys::address(party), Amount::from(DEPOSIT)).await.unwrap();
        }
        chain.bond_mediator(keys::address("m6"), Amount::from(700_000), keys::address("operator")).await.unwrap();
        // What is reorganised later is not that.
        anvil.ask("anvil_mine", json!(["0x8"])).await;
        let bus = Arc::new(InProcessBus::new(now, InProcessLimits::default()));
        let folder = tempfile::tempdir().unwrap();
        let mut this = Self { anvil, addresses: chain.addresses(), bus, folder, engine: None };
        this.start().await;
        this
    }

    async fn chain(&self, key: &[u8; 32]) -> JsonRpcChain {
        JsonRpcChain::connect(&self.anvil.url, key, self.addresses).await.unwrap()
    }

    fn store_path(&self) -> std::path::PathBuf {
        self.folder.path().join("store")
    }

    /// An engine over the same store, bus and chain. Its mediator is m1, and nothing of m1's can be fetched.
    async fn start(&mut self) {
        let chain = self.chain(&DEPLOYER_KEY).await;
        let following = Following {
            witness: chain.witness(),
            escrow: self.addresses.escrow,
            registry: self.addresses.registry,
            first_block: 1,
            confirmations: 1,
            poll: Duration::from_millis(30),
        };
        let artifacts: Arc<dyn ArtifactSource> =
            Arc::new(FolderSource::open(&jobs::folder().join("wordcount")).unwrap());
        let engine = Engine::start(Parts {
            store: Store::open(self.store_path(), Fsync::Never).unwrap(),
            bus: Arc::clone(&self.bus) as Arc<dyn Bus>,
            chain: Some(Arc::new(chain)),
            verifier: Arc::new(Service::new(OperatorLimits::default(), vec![Arc::clone(&artifacts)])),
            artifacts,
            settings: Settings {
                operator: keys::key("operator"),
                domains: vec![Domain::new(31337, self.addresses.escrow)],
                recorded_time: false,
                preflight: None,
            },
            mediators: vec![Arc::new(keys::key("m1"))],
            history: Some(Arc::new(History::open(self.folder.path().join("h.jsonl")).unwrap())),
            workers: 1,
            fuel_per_s: 300_000_000,
            fencing: Fencing::Off,
        });
        let engine = engine.await.unwrap();
        engine.follow_chain(following);
        self.engine = Some(engine);
    }

    async fn stop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.shutdown(Duration::from_secs(20)).await;
        }
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("running")
    }

    fn store(&self) -> &Store {
        self.engine().store()
    }

    async fn say(&self, envelope: &Envelope) {
        self.bus.publish(outgoing(envelope).unwrap()).await.unwrap();
    }

    fn deal(&self, script: &Script) -> Option<Deal> {
        load(self.store(), &script.terms().deal_id()).unwrap()
    }

    /// The deal, once this holds of it.
    async fn until(&self, script: &Script, what: &str, holds: impl Fn(&Deal) -> bool) -> Deal {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            let deal = self.deal(script);
            if let Some(deal) = deal.clone().filter(&holds) {
                return deal;
            }
            assert!(Instant::now() < give_up, "not {what}: {deal:#?}\n{:#?}", self.steps(script));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Proposed, agreed, and the money locked.
    async fn agreed(&self, script: &Script) -> Deal {
        self.say(&script.proposed(Party::Client)).await;
        self.say(&script.agreed(Party::Provider)).await;
        self.until(script, "funded", |deal| is_funded(deal) && taken(deal, "open")).await
    }

    async fn submitted(&self, script: &Script) -> Deal {
        self.agreed(script).await;
        self.say(&script.result_submitted(claim())).await;
        self.until(script, "submitted", |deal| taken(deal, "submit")).await
    }

    /// The newest `blocks` blocks are empty ones now; what was in them is mined again only once this lets it.
    async fn reorganise(&self, blocks: u64, hold: bool) {
        if hold {
            self.anvil.ask("evm_setAutomine", json!([false])).await;
        }
        self.anvil.ask("anvil_reorg", json!([blocks, []])).await;
    }

    async fn mine_again(&self) {
        self.anvil.ask("evm_setAutomine", json!([true])).await;
        self.anvil.ask("evm_mine", json!([])).await;
    }

    /// Blocks from the one of this step's recorded transaction on.
    async fn depth_of(&self, script: &Script, step: &str) -> u64 {
        let steps = self.steps(script);
        let (.., block) = steps.iter().rfind(|it| it.0 == step && it.1 == "taken").expect("taken");
        self.anvil.head().await - block + 1
    }

    /// What is recorded of steps: name, what became of it, transaction, block.
    fn steps(&self, script: &Script) -> Vec<(String, String, B256, u64)> {
        let records = self.store().stream(&script.terms().deal_id(), 1);
        let kinds = records.map(|record| record.unwrap().envelope.parse().unwrap().into_kind());
        let steps = kinds.filter_map(|kind| match kind {
            EventKind::ChainObserved { step, failure, transaction, block, .. } => {
                Some((step, failure.unwrap_or_else(|| "taken".into()), transaction, block))
            }
            _ => None,
        });
        steps.collect()
    }

    fn told(&self, script: &Script) -> String {
        let word = |(step, became, ..): (String, String, B256, u64)| format!("{step} {became}");
        self.steps(script).into_iter().map(word).collect::<Vec<_>>().join(", ")
    }

    /// What accounts have in the escrow.
    async fn balances(&self, names: [&str; 3]) -> [u64; 3] {
        let chain = self.chain(&OTHER_KEY).await;
        let mut balances = [0; 3];
        for (balance, name) in balances.iter_mut().zip(names) {
            let amount = chain.balance(self.addresses.token, keys::address(name)).await.unwrap();
            *balance = amount.to_string().parse().unwrap();
        }
        balances
    }

    async fn witness(&self) -> Witness {
        Witness::connect(std::slice::from_ref(&self.anvil.url), None).await.unwrap()
    }

    /// The record is sound, and the chain says the same.
    async fn audit(&self) -> AuditReport {
        let report = witnessed(self.store(), &self.witness().await).await.unwrap();
        assert!(report.is_clean(), "{:#?}", report.discrepancies);
        report
    }
}

async fn witnessed(store: &Store, witness: &Witness) -> Result<AuditReport, ChainAuditFault> {
    let mut report = audit(store, Scope::All, AuditOptions::default()).unwrap();
    audit_chain(store, &Scope::All, witness, ChainOptions::default(), &mut report).await?;
    Ok(report)
}

fn script(name: &str) -> Script {
    Script::new(TermsBuilder::new(name).agree_by_s(now().s() + 3_600).appointed("m6", 0).build())
}

fn claim() -> tribunal_events::proto::Claim {
    jobs::load("wordcount").unwrap().claim(COUNT)
}

fn is_funded(deal: &Deal) -> bool {
    matches!(deal.phase(), Phase::Agreed { funded: true, .. })
}

fn taken(deal: &Deal, step: &str) -> bool {
    deal.taken().any(|(name, _)| name == step)
}

/// Whether all that was undone is done again, and the deal is over.
fn is_done(deal: &Deal) -> bool {
    deal.is_settled() && deal.undone().next().is_none()
}

fn transaction(deal: &Deal) -> Option<B256> {
    match deal.phase() {
        Phase::Settled { transaction, .. } => *transaction,
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deal_whose_opening_is_reorganised_away_goes_back_and_is_paid_once() {
    let world = World::new().await;
    let script = script("opened twice");
    world.agreed(&script).await;
    let depth = world.depth_of(&script, "open").await;
    world.reorganise(depth, true).await;
    world.until(&script, "not funded", |deal| !is_funded(deal) && deal.is_undone("open")).await;

    // A result is refused, and let in once the money is locked again.
    let result = script.result_submitted(claim());
    world.say(&result).await;
    let give_up = Instant::now() + Duration::from_secs(30);
    while world.store().refused_count().unwrap() == 0 {
        assert!(Instant::now() < give_up, "the result is not refused");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.store().refused(1).unwrap()[0].reason_code, "not-funded");
    world.mine_again().await;
    world.until(&script, "funded again", is_funded).await;
    let again = outgoing(&result).unwrap();
    world.bus.publish(Outgoing::new(again.subject, again.payload)).await.unwrap();
    world.until(&script, "submitted", |deal| taken(deal, "submit")).await;
    world.say(&script.accepted()).await;
    world.until(&script, "settled", Deal::is_settled).await;
    assert_eq!(world.told(&script), "open taken, open reorganised, open taken, submit taken, settle taken");
    let opened: Vec<_> = world.steps(&script).into_iter().filter(|it| it.0 == "open" && it.1 == "taken").collect();
    assert!(opened[0].3 < opened[1].3, "in another block: {opened:?}");
    assert_eq!(
        world.balances(["client", "provider", "treasury"]).await,
        [DEPOSIT - 1_000_000, DEPOSIT + 975_000, 25_000]
    );
    let report = world.audit().await;
    let chain = report.chain.unwrap();
    assert_eq!((chain.deals, chain.transactions), (1, 3));
    assert_eq!(world.engine().activity().chain.undone.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_is_reorganised_away_is_made_again_and_pays_once() {
    let world = World::new().await;
    let script = script("settled twice");
    world.submitted(&script).await;
    world.say(&script.accepted()).await;
    let before = world.until(&script, "settled", Deal::is_settled).await;
    let depth = world.depth_of(&script, "settle").await;
    world.reorganise(depth, true).await;
    let during = world.until(&script, "undone", |deal| deal.is_undone("settle")).await;
    assert_eq!(during.phase(), before.phase(), "over is over");
    let witness = world.witness().await;
    let head = witness.head().await.unwrap().number;
    let case = witness.case(world.addresses.escrow, script.terms().hash(), head).await.unwrap();
    assert_eq!(case.state, CaseState::Submitted, "on the chain it is not");
    // A record that is ahead of the chain, and says so.
    let report = witnessed(world.store(), &witness).await.unwrap();
    assert!(report.is_clean(), "{:#?}", report.discrepancies);
    world.mine_again().await;
    let after = world.until(&script, "settled again", is_done).await;
    assert!(transaction(&after).is_some());
    assert_eq!(world.told(&script), "open taken, submit taken, settle taken, settle reorganised, settle taken");
    assert_eq!(
        world.balances(["client", "provider", "treasury"]).await,
        [DEPOSIT - 1_000_000, DEPOSIT + 975_000, 25_000]
    );
    assert_eq!(world.audit().await.chain.unwrap().transactions, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_dispute_is_told_again_in_order() {
    let world = World::new().await;
    let script = script("all again");
    world.submitted(&script).await;
    world.say(&script.disputed("show me")).await;
    world.until(&script, "disputed", |deal| taken(deal, "dispute")).await;
    let vote = script.vote(&keys::key("m6"), 0, VerdictKind::Invalid, COUNT, "output-differs");
    world.say(&script.verdict_given(&keys::key("m6"), &vote)).await;
    let before = world.until(&script, "settled", Deal::is_settled).await;
    assert_eq!(before.outcome(), Some(Outcome::Invalid));
    let depth = world.depth_of(&script, "open").await;
    world.reorganise(depth, false).await;
    let after = world.until(&script, "all done again", |deal| is_done(deal) && world.steps(&script).len() == 12).await;
    let payouts = |deal: &Deal| match deal.phase() {
        Phase::Settled { payouts, .. } => payouts.clone(),
        _ => Vec::new(),
    };
    assert_eq!((payouts(&before), after.outcome()), (payouts(&after), before.outcome()));
    assert_eq!(
        world.told(&script),
        "open taken, submit taken, dispute taken, settle taken, open reorganised, submit reorganised, \
         dispute reorganised, settle reorganised, open taken, submit taken, dispute taken, settle taken"
    );
    let net = |role: Role| -> i64 {
        let of = payouts(&after).into_iter().filter(|it| it.role == role);
        of.map(|it| it.paid.to_string().parse::<i64>().unwrap() - it.locked.to_string().parse::<i64>().unwrap()).sum()
    };
    let expected = [Role::Client, Role::Provider].map(|role| DEPOSIT.checked_add_signed(net(role)).unwrap());
    let [client, provider, mediator] = world.balances(["client", "provider", "m6"]).await;
    assert_eq!(([client, provider], mediator as i64), (expected, net(Role::Mediator)));
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reorganised_while_the_engine_is_away_is_found_at_its_start() {
    for cursor in [true, false] {
        let mut world = World::new().await;
        let (open, settled) = (script("open meanwhile"), script("settled meanwhile"));
        world.submitted(&settled).await;
        world.say(&settled.accepted()).await;
        world.until(&settled, "settled", Deal::is_settled).await;
        world.agreed(&open).await;
        let depth = world.depth_of(&settled, "submit").await;
        world.stop().await;
        if !cursor {
            // Killed before it kept any.
            let store = Store::open(world.store_path(), Fsync::Never).unwrap();
            store.put_meta("chain-observer", b"{}").unwrap();
        }
        world.reorganise(depth, true).await;
        world.start().await;
        world.until(&open, "not funded", |deal| !is_funded(deal)).await;
        world.until(&settled, "undone", |deal| deal.undone().count() == 2).await;
        // And away again, in the middle.
        world.stop().await;
        world.mine_again().await;
        world.start().await;
        world.until(&settled, "done again", is_done).await;
        world.until(&open, "funded again", is_funded).await;
        assert_eq!(
            world.told(&settled),
            "open taken, submit taken, settle taken, submit reorganised, settle reorganised, submit taken, settle taken"
        );
        world.say(&open.result_submitted(claim())).await;
        world.until(&open, "submitted", |deal| taken(deal, "submit")).await;
        world.say(&open.accepted()).await;
        world.until(&open, "settled", is_done).await;
        let paid = [DEPOSIT - 2_000_000, DEPOSIT + 2 * 975_000, 50_000];
        assert_eq!(world.balances(["client", "provider", "treasury"]).await, paid);
        world.audit().await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_waits_is_not_refused_for_good_because_the_chain_went_back() {
    let world = World::new().await;
    let script = script("waits");
    world.submitted(&script).await;
    let depth = world.depth_of(&script, "open").await;
    // The client accepts in the very moment.
    world.reorganise(depth, true).await;
    world.say(&script.accepted()).await;
    world.until(&script, "undone", |deal| deal.undone().count() == 2).await;
    world.mine_again().await;
    let deal = world.until(&script, "settled", is_done).await;
    assert_eq!(deal.outcome(), Some(Outcome::Accepted));
    let became: Vec<_> = world.steps(&script).into_iter().map(|it| it.1).collect();
    assert!(became.iter().all(|it| it == "taken" || it == REORGANISED), "{became:?}");
    assert_eq!(
        world.balances(["client", "provider", "treasury"]).await,
        [DEPOSIT - 1_000_000, DEPOSIT + 975_000, 25_000]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_is_gone_with_the_reorganisation_ends_the_deal() {
    let world = World::new().await;
    let soon = now().s() + 12;
    let script = Script::new(TermsBuilder::new("gone").agree_by_s(soon).appointed("m6", 0).build());
    world.agreed(&script).await;
    let depth = world.depth_of(&script, "open").await;
    world.reorganise(depth, true).await;
    world.until(&script, "not funded", |deal| deal.is_undone("open")).await;
    // In the new history the client has taken its deposit out first.
    let client = keys::address("client");
    world.anvil.ask("anvil_impersonateAccount", json!([client])).await;
    world.anvil.ask("anvil_setBalance", json!([client, "0xde0b6b3a7640000"])).await;
    let words =
        [[&[0; 12], world.addresses.token.as_slice()].concat(), [&[0; 24][..], &DEPOSIT.to_be_bytes()].concat()];
    let selector = &alloy_primitives::keccak256("withdraw(address,uint256)")[..4];
    let data = format!("0x{}{}{}", hex::encode(selector), hex::encode(&words[0]), hex::encode(&words[1]));
    let send = json!({ "from": client, "to": world.addresses.escrow, "data": data, "gasPrice": "0x2540be400" });
    world.anvil.ask("eth_sendTransaction", json!([send])).await;
    world.mine_again().await;
    let deal = loop {
        // The record's time goes on with what is on the bus.
        world.bus.publish(Outgoing::new("deals.clock.tick", Vec::new())).await.unwrap();
        if let Some(deal) = world.deal(&script).filter(Deal::is_settled) {
            break deal;
        }
        assert!(now().s() < soon + 60, "{}", world.told(&script));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let Phase::Settled { decision, payouts, transaction } = deal.phase() else { unreachable!() };
    assert_eq!((decision.outcome, decision.reason_code.as_str()), (Outcome::AgreeTimeout, "not-funded"));
    assert!(transaction.is_none() && payouts.iter().all(|it| it.paid.is_zero() && it.locked.is_zero()));
    assert_eq!(world.balances(["client", "provider", "treasury"]).await, [0, DEPOSIT, 0]);
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_of_equivocation_that_is_reorganised_away_is_shown_again() {
    let world = World::new().await;
    let script = script("equivocates");
    world.submitted(&script).await;
    world.say(&script.disputed("show me")).await;
    world.until(&script, "disputed", |deal| taken(deal, "dispute")).await;
    for verdict in [VerdictKind::Valid, VerdictKind::Invalid] {
        let vote = script.vote(&keys::key("m6"), 0, verdict, COUNT, "test");
        world.say(&script.verdict_given(&keys::key("m6"), &vote)).await;
    }
    let bond = async || world.chain(&OTHER_KEY).await.bond(keys::address("m6")).await.unwrap();
    let slashed = async |block: u64| loop {
        let found = tribunal_engine::equivocation::found(world.store()).unwrap();
        if let Some(tribunal_engine::equivocation::Outcome::Slashed { block: at, .. }) =
            found.first().and_then(|it| it.outcome.clone())
            && at > block
            && bond().await.tombstoned
        {
            break at;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let minute = Duration::from_secs(60);
    world.until(&script, "settled", Deal::is_settled).await;
    let first = tokio::time::timeout(minute, slashed(0)).await.expect("shown");
    world.reorganise(world.anvil.head().await - first + 1, false).await;
    tokio::time::timeout(minute, slashed(first)).await.expect("shown again");
    world.until(&script, "settled", is_done).await;
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispute_that_only_the_chain_knows_is_noticed_until_the_record_knows_it_too() {
    let mut world = World::new().await;
    let script = Script::new(TermsBuilder::new("disputed elsewhere").agree_by_s(now().s() + 3_600).build());
    world.submitted(&script).await;
    let until = async |world: &World, count: u64| {
        let give_up = Instant::now() + Duration::from_secs(30);
        let seen = || world.engine().desk().unwrap().counts().only_on_chain.load(Ordering::Relaxed);
        while seen() != count {
            assert!(Instant::now() < give_up, "{} instead of {count}", seen());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // The client goes to the contract and tells the operator nothing.
    let signature = script.move_signature(Party::Client, MoveAction::Dispute, 0, B256::ZERO);
    let signature = Signature::from_slice(&signature).unwrap();
    let dispute = Step::Dispute { terms: Arc::clone(script.terms()), signature };
    world.chain(&OTHER_KEY).await.perform(&dispute).await.unwrap();
    until(&world, 1).await;
    // Also after a restart, where its event is read already.
    world.stop().await;
    world.start().await;
    until(&world, 1).await;
    let report = witnessed(world.store(), &world.witness().await).await.unwrap();
    let [found] = &report.discrepancies[..] else { panic!("{:#?}", report.discrepancies) };
    assert_eq!(
        (found.code, found.expected.as_str(), found.found.as_str()),
        ("chain-state", "a case that is submitted", "disputed")
    );
    // And gone with the block that it was in.
    world.reorganise(1, false).await;
    until(&world, 0).await;
    world.chain(&OTHER_KEY).await.perform(&dispute).await.unwrap();
    until(&world, 1).await;
    world.say(&script.disputed("show me")).await;
    until(&world, 0).await;
    world.stop().await;
}

/// A settled deal and an open one, with the engine at rest.
async fn two_deals() -> (World, Script, Script) {
    let world = World::new().await;
    let (settled, open) = (script("witnessed"), script("still open"));
    world.submitted(&settled).await;
    world.say(&settled.disputed("show me")).await;
    world.until(&settled, "disputed", |deal| taken(deal, "dispute")).await;
    let vote = settled.vote(&keys::key("m6"), 0, VerdictKind::Valid, COUNT, "ok");
    world.say(&settled.verdict_given(&keys::key("m6"), &vote)).await;
    world.until(&settled, "settled", Deal::is_settled).await;
    world.submitted(&open).await;
    (world, settled, open)
}

/// Changes what is recorded of the first step of this name.
fn alter(records: &mut [Altered], script: &Script, wanted: &str, change: impl Fn(&mut B256, &mut u64)) -> u64 {
    let of_step = |it: &Altered| {
        it.deal_id == script.terms().deal_id()
            && matches!(it.kind(), EventKind::ChainObserved { step, .. } if step == wanted)
    };
    let record = records.iter_mut().find(|it| of_step(it)).expect("recorded");
    let EventKind::ChainObserved { step, effect_id, mut transaction, mut block, failure, block_time_s } = record.kind()
    else {
        unreachable!()
    };
    change(&mut transaction, &mut block);
    let kind = EventKind::ChainObserved { step, effect_id, transaction, block, failure, block_time_s };
    record.forge(script, &kind, &keys::key("operator"));
    record.position
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_record_says_of_transactions_is_held_against_the_chain() {
    let (world, settled, open) = two_deals().await;
    let witness = world.witness().await;
    let report = world.audit().await;
    let chain = report.chain.unwrap();
    assert_eq!((chain.deals, chain.transactions, chain.left_out), (2, 6, 0));
    let [held] = &chain.holdings[..] else { panic!("one token") };
    assert_eq!(held.locked, Amount::from(1_450_003 + 3_300_004));
    assert_eq!(held.holds, Amount::from(2 * DEPOSIT));

    let of_open = world.steps(&open)[0].2;
    let elsewhere = |hash: B256| move |transaction: &mut B256, _: &mut u64| *transaction = hash;
    type Change<'a> = &'a dyn Fn(&mut B256, &mut u64);
    let cases: [(&str, &str, Change<'_>); 5] = [
        // Never sent, of another case, another step's, in another block.
        ("open", "chain-receipt", &elsewhere(B256::repeat_byte(7))),
        ("open", "chain-log", &elsewhere(of_open)),
        ("submit", "chain-log", &elsewhere(world.steps(&settled)[0].2)),
        ("dispute", "chain-block", &|_, block| *block -= 1),
        ("settle", "chain-log", &elsewhere(world.steps(&settled)[2].2)),
    ];
    for (step, code, change) in cases {
        let mut position = 0;
        let (_folder, store) = copied(world.store(), |records| position = alter(records, &settled, step, change));
        let report = witnessed(&store, &witness).await.unwrap();
        let deal_id = Some(settled.terms().deal_id());
        let hit =
            report.discrepancies.iter().any(|it| (it.code, it.position, it.deal_id) == (code, Some(position), deal_id));
        assert!(hit, "no {code} of {step} at {position}: {:#?}", report.discrepancies);
    }
    // A block that the chain does not have yet is no reason to accuse anybody.
    let (_folder, store) = copied(world.store(), |records| {
        alter(records, &settled, "open", |transaction, block| {
            (*transaction, *block) = (B256::repeat_byte(7), 1_000_000);
        });
    });
    match witnessed(&store, &witness).await {
        Err(ChainAuditFault::Chain(fault @ ChainFault::Unreachable { .. })) => {
            assert!(fault.to_string().contains("1000000"), "{fault}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_contract_says_and_holds_is_held_against_the_record() {
    let (mut world, _settled, open) = two_deals().await;
    let run = |args: &[&str], folder: &Path| -> Output {
        Command::new(env!("CARGO_BIN_EXE_tribunal")).args(args).current_dir(folder).output().unwrap()
    };
    let Addresses { token, registry, escrow } = world.addresses;
    let settings = format!(
        "[store]\npath = \"store\"\n[chain]\nrpc_url = {:?}\nchain_id = 31337\n[chain.contracts]\nescrow = \
         \"{escrow:#x}\"\nregistry = \"{registry:#x}\"\ntoken = \"{token:#x}\"\n",
        world.anvil.url
    );
    std::fs::write(world.folder.path().join("tribunal.toml"), &settings).unwrap();
    // Beside the running engine.
    let json =
        |output: Output| -> Value { serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")) };
    let output = run(&["--json", "audit", "--all", "--chain"], world.folder.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let answer = json(output);
    assert_eq!((&answer["clean"], &answer["chain"]["deals"]), (&json!(true), &json!(2)));
    let shown = String::from_utf8(run(&["audit", "--chain", &world.anvil.url], world.folder.path()).stdout).unwrap();
    assert!(shown.contains("2 deals and 6 transactions compared with chain 31337"), "{shown}");
    let id = open.terms().deal_id().to_string();
    let output = run(&["--json", "audit", "--chain", &id], world.folder.path());
    assert_eq!(json(output)["chain"]["deals"], 1, "an id is no URL");

    // Another escrow's deals are somebody else's to check.
    let other = settings.replace(&format!("{escrow:#x}"), "0x0000000000000000000000000000000000000009");
    std::fs::write(world.folder.path().join("other.toml"), other).unwrap();
    let answer = json(run(&["--json", "audit", "--chain", "--config", "other.toml"], world.folder.path()));
    assert_eq!((&answer["clean"], &answer["chain"]["left_out"]), (&json!(true), &json!(2)));
    assert_eq!(answer["notes"].as_array().unwrap().iter().filter(|it| it["code"] == "other-chain").count(), 2);

    // The contract is told what the record does not know; the engine is away.
    world.stop().await;
    let signature = open.move_signature(Party::Client, MoveAction::Accept, 0, B256::ZERO);
    let signature = Signature::from_slice(&signature).unwrap();
    let accept = Step::Accept { terms: Arc::clone(open.terms()), signature };
    world.chain(&OTHER_KEY).await.perform(&accept).await.unwrap();
    let output = run(&["--json", "audit", "--chain"], world.folder.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found = json(output)["discrepancies"].clone();
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((&found[0]["code"], &found[0]["found"]), (&json!("chain-state"), &json!("settled")));
    assert_eq!(found[0]["deal_id"], json!(open.terms().deal_id()));
    // Tokens that leave the escrow otherwise than by its own word.
    let transfer = |to: Address, amount: u64| {
        let selector = hex::encode(&alloy_primitives::keccak256("transfer(address,uint256)")[..4]);
        format!(
            "0x{selector}{}{}{}",
            "0".repeat(24),
            hex::encode(to),
            hex::encode([&[0; 24][..], &amount.to_be_bytes()].concat())
        )
    };
    world.anvil.ask("anvil_impersonateAccount", json!([escrow])).await;
    world.anvil.ask("anvil_setBalance", json!([escrow, "0xde0b6b3a7640000"])).await;
    let send = json!({ "from": escrow, "to": token, "data": transfer(keys::address("stranger"), 1) });
    world.anvil.ask("eth_sendTransaction", json!([send])).await;
    let found = json(run(&["--json", "audit", "--chain"], world.folder.path()))["discrepancies"].clone();
    let holdings = found.as_array().unwrap().iter().find(|it| it["code"] == "chain-holdings").expect("named").clone();
    assert_eq!(holdings["found"], json!((2 * DEPOSIT - 1).to_string()));

    // Nobody answers: nobody is accused.
    let output = run(&["audit", "--chain", "http://127.0.0.1:1"], world.folder.path());
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    std::fs::write(world.folder.path().join("none.toml"), "[store]\npath = \"store\"\n").unwrap();
    let output = run(&["audit", "--chain", "--config", "none.toml"], world.folder.path());
    assert_eq!(output.status.code(), Some(78), "{output:?}");
}
