//! Checks what a journal keeps of a case: offline, by anybody who has the journal.

use serde_json::Value;
use tribunal_events::{Address, B256, Domain, ReportStruct, Signature};
use tribunal_verifiers::{Request, Service};

use super::book::{Book, Case, verdict};

/// What does not fit about a judged case; with a verifier everything is run again.
pub fn case(book: &Book, case: &Case, verifier: Option<&Service>) -> Vec<String> {
    let mut problems = Vec::new();
    let (Some(request), Some(report)) = (&case.request, &case.report) else {
        return vec!["judged, and no request or report is kept for it".into()];
    };
    let request = match Request::parse(&request.to_string()) {
        Ok(request) => request,
        Err(bad) => return vec![format!("the request kept for it cannot be read: {bad}")],
    };
    let expected = format!("blake3:{}", hex::encode(request.digest().bytes()));
    if report["request_digest"].as_str() != Some(&expected) {
        problems.push(format!("the report is on request {}, kept is {expected}", report["request_digest"]));
    }
    if let Err(problem) = signed(book, report) {
        problems.push(problem);
    }
    if let (Some(valid), Some((answer, block))) = (case.verdict, case.answered)
        && valid != answer
    {
        problems.push(format!("judged {valid} and answered {answer} in block {}", block.number));
    }
    if let Some(verifier) = verifier {
        match verifier.verify(&request) {
            Err(bad) => problems.push(format!("the request cannot be verified again: {bad}")),
            Ok(again) => {
                let digest = format!("blake3:{}", hex::encode(again.digest.bytes()));
                if verdict(report) != Some(again.verdict) || report["digest"].as_str() != Some(&digest) {
                    problems.push(format!(
                        "verified again it is {} ({}), digest {digest}; the report says {} ({}), digest {}",
                        again.verdict.word(),
                        again.reason.code,
                        report["verdict"].as_str().unwrap_or_default(),
                        report["reason"]["code"].as_str().unwrap_or_default(),
                        report["digest"].as_str().unwrap_or_default(),
                    ));
                }
            }
        }
    }
    problems
}

/// The report's signature is the account's.
fn signed(book: &Book, report: &Value) -> Result<(), String> {
    let identity = book.identity().ok_or("the journal does not say whose it is")?;
    let word = |key: &str| -> Result<B256, String> {
        let text = report[key].as_str().and_then(|text| text.strip_prefix("blake3:")).unwrap_or_default();
        text.parse().map_err(|_| format!("the report's {key} is no digest"))
    };
    let told = ReportStruct { requestDigest: word("request_digest")?, verdictDigest: word("digest")? };
    let bytes = report["signature"].as_str().and_then(|text| hex::decode(text.trim_start_matches("0x")).ok());
    let signature = bytes.and_then(|bytes| Signature::from_slice(&bytes).ok()).ok_or("the report has no signature")?;
    let digest = Domain::new(identity.chain_id, identity.contract).digest(&told);
    let signer: Address = signature.recover(digest).map_err(|error| error.to_string())?;
    if signer == identity.account { Ok(()) } else { Err(format!("the report is signed by {signer:#x}")) }
}
