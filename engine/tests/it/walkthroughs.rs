//! The README's walk-throughs, run as they are typed there.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The `sh` block after `<!-- walk-through: NAME -->`.
fn block(name: &str) -> String {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) =
        readme.split_once(&format!("<!-- walk-through: {name} -->")).expect("the README has this walk-through");
    let (_, rest) = rest.split_once("```sh\n").expect("an sh block follows");
    rest.split_once("\n```").expect("the block ends").0.to_owned()
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Runs a walk-through from the project's root, on free ports, with the binary under test first on the path.
fn walk(name: &str) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_tribunal")).parent().unwrap();
    let python = std::env::var("TRIBUNAL_PYTHON").ok();
    let python = python.as_deref().and_then(|path| Path::new(path).parent()).map(Path::to_owned).unwrap_or_default();
    let path = format!("{}:{}:{}", bin.display(), python.display(), std::env::var("PATH").unwrap_or_default());
    // What the walk-through starts in the background ends with it.
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{}\n", block(name));
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(root())
        .env("PATH", path)
        .env("DIR", scratch.path())
        .env("NATS_PORT", free_port())
        .env("HTTP_PORT", free_port())
        .env("RPC_PORT", free_port())
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "walk-through {name}: {text}\n(make test installs what it needs)");
    text
}

#[test]
fn an_auditor_verifies_evidence_in_an_empty_folder() {
    let text = walk("auditor");
    assert!(text.contains("sound"), "{text}");
}

#[test]
fn an_operator_with_an_encrypted_keystore_judges_against_anvil() {
    let text = walk("operator");
    assert!(text.contains("invalid"), "{text}");
}

#[test]
fn a_marketplace_asks_from_python_over_nats_and_over_http() {
    let text = walk("marketplace");
    assert_eq!(text.matches("valid 0x").count(), 2, "{text}");
}
