//! The C programs of the fixtures, as a client would send them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tribunal_verifiers::{FolderSource, Request, Verdict};

use crate::bench::{SERVICE, fixture, fixture_bytes, fixture_folder};

pub const JOBS: [&str; 4] = ["wordcount", "render", "heat", "classifier"];

/// A request for a job of the fixtures that claims what is expected of it.
pub fn request(name: &str) -> Value {
    let job: Value = serde_json::from_slice(&fixture_bytes(&format!("jobs/{name}/job.json"))).expect("job.json");
    let mut outputs = BTreeMap::new();
    for entry in std::fs::read_dir(fixture(&format!("jobs/{name}/expected"))).expect("expected") {
        let file = entry.expect("an entry").file_name().into_string().expect("a plain name");
        if file != "stdout.txt" {
            outputs.insert(format!("/out/{file}"), format!("expected/{file}"));
        }
    }
    let outputs: Vec<_> = outputs.iter().map(|(path, file)| json!({ "path": path, "artifact": file })).collect();
    json!({
        "method": { "kind": "reexecution" },
        "job": job,
        "claim": { "exit_code": 0, "stdout": { "artifact": "expected/stdout.txt" }, "outputs": outputs },
    })
}

pub fn source(name: &str) -> FolderSource {
    fixture_folder(&format!("jobs/{name}"))
}

fn run(name: &str, request: &Value) -> Verdict {
    let request = Request::parse(&request.to_string()).expect("a good request");
    SERVICE.verify_from(&request, &source(name)).expect("a verdict")
}

#[test]
fn every_job_gives_what_is_expected_of_it() {
    for name in JOBS {
        let verdict = run(name, &request(name));
        assert_eq!(verdict.reason.code, "ok", "{name}: {}", verdict.reason.detail);
    }
}

#[test]
fn every_job_costs_the_same_fuel_each_time_and_a_count_above_it_is_caught() {
    for name in JOBS {
        let mut request = request(name);
        let first = run(name, &request);
        assert_eq!(first.digest, run(name, &request).digest);
        let fuel = first.evidence.fields["fuel_used"].as_u64().expect("a number");
        request["claim"]["instruction_count"] = json!(fuel);
        assert_eq!(run(name, &request).reason.code, "ok");
        request["claim"]["instruction_count"] = json!(fuel + 1);
        assert_eq!(run(name, &request).reason.code, "instruction-count");
    }
}

#[test]
fn a_claim_of_another_jobs_file_is_caught() {
    for name in JOBS {
        let mut request = request(name);
        request["claim"]["outputs"][0]["artifact"] = json!("job.json");
        assert_eq!(run(name, &request).reason.code, "output-differs", "{name}");
    }
}
