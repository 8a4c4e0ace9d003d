//! What strangers and broken clocks put on the bus: nothing is lost, nobody starves, every refusal has its reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::{message::PublishMessage, stream::Stream},
};
use futures::{
    StreamExt as _,
    future::{BoxFuture, join_all},
    stream::BoxStream,
};
use prost::bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tribunal_engine::{
    bus::{
        BatchLimits, Bus, BusFault, BusPartition, ConsumeStart, Consumer, Cursor, Message, NatsBus, NatsConfig,
        NatsServer, NatsServerOptions, Notice, Outgoing, REFUSED,
    },
    effects::outgoing,
    external::{Callbacks, Externals},
    service::serve,
    submit::{Answer, Operators, Patience, send},
};
use tribunal_events::{Envelope, Party, Timestamp, json};

use crate::http::{World, accepted, script, wordcount_request};

const PATIENCE: Patience = Patience { resend_after: Duration::from_secs(5), total: Duration::from_secs(60) };

async fn nats(options: NatsServerOptions) -> (tempfile::TempDir, NatsServer, NatsBus) {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start_with(folder.path(), options).unwrap();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    (folder, server, bus)
}

async fn say(bus: &NatsBus, envelope: &Envelope) -> Answer {
    send(bus, envelope, &Operators::default(), PATIENCE).await.unwrap()
}

/// Publishes bytes on a subject whatever they are.
async fn put(bus: &NatsBus, subject: &str, bytes: Vec<u8>) {
    let message = PublishMessage::build().payload(bytes.into());
    bus.jetstream().send_publish(subject.to_owned(), message).await.unwrap().await.unwrap();
}

