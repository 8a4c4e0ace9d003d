//! Modules in text form: each reason that re-execution can give.

use expect_test::{Expect, expect};
use serde_json::json;

use crate::bench::{Bench, fixture_bytes, printer};

fn check(bench: &Bench, expected: Expect) {
    expected.assert_eq(&bench.line());
}

fn hello() -> Bench {
    Bench::wat(&printer("hello\\n", "")).file("hello", "hello\n").file("other", "hello\nworld\n")
}

// printer counts the escape as two characters, so what it prints ends in a zero byte; the tests name it exactly.
fn spoken() -> Bench {
    Bench::wat(&printer("hello", ""))
}

#[test]
fn a_true_claim_is_valid() {
    check(
        &spoken().file("out.txt", "hello").set("/claim/stdout", json!({ "artifact": "out.txt" })),
        expect!["valid ok: the claim is what the job gives"],
    );
    let digest = blake3::hash(b"hello").to_hex().to_string();
    check(
        &spoken().set("/claim/stdout", json!({ "blake3": digest })),
        expect!["valid ok: the claim is what the job gives"],
    );
    assert!(hello().line().starts_with("valid"));
}

#[test]
fn another_stdout_is_named_with_its_line() {
    check(
        &spoken().file("out.txt", "help").set("/claim/stdout", json!({ "artifact": "out.txt" })),
        expect!["invalid stdout-differs: stdout: line 1: expected hello, claimed help"],
    );
}

#[test]
fn a_false_digest_is_caught_though_nobody_serves_it() {
    check(
        &spoken().set("/claim/stdout", json!({ "blake3": "11".repeat(32) })),
        expect![[
            r#"invalid stdout-differs: stdout: expected blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f, claimed blake3:1111111111111111111111111111111111111111111111111111111111111111"#
        ]],
    );
    let sha = spoken().set("/claim/stdout", json!({ "artifact": format!("sha256:{}", "22".repeat(32)) }));
    assert!(sha.line().starts_with("invalid stdout-differs"), "{}", sha.line());
}

#[test]
fn a_digest_nobody_serves_is_inconclusive_within_a_tolerance() {
    check(
        &spoken()
            .set("/claim/stdout", json!({ "blake3": "11".repeat(32) }))
            .set("/comparator", json!({ "kind": "numeric", "relative": 1e-6 })),
        expect![
            "inconclusive artifact-unavailable: stdout: nobody serves blake3:1111111111111111111111111111111111111111111111111111111111111111"
        ],
    );
}

#[test]
fn exit_codes_are_compared() {
    let seven = Bench::wat(&printer("", "(call $proc_exit (i32.const 7))"));
    check(&seven, expect!["invalid exit-code-differs: exit code: expected 7, claimed 0"]);
    check(&seven.set("/claim/exit_code", json!(7)), expect!["valid ok: the claim is what the job gives"]);
}

#[test]
fn a_trap_is_a_definite_result() {
    let trap = Bench::wat(&printer("", "(unreachable)"));
    check(
        &trap,
        expect![
            "invalid trap: the job traps (wasm trap: wasm `unreachable` instruction executed), the claim says that it exits with 0"
        ],
    );
    check(
        &trap.clone().set("/claim", json!({ "termination": "trap" })),
        expect!["valid ok: the claim is what the job gives"],
    );
    check(
        &trap.set("/claim", json!({ "termination": "out-of-fuel" })),
        expect![
            "invalid trap: the job traps (wasm trap: wasm `unreachable` instruction executed), the claim says that it runs out of fuel"
        ],
    );
    check(
        &spoken().set("/claim", json!({ "termination": "trap" })),
        expect!["invalid termination-differs: the job exits with 0, the claim says that it traps"],
    );
}

#[test]
fn a_count_above_the_metered_one_is_invalid_and_one_below_is_paid_as_claimed() {
    let metered = spoken().run().evidence.fields["fuel_used"].as_u64().expect("a number");
    expect!["112"].assert_eq(&metered.to_string());
    check(
        &spoken().set("/claim/instruction_count", json!(metered + 1)),
        expect!["invalid instruction-count: metered 112, claimed 113"],
    );
    for count in [0, metered - 1, metered] {
        assert!(spoken().set("/claim/instruction_count", json!(count)).line().starts_with("valid"));
    }
}

