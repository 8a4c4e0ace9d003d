//! Three nats-servers and two engines that share the deals, killed in turn under load.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tribunal_core::Deal;
use tribunal_engine::{
    bus::{BusPartition, NatsBus, NatsConfig, NatsServer, NatsServerOptions, RECEIPTS},
    replay::load,
    store::{Fsync, Store},
    submit::{Operators, Patience, SendFault, send},
};
use tribunal_events::{Envelope, EventId, EventKind, Outcome, Party, Receipt, proto};
use tribunal_fixtures::{Script, TermsBuilder, jobs, keys::key};

use crate::bus::newest_server;

const PARTITIONS: u32 = 2;
const DEALS: usize = 24;
/// Long enough for the cluster to elect leaders again, however slow the machine.
const PATIENCE: Patience = Patience { resend_after: Duration::from_secs(2), total: Duration::from_secs(180) };

/// One engine of a partition, started again whenever it ends.
struct Engine {
    child: Child,
    folder: PathBuf,
    index: u32,
    urls: String,
}

impl Engine {
    fn start(folder: &Path, index: u32, urls: &str) -> Self {
        let mut engine =
            Self { child: Command::new("true").spawn().unwrap(), folder: folder.into(), index, urls: urls.into() };
        engine.again();
        engine
    }

