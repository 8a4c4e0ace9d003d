//! Alkahest: this operator as the oracle of a `TrustedOracleArbiter`.
//!
//! A buyer escrows a payment under the demand (oracle, data); whoever fulfills it asks for arbitration. Here `data` is a
//! verification request without its claim, the fulfillment is the claim: both as JSON, or as the content address of such JSON
//! (`blake3:…`, `sha256:…`) that the artifacts hold. Files are named by content address alone. *Valid* is answered with true,
//! *invalid* with false; the contract cannot tell false from not yet, so false only spares others the waiting. The method is
//! re-execution, and the claim is complete: exit code, standard output and every file under the job's outputs.
//!
//! Generation `panel` is our own `TribunalArbiter`: the demand names mediators and a quorum, and `data` is as above. Each
//! mediator judges by itself and signs its word; whoever has a quorum of equal words, its own and its peers', brings them. A
//! word says the grade too: what a comparator gives (100 times SSIM, rounded down), else 100 for valid and 0 for invalid.
//!
//! Rubbish is not answered: it would cost gas to say what silence says.

use std::time::Duration;

use alloy_primitives::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use serde_json::{Map, Value};
use tribunal_contracts::{
    ChainFault, ObservedLog, RpcNode,
    alkahest::{Alkahest, Generation, ITEM_BYTES_MAX, OracleEvent, PanelWord},
};
use tribunal_events::{Address, B256, ContentAddress, Termination};
use tribunal_verifiers::{ArtifactSource, Claim, Method, Reference, Request};

use super::{Answer, Gathering, Marketplace, Question, Said};

/// Peers at most, how long one is waited for, and bytes of its answer.
const PEERS_MAX: usize = 31;
const PEER_TIMEOUT: Duration = Duration::from_secs(10);
const WORD_BYTES_MAX: usize = 4096;

/// See the module.
pub struct AlkahestMarket {
    contract: Alkahest,
    artifacts: std::sync::Arc<dyn ArtifactSource>,
    peers: Peers,
}

/// Engines of the other mediators of panels.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    urls: Vec<String>,
    client: reqwest::Client,
}

impl Peers {
    /// These, by `http://host:port` or `https://…`.
    ///
    /// # Errors
    /// A sentence where one is no such address.
    pub fn new(urls: &[String]) -> Result<Self, String> {
        if urls.len() > PEERS_MAX {
            return Err(format!("at most {PEERS_MAX} peers, not {}", urls.len()));
        }
        for url in urls {
            match url.parse::<reqwest::Url>() {
                Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => {}
                _ => return Err("a peer is http://host:port or https://…".into()),
            }
        }
        tribunal_contracts::install_tls();
        let client = reqwest::Client::builder().no_proxy().timeout(PEER_TIMEOUT).build();
        let client = client.map_err(|error| error.to_string())?;
        Ok(Self { urls: urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(), client })
    }

    /// What a peer's mediator says about a case; nothing where it says nothing that can be read.
    async fn word(&self, url: &str, key: B256) -> Option<PanelWord> {
        let mut answer = self.client.get(format!("{url}/api/v1/markets/words/{key}")).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.ok()? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > WORD_BYTES_MAX {
                return None;
            }
        }
        serde_json::from_slice(&bytes).ok()
    }
}

impl AlkahestMarket {
    /// The oracle of this deployment; long demands and claims are looked for in `artifacts`.
    pub fn new(contract: Alkahest, artifacts: std::sync::Arc<dyn ArtifactSource>, peers: Peers) -> Self {
        Self { contract, artifacts, peers }
    }

    /// Whether a panel decides, in place of this account alone.
    fn is_panel(&self) -> bool {
        self.contract.generation == Generation::Panel
    }

