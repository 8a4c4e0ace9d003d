//! What others do at the contract and in the record: two verdicts of one mediator in one round, found whoever brings them,
//! kept, and shown to the contract.

use std::{path::Path, sync::Arc};

use tribunal_contracts::{Chain, InProcessChain, Step};
use tribunal_core::EffectKind;
use tribunal_engine::{
    audit::{AuditOptions, Scope, audit},
    bus::{Bus, InProcessBus, InProcessLimits, Message},
    effects::outgoing,
    engine::{Engine, Fencing, Parts, now},
    equivocation::{Evidence, Outcome, found},
    outbox,
    partition::{Job, Partition, Settings},
    play_money::PlayMoney,
    store::{Fsync, Store},
};
use tribunal_events::{Amount, Domain, Envelope, Party, Terms, Timestamp, VerdictKind};
use tribunal_fixtures::{START_S, Script, TermsBuilder, chain, jobs, keys};
use tribunal_verifiers::{ArtifactSource, FolderSource, OperatorLimits, Service};

const CLAIMED: u64 = 1_000_000_000;

/// A writer without a bus, and one disputed deal in it.
struct Case {
    store: Store,
    partition: Partition,
    script: Script,
    sequence: u64,
    /// What was refused, by code.
    refused: Vec<String>,
}

impl Case {
    fn new(folder: &Path, terms: Arc<Terms>) -> Self {
        let store = Store::open(folder, Fsync::Never).unwrap();
        let settings = Settings {
            operator: keys::key("operator"),
            domains: vec![chain::domain()],
            recorded_time: false,
            preflight: None,
        };
        let partition = Partition::new(store.clone(), settings, "DEALS").unwrap();
        let script = Script::new(terms);
        let mut this = Self { store, partition, script: script.clone(), sequence: 0, refused: Vec::new() };
        this.say(&[script.proposed(Party::Client), script.agreed(Party::Provider)]);
        this
    }

    fn say(&mut self, envelopes: &[Envelope]) {
        let jobs = envelopes.iter().map(|envelope| {
            self.sequence += 1;
            Job::Message(Message {
                stream_sequence: self.sequence,
                subject: outgoing(envelope).map_or_else(|_| "deals.x.y".into(), |out| out.subject),
                payload: envelope.encode().into(),
                at: Timestamp::from_s(START_S + 10),
                recorded_at: None,
                message_id: None,
                stream_created_us: 1,
                incarnation: 0,
            })
        });
        let jobs = jobs.collect();
        let processed = self.partition.process(jobs).unwrap();
        self.refused.extend(processed.refused.into_iter().map(|refused| refused.reason_code));
    }

    fn vote(&self, mediator: &str, round: u32, verdict: VerdictKind) -> tribunal_fixtures::Vote {
        self.script.vote(&keys::key(mediator), round, verdict, CLAIMED, "ok")
    }

    fn given(&self, by: &str, mediator: &str, round: u32, verdict: VerdictKind) -> Envelope {
        self.script.verdict_given(&keys::key(by), &self.vote(mediator, round, verdict))
    }

    fn found(&self) -> Vec<Evidence> {
        found(&self.store).unwrap()
    }

    fn accusations(&self) -> usize {
        let kinds = self.store.outbox().unwrap().into_iter().map(|entry| outbox::decode(&entry.payload).unwrap().1);
        kinds.filter(|kind| matches!(kind, EffectKind::Equivocation { .. })).count()
    }
}

fn on_chain() -> Arc<Terms> {
    TermsBuilder::new("an equivocator").appointed("m6", 1).build()
}

fn without_contract() -> Arc<Terms> {
    TermsBuilder::new("an equivocator").without_contract().appointed("m6", 1).build()
}

use VerdictKind::{Inconclusive, Invalid, Valid};

#[test]
fn a_second_verdict_is_found_though_both_are_refused_and_a_stranger_brings_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::new(folder.path(), without_contract());
    case.say(&[case.given("m6", "m6", 0, Valid)]);
    assert!(case.found().is_empty());
    case.say(&[case.given("stranger", "m6", 0, Invalid)]);
    assert_eq!(case.refused, ["wrong-state", "wrong-state"]);
    let [evidence] = &case.found()[..] else { panic!("one, not {:?}", case.found()) };
    assert_eq!((evidence.first.verdict, evidence.second.verdict), (Valid, Invalid));
    let terms = case.script.terms();
    for verdict in [evidence.first, evidence.second] {
        assert_eq!(verdict.signer(&terms.domain(), terms.hash()), Ok(keys::address("m6")));
    }
    assert_eq!(evidence.outcome, Some(Outcome::NoContract), "kept, and nobody to tell");
    assert_eq!(case.accusations(), 0);
}

