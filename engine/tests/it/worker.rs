//! Verifications on other machines: the queue, its workers, and what counts of what they say.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, future::join_all};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tribunal_engine::{
    bus::{Bus, BusFault, NatsBus, NatsConfig, NatsServer, WORK},
    work::{WORK_SUBJECT, WorkFault, WorkQueue, result_message, result_subject},
    worker::Worker,
};
use tribunal_events::Digest;
use tribunal_fixtures::{jobs, keys};
use tribunal_verifiers::{ArtifactSource, FolderSource, OperatorLimits, Request, Service};

use crate::http::{World, wordcount_request};

fn artifacts() -> Arc<dyn ArtifactSource> {
    Arc::new(FolderSource::open(&jobs::folder().join("wordcount")).unwrap())
}

fn service() -> Service {
    Service::new(OperatorLimits::default(), vec![artifacts()])
}

/// The wordcount job with content addresses, so that every request with another number is another one.
fn request(number: u64) -> Request {
    let mut request = wordcount_request();
    request["job"]["env"] = json!({ "NUMBER": number.to_string() });
    let request = Request::parse(&request.to_string()).unwrap();
    service().pinned(&request, artifacts().as_ref()).unwrap()
}

fn worker(bus: &NatsBus, key: &str) -> (JoinHandle<Result<(), BusFault>>, CancellationToken) {
    let cancel = CancellationToken::new();
    let worker = Worker::new(bus.clone(), Arc::new(service()), keys::key(key), 1);
    (tokio::spawn(worker.run(cancel.clone())), cancel)
}

async fn stop((task, cancel): (JoinHandle<Result<(), BusFault>>, CancellationToken)) {
    cancel.cancel();
    tokio::time::timeout(Duration::from_secs(60), task).await.expect("it stops").unwrap().unwrap();
}

async fn nats() -> (tempfile::TempDir, NatsServer, NatsBus) {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path()).unwrap();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    (folder, server, bus)
}

const PATIENCE: Duration = Duration::from_secs(60);

