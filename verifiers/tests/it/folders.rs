//! A claim that is the CID of a folder of results.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tribunal_verifiers::{Cid, Folder, FolderProblem, OperatorLimits, Request, Service};

use crate::bench::{Bench, line};

/// Byte i is i mod 251.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..=250).cycle().take(bytes).collect()
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../ipfs.json")).expect("the vectors")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

#[test]
fn cids_are_those_of_other_implementations() {
    let vectors = vectors();
    for it in list(&vectors["known"]) {
        assert_eq!(Cid::of_file(it["text"].as_str().unwrap().as_bytes()).to_string(), it["cid"], "{it}");
    }
    for it in list(&vectors["files"]) {
        let bytes = pattern(it["bytes"].as_u64().unwrap() as usize);
        assert_eq!(Cid::of_file(&bytes).to_string(), it["cid"], "{it}");
    }
    for it in list(&vectors["data"]) {
        let text = match &it["text"] {
            Value::String(text) => text.clone(),
            long => "x".repeat(long["x"].as_u64().unwrap() as usize),
        };
        assert_eq!(Cid::of_data(text.as_bytes()).to_string(), it["cid"], "{it}");
    }
    for it in list(&vectors["folders"]) {
        let bytes = |content: &Value| match content.as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => pattern(content.as_u64().unwrap() as usize),
        };
        let files: Vec<_> =
            it["files"].as_object().unwrap().iter().map(|(path, it)| (path.as_str(), bytes(it))).collect();
        let mut folder = Folder::new();
        for (path, bytes) in files.iter().rev() {
            folder.add_file(path, bytes).unwrap();
        }
        for path in list(&it["folders"]) {
            folder.add_folder(path.as_str().unwrap()).unwrap();
        }
        assert_eq!(folder.cid().unwrap().to_string(), it["cid"], "{it}");
    }
}

#[test]
fn a_cid_is_read_as_it_is_written_and_nothing_else_is_one() {
    let text = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
    assert_eq!(text.parse::<Cid>().unwrap().to_string(), text);
    let other_hash = format!("1{}", &text[1..]);
    for wrong in [
        "",
        "Qm",
        &text[1..],
        &format!("{text}a"),
        &text.replace('5', "0"),
        &other_hash,
        "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354",
        "../../etc/passwd",
        &"é".repeat(23),
    ] {
        assert!(wrong.parse::<Cid>().is_err(), "{wrong}");
    }
}

#[test]
fn a_folder_has_plain_paths_each_once_and_bounds() {
    let mut folder = Folder::new();
    folder.add_file("a/b", b"1").unwrap();
    let twice = |path: &str| Err(FolderProblem::Twice(path.into()));
    assert_eq!(folder.add_file("a/b", b"1"), twice("a/b"));
    assert_eq!(folder.add_file("a", b"1"), twice("a"));
    let mut other = Folder::new();
    other.add_file("a", b"1").unwrap();
    assert_eq!(other.add_folder("a"), twice("a"));
    assert_eq!(other.add_file("a/b", b"1"), twice("a"));
    for path in ["", "/a", "a/", "a//b", "..", "a/../b", "."] {
        assert!(matches!(folder.add_file(path, b""), Err(FolderProblem::Path(_))), "{path:?}");
    }
    assert_eq!(folder.add_folder(&["x"; 65].join("/")), Err(FolderProblem::Deep));
    folder.add_folder(&["x"; 64].join("/")).unwrap();
    let names: Vec<_> = (0..5000).map(|number| format!("{number:0>20}")).collect();
    let mut crowded = Folder::new();
    for name in &names {
        crowded.add_file(name, b"").unwrap();
    }
    assert_eq!(crowded.cid(), Err(FolderProblem::Crowded));
}

