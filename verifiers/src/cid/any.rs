//! CIDs of both versions, as links and requests give them.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};
use tribunal_events::ContentAddress;

use super::{Cid, MULTIHASH};
use crate::varint;

/// Bytes that a CID's text has at most.
const TEXT_BYTES_MAX: usize = 128;
const RAW: u64 = 0x55;
const DAG_PB: u64 = 0x70;

/// What the block of a CID is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// Bytes of a file, as they are.
    Raw,
    /// A node with links.
    DagPb,
}

/// A CID of version 0 or 1 whose block is raw or dag-pb and whose hash is SHA-256.
///
/// It is read in base58 (`Qm…`, `z…`), lower-case base32 (`b…`) or lower-case base16 (`f…`), and written as `Qm…` or `b…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnyCid {
    /// Nothing in version 0, which is dag-pb.
    codec: Option<Codec>,
    digest: [u8; 32],
}

/// A text or some bytes are no CID that is served here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnyCidError {
    /// No CID at all.
    #[error("{0:?} is no IPFS CID")]
    Form(String),
    /// Neither raw nor dag-pb.
    #[error("an IPFS CID with the codec 0x{0:x}: only raw (0x55) and dag-pb (0x70) are served")]
    Codec(u64),
    /// Not SHA-256.
    #[error("an IPFS CID with the hash function 0x{0:x}: only sha2-256 (0x12) is served")]
    Hash(u64),
    /// Neither 0 nor 1.
    #[error("an IPFS CID of version {0}: there are 0 and 1")]
    Version(u64),
}

impl AnyCid {
    /// The CID, version 1, of a block.
    pub fn of_block(codec: Codec, block: &[u8]) -> Self {
        Self::new(codec, Sha256::digest(block).into())
    }

    pub(crate) const fn new(codec: Codec, digest: [u8; 32]) -> Self {
        Self { codec: Some(codec), digest }
    }

    /// What its block is.
    pub const fn codec(&self) -> Codec {
        match self.codec {
            Some(codec) => codec,
            None => Codec::DagPb,
        }
    }

    /// SHA-256 of its block.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The address of its block: for a raw one that of the file.
    pub const fn block_address(&self) -> ContentAddress {
        ContentAddress::Sha256(self.digest)
    }

    /// Whether it is the CID of this block.
    pub fn is_of(&self, block: &[u8]) -> bool {
        self.digest == <[u8; 32]>::from(Sha256::digest(block))
    }

    /// The same hash and codec, in version 1: what a gateway is asked for.
    #[must_use]
    pub const fn version_1(&self) -> Self {
        Self::new(self.codec(), self.digest)
    }

