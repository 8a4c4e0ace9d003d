//! A nats-server set up as in `packaging/nats`: who is let in, what each may say and hear.

use std::{
    collections::BTreeSet,
    future::Future,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use async_nats::{
    RequestErrorKind, Subscriber,
    jetstream::consumer::{AckPolicy, pull},
};
use futures::{FutureExt as _, StreamExt as _, future::join_all};
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tribunal_engine::{
    bus::{
        BatchLimits, Bus as _, BusFault, BusPartition, NatsBus, NatsConfig, NatsServer, NatsServerOptions, Outgoing,
        RECEIPTS, WORK,
    },
    submit::{Operators, Patience, send},
    work::WorkQueue,
    worker::Worker,
};
use tribunal_events::{DealId, Party};
use tribunal_fixtures::keys;
use tribunal_verifiers::{OperatorLimits, Request, Service};

use crate::{
    http::{World, script},
    python_verifier::python,
};

const ACCOUNTS: &str = include_str!("../../packaging/nats/accounts.conf");
/// Longest wait for anything; a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a server knows its users.
#[derive(Clone, Copy, Debug)]
enum Login {
    /// By the public keys in `accounts.conf`.
    Nkeys,
    /// By JWTs that an operator signed.
    Credentials,
}

const LOGINS: [Login; 2] = [Login::Nkeys, Login::Credentials];

/// A server with the accounts of `packaging/nats`, and the keys of all its users.
struct Site {
    server: NatsServer,
    folder: TempDir,
    login: Login,
}

impl Site {
    fn new(login: Login) -> Self {
        Self::with(login, ACCOUNTS, "")
    }

    fn with(login: Login, accounts: &str, more: &str) -> Self {
        let folder = keys_of_a_site();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let known = match login {
            Login::Nkeys => read("nkeys.conf") + accounts,
            Login::Credentials => read("operator.conf"),
        };
        let options = NatsServerOptions { config: format!("{known}\n{more}"), ..NatsServerOptions::default() };
        let server = NatsServer::start_with(folder.path().join("server"), options);
        Self { server: server.unwrap_or_else(|fault| panic!("{login:?}: {fault}")), folder, login }
    }

    fn config(&self, user: &str) -> NatsConfig {
        let file = |kind: &str| Some(self.folder.path().join(format!("{user}.{kind}")));
        let config = NatsConfig { sender_only: user != "engine", ..NatsConfig::new(self.server.url()) };
        match self.login {
            Login::Nkeys => NatsConfig { nkey: file("nk"), ..config },
            Login::Credentials => NatsConfig { credentials: file("creds"), ..config },
        }
    }

    async fn connect(&self, user: &str) -> NatsBus {
        NatsBus::connect(self.config(user)).await.unwrap_or_else(|fault| panic!("{user}: {fault}"))
    }
}

/// Fresh keys and credentials in a folder.
fn keys_of_a_site() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (made, said) = python("nats_jwt.py", &[folder.path()]);
    assert!(made, "{said}");
    folder
}

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/nats").join(file)
}

fn tls(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(file)
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing happened for a minute")
}

