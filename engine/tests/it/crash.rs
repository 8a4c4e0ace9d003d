//! Kills an engine at random moments under load and looks at what is left.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use tribunal_engine::{
    bus::{Bus, NatsBus, NatsConfig, NatsServer, Outgoing},
    effects::outgoing,
    replay::load,
    store::{Fsync, Store},
};
use tribunal_events::{Party, proto};
use tribunal_fixtures::{Script, TermsBuilder, keys::key};

/// How often the engine is killed.
const KILLS: u32 = 12;
const DEALS: usize = 150;

fn engine(folder: &Path, url: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tribunal"))
        .args(["serve", "--bus-url", url, "--listen", "127.0.0.1:0", "--store"])
        .arg(folder.join("store"))
        .env("TRIBUNAL_OPERATOR__KEYSTORE", folder.join("operator.json"))
        .env("RUST_LOG", "info")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until the engine has recorded something in this run, or has nothing left to record.
fn wait_for_a_record(child: &mut Child, most: Duration) {
    let stderr = child.stderr.take().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if line.contains("event recorded") {
                let _ = sender.send(());
            }
        }
    });
    let _ = receiver.recv_timeout(most);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_the_engine_records_every_event_once_and_ends_in_the_same_state() {
    let folder = tempfile::tempdir().unwrap();
    let operator = key("operator");
    let plain = serde_json::json!({
        "insecure_dev_key": format!("0x{}", hex::encode(operator.secret().as_slice())),
        "address": operator.address(),
    });
    std::fs::write(folder.path().join("operator.json"), plain.to_string()).unwrap();
    let server = NatsServer::start(folder.path().join("nats")).unwrap();
    let bus: Arc<dyn Bus> = Arc::new(NatsBus::connect(NatsConfig::new(server.url())).await.unwrap());

    // Every deal is proposed, agreed, delivered and accepted; none needs a contract, so nothing outside can differ.
    let mut messages: Vec<Vec<Outgoing>> = Vec::new();
    let mut ids = Vec::new();
    for number in 0..DEALS {
        let terms = TermsBuilder::new(&format!("crash {number}")).without_contract().agree_by_s(4_000_000_000).build();
        let script = Script::new(terms);
        ids.push(script.terms().deal_id());
        let claim = proto::Claim {
            stdout: tribunal_events::ContentAddress::of(b"").to_string(),
            instruction_count: 1,
            ..proto::Claim::default()
        };
        let events = [
            script.proposed(Party::Client),
            script.agreed(Party::Provider),
            script.result_submitted(claim),
            script.accepted(),
        ];
        messages.push(events.iter().map(|envelope| outgoing(envelope).unwrap()).collect());
    }
    let publisher = {
        let (bus, messages) = (Arc::clone(&bus), messages.clone());
        tokio::spawn(async move {
            for step in 0..4 {
                for deal in &messages {
                    bus.publish(deal[step].clone()).await.unwrap();
                }
            }
        })
    };
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..KILLS {
        let mut child = engine(folder.path(), &server.url());
        wait_for_a_record(&mut child, Duration::from_secs(10));
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // A random moment is the point here, not a wait for something to happen.
        tokio::time::sleep(Duration::from_micros(seed % 60_000)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    publisher.await.unwrap();

    let mut child = engine(folder.path(), &server.url());
    let drain = child.stderr.take().unwrap();
    std::thread::spawn(move || BufReader::new(drain).lines().map_while(Result::ok).for_each(drop));
    let give_up = Instant::now() + Duration::from_secs(120);
    let complete = |store: &Store| ids.iter().all(|id| matches!(load(store, id), Ok(Some(deal)) if deal.is_settled()));
    loop {
        if let Ok(store) = Store::open_read_only(folder.path().join("store"))
            && complete(&store)
        {
            break;
        }
        assert!(Instant::now() < give_up, "not all deals were settled in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let store = Store::open(folder.path().join("store"), Fsync::Always).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for (expected, record) in (1..).zip(store.log(1)) {
        let record = record.unwrap();
        assert_eq!(record.position, expected, "positions are gapless");
        assert!(seen.insert(record.event_id), "event {} was recorded twice", record.event_id);
    }
    for (id, events) in ids.iter().zip(&messages) {
        let kinds: Vec<_> = store.stream(id, 1).map(|record| record.unwrap().event_id).collect();
        for message in events {
            let sent = message.message_id.clone().unwrap();
            assert_eq!(kinds.iter().filter(|id| id.to_string() == sent).count(), 1, "each event once");
        }
    }
    store.check(|_| {}).unwrap();
}
