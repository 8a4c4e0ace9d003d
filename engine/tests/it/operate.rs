//! A mediator's machine: its signing history, its desk, and what kills, old backups and a second machine do to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tribunal_core::Deal;
use tribunal_engine::{
    bus::{BatchLimits, Bus, InProcessBus, InProcessLimits, NatsBus, NatsConfig, NatsServer},
    effects::outgoing,
    engine::{Engine, Fencing, Parts, now},
    mediator::history::{Entry, Exchange, History, HistoryFault, Slot},
    partition::Settings,
    replay::load,
    store::{Fsync, Store},
};
use tribunal_events::{
    Address, B256, ContentAddress, DealId, Domain, Envelope, EventKind, Outcome, Party, Signer as _, VerdictKind, proto,
};
use tribunal_fixtures::{Script, TermsBuilder, jobs, keys::key};
use tribunal_verifiers::{
    ArtifactFault, ArtifactSource, Chain, FolderSource, MemorySource, OperatorLimits, Reference, Service,
};

// ---- the history

fn entry(round: u32, verdict: VerdictKind) -> Entry {
    Entry {
        mediator: key("m1").address(),
        chain_id: 31337,
        contract: Address::repeat_byte(7),
        deal_id: DealId::default(),
        terms_hash: B256::repeat_byte(9),
        round,
        verdict,
        instruction_count: u64::MAX,
        digest: B256::repeat_byte(1),
        claim_digest: B256::repeat_byte(3),
        reason_code: "ok".into(),
        salt: B256::repeat_byte(2),
        at_us: 1_772_355_600_000_000,
        other_salts: Vec::new(),
        blocked: false,
    }
}

#[test]
fn the_first_intent_holds_also_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.jsonl");
    let history = History::open(&path).unwrap();
    assert_eq!(history.intend(entry(0, VerdictKind::Valid)).unwrap().verdict, VerdictKind::Valid);
    assert_eq!(history.intend(entry(0, VerdictKind::Invalid)).unwrap().verdict, VerdictKind::Valid);
    history.intend(entry(1, VerdictKind::Invalid)).unwrap();
    drop(history);
    let history = History::open(&path).unwrap();
    assert_eq!(history.entries(), [entry(0, VerdictKind::Valid), entry(1, VerdictKind::Invalid)]);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600, "salts are nobody's business");
}

#[test]
fn a_history_is_held_by_one_process_and_read_by_many() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.jsonl");
    let history = History::open(&path).unwrap();
    history.intend(entry(0, VerdictKind::Valid)).unwrap();
    assert!(matches!(History::open(&path), Err(HistoryFault::InUse(_))));
    assert_eq!(History::read(&path).unwrap(), [entry(0, VerdictKind::Valid)]);
    drop(history);
    History::open(&path).unwrap();
}

#[test]
fn a_line_cut_off_by_a_crash_is_dropped_and_every_other_change_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.jsonl");
    let history = History::open(&path).unwrap();
    for round in 0..3 {
        history.intend(entry(round, VerdictKind::Valid)).unwrap();
    }
    drop(history);
    let whole = std::fs::read(&path).unwrap();
    // Wherever the last line is cut, the entries before it are there, and writing goes on.
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for cut in [last, last + 1, last + 100, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let history = History::open(&path).unwrap();
        assert_eq!(history.len(), 2, "cut at {cut}");
        history.intend(entry(7, VerdictKind::Invalid)).unwrap();
        drop(history);
        assert_eq!(History::open(&path).unwrap().len(), 3);
    }
    // Every flipped byte is noticed, but for the newline at the very end, which makes the last line a cut-off one.
    for at in 0..whole.len() - 1 {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        match History::open(&path) {
            Err(HistoryFault::Damaged { line, .. }) => assert!((1..=5).contains(&line)),
            other => panic!("byte {at} flipped: {other:?}"),
        }
    }
}

