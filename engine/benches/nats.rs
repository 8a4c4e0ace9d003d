//! `cargo bench --bench nats`: what the bus costs, beside the bare server doing the same, in the same run.
//!
//! Absolute figures wander on shared machines; the ratios are what to compare.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures::{StreamExt as _, future::join_all};
use tokio_util::sync::CancellationToken;
use tribunal_engine::{
    bus::{Bus, DEALS, NatsBus, NatsConfig, NatsServer},
    effects::outgoing,
    engine::{Engine, Fencing, Parts, now},
    http::HttpState,
    partition::Settings,
    service::serve,
    store::{Fsync, Store},
    submit::{Operators, Patience, send},
    work::WorkQueue,
    worker::Worker,
};
use tribunal_events::{ContentAddress, Domain, Envelope, Party, proto};
use tribunal_fixtures::{Script, TermsBuilder, keys};
use tribunal_verifiers::{FolderSource, MemorySource, OperatorLimits, Request, Service};

const DEALS_SENT: usize = 2_000;
const RUNS: usize = 5;
/// Requests of one client side by side.
const CLIENTS: usize = 64;
const REQUESTS: usize = 4_000;
const JOBS: usize = 60;

fn main() {
    // `cargo test --all-targets` runs benches too; a report there is only noise.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    runtime.block_on(async {
        println!("Beside the same nats-server, medians of {RUNS} runs.\n");
        ingestion().await;
        requests().await;
        workers().await;
        recovery().await;
    });
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn rate(count: usize, spent: Duration) -> f64 {
    count as f64 / spent.as_secs_f64()
}

/// Four signed events a deal, in the order in which many parties at once would send them.
fn envelopes() -> Vec<Envelope> {
    let deal = |number: usize| {
        let terms = TermsBuilder::new(&format!("nats bench {number}")).without_contract().agree_by_s(4_000_000_000);
        let script = Script::new(terms.build());
        let stdout = ContentAddress::of(b"").to_string();
        let claim = proto::Claim { stdout, instruction_count: 1, ..proto::Claim::default() };
        let (proposed, agreed) = (script.proposed(Party::Client), script.agreed(Party::Provider));
        [proposed, agreed, script.result_submitted(claim), script.accepted()]
    };
    let deals: Vec<_> = (0..DEALS_SENT).map(deal).collect();
    (0..4).flat_map(|step| deals.iter().map(move |deal| deal[step].clone())).collect()
}

async fn connect(server: &NatsServer) -> NatsBus {
    NatsBus::connect(NatsConfig::new(server.url())).await.expect("connects")
}

async fn start(bus: &NatsBus, store: &Path, service: Service, fencing: Fencing) -> Engine {
    Engine::start(Parts {
        store: Store::open(store, Fsync::Always).expect("opens"),
        bus: Arc::new(bus.clone()),
        chain: None,
        verifier: Arc::new(service),
        artifacts: Arc::new(MemorySource::new()),
        settings: Settings {
            operator: keys::key("operator"),
            domains: vec![Domain::default()],
            recorded_time: false,
            preflight: None,
        },
        mediators: Vec::new(),
        history: None,
        workers: 1,
        fuel_per_s: 300_000_000,
        fencing,
    })
    .await
    .expect("starts")
}

