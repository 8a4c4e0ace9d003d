//! How a request names bytes.

use std::{fmt, str::FromStr};

use tribunal_events::ContentAddress;

use crate::{AnyCid, Codec};

/// Where an artifact's bytes are to be found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// A file name inside the artifacts folder.
    File(String),
    /// A digest of the bytes.
    Address(ContentAddress),
    /// An IPFS content identifier of a file; as an input of a job, of a folder too.
    Cid(AnyCid),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
            Self::Cid(cid) => cid.fmt(f),
        }
    }
}

/// A file name, a content address, or a CID with or without `ipfs://`.
impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a file name or a content address is needed".into());
        }
        if text.starts_with("blake3:") || text.starts_with("sha256:") {
            let address = text.parse().map(Self::Address);
            return address.map_err(|error: tribunal_events::IdError| error.to_string());
        }
        let plain = text.strip_prefix("ipfs://");
        if plain.is_none() && !AnyCid::looks_like(text) {
            return Ok(Self::File(text.to_owned()));
        }
        let cid = plain.unwrap_or(text);
        if let Some((cid, _)) = cid.split_once('/') {
            let cid: String = cid.chars().take(80).collect();
            return Err(format!("a path inside {cid}: the CID of the file itself is needed"));
        }
        cid.parse().map(Self::Cid).map_err(|error: crate::AnyCidError| error.to_string())
    }
}

/// Bytes that a claim names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Bytes that can be fetched.
    Artifact(Reference),
    /// Their BLAKE3 digest alone, for exact comparison.
    Digest(ContentAddress),
}

impl Claimed {
    /// Where the bytes may be found.
    pub fn reference(&self) -> Reference {
        match self {
            Self::Artifact(reference) => reference.clone(),
            Self::Digest(address) => Reference::Address(*address),
        }
    }

    /// The digest that is claimed, where the claim is a digest and no file name.
    pub const fn address(&self) -> Option<ContentAddress> {
        match self {
            Self::Artifact(Reference::Address(address)) | Self::Digest(address) => Some(*address),
            Self::Artifact(_) => None,
        }
    }

    /// How the claim would name these bytes.
    pub(crate) fn name_of(&self, bytes: &[u8]) -> String {
        match self {
            Self::Artifact(Reference::Cid(_)) => AnyCid::of_block(Codec::Raw, bytes).to_string(),
            _ => self.address().map_or_else(String::new, |like| crate::address_like(&like, bytes).to_string()),
        }
    }

    /// Whether these bytes are what is claimed, as far as the claim alone says it: by their digest, or by the CID that they
    /// have where `ipfs add` cuts them. Nothing: the claim's bytes must tell.
    pub(crate) fn names(&self, bytes: &[u8]) -> Option<bool> {
        match self {
            // A raw block is the whole file, so nothing else has its CID.
            Self::Artifact(Reference::Cid(cid)) if cid.codec() == Codec::Raw => Some(cid.is_of(bytes)),
            Self::Artifact(Reference::Cid(cid)) => crate::artifacts::is_cid_of(cid, bytes).then_some(true),
            _ => self.address().map(|address| crate::artifacts::address_like(&address, bytes) == address),
        }
    }
}
