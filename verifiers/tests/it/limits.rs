//! Limits of the deal are definite results; limits of ours are not.

use expect_test::{Expect, expect};
use serde_json::json;
use tribunal_verifiers::{OperatorLimits, Request, Service};

use crate::bench::{Bench, fixture_bytes, line};

fn hostile(name: &str) -> Bench {
    Bench::wasm(fixture_bytes(&format!("jobs/hostile/{name}.wasm")))
}

fn check(bench: &Bench, expected: Expect) {
    expected.assert_eq(&bench.line());
}

fn check_operator(limits: OperatorLimits, bench: &Bench, expected: Expect) {
    let request = Request::parse(&bench.request.to_string()).expect("a good request");
    let service = Service::new(limits, Vec::new());
    expected.assert_eq(&line(&service.verify_from(&request, &bench.source)));
}

#[test]
fn a_loop_runs_out_of_the_deals_fuel() {
    check(
        &hostile("loop"),
        expect!["invalid out-of-fuel: the job runs out of fuel, the claim says that it exits with 0"],
    );
    let claimed =
        hostile("loop").set("/claim", json!({ "termination": "out-of-fuel", "instruction_count": 10_000_000 }));
    check(&claimed, expect!["valid ok: the claim is what the job gives"]);
    assert_eq!(claimed.run().evidence.fields["fuel_used"], 10_000_000);
}

#[test]
fn a_loop_stopped_by_the_clock_is_inconclusive() {
    let slow =
        hostile("loop").set("/job/limits/fuel", json!(u64::MAX.to_string())).set("/job/limits/wall_ms", json!(50));
    check_operator(
        OperatorLimits { fuel_max: u64::MAX, ..OperatorLimits::default() },
        &slow,
        expect!["inconclusive wall-time: the job still ran after 50 ms"],
    );
}

#[test]
fn the_operators_limits_are_inconclusive() {
    let all = OperatorLimits::default();
    check_operator(
        OperatorLimits { fuel_max: 1000, ..all },
        &hostile("loop"),
        expect!["inconclusive operator-limit: the fuel of 1000 that this operator allows is used up"],
    );
    check_operator(
        OperatorLimits { wall_ms_max: 20, fuel_max: u64::MAX, ..all },
        &hostile("loop").set("/job/limits/fuel", json!(u64::MAX.to_string())),
        expect!["inconclusive operator-limit: the job still ran after 20 ms, which this operator allows"],
    );
    check_operator(
        OperatorLimits { memory_bytes_max: 600_000, ..all },
        &hostile("alloc"),
        expect!["inconclusive operator-limit: memory bytes of 600000 that this operator allows is used up"],
    );
    check_operator(
        OperatorLimits { output_bytes_max: 10_000, ..all },
        &hostile("flood"),
        expect!["inconclusive operator-limit: output bytes of 10000 that this operator allows is used up"],
    );
}

#[test]
fn memory_beyond_the_limit_is_refused_to_the_job() {
    let pages = Bench::wat(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
          (memory (export "memory") 1)
          (func (export "_start")
            (if (i32.ne (memory.grow (i32.const 15)) (i32.const 1)) (then unreachable))
            (call $proc_exit (memory.grow (i32.const 1)))))"#,
    );
    check(&pages.set("/claim/exit_code", json!(-1)), expect!["valid ok: the claim is what the job gives"]);
    // 1 MiB is 16 pages; the program prints how many it got.
    let alloc = hostile("alloc").file("pages", "16\n").set("/claim/stdout", json!({ "artifact": "pages" }));
    check(&alloc, expect!["valid ok: the claim is what the job gives"]);
    check(
        &Bench::wat(r#"(module (memory (export "memory") 17) (func (export "_start")))"#),
        expect![
            "invalid trap: the job traps (the module needs more memory at once than the job may have), the claim says that it exits with 0"
        ],
    );
}

#[test]
fn writes_beyond_output_bytes_fail_in_the_job() {
    let flood = hostile("flood");
    let run = flood.clone().set("/claim/exit_code", json!(7)).run();
    assert_eq!(run.reason.code, "ok", "{}", run.reason.detail);
    // Half of the bytes went to the file, half to stdout, and none were left for the message.
    let half = "x".repeat(32_768);
    let claim = json!({
        "exit_code": 7,
        "stdout": { "artifact": "half" },
        "outputs": [{ "path": "/out/flood.bin", "artifact": "half" }],
    });
    check(&flood.file("half", half).set("/claim", claim), expect!["valid ok: the claim is what the job gives"]);
}

