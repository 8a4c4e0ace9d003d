//! Out-of-process verifiers: asked on `verifiers.<name>` over NATS, or at a URL; what they say is theirs and signed by them.
//!
//! The question is the request as canonical JSON (RFC 8785) with content addresses in the place of file names. The answer is
//! the verdict JSON of INTERFACES: `verdict`, `reason`, `evidence`, `digest`, and `signer` and `signature`, the EIP-712
//! `Report(requestDigest, verdictDigest)` in the domain without a contract: `requestDigest` is the BLAKE3 of the question's
//! bytes, `verdictDigest` the verdict's digest. A verifier that is listed with its `address` must sign with that key; one
//! that is not listed may sign with any, and the evidence says with which. Unsigned answers count only from a verifier that is
//! listed with `unsigned = true`.
//!
//! **Invariant:** silence, rubbish, and a signature that does not hold are no answer: the verdict is inconclusive.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{HeaderMap, RequestErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{runtime::Handle, sync::oneshot};
use tribunal_events::{Address, B256, Digest, Domain, ReportStruct, Signature, VerdictKind};
use tribunal_verifiers::{ExternalAnswer, ExternalVerifier, Request, verdict_digest};

/// Bytes of an answer at most.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Characters of a verifier's name, and of a reason code.
const NAME_MAX: usize = 64;
/// Characters of a reason's detail that are kept.
const DETAIL_MAX: usize = 2000;
/// Questions that wait for a callback at once.
const CALLBACKS_MAX: usize = 1024;

/// One verifier's settings, `[verifiers.external.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalConfig {
    /// The account that must sign its answers.
    pub address: Option<Address>,
    /// Whether answers without a signature count.
    pub unsigned: bool,
    /// How long it may take.
    pub timeout_ms: u64,
    /// Asked by HTTP POST at this URL instead of over NATS. 200: the answer; 202: it comes later, to the URL in the
    /// question's header `Tribunal-Callback` (which needs `http.public_url`).
    pub url: Option<String>,
}

impl Default for ExternalConfig {
    /// Any key, 30 seconds, over NATS.
    fn default() -> Self {
        Self { address: None, unsigned: false, timeout_ms: 30_000, url: None }
    }
}

/// Asks verifiers. Called from verification threads, never from async ones.
pub struct Externals {
    listed: BTreeMap<String, ExternalConfig>,
    nats: Option<async_nats::Client>,
    http: reqwest::Client,
    callbacks: Arc<Callbacks>,
    runtime: Handle,
}

/// Answers that come later.
#[derive(Default)]
pub struct Callbacks {
    /// `https://host/api/v1/callbacks/`; nothing where nobody can call.
    base: Option<String>,
    waiting: Mutex<BTreeMap<String, oneshot::Sender<Vec<u8>>>>,
}

impl Callbacks {
    /// Calls come to `public_url`, under which this engine's HTTP API is seen from outside.
    pub fn at(public_url: Option<&str>) -> Arc<Self> {
        let base = public_url.map(|url| format!("{}/api/v1/callbacks/", url.trim_end_matches('/')));
        Arc::new(Self { base, waiting: Mutex::default() })
    }

    /// Takes an answer to the question with this token. Whether anybody waited for it.
    pub fn take(&self, token: &str, answer: Vec<u8>) -> bool {
        let waiting = self.waiting().remove(token);
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, oneshot::Sender<Vec<u8>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A URL that nobody can guess, and what comes of it.
    fn expect(self: &Arc<Self>) -> Option<(String, Expected)> {
        let base = self.base.as_ref()?;
        let mut secret = [0; 32];
        // A token is a secret, and decides nothing.
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").ok()?, &mut secret).ok()?;
        let token = hex::encode(secret);
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.len() >= CALLBACKS_MAX {
            return None;
        }
        waiting.insert(token.clone(), sender);
        let url = format!("{base}{token}");
        Some((url, Expected { callbacks: Arc::clone(self), token, receiver }))
    }
}

/// An answer that may come later; dropped, it is not waited for any more.
struct Expected {
    callbacks: Arc<Callbacks>,
    token: String,
    receiver: oneshot::Receiver<Vec<u8>>,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.callbacks.waiting().remove(&self.token);
    }
}

