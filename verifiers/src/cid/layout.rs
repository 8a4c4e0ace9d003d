//! How a file is cut into blocks, and the blocks that files and folders become.

use sha2::{Digest as _, Sha256};

use super::{AnyCid, Codec, FOLDER_BLOCK_BYTES, FolderProblem};
use crate::varint;

/// How `ipfs add` cuts files and writes links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `ipfs add`: CIDs of version 0, leaves are nodes, chunks of 256 KiB, 174 links.
    V0,
    /// `ipfs add --cid-version 1`: leaves are raw, chunks of 256 KiB, 174 links.
    V1,
    /// The profile `unixfs-v1-2025`: leaves are raw, chunks of 1 MiB, 1024 links.
    V1Large,
}

/// UnixFS: the type of a folder, and of a file, leaf or not.
const UNIXFS_FOLDER: [u8; 2] = [0x08, 0x01];
const UNIXFS_FILE: [u8; 2] = [0x08, 0x02];

/// What a link needs to know of a block.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    pub(crate) cid: AnyCid,
    /// Bytes of the block and of all below it.
    bytes: u64,
}

/// A block as it is made.
pub(crate) enum Made<'a> {
    /// A part of a file and what stands around it.
    Leaf { head: Vec<u8>, offset: usize, length: usize, tail: &'a [u8] },
    /// Links and their data.
    Inner(Vec<u8>),
}

/// Told of every block.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(&AnyCid, Made<'_>);

/// Links as they stand in a block.
#[derive(Default)]
pub(crate) struct Links {
    bytes: Vec<u8>,
    /// Bytes of all blocks below.
    below: u64,
}

impl Links {
    pub(crate) fn put(&mut self, name: &str, to: &Node) {
        let mut link = Vec::with_capacity(name.len() + 64);
        put_bytes(&mut link, 0x0a, &to.cid.to_bytes());
        put_bytes(&mut link, 0x12, name.as_bytes());
        put_number(&mut link, 0x18, to.bytes);
        put_bytes(&mut self.bytes, 0x12, &link);
        self.below += to.bytes;
    }
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V0, Self::V1, Self::V1Large];

    /// Bytes of a leaf.
    const fn chunk_bytes(self) -> usize {
        match self {
            Self::V0 | Self::V1 => 262_144,
            Self::V1Large => 1_048_576,
        }
    }

    /// Links of a node inside a file.
    const fn links_max(self) -> usize {
        match self {
            Self::V0 | Self::V1 => 174,
            Self::V1Large => 1024,
        }
    }

    /// The CID of a file.
    pub fn file(self, bytes: &[u8]) -> AnyCid {
        self.file_node(bytes, &mut |_, _| {}).cid
    }

    pub(crate) fn file_node(self, bytes: &[u8], tell: Tell<'_>) -> Node {
        // With every node the bytes of the file that it stands for.
        let mut level = Vec::with_capacity(bytes.len() / self.chunk_bytes() + 1);
        let mut offset = 0;
        loop {
            let chunk = &bytes[offset..bytes.len().min(offset + self.chunk_bytes())];
            level.push((self.leaf(chunk, offset, tell), chunk.len() as u64));
            offset += chunk.len();
            if offset == bytes.len() {
                break;
            }
        }
        while level.len() > 1 {
            level = level.chunks(self.links_max()).map(|nodes| self.above(nodes, tell)).collect();
        }
        level[0].0
    }

    /// The node of a folder with these entries, ascending by name.
    pub(crate) fn folder_node(self, links: &Links, tell: Tell<'_>) -> Result<Node, FolderProblem> {
        if links.bytes.len() >= FOLDER_BLOCK_BYTES {
            return Err(FolderProblem::Crowded);
        }
        Ok(self.node(links, &UNIXFS_FOLDER, tell))
    }

    /// A block with links and then its data.
    pub(super) fn node(self, links: &Links, data: &[u8], tell: Tell<'_>) -> Node {
        let mut block = Vec::with_capacity(links.bytes.len() + data.len() + 8);
        block.extend_from_slice(&links.bytes);
        put_bytes(&mut block, 0x0a, data);
        let cid = self.cid(Codec::DagPb, Sha256::digest(&block).into());
        let bytes = links.below + block.len() as u64;
        tell(&cid, Made::Inner(block));
        Node { cid, bytes }
    }

    fn cid(self, codec: Codec, digest: [u8; 32]) -> AnyCid {
        match self {
            Self::V0 => super::Cid(digest).into(),
            Self::V1 | Self::V1Large => AnyCid::new(codec, digest),
        }
    }

    fn leaf(self, chunk: &[u8], offset: usize, tell: Tell<'_>) -> Node {
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        let mut codec = Codec::Raw;
        if self == Self::V0 {
            codec = Codec::DagPb;
            let mut data = UNIXFS_FILE.to_vec();
            if !chunk.is_empty() {
                put_number(&mut data, 0x12, chunk.len() as u64);
            }
            put_number(&mut tail, 0x18, chunk.len() as u64);
            put_number(&mut head, 0x0a, (data.len() + chunk.len() + tail.len()) as u64);
            head.extend(data);
        }
        let hash = Sha256::new().chain_update(&head).chain_update(chunk).chain_update(&tail);
        let cid = self.cid(codec, hash.finalize().into());
        let bytes = (head.len() + chunk.len() + tail.len()) as u64;
        tell(&cid, Made::Leaf { head, offset, length: chunk.len(), tail: &tail });
        Node { cid, bytes }
    }

    fn above(self, nodes: &[(Node, u64)], tell: Tell<'_>) -> (Node, u64) {
        let (mut links, mut data) = (Links::default(), UNIXFS_FILE.to_vec());
        let total = nodes.iter().map(|(_, bytes)| bytes).sum();
        put_number(&mut data, 0x18, total);
        for (node, bytes) in nodes {
            links.put("", node);
            put_number(&mut data, 0x20, *bytes);
        }
        (self.node(&links, &data, tell), total)
    }
}

fn put_bytes(to: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_number(to, field, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

fn put_number(to: &mut Vec<u8>, field: u64, number: u64) {
    varint::put(to, field);
    varint::put(to, number);
}
