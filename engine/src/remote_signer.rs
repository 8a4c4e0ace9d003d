//! A key that never leaves its own machine: a signer behind the Web3Signer HTTP API (eth1).
//!
//! `GET /upcheck`, `GET /api/v1/eth1/publicKeys` (uncompressed keys without their 04, 64 bytes; also the names of keys) and
//! `POST /api/v1/eth1/sign/{key}` with `{"data": "0x…"}`, which signs `keccak256(data)` and answers 65 bytes in hex. The
//! slashing protection of that API (EIP-3076) is for beacon chains alone: what is signed twice here is for the engine to
//! prevent.
//!
//! **Invariant:** no answer is believed: a signature counts only if it recovers to the expected account.

use std::{
    fmt,
    sync::mpsc as blocking,
    thread::{self, JoinHandle},
    time::Duration,
};

use alloy_primitives::{Address, keccak256};
use reqwest::{Client, RequestBuilder, StatusCode};
use tokio::sync::mpsc;
use tribunal_events::{Signature, Signer, SignerFault};

/// How long a signer may take to answer; it may have to ask a hardware module.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Signatures asked for and not answered, at most.
const ASKED_MAX: usize = 256;
/// Bytes of a list of keys, at most: thousands of keys.
const KEYS_BYTES_MAX: usize = 1 << 20;
/// Bytes of any other answer, at most.
const ANSWER_BYTES_MAX: usize = 4096;
/// Characters of an answer that are shown, at most.
const SHOWN_CHARS_MAX: usize = 200;

/// One key of a remote signer. HTTP runs on a thread of its own, so that [`Signer::sign_preimage`] may be called from
/// anywhere that may block.
pub struct RemoteSigner {
    address: Address,
    shown: String,
    timeout: Duration,
    asks: Option<mpsc::Sender<Ask>>,
    worker: Option<JoinHandle<()>>,
}

struct Ask {
    preimage: Vec<u8>,
    answer: blocking::Sender<Result<Signature, SignerFault>>,
}

impl RemoteSigner {
    /// Finds the key of `address` at the signer. `url` is `http(s)://host[:port][/path]`. Blocks, at most thrice `timeout`.
    ///
    /// # Errors
    /// Where the signer does not answer, answers nonsense, or lacks the key.
    pub fn connect(url: &str, address: Address, timeout: Duration) -> Result<Self, SignerFault> {
        let (api, shown) = Api::new(url, address, timeout)?;
        let (asks, asked) = mpsc::channel(ASKED_MAX);
        let (found, finding) = blocking::channel();
        let unusable = |problem: String| SignerFault::Unreachable { signer: shown.clone(), problem };
        let worker = thread::Builder::new().name("remote-signer".into()).spawn(move || work(api, asked, &found));
        let worker = worker.map_err(|error| unusable(format!("no thread to ask it from: {error}")))?;
        let this = Self { address, timeout, asks: Some(asks), worker: Some(worker), shown: shown.clone() };
        finding.recv().unwrap_or_else(|_| Err(unusable("its thread is gone".into())))?;
        Ok(this)
    }
}

impl Signer for RemoteSigner {
    fn address(&self) -> Address {
        self.address
    }

    fn sign_preimage(&self, preimage: &[u8]) -> Result<Signature, SignerFault> {
        let away = |problem: &str| SignerFault::Unreachable { signer: self.shown.clone(), problem: problem.into() };
        let (answer, answered) = blocking::channel();
        let asks = self.asks.as_ref().expect("there until dropped");
        asks.try_send(Ask { preimage: preimage.to_vec(), answer }).map_err(|_| away("too much is asked at once"))?;
        // The request itself is bounded; this is for a thread that hangs.
        answered.recv_timeout(self.timeout * 2).unwrap_or_else(|_| Err(away("no answer in time")))
    }
}

impl Drop for RemoteSigner {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for RemoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteSigner({} at {})", self.address, self.shown)
    }
}

/// The thread: finds the key, then answers side by side until nobody can ask any more.
fn work(api: Api, mut asked: mpsc::Receiver<Ask>, found: &blocking::Sender<Result<(), SignerFault>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = found.send(Err(api.unreachable(error)));
            return;
        }
    };
    runtime.block_on(async {
        let key = match api.find().await {
            Ok(key) => key,
            Err(fault) => {
                let _ = found.send(Err(fault));
                return;
            }
        };
        let _ = found.send(Ok(()));
        while let Some(Ask { preimage, answer }) = asked.recv().await {
            let (api, key) = (api.clone(), key.clone());
            // Ends with the runtime; whoever waits for it keeps the signer, and so the runtime, alive.
            tokio::spawn(async move {
                let _ = answer.send(api.sign(&key, &preimage).await);
            });
        }
    });
}

