//! A job's input that is the CID of a file or folder.

use serde_json::{Value, json};
use tribunal_verifiers::{AnyCid, Content, Layout, OperatorLimits, Request, Service, Verdict, fetch_content};

use crate::bench::{Bench, line};

fn archives() -> tribunal_verifiers::FolderSource {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipfs");
    tribunal_verifiers::FolderSource::open(std::path::Path::new(folder)).expect("the archives")
}

fn root(archive: &str) -> AnyCid {
    let vectors: Value = serde_json::from_str(include_str!("../ipfs/vectors.json")).unwrap();
    let it = vectors["cars"].as_array().unwrap().iter().find(|it| it["file"] == archive).unwrap();
    it["root"].as_str().unwrap().parse().unwrap()
}

/// A job that opens a file below `/` and exits with 0, or with 1 where it cannot.
fn opens(path: &str) -> Bench {
    let data: String = path.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    Bench::wat(&format!(
        r#"(module
          (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1) (data (i32.const 100) "{data}")
          (func (export "_start")
            (call $exit (i32.ne (i32.const 0) (call $open (i32.const 3) (i32.const 0) (i32.const 100)
              (i32.const {}) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0))))))"#,
        path.len()
    ))
}

fn verdict(bench: &Bench) -> Result<Verdict, tribunal_verifiers::BadRequest> {
    let chain =
        tribunal_verifiers::Chain(vec![std::sync::Arc::new(bench.source.clone()), std::sync::Arc::new(archives())]);
    let service = Service::new(OperatorLimits::default(), Vec::new());
    service.verify_from(&Request::parse(&bench.request.to_string())?, &chain)
}

fn input(path: &str, cid: AnyCid) -> Value {
    json!([{ "path": path, "artifact": cid.to_string() }])
}

#[test]
fn a_folder_is_an_input_with_its_files() {
    let cid = root("shards.car");
    for (path, exit_code) in [("in/file-0", 0), ("in/file-399", 0), ("in/file-400", 1), ("file-0", 1), ("in", 0)] {
        let bench = opens(path).set("/job/inputs", input("/in", cid));
        let found = verdict(&bench.clone().set("/claim", json!({ "exit_code": exit_code }))).unwrap();
        assert_eq!(found.reason.code, "ok", "{path}: {found:?}");
        let inputs = found.evidence.fields["inputs"].as_object().unwrap();
        assert_eq!(inputs.len(), 400);
        assert_eq!(inputs["/in/file-7"], format!("blake3:{}", blake3::hash(b"n7").to_hex()));
        let lie = verdict(&bench.set("/claim", json!({ "exit_code": 1 - exit_code }))).unwrap();
        assert_eq!(lie.reason.code, "exit-code-differs", "{path}");
    }
}

#[test]
fn a_file_is_an_input_and_a_module_by_its_cid() {
    let bench = opens("in/text").set("/job/inputs", input("/in/text", root("deep-pb.car")));
    let found = verdict(&bench).unwrap();
    assert_eq!(found.reason.code, "ok", "{found:?}");
    let pattern: Vec<u8> = (0..=250).cycle().take(500).collect();
    let address = format!("blake3:{}", blake3::hash(&pattern).to_hex());
    assert_eq!(found.evidence.fields["inputs"]["/in/text"], address);
    // A small module is a block itself.
    let module = wat::parse_str("(module (memory (export \"memory\") 1) (func (export \"_start\")))").unwrap();
    let cid = Layout::V1.file(&module);
    let bench = Bench::wasm(module).set("/job/module", json!(format!("ipfs://{cid}")));
    assert_eq!(line(&verdict(&bench)), "valid ok: the claim is what the job gives");
    // A folder is no module; one that nobody serves is nobody's fault.
    for (module, said) in [(root("folder.car"), "is a folder"), (Layout::V0.file(b"nowhere"), "nobody serves")] {
        let found = line(&verdict(&bench.clone().set("/job/module", json!(module.to_string()))));
        assert!(found.starts_with("inconclusive artifact-unavailable") && found.contains(said), "{found}");
    }
}

#[test]
fn a_folder_that_cannot_be_laid_out_judges_nobody() {
    let bench = |inputs: Value| opens("in/a").set("/job/inputs", inputs);
    let found = line(&verdict(&bench(input("/in", root("folder.car")))));
    assert_eq!(
        found,
        "inconclusive job-malformed: job.inputs: /in: its folder none is empty, and a job has no empty folders as inputs"
    );
    let both = json!([
        { "path": "/in", "artifact": root("shards.car").to_string() },
        { "path": "/in/file-1", "artifact": root("deep-pb.car").to_string() },
    ]);
    // That a path is a folder and holds another is refused before anything is fetched.
    assert!(line(&verdict(&bench(both))).starts_with("bad request: job.inputs"));
    for (archive, said) in [("link.car", "symbolic link"), ("many.car", "nodes"), ("cbor.car", "codec")] {
        let found = line(&verdict(&bench(input("/in", root(archive)))));
        assert!(found.starts_with("inconclusive artifact-unavailable") && found.contains(said), "{found}");
    }
}

#[test]
fn a_claim_by_cid_is_compared_without_its_bytes_where_that_can_be() {
    let bench = Bench::wat(
        r#"(module (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1) (data (i32.const 0) "\08\00\00\00\03\00\00\00abc")
          (func (export "_start") (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))))"#,
    );
    let claims = |cid: AnyCid| {
        line(&verdict(&bench.clone().set("/claim", json!({ "stdout": { "artifact": cid.to_string() } }))))
    };
    for layout in Layout::ALL {
        assert!(claims(layout.file(b"abc")).starts_with("valid ok"), "{layout:?}: {}", claims(layout.file(b"abc")));
    }
    // A raw block is the whole file: whoever serves nothing is still caught.
    let (own, lie) = (Layout::V1.file(b"abc"), Layout::V1.file(b"abd"));
    assert_eq!(claims(lie), format!("invalid stdout-differs: stdout: expected {own}, claimed {lie}"));
    // A node may be the same file cut in another way, so it is asked for.
    assert!(claims(Layout::V0.file(b"abd")).starts_with("inconclusive artifact-unavailable"));
    assert!(claims(root("inline.car")).starts_with("invalid stdout-differs"));
    assert!(claims(root("folder.car")).starts_with("inconclusive artifact-unavailable"));
    let Some(Content::File(text)) = fetch_content(&archives(), &root("inline.car"), 100).unwrap() else { panic!() };
    assert_eq!(&text[..], b"hello world");
}