#[test]
fn a_second_verdict_is_found_after_the_first_one_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::new(folder.path(), without_contract());
    let claim = jobs::load("wordcount").unwrap().claim(CLAIMED);
    case.say(&[case.script.result_submitted(claim), case.script.disputed("show me")]);
    // In one batch, as a burst arrives; the deal is settled by the first.
    case.say(&[case.given("m6", "m6", 0, Valid), case.given("m6", "m6", 0, Invalid)]);
    assert_eq!(case.refused.len(), 1, "{:?}", case.refused);
    assert_eq!(case.found().len(), 1);
}

#[test]
fn a_verdict_counts_though_the_event_around_it_is_forged() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::new(folder.path(), on_chain());
    let forged = case.given("m6", "m6", 0, Valid);
    let other = case.given("stranger", "m6", 0, Valid);
    let forged = Envelope::from_parts(forged.event().to_vec(), other.signature().to_vec());
    case.say(&[forged, case.given("m6", "m6", 0, Invalid)]);
    assert_eq!(case.refused, ["signature", "wrong-state"]);
    assert_eq!((case.found().len(), case.accusations()), (1, 1));
}

#[test]
fn nobody_is_accused_of_what_is_no_equivocation() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::new(folder.path(), on_chain());
    // The same verdict again, other rounds, rounds that the terms do not allow, accounts that they do not name.
    let fine = [
        case.given("m6", "m6", 0, Valid),
        case.given("stranger", "m6", 0, Valid),
        case.given("m6", "m6", 1, Invalid),
        case.given("m6", "m6", 2, Valid),
        case.given("m6", "m6", 2, Invalid),
        case.given("stranger", "stranger", 0, Valid),
        case.given("stranger", "stranger", 0, Invalid),
    ];
    case.say(&fine);
    // A verdict for another deal, and one that is changed after it was signed: two events, one signature.
    let other = Script::new(TermsBuilder::new("another deal").appointed("m6", 1).build());
    let mut foreign = other.vote(&keys::key("m6"), 0, Invalid, CLAIMED, "ok");
    case.say(&[case.script.verdict_given(&keys::key("m6"), &foreign)]);
    foreign = case.vote("m6", 0, Valid);
    foreign.verdict.verdict = Invalid;
    case.say(&[case.script.verdict_given(&keys::key("m6"), &foreign)]);
    assert_eq!((case.found(), case.accusations()), (Vec::new(), 0));
}

#[test]
fn one_accusation_a_round_whatever_is_sent_and_it_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::new(folder.path(), on_chain());
    let said = [Valid, Invalid, Inconclusive, Invalid, Valid].map(|verdict| case.given("m6", "m6", 0, verdict));
    case.say(&said[..1]);
    case.say(&said[1..]);
    assert_eq!((case.found().len(), case.accusations()), (1, 1));
    let script = case.script.clone();
    drop(case);
    let store = Store::open(folder.path(), Fsync::Never).unwrap();
    let before = found(&store).unwrap();
    assert_eq!(before.len(), 1);
    assert!(before[0].outcome.is_none(), "not shown yet");
    assert_eq!(before[0].deal_id, script.terms().deal_id());
}

#[test]
fn an_audit_knows_where_an_accusation_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::new(folder.path(), on_chain());
    case.say(&[case.given("m6", "m6", 0, Valid), case.given("m6", "m6", 0, Invalid)]);
    assert_eq!(case.accusations(), 1);
    let report = audit(&case.store, Scope::All, AuditOptions::default()).unwrap();
    let outbox: Vec<_> = report.discrepancies.iter().filter(|it| it.code == "outbox").collect();
    assert!(outbox.is_empty(), "{outbox:?}");
}

#[tokio::test]
async fn a_key_that_judges_here_is_not_accused() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::new(folder.path(), on_chain());
    case.say(&[case.given("m6", "m6", 0, Valid), case.given("m6", "m6", 0, Invalid)]);
    let chain = InProcessChain::new();
    let m6 = keys::address("m6");
    chain.bond_mediator(m6, Amount::from(700), keys::address("operator")).unwrap();
    let evidence = case.found().remove(0);
    evidence.show(&case.store, Some(&chain), &[m6]).await.unwrap();
    assert_eq!(case.found()[0].outcome, Some(Outcome::OwnKey));
    assert!(!chain.bond(m6).await.unwrap().tombstoned);
}

