//! Compiles the schema with protox (pure Rust), so that no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    // Requests and verdicts have their Rust types elsewhere: of their messages only the description is needed.
    let all = protox::compile(["tribunal/v1/tribunal.proto", "tribunal/v1/verification.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), all.encode_to_vec())?;
    let descriptors = protox::compile(["tribunal/v1/tribunal.proto"], ["proto"])?;
    prost_build::Config::new()
        .btree_map(["."])
        .enum_attribute("tribunal.v1.Party", "#[derive(serde::Serialize, serde::Deserialize)]")
        .enum_attribute("tribunal.v1.Outcome", "#[derive(serde::Serialize, serde::Deserialize)]")
        .compile_fds(descriptors)?;
    Ok(())
}