    /// Version, codec and multihash as they stand in links and archives.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(36);
        match self.codec {
            None => {}
            Some(Codec::Raw) => bytes.extend([1, RAW as u8]),
            Some(Codec::DagPb) => bytes.extend([1, DAG_PB as u8]),
        }
        bytes.extend(MULTIHASH);
        bytes.extend(self.digest);
        bytes
    }

    /// Takes a CID from the front of some bytes.
    ///
    /// # Errors
    /// [`AnyCidError`].
    pub fn take(bytes: &mut &[u8]) -> Result<Self, AnyCidError> {
        let short = |bytes: &[u8]| AnyCidError::Form(hex::encode(&bytes[..bytes.len().min(40)]));
        let whole = *bytes;
        if let Some(rest) = bytes.strip_prefix(&MULTIHASH) {
            let (digest, rest) = rest.split_first_chunk().ok_or_else(|| short(whole))?;
            *bytes = rest;
            return Ok(Self { codec: None, digest: *digest });
        }
        let mut number = || varint::take(bytes).ok_or_else(|| short(whole));
        match number()? {
            1 => {}
            version => return Err(AnyCidError::Version(version)),
        }
        let codec = match number()? {
            RAW => Codec::Raw,
            DAG_PB => Codec::DagPb,
            codec => return Err(AnyCidError::Codec(codec)),
        };
        match number()? {
            0x12 => {}
            hash => return Err(AnyCidError::Hash(hash)),
        }
        if number()? != 32 {
            return Err(short(whole));
        }
        let (digest, rest) = bytes.split_first_chunk().ok_or_else(|| short(whole))?;
        *bytes = rest;
        Ok(Self { codec: Some(codec), digest: *digest })
    }

    /// A CID that is all of these bytes.
    pub(crate) fn from_bytes(mut bytes: &[u8]) -> Result<Self, AnyCidError> {
        let whole = bytes;
        let cid = Self::take(&mut bytes)?;
        if bytes.is_empty() { Ok(cid) } else { Err(AnyCidError::Form(hex::encode(&whole[..whole.len().min(40)]))) }
    }

    /// Whether a text has the form of a CID, though it may not be one that is served here. Few file names have it.
    pub(crate) fn looks_like(text: &str) -> bool {
        let base58 = |byte: u8| byte.is_ascii_alphanumeric() && !matches!(byte, b'0' | b'O' | b'I' | b'l');
        let base32 = |byte: u8| matches!(byte, b'a'..=b'z' | b'2'..=b'7');
        let base16 = |byte: u8| matches!(byte, b'a'..=b'f' | b'0'..=b'9');
        (text.len() == 46 && text.starts_with("Qm") && text.bytes().all(base58))
            || (text.len() >= 50 && (text.starts_with("baf") || text.starts_with("bag")) && text.bytes().all(base32))
            || (matches!(text.len(), 48..=50) && text.starts_with('z') && text.bytes().all(base58))
            || (text.len() == 73 && text.starts_with("f01") && text.bytes().all(base16))
    }
}

impl From<Cid> for AnyCid {
    fn from(cid: Cid) -> Self {
        Self { codec: None, digest: cid.0 }
    }
}

impl fmt::Display for AnyCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.codec {
            None => Cid(self.digest).fmt(f),
            Some(_) => write!(f, "b{}", base32(&self.to_bytes())),
        }
    }
}

impl FromStr for AnyCid {
    type Err = AnyCidError;

    fn from_str(text: &str) -> Result<Self, AnyCidError> {
        let wrong = || AnyCidError::Form(text.chars().take(80).collect());
        if text.len() > TEXT_BYTES_MAX || !text.is_ascii() || text.len() < 2 {
            return Err(wrong());
        }
        if text.len() == 46 && text.starts_with("Qm") {
            return text.parse::<Cid>().map(Self::from).map_err(|_| wrong());
        }
        let bytes = match text.split_at(1) {
            ("b", digits) => from_base32(digits),
            ("f", digits) if !digits.bytes().any(|byte| byte.is_ascii_uppercase()) => hex::decode(digits).ok(),
            ("z", digits) => bs58::decode(digits).into_vec().ok(),
            _ => None,
        };
        let bytes = bytes.ok_or_else(wrong)?;
        // A multihash alone is version 0, which has no other form than Qm….
        if bytes.first() == Some(&MULTIHASH[0]) {
            return Err(wrong());
        }
        Self::from_bytes(&bytes).map_err(|error| match error {
            AnyCidError::Form(_) => wrong(),
            other => other,
        })
    }
}

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// RFC 4648, lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    let digit = |bits: u16| char::from(BASE32[usize::from(bits & 31)]);
    let (mut text, mut held, mut bits) = (String::with_capacity(bytes.len() * 8 / 5 + 1), 0u16, 0);
    for byte in bytes {
        held = held << 8 | u16::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(digit(held >> bits));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(digit(held << (5 - bits)));
    }
    text
}

fn from_base32(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut held, mut bits) = (Vec::with_capacity(text.len() * 5 / 8), 0u16, 0);
    for byte in text.bytes() {
        let digit = match byte {
            b'a'..=b'z' => byte - b'a',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        held = held << 5 | u16::from(digit);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    // What is left over are zeros, fewer than a digit has.
    (bits < 5 && held == 0).then_some(bytes)
}
