//! Puts files and folders together from blocks.
//!
//! **Invariant:** every block is checked against its CID before it is read, and only blocks are kept that the CID asked for
//! leads to. So nobody can make a graph that leads back to itself, nor fill memory with blocks that belong to nothing.
//! **Invariant:** bytes, nodes, entries and depth are bounded whatever the graph says: the same block may be linked many times.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Block, Link};
use crate::{AnyCid, ArtifactFault, ArtifactSource, Codec};

/// Bytes of one block at most; IPFS nodes exchange none above 2 MiB.
pub const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Files and folders in one folder and below at most.
const ENTRIES_MAX: usize = 4096;
/// Nodes that are looked at for one artifact.
const NODES_MAX: usize = 1 << 18;
/// Nodes one below the other, in folders and files together.
const DEPTH_MAX: usize = 64;
/// Bytes of an entry's name.
const NAME_BYTES_MAX: usize = 255;
/// Bytes that nodes take beside those of files: a file of the largest size cut into small chunks has that.
const OVERHEAD_BYTES: u64 = 64 * 1024 * 1024;

/// What a CID leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file.
    File(Arc<[u8]>),
    /// A folder.
    Folder(Tree),
}

/// A folder and all below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// Files by their paths, without a leading slash.
    pub files: BTreeMap<String, Arc<[u8]>>,
    /// Folders by their paths, the folder itself left out.
    pub folders: BTreeSet<String>,
}

/// Blocks that came for one CID, and what of it is still to come.
#[derive(Debug)]
pub struct Blocks {
    root: AnyCid,
    held: BTreeMap<[u8; 32], Arc<[u8]>>,
    /// In the order in which they came.
    order: Vec<AnyCid>,
    /// What the root and the blocks held lead to, and whether as nodes: the source's word for that does not count.
    wanted: BTreeMap<[u8; 32], bool>,
    bytes: u64,
    bytes_max: u64,
}

impl Blocks {
    fn new(root: AnyCid, bytes_max: u64) -> Self {
        let wanted = BTreeMap::from([(*root.digest(), root.codec() == Codec::DagPb)]);
        let bytes_max = bytes_max.saturating_add(OVERHEAD_BYTES);
        Self { root, held: BTreeMap::new(), order: Vec::new(), wanted, bytes: 0, bytes_max }
    }

    /// The CID that all is about.
    pub const fn root(&self) -> &AnyCid {
        &self.root
    }

    /// Bytes that may still come.
    pub const fn bytes_left(&self) -> u64 {
        self.bytes_max.saturating_sub(self.bytes)
    }

    /// The block of a CID, where it came.
    pub fn get(&self, cid: &AnyCid) -> Option<&Arc<[u8]>> {
        self.held.get(cid.digest())
    }

    /// Blocks that came, in their order.
    pub fn order(&self) -> &[AnyCid] {
        &self.order
    }

    /// Keeps a block, unless it is held already or is none of those that are waited for; tells whether it did.
    ///
    /// # Errors
    /// [`ArtifactFault`] where it is not the block of this CID, or too much.
    pub fn keep(&mut self, cid: &AnyCid, block: impl Into<Arc<[u8]>> + AsRef<[u8]>) -> Result<bool, ArtifactFault> {
        let Some(node) = self.wanted.get(cid.digest()).copied() else { return Ok(false) };
        if self.held.contains_key(cid.digest()) {
            return Ok(false);
        }
        let found = block.as_ref().len();
        if found > BLOCK_BYTES_MAX {
            let most = BLOCK_BYTES_MAX as u64;
            return Err(ArtifactFault::TooLarge { name: format!("the block {cid}"), found: found as u64, most });
        }
        if !cid.is_of(block.as_ref()) {
            return Err(ArtifactFault::OtherBlock {
                expected: *cid,
                actual: AnyCid::of_block(cid.codec(), block.as_ref()),
            });
        }
        let bytes = self.bytes + found as u64;
        if bytes > self.bytes_max {
            let name = format!("what {} leads to", self.root);
            return Err(ArtifactFault::TooLarge { name, found: bytes, most: self.bytes_max });
        }
        self.bytes = bytes;
        let block: Arc<[u8]> = block.into();
        self.held.insert(*cid.digest(), Arc::clone(&block));
        if node {
            self.want(block);
        }
        self.order.push(*cid);
        Ok(true)
    }

    /// Waits for what a node leads to, and for what nodes lead to that were held as files only.
    fn want(&mut self, node: Arc<[u8]>) {
        let mut left = vec![node];
        while let Some(node) = left.pop() {
            let Ok(read) = Block::read(Codec::DagPb, &node) else { continue };
            for cid in read.links() {
                let as_node = cid.codec() == Codec::DagPb;
                let before = self.wanted.insert(*cid.digest(), as_node || self.wanted.get(cid.digest()) == Some(&true));
                if as_node && before == Some(false) {
                    left.extend(self.held.get(cid.digest()).cloned());
                }
            }
        }
    }
}

/// Fetches a file or folder, block by block; nothing where the source does not have the block of this CID.
///
/// # Errors
/// [`ArtifactFault`] where blocks are missing, are no UnixFS, or make more than `bytes_max` bytes or the bounds of this module.
pub fn fetch(source: &dyn ArtifactSource, root: &AnyCid, bytes_max: u64) -> Result<Option<Content>, ArtifactFault> {
    let mut walk = Walk { source, blocks: Blocks::new(*root, bytes_max), nodes: 0, entries: 0, bytes: 0, bytes_max };
    let Some(block) = walk.block(root)? else { return Ok(None) };
    match read(root, &block)? {
        Block::Folder(_) | Block::Shard { .. } => {
            let mut tree = Tree::default();
            walk.folder(root, "", 0, &mut tree)?;
            Ok(Some(Content::Folder(tree)))
        }
        _ if root.codec() == Codec::Raw && block.len() as u64 <= bytes_max => Ok(Some(Content::File(block))),
        _ => Ok(Some(Content::File(walk.file_of(root)?))),
    }
}