/// Everything on the bus until everything is recorded and every receipt is out, beside a pull consumer that acknowledges
/// each message and does nothing else, and beside recovering the signatures alone.
async fn ingestion() {
    let envelopes = envelopes();
    let folder = tempfile::tempdir().expect("a folder");
    let server = NatsServer::start(folder.path().join("nats")).expect("nats-server");
    let bus = connect(&server).await;
    let publishing: Vec<_> = envelopes.iter().map(|envelope| outgoing(envelope).expect("well formed")).collect();
    let mut sent = futures::stream::iter(publishing.into_iter().map(|out| bus.publish(out))).buffered(256);
    while let Some(sent) = sent.next().await {
        sent.expect("publishes");
    }
    drop(sent);
    let (mut bare, mut ours, mut fenced, mut signatures) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        bare.push(pull_and_acknowledge(&bus, envelopes.len()).await);
        for (figures, fencing) in
            [(&mut ours, Fencing::Off), (&mut fenced, Fencing::On { holder: format!("bench {run}"), take_over: true })]
        {
            let store = tempfile::tempdir().expect("a folder");
            let begun = Instant::now();
            let engine = start(&bus, store.path(), Service::new(OperatorLimits::default(), Vec::new()), fencing).await;
            engine.idle().await.expect("idles");
            figures.push(rate(envelopes.len(), begun.elapsed()));
            assert_eq!(engine.store().last_position() as usize, envelopes.len() + DEALS_SENT);
            engine.shutdown(Duration::from_secs(60)).await;
        }
        signatures.push(tokio::task::block_in_place(|| recovered(&envelopes)));
    }
    let (bare, ours, fenced, signatures) = (median(bare), median(ours), median(fenced), median(signatures));
    println!("ingestion, through signatures and a synced store, {} events:", envelopes.len());
    println!("  bare pull consumer, explicit ack   {bare:>9.0} a second");
    println!("  signature recovery, all cores      {signatures:>9.0} a second");
    println!("  engine                             {ours:>9.0} a second");
    println!("  engine, fenced                     {fenced:>9.0} a second");
    println!("  engine / smaller of the two        {:>9.2}", ours / bare.min(signatures));
    println!("  fenced / not fenced                {:>9.2}\n", fenced / ours);
}

async fn pull_and_acknowledge(bus: &NatsBus, count: usize) -> f64 {
    let stream = bus.jetstream().get_stream(DEALS).await.expect("there");
    let config = pull::Config { ack_policy: AckPolicy::Explicit, max_ack_pending: 10_000, ..Default::default() };
    let consumer = stream.create_consumer(config).await.expect("made");
    let begun = Instant::now();
    let mut messages = consumer.messages().await.expect("pulls");
    for _ in 0..count {
        messages.next().await.expect("a message").expect("a message").ack().await.expect("acknowledged");
    }
    rate(count, begun.elapsed())
}

fn recovered(envelopes: &[Envelope]) -> f64 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let parsed: Vec<_> = envelopes.iter().map(|it| it.clone().parse().expect("well formed")).collect();
    let share = parsed.len().div_ceil(cores);
    let begun = Instant::now();
    thread::scope(|scope| {
        for part in parsed.chunks(share) {
            scope.spawn(move || {
                for event in part.iter().cloned() {
                    std::hint::black_box(event.authenticate(&Domain::default()).expect("signed"));
                }
            });
        }
    });
    rate(envelopes.len(), begun.elapsed())
}

/// Verification requests that need no work, beside a service that sends back what it is asked.
async fn requests() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = NatsServer::start(folder.path().join("nats")).expect("nats-server");
    let bus = connect(&server).await;
    let engine =
        start(&bus, &folder.path().join("store"), Service::new(OperatorLimits::default(), Vec::new()), Fencing::Off)
            .await;
    let service = Arc::new(Service::new(OperatorLimits::default(), Vec::new()));
    let state = HttpState::new(&engine, service, Arc::new(MemorySource::new()), keys::key("operator"), None);
    let cancel = CancellationToken::new();
    let serving = tokio::spawn(serve(bus.client().clone(), state.clone(), None, cancel.clone()));
    let echo = async_nats::connect(server.url()).await.expect("connects");
    let mut asked = echo.subscribe("echo").await.expect("subscribes");
    let echoing = tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            if let Some(reply) = message.reply {
                let _ = echo.publish(reply, message.payload).await;
            }
        }
    });
    let client = async_nats::connect(server.url()).await.expect("connects");
    while client.request("tribunal.verify", "{}".into()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nobody voted: read, looked at, answered `no-quorum`, signed.
    let request =
        r#"{"method":{"kind":"majority","votes":[],"rule":{"kind":"quorum","quorum":1}},"claim":{"exit_code":0}}"#;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        bare.push(ask(&client, "echo", request).await);
        ours.push(ask(&client, "tribunal.verify", request).await);
    }
    let (bare, ours) = (median(bare), median(ours));
    println!("verification requests of no work, {CLIENTS} at a time, each answer signed:");
    println!("  bare echo                          {bare:>9.0} a second");
    println!("  tribunal.verify                    {ours:>9.0} a second");
    println!("  ours / echo                        {:>9.2}\n", ours / bare);
    cancel.cancel();
    serving.await.expect("ends").expect("serves");
    echoing.abort();
    drop(state);
    engine.shutdown(Duration::from_secs(60)).await;
}

