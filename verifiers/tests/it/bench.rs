//! What the tests share: a service over artifacts in memory.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use serde_json::{Value, json};
use tribunal_verifiers::{FolderSource, MemorySource, OperatorLimits, Request, Service, Verdict};

/// One service for all tests, as an engine has one for all requests.
pub static SERVICE: LazyLock<Service> = LazyLock::new(|| Service::new(OperatorLimits::default(), Vec::new()));

pub fn fixture(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures")).join(path)
}

pub fn fixture_bytes(path: &str) -> Vec<u8> {
    let path = fixture(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; fixtures/build.sh makes it", path.display()))
}

pub fn fixture_folder(path: &str) -> FolderSource {
    FolderSource::open(&fixture(path)).expect("a fixture folder")
}

/// "invalid output-differs: /out/a: …", or "bad request: field: problem".
pub fn line(result: &Result<Verdict, tribunal_verifiers::BadRequest>) -> String {
    match result {
        Ok(verdict) => format!("{} {}: {}", verdict.verdict.word(), verdict.reason.code, verdict.reason.detail),
        Err(problem) => format!("bad request: {problem}"),
    }
}

pub fn verify(request: &Value, source: &MemorySource) -> Result<Verdict, tribunal_verifiers::BadRequest> {
    SERVICE.verify_from(&Request::parse(&request.to_string())?, source)
}

/// A job of one module in memory.
#[derive(Clone)]
pub struct Bench {
    pub source: MemorySource,
    pub request: Value,
}

impl Bench {
    /// A module in text form, with a claim that it exits with 0.
    pub fn wat(text: &str) -> Self {
        Self::wasm(wat::parse_str(text).expect("a module"))
    }

    pub fn wasm(module: Vec<u8>) -> Self {
        let mut source = MemorySource::new();
        source.add_file("job.wasm", module);
        let request = json!({
            "method": { "kind": "reexecution" },
            "job": {
                "runtime": "wasm-1",
                "module": "job.wasm",
                "args": ["job"],
                "outputs": ["/out"],
                "limits": { "fuel": 10_000_000, "memory_bytes": 1_048_576, "output_bytes": 65_536, "wall_ms": 60_000 },
            },
            "claim": { "exit_code": 0 },
        });
        Self { source, request }
    }

    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let object = self.request.pointer_mut(parent).expect("an object").as_object_mut().expect("an object");
        object.insert(name.into(), value);
        self
    }

    pub fn file(mut self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.source.add_file(name, Arc::<[u8]>::from(bytes.as_ref()));
        self
    }

    pub fn run(&self) -> Verdict {
        verify(&self.request, &self.source).expect("a good request")
    }

    pub fn line(&self) -> String {
        line(&verify(&self.request, &self.source))
    }
}

/// A module that prints and exits: `data` goes to stdout in one call.
pub fn printer(data: &str, then: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "\10\00\00\00\{:02x}\00\00\00")
          (data (i32.const 16) "{data}")
          (func (export "_start")
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            {then}))"#,
        data.len()
    )
}
