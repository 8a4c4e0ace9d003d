use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::record::array;

const FILE: &str = "MARK";
const BYTES: usize = 16;

/// The last position that was synced, in a file of its own beside the database.
///
/// A torn tail of the write-ahead log looks the same whether a crash cut off a write nobody had been told of, or damage
/// cut off one that had been acknowledged. The mark, written after each sync and before the answer, tells the two apart.
/// It is not synced itself: it outlives a killed process, and after a power failure it is at worst older than the log.
pub(super) struct Mark(File);

impl Mark {
    pub(super) fn open(store: &Path) -> io::Result<Self> {
        let options = File::options().create(true).truncate(false).write(true).open(store.join(FILE));
        options.map(Self)
    }

    pub(super) fn set(&self, position: u64) -> io::Result<()> {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&position.to_be_bytes());
        bytes[8..].copy_from_slice(&seal(position));
        self.0.write_all_at(&bytes, 0)
    }

    /// The mark of a store; nothing where there is none or it cannot be read.
    pub(super) fn read(store: &Path) -> Option<u64> {
        let bytes = std::fs::read(store.join(FILE)).ok()?;
        let position = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
        let sound = bytes.get(8..BYTES)? == seal(position);
        if !sound {
            tracing::warn!("the store's mark is damaged; the end of the log cannot be checked against it");
        }
        sound.then_some(position)
    }
}

fn seal(position: u64) -> [u8; 8] {
    array(blake3::hash(&position.to_be_bytes()).as_bytes(), 0)
}