async fn ask(client: &async_nats::Client, subject: &'static str, payload: &'static str) -> f64 {
    let left = Arc::new(AtomicU64::new(REQUESTS as u64));
    let begun = Instant::now();
    let clients = (0..CLIENTS).map(|_| {
        let (client, left) = (client.clone(), Arc::clone(&left));
        tokio::spawn(async move {
            while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                let answer = client.request(subject, payload.into()).await.expect("an answer");
                assert!(!answer.payload.is_empty());
            }
        })
    });
    join_all(clients).await.into_iter().for_each(|client| client.expect("ends"));
    rate(REQUESTS, begun.elapsed())
}

/// The same jobs by one worker and by two, each with one place.
async fn workers() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = NatsServer::start(folder.path().join("nats")).expect("nats-server");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let source = Arc::new(FolderSource::open(&fixtures).expect("fixtures"));
    let text = std::fs::read_to_string(fixtures.join("requests/heat-valid.json")).expect("a request");
    let request = Request::parse(&text).expect("well formed");
    let service = |source| Service::new(OperatorLimits::default(), vec![source]);
    let pinned = service(source.clone()).pinned(&request, source.as_ref()).expect("there");
    let mut figures = Vec::new();
    let mut number = 0;
    for count in [1, 2] {
        let cancel = CancellationToken::new();
        let mut working = Vec::new();
        for _ in 0..count {
            let worker = Worker::new(connect(&server).await, Arc::new(service(source.clone())), keys::key("m2"), 1);
            working.push(tokio::spawn(worker.run(cancel.clone())));
        }
        let queue = WorkQueue::new(connect(&server).await, [keys::address("m2")]);
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            // Another environment makes another request, so that no result is found again.
            let requests: Vec<_> = (0..JOBS)
                .map(|_| {
                    let mut request = pinned.clone();
                    let job = request.job.as_mut().expect("a job");
                    job.env.push(("NUMBER".into(), number.to_string()));
                    number += 1;
                    request
                })
                .collect();
            let begun = Instant::now();
            let answers = join_all(requests.iter().map(|it| queue.verify(it, Duration::from_secs(120)))).await;
            answers.into_iter().for_each(|answer| assert_eq!(answer.expect("an answer").0["verdict"], "valid"));
            rates.push(rate(JOBS, begun.elapsed()));
        }
        figures.push(median(rates));
        cancel.cancel();
        for worker in working {
            worker.await.expect("ends").expect("works");
        }
    }
    println!("work queue, jobs of 20 ms, a place a worker:");
    println!("  one worker                         {:>9.1} a second", figures[0]);
    println!("  two workers                        {:>9.1} a second", figures[1]);
    println!("  two / one                          {:>9.2}\n", figures[1] / figures[0]);
}

/// The broker is killed and started again at once, while a party waits for its receipt.
async fn recovery() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = NatsServer::start(folder.path().join("nats")).expect("nats-server");
    let bus = connect(&server).await;
    let holder = Fencing::On { holder: "bench".into(), take_over: false };
    let service = Service::new(OperatorLimits::default(), Vec::new());
    let engine = start(&bus, &folder.path().join("store"), service, holder).await;
    let (mut answers, mut receipts) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let terms = TermsBuilder::new(&format!("recovery {run}")).without_contract().agree_by_s(now().s() + 3600);
        let event = Script::new(terms.build()).proposed(Party::Client);
        tokio::task::block_in_place(|| server.kill());
        let begun = Instant::now();
        tokio::task::block_in_place(|| server.restart()).expect("starts");
        answers.push(begun.elapsed().as_secs_f64());
        let patience = Patience { resend_after: Duration::from_millis(200), total: Duration::from_secs(60) };
        while send(&bus, &event, &Operators::default(), patience).await.is_err() {}
        receipts.push(begun.elapsed().as_secs_f64());
    }
    println!("a broker killed and started again:");
    println!("  until it answers                   {:>9.2} s", median(answers));
    println!("  until a party holds its receipt    {:>9.2} s", median(receipts));
    engine.shutdown(Duration::from_secs(60)).await;
}
