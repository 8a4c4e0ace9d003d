//! What is a request, and what each bad one is told.

use expect_test::expect;
use serde_json::{Value, json};
use tribunal_verifiers::{MemorySource, Request};

use crate::bench::{Bench, SERVICE, printer, verify};

fn good() -> Value {
    json!({
        "request_id": "r-1",
        "deal_id": format!("0x{}", "ab".repeat(32)),
        "method": { "kind": "reexecution" },
        "job": {
            "runtime": "wasm-1",
            "module": "job.wasm",
            "args": ["job", "/in/a"],
            "env": { "LANG": "C" },
            "stdin": "stdin.txt",
            "inputs": [{ "path": "/in/a", "artifact": "a" }],
            "outputs": ["/out"],
            "limits": { "fuel": "18446744073709551615", "memory_bytes": 65536, "output_bytes": 1, "wall_ms": 1 },
        },
        "claim": {
            "exit_code": 0,
            "instruction_count": "9007199254740993",
            "stdout": { "blake3": "11".repeat(32) },
            "outputs": [{ "path": "/out/b", "artifact": "b" }],
        },
        "comparator": { "kind": "exact" },
    })
}

fn problem(request: &str) -> String {
    Request::parse(request).map_or_else(|problem| problem.to_string(), |_| "good".into())
}

fn edited(pointer: &str, value: Value) -> String {
    let mut request = good();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    match request.pointer_mut(parent).expect("a parent") {
        Value::Object(fields) => drop(fields.insert(name.into(), value)),
        Value::Array(items) => items[name.parse::<usize>().expect("an index")] = value,
        other => panic!("{other} has no fields"),
    }
    problem(&request.to_string())
}

#[test]
fn the_example_of_interfaces_is_good() {
    assert_eq!(problem(&good().to_string()), "good");
    let text = r#"{
      "request_id": "optional, makes a retry idempotent",
      "method": { "kind": "reexecution" },
      "job": {
        "runtime": "wasm-1", "module": "jobs/wordcount.wasm",
        "args": ["wordcount", "/in/text.txt", "/out/counts.json"], "env": { "LANG": "C" }, "stdin": "jobs/stdin.txt",
        "inputs":  [ { "path": "/in/text.txt", "artifact": "data/text.txt" } ], "outputs": [ "/out" ],
        "limits": { "fuel": 5000000000, "memory_bytes": 268435456, "output_bytes": 16777216, "wall_ms": 60000 }
      },
      "claim": {
        "exit_code": 0, "instruction_count": 123456, "stdout": { "artifact": "claims/stdout.txt" },
        "outputs": [ { "path": "/out/counts.json", "artifact": "claims/counts.json" } ]
      },
      "comparator": { "kind": "exact" }
    }"#;
    assert_eq!(problem(text), "good");
}

#[test]
fn canonical_json_writes_out_names_and_defaults() {
    let request = Request::parse(&good().to_string()).expect("a good request");
    expect![[""]].assert_eq(&request.canonical_json());
    assert_eq!(Request::parse(&request.canonical_json()).expect("it reads back"), {
        let mut same = request.clone();
        // A digest alone comes back as an artifact of that address.
        if let Some(claim) = &mut same.claim {
            let address = claim.stdout.as_ref().expect("given").reference();
            claim.stdout = Some(tribunal_verifiers::Claimed::Artifact(address));
        }
        same
    });
}

#[test]
fn a_bad_request_names_its_field() {
    let mut table = String::new();
    let edits: [(&str, Value); 44] = [
        ("/metod", json!(1)),
        ("/method", json!(null)),
        ("/method/kind", json!("vote")),
        ("/method/votes", json!([])),
        ("/job", json!(null)),
        ("/job/modul", json!("x")),
        ("/job/module", json!("")),
        ("/job/module", json!("blake3:12")),
        ("/job/module", json!(5)),
        ("/job/runtime", json!("")),
        ("/job/args", json!("a")),
        ("/job/args", json!([1])),
        ("/job/args", json!(["a\u{0}"])),
        ("/job/args", json!(vec!["a"; 257])),
        ("/job/args", json!(["a".repeat(4097)])),
        ("/job/env", json!({ "A=B": "1" })),
        ("/job/env", json!({ "A": 1 })),
        ("/job/inputs", json!([{ "path": "in/a", "artifact": "a" }])),
        ("/job/inputs", json!([{ "path": "/in/../a", "artifact": "a" }])),
        ("/job/inputs", json!([{ "path": "/in//a", "artifact": "a" }])),
        ("/job/inputs", json!([{ "path": "/", "artifact": "a" }])),
        ("/job/inputs", json!([{ "path": "/a", "artifact": "a" }, { "path": "/a", "artifact": "b" }])),
        ("/job/inputs", json!([{ "path": "/a", "artifact": "a" }, { "path": "/a/b", "artifact": "b" }])),
        ("/job/inputs", json!([{ "path": "/a" }])),
        ("/job/outputs", json!(null)),
        ("/job/limits/fuel", json!(0)),
        ("/job/limits/fuel", json!(-1)),
        ("/job/limits/fuel", json!(1.5)),
        ("/job/limits/fuel", json!("1e3")),
        ("/job/limits/fuel", json!("18446744073709551616")),
        ("/job/limits/fuel", json!("007")),
        ("/job/limits/wall_ms", json!(null)),
        ("/claim", json!(null)),
        ("/claim/exit_code", json!("2147483648")),
        ("/claim/termination", json!("crash")),
        ("/claim/stdout", json!({})),
        ("/claim/stdout", json!({ "artifact": "a", "blake3": "11".repeat(32) })),
        ("/claim/stdout", json!({ "blake3": "AA".repeat(32) })),
        ("/claim/outputs", json!([{ "path": "/a", "artifact": "a" }, { "path": "/a", "artifact": "b" }])),
        ("/comparator", json!({ "kind": "numeric", "relative": -1 })),
        ("/comparator", json!({ "kind": "numeric", "relative": "nan" })),
        ("/comparator", json!({ "kind": "image" })),
        ("/comparator", json!({ "kind": "ignore_lines", "patterns": ["("] })),
        ("/deal_id", json!("0x12")),
    ];
    for (pointer, value) in edits {
        let shown: String = value.to_string().chars().take(60).collect();
        table += &format!("{pointer} {shown}: {}\n", edited(pointer, value));
    }
    expect![[""]].assert_eq(&table);
}

