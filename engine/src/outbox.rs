//! What is stored of an effect: its kind and the stream version of the deal that it follows from.

use serde::{Deserialize, Serialize};
use tribunal_core::EffectKind;

#[derive(Serialize, Deserialize)]
struct Row {
    version: u64,
    kind: EffectKind,
}

/// Bytes for the store.
pub fn encode(version: u64, kind: EffectKind) -> Vec<u8> {
    serde_json::to_vec(&Row { version, kind }).expect("an effect has a JSON form")
}

/// Version and kind, from the store's bytes.
///
/// # Errors
/// Where the bytes are of another program's making.
pub fn decode(bytes: &[u8]) -> Result<(u64, EffectKind), serde_json::Error> {
    serde_json::from_slice(bytes).map(|Row { version, kind }| (version, kind))
}
