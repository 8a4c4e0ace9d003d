//! RocksDB's table files (block-based, versions 6 and 7), every byte of them: blocks that follow each other without a gap
//! from the first byte to the footer, each with its checksum.
//!
//! RocksDB itself overlooks damage where it does not need the bytes: a filter that does not match its checksum is not
//! used, unreadable properties are logged.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use super::{super::Row, checksum::Kind, edits::Fields};

const FOOTER_BYTES: usize = 53;
const TRAILER_BYTES: u64 = 5;
const MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
const EXTENDED_MAGIC: [u8; 4] = [0x3e, 0, 0x7a, 0];
const BLOCK_BYTES_MAX: u64 = 1 << 30;
const INDEX: &[u8] = b"rocksdb.index";

/// Something wrong in a table file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) offset: u64,
    pub(super) what: String,
    /// The keys of a block of rows: after the first, up to the second.
    pub(super) keys: Option<(Vec<u8>, Vec<u8>)>,
}

impl Flaw {
    fn at(offset: u64, what: impl Into<String>) -> Self {
        Self { offset, what: what.into(), keys: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Handle {
    offset: u64,
    bytes: u64,
}

impl Handle {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { offset: fields.number()?, bytes: fields.number()? })
    }

    const fn end(self) -> u64 {
        self.offset.saturating_add(self.bytes).saturating_add(TRAILER_BYTES)
    }
}

struct Table<'a> {
    file: &'a File,
    bytes: u64,
    kind: Kind,
    /// Mixed with a block's offset into its checksum, so that a block in another place is noticed.
    base: u32,
}

/// Reads a table file whole; `progress` hears how many bytes came to it.
pub(super) fn check(file: &File, bytes: u64, mut progress: impl FnMut(u64)) -> io::Result<Vec<Flaw>> {
    let (table, metaindex) = match Table::footer(file, bytes)? {
        Ok(found) => found,
        Err(flaw) => return Ok(vec![flaw]),
    };
    let mut flaws = Vec::new();
    let mut blocks = vec![metaindex];
    let named = match table.block(metaindex)? {
        Err(flaw) => return Ok(vec![flaw]),
        Ok(block) => match entries(&block, false) {
            Some(named) => named,
            None => return Ok(vec![Flaw::at(metaindex.offset, "the list of blocks cannot be read")]),
        },
    };
    let mut index = None;
    for (name, value) in named {
        let Some(handle) = Handle::read(&mut Fields(&value)) else {
            flaws.push(Flaw::at(metaindex.offset, "the list of blocks cannot be read"));
            continue;
        };
        blocks.push(handle);
        if name == INDEX {
            index = Some(handle);
        } else if let Err(mut flaw) = table.sound(handle)? {
            flaw.what = format!("{}, in {}", flaw.what, String::from_utf8_lossy(&name));
            flaws.push(flaw);
        }
    }
    let Some(index) = index else {
        flaws.push(Flaw::at(metaindex.offset, "the file has no index"));
        return Ok(flaws);
    };
    let rows = match table.block(index)?.map(|block| entries(&block, true)) {
        Ok(Some(rows)) => rows,
        Ok(None) => {
            flaws.push(Flaw::at(index.offset, "the index cannot be read"));
            return Ok(flaws);
        }
        Err(mut flaw) => {
            flaw.what += ", in the index";
            flaws.push(flaw);
            return Ok(flaws);
        }
    };
    let mut before = Vec::new();
    for (key, value) in rows {
        let Some(handle) = Handle::read(&mut Fields(&value)) else {
            flaws.push(Flaw::at(index.offset, "the index cannot be read"));
            return Ok(flaws);
        };
        if let Err(mut flaw) = table.sound(handle)? {
            flaw.keys = Some((before, key.clone()));
            flaws.push(flaw);
        }
        blocks.push(handle);
        progress(handle.end());
        before = key;
    }
    blocks.sort();
    let mut at = 0;
    for block in blocks {
        if block.offset != at {
            flaws.push(Flaw::at(at.min(block.offset), "the blocks do not follow each other"));
        }
        at = block.end();
    }
    if at != bytes - FOOTER_BYTES as u64 {
        flaws.push(Flaw::at(at, "the blocks do not reach to the footer"));
    }
    Ok(flaws)
}

