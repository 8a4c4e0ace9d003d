//! Backups: folders of files, each generation with a list of digests, written last.
//!
//! ```text
//! DIR/000001/BACKUP            the list, and a digest of itself
//! DIR/000001/store/…           a whole store, copied row by row from a reader
//! DIR/000001/beside/…          journals that are evidence; kept to be read, never put back
//! ```
//!
//! **Invariant:** a generation has its name only once all of it is on the disk and was read back as a store.
//! **Invariant:** nothing is restored of which not every byte is as it was written.
//! **Invariant:** a restore makes a whole new store or nothing.

mod list;

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

pub use self::list::{Backup, BackupFile};
use self::list::{LIST, find_strays};
use super::{CheckPhase, CheckReport, FORMAT, Store, StoreFault};

const STORE: &str = "store";
const BESIDE: &str = "beside";
const LOCK: &str = "LOCK";
const COPY_BYTES: usize = 1 << 20;

/// A backup could not be made, or is not one that may be restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupFault {
    /// The disk failed.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// There is no backup here.
    #[error("{} holds no backup", path.display())]
    Missing {
        /// Where one was expected.
        path: PathBuf,
    },
    /// Not what was written.
    #[error("the backup is damaged: {}: {what}; nothing was restored", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Something is where the store is to be.
    #[error("{} exists already: a restore never overwrites; name a new folder", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// Left by a restore that was killed, or one that runs now.
    #[error("{} is left from a restore that did not end, or one runs now; if none does, remove it", path.display())]
    HalfMade {
        /// The folder.
        path: PathBuf,
    },
    /// Two backups at once.
    #[error("another backup writes to {}", path.display())]
    Busy {
        /// The folder of backups.
        path: PathBuf,
    },
    /// The copy is not sound, so the store is not.
    #[error("the copy is not sound, {count} findings, the first: {first}; run `tribunal store check`")]
    Unsound {
        /// How many.
        count: u64,
        /// One of them.
        first: StoreFault,
    },
    /// Of a format that is unknown here.
    #[error(
        "the backup holds a store of format {found}, this program knows format {FORMAT}: use the version that wrote it"
    )]
    Format {
        /// Format found.
        found: u64,
    },
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupFault {
    let path = path.to_path_buf();
    move |source| BackupFault::Io { doing, path, source }
}

