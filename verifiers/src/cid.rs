//! IPFS content identifiers: of data, of files and of folders, as `ipfs add -r` gives them.
//!
//! [`Cid`] is one of version 0, which results are published under; [`AnyCid`] one of either version; [`Layout`] how files are cut.
//! In version 0 a CID is the SHA-256 of a block, a dag-pb node. A file is cut into chunks of 256 KiB, each a UnixFS leaf inside a node; more
//! than one hang below nodes of at most 174 links, level by level, all leaves equally deep. A folder links its entries in byte
//! order of their names. Every link says how many bytes lie below it, so a folder's CID depends on how its files are cut.
//!
//! Like `ipfs add -r` without `--hidden`, folders leave out entries whose names begin with a dot. Folders whose block would
//! have 256 KiB or more are refused: some versions of IPFS cut them into shards, others do not.
//!
//! Source: IPFS specs (DAG-PB, UnixFS 1), the defaults of Kubo.

use std::{collections::BTreeMap, fmt, str::FromStr};

mod any;
pub(crate) mod layout;

pub use any::{AnyCid, AnyCidError, Codec};
pub use layout::Layout;
use layout::{Links, Node};

/// Bytes of a folder's block from which on some versions cut it into shards.
const FOLDER_BLOCK_BYTES: usize = 262_144;
/// Folders inside folders.
const DEPTH_MAX: usize = 64;
/// What a SHA-256 multihash begins with: function 0x12, 32 bytes.
const MULTIHASH: [u8; 2] = [0x12, 0x20];

/// A content identifier of version 0: the SHA-256 of a dag-pb block, written as `Qm…` in base58.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid([u8; 32]);

/// A text is no CID of version 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an IPFS CID of version 0 is Qm and 44 base58 digits, not {0:?}")]
pub struct CidError(String);

/// A folder has no CID that every version of IPFS agrees on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum FolderProblem {
    #[error("{0:?} is no plain path")]
    Path(String),
    #[error("{0:?} is there twice, or is a file and a folder")]
    Twice(String),
    #[error("folders lie more than {DEPTH_MAX} deep")]
    Deep,
    #[error("a folder has so many entries that some versions of IPFS would cut it into shards")]
    Crowded,
}

impl Cid {
    /// Of a node that has these bytes as its data and no links: how Lilypad names its JSON documents.
    pub fn of_data(bytes: &[u8]) -> Self {
        Self(*Layout::V0.node(&Links::default(), bytes, &mut |_, _| {}).cid.digest())
    }

    /// Of a file.
    pub fn of_file(bytes: &[u8]) -> Self {
        Self(*Layout::V0.file(bytes).digest())
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode([&MULTIHASH[..], &self.0].concat()).into_string())
    }
}

impl FromStr for Cid {
    type Err = CidError;

    fn from_str(text: &str) -> Result<Self, CidError> {
        let wrong = || CidError(text.chars().take(80).collect());
        let mut bytes = [0; 34];
        if text.len() != 46 || bs58::decode(text).onto(&mut bytes) != Ok(bytes.len()) {
            return Err(wrong());
        }
        let digest = bytes.strip_prefix(&MULTIHASH).and_then(|digest| digest.try_into().ok());
        digest.map(Self).ok_or_else(wrong)
    }
}

/// A folder that is to get a CID.
#[derive(Clone, Debug, Default)]
pub struct Folder<'a> {
    entries: BTreeMap<String, Entry<'a>>,
}

#[derive(Clone, Debug)]
enum Entry<'a> {
    File(&'a [u8]),
    Folder(Folder<'a>),
}

impl<'a> Folder<'a> {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file at a path without a leading slash, and the folders that it lies in.
    ///
    /// # Errors
    /// [`FolderProblem`] where the path is not plain, or something lies there already.
    pub fn add_file(&mut self, path: &str, bytes: &'a [u8]) -> Result<(), FolderProblem> {
        let (folder, name) = match path.rsplit_once('/') {
            Some((folders, name)) => (self.below(folders, 1)?, name),
            None => (self, path),
        };
        if name.is_empty() || matches!(name, "." | "..") {
            return Err(FolderProblem::Path(path.to_owned()));
        }
        if folder.entries.contains_key(name) {
            return Err(FolderProblem::Twice(path.to_owned()));
        }
        folder.entries.insert(name.to_owned(), Entry::File(bytes));
        Ok(())
    }

    /// Puts a folder at a path, where none lies there yet.
    ///
    /// # Errors
    /// As [`Folder::add_file`].
    pub fn add_folder(&mut self, path: &str) -> Result<(), FolderProblem> {
        self.below(path, 1).map(|_| ())
    }

    fn below<'b>(&'b mut self, path: &str, depth: usize) -> Result<&'b mut Self, FolderProblem> {
        if depth > DEPTH_MAX {
            return Err(FolderProblem::Deep);
        }
        let (name, rest) = path.split_once('/').map_or((path, None), |(name, rest)| (name, Some(rest)));
        if name.is_empty() || matches!(name, "." | "..") {
            return Err(FolderProblem::Path(path.to_owned()));
        }
        match self.entries.entry(name.to_owned()).or_insert_with(|| Entry::Folder(Self::new())) {
            Entry::Folder(folder) => match rest {
                Some(rest) => folder.below(rest, depth + 1),
                None => Ok(folder),
            },
            Entry::File(_) => Err(FolderProblem::Twice(name.to_owned())),
        }
    }

    /// Its CID of version 0.
    ///
    /// # Errors
    /// [`FolderProblem::Crowded`].
    pub fn cid(&self) -> Result<Cid, FolderProblem> {
        Ok(Cid(*self.cid_as(Layout::V0)?.digest()))
    }

    /// Its CID where files are cut in this way.
    ///
    /// # Errors
    /// [`FolderProblem::Crowded`].
    pub fn cid_as(&self, layout: Layout) -> Result<AnyCid, FolderProblem> {
        Ok(self.node(layout)?.cid)
    }

    fn node(&self, layout: Layout) -> Result<Node, FolderProblem> {
        let mut links = Links::default();
        // Hidden entries are left out.
        for (name, entry) in self.entries.iter().filter(|(name, _)| !name.starts_with('.')) {
            let node = match entry {
                Entry::File(bytes) => layout.file_node(bytes, &mut |_, _| {}),
                Entry::Folder(folder) => folder.node(layout)?,
            };
            links.put(name, &node);
        }
        layout.folder_node(&links, &mut |_, _| {})
    }
}
