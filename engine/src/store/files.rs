//! The files of a store, every byte of them, read without RocksDB.
//!
//! RocksDB finds damage where it uses the bytes, and drops the end of a write-ahead log or MANIFEST that it cannot read.
//! Here each file that holds data is read whole and strictly: CURRENT, the MANIFEST that it names, the tables and
//! write-ahead logs that the MANIFEST names, and our own MARK. LOCK, LOG, OPTIONS and IDENTITY hold nothing of the store:
//! RocksDB writes them anew. Works while another process writes: files that it replaced meanwhile are looked for again.

mod checksum;
mod edits;
mod journal;
mod table;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufReader, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use self::{
    edits::{Manifest, TableFile},
    journal::End,
    table::Flaw,
};
use super::{
    Place, StoreFault,
    family::Family,
    mark::{Mark, Marked},
};

/// A writer in the middle of a write, or of replacing files, is done after this long, many times over.
const PAUSE: Duration = Duration::from_millis(40);
const ATTEMPTS: u32 = 6;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Everything that is wrong.
    pub(super) damage: Vec<StoreFault>,
    /// Files read.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Worth knowing, no damage.
    pub(super) notes: Vec<String>,
    /// Whether the MANIFEST could be read, without which RocksDB need not be asked.
    pub(super) readable: bool,
}

/// Whether there is anything of a store.
pub(super) fn any(path: &Path) -> bool {
    let names = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| name.into_string().ok())
        .any(|name| matches!(&name[..], "CURRENT" | "MARK") || name.starts_with("MANIFEST-") || name.ends_with(".sst"))
}

fn at(name: &str, offset: Option<u64>, what: impl Into<String>) -> StoreFault {
    StoreFault::damaged(Place::File { name: name.to_owned(), offset }, what)
}

/// Why the files have to be looked at again.
enum Again {
    /// A file that the MANIFEST names is gone.
    Gone(StoreFault),
    Fault(StoreFault),
}

fn reading(error: io::Error) -> Again {
    Again::Fault(StoreFault::io("reading the store's files", error))
}

/// Reads all files of the store at `path`; `progress` hears how many bytes of how many are read.
pub(super) fn check(path: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Files, StoreFault> {
    let mut seen = Seen::default();
    for attempt in 1.. {
        match look(path, &mut seen, &mut progress) {
            Ok(files) => return Ok(files),
            Err(Again::Fault(fault)) => return Err(fault),
            Err(Again::Gone(fault)) if attempt == ATTEMPTS => {
                // It stays away: nobody replaced it.
                let mut files = seen.files;
                files.damage.push(fault);
                return Ok(files);
            }
            Err(Again::Gone(_)) => std::thread::sleep(PAUSE),
        }
    }
    unreachable!("the loop returns")
}

/// What need not be read twice, since tables never change.
#[derive(Default)]
struct Seen {
    tables: BTreeSet<u64>,
    files: Files,
}

fn look(path: &Path, seen: &mut Seen, progress: &mut impl FnMut(u64, u64)) -> Result<Files, Again> {
    let mut files = Files::default();
    let manifest = match manifest(path, &mut files)? {
        Some(manifest) => manifest,
        None => return Ok(files),
    };
    files.readable = true;
    let named: BTreeSet<&str> = manifest.families.values().map(String::as_str).collect();
    for family in Family::ALL {
        if !named.contains(family.name()) {
            files
                .damage
                .push(StoreFault::damaged(Place::Files, format!("the column family {} is missing", family.name())));
        }
    }
    for name in named.iter().filter(|name| **name != "default" && Family::ALL.iter().all(|it| it.name() != **name)) {
        files.damage.push(StoreFault::damaged(Place::Files, format!("{name} is no column family of a store")));
    }
    let marked = mark(path, &mut files)?;
    logs(path, &manifest, marked, &mut files)?;

    let total: u64 = manifest.tables.values().map(|table| table.bytes).sum();
    let mut done = 0;
    for (number, table) in &manifest.tables {
        if seen.tables.insert(*number) {
            let tell = |read: u64| progress(done + read, total);
            if let Err(again) = check_table(path, *number, table, &manifest, &mut seen.files, tell) {
                seen.tables.remove(number);
                return Err(again);
            }
        }
        done += table.bytes;
        progress(done, total);
    }
    files.damage.append(&mut seen.files.damage);
    files.files += seen.files.files;
    files.bytes += seen.files.bytes;
    Ok(files)
}

/// CURRENT and the MANIFEST that it names; nothing where they cannot be read.
fn manifest(path: &Path, files: &mut Files) -> Result<Option<Manifest>, Again> {
    let current = match fs::read(path.join("CURRENT")) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            files.damage.push(at("CURRENT", None, "the file is missing"));
            return Ok(None);
        }
        Err(error) => return Err(reading(error)),
    };
    files.files += 1;
    files.bytes += current.len() as u64;
    let name = std::str::from_utf8(&current).ok().and_then(|text| text.strip_suffix('\n'));
    let Some((name, number)) = name.and_then(|name| Some((name, numbered(name, "MANIFEST-", "")?))) else {
        files.damage.push(at("CURRENT", Some(0), "it does not hold the name of a MANIFEST and a line's end"));
        return Ok(None);
    };
    let newer = numbers(path, "MANIFEST-", "").map_err(reading)?.into_iter().find(|other| *other > number);
    if let Some(newer) = newer {
        // A writer puts the new one's name into CURRENT right after it is written.
        let what = format!("it names {name}, and there is MANIFEST-{newer:06}");
        let fault = at("CURRENT", Some(0), what);
        return Err(Again::Gone(fault));
    }
    let file = match File::open(path.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Again::Gone(at("CURRENT", Some(0), format!("it names {name}, which is not there"))));
        }
        Err(error) => return Err(reading(error)),
    };
    let bytes = file.metadata().map_err(reading)?.len();
    let (mut manifest, mut end) = (Manifest::default(), End::Whole);
    for attempt in 1..=ATTEMPTS {
        manifest = Manifest::default();
        let file = File::open(path.join(name)).map_err(reading)?;
        end = journal::read(BufReader::new(file), |_, edit| manifest.apply(edit)).map_err(reading)?;
        match end {
            End::Broken { followed: false, .. } if attempt < ATTEMPTS => std::thread::sleep(PAUSE),
            _ => break,
        }
    }
    files.files += 1;
    files.bytes += bytes;
    if let End::Broken { offset, why, .. } = end {
        files.damage.push(at(name, Some(offset), format!("{why}; it lists the store's tables")));
        return Ok(None);
    }
    if manifest.families.is_empty() {
        files.damage.push(at(name, Some(0), "it is empty"));
        return Ok(None);
    }
    Ok(Some(manifest))
}

