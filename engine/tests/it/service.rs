//! The NATS micro service over a real nats-server.

use std::{sync::Arc, time::Duration};

use async_nats::{HeaderMap, Message};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tribunal_engine::{
    bus::{NatsBus, NatsConfig, NatsServer},
    log::LogSigner,
    service::serve,
};
use tribunal_events::{
    DealId,
    tlog::{Evidence, LogKey, SignedCheckpoint},
};
use tribunal_fixtures::keys;

use crate::http::{World, accepted, script};

async fn ask(client: &async_nats::Client, subject: &str, headers: HeaderMap, payload: impl Into<Vec<u8>>) -> Message {
    let payload: Vec<u8> = payload.into();
    let request = client.request_with_headers(subject.to_owned(), headers, payload.into());
    tokio::time::timeout(Duration::from_secs(20), request).await.expect("an answer").unwrap()
}

async fn ask_json(client: &async_nats::Client, subject: &str, payload: &str) -> Value {
    let message = ask(client, subject, HeaderMap::new(), payload).await;
    assert_eq!(service_error(&message), None, "{subject}");
    serde_json::from_slice(&message.payload).unwrap()
}

/// Code and text of a service error.
fn service_error(message: &Message) -> Option<(String, String)> {
    let header = |name: &str| message.headers.as_ref()?.get(name).map(|value| value.as_str().to_owned());
    header("Nats-Service-Error-Code").zip(header("Nats-Service-Error"))
}

/// Every answer to a question that all instances of a service answer: here there is one.
async fn micro(client: &async_nats::Client, subject: &str) -> Value {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    client.publish_with_reply(subject.to_owned(), inbox, "".into()).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), answers.next()).await.expect("an answer").unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_discovered_and_answers_like_http() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path()).unwrap();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    let world = World::over(Arc::new(bus), None).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let cancel = CancellationToken::new();
    let serving = tokio::spawn(serve(client.clone(), world.state.clone(), None, cancel.clone()));
    let script = script("service");
    let id = script.terms().deal_id();
    world.record(&accepted(&script)).await;
    world.engine.idle().await.unwrap();

    let info = micro(&client, "$SRV.INFO.tribunal").await;
    let mut subjects: Vec<_> =
        info["endpoints"].as_array().unwrap().iter().map(|it| it["subject"].as_str().unwrap()).collect();
    subjects.sort_unstable();
    let expected = ["audit", "bundle", "checkpoint", "deal", "proof", "verify"].map(|name| format!("tribunal.{name}"));
    assert_eq!(subjects, expected);
    assert_eq!(micro(&client, "$SRV.PING.tribunal").await["name"], "tribunal");

    let over_http = world.client.get(world.url(&format!("/api/v1/deals/{id}"))).send().await.unwrap();
    let over_http: Value = serde_json::from_str(&over_http.text().await.unwrap()).unwrap();
    assert_eq!(ask_json(&client, "tribunal.deal", &id.to_string()).await, over_http);
    assert_eq!(ask_json(&client, "tribunal.deal", &json!({ "deal_id": id }).to_string()).await, over_http);
    let audit = ask_json(&client, "tribunal.audit", &id.to_string()).await;
    assert_eq!((&audit["deals"], &audit["discrepancy_count"]), (&json!(1), &json!(0)), "{audit:#}");
    let bundle = ask(&client, "tribunal.bundle", HeaderMap::new(), id.to_string()).await;
    assert!(service_error(&bundle).is_none() && !bundle.payload.is_empty());
    let request = json!({
        "method": { "kind": "external", "verifier": "nobody" },
        "comparator": { "kind": "exact" }
    });
    let verdict = ask_json(&client, "tribunal.verify", &request.to_string()).await;
    assert_eq!(verdict["verdict"], "inconclusive", "{verdict:#}");
    assert!(verdict["signature"].is_string(), "{verdict:#}");

    let key = LogKey::new("example.org/log", &[3; 32]).unwrap();
    let (vkey, path) = (key.verifier().clone(), LogSigner::default_path(world.engine.store().path()));
    let signer = LogSigner::open(world.engine.store(), key, &keys::key("operator"), path).unwrap();
    signer.checkpoint(world.engine.store()).unwrap();
    let note = ask(&client, "tribunal.checkpoint", HeaderMap::new(), "").await;
    assert!(SignedCheckpoint::parse(&note.payload).unwrap().verify(&vkey).is_ok());
    for asked in [json!({ "position": 1 }), json!({ "deal_id": id }), json!({ "from": 2 })] {
        let proof = ask(&client, "tribunal.proof", HeaderMap::new(), asked.to_string()).await;
        assert!(Evidence::parse(&proof.payload).unwrap().verify(&vkey).is_ok(), "{asked}");
    }

    let unknown = DealId::of_terms(b"unknown").to_string();
    let mut protobuf = HeaderMap::new();
    protobuf.insert("Content-Type", "application/x-protobuf");
    for (subject, headers, payload, code, word) in [
        ("tribunal.deal", HeaderMap::new(), unknown.as_str(), "404", "not-found: "),
        ("tribunal.bundle", HeaderMap::new(), unknown.as_str(), "404", "not-found: "),
        ("tribunal.audit", HeaderMap::new(), unknown.as_str(), "404", "not-found: "),
        ("tribunal.deal", HeaderMap::new(), "what?", "400", "bad-request: "),
        ("tribunal.proof", HeaderMap::new(), "{}", "400", "bad-request: "),
        ("tribunal.proof", HeaderMap::new(), "{\"position\": 99}", "404", "not-found: "),
        ("tribunal.checkpoint", HeaderMap::new(), "{\"size\": 99}", "404", "not-signed: "),
        ("tribunal.verify", HeaderMap::new(), "{", "400", "bad-request: "),
        ("tribunal.verify", protobuf.clone(), "", "400", "bad-request: "),
        ("tribunal.checkpoint", protobuf, "", "415", "media-type: "),
    ] {
        let message = ask(&client, subject, headers, payload).await;
        let (found, text) = service_error(&message).unwrap_or_else(|| panic!("{subject} {payload}"));
        assert!(found == code && text.starts_with(word), "{subject} {payload}: {found} {text}");
    }
    let stats = micro(&client, "$SRV.STATS.tribunal").await;
    let deal = stats["endpoints"].as_array().unwrap().iter().find(|it| it["subject"] == "tribunal.deal").unwrap();
    assert_eq!((&deal["num_requests"], &deal["num_errors"]), (&json!(4), &json!(2)), "{stats:#}");

    cancel.cancel();
    tokio::time::timeout(Duration::from_secs(20), serving).await.expect("it stops").unwrap().unwrap();
    world.close().await;
}
