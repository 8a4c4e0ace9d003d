//! A node that is a small program: a chain of made-up blocks with logs, and every lie that a test wants.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
};

use alloy_primitives::{Address, B256, Bloom, BloomInput, address, keccak256};
use serde_json::{Value, json};

pub const CONTRACT: Address = address!("c000000000000000000000000000000000000001");

pub fn event() -> B256 {
    keccak256("Happened(uint256)")
}

/// The transaction of a log.
pub fn transaction(data: u64) -> B256 {
    keccak256(data.to_be_bytes())
}

/// A block: a number that makes its hash its own, and what happened in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub salt: u64,
    /// Data of its logs.
    pub logs: Vec<u64>,
}

/// What the node says beside the truth.
#[derive(Clone, Debug, Default)]
pub struct Lies {
    /// Ranges of more blocks are refused.
    pub range_max: Option<u64>,
    /// Answers of more logs are refused.
    pub logs_max: Option<usize>,
    /// Forgets the logs of this block unless asked for it by hash.
    pub forgets: Option<u64>,
    /// Knows blocks, and no receipts.
    pub silent: bool,
    /// Receipts say that transactions failed.
    pub failed: bool,
    /// Gives logs in the opposite order.
    pub reversed: bool,
    /// Says of logs that they are removed.
    pub removed: bool,
    /// Gives logs of another contract, too.
    pub other_contract: bool,
    /// Gives logs with another block's hash.
    pub other_block: bool,
    /// Its head is so many blocks older than the chain.
    pub behind: u64,
    /// What follows the answer to the next request for logs: the chain is this one from here on.
    pub changes_after_logs: Option<Vec<Block>>,
}

#[derive(Default)]
pub struct State {
    /// From block 0 on.
    pub blocks: Vec<Block>,
    pub lies: Lies,
    /// Requests for logs that were answered.
    pub asked: u64,
}