/// Copies a store, as far as this reader has seen it, into a new generation under `folder`, and the files of `beside`
/// by the names given. Works while an engine writes to the store.
///
/// # Errors
/// [`BackupFault`]; no generation is left then.
pub fn back_up(store: &Store, folder: &Path, beside: &[(String, PathBuf)]) -> Result<Backup, BackupFault> {
    fs::create_dir_all(folder).map_err(io("creating", folder))?;
    let lock = folder.join(LOCK);
    let held = File::create(&lock).map_err(io("creating", &lock))?;
    held.try_lock().map_err(|_| BackupFault::Busy { path: folder.to_path_buf() })?;
    let generation = generations(folder)?.last().copied().unwrap_or(0) + 1;
    let (part, whole) = (folder.join(format!("{generation:06}.part")), folder.join(format!("{generation:06}")));
    if part.exists() {
        fs::remove_dir_all(&part).map_err(io("removing", &part))?;
    }
    let made = fill(store, &part, beside, generation).and_then(|backup| {
        fs::rename(&part, &whole).map_err(io("renaming", &part))?;
        sync(folder)?;
        Ok(backup)
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    made
}

fn fill(store: &Store, part: &Path, beside: &[(String, PathBuf)], generation: u64) -> Result<Backup, BackupFault> {
    fs::create_dir(part).map_err(io("creating", part))?;
    let copy = part.join(STORE);
    store.checkpoint(&copy)?;
    let report = Store::check_path(&copy, |_, _, _| {})?;
    sound(report)?;
    for entry in fs::read_dir(&copy).map_err(io("reading", &copy))? {
        let entry = entry.map_err(io("reading", &copy))?;
        let name = entry.file_name();
        // RocksDB's diary, its lock, and settings that this program gives anew.
        if name.to_str().is_none_or(|name| name.starts_with("LOG") || name == "LOCK" || name.starts_with("OPTIONS-")) {
            fs::remove_file(entry.path()).map_err(io("removing", &entry.path()))?;
        }
    }
    if !beside.is_empty() {
        let to = part.join(BESIDE);
        fs::create_dir(&to).map_err(io("creating", &to))?;
        for (name, from) in beside {
            fs::copy(from, to.join(name)).map_err(io("copying", from))?;
        }
        sync(&to)?;
    }
    let last = match store.last_position() {
        0 => None,
        position => store.record(position)?,
    };
    let mut files = Vec::new();
    for name in list::names(part)? {
        let path = part.join(&name);
        let file = File::open(&path).map_err(io("reading", &path))?;
        file.sync_all().map_err(io("syncing", &path))?;
        let (bytes, blake3) = digest(&path, None)?;
        files.push(BackupFile { name, bytes, blake3 });
    }
    sync(&copy)?;
    let backup = Backup {
        backup: list::VERSION,
        generation,
        store_format: FORMAT,
        position: store.last_position(),
        last_deal: last.as_ref().map(|record| record.deal_id),
        last_link: last.as_ref().map(|record| record.link.to_string()),
        files,
    };
    let path = part.join(LIST);
    let mut file = File::create(&path).map_err(io("creating", &path))?;
    file.write_all(&backup.encode()).and_then(|()| file.sync_all()).map_err(io("writing", &path))?;
    sync(part)?;
    Ok(backup)
}

/// The newest generation under a folder of backups, or the folder itself if it is one.
///
/// # Errors
/// [`BackupFault::Missing`].
pub fn newest(folder: &Path) -> Result<PathBuf, BackupFault> {
    if folder.join(LIST).exists() || folder.join(STORE).exists() {
        return Ok(folder.to_path_buf());
    }
    match generations(folder)?.last() {
        Some(generation) => Ok(folder.join(format!("{generation:06}"))),
        None => Err(BackupFault::Missing { path: folder.to_path_buf() }),
    }
}

/// Reads every byte of a generation and compares it with its list; `progress` hears how many bytes of how many are done.
///
/// # Errors
/// [`BackupFault::Damaged`] names the file.
pub fn verify(generation: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Backup, BackupFault> {
    let backup = Backup::read(generation)?;
    find_strays(generation, &backup)?;
    if backup.store_format != FORMAT {
        return Err(BackupFault::Format { found: backup.store_format });
    }
    let total = backup.bytes();
    let mut done = 0;
    for file in &backup.files {
        compare(file, generation, None)?;
        done += file.bytes;
        progress(done, total);
    }
    Ok(backup)
}

/// Puts a store together from a generation, in a folder that must not exist; verifies the backup before and the store
/// after.
///
/// # Errors
/// [`BackupFault`]; nothing is left then.
pub fn restore(
    generation: &Path,
    to: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<(Backup, CheckReport), BackupFault> {
    let exists = || BackupFault::Exists { path: to.to_path_buf() };
    if fs::symlink_metadata(to).is_ok() {
        return Err(exists());
    }
    let Some(name) = to.file_name() else { return Err(exists()) };
    let backup = verify(generation, |done, total| progress(done, 2 * total))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(io("creating", parent))?;
    let mut half = name.to_owned();
    half.push(".restoring");
    let half = parent.join(half);
    match fs::create_dir(&half) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(BackupFault::HalfMade { path: half }),
        other => other.map_err(io("creating", &half))?,
    }
    let made = put_together(&backup, generation, &half, &mut progress).and_then(|report| {
        if fs::symlink_metadata(to).is_ok() {
            return Err(exists());
        }
        fs::rename(&half, to).map_err(io("renaming", &half))?;
        sync(parent)?;
        Ok(report)
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&half);
    }
    made.map(|report| (backup, report))
}

fn put_together(
    backup: &Backup,
    generation: &Path,
    half: &Path,
    progress: &mut impl FnMut(u64, u64),
) -> Result<CheckReport, BackupFault> {
    let total = backup.bytes();
    let mut done = total;
    for file in &backup.files {
        let Some(name) = file.name.strip_prefix("store/") else { continue };
        compare(file, generation, Some(&half.join(name)))?;
        done += file.bytes;
        progress(done, 2 * total);
    }
    sync(half)?;
    let report = sound(Store::check_path(half, |phase, done, of| {
        if phase == CheckPhase::Records {
            progress(done, of);
        }
    })?)?;
    let position = Store::open_read_only(half)?.last_position();
    if position != backup.position {
        let what = format!("it says position {}, its store ends at {position}", backup.position);
        return Err(BackupFault::Damaged { path: generation.join(LIST), what });
    }
    Ok(report)
}

fn sound(mut report: CheckReport) -> Result<CheckReport, BackupFault> {
    if report.damage.is_empty() {
        return Ok(report);
    }
    let count = report.damage.len() as u64 + report.damage_left_out;
    Err(BackupFault::Unsound { count, first: report.damage.swap_remove(0) })
}

/// Reads a file of a backup, copies it if told where to, and compares it with the list.
fn compare(file: &BackupFile, generation: &Path, to: Option<&Path>) -> Result<(), BackupFault> {
    let path = generation.join(&file.name);
    let (bytes, blake3) = digest(&path, to)?;
    let what = match (bytes == file.bytes, blake3 == file.blake3) {
        (true, true) => return Ok(()),
        (false, _) => format!("it has {bytes} bytes, not {}", file.bytes),
        (true, false) => format!("its digest is {blake3}, not {}", file.blake3),
    };
    Err(BackupFault::Damaged { path, what })
}

/// Bytes and BLAKE3 of a file; what was digested is what was written to `to`, and is on the disk.
fn digest(path: &Path, to: Option<&Path>) -> Result<(u64, String), BackupFault> {
    let mut from = File::open(path).map_err(io("reading", path))?;
    let mut to = match to {
        Some(to) => Some((File::create_new(to).map_err(io("creating", to))?, to)),
        None => None,
    };
    let (mut hasher, mut buffer, mut bytes) = (blake3::Hasher::new(), vec![0; COPY_BYTES], 0);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(io("reading", path)(error)),
        };
        hasher.update(&buffer[..count]);
        if let Some((file, to)) = &mut to {
            file.write_all(&buffer[..count]).map_err(io("writing", to))?;
        }
        bytes += count as u64;
    }
    if let Some((file, to)) = to {
        file.sync_all().map_err(io("syncing", to))?;
    }
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

/// Puts a folder's names on the disk.
fn sync(folder: &Path) -> Result<(), BackupFault> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("syncing", folder))
}

/// Numbers of the whole generations, ascending.
fn generations(folder: &Path) -> Result<Vec<u64>, BackupFault> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("reading", folder))? {
        let name = entry.map_err(io("reading", folder))?.file_name();
        let number = name.to_str().and_then(|name| Some((name, name.parse::<u64>().ok()?)));
        found.extend(number.filter(|(name, number)| *name == format!("{number:06}")).map(|(_, number)| number));
    }
    found.sort_unstable();
    Ok(found)
}
