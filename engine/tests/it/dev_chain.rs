//! A development node of its own, with whatever contracts a test wants on it.

use std::path::Path;

use alloy_primitives::{Address, B256, Bytes, address};
use alloy_sol_types::SolCall;
use serde_json::{Value, json};

use crate::anvil::Anvil;

/// The first account of development chains; it has money and deploys.
pub const DEPLOYER: Address = address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266");

/// Ended with the value.
pub struct DevChain {
    anvil: Anvil,
    client: reqwest::Client,
}

/// What a transaction did.
pub struct Receipt {
    pub contract: Option<Address>,
    /// Contract, topics, data.
    pub logs: Vec<(Address, Vec<B256>, Bytes)>,
}

impl DevChain {
    pub fn start() -> Self {
        tribunal_contracts::install_tls();
        Self { anvil: Anvil::start(), client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    pub fn url(&self) -> &String {
        &self.anvil.url
    }

    pub async fn ask(&self, method: &str, params: Value) -> Value {
        self.anvil.ask(method, params).await
    }

    async fn try_ask(&self, method: &str, params: Value) -> Result<Value, Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let request = self.client.post(self.url()).header("Content-Type", "application/json").body(body);
        let answer = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        if answer["error"].is_null() { Ok(answer["result"].clone()) } else { Err(answer["error"].clone()) }
    }

    /// Lets an account of any key pay for gas and send without it.
    pub async fn adopt(&self, account: Address) {
        self.ask("anvil_setBalance", json!([account, "0x56bc75e2d63100000"])).await;
        self.ask("anvil_impersonateAccount", json!([account])).await;
    }

    pub async fn deploy(&self, artifact: &str, arguments: &[u8]) -> Address {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../contracts/artifacts/{artifact}.json"));
        let artifact: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let code = artifact["bytecode"]["object"].as_str().unwrap();
        let data = format!("{code}{}", hex::encode(arguments));
        let receipt = self.transact(json!({ "from": DEPLOYER, "data": data, "gas": "0x989680" })).await;
        receipt.expect("the deployment succeeds").contract.expect("a contract")
    }

    /// Sends a call and waits until it is mined.
    pub async fn send(&self, from: Address, to: Address, call: impl SolCall) -> Receipt {
        self.try_send(from, to, call).await.expect("the transaction succeeds")
    }

    /// Likewise; the node's error where it is refused.
    pub async fn try_send(&self, from: Address, to: Address, call: impl SolCall) -> Result<Receipt, Value> {
        let data = format!("0x{}", hex::encode(call.abi_encode()));
        self.transact(json!({ "from": from, "to": to, "data": data })).await
    }

    async fn transact(&self, transaction: Value) -> Result<Receipt, Value> {
        let hash = self.try_ask("eth_sendTransaction", json!([transaction])).await?;
        let receipt = loop {
            let receipt = self.ask("eth_getTransactionReceipt", json!([hash])).await;
            if !receipt.is_null() {
                break receipt;
            }
            tokio::task::yield_now().await;
        };
        if receipt["status"] != "0x1" {
            return Err(receipt);
        }
        let log = |log: &Value| {
            let topics = log["topics"].as_array().unwrap().iter().map(|topic| topic.as_str().unwrap().parse().unwrap());
            let data = log["data"].as_str().unwrap().parse().unwrap();
            (log["address"].as_str().unwrap().parse().unwrap(), topics.collect(), data)
        };
        Ok(Receipt {
            contract: receipt["contractAddress"].as_str().map(|text| text.parse().unwrap()),
            logs: receipt["logs"].as_array().unwrap().iter().map(log).collect(),
        })
    }

    pub async fn call<C: SolCall>(&self, to: Address, call: C) -> C::Return {
        let data = format!("0x{}", hex::encode(call.abi_encode()));
        let answer = self.ask("eth_call", json!([{ "to": to, "data": data }, "latest"])).await;
        let bytes: Bytes = answer.as_str().unwrap().parse().unwrap();
        C::abi_decode_returns(&bytes).unwrap()
    }

    /// How many transactions of an account are mined.
    pub async fn nonce(&self, account: Address) -> u64 {
        quantity(&self.ask("eth_getTransactionCount", json!([account, "latest"])).await)
    }

    /// Its newest block's number.
    pub async fn head(&self) -> u64 {
        self.anvil.head().await
    }

    pub async fn mine(&self, blocks: u64) {
        self.ask("anvil_mine", json!([format!("{blocks:#x}")])).await;
    }

    /// Replaces the newest blocks by empty ones.
    pub async fn reorganise(&self, depth: u64) {
        self.ask("anvil_reorg", json!([depth, []])).await;
    }
}

fn quantity(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap_or_default().trim_start_matches("0x"), 16).unwrap()
}
