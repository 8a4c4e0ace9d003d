//! The same job gives the same outputs, fuel and digest: again, on other threads, in other processes and surroundings.

use std::{fmt::Write as _, process::Command};

use serde_json::json;
use tribunal_verifiers::{Request, Verdict};

use crate::{
    bench::{Bench, SERVICE, fixture_bytes},
    jobs,
};

/// Fuel of the fixtures' jobs. It is part of what `wasm-1` means: no change of engine or settings may change it.
const FUEL: [(&str, u64); 4] =
    [("wordcount", 3_816_045), ("render", 48_462_308), ("heat", 166_080_193), ("classifier", 158_602_353)];
/// Set for the child process that only tells what its jobs give.
const CHILD: &str = "TRIBUNAL_TEST_CHILD";
const MARK: &str = "job gives ";

fn told(name: &str, verdict: &Verdict) -> String {
    let evidence = serde_json::to_string(&verdict.evidence.fields).expect("json");
    format!("{name} {} {} {evidence}", verdict.reason.code, verdict.digest)
}

/// One line for each job of the fixtures: verdict, digest, and evidence with outputs and fuel.
fn all() -> Vec<String> {
    let hostile = ["alloc", "clock", "escape", "flood", "loop", "trap"].map(|name| {
        let bench = Bench::wasm(fixture_bytes(&format!("jobs/hostile/{name}.wasm")));
        (name, bench.set("/job/env", json!({ "LANG": "C" })).run())
    });
    let good = jobs::JOBS.map(|name| {
        let request = Request::parse(&jobs::request(name).to_string()).expect("a good request");
        (name, SERVICE.verify_from(&request, &jobs::source(name)).expect("a verdict"))
    });
    hostile.iter().chain(&good).map(|(name, verdict)| told(name, verdict)).collect()
}

/// Tells what the jobs give, where another process asks for it.
#[test]
fn fuel_of_the_fixtures_is_what_it_always_was() {
    let all = all();
    if std::env::var_os(CHILD).is_some() {
        let mut text = String::new();
        all.iter().for_each(|line| writeln!(text, "{MARK}{line}").expect("a string"));
        println!("{text}");
        return;
    }
    for (name, fuel) in FUEL {
        let line = all.iter().find(|line| line.starts_with(&format!("{name} ok "))).expect(name);
        assert!(line.contains(&format!("\"fuel_used\":{fuel},")), "{line}");
    }
}

#[test]
fn jobs_agree_over_threads_and_repetitions() {
    let first = all();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..2).for_each(|_| assert_eq!(all(), first)));
        }
    });
}

/// Runs the jobs in a process of this test binary, started by a shell line that ends in `"$0" "$@"`.
fn in_a_child(shell: &str) -> (bool, Vec<String>) {
    let this = std::env::current_exe().expect("this test's own path");
    let child = Command::new("/bin/sh")
        .arg("-c")
        .arg(shell)
        .arg(this)
        .args(["--exact", "determinism::fuel_of_the_fixtures_is_what_it_always_was", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("a shell");
    let text = String::from_utf8_lossy(&child.stdout);
    let lines = text.lines().filter_map(|line| line.split_once(MARK)).map(|(_, line)| line.to_owned()).collect();
    (child.status.success(), lines)
}

#[test]
fn jobs_agree_with_other_processes_in_other_surroundings() {
    let own = all();
    for shell in [
        r#"exec "$0" "$@""#,
        r#"export TZ=Pacific/Chatham LANG=tr_TR.UTF-8 LC_ALL=tr_TR.UTF-8 RUST_BACKTRACE=full; cd / && exec "$0" "$@""#,
        r#"exec nice -n 15 env -i TRIBUNAL_TEST_CHILD=1 RUST_MIN_STACK=400000 A="$(seq 9999)" "$0" "$@""#,
        r#"umask 777; ulimit -c 0; ulimit -n 64; ulimit -s 256; exec "$0" "$@" < /dev/null"#,
    ] {
        let (success, lines) = in_a_child(shell);
        assert!(success, "{shell}");
        assert_eq!(lines, own, "{shell}");
    }
}

#[test]
fn a_machine_without_memory_convicts_nobody() {
    let own = all();
    // Too little address space for a job's memory, then less still.
    for kilobytes in [2_000_000, 400_000] {
        let (_, lines) = in_a_child(&format!(r#"ulimit -v {kilobytes}; exec "$0" "$@""#));
        assert!(!lines.is_empty() || kilobytes < 1_000_000, "the child says something");
        for line in lines {
            let code = line.split(' ').nth(1).expect("a code");
            assert!(own.contains(&line) || code == "executor-fault", "{kilobytes}: {line}");
        }
    }
}