/// The HTTP side.
#[derive(Clone)]
struct Api {
    client: Client,
    base: String,
    shown: String,
    address: Address,
}

impl Api {
    fn new(url: &str, address: Address, timeout: Duration) -> Result<(Self, String), SignerFault> {
        let refused = |problem: &str| SignerFault::Refused { signer: "signer_url".into(), problem: problem.into() };
        let parsed = reqwest::Url::parse(url).map_err(|error| refused(&format!("it is no URL: {error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(refused("it is http:// or https://"));
        }
        // Host and port only: path and user of a URL may be secrets.
        let shown = match (parsed.host_str(), parsed.port_or_known_default()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            _ => return Err(refused("it names no host")),
        };
        tribunal_contracts::install_tls();
        // A redirect or a proxy would hand what is to be signed to somebody else.
        let client = Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none()).no_proxy().build();
        let client = client.map_err(|error| refused(&error.to_string()))?;
        let base = parsed.as_str().trim_end_matches('/').to_owned();
        Ok((Self { client, base, shown: shown.clone(), address }, shown))
    }

    /// The name of the key of our account.
    async fn find(&self) -> Result<String, SignerFault> {
        self.ask(self.client.get(format!("{}/upcheck", self.base)), ANSWER_BYTES_MAX).await?;
        let list = self.client.get(format!("{}/api/v1/eth1/publicKeys", self.base));
        let text = self.ask(list, KEYS_BYTES_MAX).await?;
        let keys: Vec<String> =
            serde_json::from_str(&text).map_err(|_| self.nonsense("its keys are no JSON array of strings"))?;
        for key in &keys {
            let mut bytes = [0; 64];
            let digits = key.strip_prefix("0x").unwrap_or(key);
            hex::decode_to_slice(digits, &mut bytes)
                .map_err(|_| self.nonsense("a public key is 0x and 128 hex digits"))?;
            if Address::from_slice(&keccak256(bytes)[12..]) == self.address {
                return Ok(key.clone());
            }
        }
        Err(SignerFault::UnknownKey { signer: self.shown.clone(), account: self.address, known: keys.len() })
    }

    async fn sign(&self, key: &str, preimage: &[u8]) -> Result<Signature, SignerFault> {
        let body = serde_json::json!({ "data": format!("0x{}", hex::encode(preimage)) }).to_string();
        let request = self.client.post(format!("{}/api/v1/eth1/sign/{key}", self.base));
        let request = request.header("Content-Type", "application/json").body(body);
        let text = self.ask(request, ANSWER_BYTES_MAX).await?;
        let digits = text.trim().strip_prefix("0x").ok_or_else(|| self.nonsense("it does not begin with 0x"))?;
        let bytes = hex::decode(digits).map_err(|_| self.nonsense("it is no hex"))?;
        let signature = Signature::from_answer(&bytes).map_err(|error| self.nonsense(error))?;
        let found = signature.recover(keccak256(preimage)).map_err(|error| self.nonsense(error))?;
        if found != self.address {
            return Err(SignerFault::WrongKey { signer: self.shown.clone(), expected: self.address, found });
        }
        Ok(signature)
    }

    /// The text of a good answer.
    async fn ask(&self, request: RequestBuilder, bytes_max: usize) -> Result<String, SignerFault> {
        // An HTTP client's error prints the URL, whose path may be a secret.
        let failed = |error: reqwest::Error| self.unreachable(with_sources(&error.without_url()));
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > bytes_max {
                return Err(self.nonsense(format!("it has more than {bytes_max} bytes")));
            }
        }
        let text = String::from_utf8(bytes).map_err(|_| self.nonsense("it is no text"))?;
        if status.is_success() {
            return Ok(text);
        }
        let words: String = text.chars().filter(|it| !it.is_control()).take(SHOWN_CHARS_MAX).collect();
        let problem = format!("it answers {status} {words}").trim_end().to_owned();
        let busy = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        if busy || status.is_server_error() {
            return Err(self.unreachable(problem));
        }
        Err(SignerFault::Refused { signer: self.shown.clone(), problem })
    }

    fn unreachable(&self, problem: impl fmt::Display) -> SignerFault {
        SignerFault::Unreachable { signer: self.shown.clone(), problem: problem.to_string() }
    }

    fn nonsense(&self, problem: impl fmt::Display) -> SignerFault {
        SignerFault::Answer { signer: self.shown.clone(), problem: problem.to_string() }
    }
}

/// An error with its causes: the outermost alone says only that sending failed.
fn with_sources(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
