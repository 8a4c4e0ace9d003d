//! Sending events: `tribunal submit`, `sign` and `deals`, the binary and what is under it.

use std::{
    path::Path,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tribunal_engine::{
    bus::{Bus, NatsBus, NatsConfig, NatsServer, Outgoing, RECEIPTS},
    submit::{Operators, Patience, SendFault, send},
};
use tribunal_events::{Envelope, Party, Receipt, ReceiptStatus};
use tribunal_fixtures::keys;

use crate::http::{TOKEN, World, accepted, lines, script};

async fn tribunal(folder: &Path, args: &[&str]) -> Output {
    let (folder, args) = (folder.to_owned(), args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
    let run = move || Command::new(env!("CARGO_BIN_EXE_tribunal")).args(args).current_dir(folder).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Lines for machines: status and reason code of each.
fn statuses(output: &Output) -> Vec<(String, String)> {
    let text = |json: &Value| json.as_str().unwrap_or_default().to_owned();
    let line = |line: &str| {
        let json: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        (text(&json["status"]), text(&json["reason_code"]))
    };
    stdout(output).lines().map(line).collect()
}

fn pair(status: &str, code: &str) -> (String, String) {
    (status.into(), code.into())
}

async fn nats_world() -> (tempfile::TempDir, NatsServer, World) {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path()).unwrap();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    let world = World::over(Arc::new(bus), Some(TOKEN)).await;
    (folder, server, world)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_submitted_over_nats_and_http_alike() {
    let (folder, server, world) = nats_world().await;
    let http = format!("http://{}", world.address);
    for (to, name) in [(server.url(), "over nats"), (http, "over http")] {
        let script = script(name);
        let events = accepted(&script);
        let path = folder.path().join("events.jsonl");
        let mut text = lines(&events[..2]);
        text += "\nnot an envelope\n";
        // Out of turn, then in its turn: refused, then admitted, within the time in which a broker drops repeats.
        text += &lines(&[events[3].clone(), events[2].clone(), events[3].clone(), events[0].clone()]);
        std::fs::write(&path, text).unwrap();
        let args = ["submit", "events.jsonl", "--json", "--to", &to, "--token", TOKEN];
        let output = tribunal(folder.path(), &args).await;
        let expected = [
            pair("admitted", ""),
            pair("admitted", ""),
            pair("refused", "malformed"),
            pair("refused", "wrong-state"),
            pair("admitted", ""),
            pair("admitted", ""),
            pair("duplicate", ""),
        ];
        assert_eq!(statuses(&output), expected, "{output:?}");
        assert_eq!(output.status.code(), Some(1));
        std::fs::write(&path, lines(&events)).unwrap();
        let output = tribunal(folder.path(), &["submit", "events.jsonl", "--to", &to, "--token", TOKEN]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = stdout(&output);
        assert_eq!(text.matches("duplicate").count(), 4, "{text}");
        assert!(text.contains("version 1, position"), "{text}");
        let output = tribunal(
            folder.path(),
            &[
                "submit",
                "events.jsonl",
                "--to",
                &to,
                "--token",
                TOKEN,
                "--operator",
                &format!("{:#x}", keys::address("stranger")),
                "--timeout",
                "1",
            ],
        )
        .await;
        assert_eq!(output.status.code(), Some(69), "a receipt of another operator is none: {output:?}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_somebody_else_signed_is_none() {
    let (_folder, server, world) = nats_world().await;
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    let script = script("forged receipt");
    let proposed = script.proposed(Party::Client);
    let mut operators = Operators::default();
    operators.learn(&proposed);
    // A receipt that is there before the event is sent, by one who is not the operator.
    let forged = Receipt {
        event_id: proposed.event_id(),
        deal_id: script.terms().deal_id(),
        stream_version: 1,
        log_position: 99,
        status: ReceiptStatus::Admitted,
        reason_code: String::new(),
        reason: String::new(),
        domain: script.terms().domain(),
    };
    let subject = format!("receipts.{}.{}", script.terms().deal_id(), proposed.event_id());
    let forged = prost::Message::encode_to_vec(&forged.sign(&keys::key("stranger")));
    bus.publish(Outgoing::new(subject.clone(), forged)).await.unwrap();
    let patience = Patience { resend_after: Duration::from_millis(500), total: Duration::from_secs(30) };
    let answer = send(&bus, &proposed, &operators, patience).await.unwrap();
    assert_eq!((answer.signer, answer.receipt.log_position), (keys::address("operator"), 1));
    assert!(bus.find(RECEIPTS, &subject).await.unwrap().is_some());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_there_is_no_receipt_and_no_endless_wait() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path()).unwrap();
    let bus = NatsBus::connect(NatsConfig::new(server.url())).await.unwrap();
    let patience = Patience { resend_after: Duration::from_millis(100), total: Duration::from_millis(600) };
    let proposed = script("nobody").proposed(Party::Client);
    let fault = send(&bus, &proposed, &Operators::default(), patience).await.unwrap_err();
    assert!(matches!(fault, SendFault::NoReceipt(_)), "{fault}");
    // Sent several times under different message ids, so that an engine that comes later sees it.
    assert!(bus.last().await.unwrap() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_ends_with_the_right_code() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.jsonl"), lines(&[script("codes").proposed(Party::Client)])).unwrap();
    for (args, code) in [
        (&["submit", "events.jsonl", "--to", "nats://127.0.0.1:1"][..], 69),
        (&["submit", "events.jsonl", "--to", "http://127.0.0.1:1"], 69),
        (&["submit", "events.jsonl", "--to", "some/store"], 64),
        (&["submit", "missing.jsonl"], 64),
        (&["submit"], 64),
    ] {
        let output = tribunal(folder.path(), args).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

/// A development key file.
fn key_file(folder: &Path, name: &str) -> String {
    let key = keys::key(name);
    let json = json!({ "insecure_dev_key": format!("0x{}", hex::encode(**key.secret())), "address": key.address() });
    std::fs::write(folder.join(format!("{name}.json")), json.to_string()).unwrap();
    format!("{name}.json")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_by_hand_is_what_the_builders_sign() {
    let folder = tempfile::tempdir().unwrap();
    let (client, provider) = (key_file(folder.path(), "client"), key_file(folder.path(), "provider"));
    for on_chain in [true, false] {
        let script = if on_chain {
            tribunal_fixtures::Script::new(tribunal_fixtures::TermsBuilder::new("signed by hand").build())
        } else {
            script("signed by hand")
        };
        let terms = tribunal_events::json::to_value("Terms", script.terms().message());
        let event = json!({ "proposed": { "terms": terms, "seed_commitment": format!("0x{}", "00".repeat(32)) } });
        std::fs::write(folder.path().join("proposed.json"), event.to_string()).unwrap();
        let output = tribunal(folder.path(), &["sign", "proposed.json", "--key", &client]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        std::fs::write(folder.path().join("proposed.jsonl"), &output.stdout).unwrap();
        let signed = Envelope::decode(output.stdout.trim_ascii()).unwrap();
        assert_eq!(signed, script.proposed(Party::Client));
        std::fs::write(folder.path().join("accepted.json"), json!({ "accepted": {} }).to_string()).unwrap();
        let args = ["sign", "accepted.json", "--key", &client, "--terms", "proposed.jsonl"];
        let output = tribunal(folder.path(), &args).await;
        assert_eq!(Envelope::decode(output.stdout.trim_ascii()).unwrap(), script.accepted(), "{output:?}");
        let agreed = json!({ "agreed": { "seed_commitment": format!("0x{}", "00".repeat(32)), "holds_inputs": true } });
        std::fs::write(folder.path().join("agreed.json"), agreed.to_string()).unwrap();
        let args = ["sign", "agreed.json", "--key", &provider, "--terms", "proposed.json"];
        let output = tribunal(folder.path(), &args).await;
        assert_eq!(Envelope::decode(output.stdout.trim_ascii()).unwrap(), script.agreed(Party::Provider), "{output:?}");
    }
    let stranger = key_file(folder.path(), "stranger");
    std::fs::write(folder.path().join("empty.json"), "{}").unwrap();
    for args in [
        &["sign", "proposed.json", "--key", &stranger][..],
        &["sign", "accepted.json", "--key", &client],
        &["sign", "empty.json", "--key", &client],
        &["sign", "missing.json", "--key", &client],
        &["sign", "accepted.json", "--key", &client, "--chain-id", "1"],
    ] {
        let output = tribunal(folder.path(), args).await;
        assert_eq!(output.status.code(), Some(64), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deals_are_listed_and_shown_while_the_engine_runs() {
    let world = World::new().await;
    let script = script("listed");
    world.record(&accepted(&script)).await;
    world.engine.idle().await.unwrap();
    let id = script.terms().deal_id().to_string();
    let deals =
        async |args: &[&str]| tribunal(world.folder.path(), &[&["deals", "--store", "store"], args].concat()).await;
    let list = deals(&[]).await;
    assert_eq!(list.status.code(), Some(0), "{list:?}");
    let text = stdout(&list);
    assert!(text.contains("OUTCOME") && text.contains("accepted") && !text.contains('\x1b'), "{text}");
    let json: Value = serde_json::from_slice(&deals(&["list", "--json"]).await.stdout).unwrap();
    assert_eq!(json["deals"][0]["deal_id"], id, "{json:#}");
    let text = stdout(&deals(&["show", &id[..10]]).await);
    assert!(text.contains(&id) && text.contains("result submitted"), "{text}");
    let json: Value = serde_json::from_slice(&deals(&["show", &id, "--json", "--at", "2"]).await.stdout).unwrap();
    assert_eq!(json["state"], "agreed", "{json:#}");
    for (args, code) in [
        (&["show", &"0x00".repeat(32)[..66]][..], 64),
        (&["show", &format!("0x{}", "12".repeat(32))], 2),
        (&["show", "0xabcdef0123456789"], 2),
        (&["show", "0x"], 64),
    ] {
        assert_eq!(deals(args).await.status.code(), Some(code), "{args:?}");
    }
    world.close().await;
}