impl<'a> Table<'a> {
    fn footer(file: &'a File, bytes: u64) -> io::Result<Result<(Self, Handle), Flaw>> {
        let Some(offset) = bytes.checked_sub(FOOTER_BYTES as u64) else {
            return Ok(Err(Flaw::at(0, format!("a table file of {bytes} bytes is cut short"))));
        };
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, offset)?;
        let flaw = |what: &str| Ok(Err(Flaw::at(offset, what)));
        let four = |at: usize| u32::from_le_bytes([footer[at], footer[at + 1], footer[at + 2], footer[at + 3]]);
        let magic = u64::from(four(45)) | u64::from(four(49)) << 32;
        let Some(kind) = Kind::of(footer[0]) else { return flaw("the footer names an unknown checksum") };
        if magic != MAGIC || footer[1..5] != EXTENDED_MAGIC || !(6..=7).contains(&four(41)) {
            return flaw("the footer is not one of a table file");
        }
        let table = Self { file, bytes, kind, base: four(9) };
        let mut cleared = footer;
        cleared[5..9].fill(0);
        let (last, rest) = cleared.split_last().expect("not empty");
        if kind.compute(rest, *last).wrapping_add(table.context(offset)) != four(5) {
            return flaw("the footer does not match its checksum");
        }
        let metaindex = u64::from(four(13));
        let Some(start) = offset.checked_sub(TRAILER_BYTES + metaindex) else {
            return flaw("the footer leads out of the file");
        };
        Ok(Ok((table, Handle { offset: start, bytes: metaindex })))
    }

    const fn context(&self, offset: u64) -> u32 {
        if self.base == 0 { 0 } else { self.base ^ (offset as u32).wrapping_add((offset >> 32) as u32) }
    }

    /// A block of keys and values, unpacked.
    fn block(&self, handle: Handle) -> io::Result<Result<Vec<u8>, Flaw>> {
        let flaw = |what: String| Err(Flaw::at(handle.offset, what));
        Ok(match self.sound(handle)? {
            Err(flaw) => Err(flaw),
            Ok((block, 0)) => Ok(block),
            Ok((packed, 4)) => unpack(&packed).map_or_else(|| flaw("a block cannot be unpacked".into()), Ok),
            Ok((_, other)) => flaw(format!("a block is packed in way {other}, unknown here")),
        })
    }

    /// A block as it stands and how it is packed, its checksum verified.
    fn sound(&self, handle: Handle) -> io::Result<Result<(Vec<u8>, u8), Flaw>> {
        if handle.bytes > BLOCK_BYTES_MAX || handle.end() > self.bytes {
            return Ok(Err(Flaw::at(handle.offset, "a block leads out of the file")));
        }
        let mut block = vec![0; (handle.bytes + TRAILER_BYTES) as usize];
        self.file.read_exact_at(&mut block, handle.offset)?;
        let trailer = block.split_off(handle.bytes as usize);
        let stored = u32::from_le_bytes([trailer[1], trailer[2], trailer[3], trailer[4]]);
        let computed = self.kind.compute(&block, trailer[0]).wrapping_add(self.context(handle.offset));
        if computed != stored {
            let what = format!("the block's checksum is {computed:08x}, stored is {stored:08x}");
            return Ok(Err(Flaw::at(handle.offset, what)));
        }
        Ok(Ok((block, trailer[0])))
    }
}

/// Keys and values of a block, values of an index being two numbers without a length.
fn entries(block: &[u8], index: bool) -> Option<Vec<Row>> {
    let (rest, count) = block.split_last_chunk::<4>()?;
    // The upper bits are flags; only even keys is among those that say nothing about the layout.
    let count = u32::from_le_bytes(*count) & !(1 << 29);
    let mut fields = Fields(&rest[..rest.len().checked_sub((count as usize).checked_mul(4)?)?]);
    let (mut found, mut last) = (Vec::new(), Vec::new());
    while !fields.0.is_empty() {
        let (shared, fresh) = (fields.number()?, fields.number()?);
        let length = if index { 0 } else { fields.number()? };
        if index && shared != 0 {
            return None;
        }
        last.truncate(usize::try_from(shared).ok().filter(|shared| *shared <= last.len())?);
        last.extend_from_slice(fields.take(fresh)?);
        let value = if index {
            let before = fields.0;
            Handle::read(&mut fields)?;
            before[..before.len() - fields.0.len()].to_vec()
        } else {
            fields.take(length)?.to_vec()
        };
        found.push((last.clone(), value));
    }
    Some(found)
}

/// An LZ4 block after the length that it unpacks to.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Fields(packed);
    let length = usize::try_from(fields.number().filter(|length| *length <= BLOCK_BYTES_MAX)?).ok()?;
    let mut out = Vec::with_capacity(length);
    loop {
        let token = *fields.take(1)?.first()?;
        let literals = extended(&mut fields, u64::from(token >> 4))?;
        out.extend_from_slice(fields.take(literals)?);
        if fields.0.is_empty() {
            break;
        }
        let back = fields.take(2)?;
        let back = usize::from(u16::from_le_bytes([back[0], back[1]]));
        let count = extended(&mut fields, u64::from(token & 15))? + 4;
        let from = out.len().checked_sub(back).filter(|_| back > 0)?;
        if out.len() as u64 + count > length as u64 {
            return None;
        }
        for at in from..from + count as usize {
            out.push(out[at]);
        }
    }
    (out.len() == length).then_some(out)
}

fn extended(fields: &mut Fields<'_>, start: u64) -> Option<u64> {
    let mut length = start;
    if start == 15 {
        loop {
            let byte = *fields.take(1)?.first()?;
            length += u64::from(byte);
            if byte != 255 {
                break;
            }
        }
    }
    Some(length)
}