/// The mark, read before the logs so that a writer can only be ahead of it.
fn mark(path: &Path, files: &mut Files) -> Result<Option<Mark>, Again> {
    files.files += 1;
    let damaged = |what: &str| Some(at("MARK", Some(0), what));
    let (marked, damage) = match Mark::read(path).map_err(reading)? {
        Marked::At(mark) => (Some(mark), None),
        Marked::Missing => (None, damaged("the file is missing: whether the log's end was lost cannot be told")),
        Marked::Unset => (None, damaged("the file is empty: whether the log's end was lost cannot be told")),
        Marked::Damaged => (None, damaged("it does not match its seal: whether the log's end was lost cannot be told")),
    };
    files.bytes += super::mark::BYTES as u64;
    files.damage.extend(damage);
    Ok(marked)
}

/// The write-ahead logs, in which is what no table holds yet.
fn logs(path: &Path, manifest: &Manifest, marked: Option<Mark>, files: &mut Files) -> Result<(), Again> {
    let first = manifest.first_log();
    let mut found: Vec<u64> =
        numbers(path, "", ".log").map_err(reading)?.into_iter().filter(|it| *it >= first).collect();
    found.sort_unstable();
    for (number, synced) in manifest.logs.iter().filter(|(number, _)| **number >= first) {
        let name = format!("{number:06}.log");
        match fs::metadata(path.join(&name)) {
            Ok(metadata) if metadata.len() >= *synced => {}
            Ok(metadata) => {
                let what = format!("it has {} bytes, {synced} were on the disk", metadata.len());
                files.damage.push(at(&name, Some(metadata.len()), what));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Again::Gone(at(&name, None, "the write-ahead log is missing")));
            }
            Err(error) => return Err(reading(error)),
        }
    }
    let mut reached = manifest.sequence;
    for (index, number) in found.iter().enumerate() {
        let (name, newest) = (format!("{number:06}.log"), index + 1 == found.len());
        let Some(log) = read_log(&path.join(&name), newest)? else {
            return Err(Again::Gone(at(&name, None, "the write-ahead log is missing")));
        };
        files.files += 1;
        files.bytes += log.bytes;
        reached = reached.max(log.sequence);
        match log.end {
            End::Whole => {}
            End::Broken { offset, followed: false, .. }
                if newest && marked.is_some_and(|mark| mark.sequence == reached || log.moving) =>
            {
                files.notes.push(format!(
                    "{name} ends at byte {offset} inside a write that was never acknowledged; the next engine drops it"
                ));
            }
            End::Broken { offset, why, .. } => files.damage.push(at(&name, Some(offset), why)),
        }
    }
    if let Some(mark) = marked
        && reached < mark.sequence
    {
        let name = found.last().map_or_else(|| "the write-ahead log".to_owned(), |number| format!("{number:06}.log"));
        let what = format!("writes end at number {reached}, and {} was acknowledged", mark.sequence);
        files.damage.push(at(&name, None, what));
    }
    Ok(())
}