/// What a program of these tests does, one thing after the other.
#[derive(Clone, Copy)]
enum Do {
    Print(u32, &'static str),
    File(&'static str, &'static str),
    Folder(&'static str),
    Link(&'static str),
    Remove(&'static str),
    Clock,
    Random,
    Grow(u32),
    Exit(i32),
    Trap,
    Spin,
}

fn program(steps: &[Do]) -> String {
    let (mut data, mut code, mut at) = (String::new(), String::new(), 4096);
    let mut text = |text: &str| {
        let here = at;
        let bytes: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        write!(data, "(data (i32.const {here}) \"{bytes}\")").unwrap();
        at += text.len() + 1;
        (here, text.len())
    };
    for step in steps {
        let must = |call: &str| format!("(if {call} (then unreachable))");
        let put = |fd: &str, (here, length): (usize, usize)| {
            format!(
                "(i32.store (i32.const 0) (i32.const {here})) (i32.store (i32.const 4) (i32.const {length}))
                 (drop (call $fd_write {fd} (i32.const 0) (i32.const 1) (i32.const 8)))"
            )
        };
        let more = match *step {
            Do::Print(fd, what) => put(&format!("(i32.const {fd})"), text(what)),
            Do::File(path, what) => {
                let (path, length) = text(path);
                let open = format!(
                    "(call $path_open (i32.const 3) (i32.const 0) (i32.const {path}) (i32.const {length}) (i32.const 1)
                     (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 16))"
                );
                must(&open) + &put("(i32.load (i32.const 16))", text(what))
            }
            Do::Folder(path) => {
                let (path, length) = text(path);
                must(&format!("(call $mkdir (i32.const 3) (i32.const {path}) (i32.const {length}))"))
            }
            Do::Remove(path) => {
                let (path, length) = text(path);
                must(&format!("(call $rmdir (i32.const 3) (i32.const {path}) (i32.const {length}))"))
            }
            Do::Link(path) => {
                let (path, length) = text(path);
                let (path, length) = (format!("(i32.const {path})"), format!("(i32.const {length})"));
                must(&format!("(call $symlink {path} (i32.const 1) (i32.const 3) {path} {length})"))
            }
            Do::Clock => must("(call $clock (i32.const 0) (i64.const 1) (i32.const 16))"),
            Do::Random => must("(call $random (i32.const 16) (i32.const 8))"),
            Do::Grow(pages) => format!("(drop (memory.grow (i32.const {pages})))"),
            Do::Exit(code) => format!("(call $exit (i32.const {code}))"),
            Do::Trap => "(unreachable)".into(),
            Do::Spin => "(loop $again (br $again))".into(),
        };
        code += &more;
    }
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "path_open"
            (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_remove_directory" (func $rmdir (param i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
          (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1) {data}
          (func (export "_start") {code}))"#
    )
}

fn bench(steps: &[Do], folder: Cid) -> Bench {
    Bench::wat(&program(steps)).set("/job/outputs", json!(["/outputs"])).set("/claim", claim(folder))
}

fn claim(folder: Cid) -> Value {
    json!({ "folder": folder.to_string() })
}

/// The folder with these files and an output folder.
fn folder(files: &[(&str, &str)]) -> Cid {
    let mut folder = Folder::new();
    folder.add_folder("outputs").unwrap();
    for (path, text) in files {
        folder.add_file(path, text.as_bytes()).unwrap();
    }
    folder.cid().unwrap()
}

/// Verdict and code of a claim.
fn found(bench: &Bench) -> String {
    bench.line().split(':').next().unwrap().to_owned()
}

const HELLO: Do = Do::Print(1, "hello world\n");

#[test]
fn the_folder_of_a_run_is_bacalhaus() {
    // The vector that another implementation made.
    let vectors = vectors();
    let known: Cid = vectors["folders"][2]["cid"].as_str().unwrap().parse().unwrap();
    let right = bench(&[HELLO, Do::Exit(0)], known);
    let verdict = right.run();
    assert_eq!((verdict.verdict.word(), &*verdict.reason.code), ("valid", "ok"), "{verdict:?}");
    let fields = &verdict.evidence.fields;
    assert_eq!(
        (&fields["own_folder"], &fields["claimed_folder"]),
        (&json!(known.to_string()), &json!(known.to_string()))
    );
    assert!(!fields.contains_key("own_folder_returned"), "it exited");
    let files = [
        ("stdout", "hello world\n"),
        ("stderr", "oh"),
        ("exitCode", "3"),
        ("outputs/b", "2"),
        ("outputs/a/c", "1"),
        ("outputs/a/.kept-not", "5"),
    ];
    let steps = [
        Do::File("outputs/b", "2"),
        Do::Folder("outputs/a"),
        Do::File("outputs/a/c", "1"),
        Do::File("outputs/.hidden", "4"),
        Do::File("elsewhere", "6"),
        HELLO,
        Do::Print(2, "oh"),
        Do::Exit(3),
    ];
    assert_eq!(found(&bench(&steps, folder(&files))), "valid ok");
    for (index, other) in [(0, "hello"), (1, "oh\n"), (2, "0"), (2, "3\n"), (3, ""), (4, "2")] {
        let mut files = files;
        files[index].1 = other;
        let line = bench(&steps, folder(&files)).line();
        assert!(line.starts_with("invalid folder-differs: folder: expected Qm"), "{line}");
    }
}

#[test]
fn an_exit_code_is_written_as_bacalhau_does() {
    let with = |code: &str| folder(&[("stdout", ""), ("stderr", ""), ("exitCode", code)]);
    for (steps, code, verdict) in [
        (&[Do::Exit(0)][..], "0", "valid ok"),
        (&[Do::Exit(0)], "-1", "invalid folder-differs"),
        // Returned: -1 by the WASM executor, 0 by the Docker one.
        (&[], "-1", "valid ok"),
        (&[], "0", "valid ok"),
        (&[], "1", "invalid folder-differs"),
        // Unsigned, and cut after four digits.
        (&[Do::Exit(-1)], "4294", "valid ok"),
        (&[Do::Exit(-1)], "-1", "invalid folder-differs"),
        (&[Do::Exit(12345)], "1234", "valid ok"),
    ] {
        assert_eq!(found(&bench(steps, with(code))), verdict, "{code}");
    }
    let verdict = bench(&[], with("1")).run();
    let of = |name: &str| verdict.evidence.fields[name].as_str().unwrap().to_owned();
    assert_eq!((of("own_folder"), of("own_folder_returned")), (with("0").to_string(), with("-1").to_string()));
}

#[test]
fn what_this_run_met_on_the_way_convicts_nobody() {
    let other = folder(&[("stdout", "what else"), ("stderr", ""), ("exitCode", "0")]);
    let own = folder(&[("stdout", "hello world\n"), ("stderr", ""), ("exitCode", "0")]);
    let small = |steps: &[Do], pointer: &str, value: u64, cid| bench(steps, cid).set(pointer, json!(value));
    assert_eq!(found(&bench(&[HELLO, Do::Exit(0)], other)), "invalid folder-differs", "nothing was met");
    for (meets, code) in [
        (small(&[Do::Spin], "/job/limits/fuel", 1000, other), "job-limit"),
        (small(&[HELLO, Do::Exit(0)], "/job/limits/output_bytes", 3, other), "job-limit"),
        (small(&[Do::Grow(1), HELLO, Do::Exit(0)], "/job/limits/memory_bytes", 65536, other), "job-limit"),
        (bench(&[HELLO, Do::Clock, Do::Exit(0)], other), "host-dependent"),
        (bench(&[HELLO, Do::Random, Do::Exit(0)], other), "host-dependent"),
        (bench(&[HELLO, Do::Trap], other), "no-own-folder"),
        (bench(&[Do::Link("outputs/l"), Do::Exit(0)], other), "no-own-folder"),
        (bench(&[Do::Remove("outputs"), Do::Exit(0)], other), "no-own-folder"),
        (
            Bench::wat("(module (memory 1))").set("/job/outputs", json!(["/outputs"])).set("/claim", claim(other)),
            "no-own-folder",
        ),
        (bench(&[HELLO], other).set("/job/runtime", json!("docker")), "unknown-runtime"),
        (
            bench(&[HELLO], other).set("/job/module", json!(format!("blake3:{}", "0".repeat(64)))),
            "artifact-unavailable",
        ),
    ] {
        assert_eq!(found(&meets), format!("inconclusive {code}"), "{}", meets.line());
    }
    // A module's own bound is the same everywhere.
    let bounded =
        program(&[Do::Grow(9), HELLO, Do::Exit(0)]).replace("(export \"memory\") 1)", "(export \"memory\") 1 1)");
    let bounded = Bench::wat(&bounded).set("/job/outputs", json!(["/outputs"])).set("/claim", claim(other));
    assert_eq!(found(&bounded), "invalid folder-differs");
    // What comes out equal is right, whatever it met.
    for meets in [
        bench(&[HELLO, Do::Clock, Do::Random, Do::Exit(0)], own),
        small(&[Do::Grow(1), HELLO, Do::Exit(0)], "/job/limits/memory_bytes", 65536, own),
    ] {
        assert_eq!(found(&meets), "valid ok");
    }
    // The operator's limits, as everywhere.
    let request = Request::parse(&bench(&[HELLO, Do::Spin], other).request.to_string()).unwrap();
    let service = Service::new(OperatorLimits { fuel_max: 1000, ..OperatorLimits::default() }, Vec::new());
    let line = line(&service.verify_from(&request, &bench(&[HELLO, Do::Spin], other).source));
    assert!(line.starts_with("inconclusive operator-limit"), "{line}");
}

#[test]
fn a_count_above_the_metered_one_is_caught_with_a_folder_too() {
    let own = folder(&[("stdout", "hello world\n"), ("stderr", ""), ("exitCode", "0")]);
    let it = bench(&[HELLO, Do::Exit(0)], own);
    let fuel = it.run().evidence.fields["fuel_used"].as_u64().unwrap();
    for (count, expected) in [(1, "valid ok"), (fuel, "valid ok"), (fuel + 1, "invalid instruction-count")] {
        assert_eq!(found(&it.clone().set("/claim/instruction_count", json!(count))), expected);
    }
    assert_eq!(found(&it.set("/claim/exit_code", json!(1))), "invalid exit-code-differs");
}

#[test]
fn deep_and_crowded_outputs_are_left_open_and_crash_nothing() {
    // 30,000 folders, one in the other, each made from a descriptor of the one above.
    let text = r#"(module
      (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 0) "outputs") (data (i32.const 16) "d")
      (func (export "_start") (local $fd i32) (local $left i32)
        (local.set $left (i32.const 30000))
        (drop (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 7) (i32.const 2)
          (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
        (loop $again
          (local.set $fd (i32.load (i32.const 32)))
          (if (call $mkdir (local.get $fd) (i32.const 16) (i32.const 1)) (then unreachable))
          (if (call $open (local.get $fd) (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 2)
            (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)) (then unreachable))
          (drop (call $close (local.get $fd)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br_if $again (local.get $left)))))"#;
    let other = folder(&[]);
    let deep = Bench::wat(text)
        .set("/job/outputs", json!(["/outputs"]))
        .set("/job/limits/fuel", json!(1_000_000_000))
        .set("/claim", claim(other));
    assert_eq!(found(&deep), "inconclusive no-own-folder", "{}", deep.line());
}

#[test]
fn a_folder_is_claimed_alone_and_compared_exactly() {
    let cid = folder(&[]);
    let it = bench(&[HELLO], cid);
    let bytes = json!({ "blake3": "11".repeat(32) });
    let vote = |claim: Value| json!({ "voter": format!("0x{}", "1".repeat(40)), "claim": claim });
    let majority =
        |claim| json!({ "kind": "majority", "votes": [vote(claim)], "rule": { "kind": "quorum", "quorum": 1 } });
    for (pointer, value, problem) in [
        ("/claim/stdout", bytes.clone(), "claim.folder: stands in place of stdout and outputs"),
        ("/claim/outputs", json!([]), "claim.folder: stands in place of stdout and outputs"),
        ("/claim/termination", json!("trap"), "claim.folder: only a job that ends by itself"),
        (
            "/claim/folder",
            json!("bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"),
            "claim.folder: an IPFS CID of version 0",
        ),
        ("/claim/folder", json!(""), "claim.folder: an IPFS CID of version 0"),
        ("/claim/folder", json!(7), "claim.folder: a string is needed"),
        ("/comparator", json!({ "kind": "numeric" }), "comparator: must be exact"),
        ("/job/outputs", json!(["/stdout"]), "job.outputs: /stdout: a result folder needs"),
        ("/job/outputs", json!(["/out.d"]), "job.outputs: /out.d: a result folder needs"),
        ("/job/outputs", json!(["/a/x", "/b/x"]), "job.outputs: /b/x: a result folder needs"),
        ("/job/outputs", json!(["/a", "/a/b"]), "job.outputs: /a/b lies inside /a"),
        (
            "/job/inputs",
            json!([{ "path": "/outputs/in", "artifact": "job.wasm" }]),
            "job.inputs: /outputs/in lies inside",
        ),
    ] {
        let line = it.clone().set(pointer, value).line();
        assert!(line.starts_with(&format!("bad request: {problem}")), "{pointer}: {line}");
    }
    let voted = it.clone().set("/method", majority(claim(cid))).set("/comparator", json!({ "kind": "numeric" }));
    assert!(voted.set("/claim", json!({})).line().starts_with("bad request: comparator: must be exact"));
    // Votes for a folder.
    let other = folder(&[("stdout", "")]);
    for (claimed, expected) in [(cid, "valid ok"), (other, "invalid outvoted")] {
        let it = it.clone().set("/method", majority(claim(cid))).set("/claim", claim(claimed));
        assert_eq!(found(&it), expected);
        assert_eq!(it.run().evidence.fields["votes"][0]["folder"], cid.to_string());
    }
    assert_eq!(
        found(&it.clone().set("/method", majority(json!({})))),
        "invalid outvoted",
        "nothing claimed is no folder"
    );
    // It reads back from its canonical form, and is part of the digest.
    let request = Request::parse(&it.request.to_string()).unwrap();
    assert!(request.canonical_json().contains(&format!("\"claim\":{{\"folder\":\"{cid}\"")));
    let again = Request::parse(&request.canonical_json()).unwrap();
    assert_eq!((&again, again.digest()), (&request, request.digest()));
    let changed = Request::parse(&it.set("/claim", claim(other)).request.to_string()).unwrap();
    assert_ne!(changed.digest(), request.digest());
}

#[test]
fn results_have_the_canonical_digest_that_is_documented() {
    // Made by Python's json and the reference implementation of BLAKE3, not by this crate.
    let digest = |files: &[(&str, &[u8])]| {
        let digest = |bytes| tribunal_events::Digest::new(*blake3::hash(bytes).as_bytes());
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), digest(*bytes))).collect();
        hex::encode(tribunal_verifiers::results_digest(&files).bytes())
    };
    assert_eq!(digest(&[]), "561a6410e776ba3ca068678b0a0d9e6738a5ce9e746aa6f1296adb6d3c4f9024");
    assert_eq!(digest(&[("/out/a", b"one")]), "7db2a340e1474e9699c8fb2cc4f57b15b871d3f5d4fd06675870150716a07f5f");
    assert_eq!(
        digest(&[("/out/é", b"three"), ("/out/c/d \"e\"\n", b"two"), ("/out/.b", b""), ("/out/a", b"one")]),
        "9010c217983534a102159661f78af9c8e31e9074d361feb468bb965c2fce7912"
    );
}
