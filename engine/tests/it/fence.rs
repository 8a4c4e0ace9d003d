//! Only one history of a stream's events leaves an operator's machines.

use std::{path::Path, sync::Arc, time::Duration};

use tribunal_engine::{
    bus::{Bus, FENCES, NatsBus, NatsConfig, NatsServer, RECEIPTS},
    engine::{Engine, EngineFault, Fencing, Parts, now},
    fence::FenceFault,
    log::{LogFault, LogSigner},
    partition::Settings,
    store::{Fsync, Store},
    submit::{Operators, Patience, SendFault, send},
};
use tribunal_events::{Domain, Envelope, Party, tlog::LogKey};
use tribunal_fixtures::{Script, TermsBuilder, keys};
use tribunal_verifiers::{OperatorLimits, Service};

use crate::http::accepted;

const PATIENCE: Patience = Patience { resend_after: Duration::from_secs(2), total: Duration::from_secs(30) };

async fn start(bus: &NatsBus, store: &Path, holder: &str, take_over: bool) -> Result<Engine, EngineFault> {
    let artifacts = Arc::new(tribunal_verifiers::MemorySource::new());
    Engine::start(Parts {
        store: Store::open(store, Fsync::Never).unwrap(),
        bus: Arc::new(bus.clone()),
        chain: None,
        verifier: Arc::new(Service::new(OperatorLimits::default(), Vec::new())),
        artifacts,
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
        fencing: Fencing::On { holder: holder.into(), take_over },
    })
    .await
}

fn script(name: &str) -> Script {
    Script::new(TermsBuilder::new(name).without_contract().agree_by_s(now().s() + 3600).build())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

async fn say(bus: &NatsBus, envelope: &Envelope) -> u64 {
    let answer = send(bus, envelope, &Operators::default(), PATIENCE).await.unwrap();
    assert!(answer.is_recorded(), "{answer:?}");
    answer.receipt.log_position
}

/// How many receipts were given for an event.
async fn receipts(bus: &NatsBus, envelope: &Envelope) -> u64 {
    let stream = bus.jetstream().get_stream(RECEIPTS).await.unwrap();
    let subject = format!("receipts.{}.{}", envelope.deal_id_hint().unwrap(), envelope.event_id());
    let mut info = stream.info_with_subjects(subject).await.unwrap();
    use futures::TryStreamExt as _;
    let mut count = 0;
    while let Some((_, messages)) = info.try_next().await.unwrap() {
        count += messages as u64;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lacks_what_was_released_does_not_start_and_the_one_taken_over_stops_releasing() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path().join("nats")).unwrap();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let script = script("fence");
    let events = accepted(&script);

    let first = start(&bus, &old, "first", false).await.unwrap();
    assert_eq!((say(&bus, &events[0]).await, say(&bus, &events[1]).await), (1, 2));
    first.shutdown(Duration::from_secs(20)).await;
    copy(&old, &new);

    // A copy that is as new goes on where the other one ended, with the same receipts.
    let second = start(&bus, &new, "second", false).await.unwrap();
    assert_eq!(say(&bus, &events[0]).await, 1);
    assert_eq!(say(&bus, &events[2]).await, 3);

    // The old one is older now.
    match start(&bus, &old, "third", false).await.err().unwrap() {
        EngineFault::Fence(FenceFault::Behind { released, found, holder, .. }) => {
            assert_eq!((released, found, holder.as_str()), (3, 2, "second"));
        }
        other => panic!("{other}"),
    }
    assert_eq!(say(&bus, &events[0]).await, 1, "the one that has the right is not disturbed");

    // Told to, it takes over all the same: what it records is released, and nothing of the other one any more.
    let third = start(&bus, &old, "third", true).await.unwrap();
    assert_eq!(say(&bus, &events[3]).await, 4);
    let reason = tokio::time::timeout(Duration::from_secs(30), second.failed()).await.expect("it stops");
    assert!(reason.contains("third writes stream DEALS now"), "{reason}");
    let admitted = receipts(&bus, &events[3]).await;
    assert_eq!(admitted, 1, "one receipt, though two engines recorded the event");
    // What was recorded and may not be seen is not signed for either.
    let key = LogKey::new("example.org/fence", &[3; 32]).unwrap();
    let signer = LogSigner::open(second.store(), key, &keys::key("operator"), LogSigner::default_path(&new)).unwrap();
    let released = || second.activity().released.load(std::sync::atomic::Ordering::SeqCst);
    assert!(second.store().last_position() > released());
    assert!(matches!(signer.checkpoint_released(second.store(), &released), Err(LogFault::Unreleased)));
    second.shutdown(Duration::from_secs(20)).await;
    third.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_history_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let one = NatsServer::start(folder.path().join("one")).unwrap();
    let other = NatsServer::start(folder.path().join("other")).unwrap();
    let bus = NatsBus::connect(NatsConfig::new(one.url())).await.unwrap();
    let elsewhere = NatsBus::connect(NatsConfig::new(other.url())).await.unwrap();
    for (bus, store, deal) in [(&bus, "a", "fork a"), (&elsewhere, "b", "fork b")] {
        let engine = start(bus, &folder.path().join(store), store, false).await.unwrap();
        say(bus, &script(deal).proposed(Party::Client)).await;
        engine.shutdown(Duration::from_secs(20)).await;
    }
    match start(&bus, &folder.path().join("b"), "b", false).await.err().unwrap() {
        EngineFault::Fence(FenceFault::Forked { released, holder, .. }) => {
            assert_eq!((released, holder.as_str()), (1, "a"));
        }
        fault => panic!("{fault}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_forgot_the_fence_stops_nobody_and_rubbish_on_it_is_no_head() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path().join("nats")).unwrap();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    let engine = start(&bus, &folder.path().join("store"), "first", false).await.unwrap();
    let events = accepted(&script("forgotten"));
    assert_eq!(say(&bus, &events[0]).await, 1);
    assert!(bus.jetstream().delete_stream(FENCES).await.unwrap().success);
    assert_eq!(say(&bus, &events[1]).await, 2);
    // Whoever may write there can stop the engine for a moment and make it say nothing else.
    let subject = format!("fences.{:#x}.DEALS", keys::address("operator"));
    let last = bus.find(FENCES, &subject).await.unwrap().unwrap().stream_sequence;
    bus.publish_after(FENCES, &subject, last, "rubbish".into()).await.unwrap().unwrap();
    assert_eq!(say(&bus, &events[2]).await, 3);
    engine.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_released_while_the_bus_cannot_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = NatsServer::start(folder.path().join("nats")).unwrap();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    let engine = start(&bus, &folder.path().join("store"), "first", false).await.unwrap();
    let event = script("away").proposed(Party::Client);
    tokio::task::block_in_place(|| server.stop());
    let patience = Patience { resend_after: Duration::from_millis(100), total: Duration::from_secs(1) };
    let fault = send(&bus, &event, &Operators::default(), patience).await.err().unwrap();
    assert!(matches!(fault, SendFault::NoReceipt(_) | SendFault::Bus(_)), "{fault}");
    assert!(!engine.is_ready());
    tokio::task::block_in_place(|| server.restart()).unwrap();
    assert_eq!(say(&bus, &event).await, 1);
    engine.shutdown(Duration::from_secs(20)).await;
}