struct Walk<'a> {
    source: &'a dyn ArtifactSource,
    blocks: Blocks,
    nodes: usize,
    entries: usize,
    /// Bytes of files.
    bytes: u64,
    bytes_max: u64,
}

fn read<'a>(cid: &AnyCid, block: &'a [u8]) -> Result<Block<'a>, ArtifactFault> {
    Block::read(cid.codec(), block).map_err(|problem| malformed(cid, problem.to_string()))
}

fn malformed(cid: &AnyCid, problem: impl Into<String>) -> ArtifactFault {
    ArtifactFault::Malformed { name: cid.to_string(), problem: problem.into() }
}

impl Walk<'_> {
    fn block(&mut self, cid: &AnyCid) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        if self.blocks.get(cid).is_none() {
            self.source.blocks(cid, &mut self.blocks)?;
        }
        Ok(self.blocks.get(cid).cloned())
    }

    /// A block that something leads to; one more node of the graph.
    fn linked(&mut self, cid: &AnyCid, depth: usize) -> Result<Arc<[u8]>, ArtifactFault> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(malformed(self.blocks.root(), format!("leads to more than {NODES_MAX} nodes")));
        }
        if depth > DEPTH_MAX {
            return Err(malformed(self.blocks.root(), format!("leads more than {DEPTH_MAX} nodes deep")));
        }
        let found = self.block(cid)?;
        found.ok_or_else(|| ArtifactFault::MissingBlock { root: *self.blocks.root(), block: *cid })
    }

    fn file_of(&mut self, cid: &AnyCid) -> Result<Arc<[u8]>, ArtifactFault> {
        let mut bytes = Vec::new();
        self.file(cid, None, 0, &mut bytes)?;
        Ok(bytes.into())
    }

    /// Appends the bytes of a file or of a part of it, which must be so many.
    fn file(
        &mut self,
        cid: &AnyCid,
        expected: Option<u64>,
        depth: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), ArtifactFault> {
        let block = self.linked(cid, depth)?;
        let before = into.len();
        let (data, links) = match read(cid, &block)? {
            Block::File { data, links } => (data, links),
            Block::Symlink => return Err(malformed(cid, "is a symbolic link")),
            Block::Folder(_) | Block::Shard { .. } => return Err(malformed(cid, "is a folder inside a file")),
        };
        self.bytes += data.len() as u64;
        if self.bytes > self.bytes_max {
            let name = self.blocks.root().to_string();
            return Err(ArtifactFault::TooLarge { name, found: self.bytes, most: self.bytes_max });
        }
        into.extend_from_slice(data);
        for (link, size) in links {
            self.file(&link.cid, Some(size), depth + 1, into)?;
        }
        let found = (into.len() - before) as u64;
        match expected {
            Some(expected) if expected != found => {
                Err(malformed(cid, format!("has {found} bytes, and what leads to it says {expected}")))
            }
            _ => Ok(()),
        }
    }

    fn folder(&mut self, cid: &AnyCid, path: &str, depth: usize, tree: &mut Tree) -> Result<(), ArtifactFault> {
        let block = self.linked(cid, depth)?;
        match read(cid, &block)? {
            Block::Folder(links) => {
                for link in links {
                    self.entry(cid, &link, link.name, path, depth, tree)?;
                }
            }
            Block::Shard { digits, links } => {
                for link in links {
                    match link.name.split_at_checked(digits) {
                        Some((_, b"")) => self.folder(&link.cid, path, depth + 1, tree)?,
                        Some((_, name)) => self.entry(cid, &link, name, path, depth, tree)?,
                        None => return Err(malformed(cid, "an entry of a shard has no place")),
                    }
                }
            }
            _ => return Err(malformed(cid, "is a file, where a part of a folder must be")),
        }
        Ok(())
    }

    fn entry(
        &mut self,
        folder: &AnyCid,
        link: &Link<'_>,
        name: &[u8],
        path: &str,
        depth: usize,
        tree: &mut Tree,
    ) -> Result<(), ArtifactFault> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(malformed(self.blocks.root(), format!("has more than {ENTRIES_MAX} files and folders")));
        }
        let name = std::str::from_utf8(name).ok().filter(|name| plain(name));
        let name = name.ok_or_else(|| malformed(folder, "an entry has no plain name"))?;
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        if tree.files.contains_key(&path) || tree.folders.contains(&path) {
            return Err(malformed(folder, format!("{path} is there twice")));
        }
        let block = self.linked(&link.cid, depth + 1)?;
        match read(&link.cid, &block)? {
            Block::Folder(_) | Block::Shard { .. } => {
                tree.folders.insert(path.clone());
                self.folder(&link.cid, &path, depth + 1, tree)
            }
            Block::Symlink => Err(malformed(&link.cid, format!("{path} is a symbolic link"))),
            Block::File { .. } => {
                let mut bytes = Vec::new();
                self.file(&link.cid, None, depth + 1, &mut bytes)?;
                tree.files.insert(path, bytes.into());
                Ok(())
            }
        }
    }
}

fn plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= NAME_BYTES_MAX && !name.contains(['/', '\0'])
}
