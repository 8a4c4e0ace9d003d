//! Modules that attack the machine they run on: each ends within its limits, and none is mistaken for guilt of ours.

use expect_test::{Expect, expect};
use serde_json::json;
use tribunal_verifiers::{OperatorLimits, Request, Service};

use crate::bench::{Bench, line};

const PLENTY: u64 = 1_000_000_000;

/// The line of a module, with its claim left away.
fn outcome(bench: &Bench) -> String {
    bench.line().split(", the claim").next().unwrap_or_default().to_owned()
}

#[track_caller]
fn check(text: &str, expected: Expect) {
    expected.assert_eq(&outcome(&Bench::wat(text).set("/job/limits/fuel", json!(PLENTY))));
}

/// With all the fuel there is, so that only the clock can stop it.
fn by_the_clock(text: &str) -> String {
    let limits = OperatorLimits { fuel_max: u64::MAX, ..OperatorLimits::default() };
    let bench = Bench::wat(text)
        .set("/job/limits/fuel", json!(u64::MAX.to_string()))
        .set("/job/limits/output_bytes", json!(1 << 30))
        .set("/job/limits/wall_ms", json!(50));
    let request = Request::parse(&bench.request.to_string()).expect("a good request");
    line(&Service::new(limits, Vec::new()).verify_from(&request, &bench.source))
}

#[test]
fn whatever_loops_is_stopped_by_fuel_and_by_the_clock() {
    let import = |name: &str, params: &str| {
        format!(r#"(import "wasi_snapshot_preview1" "{name}" (func $call (param {params}) (result i32)))"#)
    };
    let forever = |import: String, body: &str| {
        format!(
            r#"(module {import} (memory (export "memory") 16) (func (export "_start") (loop $again {body} (br $again))))"#
        )
    };
    for text in [
        r#"(module (memory (export "memory") 1) (func $s (loop (br 0))) (start $s) (func (export "_start")))"#
            .to_owned(),
        forever(String::new(), ""),
        forever(String::new(), "(memory.fill (i32.const 0) (i32.const 1) (i32.const 1048576))"),
        forever(String::new(), "(drop (memory.grow (i32.const 1)))"),
        forever(import("sched_yield", ""), "(drop (call $call))"),
        forever(
            import("fd_write", "i32 i32 i32 i32"),
            "(drop (call $call (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8)))",
        ),
        forever(import("random_get", "i32 i32"), "(drop (call $call (i32.const 0) (i32.const 1048576)))"),
        forever(import("fd_tell", "i32 i32"), "(drop (call $call (i32.const 99) (i32.const 0)))"),
    ] {
        assert_eq!(outcome(&Bench::wat(&text)), "invalid out-of-fuel: the job runs out of fuel", "{text}");
        assert_eq!(by_the_clock(&text), "inconclusive wall-time: the job still ran after 50 ms", "{text}");
    }
}

#[test]
fn recursion_ends_at_the_stack_wherever_it_starts() {
    let stack = "inconclusive stack-exhausted: the job used up the host's stack";
    for text in [
        r#"(module (func $f (call $f)) (start $f) (func (export "_start")))"#,
        r#"(module (func $f (export "_start") (call $f) (call $f)))"#,
        r#"(module (table funcref (elem $f)) (type $t (func)) (func $f (export "_start") (call_indirect (type $t) (i32.const 0))))"#,
        r#"(module (func $f (param f64 f64 i64) (call $f (f64.add (local.get 0) (local.get 1)) (local.get 0) (local.get 2)))
             (func (export "_start") (call $f (f64.const 1) (f64.const 2) (i64.const 3))))"#,
    ] {
        assert_eq!(outcome(&Bench::wat(text).set("/job/limits/fuel", json!(PLENTY))), stack, "{text}");
    }
}

