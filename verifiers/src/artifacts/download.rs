//! Fetches one artifact from a server that may break off: goes on where it stopped, checks what came.
//!
//! Bytes are hashed as they come and never kept above the bound. A connection that breaks is followed by a request for the rest;
//! where the server names the version (a strong ETag), only for the rest of that version. What was put together from parts and
//! has another digest is fetched once more from its beginning, in one piece, before the server is called a liar.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tribunal_events::ContentAddress;

use super::ArtifactFault;

/// Requests for one artifact at most.
const REQUESTS_MAX: u32 = 32;
/// Requests in a row that bring nothing.
const IN_VAIN_MAX: u32 = 4;

/// What a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It says that it does not have the artifact.
    Absent,
    /// All of it.
    Whole {
        /// How many bytes, where it says so.
        bytes: Option<u64>,
    },
    /// From this byte on.
    Rest {
        /// The first byte's place.
        from: u64,
        /// Bytes of the whole, where it says so.
        total: Option<u64>,
    },
    /// It has nothing from there on.
    NoRest,
}

/// The bytes of an answer, as they come; nothing at the end.
pub type Body = Box<dyn FnMut() -> Result<Option<Vec<u8>>, String> + Send>;

/// A server's answer.
pub struct Answer {
    /// What it has.
    pub piece: Piece,
    /// Its version of the artifact.
    pub etag: Option<String>,
    /// The bytes.
    pub body: Body,
}

/// A server that gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    /// Why.
    pub problem: String,
    /// Whether asking again may help.
    pub again: bool,
}

/// A server that is asked for one artifact.
pub trait Remote {
    /// Asks for the bytes from `from` on; with `etag`, only if that is still the version, else for all.
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn open(&mut self, from: u64, etag: Option<&str>) -> Result<Answer, NoAnswer>;

    /// Waits before it is asked again; `in_vain` requests in a row brought nothing.
    fn pause(&mut self, in_vain: u32);

    /// What it is called in faults.
    fn name(&self) -> String;
}

/// What came of it.
pub enum Download {
    /// The artifact, checked.
    Whole(Arc<[u8]>),
    /// The server does not have it.
    Absent,
    /// It could not be had now.
    Failed {
        /// Why.
        fault: ArtifactFault,
        /// Its first bytes, to go on with another time. Not checked.
        part: Vec<u8>,
    },
}

enum Hash {
    Blake3(Box<blake3::Hasher>),
    Sha256(Sha256),
}

impl Hash {
    fn like(address: &ContentAddress) -> Self {
        match address {
            ContentAddress::Blake3(_) => Self::Blake3(Box::default()),
            ContentAddress::Sha256(_) => Self::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hash) => {
                hash.update(bytes);
            }
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    fn address(self) -> ContentAddress {
        match self {
            Self::Blake3(hash) => ContentAddress::Blake3(*hash.finalize().as_bytes()),
            Self::Sha256(hash) => ContentAddress::Sha256(hash.finalize().into()),
        }
    }
}

/// What came so far.
struct Got {
    bytes: Vec<u8>,
    hash: Hash,
    etag: Option<String>,
    /// Whether it was put together from more than one answer.
    pieced: bool,
}

impl Got {
    fn nothing(address: &ContentAddress) -> Self {
        Self { bytes: Vec::new(), hash: Hash::like(address), etag: None, pieced: false }
    }
}

/// How one answer ended.
enum End {
    Complete,
    Cut(String),
}

/// Fetches an artifact of at most `bytes_max` bytes, beginning with what an earlier attempt left.
pub fn download(address: &ContentAddress, remote: &mut dyn Remote, bytes_max: u64, part: Vec<u8>) -> Download {
    let mut got = Got::nothing(address);
    if part.len() as u64 <= bytes_max {
        got.hash.update(&part);
        got.pieced = !part.is_empty();
        got.bytes = part;
    }
    let fault = |problem: String, remote: &dyn Remote| ArtifactFault::Remote {
        name: address.to_string(),
        source_name: remote.name(),
        problem,
    };
    let (mut in_vain, mut problem) = (0, String::new());
    for request in 0..REQUESTS_MAX {
        if in_vain == IN_VAIN_MAX {
            break;
        }
        if request > 0 {
            remote.pause(in_vain);
        }
        let before = got.bytes.len();
        match remote.open(before as u64, got.etag.as_deref()) {
            Ok(Answer { piece: Piece::Absent, .. }) => return Download::Absent,
            Ok(Answer { piece: Piece::NoRest, .. }) => {
                // What is held is more than the server has, so it is of something else.
                problem = "has fewer bytes than came before".into();
                got = Got::nothing(address);
                in_vain += 1;
            }
            Ok(answer) => match take(answer, &mut got, address, bytes_max) {
                Err(fault) => return Download::Failed { fault, part: Vec::new() },
                Ok(End::Cut(cut)) => {
                    problem = cut;
                    in_vain = if got.bytes.len() > before { 0 } else { in_vain + 1 };
                }
                Ok(End::Complete) => {
                    let done = std::mem::replace(&mut got, Got::nothing(address));
                    let actual = done.hash.address();
                    if actual == *address {
                        return Download::Whole(done.bytes.into());
                    }
                    if !done.pieced {
                        let fault = ArtifactFault::OtherBytes { expected: *address, actual };
                        return Download::Failed { fault, part: Vec::new() };
                    }
                    problem = "sent parts that do not belong together".into();
                    in_vain += 1;
                }
            },
            Err(NoAnswer { problem: why, again }) => {
                if !again {
                    return Download::Failed { fault: fault(why, remote), part: got.bytes };
                }
                problem = why;
                in_vain += 1;
            }
        }
    }
    Download::Failed { fault: fault(problem, remote), part: got.bytes }
}

/// Takes the bytes of one answer.
fn take(mut answer: Answer, got: &mut Got, address: &ContentAddress, bytes_max: u64) -> Result<End, ArtifactFault> {
    let too_large = |found| ArtifactFault::TooLarge { name: address.to_string(), found, most: bytes_max };
    let total = match answer.piece {
        Piece::Rest { from, total } if from == got.bytes.len() as u64 => {
            got.pieced |= from > 0;
            total
        }
        Piece::Rest { .. } => {
            *got = Got::nothing(address);
            return Ok(End::Cut("sent another part than was asked for".into()));
        }
        Piece::Whole { bytes } => {
            *got = Got::nothing(address);
            bytes
        }
        Piece::Absent | Piece::NoRest => None,
    };
    got.etag = answer.etag.take().filter(|etag| !etag.starts_with("W/"));
    if let Some(total) = total.filter(|total| *total > bytes_max) {
        return Err(too_large(total));
    }
    loop {
        match (answer.body)() {
            Ok(Some(bytes)) => {
                let found = got.bytes.len() as u64 + bytes.len() as u64;
                if found > bytes_max {
                    return Err(too_large(found));
                }
                got.hash.update(&bytes);
                got.bytes.extend_from_slice(&bytes);
            }
            Ok(None) if total.is_some_and(|total| total > got.bytes.len() as u64) => {
                return Ok(End::Cut("broke off".into()));
            }
            Ok(None) => return Ok(End::Complete),
            Err(problem) => return Ok(End::Cut(problem)),
        }
    }
}

/// Reads a `Content-Range`: the first byte's place, and bytes of the whole where it says so.
pub fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (from, to) = range.trim().split_once('-')?;
    let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse::<u64>().ok()?),
    };
    (from <= to && total.is_none_or(|total| to < total)).then_some((from, total))
}