/// What somebody at the door is told; nothing where he is let in.
async fn refusal(config: NatsConfig) -> Option<BusFault> {
    // A sender: the door alone keeps him out, not what he may do inside.
    in_time(NatsBus::connect(NatsConfig { sender_only: true, ..config })).await.err()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_let_in_by_its_key_and_strangers_are_not() {
    for login in LOGINS {
        let site = Site::new(login);
        let engine = site.connect("engine").await;
        assert_eq!(engine.publish(Outgoing::new("deals.0xaa.agreed", b"event".to_vec())).await.unwrap(), 1);
        assert_eq!(engine.last().await.unwrap(), 1);
        for config in [site.config("stranger"), NatsConfig::new(site.server.url())] {
            let fault = refusal(config).await;
            assert!(matches!(fault, Some(BusFault::Unreachable { .. })), "{login:?}: {fault:?}");
        }
        // A party is let in, and is no engine.
        assert!(refusal(site.config("alice")).await.is_none(), "{login:?}");
        let fault = in_time(NatsBus::connect(NatsConfig { sender_only: false, ..site.config("alice") })).await.err();
        assert!(fault.is_some_and(|fault| !matches!(fault, BusFault::Unreachable { .. })), "{login:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_tls_asks_for_a_certificate_besides_the_key() {
    let quoted = |file: &str| json!(tls(file)).to_string();
    let (cert, key, ca) = (quoted("server.pem"), quoted("server.key"), quoted("authority.pem"));
    let block = format!("tls {{\n cert_file: {cert}\n key_file: {key}\n ca_file: {ca}\n verify: true\n timeout: 5\n}}");
    for login in LOGINS {
        let site = Site::with(login, ACCOUNTS, &block);
        let certified = |user: &str| NatsConfig {
            tls_ca: Some(tls("authority.pem")),
            tls_cert: Some(tls("client.pem")),
            tls_key: Some(tls("client.key")),
            ..site.config(user)
        };
        let engine = in_time(NatsBus::connect(certified("engine"))).await.unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(engine.publish(Outgoing::new("deals.0xaa.agreed", b"event".to_vec())).await.unwrap(), 1);
        let by_scheme = NatsConfig { url: site.server.url().replace("nats://", "tls://"), ..certified("alice") };
        assert!(refusal(by_scheme).await.is_none(), "{login:?}");
        for (what, config) in [
            ("no certificate", NatsConfig { tls_cert: None, tls_key: None, ..certified("engine") }),
            (
                "an authority that the server's is not from",
                NatsConfig { tls_ca: Some(tls("client.pem")), ..certified("engine") },
            ),
            ("no key", NatsConfig { nkey: None, credentials: None, ..certified("engine") }),
            ("a stranger's key", certified("stranger")),
        ] {
            let fault = refusal(config).await;
            assert!(matches!(fault, Some(BusFault::Unreachable { .. })), "{login:?}, {what}: {fault:?}");
        }
        let halves = NatsConfig { tls_key: None, ..certified("engine") };
        let fault = refusal(halves).await;
        assert!(matches!(fault, Some(BusFault::Credentials { .. })), "{login:?}: {fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_sends_an_event_and_finds_the_receipt_by_its_name_alone() {
    for login in LOGINS {
        let site = Site::new(login);
        let world = World::over(Arc::new(site.connect("engine").await), None).await;
        let (alice, bob) = (site.connect("alice").await, site.connect("bob").await);
        let script = script("sent by a party");
        let proposed = script.proposed(Party::Client);
        let operators = Operators::given(Some(keys::address("operator")));
        let answer = send(&alice, &proposed, &operators, Patience::default()).await.unwrap();
        assert_eq!((answer.word(), answer.receipt.log_position), ("admitted", 1), "{login:?}");

        // Bob found both names somewhere; one of them is not enough.
        let (deal, event) = (script.terms().deal_id(), proposed.event_id());
        assert!(bob.find(RECEIPTS, &format!("receipts.{deal}.{event}")).await.unwrap().is_some(), "{login:?}");
        assert!(bob.find(RECEIPTS, &format!("receipts.{deal}.{deal}")).await.unwrap().is_none(), "{login:?}");
        let guesses =
            ["*.*".into(), "*.>".into(), ">.*".into(), format!("{deal}.*"), format!("{deal}.>"), format!("*.{event}")];
        let guesses = guesses.map(|guess| format!("receipts.{guess}"));
        let found = in_time(join_all(guesses.iter().map(|guess| bob.find(RECEIPTS, guess)))).await;
        for (guess, found) in guesses.iter().zip(found) {
            assert!(!matches!(found, Ok(Some(_))), "{login:?}: {guess} found {found:?}");
        }
        world.close().await;
    }
}

/// A subject of each kind there is, ours and the server's.
const SUBJECTS: [&str; 46] = [
    "deals.0xaa.agreed",
    "deals.0.0xaa.agreed",
    "verdicts.0xaa",
    "receipts.0xaa.0xee",
    "refused.malformed",
    "slots.0xa.0xb.1",
    "fences.0xa.DEALS",
    "work.verify",
    "results.aa",
    "results.aa.bb",
    "cancel.work",
    "cancel.verify",
    "verifiers.example",
    "verifiers.example.more",
    "tribunal.deal",
    "tribunal.partition.0.deal",
    "fetch.receipts.0xaa.0xee",
    "engine.STREAM.INFO.DEALS",
    "_INBOX.aa.bb",
    "_R_.aa.bb",
    "$SRV.PING",
    "$SYS.REQ.SERVER.PING",
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.CREATE.MINE",
    "$JS.API.STREAM.UPDATE.DEALS",
    "$JS.API.STREAM.INFO.DEALS",
    "$JS.API.STREAM.INFO.WORK",
    "$JS.API.STREAM.DELETE.DEALS",
    "$JS.API.STREAM.PURGE.WORK",
    "$JS.API.STREAM.MSG.GET.DEALS",
    "$JS.API.STREAM.MSG.GET.RECEIPTS",
    "$JS.API.STREAM.MSG.DELETE.WORK",
    "$JS.API.DIRECT.GET.RECEIPTS",
    "$JS.API.DIRECT.GET.RECEIPTS.receipts.0xaa.0xee",
    "$JS.API.DIRECT.GET.RECEIPTS.receipts.0xaa.*",
    "$JS.API.CONSUMER.CREATE.DEALS",
    "$JS.API.CONSUMER.CREATE.WORK.workers",
    "$JS.API.CONSUMER.DURABLE.CREATE.WORK.workers",
    "$JS.API.CONSUMER.DELETE.WORK.workers",
    "$JS.API.CONSUMER.INFO.WORK.workers",
    "$JS.API.CONSUMER.MSG.NEXT.WORK.workers",
    "$JS.API.CONSUMER.MSG.NEXT.DEALS.any",
    "$JS.ACK.WORK.workers.1.1.1.1.1",
    "$JS.ACK.DEALS.any.1.1.1.1.1",
];
const OF_A_PARTY: [&str; 3] = ["$JS.API.DIRECT.GET.RECEIPTS.receipts.0xaa.0xee", "tribunal.deal", "deals.0xaa.agreed"];
const OF_A_WORKER: [&str; 6] = [
    "$JS.API.STREAM.INFO.WORK",
    "$JS.API.CONSUMER.INFO.WORK.workers",
    "$JS.API.CONSUMER.MSG.NEXT.WORK.workers",
    "$JS.ACK.WORK.workers.1.1.1.1.1",
    "verifiers.example",
    "results.aa",
];

/// All that arrives in the engine's account from here on.
async fn everything(engine: &NatsBus) -> Subscriber {
    let heard = engine.client().subscribe(">").await.unwrap();
    // A question and its answer on the same connection: the server has the subscription by then.
    engine.last().await.unwrap();
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn parties_and_workers_reach_nothing_of_the_engine_but_what_is_theirs() {
    for login in LOGINS {
        let site = Site::new(login);
        let engine = site.connect("engine").await;
        for (user, own) in [("alice", &OF_A_PARTY[..]), ("bob", &OF_A_PARTY), ("worker", &OF_A_WORKER)] {
            let mut heard = everything(&engine).await;
            let bus = site.connect(user).await;
            let say = async |subject: &str, word: &'static str| {
                let (client, inbox) = (bus.client(), bus.client().new_inbox());
                client.publish_with_reply(subject.to_owned(), inbox, word.into()).await.unwrap();
            };
            for subject in SUBJECTS.iter().filter(|subject| !own.contains(subject)) {
                say(subject, "forbidden").await;
            }
            // What a connection says arrives in order: all the forbidden would be there before these.
            for subject in own {
                say(subject, "allowed").await;
            }
            let own: BTreeSet<_> = own.iter().map(|subject| (*subject).to_owned()).collect();
            let mut arrived = BTreeSet::new();
            while arrived.len() < own.len() {
                let message = in_time(heard.next()).await.unwrap();
                assert_ne!(message.payload, "forbidden", "{login:?}: {user} reached {}", message.subject);
                if message.payload == "allowed" {
                    arrived.insert(message.subject.to_string());
                }
            }
            assert_eq!(arrived, own, "{login:?}: {user}");
        }
        // Nothing of this was stored where it should not be.
        assert_eq!(engine.last().await.unwrap(), 2, "{login:?}");
    }
}

/// What goes through the engine's account, one of each.
const SAID: [&str; 14] = [
    "deals.0xaa.agreed",
    "verdicts.0xaa",
    "receipts.0xaa.0xee",
    "refused.malformed",
    "slots.0xa.0xb.1",
    "fences.0xa.DEALS",
    "work.verify",
    "results.aa",
    "cancel.work",
    "cancel.verify",
    "verifiers.other",
    "tribunal.partition.0.deal",
    "_INBOX.aa.bb",
    "$SRV.PING",
];
const LISTENED: [&str; 15] = [
    ">",
    "*.*",
    "deals.>",
    "verdicts.>",
    "receipts.>",
    "receipts.0xaa.0xee",
    "refused.>",
    "slots.>",
    "fences.>",
    "work.>",
    "results.>",
    "cancel.*",
    "cancel.work",
    "verifiers.*",
    "_INBOX.>",
];

#[tokio::test(flavor = "multi_thread")]
async fn parties_and_workers_hear_nothing_of_the_engine_but_cancellations() {
    for login in LOGINS {
        let site = Site::new(login);
        let engine = site.connect("engine").await;
        for (user, door, own) in
            [("alice", "tribunal.deal", &[][..]), ("worker", "verifiers.example", &["cancel.work"])]
        {
            let mut asked = engine.client().subscribe(door).await.unwrap();
            engine.last().await.unwrap();
            let bus = site.connect(user).await;
            let mut heard = Vec::new();
            for pattern in LISTENED {
                heard.push((pattern, bus.client().subscribe(pattern).await.unwrap()));
            }
            // The question comes after the subscriptions, and the answer after all that the engine said before it.
            let asking = bus.client().request(door, "question".into());
            let answering = async {
                let question = asked.next().await.unwrap();
                for subject in SAID {
                    engine.client().publish(subject, "secret".into()).await.unwrap();
                }
                engine.client().publish(question.reply.unwrap(), "answer".into()).await.unwrap();
            };
            let (answer, ()) = in_time(async { tokio::join!(asking, answering) }).await;
            assert_eq!(answer.unwrap().payload, "answer", "{login:?}: {user}");
            let mut secrets = BTreeSet::new();
            for (pattern, subscriber) in &mut heard {
                while let Some(Some(message)) = subscriber.next().now_or_never() {
                    if message.payload == "secret" {
                        assert_eq!(*pattern, message.subject.as_str(), "{login:?}: {user}");
                        secrets.insert(message.subject.to_string());
                    }
                }
            }
            assert_eq!(
                secrets,
                own.iter().map(|subject| (*subject).to_owned()).collect::<BTreeSet<_>>(),
                "{login:?}: {user}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verifier_hears_its_questions_and_answers_each_once() {
    for login in LOGINS {
        let site = Site::new(login);
        let engine = site.connect("engine").await;
        let verifier = site.connect("verifier").await;
        let mut heard = Vec::new();
        for pattern in LISTENED {
            heard.push((pattern, verifier.client().subscribe(pattern).await.unwrap()));
        }
        let mut questions = verifier.client().subscribe("verifiers.example").await.unwrap();
        let mut arriving = everything(&engine).await;
        let ask = async || loop {
            match engine.client().request("verifiers.example", "question".into()).await {
                Ok(answer) => break answer,
                // Its subscription is on the way.
                Err(error) if error.kind() == RequestErrorKind::NoResponders => tokio::task::yield_now().await,
                Err(error) => panic!("{login:?}: {error}"),
            }
        };
        let mut answer = async |words: &'static [&'static str]| {
            let reply = questions.next().await.unwrap().reply.unwrap();
            for word in words {
                verifier.client().publish(reply.clone(), (*word).into()).await.unwrap();
            }
        };
        in_time(async { tokio::join!(ask(), answer(&["answer", "forbidden"])) }).await;
        for subject in SUBJECTS {
            verifier.client().publish(subject, "forbidden".into()).await.unwrap();
        }
        for subject in SAID {
            engine.client().publish(subject, "secret".into()).await.unwrap();
        }
        let (last, ()) = in_time(async { tokio::join!(ask(), answer(&["last"])) }).await;
        assert_eq!(last.payload, "last", "{login:?}");
        loop {
            let message = in_time(arriving.next()).await.unwrap();
            assert_ne!(message.payload, "forbidden", "{login:?}: {}", message.subject);
            if message.payload == "last" {
                break;
            }
        }
        for (pattern, subscriber) in &mut heard {
            let message = subscriber.next().now_or_never().flatten();
            assert!(message.is_none(), "{login:?}: {pattern} hears {message:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_its_few_rights_does_all_that_a_worker_does() {
    for login in LOGINS {
        let site = Site::new(login);
        let engine = site.connect("engine").await;
        // As a worker makes it where it may; here it may not.
        let workers = pull::Config {
            durable_name: Some("workers".into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(30),
            max_deliver: -1,
            max_ack_pending: 10_000,
            ..pull::Config::default()
        };
        engine.jetstream().get_stream(WORK).await.unwrap().create_consumer(workers).await.unwrap();
        let service = Arc::new(Service::new(OperatorLimits::default(), Vec::new()));
        let worker = Worker::new(site.connect("worker").await, service, keys::key("worker"), 1);
        let cancel = CancellationToken::new();
        let running = tokio::spawn(worker.run(cancel.clone()));
        let queue = WorkQueue::new(engine.clone(), [keys::address("worker")]);
        let request = json!({
            "method": { "kind": "external", "verifier": "nobody" },
            "comparator": { "kind": "exact" }
        });
        let request = Request::parse(&request.to_string()).unwrap();
        let (verdict, by) = in_time(queue.verify(&request, PATIENCE)).await.unwrap();
        assert_eq!((verdict["verdict"].as_str(), by), (Some("inconclusive"), keys::address("worker")), "{login:?}");
        cancel.cancel();
        in_time(running).await.unwrap().unwrap();
        // The job is acknowledged: the queue is empty.
        let work = engine.jetstream().get_stream(WORK).await.unwrap();
        assert_eq!(work.cached_info().state.messages, 0, "{login:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_puts_a_partys_event_into_the_partition_of_its_deal() {
    const COUNT: u32 = 4;
    let mapped =
        ACCOUNTS.replace("# \"deals.*.*\": \"deals.{{partition(4,1)}}", "\"deals.*.*\": \"deals.{{partition(4,1)}}");
    assert_ne!(mapped, ACCOUNTS);
    let site = Site::with(Login::Nkeys, &mapped, "");
    let mut engines = Vec::new();
    for index in 0..COUNT {
        let partition = BusPartition::new(index, COUNT);
        assert!(partition.is_some());
        engines.push(NatsBus::connect(NatsConfig { partition, ..site.config("engine") }).await.unwrap());
    }
    let alice = site.connect("alice").await;
    let mut counts = [0; COUNT as usize];
    for number in 0..64u8 {
        let deal = DealId::of_terms(&[number]);
        let count = &mut counts[BusPartition::new(0, COUNT).unwrap().of(&deal) as usize];
        *count += 1;
        // The acknowledgement is that of the partition's stream.
        let sequence = alice.publish(Outgoing::new(format!("deals.{deal}.agreed"), vec![number])).await.unwrap();
        assert_eq!(sequence, *count);
    }
    for (engine, count) in engines.iter().zip(counts) {
        assert_eq!((engine.last().await.unwrap(), count > 0), (count, true));
        let mut consumer = engine.consume(None).await.unwrap();
        let message = &in_time(consumer.next_batch(BatchLimits::default())).await.unwrap()[0];
        let deal = DealId::of_terms(&message.payload);
        assert_eq!(message.subject, format!("deals.{deal}.agreed"));
    }
}

#[test]
fn the_configurations_are_ones_that_the_server_takes() {
    let site = keys_of_a_site();
    let example = std::fs::read_to_string(packaging("nats.env")).unwrap();
    let known = std::fs::read_to_string(site.path().join("nkeys.conf")).unwrap();
    let settings: Vec<(&str, String)> = example
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| {
            let value = match name {
                "NATS_TLS_CERT" => tls("server.pem").display().to_string(),
                "NATS_TLS_KEY" => tls("server.key").display().to_string(),
                "NATS_TLS_CA" => tls("authority.pem").display().to_string(),
                key if key.ends_with("_NKEY") => {
                    let line = known.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
                    line.unwrap_or_else(|| panic!("{key} is nobody's")).to_owned()
                }
                _ => value.to_owned(),
            };
            (name, value)
        })
        .collect();
    for file in ["single.conf", "cluster.conf"] {
        let read = |settings: &[(&str, String)]| {
            let mut server = Command::new(NatsServerOptions::default().program);
            server.arg("-t").arg("-c").arg(packaging(file)).envs(settings.iter().map(|(name, value)| (name, value)));
            server.output().unwrap()
        };
        let output = read(&settings);
        assert!(output.status.success(), "{file}: {output:?}");
        // Each line of the example is needed: none is there that means nothing.
        for missing in 0..settings.len() {
            let mut fewer = settings.clone();
            let (name, _) = fewer.remove(missing);
            let for_a_cluster = name.starts_with("NATS_CLUSTER") || name.starts_with("NATS_ROUTE");
            assert_eq!(read(&fewer).status.success(), for_a_cluster && file == "single.conf", "{file} without {name}");
        }
    }
}