#[test]
fn a_history_moves_to_another_machine_and_a_contradiction_blocks_the_slot() {
    let folder = tempfile::tempdir().unwrap();
    let old = History::open(folder.path().join("old.jsonl")).unwrap();
    for (round, verdict) in [(0, VerdictKind::Valid), (1, VerdictKind::Invalid), (2, VerdictKind::Valid)] {
        old.intend(entry(round, verdict)).unwrap();
    }
    let exported = serde_json::to_vec(&Exchange::new(old.entries())).unwrap();
    let new = History::open(folder.path().join("new.jsonl")).unwrap();
    new.intend(entry(1, VerdictKind::Invalid)).unwrap();
    new.intend(entry(2, VerdictKind::Inconclusive)).unwrap();
    let imported = new.import(Exchange::parse(&exported).unwrap().entries()).unwrap();
    assert_eq!((imported.added, imported.known, imported.blocked), (1, 1, 1));
    let blocked: Vec<_> = new.entries().iter().map(|entry| entry.blocked).collect();
    assert_eq!(blocked, [false, false, true], "signing either could be the second signature");
    // The same verdict under another salt: either may be the one that was committed to.
    let twin = Entry { salt: B256::repeat_byte(5), ..entry(0, VerdictKind::Valid) };
    assert_eq!(new.import([twin]).unwrap().known, 1);
    assert_eq!(new.entries()[0].other_salts, [B256::repeat_byte(5)]);
    // The same verdict on another claim is another word.
    let other_claim = Entry { claim_digest: B256::ZERO, ..entry(1, VerdictKind::Invalid) };
    assert_eq!(
        History::open(folder.path().join("fourth.jsonl"))
            .unwrap()
            .import([entry(1, VerdictKind::Invalid), other_claim])
            .unwrap()
            .blocked,
        1
    );
    // A blocked slot stays blocked wherever it is taken.
    let third = History::open(folder.path().join("third.jsonl")).unwrap();
    let again = serde_json::to_vec(&Exchange::new(new.entries())).unwrap();
    third.import(Exchange::parse(&again).unwrap().entries()).unwrap();
    assert_eq!(third.entries(), new.entries());
    for bad in ["", "{}", "[]", r#"{"metadata":{"format":"x","version":1},"data":[]}"#] {
        assert!(matches!(Exchange::parse(bad.as_bytes()), Err(HistoryFault::Exchange(_))), "{bad}");
    }
}

// ---- the desk

/// An engine in this process whose mediator is m1.
struct World {
    engine: Engine,
    bus: Arc<InProcessBus>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(source: Arc<dyn ArtifactSource>, limits: OperatorLimits) -> Self {
        let bus = Arc::new(InProcessBus::new(now, InProcessLimits::default()));
        Self::over(bus, source, limits).await
    }

    async fn over(bus: Arc<InProcessBus>, source: Arc<dyn ArtifactSource>, limits: OperatorLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::start(Parts {
            store: Store::open(folder.path().join("store"), Fsync::Never).unwrap(),
            bus: Arc::clone(&bus) as Arc<dyn Bus>,
            chain: None,
            verifier: Arc::new(Service::new(limits, vec![Arc::clone(&source)])),
            artifacts: source,
            settings: Settings {
                operator: key("operator"),
                domains: vec![Domain::default()],
                recorded_time: false,
                preflight: None,
            },
            mediators: vec![Arc::new(key("m1"))],
            history: Some(Arc::new(History::open(folder.path().join("h.jsonl")).unwrap())),
            workers: 2,
            fuel_per_s: 300_000_000,
            fencing: Fencing::Off,
        })
        .await
        .unwrap();
        Self { engine, bus, _folder: folder }
    }

    async fn say(&self, envelopes: &[Envelope]) {
        for envelope in envelopes {
            self.bus.publish(outgoing(envelope).unwrap()).await.unwrap();
        }
    }