#[test]
fn a_count_is_held_against_the_meter_however_the_job_ends() {
    let looping = r#"(module (func (export "_start") (loop (br 0))))"#;
    for (what, text, claim, metered) in [
        ("exit", printer("hello", "(call $proc_exit (i32.const 7))"), json!({ "exit_code": 7 }), 114),
        ("trap", printer("hello", "(unreachable)"), json!({ "termination": "trap" }), 112),
        (
            "division",
            printer("", "(drop (i32.div_u (i32.const 1) (i32.const 0)))"),
            json!({ "termination": "trap" }),
            107,
        ),
        ("out of fuel", looping.to_owned(), json!({ "termination": "out-of-fuel" }), 10_000_000),
    ] {
        let bench = Bench::wat(&text).set("/claim", claim);
        assert_eq!(bench.run().evidence.fields["fuel_used"], metered, "{what}");
        for count in [0, metered - 1, metered] {
            let line = bench.clone().set("/claim/instruction_count", json!(count)).line();
            assert_eq!(line, "valid ok: the claim is what the job gives", "{what}, {count}");
        }
        for count in [metered + 1, u64::MAX] {
            let line = bench.clone().set("/claim/instruction_count", json!(count.to_string())).line();
            let expected = format!("invalid instruction-count: metered {metered}, claimed {count}");
            assert_eq!(line, expected, "{what}");
        }
    }
}

