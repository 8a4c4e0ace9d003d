//! Where the bytes of artifacts come from. Whatever a source says, bytes are checked against their address here.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tribunal_events::ContentAddress;

use crate::{
    AnyCid, Layout, Reference,
    unixfs::tree::{self, Blocks, Content},
};

pub(crate) mod cache;
pub(crate) mod download;
mod folder;
mod index;
mod memory;

pub use folder::FolderSource;
pub use memory::MemorySource;

/// Bytes of one artifact at most, unless a source is told otherwise.
pub const ARTIFACT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Why a source could not serve what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactFault {
    /// The name leads out of the folder, or is no file. A request that says so is a bad request.
    #[error("{name}: {problem}")]
    Refused {
        /// The name asked for.
        name: String,
        /// Why not.
        problem: String,
    },
    /// More bytes than the source hands out.
    #[error("{name} has {found} bytes, more than {most}")]
    TooLarge {
        /// The name or address asked for.
        name: String,
        /// Its size.
        found: u64,
        /// The limit.
        most: u64,
    },
    /// The disk or network failed; asking again may help.
    #[error("{name} could not be read")]
    Io {
        /// The name or address asked for.
        name: String,
        /// What failed.
        #[source]
        source: std::io::Error,
    },
    /// The source sent other bytes than the address says.
    #[error("{expected} was asked for, the bytes that came are {actual}")]
    OtherBytes {
        /// Address asked for.
        expected: ContentAddress,
        /// Address of what came.
        actual: ContentAddress,
    },
    /// The source sent another block than the CID says.
    #[error("{expected} was asked for, the block that came is {actual}")]
    OtherBlock {
        /// CID asked for.
        expected: AnyCid,
        /// CID of what came.
        actual: AnyCid,
    },
    /// A block that others lead to is nowhere.
    #[error("{root} leads to {block}, which nobody serves")]
    MissingBlock {
        /// CID asked for.
        root: AnyCid,
        /// The block that is missing.
        block: AnyCid,
    },
    /// The bytes are those of the address, and not what they must be: no file, no folder, or beyond a bound.
    #[error("{name} {problem}")]
    Malformed {
        /// The address.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The source was asked and gave no usable answer; asking again may help.
    #[error("{name}: {source_name} {problem}")]
    Remote {
        /// The address asked for.
        name: String,
        /// Which source.
        source_name: String,
        /// What it did.
        problem: String,
    },
}

/// Serves artifacts. Implemented by whoever holds them; called from verification threads.
pub trait ArtifactSource: Send + Sync {
    /// The bytes behind a reference; nothing where this source does not have them.
    ///
    /// # Errors
    /// [`ArtifactFault`] where it might have them, but cannot hand them out.
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault>;

    /// Gives the block of a CID to `into`, and may give blocks that it leads to; nothing where this source does not have it.
    /// What is no block of its CID is refused by [`Blocks::keep`], whatever the source says.
    ///
    /// # Errors
    /// As [`ArtifactSource::fetch`].
    fn blocks(&self, cid: &AnyCid, into: &mut Blocks) -> Result<(), ArtifactFault> {
        let (_, _) = (cid, into);
        Ok(())
    }
}

/// Fetches what a CID leads to, file or folder, every block checked; nothing where the source does not have it.
///
/// # Errors
/// [`ArtifactFault`] where a block is missing, is no UnixFS, or all together is above `bytes_max` or the bounds on nodes,
/// entries and depth.
pub fn fetch_content(
    source: &dyn ArtifactSource,
    cid: &AnyCid,
    bytes_max: u64,
) -> Result<Option<Content>, ArtifactFault> {
    tree::fetch(source, cid, bytes_max)
}

/// The file of a CID, for [`ArtifactSource::fetch`].
///
/// # Errors
/// As [`fetch_content`], and where it is a folder.
pub fn file_of(source: &dyn ArtifactSource, cid: &AnyCid) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
    match fetch_content(source, cid, ARTIFACT_BYTES_MAX)? {
        Some(Content::File(bytes)) => Ok(Some(bytes)),
        Some(Content::Folder(_)) => {
            Err(ArtifactFault::Malformed { name: cid.to_string(), problem: "is a folder, where a file must be".into() })
        }
        None => Ok(None),
    }
}

/// Whether a file has this CID, where it is cut in one of the ways that `ipfs add` cuts files. No says nothing: there are others.
pub(crate) fn is_cid_of(cid: &AnyCid, bytes: &[u8]) -> bool {
    Layout::ALL.iter().any(|layout| {
        let own = layout.file(bytes);
        (own.codec(), own.digest()) == (cid.codec(), cid.digest())
    })
}

/// The address of the bytes, under the hash function of `like`.
pub fn address_like(like: &ContentAddress, bytes: &[u8]) -> ContentAddress {
    match like {
        ContentAddress::Blake3(_) => ContentAddress::of(bytes),
        ContentAddress::Sha256(_) => ContentAddress::Sha256(Sha256::digest(bytes).into()),
    }
}

/// Asks sources in turn; the first that has the artifact answers. A fault counts only if nobody has it.
#[derive(Clone, Default)]
pub struct Chain(pub Vec<Arc<dyn ArtifactSource>>);

impl ArtifactSource for Chain {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        if let Reference::Cid(cid) = reference {
            return file_of(self, cid);
        }
        let mut first_fault = None;
        for source in &self.0 {
            match source.fetch(reference).and_then(|found| checked(reference, found)) {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => {}
                Err(fault) => first_fault = first_fault.or(Some(fault)),
            }
        }
        first_fault.map_or(Ok(None), Err)
    }

    fn blocks(&self, cid: &AnyCid, into: &mut Blocks) -> Result<(), ArtifactFault> {
        let mut first_fault = None;
        for source in &self.0 {
            let answer = source.blocks(cid, into);
            if into.get(cid).is_some() {
                return Ok(());
            }
            first_fault = first_fault.or(answer.err());
        }
        first_fault.map_or(Ok(()), Err)
    }
}

/// Refuses bytes that are not those of the address. What a CID leads to is checked block by block where it is put together.
pub(crate) fn checked(reference: &Reference, found: Option<Arc<[u8]>>) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
    if let (Reference::Address(expected), Some(bytes)) = (reference, &found) {
        let actual = address_like(expected, bytes);
        if actual != *expected {
            return Err(ArtifactFault::OtherBytes { expected: *expected, actual });
        }
    }
    Ok(found)
}
