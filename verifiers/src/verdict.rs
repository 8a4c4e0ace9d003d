//! The answer: verdict, reason, evidence, and a digest that two honest verifiers share.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use tribunal_events::{Address, Digest, VerdictKind};

use crate::request::write::canonical_text;

/// Why the verdict is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Stable word; part of the digest.
    pub code: String,
    /// One sentence for people, with the first difference; not part of the digest.
    pub detail: String,
}

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Evidence {
    /// Which verifier, "reexecution/wasm-1".
    pub verifier: String,
    /// Its version; not part of the digest.
    pub verifier_version: String,
    /// What that verifier read and found, named as in INTERFACES.
    #[serde(flatten)]
    pub fields: BTreeMap<String, Value>,
    /// Microseconds it took; not part of the digest.
    pub wall_us: u64,
    /// The machine; not part of the digest.
    pub host: BTreeMap<String, String>,
    /// Names in `fields` that the digest leaves out: what this machine computed where that need not be alike elsewhere.
    #[serde(skip)]
    pub(crate) local: Vec<&'static str>,
}

impl Evidence {
    pub(crate) fn new(verifier: impl Into<String>) -> Self {
        Self { verifier: verifier.into(), ..Self::default() }
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.into(), value.into());
    }
}

/// A verdict on a claim.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Is the claim right?
    pub verdict: VerdictKind,
    /// Why.
    pub reason: Reason,
    /// From what.
    pub evidence: Evidence,
    /// See the crate's documentation for the preimage.
    #[serde(serialize_with = "blake3_address")]
    pub digest: Digest,
    /// Who signed it, if anybody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<Address>,
    /// 65 bytes in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

fn blake3_address<S: serde::Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("blake3:{}", hex::encode(digest.bytes())))
}

impl Verdict {
    /// A verdict without signature; the digest follows from the rest.
    pub(crate) fn new(verdict: VerdictKind, code: &str, detail: impl Into<String>, evidence: Evidence) -> Self {
        let reason = Reason { code: code.to_owned(), detail: detail.into() };
        let digest =
            Digest::new(blake3::derive_key("tribunal.v1 verdict", preimage(verdict, code, &evidence).as_bytes()));
        Self { verdict, reason, evidence, digest, signer: None, signature: None }
    }

    pub(crate) fn inconclusive(code: &str, detail: impl Into<String>, evidence: Evidence) -> Self {
        Self::new(VerdictKind::Inconclusive, code, detail, evidence)
    }

    /// The JSON of INTERFACES.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("a verdict has only text keys")
    }

    /// The canonical JSON under the digest.
    pub fn preimage(&self) -> String {
        preimage(self.verdict, &self.reason.code, &self.evidence)
    }
}

fn preimage(verdict: VerdictKind, code: &str, evidence: &Evidence) -> String {
    let shared = evidence.fields.iter().filter(|(name, _)| !evidence.local.contains(&name.as_str()));
    let mut fields: serde_json::Map<String, Value> =
        shared.map(|(name, value)| (name.clone(), value.clone())).collect();
    fields.insert("verifier".into(), evidence.verifier.as_str().into());
    canonical_text(&json!({ "verdict": verdict.word(), "reason": { "code": code }, "evidence": fields }))
}

/// The digest of a verdict that another verifier gives: over all of its evidence but `verifier_version`, `wall_us` and
/// `host`.
pub fn verdict_digest(verdict: VerdictKind, code: &str, evidence: &serde_json::Map<String, Value>) -> Digest {
    let mut fields = evidence.clone();
    for local in ["verifier_version", "wall_us", "host"] {
        fields.remove(local);
    }
    let text = canonical_text(&json!({ "verdict": verdict.word(), "reason": { "code": code }, "evidence": fields }));
    Digest::new(blake3::derive_key("tribunal.v1 verdict", text.as_bytes()))
}