async fn waiting(bus: &NatsBus) -> u64 {
    bus.jetstream().get_stream(WORK).await.unwrap().cached_info().state.messages
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_work_and_each_request_is_done_once() {
    let (_folder, _server, bus) = nats().await;
    let queue = WorkQueue::new(bus.clone(), [keys::address("m2"), keys::address("m3")]);
    let both = [worker(&bus, "m2"), worker(&bus, "m3")];
    let requests: Vec<_> = (0..40).map(request).collect();
    let answers = join_all(requests.iter().map(|request| queue.verify(request, PATIENCE))).await;
    let mut by_worker = std::collections::BTreeMap::<_, u32>::new();
    for answer in answers {
        let (verdict, worker) = answer.unwrap();
        assert_eq!(verdict["verdict"], "valid", "{verdict:#}");
        *by_worker.entry(worker).or_default() += 1;
    }
    assert_eq!(by_worker.len(), 2, "{by_worker:?}");
    // Asked again, the result is there, and no work is made of it.
    let (again, _) = queue.verify(&requests[0], PATIENCE).await.unwrap();
    assert_eq!(again["verdict"], "valid");
    assert_eq!(waiting(&bus).await, 0, "all work is done");
    for worker in both {
        stop(worker).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_no_listed_worker_signed_counts_for_nothing() {
    let (_folder, _server, bus) = nats().await;
    let queue = WorkQueue::new(bus.clone(), [keys::address("m2")]);
    let request = request(1);
    let digest = request.digest();
    let verdict = |word: &str| json!({ "verdict": word, "reason": { "code": "ok" }, "evidence": {}, "digest": "" });
    // Somebody else's word, a true word about another request, and a true word that was changed.
    bus.publish(result_message(&digest, &verdict("invalid"), &keys::key("m3")).unwrap()).await.unwrap();
    let mut other = result_message(&Digest::blake3(b"other"), &verdict("invalid"), &keys::key("m2")).unwrap();
    other.subject = result_subject(&digest);
    bus.publish(other).await.unwrap();
    let mut changed = result_message(&digest, &verdict("valid"), &keys::key("m2")).unwrap();
    changed.payload = verdict("invalid").to_string().into();
    bus.publish(changed).await.unwrap();
    let fault = queue.verify(&request, Duration::from_secs(1)).await.err().unwrap();
    assert!(matches!(fault, WorkFault::Late(_)), "{fault}");
    let honest = worker(&bus, "m2");
    let (verdict, by) = queue.verify(&request, PATIENCE).await.unwrap();
    assert_eq!((&verdict["verdict"], by), (&json!("valid"), keys::address("m2")));
    stop(honest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_a_dead_worker_took_goes_to_another() {
    let (_folder, _server, bus) = nats().await;
    let queue = Arc::new(WorkQueue::new(bus.clone(), [keys::address("m2")]));
    // Takes the work and says nothing: a connection of its own, closed like that of a process that was killed.
    let first = worker(&bus, "m2");
    stop(first).await;
    let asked = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.verify(&request(7), PATIENCE).await }
    });
    let stream = bus.jetstream().get_stream(WORK).await.unwrap();
    let consumer: async_nats::jetstream::consumer::PullConsumer = stream.get_consumer("workers").await.unwrap();
    let mut batch = consumer.fetch().max_messages(1).expires(Duration::from_secs(30)).messages().await.unwrap();
    let taken = batch.next().await.unwrap().unwrap();
    assert_eq!(taken.info().unwrap().delivered, 1);
    // What ack_wait does after half a minute, at once.
    taken.ack_with(async_nats::jetstream::AckKind::Nak(None)).await.unwrap();
    let second = worker(&bus, "m2");
    let (verdict, _) = asked.await.unwrap().unwrap();
    assert_eq!(verdict["verdict"], "valid");
    stop(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_kills_its_workers_is_given_up_and_what_cannot_be_read_too() {
    let (_folder, _server, bus) = nats().await;
    let poison = request(9);
    let mut results = bus.client().subscribe(result_subject(&poison.digest())).await.unwrap();
    bus.publish(tribunal_engine::bus::Outgoing::new(WORK_SUBJECT, poison.canonical_json())).await.unwrap();
    stop(worker(&bus, "m2")).await;
    let stream = bus.jetstream().get_stream(WORK).await.unwrap();
    let consumer: async_nats::jetstream::consumer::PullConsumer = stream.get_consumer("workers").await.unwrap();
    // The worker before may have been quick enough to do it; then there is a result already.
    bus.publish(tribunal_engine::bus::Outgoing::new(WORK_SUBJECT, "rubbish")).await.unwrap();
    let mut rubbish = bus.client().subscribe(result_subject(&Digest::blake3(b"rubbish"))).await.unwrap();
    for _ in 0..5 {
        let mut batch = consumer.fetch().max_messages(2).expires(Duration::from_secs(5)).messages().await.unwrap();
        while let Some(Ok(message)) = batch.next().await {
            message.ack_with(async_nats::jetstream::AckKind::Nak(None)).await.unwrap();
        }
    }
    let last = worker(&bus, "m2");
    for results in [&mut results, &mut rubbish] {
        let message = tokio::time::timeout(PATIENCE, results.next()).await.expect("a result").unwrap();
        let verdict: Value = serde_json::from_slice(&message.payload).unwrap();
        let fault = verdict["reason"]["code"] == "executor-fault" && verdict["verdict"] == "inconclusive";
        assert!(fault || verdict["verdict"] == "valid", "{verdict:#}");
    }
    stop(last).await;
    assert_eq!(waiting(&bus).await, 0, "nothing is stuck");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_places_are_taken_has_workers_do_it_and_signs_what_they_found() {
    let (_folder, _server, bus) = nats().await;
    let world = World::over(Arc::new(bus.clone()), None).await;
    let queue = Arc::new(WorkQueue::new(bus.clone(), [keys::address("m2")]));
    world.state.reporter().share_work(Arc::clone(&queue), 1000);
    let working = worker(&bus, "m2");
    let ask = |number: u64| {
        let mut request = wordcount_request();
        request["job"]["env"] = json!({ "NUMBER": number.to_string() });
        let reporter = world.state.reporter().clone();
        async move { reporter.verify(request.to_string().into_bytes()).await }
    };
    let answers = join_all((0..60).map(ask)).await;
    let mut remote = 0;
    for answer in answers {
        let verdict = answer.unwrap();
        assert_eq!(verdict["verdict"], "valid", "{verdict:#}");
        assert_eq!(verdict["signer"], format!("{:#x}", keys::address("operator")), "the service's own word");
        remote += u64::from(verdict["evidence"]["host"]["worker"] == format!("{:#x}", keys::address("m2")));
    }
    assert!(remote > 0 && remote < 60, "{remote} of 60 by the worker");
    stop(working).await;
    // Without any worker everything is done here all the same.
    let alone = Arc::new(WorkQueue::new(bus.clone(), [keys::address("m4")]));
    assert!(alone.verify(&request(99), Duration::from_millis(300)).await.is_err());
    world.close().await;
}