async fn refusals(bus: &NatsBus) -> u64 {
    let stream: Stream = bus.jetstream().get_stream(REFUSED).await.unwrap();
    stream.cached_info().state.messages
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_messages_on_foreign_subjects_are_refused_by_name_and_stop_nobody() {
    let (_folder, _server, bus) =
        nats(NatsServerOptions { payload_bytes_max: 8 << 20, ..NatsServerOptions::default() }).await;
    let world = World::over(Arc::new(bus.clone()), None).await;
    let (first, second) = (script("mine"), script("other"));
    let (one, two) = (first.proposed(Party::Client), second.proposed(Party::Client));
    put(&bus, "deals.garbage", b"\xff\xfe garbage".to_vec()).await;
    put(&bus, "deals.0x00.proposed", Vec::new()).await;
    put(&bus, "deals.clock.tick", b"no tick has a body, and it is one all the same".to_vec()).await;
    // As large as the broker lets through: read, refused by its size, and kept cut short.
    put(&bus, "deals.0x00.huge", vec![7; 7 << 20]).await;
    // A good event, on another deal's subject and on another kind's.
    let foreign = outgoing(&two).unwrap().subject;
    put(&bus, &foreign, one.encode()).await;
    let id = first.terms().deal_id();
    put(&bus, &format!("deals.{id}.agreed"), one.encode()).await;
    put(&bus, &format!("deals.{id}"), one.encode()).await;
    // In between and after it all the good ones are recorded.
    let answer = say(&bus, &one).await;
    assert!(answer.is_recorded() && answer.receipt.log_position == 1, "{answer:?}");
    assert!(say(&bus, &two).await.is_recorded());
    world.engine.idle().await.unwrap();
    let reasons: BTreeSet<_> =
        world.engine.store().refused(100).unwrap().into_iter().map(|it| it.reason_code).collect();
    assert!(reasons.contains("subject"), "{reasons:?}");
    assert_eq!(world.engine.store().refused_count().unwrap(), 6, "{reasons:?}");
    // What is too large to be handed on stays in the record alone.
    assert!((5..=6).contains(&refusals(&bus).await));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_stream_played_again_changes_nothing_and_gives_the_first_receipts() {
    let (_folder, _server, bus) = nats(NatsServerOptions::default()).await;
    let world = World::over(Arc::new(bus.clone()), None).await;
    let events = accepted(&script("again"));
    let mut places = Vec::new();
    for event in &events {
        places.push(say(&bus, event).await.receipt.log_position);
    }
    world.engine.idle().await.unwrap();
    let recorded = world.engine.store().last_position();
    // All of it again, backwards, under no message id at all.
    for event in events.iter().rev() {
        put(&bus, &outgoing(event).unwrap().subject, event.encode()).await;
    }
    world.engine.idle().await.unwrap();
    assert_eq!(world.engine.store().last_position(), recorded);
    for (event, place) in events.iter().zip(places) {
        let again = say(&bus, event).await;
        assert_eq!((again.word(), again.receipt.log_position), ("duplicate", place));
    }
    let again = world.engine.activity().duplicates.load(std::sync::atomic::Ordering::Relaxed);
    assert!(again >= 8, "{again} redeliveries are counted");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_at_once_all_get_their_receipts() {
    let (_folder, server, bus) = nats(NatsServerOptions::default()).await;
    let world = World::over(Arc::new(bus.clone()), None).await;
    // Connections of their own for a part of them; all wait for receipts at the same time.
    let mut connections = Vec::new();
    for _ in 0..20 {
        let config = NatsConfig { sender_only: true, ..NatsConfig::new(server.url()) };
        connections.push(NatsBus::connect(config).await.unwrap());
    }
    let sending = (0..1000).map(|number: usize| {
        let connection = connections[number % connections.len()].clone();
        tokio::spawn(async move {
            let envelope = script(&format!("client {number}")).proposed(Party::Client);
            // Every tenth shouts rubbish meanwhile.
            if number.is_multiple_of(10) {
                put(&connection, "deals.noise", vec![number as u8; 1000]).await;
            }
            say(&connection, &envelope).await
        })
    });
    let answers = join_all(sending).await;
    let places: BTreeSet<_> = answers
        .into_iter()
        .map(|answer| {
            let answer = answer.unwrap();
            assert!(answer.is_recorded(), "{answer:?}");
            answer.receipt.log_position
        })
        .collect();
    assert_eq!((places.len(), places.first(), places.last()), (1000, Some(&1), Some(&1000)));
    world.engine.idle().await.unwrap();
    assert_eq!(world.engine.store().refused_count().unwrap(), 100);
    world.close().await;
}

/// A bus whose clock is ahead.
struct Ahead(NatsBus, u64);

impl Bus for Ahead {
    fn publish(&self, out: Outgoing) -> BoxFuture<'_, Result<u64, BusFault>> {
        self.0.publish(out)
    }

    fn consume(&self, after: Option<Cursor>) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusFault>> {
        Box::pin(async move {
            let inner = self.0.consume(after).await?;
            let consumer: Box<dyn Consumer> = Box::new(AheadConsumer(inner, self.1));
            Ok(consumer)
        })
    }

    fn last(&self) -> BoxFuture<'_, Result<u64, BusFault>> {
        self.0.last()
    }

    fn find<'a>(&'a self, stream: &'a str, subject: &'a str) -> BoxFuture<'a, Result<Option<Message>, BusFault>> {
        self.0.find(stream, subject)
    }

    fn claim<'a>(
        &'a self,
        subject: &'a str,
        bytes: Bytes,
        valid: &'a (dyn Fn(&[u8]) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<Bytes, BusFault>> {
        self.0.claim(subject, bytes, valid)
    }

    fn publish_after<'a>(
        &'a self,
        stream: &'a str,
        subject: &'a str,
        after: u64,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<Option<u64>, BusFault>> {
        self.0.publish_after(stream, subject, after, bytes)
    }

    fn watch<'a>(&'a self, filter: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Notice>, BusFault>> {
        self.0.watch(filter)
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn stream(&self) -> &str {
        self.0.stream()
    }

    fn connected(&self) -> bool {
        self.0.connected()
    }
}

struct AheadConsumer(Box<dyn Consumer>, u64);