    /// The transaction with a quorum's words.
    async fn gathered(
        &self,
        node: &RpcNode,
        subject: &Value,
        report: &Value,
    ) -> Result<Answer, (&'static str, String)> {
        let unreadable = || ("unreadable", "the journal lacks what this account signed".to_owned());
        let (fulfillment, Some(demand)) = read_subject(subject).ok_or_else(unreadable)? else {
            return Err(unreadable());
        };
        let own: PanelWord = serde_json::from_value(report["word"].clone()).map_err(|_| unreadable())?;
        let demand = Bytes::from(demand);
        let asked = self.contract.arbitration(node, fulfillment, Some(&demand), 0).await;
        let asked = asked.map_err(|fault| ("chain", crate::failure::with_causes(&fault)))?;
        let panel = asked.map_err(|why| ("not-ours", why.to_string()))?.panel.ok_or_else(unreadable)?;
        let domain = self.contract.domain();
        let (quorum, mut words) = (usize::from(panel.quorum), vec![own]);
        let asking = self.peers.urls.iter().map(|url| self.peers.word(url, words[0].key));
        for word in futures::future::join_all(asking).await.into_iter().flatten() {
            let seated = panel.mediators.contains(&word.mediator);
            let new = words.iter().all(|known| known.mediator != word.mediator);
            if seated && new && word.agrees_with(&words[0]) && word.is_signed(&domain) {
                words.push(word);
            }
        }
        if words.len() < quorum {
            let why = format!("{} of {quorum} mediators say the same so far", words.len());
            return Err((super::FEW_WORDS, why));
        }
        words.truncate(quorum);
        let data = self.contract.decide(fulfillment, &demand, &words).to_vec();
        Ok(Answer { to: self.contract.arbiter, data })
    }

    /// The text of a JSON object, fetched where the bytes are a content address.
    fn object(&self, what: &str, bytes: &[u8]) -> Result<String, Question> {
        let unavailable = |why| Question::Nothing { code: "unavailable", why };
        let read = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(_) => Err(Question::Over { why: format!("the {what} is no text") }),
        };
        let mut text = read(bytes)?;
        if let Ok(address) = text.parse::<ContentAddress>() {
            let found = self.artifacts.fetch(&Reference::Address(address));
            let found = found.map_err(|fault| unavailable(format!("the {what} {address}: {fault}")))?;
            let fetched = found.ok_or_else(|| unavailable(format!("nobody serves the {what} {address}")))?;
            if fetched.len() > ITEM_BYTES_MAX {
                return Err(Question::Over { why: format!("the {what} has more than {ITEM_BYTES_MAX} bytes") });
            }
            text = read(&fetched)?;
        }
        match serde_json::from_str::<Map<String, Value>>(&text) {
            Ok(_) => Ok(text),
            Err(error) => Err(Question::Over { why: format!("the {what}: {error}") }),
        }
    }

    /// What is to be verified: the demand with the fulfillment as its claim.
    fn request(&self, demand: &[u8], item: &str) -> Result<Value, Question> {
        let unreadable = |why: String| Question::Over { why };
        let (demand, claim) = (self.object("demand", demand)?, self.object("fulfillment", item.as_bytes())?);
        // Put together as text, so that the parser finds a field that is given twice, by one of them or by both.
        let rest = demand.strip_prefix('{').unwrap_or_default().trim_start();
        let comma = if rest == "}" { "" } else { "," };
        let text = format!("{{\"claim\":{claim}{comma}{rest}");
        let parsed = Request::parse(&text).map_err(|bad| unreadable(bad.to_string()))?;
        if parsed.deal_id.is_some() || parsed.request_id.is_some() {
            return Err(unreadable("the demand names a deal or a request id; it is neither's".into()));
        }
        if let Some((field, name)) = parsed.first_file() {
            return Err(unreadable(format!("{field} names a file, {name}, not a content address")));
        }
        // A proof would have to come from the buyer here, and votes from nobody.
        if parsed.method != Method::Reexecution {
            let why = format!("the demand's method is {}; reexecution is what is judged here", parsed.method.kind());
            return Err(unreadable(why));
        }
        // What is not claimed is not compared: who claims nothing would be right.
        if let Some(field) = parsed.claim.as_ref().and_then(missing) {
            return Err(unreadable(format!("the fulfillment does not say {field}: a claim is complete")));
        }
        serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))
    }
}

/// The first field that a complete claim says and this one does not.
fn missing(claim: &Claim) -> Option<&'static str> {
    let exits = claim.termination == Termination::Exit;
    match claim {
        Claim { exit_code: None, .. } if exits => Some("exit_code"),
        Claim { stdout: None, .. } => Some("stdout"),
        Claim { outputs: None, .. } => Some("outputs"),
        _ => None,
    }
}

