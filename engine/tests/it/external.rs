//! Out-of-process verifiers: the example in Python, one behind HTTP, and those that say rubbish or nothing.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use axum::{Router, http::HeaderMap, http::StatusCode, routing::post};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tribunal_engine::{
    bus::{NatsBus, NatsConfig, NatsServer},
    external::{ANSWER_BYTES_MAX, Callbacks, ExternalConfig, Externals},
};
use tribunal_events::{B256, Digest, Domain, ReportStruct, Signer as _, SigningKey, VerdictKind};
use tribunal_fixtures::{jobs, keys};
use tribunal_verifiers::{ExternalVerifier, OperatorLimits, Request, Service, verdict_digest};

use crate::http::{World, wordcount_request};

/// A child process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the example and gives the account that signs.
fn recount(url: &str, key: &Path) -> (Running, String) {
    let python = std::env::var("TRIBUNAL_PYTHON").expect("make test sets TRIBUNAL_PYTHON");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../verifiers/external/recount.py");
    let child = Command::new(python)
        .arg(script)
        .args([url, "recount"])
        .arg(jobs::folder().join("wordcount"))
        .arg(key)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().to_owned())
}

fn listed(name: &str, settings: ExternalConfig) -> BTreeMap<String, ExternalConfig> {
    [(name.to_owned(), settings)].into()
}

fn external_request(verifier: &str) -> Value {
    let mut request = wordcount_request();
    request["method"] = json!({ "kind": "external", "verifier": verifier });
    request
}

async fn nats() -> (tempfile::TempDir, NatsServer, NatsBus) {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path().join("nats")).unwrap();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    (folder, server, bus)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_example_is_asked_and_its_signed_word_is_in_the_evidence() {
    let (folder, server, bus) = nats().await;
    let key = folder.path().join("key");
    let (_running, account) = tokio::task::block_in_place(|| recount(&server.url(), &key));
    let settings = ExternalConfig { address: Some(account.parse().unwrap()), ..ExternalConfig::default() };
    let externals =
        Externals::new(listed("recount", settings), Some(bus.client().clone()), Callbacks::at(None)).unwrap();
    let world = World::asking(Arc::new(bus.clone()), None, Some(Arc::new(externals))).await;
    let ask = |request: Value| {
        let reporter = world.state.reporter().clone();
        async move { reporter.verify(request.to_string().into_bytes()).await.unwrap() }
    };
    let verdict = ask(external_request("recount")).await;
    assert_eq!((&verdict["verdict"], &verdict["reason"]["code"]), (&json!("valid"), &json!("ok")), "{verdict:#}");
    let external = &verdict["evidence"]["external"];
    assert_eq!(external["signer"], account, "{verdict:#}");
    assert_eq!(external["evidence"]["own"]["words"], 620);
    assert_eq!(verdict["evidence"]["external_signature"].as_str().unwrap().len(), 132);
    assert_eq!(verdict["signer"], format!("{:#x}", keys::address("operator")));

    // Counts that are wrong, by one word; the text stands in their place elsewhere.
    let mut wrong = external_request("recount");
    wrong["claim"]["outputs"][0]["artifact"] = "input/text.txt".into();
    let verdict = ask(wrong).await;
    assert_eq!(
        (&verdict["verdict"], &verdict["reason"]["code"]),
        (&json!("invalid"), &json!("counts-malformed")),
        "{verdict:#}"
    );
    // With others it is combined like any method.
    let mut both = wordcount_request();
    both["method"] =
        json!({ "kind": "all", "of": [{ "kind": "reexecution" }, { "kind": "external", "verifier": "recount" }] });
    assert_eq!(ask(both).await["verdict"], "valid");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_than_the_listed_one_and_a_verifier_that_died_are_inconclusive() {
    let (folder, server, bus) = nats().await;
    let (running, account) = tokio::task::block_in_place(|| recount(&server.url(), &folder.path().join("key")));
    let settings = ExternalConfig { address: Some(keys::address("m5")), ..ExternalConfig::default() };
    let externals =
        Externals::new(listed("recount", settings), Some(bus.client().clone()), Callbacks::at(None)).unwrap();
    let service = Arc::new(
        Service::new(
            OperatorLimits::default(),
            vec![Arc::new(tribunal_verifiers::FolderSource::open(&jobs::folder().join("wordcount")).unwrap())],
        )
        .with_external(Arc::new(externals)),
    );
    let verify = |name: &'static str| {
        let service = Arc::clone(&service);
        let request = Request::parse(&external_request(name).to_string()).unwrap();
        async move { tokio::task::spawn_blocking(move || service.verify(&request).unwrap()).await.unwrap() }
    };
    let verdict = verify("recount").await;
    assert_eq!((verdict.verdict, verdict.reason.code.as_str()), (VerdictKind::Inconclusive, "verifier-unavailable"));
    assert!(verdict.reason.detail.contains(&account), "{}", verdict.reason.detail);
    drop(running);
    let verdict = verify("nobody").await;
    assert!(verdict.reason.detail.contains("nobody answers on verifiers.nobody"), "{}", verdict.reason.detail);
}