impl Consumer for AheadConsumer {
    fn next_batch(&mut self, limits: BatchLimits) -> BoxFuture<'_, Result<Vec<Message>, BusFault>> {
        Box::pin(async move {
            let mut batch = self.0.next_batch(limits).await?;
            for message in &mut batch {
                message.at = Timestamp::from_us(message.at.us() + self.1);
            }
            Ok(batch)
        })
    }

    fn start(&self) -> &ConsumeStart {
        self.0.start()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_whose_clock_is_hours_ahead_brings_on_no_deadline() {
    let (_folder, _server, bus) = nats(NatsServerOptions::default()).await;
    // Two hours: `agree_by` of this deal would be over, and with it whatever the client locked.
    let world = World::over(Arc::new(Ahead(bus.clone(), 7_200_000_000)), None).await;
    let event = script("clock").proposed(Party::Client);
    let patience = Patience { resend_after: Duration::from_millis(500), total: Duration::from_secs(2) };
    assert!(send(&bus, &event, &Operators::default(), patience).await.is_err(), "nothing is recorded");
    assert_eq!(world.engine.store().last_position(), 0);
    assert!(!world.engine.is_ready(), "and the operator is told");
    assert!(world.engine.activity().clocks_differ.load(std::sync::atomic::Ordering::Relaxed));
    world.close().await;
    // Seconds are what clocks differ by.
    let world = World::over(Arc::new(Ahead(bus.clone(), 20_000_000)), None).await;
    assert!(say(&bus, &event).await.is_recorded());
    world.close().await;
}

// ---- partitions

fn mapped(count: u32) -> NatsServerOptions {
    let to = format!("deals.{{{{partition({count},1)}}}}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}");
    NatsServerOptions { config: format!("mappings: {{ \"deals.*.*\": \"{to}\" }}"), ..NatsServerOptions::default() }
}

async fn partition(server: &NatsServer, index: u32) -> NatsBus {
    let partition = BusPartition::new(index, 2);
    NatsBus::connect(NatsConfig { partition, ..NatsConfig::new(server.url()) }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_share_the_deals_as_the_server_maps_them_and_pass_questions_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start_with(folder.path(), mapped(2)).unwrap();
    let buses = [partition(&server, 0).await, partition(&server, 1).await];
    let worlds =
        [World::over(Arc::new(buses[0].clone()), None).await, World::over(Arc::new(buses[1].clone()), None).await];
    // A party knows nothing of partitions.
    let party = NatsConfig { sender_only: true, ..NatsConfig::new(server.url()) };
    let party = NatsBus::connect(party).await.unwrap();
    let mut kept = [0, 0];
    let mut ids = Vec::new();
    for number in 0..20 {
        let script = script(&format!("shared {number}"));
        let index = BusPartition::new(0, 2).unwrap().of(&script.terms().deal_id()) as usize;
        for event in accepted(&script) {
            assert!(say(&party, &event).await.is_recorded());
        }
        kept[index] += 1;
        ids.push((script.terms().deal_id(), index));
    }
    assert!(kept[0] > 0 && kept[1] > 0, "{kept:?}");
    for (index, world) in worlds.iter().enumerate() {
        assert_eq!(world.engine.store().deals().count(), kept[index], "each deal where it belongs");
        assert_eq!(world.engine.store().refused_count().unwrap(), 0);
    }
    // Somebody puts a deal's event where it does not belong.
    let (stranger, wrong) = (script("misplaced"), script("misplaced").proposed(Party::Client));
    let right = BusPartition::new(0, 2).unwrap().of(&stranger.terms().deal_id());
    let subject = format!("deals.{}.{}.proposed", 1 - right, stranger.terms().deal_id());
    put(&party, &subject, wrong.encode()).await;
    let other = &worlds[(1 - right) as usize];
    other.engine.idle().await.unwrap();
    assert_eq!(other.engine.store().refused(1).unwrap()[0].reason_code, "subject");
    assert!(say(&party, &wrong).await.is_recorded(), "where it belongs it is recorded all the same");

    let cancel = CancellationToken::new();
    let services: Vec<_> = worlds
        .iter()
        .zip(&buses)
        .map(|(world, bus)| {
            tokio::spawn(serve(bus.client().clone(), world.state.clone(), bus.partition(), cancel.clone()))
        })
        .collect();
    // Both answer for all deals, whichever the server asks; asked directly each knows its own.
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut asked = 0;
    for (id, index) in &ids {
        loop {
            let answer = client.request("tribunal.deal", id.to_string().into()).await;
            if let Ok(answer) = answer {
                let json: Value = serde_json::from_slice(&answer.payload).unwrap();
                assert_eq!(json["deal_id"], id.to_string(), "{json:#}");
                break;
            }
            asked += 1;
            assert!(asked < 100, "the services are up in time");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let subject = format!("tribunal.partition.{}.deal", 1 - index);
        let answer = client.request(subject, id.to_string().into()).await.unwrap();
        assert_eq!(answer.headers.unwrap().get("Nats-Service-Error-Code").unwrap().as_str(), "404");
    }
    cancel.cancel();
    for service in services {
        service.await.unwrap().unwrap();
    }
    for world in worlds {
        world.close().await;
    }
}

// ---- the service

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_protobuf_get_the_same_verdict_and_deadlines_and_cancellations_are_kept() {
    let (_folder, _server, bus) = nats(NatsServerOptions::default()).await;
    let externals = Externals::new(BTreeMap::new(), Some(bus.client().clone()), Callbacks::at(None)).unwrap();
    let world = World::asking(Arc::new(bus.clone()), None, Some(Arc::new(externals))).await;
    let mut questions = bus.client().subscribe("verifiers.silent").await.unwrap();
    let cancel = CancellationToken::new();
    let client = bus.client().clone();
    let serving = tokio::spawn(serve(client.clone(), world.state.clone(), None, cancel.clone()));
    let ask = |headers: HeaderMap, payload: Vec<u8>| {
        let client = client.clone();
        async move {
            let asked = async_nats::Request::new().headers(headers).payload(payload.into());
            client.send_request("tribunal.verify", asked.timeout(Some(Duration::from_secs(60)))).await.unwrap()
        }
    };
    while client.request("tribunal.checkpoint", "".into()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let request = wordcount_request();
    let over_json = ask(HeaderMap::new(), request.to_string().into_bytes()).await;
    let over_json: Value = serde_json::from_slice(&over_json.payload).unwrap();
    let mut message = request.clone();
    message["claim"]["outputs"] = json!({ "files": request["claim"]["outputs"] });
    let bytes = json::to_bytes("VerificationRequest", &message).unwrap();
    let mut protobuf = HeaderMap::new();
    protobuf.insert("Content-Type", "application/x-protobuf");
    let answer = ask(protobuf.clone(), bytes).await;
    assert_eq!(answer.headers.as_ref().unwrap().get("Content-Type").unwrap().as_str(), "application/x-protobuf");
    let verdict = json::from_bytes("VerificationVerdict", &answer.payload).unwrap();
    for field in ["verdict", "digest", "request_digest", "signer", "signature"] {
        assert_eq!(verdict[field], over_json[field], "{field}: {verdict:#}");
    }
    assert_eq!(verdict["evidence"]["fuel_used"].as_f64(), over_json["evidence"]["fuel_used"].as_f64());
    let rubbish = ask(protobuf, vec![0xff; 40]).await;
    let error = |message: &async_nats::Message| {
        let headers = message.headers.clone().unwrap();
        let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default();
        (text("Nats-Service-Error-Code"), text("Nats-Service-Error"))
    };
    assert!(error(&rubbish).1.starts_with("bad-request: the request is no tribunal.v1"), "{:?}", error(&rubbish));

    // A verifier that listens and says nothing keeps a request waiting.
    let mut slow = request.clone();
    slow["method"] = json!({ "kind": "external", "verifier": "silent" });
    let mut short = HeaderMap::new();
    short.insert("Tribunal-Timeout-Ms", "300");
    let (code, text) = error(&ask(short, slow.to_string().into_bytes()).await);
    assert!(code == "504" && text.starts_with("deadline: "), "{code} {text}");
    slow["request_id"] = "slow".into();
    let asked = ask(HeaderMap::new(), slow.to_string().into_bytes());
    let waiting = tokio::spawn(asked);
    tokio::time::timeout(Duration::from_secs(30), questions.next()).await.expect("it is asked").unwrap();
    tokio::time::timeout(Duration::from_secs(30), questions.next()).await.expect("it is asked again").unwrap();
    let mut cancelled = HeaderMap::new();
    cancelled.insert("Tribunal-Cancel", "slow");
    assert_eq!(ask(cancelled, Vec::new()).await.payload, r#"{"request_id":"slow"}"#);
    let (code, text) = error(&waiting.await.unwrap());
    assert!(code == "409" && text.starts_with("cancelled"), "{code} {text}");
    let mut bad = HeaderMap::new();
    bad.insert("Tribunal-Timeout-Ms", "soon");
    assert!(error(&ask(bad, request.to_string().into_bytes()).await).1.contains("Tribunal-Timeout-Ms"));
    cancel.cancel();
    serving.await.unwrap().unwrap();
    world.close().await;
}