#[test]
fn memory_and_tables_cannot_be_blown_up() {
    let too_much = "invalid trap: the job traps (the module needs more memory at once than the job may have)";
    for text in [
        r#"(module (memory (export "memory") 65536) (func (export "_start")))"#,
        r#"(module (table 1000000000 funcref) (func (export "_start")))"#,
        r#"(module (table 600000 funcref) (table 600000 funcref) (func (export "_start")))"#,
    ] {
        assert_eq!(outcome(&Bench::wat(text)), too_much, "{text}");
    }
    // Each growth that is refused gives -1 and costs what was asked for.
    check(
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
             (table $t 1 funcref)
             (func (export "_start") (local $refused i32) (local $i i32)
               (loop $again
                 (if (i32.eq (memory.grow (i32.const 65535)) (i32.const -1))
                   (then (local.set $refused (i32.add (local.get $refused) (i32.const 1)))))
                 (if (i32.eq (table.grow $t (ref.null func) (i32.const 1048576)) (i32.const -1))
                   (then (local.set $refused (i32.add (local.get $refused) (i32.const 1)))))
                 (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))
               (call $exit (local.get $refused))))"#,
        expect!["invalid exit-code-differs: exit code: expected 200, claimed 0"],
    );
    let tables = format!(r#"(module {} (func (export "_start")))"#, "(table 1 funcref)".repeat(101));
    check(&tables, expect!["invalid module-invalid: tables count exceeds limit of 100 (at offset 0x15)"]);
}

#[test]
fn data_that_does_not_fit_traps() {
    let data = |at: u32, length: usize, pages: u32| {
        let bytes = "x".repeat(length);
        format!(
            r#"(module (memory (export "memory") {pages}) (data (i32.const {at}) "{bytes}") (func (export "_start")))"#
        )
    };
    check(&data(0, 1 << 20, 16), expect!["valid ok: the claim is what the job gives"]);
    for (at, length) in [(1, 65_536), (65_536, 1), (u32::MAX, 1)] {
        assert_eq!(
            outcome(&Bench::wat(&data(at, length, 1))),
            "invalid trap: the job traps (wasm trap: out of bounds memory access)"
        );
    }
    check(
        &data(0, 33 << 20, 600),
        expect!["inconclusive operator-limit: the module has 34603073 bytes, more than 33554432"],
    );
}

