//! A development node.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

/// The first account of development chains.
pub const DEPLOYER_KEY: [u8; 32] =
    alloy_primitives::hex!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
/// The second.
pub const OTHER_KEY: [u8; 32] =
    alloy_primitives::hex!("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d");

/// A node of its own, ended with the value.
pub struct Anvil {
    child: Child,
    pub url: String,
}

impl Anvil {
    /// Starts it on a free port and waits until it listens.
    pub fn start() -> Self {
        let mut child = Command::new(binary())
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
        Self { child, url: format!("http://{address}") }
    }

    /// Asks it something.
    pub async fn ask(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(&self.url).header("Content-Type", "application/json").body(body);
        let answer = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Its newest block's number.
    pub async fn head(&self) -> u64 {
        let head = self.ask("eth_blockNumber", json!([])).await;
        u64::from_str_radix(head.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> PathBuf {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts/node_modules/@foundry-rs");
    let packages = std::fs::read_dir(&modules).into_iter().flatten().flatten();
    let found = packages.map(|entry| entry.path().join("bin/anvil")).find(|path| path.is_file());
    found.expect("this test runs against anvil; install it with: make node")
}
