//! What RocksDB's MANIFEST says: which column families there are, which table files belong to them, which logs count.

use std::collections::{BTreeMap, BTreeSet};

/// A table file as the MANIFEST has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableFile {
    pub(super) family: u32,
    pub(super) bytes: u64,
    /// Smallest and greatest key in it.
    pub(super) keys: (Vec<u8>, Vec<u8>),
}

/// The state after all edits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Names by number.
    pub(super) families: BTreeMap<u32, String>,
    /// By file number.
    pub(super) tables: BTreeMap<u64, TableFile>,
    /// Write-ahead logs that are no longer written to, and how many bytes of them were synced.
    pub(super) logs: BTreeMap<u64, u64>,
    /// The last sequence number that is in tables, or was there when the MANIFEST was begun.
    pub(super) sequence: u64,
    begun: bool,
    /// The first log that each family needs.
    log_from: BTreeMap<u32, u64>,
    log_from_min: u64,
}

impl Manifest {
    /// Logs with smaller numbers hold nothing that is not in tables.
    pub(super) fn first_log(&self) -> u64 {
        let needed = self.families.keys().map(|family| self.log_from.get(family).copied().unwrap_or(0)).min();
        needed.unwrap_or(0).max(self.log_from_min)
    }

    pub(super) fn family(&self, number: u32) -> &str {
        self.families.get(&number).map_or("a dropped column family", String::as_str)
    }

    /// Applies one record of the MANIFEST.
    pub(super) fn apply(&mut self, edit: &[u8]) -> Result<(), String> {
        if self.families.is_empty() {
            self.families.insert(0, "default".into());
        }
        self.edit(&mut Fields(edit)).ok_or_else(|| "an edit that cannot be read".to_owned())
    }

    fn edit(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        let (mut added, mut deleted, mut log_from) = (Vec::new(), BTreeSet::new(), None);
        let (mut family, mut named, mut dropped) = (0, None, false);
        while !fields.0.is_empty() {
            match fields.number()? {
                // next file, previous log, greatest family, place in a group of edits
                3 | 9 | 203 | 300 => drop(fields.number()?),
                4 => {
                    let sequence = fields.number()?;
                    // Later ones count what is in a write-ahead log alone.
                    if !std::mem::replace(&mut self.begun, true) {
                        self.sequence = self.sequence.max(sequence);
                    }
                }
                // comparator
                1 => drop(fields.bytes()?),
                2 => log_from = Some(fields.number()?),
                5 => drop((fields.number()?, fields.bytes()?)),
                6 => {
                    let (_level, file) = (fields.number()?, fields.number()?);
                    deleted.insert(file);
                }
                10 => self.log_from_min = self.log_from_min.max(fields.number()?),
                103 => added.push(fields.table()?),
                200 => family = u32::try_from(fields.number()?).ok()?,
                201 => named = Some(String::from_utf8(fields.bytes()?.to_vec()).ok()?),
                202 => dropped = true,
                ADDED_LOG => {
                    let mut log = Fields(fields.bytes()?);
                    let number = log.number()?;
                    let synced = if log.number()? == 2 { log.number()? } else { 0 };
                    self.logs.insert(number, synced);
                }
                DELETED_LOG => {
                    let before = Fields(fields.bytes()?).number()?;
                    self.logs.retain(|log, _| *log >= before);
                }
                other if other & SAFE_TO_IGNORE != 0 => drop(fields.bytes()?),
                _ => return None,
            }
        }
        if let Some(name) = named {
            self.families.insert(family, name);
        }
        if let Some(log) = log_from {
            self.log_from.insert(family, log);
        }
        // A file that moves to another level is deleted and added by one edit.
        self.tables.retain(|number, _| !deleted.contains(number));
        for Added { number, bytes, keys, sequence } in added {
            self.sequence = self.sequence.max(sequence);
            self.tables.insert(number, TableFile { family, bytes, keys });
        }
        if dropped {
            self.families.remove(&family);
            self.tables.retain(|_, table| table.family != family);
        }
        Some(())
    }
}

const SAFE_TO_IGNORE: u64 = 1 << 13;
const ADDED_LOG: u64 = SAFE_TO_IGNORE + 7;
const DELETED_LOG: u64 = SAFE_TO_IGNORE + 8;

/// Varints and strings with their lengths, as RocksDB encodes them.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

struct Added {
    number: u64,
    bytes: u64,
    keys: (Vec<u8>, Vec<u8>),
    /// The greatest in it.
    sequence: u64,
}

impl<'a> Fields<'a> {
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length)
    }

    /// An internal key ends with eight bytes of sequence and kind.
    fn key(&mut self) -> Option<Vec<u8>> {
        let key = self.bytes()?;
        Some(key[..key.len().checked_sub(8)?].to_vec())
    }

    fn table(&mut self) -> Option<Added> {
        let (_level, number, bytes) = (self.number()?, self.number()?, self.number()?);
        let keys = (self.key()?, self.key()?);
        let (_smallest, sequence) = (self.number()?, self.number()?);
        while self.number()? != 1 {
            self.bytes()?;
        }
        Some(Added { number, bytes, keys, sequence })
    }
}