/// Ends with the process.
pub struct FakeNode {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl FakeNode {
    pub fn start(blocks: Vec<Block>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { blocks, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { url, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

pub fn hash(number: u64, block: &Block) -> B256 {
    keccak256([number.to_be_bytes(), block.salt.to_be_bytes()].concat())
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim().to_ascii_lowercase().strip_prefix("content-length:") {
                Some(value) => length = value.trim().parse().ok()?,
                None if line.trim().is_empty() => break,
                None => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let request: Value = serde_json::from_slice(&body).ok()?;
        let answer = match &request {
            Value::Array(requests) => requests.iter().map(|request| answer(request, state)).collect(),
            request => answer(request, state),
        }
        .to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes())).ok()?;
    }
}

fn answer(request: &Value, state: &Mutex<State>) -> Value {
    let mut state = state.lock().unwrap();
    let params = &request["params"];
    let result = match request["method"].as_str().unwrap_or_default() {
        "eth_chainId" => Ok(json!("0x7a69")),
        "eth_blockNumber" => Ok(json!(quantity(head(&state)))),
        "eth_getBlockByNumber" => Ok(block(&state, number(&params[0]))),
        "eth_getLogs" => logs(&mut state, &params[0]),
        "eth_getTransactionReceipt" => Ok(receipt(&state, &params[0])),
        other => Err(format!("no method {other}")),
    };
    let mut answer = json!({ "jsonrpc": "2.0", "id": request["id"] });
    match result {
        Ok(result) => answer["result"] = result,
        Err(message) => answer["error"] = json!({ "code": -32000, "message": message }),
    }
    answer
}

fn head(state: &State) -> u64 {
    (state.blocks.len() as u64 - 1).saturating_sub(state.lies.behind)
}

fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap_or("0x0").trim_start_matches("0x"), 16).unwrap_or(u64::MAX)
}

fn quantity(number: u64) -> String {
    format!("{number:#x}")
}

fn block(state: &State, number: u64) -> Value {
    let Some(block) = state.blocks.get(number as usize).filter(|_| number <= head(state)) else { return Value::Null };
    let mut bloom = Bloom::ZERO;
    if !block.logs.is_empty() {
        bloom.accrue(BloomInput::Raw(CONTRACT.as_slice()));
        bloom.accrue(BloomInput::Raw(event().as_slice()));
    }
    let parent = number.checked_sub(1).map_or(B256::ZERO, |before| hash(before, &state.blocks[before as usize]));
    let zero = B256::ZERO;
    json!({
        "number": quantity(number), "hash": hash(number, block), "parentHash": parent, "timestamp": quantity(1_000 + number),
        "logsBloom": bloom, "sha3Uncles": zero, "miner": Address::ZERO, "stateRoot": zero, "transactionsRoot": zero,
        "receiptsRoot": zero, "difficulty": "0x0", "gasLimit": "0x1", "gasUsed": "0x0", "extraData": "0x", "mixHash": zero,
        "nonce": "0x0000000000000000", "baseFeePerGas": "0x0", "size": "0x1", "uncles": [],
        "transactions": block.logs.iter().map(|data| transaction(*data)).collect::<Vec<_>>(),
    })
}

fn receipt(state: &State, wanted: &Value) -> Value {
    let blocks = state.blocks.iter().zip(0u64..).filter(|_| !state.lies.silent);
    let found = blocks.flat_map(|(block, at)| block.logs.iter().map(move |data| (block, at, transaction(*data))));
    let Some((block, at, hash)) = found.into_iter().find(|(.., hash)| json!(hash) == *wanted) else {
        return Value::Null;
    };
    let said = if state.lies.other_block { B256::repeat_byte(9) } else { self::hash(at, block) };
    json!({
        "transactionHash": hash, "transactionIndex": "0x0", "blockHash": said, "blockNumber": quantity(at),
        "from": Address::ZERO, "to": CONTRACT, "cumulativeGasUsed": "0x1", "gasUsed": "0x1", "contractAddress": null,
        "logs": [], "logsBloom": Bloom::ZERO, "status": quantity(u64::from(!state.lies.failed)), "type": "0x2", "effectiveGasPrice": "0x1",
    })
}

fn logs(state: &mut State, filter: &Value) -> Result<Value, String> {
    state.asked += 1;
    let by_hash = filter["blockHash"].as_str().map(str::to_owned);
    let (from, to) = match &by_hash {
        Some(wanted) => {
            let found = state.blocks.iter().zip(0..).find(|(block, at)| hash(*at, block).to_string() == *wanted);
            let (_, at) = found.ok_or("unknown block")?;
            (at, at)
        }
        None => (number(&filter["fromBlock"]), number(&filter["toBlock"]).min(head(state))),
    };
    if from > to {
        return Err("from is after to".into());
    }
    let lies = state.lies.clone();
    if let Some(most) = lies.range_max.filter(|most| to - from + 1 > *most) {
        return Err(format!("query exceeds max block range {most}"));
    }
    let mut told = Vec::new();
    for at in from..=to {
        if lies.forgets == Some(at) && by_hash.is_none() {
            continue;
        }
        let block = &state.blocks[at as usize];
        let said = if lies.other_block { B256::repeat_byte(9) } else { hash(at, block) };
        for (data, index) in block.logs.iter().zip(0u64..) {
            told.push(json!({
                "address": CONTRACT, "topics": [event()], "data": format!("0x{data:064x}"),
                "blockNumber": quantity(at), "blockHash": said, "logIndex": quantity(index), "transactionIndex": "0x0",
                "transactionHash": transaction(*data), "removed": lies.removed,
            }));
        }
    }
    if let Some(most) = lies.logs_max.filter(|most| told.len() > *most) {
        return Err(format!("query returned more than {most} results"));
    }
    if lies.reversed {
        told.reverse();
    }
    if lies.other_contract {
        let mut other = told.first().cloned().unwrap_or_default();
        other["address"] = json!(Address::repeat_byte(3));
        told.push(other);
    }
    if let Some(blocks) = state.lies.changes_after_logs.take() {
        state.blocks = blocks;
    }
    Ok(told.into())
}
