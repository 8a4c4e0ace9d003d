//! UnixFS 1: what a block says, and the files and folders that blocks make.
//!
//! A dag-pb block is links and data, the data a UnixFS message: a file, whose bytes are its own data and then those of its
//! links; a folder, whose links have names; or a shard of a folder, whose links have two hex digits and then a name, or two
//! digits alone for a further shard. Symbolic links are refused, modes and times are ignored.
//!
//! Source: IPFS specs (DAG-PB, UnixFS 1); how far they are to be trusted is said in [`tree`].

use crate::{AnyCid, Codec, cid::AnyCidError, varint};

pub(crate) mod tree;

/// What a block is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockProblem {
    #[error("no dag-pb: {0}")]
    Node(&'static str),
    #[error("no UnixFS: {0}")]
    Data(&'static str),
    #[error("a link is {0}")]
    Link(#[from] AnyCidError),
}

/// A link of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link<'a> {
    pub(crate) cid: AnyCid,
    pub(crate) name: &'a [u8],
}

/// What a block says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Block<'a> {
    /// Bytes, then those of the links, each as many as it says.
    File {
        data: &'a [u8],
        links: Vec<(Link<'a>, u64)>,
    },
    Folder(Vec<Link<'a>>),
    /// Names begin with `digits` hex digits.
    Shard {
        digits: usize,
        links: Vec<Link<'a>>,
    },
    Symlink,
}

impl<'a> Block<'a> {
    /// Reads a block.
    pub(crate) fn read(codec: Codec, bytes: &'a [u8]) -> Result<Self, BlockProblem> {
        match codec {
            Codec::Raw => Ok(Self::File { data: bytes, links: Vec::new() }),
            Codec::DagPb => node(bytes),
        }
    }

    /// Where its links lead.
    pub(crate) fn links(&self) -> Vec<AnyCid> {
        match self {
            Self::File { links, .. } => links.iter().map(|(link, _)| link.cid).collect(),
            Self::Folder(links) | Self::Shard { links, .. } => links.iter().map(|link| link.cid).collect(),
            Self::Symlink => Vec::new(),
        }
    }
}

/// One field of a Protocol Buffers message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, which nothing here has.
    Fixed,
}

/// Takes a field from the front: its number and value.
fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let key = varint::take(bytes)?;
    let value = match key & 7 {
        0 => Field::Number(varint::take(bytes)?),
        2 => {
            let length = usize::try_from(varint::take(bytes)?).ok()?;
            let (value, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Field::Bytes(value)
        }
        kind @ (1 | 5) => {
            *bytes = bytes.get(if kind == 1 { 8 } else { 4 }..)?;
            Field::Fixed
        }
        _ => return None,
    };
    Some((key >> 3, value))
}

fn node(mut bytes: &[u8]) -> Result<Block<'_>, BlockProblem> {
    let (mut links, mut data) = (Vec::new(), None);
    while !bytes.is_empty() {
        match field(&mut bytes).ok_or(BlockProblem::Node("a field is cut or malformed"))? {
            (2, Field::Bytes(value)) => links.push(link(value)?),
            (1, Field::Bytes(value)) if data.is_none() => data = Some(value),
            (1, _) => return Err(BlockProblem::Node("data is given twice")),
            _ => return Err(BlockProblem::Node("a field is unknown")),
        }
    }
    message(data.ok_or(BlockProblem::Data("there is no data"))?, links)
}

fn link(mut bytes: &[u8]) -> Result<Link<'_>, BlockProblem> {
    let (mut cid, mut name) = (None, &b""[..]);
    while !bytes.is_empty() {
        match field(&mut bytes).ok_or(BlockProblem::Node("a link is cut or malformed"))? {
            (1, Field::Bytes(value)) => cid = Some(AnyCid::from_bytes(value)?),
            (2, Field::Bytes(value)) => name = value,
            (3, Field::Number(_)) => {}
            _ => return Err(BlockProblem::Node("a link has an unknown field")),
        }
    }
    Ok(Link { cid: cid.ok_or(BlockProblem::Node("a link leads nowhere"))?, name })
}

/// What UnixFS says of a node with these links.
fn message<'a>(mut bytes: &'a [u8], links: Vec<Link<'a>>) -> Result<Block<'a>, BlockProblem> {
    let (mut kind, mut data, mut size, mut sizes, mut hash, mut fanout) =
        (None, &b""[..], None, Vec::new(), None, None);
    while !bytes.is_empty() {
        match field(&mut bytes).ok_or(BlockProblem::Data("a field is cut or malformed"))? {
            (1, Field::Number(value)) => kind = Some(value),
            (2, Field::Bytes(value)) => data = value,
            (3, Field::Number(value)) => size = Some(value),
            (4, Field::Number(value)) => sizes.push(value),
            (4, Field::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    sizes.push(varint::take(&mut packed).ok_or(BlockProblem::Data("block sizes are malformed"))?);
                }
            }
            (5, Field::Number(value)) => hash = Some(value),
            (6, Field::Number(value)) => fanout = Some(value),
            (1..=6, _) => return Err(BlockProblem::Data("a field has another type")),
            // Modes and times.
            _ => {}
        }
    }
    match kind.ok_or(BlockProblem::Data("there is no type"))? {
        // Raw, which leaves of files once were, and file.
        0 | 2 => {
            if sizes.len() != links.len() {
                return Err(BlockProblem::Data("a file has other links than sizes of blocks"));
            }
            let total = sizes.iter().try_fold(data.len() as u64, |total, size| total.checked_add(*size));
            let total = total.ok_or(BlockProblem::Data("the sizes of a file's blocks are above 64 bits"))?;
            if size.is_some_and(|size| size != total) {
                return Err(BlockProblem::Data("a file has other bytes than it says"));
            }
            Ok(Block::File { data, links: links.into_iter().zip(sizes).collect() })
        }
        1 => Ok(Block::Folder(links)),
        4 => Ok(Block::Symlink),
        5 => match (hash, fanout) {
            // Murmur3, which is all that anybody uses; names do not depend on it.
            (Some(0x22), Some(fanout @ 8..=1024)) if fanout.is_power_of_two() => {
                Ok(Block::Shard { digits: format!("{:X}", fanout - 1).len(), links })
            }
            _ => Err(BlockProblem::Data("a shard has another hash or fan-out than 8 to 1024")),
        },
        _ => Err(BlockProblem::Data("an unknown type")),
    }
}