#[tokio::test]
async fn a_key_that_another_finder_showed_first_brings_no_reward() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::new(folder.path(), on_chain());
    case.say(&[case.given("m6", "m6", 0, Valid), case.given("m6", "m6", 0, Invalid)]);
    let chain = InProcessChain::new();
    let m6 = keys::address("m6");
    chain.bond_mediator(m6, Amount::from(705), keys::address("operator")).unwrap();
    let evidence = case.found().remove(0);
    // Shown for another deal before, so that this one finds a tombstone.
    let other = Script::new(TermsBuilder::new("another deal").appointed("m6", 1).build());
    let [a, b] = [Valid, Invalid].map(|it| other.vote(&keys::key("m6"), 0, it, CLAIMED, "ok").verdict);
    let terms_hash = other.terms().hash();
    chain.perform(&Step::SlashEquivocation { terms_hash, a, b }).await.unwrap();
    let shown = chain.finding(terms_hash, m6, 0).await.unwrap().expect("shown");
    assert_eq!((shown.slashed, shown.reward, shown.ours), (Amount::from(705), Amount::from(70), true));
    evidence.show(&case.store, Some(&chain), &[]).await.unwrap();
    match case.found()[0].outcome.clone() {
        Some(Outcome::Failed { reason }) => assert!(reason.contains("Tombstoned"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

/// An engine in this process over the contracts with play money; no mediator runs here.
struct World {
    store: Store,
    bus: Arc<dyn Bus>,
    money: Arc<PlayMoney>,
    engine: Engine,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store"), Fsync::Never).unwrap();
        let artifacts: Arc<dyn ArtifactSource> =
            Arc::new(FolderSource::open(&jobs::folder().join("wordcount")).unwrap());
        let verifier = Arc::new(Service::new(OperatorLimits::default(), vec![Arc::clone(&artifacts)]));
        let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new(now, InProcessLimits::default()));
        let money = Arc::new(PlayMoney::default());
        let parts = Parts {
            store: store.clone(),
            bus: Arc::clone(&bus),
            chain: Some(Arc::clone(&money) as Arc<dyn Chain>),
            verifier,
            artifacts,
            settings: Settings {
                operator: keys::key("operator"),
                domains: vec![Domain::new(money.chain_id(), money.escrow())],
                recorded_time: false,
                preflight: None,
            },
            mediators: Vec::new(),
            history: None,
            workers: 1,
            fuel_per_s: 300_000_000,
            fencing: Fencing::Off,
        };
        let engine = Engine::start(parts).await.unwrap();
        Self { store, bus, money, engine, folder }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_equivocator_loses_its_bond_and_the_finder_is_paid() {
    let World { store, bus, money, engine, folder } = World::new().await;
    let terms = TermsBuilder::new("an equivocator").agree_by_s(now().s() + 3600).appointed("m6", 0).build();
    let script = Script::new(terms);
    let [valid, invalid] = [Valid, Invalid].map(|verdict| {
        let vote = script.vote(&keys::key("m6"), 0, verdict, CLAIMED, "ok");
        script.verdict_given(&keys::key("m6"), &vote)
    });
    let said = [
        script.proposed(Party::Client),
        script.agreed(Party::Provider),
        script.result_submitted(jobs::load("wordcount").unwrap().claim(CLAIMED)),
        script.disputed("show me"),
        valid,
        invalid,
    ];
    for envelope in &said {
        bus.publish(outgoing(envelope).unwrap()).await.unwrap();
        engine.idle().await.unwrap();
    }
    let m6 = keys::address("m6");
    let bond = money.bond(m6).await.unwrap();
    assert!(bond.tombstoned && bond.active.is_zero(), "{bond:?}");
    let [evidence] = &found(&store).unwrap()[..] else { panic!("one") };
    match &evidence.outcome {
        Some(Outcome::Slashed { ours: true, slashed, reward, .. }) => {
            assert_eq!((*slashed, *reward), (Amount::from(500_000), Amount::from(50_000)));
        }
        other => panic!("{other:?}"),
    }
    assert!(store.outbox().unwrap().is_empty(), "done once and for all");
    let case = money.case(script.terms().hash()).await.unwrap();
    engine.shutdown(std::time::Duration::from_secs(20)).await;

    // Play money is made again from the record, the tombstone with it.
    let path = PlayMoney::default_path(&folder.path().join("store"));
    let again = PlayMoney::open(&path, &store).await.unwrap();
    assert!(again.bond(m6).await.unwrap().tombstoned);
    assert_eq!(again.case(script.terms().hash()).await.unwrap().outcome, case.outcome);
    drop(again);

    // Where nothing of it is lost, nothing is taken again; where the end is lost, that is.
    let whole = std::fs::read_to_string(&path).unwrap();
    let again = PlayMoney::open(&path, &store).await.unwrap();
    assert_eq!(again.case(script.terms().hash()).await.unwrap().outcome, case.outcome);
    drop(again);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    let older: Vec<&str> = whole.lines().take(3).collect();
    std::fs::write(&path, older.join("\n") + "\n").unwrap();
    let again = PlayMoney::open(&path, &store).await.unwrap();
    assert!(again.bond(m6).await.unwrap().tombstoned);
    assert_eq!(again.case(script.terms().hash()).await.unwrap().outcome, case.outcome);
    assert!(std::fs::read_to_string(&path).unwrap().lines().count() > 3);
}