    /// The deal, once it is over.
    async fn settled(&self, id: DealId) -> Deal {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(deal) = load(self.engine.store(), &id).unwrap()
                && deal.is_settled()
            {
                return deal;
            }
            assert!(Instant::now() < give_up, "the deal is not settled");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn jobs_folder() -> Arc<dyn ArtifactSource> {
    Arc::new(FolderSource::open(&tribunal_fixtures::folder().join("jobs")).unwrap())
}

fn terms(name: &str) -> TermsBuilder {
    TermsBuilder::new(name).without_contract().agree_by_s(4_000_000_000)
}

fn disputed(script: &Script, claim: proto::Claim) -> Vec<Envelope> {
    vec![
        script.proposed(Party::Client),
        script.agreed(Party::Provider),
        script.result_submitted(claim),
        script.disputed("show me"),
    ]
}

fn honest() -> proto::Claim {
    jobs::load("wordcount").unwrap().claim(1000)
}

fn cheat() -> proto::Claim {
    let job = jobs::load("wordcount").unwrap();
    let path = job.expected[0].0.clone();
    job.with_result(&path, b"{}".to_vec()).claim(1000)
}

fn votes(store: &Store, script: &Script) -> Vec<(VerdictKind, String)> {
    let mut votes = Vec::new();
    for record in store.stream(&script.terms().deal_id(), 1) {
        match record.unwrap().envelope.parse().unwrap().into_kind() {
            EventKind::VerdictGiven { vote } | EventKind::VoteRevealed { vote, .. } => {
                votes.push((vote.verdict, vote.reason_code));
            }
            _ => {}
        }
    }
    votes
}

/// Fails so many times, then serves.
struct Flaky(AtomicU32, Arc<dyn ArtifactSource>);

impl ArtifactSource for Flaky {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        if self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            let source = std::io::Error::other("the disk is away for a moment");
            return Err(ArtifactFault::Io { name: reference.to_string(), source });
        }
        self.1.fetch(reference)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passing_fault_of_ours_is_tried_again_and_costs_nobody_anything() {
    let world = World::new(Arc::new(Flaky(AtomicU32::new(5), jobs_folder())), OperatorLimits::default()).await;
    let script = Script::new(terms("flaky").build());
    world.say(&disputed(&script, honest())).await;
    let deal = world.settled(script.terms().deal_id()).await;
    assert_eq!(deal.outcome(), Some(Outcome::Valid));
    let counts = world.engine.desk().unwrap().counts();
    assert!(counts.faults.lock().unwrap()["artifact-unavailable"] > 0, "the fault is counted for an alert");
    world.engine.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_stays_is_inconclusive_with_its_reason() {
    let limits = OperatorLimits { fuel_max: 1000, ..OperatorLimits::default() };
    let world = World::new(jobs_folder(), limits).await;
    let script = Script::new(terms("too small a machine").build());
    world.say(&disputed(&script, honest())).await;
    let deal = world.settled(script.terms().deal_id()).await;
    assert_eq!(deal.outcome(), Some(Outcome::Inconclusive));
    assert_eq!(votes(world.engine.store(), &script), [(VerdictKind::Inconclusive, "operator-limit".into())]);
    world.engine.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inflated_count_scares_no_mediator_away_and_two_cases_do_not_wait_for_a_slow_one() {
    let world = World::new(jobs_folder(), OperatorLimits::default()).await;
    // The provider claims a year of work.
    let mut claim = cheat();
    claim.instruction_count = u64::MAX;
    let inflated = Script::new(terms("inflated").build());
    let plain = [Script::new(terms("one").build()), Script::new(terms("two").build())];
    world.say(&disputed(&inflated, claim)).await;
    for script in &plain {
        world.say(&disputed(script, honest())).await;
    }
    for script in &plain {
        assert_eq!(world.settled(script.terms().deal_id()).await.outcome(), Some(Outcome::Valid));
    }
    assert_eq!(world.settled(inflated.terms().deal_id()).await.outcome(), Some(Outcome::Invalid));
    world.engine.shutdown(Duration::from_secs(20)).await;
}

/// A module that runs for ever: `(module (func (export "_start") (loop br 0)))`.
const ENDLESS: &[u8] = &[
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 7, 10, 1, 6, 0x5f, 0x73, 0x74, 0x61, 0x72, 0x74,
    0, 0, 10, 9, 1, 7, 0, 3, 0x40, 0x0c, 0, 0x0b, 0x0b,
];

/// Terms over a job that never ends within `mediate_s`, though its claim says it is done at once.
fn endless(name: &str, mediate_s: u64) -> (Script, proto::Claim) {
    let builder = terms(name).edit(|terms| {
        let job = terms.job.as_mut().unwrap();
        (job.module, job.inputs, job.outputs) = (ContentAddress::of(ENDLESS).to_string(), Vec::new(), Vec::new());
        let limits = job.limits.as_mut().unwrap();
        (limits.fuel, limits.wall_ms) = (1_000_000_000_000_000, 86_400_000);
        let timeouts = terms.timeouts.as_mut().unwrap();
        (timeouts.availability_s, timeouts.mediate_s) = (1, mediate_s);
    });
    let stdout = ContentAddress::of(b"").to_string();
    (Script::new(builder.build()), proto::Claim { instruction_count: 5, stdout, ..proto::Claim::default() })
}

/// The jobs of the fixtures and the endless one.
fn with_endless() -> Arc<dyn ArtifactSource> {
    let mut memory = MemorySource::new();
    memory.add(ENDLESS);
    Arc::new(Chain(vec![Arc::new(memory), jobs_folder()]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cases_at_once_do_not_wait_for_the_endless_ones_and_those_are_given_up_in_time() {
    let world = World::new(with_endless(), OperatorLimits { fuel_max: u64::MAX, ..OperatorLimits::default() }).await;
    let endless: Vec<_> = (0..4).map(|number| endless(&format!("endless {number}"), 12)).collect();
    for (script, claim) in &endless {
        world.say(&disputed(script, claim.clone())).await;
    }
    let plain: Vec<_> = (0..1000).map(|number| Script::new(terms(&format!("at once {number}")).build())).collect();
    for script in &plain {
        world.say(&disputed(script, honest())).await;
    }
    for script in &plain {
        assert_eq!(world.settled(script.terms().deal_id()).await.outcome(), Some(Outcome::Valid));
    }
    for (script, _) in &endless {
        let deal = world.settled(script.terms().deal_id()).await;
        assert_eq!(deal.outcome(), Some(Outcome::Inconclusive), "in time, and nobody's guilt");
        assert_eq!(votes(world.engine.store(), script), [(VerdictKind::Inconclusive, "no-time".into())]);
    }
    assert_eq!(world.engine.desk().unwrap().counts().deadlines_missed.load(Ordering::SeqCst), 0);
    world.engine.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_gives_work_its_grace_and_the_next_start_resumes_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path().join("nats")).unwrap();
    let bus: Arc<dyn Bus> = Arc::new(NatsBus::connect(NatsConfig::new(server.url())).await.unwrap());
    std::fs::create_dir(folder.path().join("artifacts")).unwrap();
    std::fs::write(folder.path().join("artifacts/endless.wasm"), ENDLESS).unwrap();
    let machine = Machine::new(folder.path().join("one"), &server.url(), u64::MAX);
    let start = || {
        let mut command = machine.command();
        let artifacts = format!("[{:?}]", folder.path().join("artifacts"));
        command.env("TRIBUNAL_VERIFIERS__ARTIFACTS", artifacts).env("TRIBUNAL_MEDIATOR__GRACE_S", "1").spawn().unwrap()
    };
    let (script, claim) = endless("handed over", 30);
    for envelope in disputed(&script, claim) {
        bus.publish(outgoing(&envelope).unwrap()).await.unwrap();
    }
    let id = script.terms().deal_id();
    let until = async |what: &dyn Fn(&Deal) -> bool| {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            let store = Store::open_read_only(machine.folder.join("store"));
            if let Ok(Some(deal)) = store.map_or(Ok(None), |store| load(&store, &id))
                && what(&deal)
            {
                return;
            }
            assert!(Instant::now() < give_up, "the record does not get there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut child = start();
    let stderr = child.stderr.take().unwrap();
    let rest = std::thread::spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).collect::<Vec<_>>());
    until(&|deal| deal.dispute().is_some_and(|dispute| dispute.round.is_some())).await;
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let rest = rest.join().unwrap();
    assert!(rest.iter().any(|line| line.contains("left to the next start")), "{rest:#?}");
    let mut child = start();
    wait_for(&mut child, "page and API are served");
    until(&|deal| deal.is_settled()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let store = Store::open(machine.folder.join("store"), Fsync::Always).unwrap();
    let deal = load(&store, &id).unwrap().unwrap();
    assert_eq!(deal.outcome(), Some(Outcome::Inconclusive), "not a mediator's silence");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panel_member_commits_and_reveals_and_its_inbox_says_what_is_asked() {
    let world = World::new(jobs_folder(), OperatorLimits::default()).await;
    let script = Script::new(terms("panel of one").drawn(&["m1"], 1, 1, 0).build());
    world.say(&disputed(&script, honest())).await;
    world.say(&[script.seed_revealed(Party::Client), script.seed_revealed(Party::Provider)]).await;
    let deal = world.settled(script.terms().deal_id()).await;
    assert_eq!(deal.outcome(), Some(Outcome::Valid));
    assert!(world.engine.desk().unwrap().cases().iter().all(|case| !case.stage.is_our_turn()));
    world.engine.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_machines_with_one_key_one_signs() {
    let bus = Arc::new(InProcessBus::new(now, InProcessLimits::default()));
    let small = OperatorLimits { fuel_max: 1000, ..OperatorLimits::default() };
    // Left to themselves one would say valid and the other inconclusive.
    let one = World::over(Arc::clone(&bus), jobs_folder(), OperatorLimits::default()).await;
    let two = World::over(Arc::clone(&bus), jobs_folder(), small).await;
    let scripts: Vec<_> = (0..20).map(|number| Script::new(terms(&format!("twins {number}")).build())).collect();
    for script in &scripts {
        one.say(&disputed(script, honest())).await;
    }
    for script in &scripts {
        let id = script.terms().deal_id();
        let (first, second) = (one.settled(id).await, two.settled(id).await);
        assert_eq!(first.outcome(), second.outcome());
    }
    let mut consumer = bus.consume(None).await.unwrap();
    let last = bus.last().await.unwrap();
    let mut said = Said::default();
    loop {
        for message in consumer.next_batch(BatchLimits::default()).await.unwrap() {
            said.hear(&message.payload);
            if message.stream_sequence == last {
                said.check();
                assert_eq!(said.verdicts.len(), scripts.len());
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_valid_claim_holds_a_slot_and_the_first_one_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path().join("nats")).unwrap();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    let valid = |bytes: &[u8]| bytes.starts_with(b"signed");
    let claim = async |bytes: &'static [u8]| bus.claim("slots.a.b.0", bytes.into(), &valid).await.unwrap();
    let junk = async |bytes: &'static [u8]| {
        // Anybody on the bus can do this.
        bus.client().publish("slots.a.b.0", bytes.into()).await.unwrap();
        bus.client().flush().await.unwrap();
    };
    junk(b"junk").await;
    junk(&[0; 97]).await;
    assert_eq!(claim(b"signed by one").await, "signed by one");
    junk(b"junk again").await;
    junk(b"signed by two").await;
    assert_eq!(claim(b"signed by three").await, "signed by one");
    assert_eq!(bus.claim("slots.a.b.1", "signed other".into(), &valid).await.unwrap(), "signed other");
}

#[test]
fn a_claim_is_its_mediators_for_this_slot_alone() {
    let entry = entry(0, VerdictKind::Valid);
    let (slot, claim) = (entry.slot(), entry.claim());
    let message = |name: &str, slot: &Slot| {
        let signature = key(name).sign_preimage(&slot.claim_preimage(&claim)).unwrap();
        [&claim[..], signature.bytes()].concat()
    };
    assert_eq!(slot.read_claim(&message("m1", &slot)), Some(claim));
    assert_eq!(slot.read_claim(&message("m2", &slot)), None, "somebody else's");
    let other = Slot { round: 1, ..slot };
    assert_eq!(slot.read_claim(&message("m1", &other)), None, "for another round");
    for bytes in [&[][..], &claim, &[0; 97], &[message("m1", &slot), vec![0]].concat()] {
        assert_eq!(slot.read_claim(bytes), None);
    }
}

/// What two verdicts must have in common to be the same.
type SaidVerdict = (VerdictKind, u64, B256);

/// What a key was heard to say, by slot.
#[derive(Default)]
struct Said {
    verdicts: BTreeMap<(DealId, u32), BTreeSet<SaidVerdict>>,
    commitments: BTreeMap<(DealId, u32), BTreeSet<Vec<u8>>>,
}

impl Said {
    fn hear(&mut self, payload: &[u8]) {
        let Ok(parsed) = Envelope::decode(payload).and_then(Envelope::parse) else { return };
        let deal_id = parsed.deal_id();
        match parsed.into_kind() {
            EventKind::VerdictGiven { vote } | EventKind::VoteRevealed { vote, .. } => {
                let verdict = (vote.verdict, vote.instruction_count, vote.digest);
                self.verdicts.entry((deal_id, vote.round)).or_default().insert(verdict);
            }
            EventKind::VoteCommitted { round, commitment } => {
                self.commitments.entry((deal_id, round)).or_default().insert(commitment.to_vec());
            }
            _ => {}
        }
    }

    fn check(&self) {
        for (slot, verdicts) in &self.verdicts {
            assert_eq!(verdicts.len(), 1, "two verdicts in {slot:?}");
        }
        for (slot, commitments) in &self.commitments {
            assert_eq!(commitments.len(), 1, "two commitments in {slot:?}");
        }
    }
}

// ---- kills

/// How often an engine is killed.
const KILLS: usize = 500;
/// Cases that arrive meanwhile.
const CASES: usize = 250;

/// A machine: its own store and history, the operator's and the mediator's keys.
struct Machine {
    folder: PathBuf,
    url: String,
    fuel_max: u64,
}

impl Machine {
    fn new(folder: PathBuf, url: &str, fuel_max: u64) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["operator", "m1"] {
            let key = key(name);
            let plain = serde_json::json!({
                "insecure_dev_key": format!("0x{}", hex::encode(key.secret().as_slice())), "address": key.address(),
            });
            std::fs::write(folder.join(format!("{name}.json")), plain.to_string()).unwrap();
        }
        Self { folder, url: url.to_owned(), fuel_max }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tribunal"));
        command
            .args(["serve", "--bus-url", &self.url, "--listen", "127.0.0.1:0", "--store"])
            .arg(self.folder.join("store"))
            .current_dir(&self.folder)
            .env("TRIBUNAL_OPERATOR__KEYSTORE", self.folder.join("operator.json"))
            .env("TRIBUNAL_MEDIATOR__KEYSTORE", self.folder.join("m1.json"))
            .env("TRIBUNAL_VERIFIERS__FUEL_MAX", self.fuel_max.to_string())
            .env("TRIBUNAL_VERIFIERS__ARTIFACTS", format!("[{:?}]", jobs::folder().join("wordcount")))
            // The second machine is there to fail.
            .env("TRIBUNAL_POLICY__ENFORCE", "false")
            // Without a fence nothing but claimed slots and the history keeps two of them apart.
            .env("TRIBUNAL_BUS__FENCE", "false")
            .env("RUST_LOG", "info")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Runs until it reads the bus, then a while longer, and is killed.
    fn run_for(&self, after_start: Duration) {
        self.run_until("page and API are served", after_start);
    }

    /// Runs until it logs this, then a while longer, and is killed.
    fn run_until(&self, what: &'static str, longer: Duration) {
        let mut child = self.command().spawn().unwrap();
        wait_for(&mut child, what);
        std::thread::sleep(longer);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Waits until an engine logs this.
fn wait_for(child: &mut Child, what: &'static str) {
    let stderr = child.stderr.take().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if line.contains(what) {
                let _ = sender.send(());
            }
        }
    });
    let _ = receiver.recv_timeout(Duration::from_secs(60));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_kills_two_old_backups_and_two_second_engines_sign_nothing_twice_and_miss_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path().join("nats")).unwrap();
    let bus: Arc<dyn Bus> = Arc::new(NatsBus::connect(NatsConfig::new(server.url())).await.unwrap());
    let scripts: Vec<Script> = (0..CASES)
        .map(|number| {
            let terms = terms(&format!("kills {number}"));
            Script::new(if number % 2 == 0 { terms.build() } else { terms.drawn(&["m1"], 1, 1, 0).build() })
        })
        .collect();
    let is_cheat = |number: usize| number.is_multiple_of(3);
    let publish = |number: usize, after: Duration| {
        let (bus, script) = (Arc::clone(&bus), scripts[number].clone());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut said = disputed(&script, if is_cheat(number) { cheat() } else { honest() });
            if number % 2 == 1 {
                said.extend([script.seed_revealed(Party::Client), script.seed_revealed(Party::Provider)]);
            }
            for envelope in said {
                bus.publish(outgoing(&envelope).unwrap()).await.unwrap();
            }
        })
    };
    let machine = Machine::new(folder.path().join("one"), &server.url(), 1_000_000_000_000);
    // The second one cannot run the job: left to itself it would say inconclusive.
    let second = Machine::new(folder.path().join("two"), &server.url(), 1000);
    let backup = folder.path().join("backup");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |most: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % most
    };
    for kill in 0..KILLS {
        match kill {
            100 | 300 => {
                let _ = std::fs::remove_dir_all(&backup);
                copy(&machine.folder.join("store"), &backup);
            }
            200 | 400 => {
                std::fs::remove_dir_all(machine.folder.join("store")).unwrap();
                copy(&backup, &machine.folder.join("store"));
            }
            _ => {}
        }
        // Random moments are the point here, not a wait for something to happen.
        let while_running = Duration::from_micros(random(150_000));
        let arrives = (kill % 2 == 0).then(|| publish(kill / 2, Duration::from_micros(random(300_000))));
        if matches!(kill, 130 | 340) {
            // The second one alone, until it has voted: the first must not vote again.
            second.run_until("voted", Duration::ZERO);
        } else if matches!(kill, 120..150 | 320..350) {
            std::thread::scope(|scope| {
                scope.spawn(|| second.run_for(while_running));
                machine.run_for(Duration::from_micros(while_running.as_micros() as u64 / 2));
            });
        } else if kill == 250 {
            // A second engine over the same history does not start.
            let mut first = machine.command().spawn().unwrap();
            wait_for(&mut first, "page and API are served");
            let twin = Machine {
                folder: folder.path().join("three"),
                ..Machine::new(folder.path().join("three"), &server.url(), 1)
            };
            let history = machine.folder.join("store.history.jsonl");
            let output = twin.command().env("TRIBUNAL_MEDIATOR__HISTORY", history).output().unwrap();
            assert_eq!(output.status.code(), Some(69));
            assert!(String::from_utf8_lossy(&output.stderr).contains("in use by another process"));
            first.kill().unwrap();
            first.wait().unwrap();
        } else {
            machine.run_for(while_running);
        }
        if let Some(arrives) = arrives {
            arrives.await.unwrap();
        }
    }

    let mut child = machine.command().spawn().unwrap();
    wait_for(&mut child, "page and API are served");
    let give_up = Instant::now() + Duration::from_secs(180);
    let ids: Vec<_> = scripts.iter().map(|script| script.terms().deal_id()).collect();
    let open =
        |store: &Store| ids.iter().filter(|id| !matches!(load(store, id), Ok(Some(deal)) if deal.is_settled())).count();
    loop {
        if let Ok(store) = Store::open_read_only(machine.folder.join("store"))
            && open(&store) == 0
        {
            break;
        }
        assert!(Instant::now() < give_up, "not all cases were settled");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();

    // All that was ever said on the bus, whoever took it.
    let mut consumer = bus.consume(None).await.unwrap();
    let last = bus.last().await.unwrap();
    let mut said = Said::default();
    let mut sequence = 0;
    while sequence < last {
        for message in consumer.next_batch(BatchLimits::default()).await.unwrap() {
            said.hear(&message.payload);
            sequence = message.stream_sequence;
        }
    }
    said.check();
    assert_eq!(said.verdicts.len(), CASES, "a verdict in every case");

    let store = Store::open(machine.folder.join("store"), Fsync::Always).unwrap();
    let mut by_second = 0;
    for (number, id) in ids.iter().enumerate() {
        let deal = load(&store, id).unwrap().unwrap();
        let truth = if is_cheat(number) { Outcome::Invalid } else { Outcome::Valid };
        let (verdict, _, _) = *said.verdicts[&(*id, 0)].first().unwrap();
        match deal.outcome() {
            Some(outcome) if outcome == truth => {}
            // The other machine held the slot; its fault is nobody's guilt.
            Some(Outcome::Inconclusive) if verdict == VerdictKind::Inconclusive => by_second += 1,
            other => panic!("case {number} ended as {other:?}, the truth is {truth:?}"),
        }
    }
    assert!(by_second > 0, "the second machine was to take some");
    assert!(by_second < CASES / 4, "{by_second} cases were judged by a machine that could not");
    store.check(|_| {}).unwrap();
}