#[test]
fn what_is_no_module_of_the_profile_makes_every_claim_invalid() {
    let line = |module: &str| Bench::wat(module).line();
    expect!["invalid module-invalid: magic header not detected: bad magic number - expected=["]
        .assert_eq(&Bench::wasm(fixture_bytes("jobs/hostile/notwasm.bin")).line());
    expect!["invalid module-invalid: the module exports no function _start without parameters and results"]
        .assert_eq(&line("(module)"));
    expect!["invalid module-invalid: unknown import: `env::time` has not been defined"]
        .assert_eq(&line(r#"(module (import "env" "time" (func)) (func (export "_start")))"#));
    let wrong_type = line(r#"(module (import "wasi_snapshot_preview1" "fd_close" (func)) (func (export "_start")))"#);
    assert!(wrong_type.starts_with("invalid module-invalid: "), "{wrong_type}");
    for feature in [
        "(module (memory i64 1) (func (export \"_start\")))",
        "(module (memory 1 1 shared) (func (export \"_start\")))",
        "(module (memory 1) (memory 1) (func (export \"_start\")))",
        "(module (func (export \"_start\") (return_call 0)))",
        "(module (tag) (func (export \"_start\")))",
        "(module (type (struct)) (func (export \"_start\")))",
        "(component)",
    ] {
        let line = line(feature);
        assert!(line.starts_with("invalid module-invalid: "), "{feature}: {line}");
    }
}

#[test]
fn an_unknown_runtime_is_inconclusive() {
    check(
        &spoken().set("/job/runtime", json!("wasm-2")),
        expect!["inconclusive unknown-runtime: this verifier has the runtimes wasm-1 and oci-1, not wasm-2"],
    );
    let newest = spoken().set("/job/runtime", json!("wasm")).run();
    assert_eq!(newest.evidence.fields["runtime"], "wasm-1");
    assert_eq!(newest.digest, spoken().run().digest);
}

#[test]
fn a_call_without_memory_traps() {
    let module = r#"(module
      (import "wasi_snapshot_preview1" "sched_yield" (func $y (result i32)))
      (func (export "_start") (drop (call $y))))"#;
    check(
        &Bench::wat(module),
        expect![
            "invalid trap: the job traps (the module exports no memory named memory), the claim says that it exits with 0"
        ],
    );
}

#[test]
fn files_under_outputs_are_compared_by_path() {
    let writer = |name: &str| {
        format!(
            r#"(module
          (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "\10\00\00\00\03\00\00\00")
          (data (i32.const 16) "1.5")
          (data (i32.const 32) "{name}")
          (func (export "_start")
            (if (call $open (i32.const 3) (i32.const 0) (i32.const 32) (i32.const {}) (i32.const 9)
                (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 64)) (then unreachable))
            (if (call $fd_write (i32.load (i32.const 64)) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))))"#,
            name.len()
        )
    };
    let job = Bench::wat(&writer("out/a.txt")).file("good", "1.5").file("near", "1.5000001").file("bad", "2.5");
    let claimed = |path: &str, artifact: &str| json!([{ "path": path, "artifact": artifact }]);
    check(
        &job.clone().set("/claim/outputs", claimed("/out/a.txt", "good")),
        expect!["valid ok: the claim is what the job gives"],
    );
    check(
        &job.clone().set("/claim/outputs", claimed("/out/a.txt", "bad")),
        expect!["invalid output-differs: /out/a.txt: line 1: expected 1.5, claimed 2.5"],
    );
    check(
        &job.clone().set("/claim/outputs", claimed("/out/b.txt", "good")),
        expect!["invalid output-differs: /out/a.txt: produced, but not claimed"],
    );
    check(
        &job.clone().set("/claim/outputs", json!([])),
        expect!["invalid output-differs: /out/a.txt: produced, but not claimed"],
    );
    check(
        &spoken().file("good", "1.5").set("/claim/outputs", claimed("/out/b.txt", "good")),
        expect!["invalid output-differs: /out/b.txt: claimed, but not produced"],
    );
    let near = job.set("/claim/outputs", claimed("/out/a.txt", "near"));
    check(&near, expect!["invalid output-differs: /out/a.txt: line 1: expected 1.5, claimed 1.5000001"]);
    let near = near.set("/comparator", json!({ "kind": "numeric", "relative": "1e-6" }));
    check(&near, expect!["valid ok: the claim is what the job gives"]);
    let preimage = near.run().preimage();
    assert!(!preimage.contains("own_outputs") && !preimage.contains("fuel_used"), "{preimage}");

    // An input is no output, and cannot be written.
    let blocked = Bench::wat(&writer("out/a.txt")).file("in", "0");
    let blocked = blocked.set("/job/inputs", json!([{ "path": "/out/a.txt", "artifact": "in" }]));
    assert!(blocked.line().starts_with("invalid trap"), "{}", blocked.line());
    let beside = Bench::wat(&writer("out/a.txt")).file("in", "0").file("good", "1.5");
    let beside = beside
        .set("/job/inputs", json!([{ "path": "/out/in.txt", "artifact": "in" }]))
        .set("/claim/outputs", claimed("/out/a.txt", "good"));
    check(&beside, expect!["valid ok: the claim is what the job gives"]);
}

#[test]
fn a_verdict_has_the_json_that_interfaces_promises() {
    let verdict = spoken().set("/claim/instruction_count", json!(1)).run();
    let mut json = verdict.to_json();
    json["evidence"]["wall_us"] = json!(0);
    json["evidence"]["host"] = json!({});
    expect![[r#"
        {
          "digest": "blake3:4e6514168f83cfe3538d80baf2f89daa87add96c203a4ba66c07ab4726fc1215",
          "evidence": {
            "comparator": {
              "kind": "exact"
            },
            "fuel_used": 112,
            "host": {},
            "inputs": {},
            "module": "blake3:0d8cc33bde2e91c54e4e52fdd1cb4e20aa81fa9562e22a7b6f5dc3d91c93b3a8",
            "own_exit_code": 0,
            "own_outputs": {},
            "own_stdout": "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f",
            "own_termination": "exit",
            "runtime": "wasm-1",
            "verifier": "reexecution/wasm",
            "verifier_version": "0.1.0",
            "wall_us": 0
          },
          "reason": {
            "code": "ok",
            "detail": "the claim is what the job gives"
          },
          "verdict": "valid"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&json).expect("json"));
    expect![[r#"{"evidence":{"comparator":{"kind":"exact"},"fuel_used":112,"inputs":{},"module":"blake3:0d8cc33bde2e91c54e4e52fdd1cb4e20aa81fa9562e22a7b6f5dc3d91c93b3a8","own_exit_code":0,"own_outputs":{},"own_stdout":"blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f","own_termination":"exit","runtime":"wasm-1","verifier":"reexecution/wasm"},"reason":{"code":"ok"},"verdict":"valid"}"#]].assert_eq(&verdict.preimage());
}

#[test]
fn runs_agree_over_threads_and_repetitions() {
    let bench = Bench::wat(&printer("hello", "(call $proc_exit (i32.const 3))")).set("/claim/exit_code", json!(3));
    let first = bench.run();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let again = bench.run();
                    assert_eq!((again.digest, &again.evidence.fields), (first.digest, &first.evidence.fields));
                }
            });
        }
    });
}
