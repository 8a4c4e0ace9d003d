//! Verification requests and verdicts as protobuf: the same fields as in JSON, by the schema's own mapping.

use serde_json::Value;
use tribunal_events::json;
use tribunal_verifiers::REQUEST_BYTES_MAX;

/// Methods that are combined inside each other at most; the reader of requests says how many really.
const DEPTH_MAX: usize = 16;

/// The JSON text of a request.
///
/// # Errors
/// A sentence that says why the bytes are none.
pub(super) fn request_json(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if bytes.len() > REQUEST_BYTES_MAX {
        return Err(format!("a request has at most {REQUEST_BYTES_MAX} bytes, not {}", bytes.len()));
    }
    let no_message = |problem| format!("the request is no tribunal.v1.VerificationRequest: {problem}");
    let mut request = json::from_bytes("VerificationRequest", bytes).map_err(no_message)?;
    // A list without entries looks like none in protobuf; a job always says what comes out of it.
    if let Some(job) = request.get_mut("job").and_then(Value::as_object_mut) {
        job.entry("outputs").or_insert_with(|| Value::Array(Vec::new()));
    }
    if let Some(claim) = request.get_mut("claim") {
        files(claim);
    }
    if let Some(method) = request.get_mut("method") {
        votes(method, DEPTH_MAX)?;
    }
    Ok(request.to_string().into_bytes())
}

/// `outputs: {files: […]}` as the list that it is in JSON.
fn files(claim: &mut Value) {
    if let Some(outputs) = claim.get_mut("outputs") {
        *outputs = outputs.get_mut("files").map_or_else(|| Value::Array(Vec::new()), Value::take);
    }
}

fn votes(method: &mut Value, depth: usize) -> Result<(), String> {
    let depth = depth.checked_sub(1).ok_or("the request's methods are combined too deep")?;
    for vote in method.get_mut("votes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(claim) = vote.get_mut("claim") {
            files(claim);
        }
    }
    for part in method.get_mut("of").and_then(Value::as_array_mut).into_iter().flatten() {
        votes(part, depth)?;
    }
    Ok(())
}

/// The deal that a request names, if it does.
pub(super) fn deal_id(bytes: &[u8]) -> Option<String> {
    let request = json::from_bytes("VerificationRequest", bytes.get(..bytes.len().min(REQUEST_BYTES_MAX))?).ok()?;
    request["deal_id"].as_str().map(str::to_owned)
}

/// The bytes of a `tribunal.v1.VerificationVerdict`.
///
/// # Errors
/// A sentence; none is expected.
pub(super) fn verdict_bytes(verdict: &Value) -> Result<Vec<u8>, String> {
    json::to_bytes("VerificationVerdict", verdict)
}
