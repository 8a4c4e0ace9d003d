use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tribunal_events::{Band, Comparator, Rule, SequentialTest, ToplocErrors};

use super::{Claim, Claimed, Job, Method, Reference, Request};
use crate::{Function, Observation};

/// Integers that a double holds exactly are numbers in canonical JSON, others decimal strings.
pub(crate) fn integer(value: u64) -> Value {
    if value <= 1 << 53 { Value::from(value) } else { Value::from(value.to_string()) }
}

/// RFC 8785 text of a value.
pub(crate) fn canonical_text(value: &Value) -> String {
    serde_json_canonicalizer::to_string(value).expect("a JSON value without NaN has canonical text")
}

pub(super) fn canonical(request: &Request) -> String {
    let mut object = Map::new();
    if let Some(id) = &request.request_id {
        object.insert("request_id".into(), id.as_str().into());
    }
    if let Some(id) = &request.deal_id {
        object.insert("deal_id".into(), id.to_string().into());
    }
    object.insert("method".into(), method(&request.method));
    if let Some(value) = &request.job {
        object.insert("job".into(), job(value));
    }
    if let Some(value) = &request.claim {
        object.insert("claim".into(), claim(value));
    }
    object.insert("comparator".into(), comparator(&request.comparator));
    canonical_text(&Value::Object(object))
}

fn reference(reference: &Reference) -> Value {
    reference.to_string().into()
}

fn method(method_: &Method) -> Value {
    let of = || method_.parts().iter().map(method).collect::<Vec<_>>();
    match method_ {
        Method::Reexecution => json!({ "kind": "reexecution" }),
        Method::Proof(proof) => {
            let mut fields = Map::new();
            fields.insert("system".into(), proof.system.as_str().into());
            if !proof.curve.is_empty() {
                fields.insert("curve".into(), proof.curve.as_str().into());
            }
            let parts =
                [("verification_key", &proof.verification_key), ("proof", &proof.proof), ("public", &proof.public)];
            for (name, part) in parts {
                if let Some(part) = part {
                    fields.insert(name.into(), json!({ "artifact": reference(part) }));
                }
            }
            let bind = proof.bind.iter().map(|bind| json!({ "input": bind.input, "to": bind.to })).collect::<Vec<_>>();
            json!({ "kind": "proof", "proof": fields, "bind": bind })
        }
        Method::Majority { votes, rule } => {
            let vote = |vote: &super::Vote| {
                json!({
                    "voter": format!("{:?}", vote.voter).to_lowercase(),
                    "claim": claim(&vote.claim),
                    "weight": integer(vote.weight),
                    "score": integer(vote.score),
                })
            };
            let rule = match rule {
                Rule::Quorum(quorum) => json!({ "kind": "quorum", "quorum": integer(*quorum) }),
                Rule::Boinc(min_quorum) => json!({ "kind": "boinc", "min_quorum": min_quorum }),
                Rule::Credibility(trust) => json!({ "kind": "credibility", "trust": integer(*trust) }),
            };
            json!({ "kind": "majority", "votes": votes.iter().map(vote).collect::<Vec<_>>(), "rule": rule })
        }
        Method::Aggregate { function, observations } => aggregate(function, observations),
        Method::External { verifier } => json!({ "kind": "external", "verifier": verifier }),
        Method::All(_) => json!({ "kind": "all", "of": of() }),
        Method::Any(_) => json!({ "kind": "any", "of": of() }),
        Method::Threshold { k, .. } => json!({ "kind": "threshold", "of": of(), "k": k }),
    }
}