#[test]
fn large_and_deep_code_is_compiled_or_refused() {
    let start = |body: &str| format!(r#"(module (memory (export "memory") 1) (func (export "_start") {body}))"#);
    let many = format!(r#"(module {} (func (export "_start") (call 99999)))"#, "(func)".repeat(100_000));
    check(&many, expect!["valid ok: the claim is what the job gives"]);
    let locals = format!("(local {}) (local.set 49999 (i64.const 1))", "i64 ".repeat(50_000));
    check(&start(&locals), expect!["valid ok: the claim is what the job gives"]);
    let more = format!("(local {})", "i64 ".repeat(50_001));
    check(&start(&more), expect!["invalid module-invalid: too many locals: locals exceed maximum (at offset 0x31)"]);
    let table = |targets| start(&format!("block i32.const 0 br_table {} end", "0 ".repeat(targets)));
    check(&table(60_000), expect!["valid ok: the claim is what the job gives"]);
    // Valid, but more than the compiler takes.
    let refused = outcome(&Bench::wat(&table(100_000)));
    assert!(refused.starts_with("inconclusive executor-fault: failed to compile: "), "{refused}");
    let deep = format!("{} {}", "block ".repeat(20_000), "end ".repeat(20_000));
    check(&start(&deep), expect!["valid ok: the claim is what the job gives"]);
    let operands = format!("{} {}", "f64.const 1 ".repeat(20_000), "f64.div ".repeat(19_999) + "drop");
    check(&start(&operands), expect!["valid ok: the claim is what the job gives"]);
}

/// Calls of the host, each error number printed as a letter from '0' on.
fn errors(calls: &[(&str, &str)]) -> Bench {
    let functions = [
        ("args_get", "i32 i32"),
        ("clock_time_get", "i32 i64 i32"),
        ("fd_filestat_get", "i32 i32"),
        ("fd_prestat_dir_name", "i32 i32 i32"),
        ("fd_pread", "i32 i32 i32 i64 i32"),
        ("fd_read", "i32 i32 i32 i32"),
        ("fd_readdir", "i32 i32 i32 i64 i32"),
        ("fd_write", "i32 i32 i32 i32"),
        ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
        ("path_readlink", "i32 i32 i32 i32 i32 i32"),
        ("path_symlink", "i32 i32 i32 i32 i32"),
        ("poll_oneoff", "i32 i32 i32 i32"),
        ("random_get", "i32 i32"),
    ];
    let imports: String = functions
        .iter()
        .map(|(name, params)| {
            format!(r#"(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {params}) (result i32)))"#)
        })
        .collect();
    let body: String = calls
        .iter()
        .enumerate()
        .map(|(index, (name, args))| {
            format!("(i32.store8 (i32.const {}) (i32.add (i32.const 48) (call ${name} {args})))\n", 512 + index)
        })
        .collect();
    Bench::wat(&format!(
        r#"(module {imports} (memory (export "memory") 1)
             (data (i32.const 16) "\ff\ff\ff\ff\ff\ff\ff\ff") (data (i32.const 24) "\ff\ff\00\00\02\00\00\00")
             (data (i32.const 32) "\00\02\00\00\{:02x}\00\00\00") (data (i32.const 65532) "\00\00\00\00")
             (data (i32.const 64) "../etc/passwd") (data (i32.const 80) "/etc/passwd")
             (data (i32.const 96) "out/../../etc") (data (i32.const 112) "up") (data (i32.const 116) "out/../..")
             (data (i32.const 128) "up/etc/passwd") (data (i32.const 144) "self") (data (i32.const 150) "out")
             (func (export "_start") {body}
               (drop (call $fd_write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 40)))))"#,
        calls.len()
    ))
}

/// `(i32.const a) (i32.const b)`; a number with an `L` behind it is an i64.
fn numbers(text: &str) -> String {
    let one = |number: &str| match number.strip_suffix('L') {
        Some(long) => format!("(i64.const {long})"),
        None => format!("(i32.const {number})"),
    };
    text.split(' ').map(one).collect()
}

#[track_caller]
fn check_errors(calls: &[(&str, &str, u8)]) {
    let written: Vec<_> = calls.iter().map(|(name, args, _)| (*name, numbers(args))).collect();
    let written: Vec<_> = written.iter().map(|(name, args)| (*name, args.as_str())).collect();
    let expected: Vec<u8> = calls.iter().map(|(_, _, error)| error + 48).collect();
    let bench = errors(&written).file("errors", expected).set("/claim/stdout", json!({ "artifact": "errors" }));
    assert_eq!(bench.line(), "valid ok: the claim is what the job gives");
}

#[test]
fn pointers_and_lengths_stay_inside_the_jobs_memory() {
    const FAULT: u8 = 21;
    const INVAL: u8 = 28;
    check_errors(&[
        ("fd_write", "1 -8 1 0", FAULT),
        ("fd_write", "1 -4 1 0", FAULT),
        ("fd_write", "1 65532 1 0", FAULT),
        ("fd_write", "1 65536 1 0", FAULT),
        ("fd_write", "1 16 1 0", FAULT),
        ("fd_write", "1 24 1 0", FAULT),
        // 536,870,913 entries of eight bytes: the product is 8 in 32 bits.
        ("fd_write", "1 0 536870913 0", INVAL),
        ("fd_write", "1 0 -1 0", INVAL),
        ("fd_write", "1 0 0 65533", FAULT),
        ("fd_read", "0 16 1 0", FAULT),
        ("fd_pread", "0 24 1 0L 0", FAULT),
        ("random_get", "65535 2", FAULT),
        ("random_get", "0 -1", FAULT),
        ("random_get", "-1 -1", FAULT),
        ("random_get", "65537 0", FAULT),
        ("random_get", "65536 0", 0),
        ("args_get", "65533 256", FAULT),
        ("args_get", "256 65534", FAULT),
        ("clock_time_get", "0 0L 65529", FAULT),
        ("fd_filestat_get", "3 65473", FAULT),
        ("fd_prestat_dir_name", "3 65536 1", FAULT),
        ("fd_readdir", "3 65530 100 0L 256", FAULT),
        ("fd_readdir", "3 -2 4 0L 256", FAULT),
        ("fd_readdir", "3 256 100 -1L 65534", FAULT),
        ("path_open", "3 0 65530 100 0 2L 0L 0 256", FAULT),
        ("path_open", "3 0 150 3 2 2L 0L 0 65533", FAULT),
        ("path_open", "3 0 150 -1 2 2L 0L 0 256", FAULT),
        ("poll_oneoff", "0 0 89478486 256", INVAL),
        ("poll_oneoff", "65500 0 1 256", FAULT),
        ("poll_oneoff", "0 65510 1 256", FAULT),
        ("poll_oneoff", "0 -8 1 256", FAULT),
    ]);
}

#[test]
fn paths_stay_inside_the_jobs_folder() {
    const LOOP: u8 = 32;
    const NOTCAPABLE: u8 = 76;
    check_errors(&[
        ("path_open", "3 1 64 13 0 2L 0L 0 256", NOTCAPABLE),
        ("path_open", "3 1 64 2 0 2L 0L 0 256", NOTCAPABLE),
        ("path_open", "3 1 80 11 0 2L 0L 0 256", NOTCAPABLE),
        ("path_open", "3 1 80 1 0 2L 0L 0 256", NOTCAPABLE),
        ("path_open", "3 1 96 13 0 2L 0L 0 256", NOTCAPABLE),
        // A link that leads out may be made, and leads nowhere.
        ("path_symlink", "116 9 3 112 2", 0),
        ("path_open", "3 1 112 2 0 2L 0L 0 256", NOTCAPABLE),
        ("path_open", "3 0 112 2 0 2L 0L 0 256", LOOP),
        ("path_open", "3 1 128 13 0 2L 0L 0 256", NOTCAPABLE),
        ("path_symlink", "80 11 3 144 4", NOTCAPABLE),
        ("path_symlink", "144 4 3 144 4", 0),
        ("path_open", "3 1 144 4 0 2L 0L 0 256", LOOP),
        ("path_readlink", "3 144 4 65534 4 256", 21),
    ]);
}

/// Counts how often a call succeeds before it gives `error`; `$i` numbers the rounds, eight digits stand at 64.
fn counted(import: &str, call: &str, error: u32) -> String {
    format!(
        r#"(module (import "wasi_snapshot_preview1" {import}
             (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
             (memory (export "memory") 1) (data (i32.const 60) "out/00000000")
             (func $digits (param $i i32) (local $at i32)
               (local.set $at (i32.const 71))
               (loop $next
                 (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $i) (i32.const 10))))
                 (local.set $i (i32.div_u (local.get $i) (i32.const 10)))
                 (local.set $at (i32.sub (local.get $at) (i32.const 1)))
                 (br_if $next (i32.ge_u (local.get $at) (i32.const 64)))))
             (func (export "_start") (local $i i32) (local $error i32)
               (loop $again
                 (call $digits (local.get $i))
                 (local.set $error {call})
                 (if (i32.eqz (local.get $error)) (then
                   (local.set $i (i32.add (local.get $i) (i32.const 1)))
                   (br_if $again (i32.lt_u (local.get $i) (i32.const 1000000))))))
               (if (i32.ne (local.get $error) (i32.const {error})) (then unreachable))
               (call $exit (local.get $i))))"#
    )
}

#[test]
fn descriptors_and_files_run_out_in_the_job() {
    let open = r#""path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#;
    let call = |length: u32, flags: u32| {
        format!(
            "(call $open (i32.const 3) (i32.const 0) (i32.const 60) (i32.const {length}) (i32.const {flags})
               (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 256))"
        )
    };
    // 1024 descriptors, four of them open from the start: the same folder again and again, then files.
    check(&counted(open, &call(3, 2), 33), expect!["invalid exit-code-differs: exit code: expected 1020, claimed 0"]);
    check(&counted(open, &call(12, 1), 33), expect!["invalid exit-code-differs: exit code: expected 1020, claimed 0"]);
    // 65,536 nodes, the root and the folder of outputs among them.
    let folder = r#""path_create_directory" (func $make (param i32 i32 i32) (result i32)))"#;
    check(
        &counted(folder, "(call $make (i32.const 3) (i32.const 60) (i32.const 12))", 51),
        expect!["invalid exit-code-differs: exit code: expected 65534, claimed 0"],
    );
}
