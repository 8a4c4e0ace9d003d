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
    expect![[r#"{"claim":{"exit_code":0,"instruction_count":"9007199254740993","outputs":[{"artifact":"b","path":"/out/b"}],"stdout":{"artifact":"blake3:1111111111111111111111111111111111111111111111111111111111111111"},"termination":"exit"},"comparator":{"kind":"exact"},"deal_id":"0xabababababababababababababababababababababababababababababababab","job":{"args":["job","/in/a"],"env":{"LANG":"C"},"inputs":[{"artifact":"a","path":"/in/a"}],"limits":{"fuel":"18446744073709551615","memory_bytes":65536,"output_bytes":1,"wall_ms":1},"module":"job.wasm","outputs":["/out"],"runtime":"wasm-1","stdin":"stdin.txt"},"method":{"kind":"reexecution"},"request_id":"r-1"}"#]].assert_eq(&request.canonical_json());
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
    let edits: [(&str, Value); 45] = [
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
        ("/comparator", json!({ "kind": "distance" })),
        ("/deal_id", json!("0x12")),
    ];
    for (pointer, value) in edits {
        let shown: String = value.to_string().chars().take(60).collect();
        table += &format!("{pointer} {shown}: {}\n", edited(pointer, value));
    }
    expect![[r#"
        /metod 1: metod: no such field
        /method null: method: is missing
        /method/kind "vote": method.kind: reexecution, proof, majority, aggregate, external, all, any or threshold, not "vote"
        /method/votes []: method.votes: no such field
        /job null: job: is missing: method reexecution runs it
        /job/modul "x": job.modul: no such field
        /job/module "": job.module: a file name or a content address is needed
        /job/module "blake3:12": job.module: a content address is blake3: or sha256: and 64 lowercase hex digits, not "blake3:12"
        /job/module 5: job.module: a string is needed, not a number
        /job/runtime "": job.runtime: a runtime profile such as wasm-1 is needed
        /job/args "a": job.args: a list is needed, not a string
        /job/args [1]: job.args[0]: a string is needed, not a number
        /job/args ["a\u0000"]: job.args[0]: a zero byte is not allowed
        /job/args ["a","a","a","a","a","a","a","a","a","a","a","a","a","a","a": job.args: at most 256 entries, not 257
        /job/args ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: job.args[0]: at most 4096 bytes, not 4097
        /job/env {"A=B":"1"}: job.env.A=B: a name without = and zero byte is needed
        /job/env {"A":1}: job.env.A: a string is needed, not a number
        /job/inputs [{"artifact":"a","path":"in/a"}]: job.inputs[0].path: not an absolute plain path: "in/a"
        /job/inputs [{"artifact":"a","path":"/in/../a"}]: job.inputs[0].path: not an absolute plain path: "/in/../a"
        /job/inputs [{"artifact":"a","path":"/in//a"}]: job.inputs[0].path: not an absolute plain path: "/in//a"
        /job/inputs [{"artifact":"a","path":"/"}]: job.inputs[0].path: not an absolute plain path: "/"
        /job/inputs [{"artifact":"a","path":"/a"},{"artifact":"b","path":"/a"}]: job.inputs: /a is given twice
        /job/inputs [{"artifact":"a","path":"/a"},{"artifact":"b","path":"/a/b"}: job.inputs: /a leads through a file
        /job/inputs [{"path":"/a"}]: job.inputs[0].artifact: is missing
        /job/outputs null: job.outputs: is missing
        /job/limits/fuel 0: job.limits.fuel: between 1 and 18446744073709551615, not 0
        /job/limits/fuel -1: job.limits.fuel: between 1 and 18446744073709551615, not -1
        /job/limits/fuel 1.5: job.limits.fuel: an integer is needed, not "1.5"
        /job/limits/fuel "1e3": job.limits.fuel: an integer is needed, not "1e3"
        /job/limits/fuel "18446744073709551616": job.limits.fuel: between 1 and 18446744073709551615, not 18446744073709551616
        /job/limits/fuel "007": job.limits.fuel: an integer is needed, not "007"
        /job/limits/wall_ms null: job.limits.wall_ms: is missing
        /claim null: claim: is missing: method reexecution judges it
        /claim/exit_code "2147483648": claim.exit_code: between -2147483648 and 2147483647, not 2147483648
        /claim/termination "crash": claim.termination: exit, trap or out-of-fuel, not "crash"
        /claim/stdout {}: claim.stdout: an artifact or a blake3 digest is needed
        /claim/stdout {"artifact":"a","blake3":"1111111111111111111111111111111111: claim.stdout: an artifact or a blake3 digest, not both
        /claim/stdout {"blake3":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA: claim.stdout.blake3: 64 lowercase hex digits, not "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        /claim/outputs [{"artifact":"a","path":"/a"},{"artifact":"b","path":"/a"}]: claim.outputs: /a is given twice
        /comparator {"kind":"numeric","relative":-1}: comparator.relative: a decimal number, not negative, not "-1"
        /comparator {"kind":"numeric","relative":"nan"}: comparator.relative: a decimal number, not negative, not "nan"
        /comparator {"kind":"image"}: comparator: one of psnr_db_min and ssim_min is needed
        /comparator {"kind":"ignore_lines","patterns":["("]}: comparator.patterns[0]: no regular expression: error: unclosed group
        /comparator {"kind":"distance"}: comparator.kind: exact, numeric, image, ignore_lines, norm, topk or toploc, not "distance"
        /deal_id "0x12": deal_id: a deal id is written as 0x and 64 lowercase hex digits, not "0x12"
    "#]].assert_eq(&table);
}

#[test]
fn text_that_is_no_json_or_says_things_twice_is_refused() {
    let texts =
        ["", "{", "[]", r#"{"method": {"kind": "reexecution", "kind": "proof"}}"#, r#"{"a": 1, "\u0061": 2}"#, "{} {}"];
    let table: String = texts.map(|text| format!("{text}: {}\n", problem(text))).concat();
    expect![[r#"
        : request: is no JSON: the text ends where a value is expected (line 1, column 1)
        {: request: is no JSON: a key in quotes expected (line 1, column 2)
        []: request: an object is needed, not a list
        {"method": {"kind": "reexecution", "kind": "proof"}}: request: is no JSON: the key "kind" is given twice (line 1, column 36)
        {"a": 1, "\u0061": 2}: request: is no JSON: the key "a" is given twice (line 1, column 10)
        {} {}: request: is no JSON: more text after the end of the value (line 1, column 4)
    "#]].assert_eq(&table);
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
    expect![[r#"
        good
        method.votes[1].voter: 0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa votes twice
        method.votes[1].voter: 0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa votes twice
        method.votes[0].voter: an address, 0x and 40 hex digits, not "0x12"
        method.rule.quorum: is missing
        method.rule.kind: quorum, boinc or credibility, not "luck"
        good
        method.bind[0].to: deal-id or output-digest, not "deal"
        method.proof.system: groth16, sp1 or risc0, not "plonk"
        method.proof.verification_key: is missing
        method.of: at least one method is needed
        method.k: no such field
        method.k: between 1 and 1, not 2
        method.verifier: a name of letters, digits, - and _ is needed
        method.of[0].of[0].of[0]: methods are combined at most 3 deep
    "#]]
    .assert_eq(&table);
    let mut bare = good();
    bare["method"] = json!({ "kind": "proof", "proof": proof, "bind": [{ "input": 0, "to": "deal-id" }] });
    bare["deal_id"] = Value::Null;
    expect!["deal_id: is missing: the proof is to be bound to it"].assert_eq(&problem(&bare.to_string()));
}

#[test]
fn a_missing_file_is_a_bad_request_and_a_missing_address_is_not() {
    let bench = Bench::wat(&printer("hello", ""));
    expect!["bad request: job.stdin: no file nothing.txt among the artifacts"]
        .assert_eq(&bench.clone().set("/job/stdin", json!("nothing.txt")).line());
    expect!["bad request: claim.stdout.artifact: no file nothing.txt among the artifacts"]
        .assert_eq(&bench.clone().set("/claim/stdout", json!({ "artifact": "nothing.txt" })).line());
    expect!["inconclusive artifact-unavailable: nobody serves blake3:0000000000000000000000000000000000000000000000000000000000000000"].assert_eq(&bench.clone().set("/job/module", json!(format!("blake3:{}", "00".repeat(32)))).line());
    let cid = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";
    expect!["inconclusive artifact-unavailable: nobody serves QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"]
        .assert_eq(&bench.clone().set("/job/stdin", json!(cid)).line());
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

#[test]
fn bands_and_tests_are_checked_field_by_field() {
    let test = json!({ "alpha": "0.001", "beta": 0.01, "honest_rate": 0.01, "cheat_rate": 0.5 });
    let norm = json!({
        "kind": "norm", "metric": "l2", "accept": { "relative": 0.01 }, "reject": { "relative": 0.1 }, "test": test,
    });
    let topk = json!({ "kind": "topk", "over": "ids", "k": 5, "accept_overlap": 4, "reject_overlap": 2, "test": test });
    let errors = json!({ "exp_mismatches": 4, "mant_err_mean": 10, "mant_err_median": 8 });
    let toploc = json!({ "kind": "toploc", "topk": 8, "batch": 32, "accept": errors, "reject": errors, "test": test });
    let mut table = String::new();
    for (comparator, pointer, value) in [
        (&norm, "/metric", json!("l2")),
        (&norm, "/metric", json!("l1")),
        (&norm, "/accept", json!({ "relative": 0.2 })),
        (&norm, "/accept", json!({ "absolute": 0.2 })),
        (&norm, "/accept", json!({ "relativ": 0.2 })),
        (&norm, "/accept", json!(0.2)),
        (&norm, "/reject", json!({ "relative": -1 })),
        (&norm, "/test", Value::Null),
        (&norm, "/test/alpha", json!(0)),
        (&norm, "/test/alpha", json!(0.5)),
        (&norm, "/test/alpha", json!("1e-3")),
        (&norm, "/test/beta", json!("0.0000000001")),
        (&norm, "/test/honest_rate", json!(0.5)),
        (&norm, "/test/cheat_rate", json!(1)),
        (&norm, "/test/gamma", json!(1)),
        (&topk, "/k", json!(5)),
        (&topk, "/k", json!(0)),
        (&topk, "/k", json!(65537)),
        (&topk, "/over", json!("words")),
        (&topk, "/accept_overlap", json!(6)),
        (&topk, "/reject_overlap", json!(5)),
        (&topk, "/reject_overlap", json!(0)),
        (&toploc, "/topk", json!(8)),
        (&toploc, "/topk", json!(4097)),
        (&toploc, "/batch", json!(0)),
        (&toploc, "/reject/mant_err_mean", json!(9)),
        (&toploc, "/reject/exp_mismatches", json!(3)),
        (&toploc, "/accept/exp_mismatches", json!(9)),
    ] {
        let mut comparator = comparator.clone();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        comparator
            .pointer_mut(parent)
            .expect("a parent")
            .as_object_mut()
            .expect("an object")
            .insert(name.into(), value.clone());
        table += &format!("{} {pointer} {value}: {}\n", comparator["kind"], edited("/comparator", comparator.clone()));
    }
    expect![[r#"
        "norm" /metric "l2": good
        "norm" /metric "l1": comparator.metric: l2 or linf, not "l1"
        "norm" /accept {"relative":0.2}: comparator.reject.relative: must not be below the accept one
        "norm" /accept {"absolute":0.2}: comparator.reject.absolute: must not be below the accept one
        "norm" /accept {"relativ":0.2}: comparator.accept.relativ: no such field
        "norm" /accept 0.2: comparator.accept: an object is needed, not a number
        "norm" /reject {"relative":-1}: comparator.reject.relative: a decimal number, not negative, not "-1"
        "norm" /test null: comparator.test: is missing
        "norm" /test/alpha 0: comparator.test.alpha: a decimal between 0 and 1 with at most nine digits after the point, not "0"
        "norm" /test/alpha 0.5: comparator.test.alpha: must be below one half
        "norm" /test/alpha "1e-3": comparator.test.alpha: a decimal between 0 and 1 with at most nine digits after the point, not "1e-3"
        "norm" /test/beta "0.0000000001": comparator.test.beta: a decimal between 0 and 1 with at most nine digits after the point, not "0.0000000001"
        "norm" /test/honest_rate 0.5: comparator.test.cheat_rate: must be above honest_rate
        "norm" /test/cheat_rate 1: comparator.test.cheat_rate: a decimal between 0 and 1 with at most nine digits after the point, not "1"
        "norm" /test/gamma 1: comparator.test.gamma: no such field
        "topk" /k 5: good
        "topk" /k 0: comparator.k: between 1 and 65536, not 0
        "topk" /k 65537: comparator.k: between 1 and 65536, not 65537
        "topk" /over "words": comparator.over: logits or ids, not "words"
        "topk" /accept_overlap 6: comparator.accept_overlap: between 1 and 5, not 6
        "topk" /reject_overlap 5: comparator.reject_overlap: between 1 and 4, not 5
        "topk" /reject_overlap 0: comparator.reject_overlap: between 1 and 4, not 0
        "toploc" /topk 8: good
        "toploc" /topk 4097: comparator.topk: between 1 and 4096, not 4097
        "toploc" /batch 0: comparator.batch: between 1 and 1048576, not 0
        "toploc" /reject/mant_err_mean 9: comparator.reject.mant_err_mean: must not be below the accept one
        "toploc" /reject/exp_mismatches 3: comparator.reject.exp_mismatches: between 4 and 8, not 3
        "toploc" /accept/exp_mismatches 9: comparator.accept.exp_mismatches: between 0 and 8, not 9
    "#]].assert_eq(&table);
}

#[test]
fn aggregates_and_environments_are_checked_field_by_field() {
    let (source, signature) = (format!("0x{}", "11".repeat(20)), format!("0x{}", "11".repeat(65)));
    let observation = json!({ "source": "s1", "artifact": "a" });
    let signed = json!({ "source": source, "artifact": "a", "weight": 2, "signature": signature });
    let aggregate = |function: &str, observations: Value| json!({ "kind": "aggregate", "function": function, "observations": observations });
    let with = |mut method: Value, name: &str, value: Value| {
        method[name] = value;
        method
    };
    let mut table = String::new();
    for method in [
        aggregate("median", json!([observation])),
        aggregate("mode", json!([observation])),
        aggregate("median", json!([])),
        aggregate("median", json!([observation, observation])),
        aggregate("median", json!(vec![observation.clone(); 257])),
        aggregate("median", json!([{ "source": "", "artifact": "a" }])),
        aggregate("median", json!([{ "source": "s1", "artifact": "a", "weight": 2 }])),
        aggregate("median", json!([{ "source": "s1", "artifact": "a", "signature": signature }])),
        with(aggregate("median", json!([observation])), "trim", json!(0.1)),
        aggregate("trimmed-mean", json!([observation])),
        with(aggregate("trimmed-mean", json!([observation])), "trim", json!(0.5)),
        with(aggregate("trimmed-mean", json!([observation])), "trim", json!("1e-1")),
        with(aggregate("mad-outliers", json!([observation])), "witnesses", json!(0)),
        with(aggregate("mad-outliers", json!([observation])), "threshold", json!(-1)),
        aggregate("fedavg", json!([observation])),
        aggregate("fedavg", json!([signed])),
        aggregate("fedavg", json!([{ "source": source, "artifact": "a", "signature": "0x11" }])),
        aggregate("fedavg", json!([{ "source": source, "artifact": "a", "weight": 0, "signature": signature }])),
    ] {
        let shown: String = method.to_string().chars().take(110).collect();
        table += &format!("{shown}: {}\n", edited("/method", method));
    }
    for environment in [
        json!({ "device": "NVIDIA A100", "driver": "550.54", "data-type": "bf16" }),
        json!({ "Device": "x" }),
        json!({ "device": "" }),
        json!({ "device": "a\nb" }),
        json!({ "device": 5 }),
        json!(["device"]),
        (0..17).map(|index| (format!("n{index}"), json!("x"))).collect::<serde_json::Map<_, _>>().into(),
    ] {
        let shown: String = environment.to_string().chars().take(60).collect();
        table += &format!("{shown}: {}\n", edited("/claim/environment", environment));
    }
    expect![[r#"
        {"function":"median","kind":"aggregate","observations":[{"artifact":"a","source":"s1"}]}: good
        {"function":"mode","kind":"aggregate","observations":[{"artifact":"a","source":"s1"}]}: method.function: median, trimmed-mean, mad-outliers or fedavg, not "mode"
        {"function":"median","kind":"aggregate","observations":[]}: method.observations: at least one observation is needed
        {"function":"median","kind":"aggregate","observations":[{"artifact":"a","source":"s1"},{"artifact":"a","source: method.observations[1].source: s1 is given twice
        {"function":"median","kind":"aggregate","observations":[{"artifact":"a","source":"s1"},{"artifact":"a","source: method.observations: at most 256 entries, not 257
        {"function":"median","kind":"aggregate","observations":[{"artifact":"a","source":""}]}: method.observations[0].source: a name of 1 to 64 bytes is needed
        {"function":"median","kind":"aggregate","observations":[{"artifact":"a","source":"s1","weight":2}]}: method.observations[0].weight: only a federated average has weights
        {"function":"median","kind":"aggregate","observations":[{"artifact":"a","signature":"0x11111111111111111111111: method.observations[0].source: an address is needed where there is a signature, 0x and 40 hex digits
        {"function":"median","kind":"aggregate","observations":[{"artifact":"a","source":"s1"}],"trim":0.1}: method.trim: no such field
        {"function":"trimmed-mean","kind":"aggregate","observations":[{"artifact":"a","source":"s1"}]}: method.trim: is missing
        {"function":"trimmed-mean","kind":"aggregate","observations":[{"artifact":"a","source":"s1"}],"trim":0.5}: method.trim: must be below one half, so that something is left
        {"function":"trimmed-mean","kind":"aggregate","observations":[{"artifact":"a","source":"s1"}],"trim":"1e-1"}: method.trim: a plain decimal of at most nine digits after the point, not "1e-1"
        {"function":"mad-outliers","kind":"aggregate","observations":[{"artifact":"a","source":"s1"}],"witnesses":0}: method.witnesses: between 1 and 256, not 0
        {"function":"mad-outliers","kind":"aggregate","observations":[{"artifact":"a","source":"s1"}],"threshold":-1}: method.threshold: a plain decimal of at most nine digits after the point, not "-1"
        {"function":"fedavg","kind":"aggregate","observations":[{"artifact":"a","source":"s1"}]}: method.observations[0].signature: is missing: an update is signed by its source
        {"function":"fedavg","kind":"aggregate","observations":[{"artifact":"a","signature":"0x11111111111111111111111: method.observations[0].signature: the last byte of a signature is 27 or 28, not 17
        {"function":"fedavg","kind":"aggregate","observations":[{"artifact":"a","signature":"0x11","source":"0x1111111: method.observations[0].signature: a signature has 65 bytes (r, s, v), not 1; contract wallets (ERC-1271) cannot be checked off chain
        {"function":"fedavg","kind":"aggregate","observations":[{"artifact":"a","signature":"0x11111111111111111111111: method.observations[0].weight: between 1 and 4294967295, not 0
        {"data-type":"bf16","device":"NVIDIA A100","driver":"550.54": good
        {"Device":"x"}: claim.environment: a name is 1 to 64 of a-z, 0-9, '-', '_' and '.', not "Device"
        {"device":""}: claim.environment: device: 1 to 256 bytes without control characters are needed
        {"device":"a\nb"}: claim.environment: device: 1 to 256 bytes without control characters are needed
        {"device":5}: claim.environment.device: a string is needed, not a number
        ["device"]: claim.environment: an object is needed, not a list
        {"n0":"x","n1":"x","n10":"x","n11":"x","n12":"x","n13":"x",": claim.environment: at most 16 entries, not 17
    "#]].assert_eq(&table);
    let mut two = good();
    two["method"] = aggregate("median", json!([observation]));
    two["claim"]["outputs"] = json!([]);
    expect!["claim.outputs: an aggregate is one output file, not 0"].assert_eq(&problem(&two.to_string()));
}

#[test]
fn canonical_json_of_the_newer_fields_reads_back() {
    let mut request = good();
    request["claim"]["environment"] = json!({ "driver": "1", "device": "a" });
    request["comparator"] = json!({
        "kind": "topk", "over": "ids", "k": 5, "accept_overlap": 4, "reject_overlap": 2,
        "test": { "alpha": "0.0010", "beta": 0.01, "honest_rate": 0.01, "cheat_rate": "0.500" },
    });
    request["method"] = json!({
        "kind": "aggregate", "function": "mad-outliers", "observations": [{ "source": "s", "artifact": "a" }],
    });
    let read = Request::parse(&request.to_string()).expect("a good request");
    let text = read.canonical_json();
    for part in [
        r#""environment":{"device":"a","driver":"1"}"#,
        r#""test":{"alpha":"0.001","beta":"0.01","cheat_rate":"0.5","honest_rate":"0.01"}"#,
        r#"{"function":"mad-outliers","kind":"aggregate","observations":[{"artifact":"a","source":"s"}],"threshold":"3.5","witnesses":1}"#,
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(Request::parse(&text).expect("it reads back").canonical_json(), text);
    let needs = read.needs();
    assert!(needs.outputs_decide && needs.inputs.is_empty(), "{needs:?}");
}