/// What a case is about, in the journal.
fn subject(fulfillment: B256, demand: Option<&[u8]>) -> Value {
    serde_json::json!({ "fulfillment": fulfillment, "demand": demand.map(|demand| format!("0x{}", hex::encode(demand))) })
}

fn read_subject(subject: &Value) -> Option<(B256, Option<Vec<u8>>)> {
    let fulfillment = subject["fulfillment"].as_str()?.parse().ok()?;
    let demand = subject["demand"].as_str().map(|text| hex::decode(text.trim_start_matches("0x")));
    Some((fulfillment, demand.transpose().ok()?))
}

impl Marketplace for AlkahestMarket {
    fn kind(&self) -> &'static str {
        "alkahest"
    }

    fn contract(&self) -> Address {
        self.contract.arbiter
    }

    fn watched(&self) -> (Vec<Address>, Vec<B256>) {
        (vec![self.contract.arbiter], self.contract.events())
    }

    fn said(&self, log: &ObservedLog) -> Option<Said> {
        Some(match self.contract.read(log)? {
            OracleEvent::Requested { fulfillment, demand } => {
                let named = self.contract.generation != Generation::Old;
                let demand = demand.as_ref().filter(|_| named).map(|demand| &demand[..]);
                let case = self.contract.key(fulfillment, demand.unwrap_or_default());
                Said::Asked { case, subject: subject(fulfillment, demand) }
            }
            OracleEvent::Made { key, decision, .. } => Said::Answered { case: key, valid: decision },
        })
    }

    fn question<'a>(
        &'a self,
        node: &'a RpcNode,
        subject: &'a Value,
        now_s: u64,
    ) -> BoxFuture<'a, Result<Question, ChainFault>> {
        async move {
            let Some((fulfillment, demand)) = read_subject(subject) else {
                return Ok(Question::Over { why: "the journal's subject is no request".into() });
            };
            let hint = demand.map(Into::into);
            let found = self.contract.arbitration(node, fulfillment, hint.as_ref(), now_s).await?;
            let it = match found {
                Ok(it) => it,
                Err(why) if why.for_ever() => return Ok(Question::Over { why: why.to_string() }),
                Err(why) => return Ok(Question::Nothing { code: "unavailable", why: why.to_string() }),
            };
            Ok(match self.request(&it.demand, &it.item) {
                Ok(request) => Question::Verify { request, until_s: it.until_s },
                Err(nothing) => nothing,
            })
        }
        .boxed()
    }

    fn tells_of_others(&self) -> bool {
        self.is_panel()
    }

    fn word(&self, subject: &Value, report: &Value) -> Option<(Value, Vec<u8>)> {
        let (fulfillment, Some(demand)) = read_subject(subject)? else { return None };
        if !self.is_panel() {
            return None;
        }
        let key = self.contract.key(fulfillment, &demand);
        let (verdict, best) = match report["verdict"].as_str()? {
            "valid" => (1, 100),
            "invalid" => (2, 0),
            _ => return None,
        };
        let graded = report["evidence"]["grade"].as_u64().and_then(|grade| u8::try_from(grade).ok());
        let grade = if verdict == 1 { graded.unwrap_or(best) } else { best };
        let digest: B256 = report["digest"].as_str()?.strip_prefix("blake3:")?.parse().ok()?;
        let preimage = PanelWord::preimage(&self.contract.domain(), key, verdict, grade, digest).to_vec();
        let mediator = self.contract.oracle;
        let word = serde_json::json!({
            "mediator": mediator, "key": key, "verdict": verdict, "grade": grade, "digest": digest,
        });
        Some((word, preimage))
    }

    fn gather<'a>(&'a self, node: &'a RpcNode, subject: &'a Value, report: &'a Value) -> Option<Gathering<'a>> {
        self.is_panel().then(|| self.gathered(node, subject, report).boxed())
    }

    fn answer(&self, subject: &Value, valid: bool) -> Answer {
        let (fulfillment, demand) = read_subject(subject).unwrap_or_default();
        let data = self.contract.arbitrate(fulfillment, &demand.unwrap_or_default().into(), valid);
        Answer { to: self.contract.arbiter, data: data.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tribunal_verifiers::MemorySource;

    use super::*;

    fn market(artifacts: MemorySource) -> AlkahestMarket {
        let contract = Alkahest {
            chain_id: 1,
            arbiter: Address::repeat_byte(1),
            generation: Generation::V1,
            eas: Address::ZERO,
            composites: Vec::new(),
            escrows: Vec::new(),
            oracle: Address::repeat_byte(2),
        };
        AlkahestMarket::new(contract, Arc::new(artifacts), Peers::default())
    }

    /// "unavailable" may pass, "over" does not.
    fn why(found: Result<Value, Question>) -> (&'static str, String) {
        match found {
            Err(Question::Nothing { code, why }) => (code, why),
            Err(Question::Over { why }) => ("over", why),
            other => panic!("{other:?}"),
        }
    }

    fn claim(without: &str) -> String {
        let mut claim = serde_json::json!({ "exit_code": 0, "stdout": { "blake3": "ab".repeat(32) }, "outputs": [] });
        claim.as_object_mut().unwrap().remove(without);
        claim.to_string()
    }

    fn demand() -> String {
        let address = format!("blake3:{}", "ab".repeat(32));
        format!(
            r#"{{ "method": {{ "kind": "reexecution" }}, "comparator": {{ "kind": "exact" }}, "job": {{ "runtime": "wasm-1",
            "module": "{address}", "args": [], "inputs": [], "outputs": [],
            "limits": {{ "fuel": 1, "memory_bytes": 65536, "output_bytes": 1, "wall_ms": 1 }} }} }}"#
        )
    }

    #[test]
    fn demand_and_fulfillment_make_a_request() {
        let mut artifacts = MemorySource::new();
        let kept = artifacts.add(demand().into_bytes());
        let market = market(artifacts);
        let request = market.request(demand().as_bytes(), &claim("")).unwrap();
        assert_eq!(request["claim"]["exit_code"], 0);
        assert_eq!(request["job"]["runtime"], "wasm-1");
        assert_eq!(
            market.request(kept.to_string().as_bytes(), &claim("")).unwrap(),
            request,
            "by content address, too"
        );
    }

    #[test]
    fn what_a_stranger_may_not_say_is_not_judged() {
        let market = market(MemorySource::new());
        let whole = claim("");
        let injected = format!(r#"{whole}, "comparator": {{ "kind": "numeric" }}"#);
        let again = whole.replacen('{', r#"{ "exit_code": 1,"#, 1);
        let proof =
            demand().replace("reexecution", "external").replace(r#""external" }"#, r#""external", "verifier": "a" }"#);
        let twice = demand().replacen('{', r#"{ "claim": { "exit_code": 1 },"#, 1);
        let other = format!("sha256:{}", "0".repeat(64));
        let file = demand().replace(&format!("blake3:{}", "ab".repeat(32)), "jobs/secret.wasm");
        for (demand, claim, code, part) in [
            (twice.as_str(), whole.as_str(), "over", "claim"),
            (&demand().replacen('{', r#"{ "deal_id": "0x","#, 1), &whole, "over", "deal_id"),
            (&demand().replacen('{', r#"{ "request_id": "a","#, 1), &whole, "over", "request id"),
            (&file, &whole, "over", "jobs/secret.wasm"),
            (&proof, &whole, "over", "external"),
            (&demand(), &injected, "over", "fulfillment"),
            (&demand(), &again, "over", "exit_code"),
            (&demand(), "", "over", "fulfillment"),
            (&demand(), "{}", "over", "exit_code"),
            (&demand(), &claim("stdout"), "over", "stdout"),
            (&demand(), &claim("outputs"), "over", "outputs"),
            (&demand(), &other, "unavailable", "fulfillment"),
            (&other, &whole, "unavailable", "demand"),
            ("[]", &whole, "over", "demand"),
        ] {
            let (found, sentence) = why(market.request(demand.as_bytes(), claim));
            assert!(found == code && sentence.contains(part), "{demand} {claim}: {found}: {sentence}");
        }
        assert_eq!(why(market.request(&[0xff], &whole)).0, "over");
    }

    #[test]
    fn a_subject_is_read_as_it_was_written() {
        let fulfillment = B256::repeat_byte(7);
        for demand in [None, Some(&b""[..]), Some(b"abc")] {
            let read = read_subject(&subject(fulfillment, demand)).unwrap();
            assert_eq!(read, (fulfillment, demand.map(<[u8]>::to_vec)));
        }
        assert_eq!(read_subject(&Value::Null), None);
    }
}
