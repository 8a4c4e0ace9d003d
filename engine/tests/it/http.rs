//! The HTTP API over a real engine, asked over real connections.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
    task::JoinHandle,
};
use tribunal_engine::{
    bus::{Bus, InProcessBus, InProcessLimits},
    engine::{Engine, Fencing, Parts, now},
    external::Callbacks,
    http::{HttpState, serve},
    log::LogSigner,
    mediator::history::History,
    partition::Settings,
    report::ReportFault,
    store::{Fsync, Store},
};
use tribunal_events::{
    B256, ContentAddress, Domain, Envelope, Party, ReportStruct, Signature, Terms, proto,
    tlog::{Evidence, Hash, LogCertificate, LogKey, SignedCheckpoint},
};
use tribunal_fixtures::{Script, TermsBuilder, jobs, keys};
use tribunal_verifiers::{ArtifactSource, ExternalVerifier, FolderSource, OperatorLimits, Request, Service};

pub const TOKEN: &str = "open sesame";

/// An engine with its HTTP service on a free port.
pub struct World {
    pub folder: TempDir,
    pub engine: Engine,
    pub state: HttpState,
    pub address: SocketAddr,
    pub client: reqwest::Client,
    pub callbacks: Arc<Callbacks>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl World {
    pub async fn new() -> Self {
        let bus = Arc::new(InProcessBus::new(now, InProcessLimits::default()));
        Self::over(bus, None).await
    }

    pub async fn over(bus: Arc<dyn Bus>, token: Option<&str>) -> Self {
        Self::asking(bus, token, None).await
    }

    /// With out-of-process verifiers.
    pub async fn asking(bus: Arc<dyn Bus>, token: Option<&str>, externals: Option<Arc<dyn ExternalVerifier>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store"), Fsync::Never).unwrap();
        let artifacts: Arc<dyn ArtifactSource> =
            Arc::new(FolderSource::open(&jobs::folder().join("wordcount")).unwrap());
        let mut verifier = Service::new(OperatorLimits::default(), vec![Arc::clone(&artifacts)]);
        if let Some(externals) = externals {
            verifier = verifier.with_external(externals);
        }
        let verifier = Arc::new(verifier);
        let operator = keys::key("operator");
        let engine = Engine::start(Parts {
            store,
            bus,
            chain: None,
            verifier: Arc::clone(&verifier),
            artifacts: Arc::clone(&artifacts),
            settings: Settings {
                operator: operator.clone(),
                domains: vec![Domain::default()],
                recorded_time: false,
                preflight: None,
            },
            mediators: vec![Arc::new(keys::key("m1"))],
            history: Some(Arc::new(History::open(folder.path().join("history.jsonl")).unwrap())),
            workers: 1,
            fuel_per_s: 300_000_000,
            fencing: Fencing::Off,
        })
        .await
        .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let callbacks = Callbacks::at(Some(&format!("http://{address}/")));
        let state = HttpState::new(&engine, verifier, artifacts, operator, token.map(str::to_owned))
            .with_mediators(vec![keys::address("m1")])
            .with_callbacks(Arc::clone(&callbacks));
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(listener, state.clone(), async move {
            let _ = stopped.await;
        }));
        tribunal_contracts::install_tls();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { folder, engine, state, address, client, callbacks, stop, serving }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, path: &str) -> (StatusCode, String, String) {
        answer(self.client.get(self.url(path)).send().await.unwrap()).await
    }