#[test]
fn the_hosts_stack_convicts_nobody() {
    check(
        &hostile("recurse").set("/job/limits/fuel", json!(1_000_000_000)),
        expect!["inconclusive stack-exhausted: the job used up the host's stack"],
    );
    check(
        &hostile("recurse").set("/job/limits/fuel", json!(100)),
        expect!["invalid out-of-fuel: the job runs out of fuel, the claim says that it exits with 0"],
    );
}

#[test]
fn every_kind_of_trap_is_found() {
    let traps: Vec<String> = (1..=6)
        .map(|count| hostile("trap").set("/job/args", json!(vec!["a"; count])).line())
        .map(|line| line.split(", the claim").next().unwrap_or_default().to_owned())
        .collect();
    expect![[r#"
        invalid trap: the job traps (wasm trap: wasm `unreachable` instruction executed)
        invalid trap: the job traps (wasm trap: integer divide by zero)
        invalid trap: the job traps (wasm trap: out of bounds memory access)
        invalid trap: the job traps (wasm trap: integer overflow)
        invalid trap: the job traps (wasm trap: uninitialized element)
        valid ok: the claim is what the job gives"#]]
    .assert_eq(&traps.join("\n"));
}

#[test]
fn the_job_cannot_leave_its_files() {
    let run = hostile("escape").set("/job/limits/fuel", json!(100_000_000)).run();
    assert_eq!(run.reason.code, "ok", "{}", run.reason.detail);
}

#[test]
fn clocks_and_random_bytes_follow_from_the_job() {
    let clock = hostile("clock").set("/job/limits/fuel", json!(100_000_000)).set("/job/env", json!({ "A": "1" }));
    let stdout = |bench: &Bench| bench.run().evidence.fields["own_stdout"].clone();
    assert_eq!(stdout(&clock), stdout(&clock));
    assert_eq!(stdout(&clock), stdout(&clock.clone().set("/job/limits/wall_ms", json!(1234))), "limits change nothing");
    assert_ne!(stdout(&clock), stdout(&clock.clone().set("/job/env", json!({ "A": "2" }))));
    expect!["blake3:35c30ff833a2f6601e984248ffc321062f6cd511ddef2048fcaca1e3c67cb8e0"]
        .assert_eq(stdout(&clock).as_str().expect("an address"));
}

#[test]
fn host_work_costs_fuel() {
    let random = Bench::wat(
        r#"(module
          (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
          (memory (export "memory") 16)
          (func (export "_start")
            (loop $again (drop (call $random_get (i32.const 0) (i32.const 1048576))) (br $again))))"#,
    );
    check(&random, expect!["invalid out-of-fuel: the job runs out of fuel, the claim says that it exits with 0"]);
    let fill = Bench::wat(
        r#"(module (memory (export "memory") 16)
          (func (export "_start")
            (loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 1048576)) (br $again))))"#,
    );
    let start = std::time::Instant::now();
    check(&fill, expect!["invalid out-of-fuel: the job runs out of fuel, the claim says that it exits with 0"]);
    assert!(start.elapsed().as_secs() < 20, "bulk memory must be priced by its length");
}

#[test]
fn a_job_that_nobody_wants_any_more_ends_without_a_result() {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    let endless = hostile("loop").set("/job/limits/fuel", json!(u64::MAX.to_string()));
    let request = Request::parse(&endless.request.to_string()).expect("a good request");
    let service = Service::new(OperatorLimits { fuel_max: u64::MAX, ..OperatorLimits::default() }, Vec::new());
    let stop = Arc::new(AtomicBool::new(false));
    let verdict = std::thread::scope(|scope| {
        let running = scope.spawn(|| service.verify_until(&request, &endless.source, u64::MAX, &stop));
        stop.store(true, Ordering::Relaxed);
        running.join().expect("ends").expect("a verdict")
    });
    assert_eq!(line(&Ok(verdict)), "inconclusive cancelled: nobody wants to know any more");
}