struct ReadLog {
    bytes: u64,
    /// The last write in it.
    sequence: u64,
    end: End,
    /// Its end was broken and then was not: somebody is writing.
    moving: bool,
}

/// Reads a log; nothing if it is gone.
fn read_log(path: &PathBuf, newest: bool) -> Result<Option<ReadLog>, Again> {
    let mut broken_at = None;
    for attempt in 1.. {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(reading(error)),
        };
        let bytes = file.metadata().map_err(reading)?.len();
        let mut sequence = 0;
        let end = journal::read(BufReader::with_capacity(1 << 20, file), |_, batch| {
            sequence = last_of_batch(batch).ok_or("no batch of writes")?;
            Ok(())
        });
        let end = end.map_err(reading)?;
        let now = match end {
            End::Broken { offset, followed: false, .. } if newest => Some(offset),
            _ => None,
        };
        let moving = broken_at.is_some_and(|before| now.is_none_or(|now| now > before));
        if now.is_none() || moving || attempt == ATTEMPTS {
            return Ok(Some(ReadLog { bytes, sequence, end, moving }));
        }
        broken_at = now;
        std::thread::sleep(PAUSE);
    }
    unreachable!("the loop returns")
}

/// A batch starts with the sequence number of its first write and their count.
fn last_of_batch(batch: &[u8]) -> Option<u64> {
    let (sequence, rest) = batch.split_first_chunk::<8>()?;
    let (count, _) = rest.split_first_chunk::<4>()?;
    Some(u64::from_le_bytes(*sequence) + u64::from(u32::from_le_bytes(*count)).saturating_sub(1))
}

fn check_table(
    path: &Path,
    number: u64,
    table: &TableFile,
    manifest: &Manifest,
    files: &mut Files,
    progress: impl FnMut(u64),
) -> Result<(), Again> {
    let (name, family) = (format!("{number:06}.sst"), manifest.family(table.family));
    let gone = || at(&name, None, format!("the table file is missing; it holds {}", rows(family, &table.keys)));
    let file = match File::open(path.join(&name)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Again::Gone(gone())),
        Err(error) => return Err(reading(error)),
    };
    let bytes = file.metadata().map_err(reading)?.len();
    files.files += 1;
    files.bytes += bytes;
    if bytes != table.bytes {
        let what = format!("it has {bytes} bytes, not {}; it holds {}", table.bytes, rows(family, &table.keys));
        files.damage.push(at(&name, Some(bytes.min(table.bytes)), what));
        return Ok(());
    }
    for Flaw { offset, what, keys } in table::check(&file, bytes, progress).map_err(reading)? {
        let holds = match &keys {
            // An index holds keys that separate blocks, which need not be in any of them.
            Some((after, to)) if !after.is_empty() => {
                format!("the block holds {}", rows(family, &(after.clone(), to.clone())))
            }
            Some((_, to)) => format!("the block holds {}", rows(family, &(table.keys.0.clone(), to.clone()))),
            None => format!("the file holds {}", rows(family, &table.keys)),
        };
        files.damage.push(at(&name, Some(offset), format!("{what}; {holds}")));
    }
    Ok(())
}

/// What lies between two keys, in words.
fn rows(family: &str, (from, to): &(Vec<u8>, Vec<u8>)) -> String {
    let key = |key: &[u8]| match (family, key.first_chunk::<8>()) {
        ("events", Some(position)) => u64::from_be_bytes(*position).to_string(),
        _ => format!("0x{}", hex::encode(&key[..key.len().min(40)])),
    };
    let kind = match family {
        "events" => "log positions".to_owned(),
        "stream-index" | "stream-heads" | "open-deals" | "snapshots" => format!("{family} of deals"),
        family => format!("rows of {family}"),
    };
    format!("{kind} from {} to {}", key(from), key(to))
}

/// The number in a file name; nothing if the name is written in any other way.
fn numbered(name: &str, before: &str, after: &str) -> Option<u64> {
    let digits = name.strip_prefix(before)?.strip_suffix(after)?;
    let number = digits.parse().ok()?;
    (format!("{number:06}") == digits).then_some(number)
}

fn numbers(path: &Path, before: &str, after: &str) -> io::Result<Vec<u64>> {
    let names = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name()));
    let names: io::Result<Vec<_>> = names.collect();
    Ok(names?.iter().filter_map(|name| numbered(name.to_str()?, before, after)).collect())
}