    async fn get_json(&self, path: &str) -> Value {
        let (status, _, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Posts a body; gives status, media type and JSON.
    async fn post(&self, path: &str, kind: &str, body: impl Into<reqwest::Body>) -> (StatusCode, String, Value) {
        let request = self.client.post(self.url(path)).header("Content-Type", kind).body(body);
        let (status, kind, body) = answer(request.send().await.unwrap()).await;
        let body = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}: {body}"));
        (status, kind, body)
    }

    /// Sends envelopes, all of which are recorded.
    pub async fn record(&self, envelopes: &[Envelope]) {
        let (status, _, body) = self.post("/api/v1/events", "application/x-ndjson", lines(envelopes)).await;
        assert_eq!(status, 200, "{body:#}");
    }

    pub async fn close(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(Duration::from_secs(20), self.serving).await.expect("the service stops").unwrap();
        drop(self.state);
        self.engine.shutdown(std::time::Duration::from_secs(60)).await;
    }
}

async fn answer(response: reqwest::Response) -> (StatusCode, String, String) {
    let kind = response.headers().get("content-type").map_or("", |value| value.to_str().unwrap()).to_owned();
    (response.status(), kind, response.text().await.unwrap())
}

pub fn line(envelope: &Envelope) -> String {
    tribunal_events::json::to_value("Envelope", &envelope.message()).to_string()
}

pub fn lines(envelopes: &[Envelope]) -> String {
    envelopes.iter().map(|envelope| line(envelope) + "\n").collect()
}

/// A deal without a contract that can be agreed for another hour.
pub fn script(name: &str) -> Script {
    Script::new(terms(name))
}

pub fn terms(name: &str) -> Arc<Terms> {
    TermsBuilder::new(name).without_contract().agree_by_s(now().s() + 3600).build()
}

/// A deal that ends at once: proposed, agreed, submitted, accepted.
pub fn accepted(script: &Script) -> Vec<Envelope> {
    vec![
        script.proposed(Party::Client),
        script.agreed(Party::Provider),
        script.result_submitted(jobs::load("wordcount").unwrap().claim(1000)),
        script.accepted(),
    ]
}

/// The request that asks what a deal asks, as JSON.
fn deal_request(terms: &Terms, claim: &proto::Claim) -> Value {
    let claim = tribunal_events::Claim::parse(claim).unwrap();
    serde_json::from_str(&Request::for_deal(terms, &claim, &[]).canonical_json()).unwrap()
}

/// The wordcount job with its right result, by file names.
pub fn wordcount_request() -> Value {
    let job: Value =
        serde_json::from_slice(&std::fs::read(jobs::folder().join("wordcount/job.json")).unwrap()).unwrap();
    let expected = |name: &str| json!({ "artifact": format!("expected/{name}") });
    let outputs: Vec<_> = jobs::load("wordcount")
        .unwrap()
        .expected
        .iter()
        .map(|(path, _)| {
            let mut output = expected(Path::new(path).file_name().unwrap().to_str().unwrap());
            output["path"] = path.as_str().into();
            output
        })
        .collect();
    let mut fields = job;
    fields.as_object_mut().unwrap().retain(|name, _| {
        ["runtime", "module", "args", "env", "stdin", "inputs", "outputs", "limits"].contains(&name.as_str())
    });
    json!({
        "method": { "kind": "reexecution" },
        "job": fields,
        "claim": { "exit_code": 0, "stdout": expected("stdout.txt"), "outputs": outputs },
        "comparator": { "kind": "exact" }
    })
}

fn check_problem(status: u16, code: &str, (found, kind, body): (StatusCode, String, Value)) -> Value {
    assert_eq!((found.as_u16(), body["code"].as_str()), (status, Some(code)), "{body:#}");
    assert_eq!(kind, "application/problem+json");
    assert_eq!(body["status"], status);
    assert!(body["type"].as_str().unwrap().starts_with("urn:"), "{body:#}");
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body:#}");
    body
}

fn json_answer((status, kind, body): (StatusCode, String, String)) -> (StatusCode, String, Value) {
    let json = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {kind}: {body}"));
    (status, kind, json)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deal_goes_in_as_events_and_is_read_back() {
    let world = World::new().await;
    let script = script("round trip");
    let id = script.terms().deal_id();
    let envelopes = accepted(&script);
    let (status, _, first) = world.post("/api/v1/events", "application/json", line(&envelopes[0])).await;
    assert_eq!(status, 200, "{first:#}");
    assert_eq!(first["receipts"][0]["status"], "admitted");
    assert_eq!(first["receipts"][0]["log_position"], 1);
    let (status, _, second) = world.post("/api/v1/events", "application/x-protobuf", envelopes[1].encode()).await;
    assert_eq!((status.as_u16(), &second["receipts"][0]["stream_version"]), (200, &json!(2)), "{second:#}");
    world.record(&envelopes[2..]).await;

    // A repeat gets the first receipt again, signed by the operator.
    let (status, _, again) = world.post("/api/v1/events", "application/json", line(&envelopes[0])).await;
    assert_eq!((status.as_u16(), &again["receipts"][0]["status"]), (200, &json!("duplicate")), "{again:#}");
    let receipt: proto::Receipt =
        tribunal_events::json::from_str("Receipt", &again["receipts"][0]["receipt"].to_string()).unwrap();
    let (receipt, signer) = tribunal_events::Receipt::open(&receipt).unwrap();
    assert_eq!((receipt.log_position, signer), (1, keys::address("operator")));

    world.engine.idle().await.unwrap();
    let list = world.get_json("/api/v1/deals").await;
    assert_eq!((&list["total"], &list["deals"][0]["outcome"]), (&json!(1), &json!("accepted")), "{list:#}");
    let deal = world.get_json(&format!("/api/v1/deals/{id}")).await;
    assert_eq!(deal["terms_hash"], format!("{:#x}", script.terms().hash()));
    assert_eq!(deal["timeline"][0]["kind"], "proposed");
    let past = world.get_json(&format!("/api/v1/deals/{id}?at=2")).await;
    assert_eq!((&past["state"], &past["version"]), (&json!("agreed"), &json!(2)));
    let past = world.get_json("/api/v1/deals?at=1").await;
    assert_eq!((&past["deals"][0]["state"], &past["log_position"]), (&json!("negotiating"), &json!(1)));
    let page = world.get_json(&format!("/api/v1/deals/{id}/events?from=2&limit=1")).await;
    assert_eq!((&page["events"][0]["kind"], &page["next_version"]), (&json!("agreed"), &json!(3)), "{page:#}");
    assert_eq!(Envelope::decode(page["events"][0]["envelope"].to_string().as_bytes()).unwrap(), envelopes[1]);
    let (status, kind, bundle) = world.get(&format!("/api/v1/deals/{id}/bundle")).await;
    assert_eq!((status.as_u16(), kind.as_str(), bundle.is_empty()), (200, "application/octet-stream", false));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_are_refused_with_reasons_and_nothing_is_recorded() {
    let world = World::new().await;
    let script = script("bad events");
    let proposed = script.proposed(Party::Client);
    let post = async |kind: &str, body: Vec<u8>| world.post("/api/v1/events", kind, body).await;

    check_problem(400, "malformed", post("application/json", b"{\"event\":".to_vec()).await);
    check_problem(400, "malformed", post("application/json", b"[]".to_vec()).await);
    check_problem(400, "malformed", post("application/json", Vec::new()).await);
    check_problem(400, "malformed", post("application/x-ndjson", b"\n\n".to_vec()).await);
    let bytes = proposed.encode();
    check_problem(400, "malformed", post("application/x-protobuf", bytes[..bytes.len() / 2].to_vec()).await);
    check_problem(415, "media-type", post("text/plain", b"hello".to_vec()).await);
    let unsigned = Envelope::from_parts(proposed.event().to_vec(), Vec::new());
    check_problem(400, "malformed-signature", post("application/json", line(&unsigned).into()).await);
    let oversized = Envelope::from_parts(vec![b'x'; 300 * 1024], vec![1; 65]);
    check_problem(400, "oversized", post("application/x-protobuf", oversized.encode()).await);
    check_problem(413, "oversized", post("application/json", vec![b' '; (4 << 20) + 1]).await);
    check_problem(413, "oversized", post("application/x-ndjson", b"{}\n".repeat(300)).await);
    // One bad line: none is sent.
    let body = format!("{}{{}}\n", lines(std::slice::from_ref(&proposed)));
    let problem = check_problem(400, "schema-version", post("application/x-ndjson", body.into()).await);
    assert_eq!(problem["envelope"], 2, "{problem:#}");
    assert_eq!(world.engine.store().last_position(), 0);

    // Well-formed, but signed by another than it says.
    let other = script.proposed(Party::Provider);
    let forged = Envelope::from_parts(proposed.event().to_vec(), other.signature().to_vec());
    let problem = check_problem(422, "refused", post("application/json", line(&forged).into()).await);
    assert_eq!(problem["reason_code"], "signature", "{problem:#}");
    assert_eq!(problem["receipts"][0]["status"], "refused");
    // Out of turn; in its turn it is admitted, though it was refused before.
    let accepted = script.accepted();
    let problem = check_problem(409, "refused", post("application/json", line(&accepted).into()).await);
    assert_eq!(problem["reason_code"], "unknown-deal", "{problem:#}");
    // Some refused: all receipts come.
    let agreed = script.agreed(Party::Provider);
    let problem = check_problem(
        409,
        "refused",
        post("application/x-ndjson", lines(&[proposed, accepted.clone(), agreed]).into()).await,
    );
    let statuses: Vec<_> =
        problem["receipts"].as_array().unwrap().iter().map(|it| it["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["admitted", "refused", "admitted"]);
    world.record(&[script.result_submitted(jobs::load("wordcount").unwrap().claim(1000)), accepted]).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_gets_no_answer_and_changes_nothing() {
    let world = World::new().await;
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let head = "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{\"event\":";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("it is closed");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    let headers = "X-Long: ".to_owned() + &"y".repeat(64 << 10);
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let _ = stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n").as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(world.engine.store().last_position(), 0);
    assert_eq!(world.get("/healthz").await.0, 200);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_needs_the_token_where_there_is_one() {
    let bus = Arc::new(InProcessBus::new(now, InProcessLimits::default()));
    let world = World::over(bus, Some(TOKEN)).await;
    let proposed = line(&script("token").proposed(Party::Client));
    check_problem(401, "unauthorized", world.post("/api/v1/events", "application/json", proposed.clone()).await);
    for (token, expected) in [("open", 401), (TOKEN, 200)] {
        let request = world.client.post(world.url("/api/v1/events")).header("Content-Type", "application/json");
        let response = request.bearer_auth(token).body(proposed.clone()).send().await.unwrap();
        assert_eq!(response.status(), expected);
    }
    assert_eq!(world.get("/api/v1/deals").await.0, 200);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_verified_and_the_answer_is_a_signed_report() {
    let world = World::new().await;
    let verify = async |request: &Value| world.post("/api/v1/verify", "application/json", request.to_string()).await;
    let request = wordcount_request();
    let (status, _, verdict) = verify(&request).await;
    assert_eq!((status.as_u16(), &verdict["verdict"]), (200, &json!("valid")), "{verdict:#}");
    let digest = |name: &str| -> B256 {
        format!("0x{}", verdict[name].as_str().unwrap().strip_prefix("blake3:").unwrap()).parse().unwrap()
    };
    let signed = Domain::default()
        .digest(&ReportStruct { requestDigest: digest("request_digest"), verdictDigest: digest("digest") });
    let signature = hex::decode(&verdict["signature"].as_str().unwrap()[2..]).unwrap();
    let signer = Signature::from_slice(&signature).unwrap().recover(signed).unwrap();
    assert_eq!(signer, keys::address("operator"));
    assert_eq!(verdict["signer"], format!("{signer:#x}"));

    let mut wrong = request.clone();
    wrong["claim"]["exit_code"] = 1.into();
    let (status, _, verdict) = verify(&wrong).await;
    assert_eq!((status.as_u16(), &verdict["verdict"]), (200, &json!("invalid")), "{verdict:#}");
    let mut unknown = request.clone();
    unknown["job"]["module"] = ContentAddress::of(b"nobody has this").to_string().into();
    let (status, _, verdict) = verify(&unknown).await;
    assert_eq!((status.as_u16(), &verdict["verdict"]), (200, &json!("inconclusive")), "{verdict:#}");

    // Bad requests name the field.
    let mut escaping = request.clone();
    escaping["job"]["module"] = "../../../etc/passwd".into();
    let mut missing = request.clone();
    missing["job"]["inputs"][0]["artifact"] = "input/nothing.txt".into();
    let mut unheard_of = request.clone();
    unheard_of["metod"] = json!({});
    for (request, field) in [(escaping, "job.module"), (missing, "job.inputs[0].artifact"), (unheard_of, "metod")] {
        let problem = check_problem(400, "bad-request", verify(&request).await);
        assert!(problem["field"].as_str().unwrap().contains(field), "{problem:#}");
    }
    let post = async |kind: &str, body: Vec<u8>| world.post("/api/v1/verify", kind, body).await;
    check_problem(400, "bad-request", post("application/json", b"{".to_vec()).await);
    check_problem(400, "bad-request", post("application/json", vec![0xff, 0xfe]).await);
    check_problem(413, "oversized", post("application/json", vec![b' '; (1 << 20) + 1]).await);
    check_problem(415, "media-type", post("application/x-protobuf", Vec::new()).await);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_makes_a_retry_idempotent_and_is_bound_to_its_request() {
    let world = World::new().await;
    let mut request = wordcount_request();
    request["request_id"] = "one".into();
    let reporter = world.state.reporter();
    let first = reporter.verify(request.to_string().into()).await.unwrap();
    let again = reporter.verify(request.to_string().into()).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again), "the answer itself, times included");
    request["claim"]["exit_code"] = 1.into();
    let reused = reporter.verify(request.to_string().into()).await.unwrap_err();
    assert!(matches!(reused, ReportFault::RequestIdReused(_)), "{reused}");
    let problem = world.post("/api/v1/verify", "application/json", request.to_string()).await;
    assert_eq!(check_problem(400, "request-id-reused", problem)["field"], "request_id");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_names_a_deal_must_ask_what_the_deal_says() {
    let world = World::new().await;
    let script = script("verified deal");
    let claim = jobs::load("wordcount").unwrap().claim(1000);
    world.record(&[script.proposed(Party::Client), script.agreed(Party::Provider)]).await;
    let verify = async |request: &Value| world.post("/api/v1/verify", "application/json", request.to_string()).await;
    let request = deal_request(script.terms(), &claim);
    let problem = check_problem(400, "bad-request", verify(&request).await);
    assert_eq!(problem["field"], "claim", "no result yet: {problem:#}");
    world.record(&[script.result_submitted(claim)]).await;
    let (status, _, verdict) = verify(&request).await;
    assert_eq!(status, 200, "{verdict:#}");

    let mut other_job = request.clone();
    other_job["job"]["args"] = json!(["other"]);
    let mut other_claim = request.clone();
    other_claim["claim"]["instruction_count"] = 999.into();
    let mut other_method = request.clone();
    other_method["method"] = json!({ "kind": "external", "verifier": "mine" });
    let mut other_comparator = request.clone();
    other_comparator["comparator"] = json!({ "kind": "ignore_lines", "patterns": [".*"] });
    let mut other_deal = request.clone();
    other_deal["deal_id"] = terms("another").deal_id().to_string().into();
    for (request, field) in [
        (other_job, "job"),
        (other_claim, "claim"),
        (other_method, "method"),
        (other_comparator, "comparator"),
        (other_deal, "deal_id"),
    ] {
        let problem = check_problem(400, "bad-request", verify(&request).await);
        assert_eq!(problem["field"], field, "{problem:#}");
    }
    world.close().await;
}

/// A reader of server-sent events.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(world: &World, path: &str, last: Option<&str>) -> Self {
        let mut request = world.client.get(world.url(path));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// Id and data of the next event; nothing where the stream ends.
    async fn next(&mut self) -> Option<(u64, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let found = field("id:")
                    .zip(field("data:"))
                    .map(|(id, data)| (id.parse().unwrap(), serde_json::from_str(data).unwrap()));
                self.text = rest.to_owned();
                match found {
                    Some(found) => return Some(found),
                    None => continue,
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.response.chunk()).await.expect("an event");
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()?).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_events_resumes_after_the_last_one_seen() {
    let world = World::new().await;
    let (one, two) = (script("stream one"), script("stream two"));
    let mut live = Events::open(&world, "/api/v1/events/stream", None).await;
    world.record(&accepted(&one)).await;
    world.record(&accepted(&two)[..2]).await;
    world.engine.idle().await.unwrap();
    let last = world.engine.store().last_position();
    let mut seen = Vec::new();
    for position in 1..=last {
        let (id, data) = live.next().await.unwrap();
        assert_eq!((id, &data["position"]), (position, &json!(position)));
        seen.push(data);
    }
    let mut resumed = Events::open(&world, "/api/v1/events/stream", Some("2")).await;
    for expected in &seen[2..] {
        assert_eq!(&resumed.next().await.unwrap().1, expected);
    }
    let mut whole =
        Events::open(&world, &format!("/api/v1/events/stream?after=0&deal={}", two.terms().deal_id()), None).await;
    assert_eq!(whole.next().await.unwrap().1["kind"], "proposed");
    assert_eq!(whole.next().await.unwrap().1["kind"], "agreed");
    for (header, code) in [("nonsense", "last-event-id"), ("9999", "last-event-id")] {
        let request = world.client.get(world.url("/api/v1/events/stream")).header("Last-Event-ID", header);
        check_problem(400, code, json_answer(answer(request.send().await.unwrap()).await));
    }
    // Open streams do not keep the service from stopping.
    world.close().await;
    assert_eq!(live.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_are_problem_documents() {
    let world = World::new().await;
    let unknown = terms("unknown").deal_id();
    for (path, status, code) in [
        ("/nothing".to_owned(), 404, "not-found"),
        ("/api/v1/deals/0x12".into(), 400, "deal-id"),
        (format!("/api/v1/deals/{unknown}"), 404, "not-found"),
        (format!("/api/v1/deals/{unknown}/events"), 404, "not-found"),
        (format!("/api/v1/deals/{unknown}/bundle"), 404, "not-found"),
        ("/api/v1/deals?limit=0".into(), 400, "query"),
        ("/api/v1/deals?limt=5".into(), 400, "query"),
        ("/api/v1/deals?at=x".into(), 400, "query"),
        ("/api/v1/deals/%ff".into(), 400, "path"),
        ("/api/v1/checkpoint".into(), 404, "not-signed"),
        ("/api/v1/proofs/inclusion?position=1".into(), 404, "not-signed"),
        ("/api/v1/proofs/inclusion".into(), 400, "query"),
        ("/api/v1/proofs/consistency".into(), 400, "query"),
        ("/api/v1/proofs/head?deal_id=0x12".into(), 400, "query"),
        ("/api/v1/events".into(), 405, "method-not-allowed"),
    ] {
        check_problem(status, code, json_answer(world.get(&path).await));
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_and_proved_holds_for_whoever_asks() {
    let world = World::new().await;
    let script = script("log");
    world.record(&accepted(&script)).await;
    world.engine.idle().await.unwrap();
    let key = LogKey::new("example.org/log", &[3; 32]).unwrap();
    let vkey = key.verifier().clone();
    let path = LogSigner::default_path(world.engine.store().path());
    let signer = Arc::new(LogSigner::open(world.engine.store(), key, &keys::key("operator"), path).unwrap());
    // Signed by the engine itself, soon after it grew.
    world.engine.keep_checkpoints(signer, Duration::from_millis(100), 1);
    let until = |size: u64, world: &World| {
        let url = world.url("/api/v1/checkpoint");
        let client = world.client.clone();
        async move {
            loop {
                let (status, _, text) = answer(client.get(&url).send().await.unwrap()).await;
                let note = (status == 200).then(|| SignedCheckpoint::parse(text.as_bytes()).unwrap());
                if let Some(note) = note.filter(|note| note.checkpoint().size >= size) {
                    return note;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let before = world.engine.store().last_position();
    let first = until(before, &world).await;
    assert_eq!(first.verify(&vkey).unwrap().size, before);
    world.record(&accepted(&self::script("log, another"))).await;
    world.engine.idle().await.unwrap();
    let now = world.engine.store().last_position();
    until(now, &world).await;
    let id = script.terms().deal_id();
    for (path, holds) in [
        (format!("/api/v1/proofs/inclusion?position=1&size={before}"), before),
        (format!("/api/v1/proofs/inclusion?position={now}"), now),
        (format!("/api/v1/proofs/consistency?from={before}"), now),
        (format!("/api/v1/proofs/head?deal_id={id}"), now),
        (format!("/api/v1/proofs/head?deal_id={}", terms("unknown").deal_id()), now),
    ] {
        let (status, _, body) = world.get(&path).await;
        assert_eq!(status, 200, "{path}: {body}");
        let evidence = Evidence::parse(body.as_bytes()).unwrap();
        assert_eq!(evidence.verify(&vkey).unwrap().size, holds, "{path}");
        // One hash that is another, and it does not hold; nor under another log's key.
        if let Some(at) = body.find("hashes\":[\"") {
            let mut forged = body.clone().into_bytes();
            let digit = &mut forged[at + 10];
            *digit = if *digit == b'A' { b'B' } else { b'A' };
            assert!(Evidence::parse(&forged).unwrap().verify(&vkey).is_err(), "{path}");
        }
        let other = LogKey::new("example.org/log", &[4; 32]).unwrap();
        assert!(evidence.verify(other.verifier()).is_err());
    }
    // Whoever only has the tiles computes the same root.
    let tile = world.client.get(world.url(&format!("/log/tile/0/000.p/{now}"))).send().await.unwrap();
    let tile = tile.bytes().await.unwrap();
    let leaves: Vec<Hash> = tile.chunks_exact(32).map(|hash| hash.try_into().unwrap()).collect();
    assert_eq!(crate::log::root(&leaves), until(now, &world).await.checkpoint().root);
    check_problem(404, "not-found", json_answer(world.get("/log/tile/0/000").await));
    let keys = world.get_json("/api/v1/log/keys").await;
    let certificate: LogCertificate = serde_json::from_value(keys["keys"][0].clone()).unwrap();
    assert_eq!((certificate.verify(), certificate.vkey), (Ok(()), vkey));
    check_problem(404, "not-found", json_answer(world.get("/api/v1/proofs/inclusion?position=999").await));
    check_problem(404, "not-signed", json_answer(world.get("/api/v1/checkpoint?size=1000").await));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_deals_and_escapes_what_others_wrote() {
    let world = World::new().await;
    let (status, kind, page) = world.get("/").await;
    assert_eq!((status.as_u16(), kind.as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.contains("No deal is recorded yet"), "{page}");
    let script = script("page");
    let mut envelopes = accepted(&script);
    *envelopes.last_mut().unwrap() = script.disputed("<script>alert(1)</script> & more");
    world.record(&envelopes).await;
    world.engine.idle().await.unwrap();
    let id = script.terms().deal_id();
    let (_, _, page) = world.get("/").await;
    assert!(page.contains(&format!("/deals/{id}")), "{page}");
    let (status, _, page) = world.get(&format!("/deals/{id}")).await;
    assert_eq!(status, 200);
    assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert"), "{page}");
    assert!(page.contains("tribunal bundle verify") && page.contains("verdict given"), "{page}");
    assert_eq!(world.get(&format!("/deals/{id}?at=1")).await.0, 200);
    assert_eq!(world.get("/deals/0x12").await.0, 400);
    assert_eq!(world.get(&format!("/deals/{}", terms("unknown").deal_id())).await.0, 404);
    let response = world.client.get(world.url("/")).send().await.unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_description_are_served() {
    let world = World::new().await;
    let script = script("metrics");
    world.record(&accepted(&script)).await;
    let refused = line(&Script::new(terms("metrics, never proposed")).accepted());
    check_problem(409, "refused", world.post("/api/v1/events", "application/json", refused).await);
    world.engine.idle().await.unwrap();
    assert_eq!(world.get_json("/readyz").await["ready"], true);
    let (_, kind, metrics) = world.get("/metrics").await;
    assert!(kind.starts_with("text/plain"), "{kind}");
    let last = world.engine.store().last_position();
    for expected in [
        format!("tribunal_log_position {last}\n"),
        format!("tribunal_events_recorded_total {last}\n"),
        "tribunal_events_refused_total{reason=\"unknown-deal\"} 1\n".into(),
        "tribunal_deals{state=\"settled\"} 1\n".into(),
        "tribunal_outbox_effects 0\n".into(),
        "tribunal_bus_lag_messages 0\n".into(),
        "tribunal_bus_connected 1\n".into(),
    ] {
        assert!(metrics.contains(&expected), "{expected}{metrics}");
    }
    let api = world.get_json("/api/v1/openapi.json").await;
    for path in api["paths"].as_object().unwrap().keys() {
        let mediator = format!("{:#x}", keys::address("m1"));
        let path = path.replace("{id}", &script.terms().deal_id().to_string()).replace("{address}", &mediator);
        let path = path.replace("{name}", "none").replace("{case}", &B256::ZERO.to_string());
        let status = if path.ends_with("stream") { continue } else { world.get(&path).await.0 };
        // No market is followed here, and that is said.
        let known: &[u16] = match path.as_str() {
            // Nothing is signed, and these ask for more than a path.
            path if path.starts_with("/api/v1/proofs/") => &[400],
            path if path.starts_with("/log/tile/") => &[400],
            path if path.starts_with("/api/v1/markets/") || path.ends_with("/checkpoint") => &[404],
            _ => &[200, 405],
        };
        assert!(known.contains(&status.as_u16()), "{path}: {status}");
    }
    let text = api.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(api["components"]["schemas"][name].is_object(), "{name}");
    }
    world.close().await;
}
