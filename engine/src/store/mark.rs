use std::{fs::File, io, os::unix::fs::FileExt, path::Path, time::Duration};

use super::record::array;

const FILE: &str = "MARK";
pub(super) const BYTES: usize = 24;
/// What a store of format 1 had: the position and its seal.
const BYTES_BEFORE: usize = 16;

/// How far a store was acknowledged, in a file of its own beside the database.
///
/// A torn tail of the write-ahead log looks the same whether a crash cut off a write nobody had been told of, or damage
/// cut off one that had been acknowledged. The mark, written after each sync and before the answer, tells the two apart.
/// It is not synced itself: it outlives a killed process, and after a power failure it is at worst older than the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Last log position.
    pub(super) position: u64,
    /// RocksDB's number of the last write, so that writes of other rows count too; 0 where it is not known.
    pub(super) sequence: u64,
}

/// What is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    /// No file.
    Missing,
    /// Nothing was acknowledged since the file was made.
    Unset,
    /// Something that was never written.
    Damaged,
    At(Mark),
}

impl Marked {
    pub(super) const fn mark(self) -> Option<Mark> {
        match self {
            Self::At(mark) => Some(mark),
            _ => None,
        }
    }
}

impl Mark {
    /// The mark of a store; read again where a writer may be in the middle of it.
    pub(super) fn read(store: &Path) -> io::Result<Marked> {
        for _ in 0..3 {
            let marked = match std::fs::read(store.join(FILE)) {
                Ok(bytes) => parse(&bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Marked::Missing,
                Err(error) => return Err(error),
            };
            if marked != Marked::Damaged {
                return Ok(marked);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Marked::Damaged)
    }
}

/// The file, open for writing.
pub(super) struct MarkFile(File);

impl MarkFile {
    pub(super) fn open(store: &Path) -> io::Result<Self> {
        let options = File::options().create(true).truncate(false).write(true).open(store.join(FILE));
        options.map(Self)
    }

    pub(super) fn set(&self, mark: Mark) -> io::Result<()> {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&mark.position.to_be_bytes());
        bytes[8..16].copy_from_slice(&mark.sequence.to_be_bytes());
        let seal = seal(&bytes[..16]);
        bytes[16..].copy_from_slice(&seal);
        self.0.write_all_at(&bytes, 0)
    }
}

fn parse(bytes: &[u8]) -> Marked {
    let position = |bytes: &[u8]| u64::from_be_bytes(array(bytes, 0));
    match bytes.len() {
        0 => Marked::Unset,
        BYTES if bytes[16..] == seal(&bytes[..16]) => {
            Marked::At(Mark { position: position(bytes), sequence: u64::from_be_bytes(array(bytes, 8)) })
        }
        BYTES_BEFORE if bytes[8..] == seal(&bytes[..8]) => Marked::At(Mark { position: position(bytes), sequence: 0 }),
        _ => Marked::Damaged,
    }
}

fn seal(bytes: &[u8]) -> [u8; 8] {
    array(blake3::hash(bytes).as_bytes(), 0)
}