impl Externals {
    /// Over this connection, if there is one, and HTTP. Needs a running tokio runtime.
    pub fn new(
        listed: BTreeMap<String, ExternalConfig>,
        nats: Option<async_nats::Client>,
        callbacks: Arc<Callbacks>,
    ) -> Result<Self, String> {
        tribunal_contracts::install_tls();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { listed, nats, http, callbacks, runtime: Handle::current() })
    }

    async fn over_nats(&self, verifier: &str, question: Vec<u8>) -> Result<Vec<u8>, String> {
        let client = self.nats.as_ref().ok_or("there is no NATS server to ask it on")?;
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", "application/json");
        let asked = async_nats::Request::new().payload(question.into()).headers(headers).timeout(None);
        let answer = client.send_request(format!("verifiers.{verifier}"), asked).await;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => format!("nobody answers on verifiers.{verifier}"),
            _ => error.to_string(),
        })?;
        let error = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error"));
        match error {
            Some(error) => Err(format!("it says {:?}", short(error.as_str()))),
            None => Ok(answer.payload.to_vec()),
        }
    }

    async fn over_http(&self, url: &str, question: Vec<u8>) -> Result<Vec<u8>, String> {
        let mut asked = self.http.post(url).header("Content-Type", "application/json").body(question);
        let mut later = self.callbacks.expect();
        if let Some((callback, _)) = &later {
            asked = asked.header("Tribunal-Callback", callback.clone());
        }
        // The URL may hold a secret.
        let mut answer = asked.send().await.map_err(|error| error.without_url().to_string())?;
        match (answer.status().as_u16(), &mut later) {
            (200, _) => {
                let mut body = Vec::new();
                while let Some(chunk) = answer.chunk().await.map_err(|error| error.without_url().to_string())? {
                    body.extend_from_slice(&chunk);
                    if body.len() > ANSWER_BYTES_MAX {
                        break;
                    }
                }
                Ok(body)
            }
            (202, Some((_, expected))) => {
                (&mut expected.receiver).await.map_err(|_| "nobody waits for its callback any more".to_owned())
            }
            (202, None) => Err("it answers later, and http.public_url does not say where it can call".into()),
            (status, _) => Err(format!("it answers with HTTP status {status}")),
        }
    }
}

impl ExternalVerifier for Externals {
    fn ask(&self, verifier: &str, request: &Request) -> Result<ExternalAnswer, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if verifier.is_empty() || verifier.len() > NAME_MAX || !verifier.chars().all(plain) {
            return Err(format!("a name has 1 to {NAME_MAX} letters, digits, - and _"));
        }
        let listed = self.listed.get(verifier);
        let settings = listed.cloned().unwrap_or_default();
        let question = request.canonical_json().into_bytes();
        let request_digest = Digest::blake3(&question);
        let patience = Duration::from_millis(settings.timeout_ms.max(1));
        let asked = async {
            match &settings.url {
                Some(url) => self.over_http(url, question).await,
                None => self.over_nats(verifier, question).await,
            }
        };
        let answer = self.runtime.block_on(async { tokio::time::timeout(patience, asked).await });
        let answer = answer.map_err(|_| format!("no answer in {} ms", patience.as_millis()))??;
        read(&answer, request_digest, &settings).map_err(|problem| format!("its answer counts for nothing: {problem}"))
    }
}

#[derive(Deserialize)]
struct Answer {
    verdict: VerdictKind,
    reason: AnswerReason,
    #[serde(default)]
    evidence: serde_json::Map<String, Value>,
    digest: Option<String>,
    signer: Option<Address>,
    signature: Option<Signature>,
}

#[derive(Deserialize)]
struct AnswerReason {
    code: String,
    #[serde(default)]
    detail: String,
}

/// Reads an answer to the request with this digest.
fn read(bytes: &[u8], request_digest: Digest, settings: &ExternalConfig) -> Result<ExternalAnswer, String> {
    if bytes.len() > ANSWER_BYTES_MAX {
        return Err(format!("it has more than {ANSWER_BYTES_MAX} bytes"));
    }
    let answer: Answer = serde_json::from_slice(bytes).map_err(|error| short(&error.to_string()))?;
    let code = answer.reason.code;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if code.is_empty() || code.len() > NAME_MAX || !code.chars().all(plain) {
        return Err(format!("a reason code has 1 to {NAME_MAX} lowercase letters, digits and -"));
    }
    let digest = verdict_digest(answer.verdict, &code, &answer.evidence);
    let said = format!("blake3:{}", hex::encode(digest.bytes()));
    if answer.digest.as_ref().is_some_and(|digest| *digest != said) {
        return Err(format!("its digest is not that of what it says, {said}"));
    }
    let signed = match (answer.signer, answer.signature) {
        (Some(signer), Some(signature)) => {
            let report = ReportStruct {
                requestDigest: B256::new(*request_digest.bytes()),
                verdictDigest: B256::new(*digest.bytes()),
            };
            let found = signature.recover(Domain::default().digest(&report)).map_err(|error| error.to_string())?;
            if found != signer {
                return Err(format!("it is signed by {found:#x}, not by {signer:#x}"));
            }
            if let Some(expected) = settings.address.filter(|expected| *expected != signer) {
                return Err(format!("it is signed by {signer:#x}, not by {expected:#x}"));
            }
            Some((signer, signature))
        }
        (None, None) if settings.unsigned && settings.address.is_none() => None,
        (None, None) => {
            return Err("it is not signed; where that is meant to be, list the verifier with unsigned = true".into());
        }
        _ => return Err("signer and signature are given together or not at all".into()),
    };
    let evidence = json!({
        "evidence": answer.evidence,
        "digest": said,
        "signer": signed.as_ref().map(|(signer, _)| format!("{signer:#x}")),
    });
    let signature = signed.map(|(_, signature)| format!("0x{}", hex::encode(signature.bytes())));
    let detail = answer.reason.detail.chars().take(DETAIL_MAX).collect();
    Ok(ExternalAnswer { verdict: answer.verdict, code, detail, evidence, signature })
}

/// For messages: one line, not too long.
fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
