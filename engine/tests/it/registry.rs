//! `tribunal mediator register, bond, unbond, collect, status` against anvil, as an operator types them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tribunal_contracts::{Addresses, Chain as _, IN_PROCESS_TREASURY, JsonRpcChain, Step};
use tribunal_engine::config;
use tribunal_events::{Address, Domain, SignedVerdict, VerdictKind};
use tribunal_fixtures::keys;

use crate::{
    dev_chain::anvil,
    remote_signer::{Conduct, Web3Signer},
};

const UNBOND_DELAY_S: u64 = 7 * 86_400;
const DEPLOYER_KEY: [u8; 32] =
    alloy_primitives::hex!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");

/// A development node of its own with the contracts on it, and a folder with settings and the key of m1.
struct World {
    child: Child,
    url: String,
    chain: JsonRpcChain,
    folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let mut child = Command::new(anvil())
            .args(["--host", "127.0.0.1", "--port", "0", "--chain-id", "31337", "--hardfork", "prague"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("anvil starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let listens = |line: String| line.trim().strip_prefix("Listening on ").map(str::to_owned);
        let address = lines.by_ref().map_while(Result::ok).find_map(listens).expect("anvil says where it listens");
        // Its pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        let url = format!("http://{address}");
        let chain = JsonRpcChain::deploy(&url, &DEPLOYER_KEY, IN_PROCESS_TREASURY, UNBOND_DELAY_S).await.unwrap();
        let this = Self { child, url, chain, folder: tempfile::tempdir().unwrap() };
        this.write_key("m1");
        this.configure("[mediator]\nkeystore = \"m1.json\"\n");
        this
    }

    fn addresses(&self) -> Addresses {
        self.chain.addresses()
    }

    fn write_key(&self, name: &str) {
        let key = keys::key(name);
        let text = json!({ "insecure_dev_key": format!("0x{}", hex::encode(**key.secret())),
            "address": format!("{:#x}", key.address()) });
        std::fs::write(self.folder.path().join(format!("{name}.json")), text.to_string()).unwrap();
    }

    fn configure(&self, mediator: &str) {
        let Addresses { token, registry, escrow } = self.addresses();
        let text = format!(
            "[chain]\nrpc_url = {:?}\nchain_id = 31337\n[chain.contracts]\nescrow = \"{escrow:#x}\"\nregistry = \
             \"{registry:#x}\"\ntoken = \"{token:#x}\"\n{mediator}",
            self.url
        );
        std::fs::write(self.folder.path().join("tribunal.toml"), text).unwrap();
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(&self.url).header("Content-Type", "application/json").body(body);
        let answer = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// One ether.
    async fn fund(&self, name: &str) {
        self.ask("anvil_setBalance", json!([keys::address(name), "0xde0b6b3a7640000"])).await;
    }

    async fn mint(&self, name: &str, amount: u64) {
        let selector = &alloy_primitives::keccak256("mint(address,uint256)")[..4];
        let data = [selector, &[0; 12], keys::address(name).as_slice(), &[0; 24], &amount.to_be_bytes()].concat();
        let data = format!("0x{}", hex::encode(data));
        let transaction = json!({ "from": self.chain.account(), "to": self.addresses().token, "data": data });
        self.ask("eth_sendTransaction", json!([transaction])).await;
    }

    async fn wait(&self, seconds: u64) {
        self.ask("evm_increaseTime", json!([seconds])).await;
        self.ask("evm_mine", json!([])).await;
    }

    fn run(&self, args: &[&str]) -> Output {
        run(args, self.folder.path())
    }

    fn good(&self, args: &[&str]) -> Value {
        let output = self.run(&[&["--json", "mediator"], args].concat());
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The sentence of a command that ends with this code.
    fn bad(&self, args: &[&str], code: i32) -> String {
        let output = self.run(&[&["mediator"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tribunal")).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn text(address: Address) -> String {
    format!("{address:#x}")
}

fn steps(value: &Value) -> Vec<&str> {
    value["transactions"].as_array().unwrap().iter().map(|it| it["step"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mediator_registers_bonds_unbonds_and_is_paid_out() {
    let world = World::new().await;
    world.fund("m1").await;
    world.mint("m1", 1000).await;
    let operator = text(keys::address("operator"));
    let register = ["register", "--operator", &operator, "--appointment-slash-max", "50", "--bond", "600"];
    let done = world.good(&register);
    assert_eq!(steps(&done), ["set-operator", "set-appointment-slash-max", "approve", "bond"]);
    assert_eq!((&done["bond"]["active"], &done["before"]["active"]), (&json!("600"), &json!("0")));
    let balance = world.ask("eth_getBalance", json!([keys::address("m1"), "latest"])).await;
    world.ask("anvil_setBalance", json!([keys::address("m1"), "0x0"])).await;
    assert!(steps(&world.good(&register)).is_empty(), "again: nothing that is so already, and nothing to pay for");
    world.ask("anvil_setBalance", json!([keys::address("m1"), balance])).await;

    let done = world.good(&["bond", "100"]);
    assert_eq!((&done["before"]["active"], &done["bond"]["active"]), (&json!("600"), &json!("700")));
    let sentence = world.bad(&["bond", "301"], 69);
    assert!(sentence.contains("has 300 of bond token") && sentence.contains("needs 301"), "{sentence}");

    let sentence = world.bad(&["unbond", "--finish"], 69);
    assert!(sentence.contains("nothing"), "{sentence}");
    let sentence = world.bad(&["unbond", "701"], 69);
    assert!(sentence.contains("700"), "{sentence}");
    let done = world.good(&["unbond", "200"]);
    assert_eq!((&done["bond"]["active"], &done["bond"]["unbonding"]), (&json!("500"), &json!("200")));
    let sentence = world.bad(&["unbond", "--finish"], 69);
    let left = ["in 7 d 0 h", "in 6 d 23 h"].iter().any(|left| sentence.contains(left));
    assert!(sentence.contains("200 is still on its way out") && left, "{sentence}");
    world.wait(UNBOND_DELAY_S).await;
    let shown = String::from_utf8(world.run(&["mediator", "status"]).stdout).unwrap();
    assert!(shown.contains("can be taken now"), "{shown}");
    assert_eq!(steps(&world.good(&["unbond", "--finish"])), ["finish-unbond"]);

    let stranger = text(keys::address("stranger"));
    let status = world.good(&["status", "--operator", &operator, "--operator", &stranger]);
    assert_eq!(status["mediator"], json!(text(keys::address("m1"))));
    assert_eq!((&status["bond"]["active"], &status["bond"]["unbonding"]), (&json!("500"), &json!("0")));
    assert_eq!(status["operators"], json!({ operator: true, stranger: false }));
    assert_eq!((&status["token_balance"], &status["owed"]), (&json!("500"), &json!("0")));
    assert_eq!(status["unbond_delay_s"], UNBOND_DELAY_S);
    let done = world.good(&["collect"]);
    assert!(steps(&done).is_empty() && done["collected"] == "0", "nothing is owed: {done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_alone_are_enough_and_status_needs_no_key() {
    let world = World::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let (registry, m1) = (text(world.addresses().registry), text(keys::address("m1")));
    let status = ["--json", "mediator", "status", "--rpc-url", &world.url, "--registry", &registry, "--address", &m1];
    let output = run(&status, elsewhere.path());
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!((&value["mediator"], &value["token"]), (&json!(m1), &json!(text(world.addresses().token))));

    std::fs::write(elsewhere.path().join("password"), "correct horse\n").unwrap();
    let new = run(&["--json", "keys", "new", "key.json", "--password-file", "password"], elsewhere.path());
    let account: Value = serde_json::from_slice(&new.stdout).unwrap();
    world.ask("anvil_setBalance", json!([account["address"], "0xde0b6b3a7640000"])).await;
    let register = ["mediator", "register", "--rpc-url", &world.url, "--registry", &registry, "--key", "key.json"];
    let register = [&register[..], &["--password-file", "password", "--operator", &m1]].concat();
    let output = run(&register, elsewhere.path());
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("sent     set-operator  0x"));
    let status = ["mediator", "status", "--rpc-url", &world.url, "--registry", &registry, "--key", "key.json"];
    let output = run(&status, elsewhere.path());
    assert!(output.status.success(), "the keystore names its account: {output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains(account["address"].as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_signer_sends_for_a_mediator_whose_key_is_not_here() {
    let world = World::new().await;
    let signer = Web3Signer::start("m2", Conduct::Honest);
    world.configure(&format!(
        "[mediator]\nsigner_url = {:?}\naddress = \"{:#x}\"\n",
        signer.url(),
        keys::address("m2")
    ));
    world.fund("m2").await;
    world.mint("m2", 10).await;
    let done = world.good(&["register", "--operator", &text(keys::address("operator")), "--bond", "10"]);
    assert_eq!(steps(&done), ["set-operator", "approve", "bond"]);
    let bond = world.chain.bond(keys::address("m2")).await.unwrap();
    assert_eq!(bond.active.to_string(), "10");
    drop(signer);
    let status = world.good(&["status"]);
    assert_eq!(status["bond"]["active"], "10", "status asks no signer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstoned_key_is_told_so() {
    let world = World::new().await;
    world.fund("m1").await;
    world.mint("m1", 1000).await;
    world.good(&["bond", "600"]);
    let domain = Domain::new(world.chain.chain_id(), world.addresses().escrow);
    let terms_hash = alloy_primitives::B256::repeat_byte(7);
    let [a, b] = [VerdictKind::Valid, VerdictKind::Invalid]
        .map(|it| SignedVerdict::sign(&keys::key("m1"), &domain, terms_hash, 0, it, 1, terms_hash));
    world.chain.perform(&Step::SlashEquivocation { terms_hash, a, b }).await.unwrap();
    for command in [&["bond", "1"][..], &["register", "--operator", &text(keys::address("operator"))]] {
        let sentence = world.bad(command, 69);
        assert!(sentence.contains("tombstoned") && sentence.contains("never bond again"), "{sentence}");
    }
    let shown = String::from_utf8(world.run(&["mediator", "status"]).stdout).unwrap();
    assert!(shown.contains("standing         tombstoned: it was shown to have signed two different"), "{shown}");
    assert_eq!(world.good(&["status"])["bond"]["tombstoned"], true);

    // The finder collects its tenth.
    let anvil = json!({ "insecure_dev_key": format!("0x{}", hex::encode(DEPLOYER_KEY)),
        "address": text(world.chain.account()) });
    std::fs::write(world.folder.path().join("finder.json"), anvil.to_string()).unwrap();
    assert_eq!(world.good(&["status", "--key", "finder.json"])["owed"], "60");
    let done = world.good(&["collect", "--key", "finder.json"]);
    assert_eq!((steps(&done), &done["collected"]), (vec!["collect"], &json!("60")));
    let after = world.good(&["status", "--key", "finder.json"]);
    assert_eq!((&after["owed"], &after["token_balance"]), (&json!("0"), &json!("60")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let world = World::new().await;
    let m1 = text(keys::address("m1"));
    let operator = text(keys::address("operator"));
    // No gas, then hardly any.
    for balance in ["0x0", "0x1"] {
        world.ask("anvil_setBalance", json!([m1, balance])).await;
        let sentence = world.bad(&["register", "--operator", &operator], 69);
        assert!(sentence.contains(&m1) && sentence.contains("gas"), "{balance}: {sentence}");
    }
    world.fund("m1").await;
    let sentence = world.bad(&["bond", "5"], 69);
    assert!(sentence.contains("has 0 of bond token"), "{sentence}");
    // Addresses of something else.
    let token = text(world.addresses().token);
    for wrong in [["--registry", &token], ["--registry", &m1], ["--token", &m1], ["--escrow", &token]] {
        world.bad(&["status", wrong[0], wrong[1]], 78);
    }
    // The engine says so, too, before it starts.
    let settings = std::fs::read_to_string(world.folder.path().join("tribunal.toml")).unwrap();
    let settings =
        settings.replace("chain_id = 31337", "keystore = \"m1.json\"").replace(&text(world.addresses().escrow), &m1);
    std::fs::write(world.folder.path().join("wrong.toml"), settings).unwrap();
    let output = world.run(&["serve", "--config", "wrong.toml", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    world.configure("");
    let sentence = world.bad(&["bond", "5"], 78);
    assert!(sentence.contains("mediator.keystore"), "{sentence}");
    // Another chain than the settings say.
    let text = std::fs::read_to_string(world.folder.path().join("tribunal.toml")).unwrap();
    std::fs::write(world.folder.path().join("tribunal.toml"), text.replace("31337", "1")).unwrap();
    let sentence = world.bad(&["status", "--address", &m1], 78);
    assert!(sentence.contains("31337"), "{sentence}");
}

/// A door before a node that lets no more reads through once a transaction went in.
fn closing_door(node: &str) -> String {
    let (node, listener) = (node.to_owned(), TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sent = Arc::new(AtomicBool::new(false));
    let pass = move |mut client: TcpStream, node: &str, sent: &AtomicBool| -> std::io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim().to_ascii_lowercase().strip_prefix("content-length:") {
                Some(value) => length = value.trim().parse().unwrap_or(0),
                None if line.trim().is_empty() => break,
                None => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if text.contains("eth_sendRawTransaction") {
            sent.store(true, Ordering::SeqCst);
        } else if text.contains("\"eth_call\"") && sent.load(Ordering::SeqCst) {
            return client
                .write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        let mut upstream = TcpStream::connect(node)?;
        let head =
            format!("POST / HTTP/1.1\r\nHost: {node}\r\nContent-Type: application/json\r\nConnection: close\r\n");
        upstream.write_all(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes())?;
        upstream.write_all(&body)?;
        let mut heard = Vec::new();
        upstream.read_to_end(&mut heard)?;
        client.write_all(&heard)
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (node, sent) = (node.clone(), Arc::clone(&sent));
            std::thread::spawn(move || pass(stream, node.trim_start_matches("http://"), &sent));
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_told_where_the_bond_cannot_be_read_again() {
    let world = World::new().await;
    world.fund("m1").await;
    world.mint("m1", 1000).await;
    world.good(&["bond", "600"]);
    let door = closing_door(&world.url);
    let sentence = world.bad(&["unbond", "200", "--rpc-url", &door], 69);
    assert!(sentence.contains("sent unbond 0x") && sentence.contains("do not repeat it"), "{sentence}");
    let door = closing_door(&world.url);
    let sentence = world.bad(&["bond", "300", "--rpc-url", &door], 69);
    assert!(sentence.contains("sent approve 0x") && sentence.contains(", bond 0x"), "{sentence}");
    assert_eq!(world.good(&["status"])["bond"]["unbonding"], "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_deploy_prints_is_a_configuration() {
    let world = World::new().await;
    world.fund("m1").await;
    let output = world.run(&["contracts", "deploy", "--rpc-url", &world.url, "--key", "m1.json"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    std::fs::write(world.folder.path().join("deployed.toml"), &text).unwrap();
    let (config, _) = config::load(Some(&world.folder.path().join("deployed.toml")), &[]).unwrap();
    assert!(config.chain.first_block > world.chain.first_block(), "{text}");
    world.good(&["status", "--config", "deployed.toml", "--key", "m1.json"]);
}

#[test]
fn a_node_that_is_away_ends_with_69_and_no_chain_with_78() {
    let folder = tempfile::tempdir().unwrap();
    let m1 = text(keys::address("m1"));
    let away = ["mediator", "status", "--rpc-url", "http://127.0.0.1:1/secret", "--registry", &m1, "--address", &m1];
    let output = run(&away, folder.path());
    let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{sentence}");
    assert!(sentence.contains("cannot be reached") && !sentence.contains("secret"), "{sentence}");
    let output = run(&["mediator", "status", "--address", &m1], folder.path());
    let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{sentence}");
    assert!(sentence.contains("play money"), "{sentence}");
    let output = run(&["mediator", "unbond"], folder.path());
    assert_eq!(output.status.code(), Some(64), "an amount or --finish");
}