/// Billionths as the shortest decimal.
fn billionths(parts: u64) -> String {
    let text = format!("{}.{:09}", parts / 1_000_000_000, parts % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn aggregate(function: &Function, observations: &[Observation]) -> Value {
    let observation = |observation: &Observation| {
        let mut object = json!({ "source": observation.source, "artifact": reference(&observation.artifact) });
        if *function == Function::FederatedAverage {
            object["weight"] = integer(observation.weight);
        }
        if let Some((_, signature)) = &observation.signature {
            object["signature"] = format!("{signature:?}").into();
        }
        object
    };
    let mut object = json!({
        "kind": "aggregate",
        "function": function.word(),
        "observations": observations.iter().map(observation).collect::<Vec<_>>(),
    });
    match function {
        Function::Median | Function::FederatedAverage => {}
        Function::TrimmedMean { trim } => object["trim"] = billionths(*trim).into(),
        Function::MadOutliers { threshold, witnesses } => {
            object["threshold"] = billionths(*threshold).into();
            object["witnesses"] = (*witnesses).into();
        }
    }
    object
}

pub(crate) fn environment(environment: &BTreeMap<String, String>) -> Value {
    environment.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect::<Map<_, _>>().into()
}

pub(crate) fn job(job: &Job) -> Value {
    let inputs = job.inputs.iter().map(|input| json!({ "path": input.path, "artifact": reference(&input.artifact) }));
    let env: Map<String, Value> = job.env.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let mut object = json!({
        "runtime": job.runtime,
        "module": reference(&job.module),
        "args": job.args,
        "env": env,
        "inputs": inputs.collect::<Vec<_>>(),
        "outputs": job.outputs,
        "limits": {
            "fuel": integer(job.limits.fuel),
            "memory_bytes": integer(job.limits.memory_bytes),
            "output_bytes": integer(job.limits.output_bytes),
            "wall_ms": integer(job.limits.wall_ms),
        },
    });
    if let Some(stdin) = &job.stdin {
        object["stdin"] = reference(stdin);
    }
    object
}

fn claim(claim: &Claim) -> Value {
    let bytes = |claimed: &Claimed| match claimed {
        Claimed::Artifact(artifact) => ("artifact", reference(artifact)),
        // The same bytes, the same digest: a digest alone is written as an artifact of that address.
        Claimed::Digest(address) => ("artifact", address.to_string().into()),
    };
    let mut object = Map::new();
    object.insert("termination".into(), claim.termination.word().into());
    if let Some(code) = claim.exit_code {
        object.insert("exit_code".into(), code.into());
    }
    if let Some(count) = claim.instruction_count {
        object.insert("instruction_count".into(), integer(count));
    }
    if let Some(stdout) = &claim.stdout {
        let (name, value) = bytes(stdout);
        object.insert("stdout".into(), json!({ name: value }));
    }
    if let Some(outputs) = &claim.outputs {
        let output = |output: &super::ClaimedOutput| {
            let (name, value) = bytes(&output.bytes);
            json!({ "path": output.path, name: value })
        };
        object.insert("outputs".into(), outputs.iter().map(output).collect());
    }
    if let Some(folder) = &claim.folder {
        object.insert("folder".into(), folder.to_string().into());
    }
    if !claim.environment.is_empty() {
        object.insert("environment".into(), environment(&claim.environment));
    }
    Value::Object(object)
}

pub(crate) fn comparator(comparator: &Comparator) -> Value {
    let decimal = |text: &str| Value::from(crate::numeric::decimal(text).unwrap_or(0.0));
    match comparator {
        Comparator::Exact => json!({ "kind": "exact" }),
        Comparator::Numeric { relative, absolute, ulps } => json!({
            "kind": "numeric",
            "relative": decimal(relative),
            "absolute": decimal(absolute),
            "ulps": integer(*ulps),
        }),
        Comparator::Image { psnr_db_min, ssim_min } if ssim_min.is_empty() => {
            json!({ "kind": "image", "psnr_db_min": decimal(psnr_db_min) })
        }
        Comparator::Image { ssim_min, .. } => json!({ "kind": "image", "ssim_min": decimal(ssim_min) }),
        Comparator::IgnoreLines(patterns) => json!({ "kind": "ignore_lines", "patterns": patterns }),
        Comparator::Norm { metric, accept, reject, test } => {
            let band =
                |band: &Band| json!({ "relative": decimal(&band.relative), "absolute": decimal(&band.absolute) });
            json!({
                "kind": "norm",
                "metric": metric.word(),
                "accept": band(accept),
                "reject": band(reject),
                "test": sequential(test),
            })
        }
        Comparator::Topk { over, k, accept_overlap, reject_overlap, test } => json!({
            "kind": "topk",
            "over": over.word(),
            "k": k,
            "accept_overlap": accept_overlap,
            "reject_overlap": reject_overlap,
            "test": sequential(test),
        }),
        Comparator::Toploc { topk, batch, accept, reject, test } => {
            let errors = |errors: &ToplocErrors| {
                json!({
                    "exp_mismatches": errors.exp_mismatches,
                    "mant_err_mean": decimal(&errors.mant_err_mean),
                    "mant_err_median": decimal(&errors.mant_err_median),
                })
            };
            json!({
                "kind": "toploc",
                "topk": topk,
                "batch": batch,
                "accept": errors(accept),
                "reject": errors(reject),
                "test": sequential(test),
            })
        }
    }
}

/// The shares as shortest decimals in text: `0.010` and `0.01` are one.
fn sequential(test: &SequentialTest) -> Value {
    let share = |text: &str| SequentialTest::billionths(text).map_or_else(|| text.to_owned(), billionths);
    json!({
        "alpha": share(&test.alpha),
        "beta": share(&test.beta),
        "honest_rate": share(&test.honest_rate),
        "cheat_rate": share(&test.cheat_rate),
    })
}