#[test]
fn text_that_is_no_json_or_says_things_twice_is_refused() {
    let texts = ["", "{", "[]", r#"{"method": {"kind": "reexecution", "kind": "proof"}}"#, r#"{"a": 1, "\u0061": 2}"#, "{} {}"];
    let table: String = texts.map(|text| format!("{text}: {}\n", problem(text))).concat();
    expect![[""]].assert_eq(&table);
    assert!(problem(&"[".repeat(100_000)).contains("nested deeper"));
    assert!(problem(&" ".repeat(1 << 21)).contains("at most 1048576 bytes"));
}

#[test]
fn methods_are_checked_with_what_they_need() {
    let vote = |voter: &str| json!({ "voter": voter, "claim": { "exit_code": 0 } });
    let (a, b) = (format!("0x{}", "aa".repeat(20)), format!("0x{}", "bb".repeat(20)));
    let quorum = json!({ "kind": "quorum", "quorum": 1 });
    let proof = json!({
        "system": "groth16",
        "curve": "bn128",
        "verification_key": { "artifact": "vk" },
        "proof": { "artifact": "p" },
        "public": { "artifact": "i" },
    });
    let external = json!({ "kind": "external", "verifier": "v" });
    let nested = (0..5).fold(external.clone(), |inner, _| json!({ "kind": "all", "of": [inner] }));
    let methods = [
        json!({ "kind": "majority", "votes": [vote(&a), vote(&b)], "rule": quorum }),
        json!({ "kind": "majority", "votes": [vote(&a), vote(&a.replace('a', "A").replace("0A", "0x"))], "rule": quorum }),
        json!({ "kind": "majority", "votes": [vote(&a), vote(&a)], "rule": quorum }),
        json!({ "kind": "majority", "votes": [vote("0x12")], "rule": quorum }),
        json!({ "kind": "majority", "votes": [vote(&a)], "rule": { "kind": "quorum" } }),
        json!({ "kind": "majority", "votes": [vote(&a)], "rule": { "kind": "luck" } }),
        json!({ "kind": "proof", "proof": proof }),
        json!({ "kind": "proof", "proof": proof, "bind": [{ "input": 0, "to": "deal" }] }),
        json!({ "kind": "proof", "proof": { "system": "plonk" } }),
        json!({ "kind": "proof", "proof": { "system": "groth16", "curve": "bn254" } }),
        json!({ "kind": "all", "of": [] }),
        json!({ "kind": "all", "of": [external], "k": 1 }),
        json!({ "kind": "threshold", "of": [external], "k": 2 }),
        json!({ "kind": "external", "verifier": "a.b" }),
        nested,
    ];
    let mut table = String::new();
    for method in methods {
        table += &format!("{}\n", edited("/method", method));
    }
    expect![[""]].assert_eq(&table);
    let mut bare = good();
    bare["method"] = json!({ "kind": "proof", "proof": proof, "bind": [{ "input": 0, "to": "deal-id" }] });
    bare["deal_id"] = Value::Null;
    expect![[""]].assert_eq(&problem(&bare.to_string()));
}

#[test]
fn a_missing_file_is_a_bad_request_and_a_missing_address_is_not() {
    let bench = Bench::wat(&printer("hello", ""));
    expect![[""]].assert_eq(&bench.clone().set("/job/stdin", json!("nothing.txt")).line());
    expect![[""]].assert_eq(&bench.clone().set("/claim/stdout", json!({ "artifact": "nothing.txt" })).line());
    expect![[""]].assert_eq(&bench.clone().set("/job/module", json!(format!("blake3:{}", "00".repeat(32)))).line());
    let cid = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";
    expect![[""]].assert_eq(&bench.clone().set("/job/stdin", json!(cid)).line());
    let none = MemorySource::new();
    assert!(verify(&bench.request, &none).is_err());
}

#[test]
fn a_request_by_name_and_by_address_has_one_digest() {
    let bench = Bench::wat(&printer("hello", ""));
    let module = wat::parse_str(printer("hello", "")).expect("a module");
    let named = Request::parse(&bench.request.to_string()).expect("a good request");
    let address = format!("blake3:{}", blake3::hash(&module).to_hex());
    let addressed = bench.clone().set("/job/module", json!(address));
    let addressed = Request::parse(&addressed.request.to_string()).expect("a good request");
    assert_ne!(named.digest(), addressed.digest());
    let digest = |request| SERVICE.request_digest_from(request, &bench.source).expect("the file is there");
    assert_eq!(digest(&named), addressed.digest());
    assert_eq!(digest(&named), digest(&addressed));
}

#[test]
fn needs_lists_both_sides() {
    let mut request = good();
    request["job"]["module"] = json!(format!("sha256:{}", "01".repeat(32)));
    request["job"]["stdin"] = json!(format!("blake3:{}", "02".repeat(32)));
    let needs = Request::parse(&request.to_string()).expect("a good request").needs();
    assert_eq!((needs.inputs.len(), needs.outputs.len(), needs.votes.len()), (2, 1, 0));
    assert!(!needs.outputs_decide, "digests decide");
}