    fn again(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let store = self.folder.join(format!("store-{}", self.index));
        let mut child = Command::new(env!("CARGO_BIN_EXE_tribunal"))
            .args(["serve", "--bus-url", &self.urls, "--listen", "127.0.0.1:0", "--store"])
            .arg(store)
            .env("TRIBUNAL_BUS__PARTITION", format!("{}/{PARTITIONS}", self.index))
            .env("TRIBUNAL_BUS__REPLICAS", "3")
            .env("TRIBUNAL_OPERATOR__KEYSTORE", self.folder.join("operator.json"))
            .env("TRIBUNAL_MEDIATOR__KEYSTORE", self.folder.join("mediator.json"))
            .env("TRIBUNAL_VERIFIERS__ARTIFACTS", format!("[{:?}]", tribunal_fixtures::folder().join("jobs")))
            .env("RUST_LOG", "warn")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Kept from filling its pipe; shown where the test fails.
        let (stderr, index) = (child.stderr.take().unwrap(), self.index);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("ERROR") {
                    eprintln!("engine {index}: {line}");
                }
            }
        });
        self.child = child;
    }

    /// Starts it again where it gave up: the bus was away for too long.
    fn revive(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            self.again();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn plain_key(folder: &Path, name: &str, of: &str) {
    let key = key(of);
    let json = serde_json::json!({
        "insecure_dev_key": format!("0x{}", hex::encode(key.secret().as_slice())),
        "address": key.address(),
    });
    std::fs::write(folder.join(name), json.to_string()).unwrap();
}

/// Three servers that are one cluster and put deals where they belong.
fn cluster(folder: &Path) -> Vec<NatsServer> {
    let ports: Vec<u16> = {
        let held: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        held.iter().map(|it| it.local_addr().unwrap().port()).collect()
    };
    let routes: Vec<_> = ports.iter().map(|port| format!("\"nats-route://127.0.0.1:{port}\"")).collect();
    let start = |number: usize| {
        let config = format!(
            "server_name: n{number}\ncluster {{ name: test, listen: \"127.0.0.1:{}\", routes: [{}] }}\n\
             mappings: {{ \"deals.*.*\": \"deals.{{{{partition({PARTITIONS},1)}}}}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}\" }}",
            ports[number],
            routes.join(", "),
        );
        let options = NatsServerOptions { program: newest_server(), config, ..NatsServerOptions::default() };
        NatsServer::start_with(folder.join(format!("nats-{number}")), options).unwrap_or_else(|it| panic!("{it}"))
    };
    (0..3).map(start).collect()
}

async fn until_there<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let give_up = Instant::now() + Duration::from_secs(180);
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < give_up, "{what} in time");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Half of the deals are accepted, the others disputed: an honest result or a wrong one.
fn events(number: usize) -> (Script, Vec<Envelope>, Outcome) {
    let terms = TermsBuilder::new(&format!("cluster {number}")).without_contract().agree_by_s(4_000_000_000);
    let script = Script::new(terms.build());
    let job = jobs::load("wordcount").unwrap();
    let path = job.expected[0].0.clone();
    let honest = job.claim(1000);
    let cheat: proto::Claim = jobs::load("wordcount").unwrap().with_result(&path, b"{}".to_vec()).claim(1000);
    let mut events = vec![script.proposed(Party::Client), script.agreed(Party::Provider)];
    let outcome = match number % 4 {
        0 | 1 => {
            events.extend([script.result_submitted(honest), script.accepted()]);
            Outcome::Accepted
        }
        2 => {
            events.extend([script.result_submitted(honest), script.disputed("show me")]);
            Outcome::Valid
        }
        _ => {
            events.extend([script.result_submitted(cheat), script.disputed("show me")]);
            Outcome::Invalid
        }
    };
    (script, events, outcome)
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_and_engines_killed_in_turn_lose_nothing_double_nothing_and_sign_no_verdict_twice() {
    let folder = tempfile::tempdir().unwrap();
    for (name, of) in [("operator.json", "operator"), ("mediator.json", "m1")] {
        plain_key(folder.path(), name, of);
    }
    let mut servers = tokio::task::block_in_place(|| cluster(folder.path()));
    let urls = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
    let config = NatsConfig { replicas: 3, partition: BusPartition::new(0, PARTITIONS), ..NatsConfig::new(&urls) };
    // The cluster is there once its streams can be made.
    let bus = until_there("the cluster is up", || {
        let config = config.clone();
        async move { NatsBus::connect(config).await.ok() }
    })
    .await;
    let mut engines: Vec<_> = (0..PARTITIONS).map(|index| Engine::start(folder.path(), index, &urls)).collect();

    // Parties that know nothing of partitions, each with one deal, all at once.
    let sent = Arc::new(AtomicBool::new(false));
    let party = NatsBus::connect(NatsConfig { sender_only: true, ..NatsConfig::new(&urls) }).await.unwrap();
    let scripts: Vec<_> = (0..DEALS).map(events).collect();
    let sending: Vec<_> = scripts
        .iter()
        .map(|(_, events, _)| {
            let (party, events) = (party.clone(), events.clone());
            tokio::spawn(async move {
                let mut receipts = Vec::new();
                for event in events {
                    receipts.push(patiently(&party, &event).await);
                }
                receipts
            })
        })
        .collect();
    let all = {
        let sent = Arc::clone(&sent);
        tokio::spawn(async move {
            let receipts = futures::future::join_all(sending).await;
            sent.store(true, Ordering::SeqCst);
            receipts
        })
    };

    // One server at a time is away, so that there is always a majority; engines die as they stand.
    for turn in 0..8 {
        engines[turn % PARTITIONS as usize].again();
        let server = &mut servers[turn % 3];
        tokio::task::block_in_place(|| server.kill());
        // Long enough that the others notice: the point is to be without it for a while.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        tokio::task::block_in_place(|| server.restart()).unwrap();
        engines.iter_mut().for_each(Engine::revive);
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    let give_up = Instant::now() + Duration::from_secs(180);
    while !sent.load(Ordering::SeqCst) {
        assert!(Instant::now() < give_up, "all parties hold their receipts");
        engines.iter_mut().for_each(Engine::revive);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let receipts: Vec<Vec<Receipt>> = all.await.unwrap().into_iter().map(Result::unwrap).collect();

    // Every dispute is over.
    let stores: Vec<_> = (0..PARTITIONS).map(|index| folder.path().join(format!("store-{index}"))).collect();
    let place = BusPartition::new(0, PARTITIONS).unwrap();
    let open = |index: usize| Store::open_read_only(&stores[index]).ok();
    let deal = |script: &Script| -> Option<Deal> {
        let id = script.terms().deal_id();
        load(&open(place.of(&id) as usize)?, &id).ok()?.filter(Deal::is_settled)
    };
    let give_up = Instant::now() + Duration::from_secs(180);
    while !scripts.iter().all(|(script, ..)| deal(script).is_some()) {
        let left = scripts.iter().filter(|(script, ..)| deal(script).is_none()).count();
        assert!(Instant::now() < give_up, "{left} deals are not settled");
        engines.iter_mut().for_each(Engine::revive);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for (script, _, outcome) in &scripts {
        assert_eq!(deal(script).unwrap().outcome(), Some(*outcome));
    }
    // A second engine on a partition, with a store of its own, has no right to write there.
    let stranger = Command::new(env!("CARGO_BIN_EXE_tribunal"))
        .args(["serve", "--bus-url", &urls, "--listen", "127.0.0.1:0", "--store"])
        .arg(folder.path().join("stranger"))
        .env("TRIBUNAL_BUS__PARTITION", format!("0/{PARTITIONS}"))
        .env("TRIBUNAL_BUS__REPLICAS", "3")
        .env("TRIBUNAL_OPERATOR__KEYSTORE", folder.path().join("operator.json"))
        .output();
    let stranger = tokio::task::block_in_place(|| stranger).unwrap();
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert_eq!(stranger.status.code(), Some(69), "{said}");
    assert!(said.contains("this store holds 0"), "{said}");
    drop(engines);

    // Every event exactly once, in the order of its deal, where its receipt says.
    let mut admitted: BTreeMap<EventId, (u64, u64)> = BTreeMap::new();
    let mut verdicts: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (index, path) in stores.iter().enumerate() {
        let store = Store::open(path, Fsync::Always).unwrap();
        store.check(|_| {}).unwrap();
        for (expected, record) in (1..).zip(store.log(1)) {
            let record = record.unwrap();
            assert_eq!(record.position, expected, "positions are gapless");
            let before = admitted.insert(record.event_id, (record.version, record.position));
            assert!(before.is_none(), "event {} is recorded once", record.event_id);
            let id = record.envelope.deal_id_hint().unwrap();
            assert_eq!(place.of(&id) as usize, index, "each deal where it belongs");
            if let EventKind::VerdictGiven { vote } = record.envelope.parse().unwrap().into_kind() {
                verdicts.entry(id).or_default().insert((vote.verdict, vote.digest));
            }
        }
    }
    for ((script, events, outcome), receipts) in scripts.iter().zip(&receipts) {
        let mut last = 0;
        for (event, receipt) in events.iter().zip(receipts) {
            let place = admitted.get(&event.event_id()).copied();
            assert_eq!(place, Some((receipt.stream_version, receipt.log_position)), "as its receipt says");
            assert!(receipt.stream_version > last, "in order");
            last = receipt.stream_version;
        }
        let said = verdicts.get(&script.terms().deal_id()).map_or(0, BTreeSet::len);
        assert_eq!(said, usize::from(*outcome != Outcome::Accepted), "one verdict a dispute");
    }
    // Whatever was published, by whichever run of whichever engine: one place for each event, one verdict for each dispute.
    let last = bus.jetstream().get_stream(RECEIPTS).await.unwrap();
    assert_eq!(last.cached_info().config.num_replicas, 3);
    let mut published = BTreeMap::<EventId, BTreeSet<(u64, u64)>>::new();
    for sequence in 1..=last.cached_info().state.last_sequence {
        let Ok(message) = last.get_raw_message(sequence).await else { continue };
        let message = <proto::Receipt as prost::Message>::decode(&message.payload[..]).unwrap();
        let (receipt, _) = Receipt::open(&message).unwrap();
        if receipt.log_position > 0 {
            published.entry(receipt.event_id).or_default().insert((receipt.stream_version, receipt.log_position));
        }
    }
    assert!(published.values().all(|places| places.len() == 1), "no event was promised two places");
    for index in 0..PARTITIONS {
        let stream = bus.jetstream().get_stream(format!("DEALS_{index}")).await.unwrap();
        let mut spoken = BTreeMap::<_, BTreeSet<_>>::new();
        for sequence in 1..=stream.cached_info().state.last_sequence {
            let Ok(message) = stream.get_raw_message(sequence).await else { continue };
            let Ok(parsed) = Envelope::decode(&message.payload).and_then(Envelope::parse) else { continue };
            let id = parsed.deal_id();
            if let EventKind::VerdictGiven { vote } = parsed.into_kind() {
                spoken.entry(id).or_default().insert((vote.verdict, vote.digest));
            }
        }
        assert!(spoken.values().all(|said| said.len() == 1), "no mediator said two things");
    }
}

/// Sends an event until its receipt is there, as a party would: again after every fault.
async fn patiently(bus: &NatsBus, event: &Envelope) -> Receipt {
    let give_up = Instant::now() + Duration::from_secs(300);
    loop {
        match send(bus, event, &Operators::default(), PATIENCE).await {
            Ok(answer) if answer.is_recorded() => return answer.receipt,
            Ok(answer) => panic!("refused: {}", answer.receipt.reason),
            Err(SendFault::Malformed(problem)) => panic!("{problem}"),
            Err(fault) => {
                assert!(Instant::now() < give_up, "{fault}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}
