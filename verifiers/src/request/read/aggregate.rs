use std::collections::BTreeSet;

use tribunal_events::{Address, Signature};

use super::{At, Fields, Read, wrong};
use crate::{BadRequest, Function, Method, Observation, json::Json};

const OBSERVATIONS_MAX: usize = 256;

/// The fields of a method `aggregate`, but for its kind.
pub(super) fn aggregate(fields: &mut Fields<'_>) -> Read<Method> {
    let at = fields.required("function")?;
    let function = match at.text()? {
        "median" => Function::Median,
        "trimmed-mean" => {
            let at = fields.required("trim")?;
            let trim = billionths(&at, 999_999_999)?;
            if trim >= 500_000_000 {
                return wrong(&at.path, "must be below one half, so that something is left");
            }
            Function::TrimmedMean { trim }
        }
        "mad-outliers" => {
            let threshold = match fields.optional("threshold") {
                None => 3_500_000_000,
                Some(at) => billionths(&at, 1_000_000_000_000)?,
            };
            let witnesses = match fields.optional("witnesses") {
                None => 1,
                Some(at) => at.integer(1, OBSERVATIONS_MAX as i128)? as u32,
            };
            Function::MadOutliers { threshold, witnesses }
        }
        "fedavg" => Function::FederatedAverage,
        other => {
            let problem = format!("median, trimmed-mean, mad-outliers or fedavg, not {:?}", super::short(other));
            return wrong(&at.path, problem);
        }
    };
    let list = fields.required("observations")?;
    let mut observations = Vec::new();
    let mut sources = BTreeSet::new();
    for at in list.list(OBSERVATIONS_MAX)? {
        let observation = observation(&at, &function)?;
        if !sources.insert(observation.source.clone()) {
            return wrong(&format!("{}.source", at.path), format!("{} is given twice", observation.source));
        }
        observations.push(observation);
    }
    if observations.is_empty() {
        return wrong(&list.path, "at least one observation is needed");
    }
    Ok(Method::Aggregate { function, observations })
}

fn observation(at: &At<'_>, function: &Function) -> Read<Observation> {
    let mut fields = Fields::of(at)?;
    let source_at = fields.required("source")?;
    let mut source = source_at.text()?.to_owned();
    if source.is_empty() || source.len() > 64 || source.chars().any(char::is_control) {
        return wrong(&source_at.path, "a name of 1 to 64 bytes is needed");
    }
    let artifact = fields.required("artifact")?.reference()?;
    let weight = match (fields.optional("weight"), function) {
        (None, _) => 1,
        (Some(at), Function::FederatedAverage) => at.integer(1, i128::from(u32::MAX))? as u64,
        (Some(at), _) => return wrong(&at.path, "only a federated average has weights"),
    };
    let signature = match (fields.optional("signature"), function) {
        (None, Function::FederatedAverage) => {
            return wrong(&format!("{}.signature", at.path), "is missing: an update is signed by its source");
        }
        (None, _) => None,
        (Some(at), _) => {
            let address: Address = source.parse().map_err(|_| {
                BadRequest::new(
                    &source_at.path,
                    "an address is needed where there is a signature, 0x and 40 hex digits",
                )
            })?;
            let text = at.text()?;
            let bytes = text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
            let Some(bytes) = bytes else { return wrong(&at.path, "0x and 130 hex digits are needed") };
            let signature = Signature::from_slice(&bytes);
            source = format!("{address:?}").to_lowercase();
            Some((address, signature.map_err(|error| BadRequest::new(&at.path, error.to_string()))?))
        }
    };
    fields.finish()?;
    Ok(Observation { source, artifact, weight, signature })
}

/// A decimal of at most nine digits after the point, in billionths.
fn billionths(at: &At<'_>, most: u64) -> Read<u64> {
    let (Json::Number(text) | Json::Text(text)) = at.value else {
        return wrong(&at.path, format!("a number is needed, not {}", at.value.kind()));
    };
    let parts = tribunal_events::SequentialTest::billionths(text).filter(|parts| *parts <= most);
    let shown = super::short(text);
    parts.ok_or_else(|| {
        let problem = format!("a plain decimal of at most nine digits after the point, not {shown:?}");
        BadRequest::new(&at.path, problem)
    })
}
