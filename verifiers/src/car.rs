//! CAR version 1: blocks one after the other, with their CIDs.
//!
//! A length and a dag-cbor header, then for every block a length, its CID and its bytes. The header's roots are not read: who
//! asks for a CID knows which. Version 2 is refused. Source: IPLD specs, CARv1.

use std::io::{self, Read};

use crate::{AnyCid, unixfs::tree::BLOCK_BYTES_MAX, varint};

/// Bytes of a header at most.
const HEADER_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a CID that is skipped at most.
const CID_BYTES_MAX: u64 = 128;

/// Why an archive is none.
#[derive(Debug, thiserror::Error)]
pub enum CarFault {
    /// It is malformed.
    #[error("no CAR file of version 1: {0}")]
    Form(&'static str),
    /// It could not be read.
    #[error("the archive could not be read")]
    Io(#[from] io::Error),
}

/// Reads the blocks of an archive in their order. Blocks are **not** checked against their CIDs here.
pub struct CarReader<R> {
    from: R,
    /// Bytes read.
    at: u64,
}

impl<R: Read> CarReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`CarFault`].
    pub fn open(from: R) -> Result<Self, CarFault> {
        let mut this = Self { from, at: 0 };
        let length = this.length()?.ok_or(CarFault::Form("it is empty"))?;
        if length == 0 || length > HEADER_BYTES_MAX {
            return Err(CarFault::Form("its header has no bytes or too many"));
        }
        let header = this.bytes(length)?;
        if version(&header) != Some(1) {
            return Err(CarFault::Form("its header does not say version 1"));
        }
        Ok(this)
    }

    /// The next block whose CID is one that is served here, with the place of its bytes in the archive.
    ///
    /// # Errors
    /// [`CarFault`] where the archive is cut or malformed.
    pub fn next_block(&mut self) -> Result<Option<(AnyCid, u64, Vec<u8>)>, CarFault> {
        loop {
            let Some(length) = self.length()? else { return Ok(None) };
            if length == 0 || length > BLOCK_BYTES_MAX as u64 + CID_BYTES_MAX {
                return Err(CarFault::Form("a block has no bytes or too many"));
            }
            let mut bytes = self.bytes(length)?;
            let mut rest = &bytes[..];
            // Blocks of other kinds may stand beside those that are asked for.
            let Ok(cid) = AnyCid::take(&mut rest) else { continue };
            let at = self.at - rest.len() as u64;
            bytes.drain(..bytes.len() - rest.len());
            return Ok(Some((cid, at, bytes)));
        }
    }

    /// A length; nothing at the end.
    fn length(&mut self) -> Result<Option<u64>, CarFault> {
        let mut digits = Vec::with_capacity(10);
        loop {
            let mut byte = [0];
            if self.read_some(&mut byte)? == 0 {
                return if digits.is_empty() { Ok(None) } else { Err(CarFault::Form("it is cut")) };
            }
            digits.push(byte[0]);
            if byte[0] & 0x80 == 0 {
                return varint::take(&mut &digits[..]).map(Some).ok_or(CarFault::Form("a length is malformed"));
            }
            if digits.len() == 10 {
                return Err(CarFault::Form("a length is malformed"));
            }
        }
    }

    fn read_some(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.from.read(into) {
                Ok(count) => {
                    self.at += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Exactly so many bytes; they are taken as they come, so that a length alone takes no memory.
    fn bytes(&mut self, length: u64) -> Result<Vec<u8>, CarFault> {
        let mut bytes = Vec::new();
        let count = self.from.by_ref().take(length).read_to_end(&mut bytes)? as u64;
        self.at += count;
        if count < length { Err(CarFault::Form("it is cut")) } else { Ok(bytes) }
    }
}

/// The `version` of a header: a CBOR map of "roots" and "version", in any order.
fn version(header: &[u8]) -> Option<u64> {
    // A map of one or two entries; the key "version" as text of seven bytes, then a small number.
    if !matches!(header.first(), Some(0xa1 | 0xa2)) {
        return None;
    }
    let key = b"\x67version";
    let at = header.windows(key.len()).position(|window| window == key)?;
    header.get(at + key.len()).filter(|value| **value < 24).map(|value| u64::from(*value))
}