/// An answer as a verifier with this key would sign it.
fn signed(question: &[u8], verdict: &str, code: &str, key: &SigningKey) -> Value {
    let evidence = json!({ "seen": 1, "wall_us": 5 });
    let kind = serde_json::from_value(json!(verdict)).unwrap();
    let digest = verdict_digest(kind, code, evidence.as_object().unwrap());
    let report = ReportStruct {
        requestDigest: B256::new(*Digest::blake3(question).bytes()),
        verdictDigest: B256::new(*digest.bytes()),
    };
    let signature = key.sign_preimage(&Domain::default().preimage(&report)).unwrap();
    json!({
        "verdict": verdict, "reason": { "code": code, "detail": "looked" }, "evidence": evidence,
        "digest": format!("blake3:{}", hex::encode(digest.bytes())),
        "signer": format!("{:#x}", key.address()),
        "signature": format!("0x{}", hex::encode(signature.bytes())),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_silence_and_unsigned_words_are_no_answers() {
    let (_folder, _server, bus) = nats().await;
    let mut questions = bus.client().subscribe("verifiers.*").await.unwrap();
    let client = bus.client().clone();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let key = keys::key("m4");
            let mut answer = signed(&question.payload, "valid", "ok", &key);
            let bytes = match question.subject.as_str() {
                "verifiers.good" => answer.to_string().into_bytes(),
                "verifiers.silent" => continue,
                "verifiers.rubbish" => b"{\"verdict\": \"perhaps\"}".to_vec(),
                "verifiers.binary" => vec![0xff; 100],
                "verifiers.huge" => {
                    answer["evidence"]["more"] = "x".repeat(ANSWER_BYTES_MAX).into();
                    answer.to_string().into_bytes()
                }
                "verifiers.changed" => {
                    answer["evidence"]["seen"] = 2.into();
                    answer.to_string().into_bytes()
                }
                "verifiers.flipped" => {
                    answer["verdict"] = "invalid".into();
                    answer["digest"] = Value::Null;
                    answer.to_string().into_bytes()
                }
                "verifiers.replayed" => signed(b"another question", "valid", "ok", &key).to_string().into_bytes(),
                "verifiers.shouting" => signed(&question.payload, "valid", "OK!", &key).to_string().into_bytes(),
                _ => {
                    answer["signer"] = Value::Null;
                    answer["signature"] = Value::Null;
                    answer.to_string().into_bytes()
                }
            };
            client.publish(question.reply.unwrap(), bytes.into()).await.unwrap();
        }
    });
    let quick = ExternalConfig { timeout_ms: 500, ..ExternalConfig::default() };
    let mut settings = listed("silent", quick);
    settings.insert("trusted".into(), ExternalConfig { unsigned: true, ..ExternalConfig::default() });
    let externals = Arc::new(Externals::new(settings, Some(bus.client().clone()), Callbacks::at(None)).unwrap());
    let request = Request::parse(&json!({ "method": { "kind": "external", "verifier": "x" } }).to_string()).unwrap();
    for (name, expected) in [
        ("good", Ok("valid")),
        ("trusted", Ok("valid")),
        ("silent", Err("no answer in 500 ms")),
        ("rubbish", Err("perhaps")),
        ("binary", Err("counts for nothing")),
        ("huge", Err("more than 262144 bytes")),
        ("changed", Err("digest is not that of what it says")),
        ("flipped", Err("is signed by")),
        ("replayed", Err("is signed by")),
        ("shouting", Err("a reason code")),
        ("unsigned", Err("it is not signed")),
        ("no.dots", Err("a name has")),
        ("", Err("a name has")),
    ] {
        let (externals, request) = (Arc::clone(&externals), request.clone());
        let answer = tokio::task::spawn_blocking(move || externals.ask(name, &request)).await.unwrap();
        match (answer, expected) {
            (Ok(answer), Ok(word)) => assert_eq!(answer.verdict.word(), word, "{name}"),
            (Err(problem), Err(part)) => assert!(problem.contains(part), "{name}: {problem}"),
            (answer, _) => panic!("{name}: {answer:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verifier_behind_http_answers_at_once_or_later_by_callback() {
    let app =
        Router::new()
            .route(
                "/now",
                post(|body: axum::body::Bytes| async move {
                    signed(&body, "invalid", "seen-it", &keys::key("m4")).to_string()
                }),
            )
            .route(
                "/later",
                post(|headers: HeaderMap, body: axum::body::Bytes| async move {
                    let callback = headers["Tribunal-Callback"].to_str().unwrap().to_owned();
                    tokio::spawn(async move {
                        let answer = signed(&body, "valid", "ok", &keys::key("m4")).to_string();
                        let client = reqwest::Client::builder().no_proxy().build().unwrap();
                        let first = client.post(&callback).body(answer.clone()).send().await.unwrap();
                        assert_eq!(first.status(), 204);
                        assert_eq!(client.post(&callback).body(answer).send().await.unwrap().status(), 404, "once");
                    });
                    StatusCode::ACCEPTED
                }),
            )
            .route("/never", post(|| async { StatusCode::ACCEPTED }))
            .route("/broken", post(|| async { (StatusCode::OK, "x".repeat(ANSWER_BYTES_MAX + 1)) }))
            .route("/sorry", post(|| async { StatusCode::SERVICE_UNAVAILABLE }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let mut settings = BTreeMap::new();
    for name in ["now", "later", "never", "broken", "sorry"] {
        let url = Some(format!("{base}/{name}"));
        settings.insert(name.to_owned(), ExternalConfig { url, timeout_ms: 3000, ..ExternalConfig::default() });
    }
    let world = World::new().await;
    let externals = Arc::new(Externals::new(settings, None, Arc::clone(&world.callbacks)).unwrap());
    let request = Request::parse(&json!({ "method": { "kind": "external", "verifier": "x" } }).to_string()).unwrap();
    for (name, expected) in [
        ("now", Ok("invalid")),
        ("later", Ok("valid")),
        ("never", Err("no answer in 3000 ms")),
        ("broken", Err("more than 262144 bytes")),
        ("sorry", Err("HTTP status 503")),
    ] {
        let (externals, request) = (Arc::clone(&externals), request.clone());
        let answer = tokio::task::spawn_blocking(move || externals.ask(name, &request)).await.unwrap();
        match (answer, expected) {
            (Ok(answer), Ok(word)) => assert_eq!(answer.verdict.word(), word, "{name}"),
            (Err(problem), Err(part)) => assert!(problem.contains(part), "{name}: {problem}"),
            (answer, _) => panic!("{name}: {answer:?}"),
        }
    }
    // Nobody waits for what nobody asked.
    let answer = world.client.post(world.url("/api/v1/callbacks/abc")).body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 404);
    world.close().await;
}
