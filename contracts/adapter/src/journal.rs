//! A file of JSON lines that is appended, synced, and linked by hashes: what must survive a crash beside the record.
//!
//! The first line names the kind of the journal, every other is `{"entry": …, "link": "0x…"}` with `link` = BLAKE3
//! `derive_key("tribunal.v1 journal", previous link, the entry's bytes as written)`. A line that a crash cut off was never
//! synced, so nothing was done for it; it is dropped. Anything else that does not fit is a fault that names the line.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tribunal_events::B256;

/// A line at most, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalFault {
    /// Another process writes it.
    #[error("the journal {0} is in use by another process")]
    InUse(String),
    /// The disk failed.
    #[error("the journal {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An entry is longer than a line may be. Nothing of the call was written.
    #[error("the journal {path}: an entry has {bytes} bytes, at most {LINE_BYTES_MAX} fit")]
    TooLong {
        /// The file.
        path: String,
        /// What it has.
        bytes: usize,
    },
    /// The file is not what was written.
    #[error("the journal {path} is damaged at line {line}: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

/// A journal of entries of one kind, held by one process at a time.
#[derive(Debug)]
pub struct Journal<T> {
    path: PathBuf,
    inner: Mutex<Inner>,
    entries: PhantomData<fn(T) -> T>,
}

#[derive(Debug)]
struct Inner {
    /// None after a failed write: what reached the disk is known only after opening again.
    file: Option<File>,
    link: B256,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    entry: &'a RawValue,
    link: B256,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens a journal of this kind, or begins one, holds it against other processes, and gives what it holds.
    ///
    /// # Errors
    /// [`JournalFault`].
    pub fn open(path: impl Into<PathBuf>, kind: &str) -> Result<(Self, Vec<T>), JournalFault> {
        let path = path.into();
        let shown = path.display().to_string();
        let io = |source| JournalFault::Io { path: shown.clone(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(io)?;
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalFault::InUse(shown)),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let (entries, link, sound_bytes) = read(&mut file, &shown, kind)?;
        file.set_len(sound_bytes).map_err(io)?;
        file.seek(SeekFrom::Start(sound_bytes)).map_err(io)?;
        if sound_bytes == 0 {
            file.write_all(header(kind).as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(io)?;
        }
        file.sync_all().map_err(io)?;
        // The file's name is durable only once its folder is.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        let inner = Mutex::new(Inner { file: Some(file), link });
        Ok((Self { path, inner, entries: PhantomData }, entries))
    }

    /// What a journal holds that may be in use.
    ///
    /// # Errors
    /// [`JournalFault`] where it cannot be read.
    pub fn read(path: &Path, kind: &str) -> Result<Vec<T>, JournalFault> {
        let shown = path.display().to_string();
        let mut file = File::open(path).map_err(|source| JournalFault::Io { path: shown.clone(), source })?;
        Ok(read(&mut file, &shown, kind)?.0)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends entries; they are on the disk when this returns.
    ///
    /// # Errors
    /// [`JournalFault::TooLong`], and where they could not be made durable. Nothing can be appended after the latter: what
    /// reached the disk is known only after opening again.
    ///
    /// # Panics
    /// Where an entry has no JSON form.
    pub fn append(&self, entries: &[T]) -> Result<(), JournalFault> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = || self.path.display().to_string();
        let io = |source| JournalFault::Io { path: shown(), source };
        let (mut text, mut last) = (Vec::new(), inner.link);
        for entry in entries {
            let entry = serde_json::value::to_raw_value(entry).expect("an entry has a JSON form");
            last = link(&last, entry.get());
            let before = text.len();
            serde_json::to_writer(&mut text, &Line { entry: &entry, link: last }).expect("into memory");
            text.push(b'\n');
            let bytes = text.len() - before;
            if bytes > LINE_BYTES_MAX {
                return Err(JournalFault::TooLong { path: shown(), bytes });
            }
        }
        let mut file =
            inner.file.take().ok_or_else(|| io(std::io::Error::other("an earlier write failed; start again")))?;
        file.write_all(&text).and_then(|()| file.sync_data()).map_err(io)?;
        inner.file = Some(file);
        inner.link = last;
        Ok(())
    }
}

fn header(kind: &str) -> String {
    serde_json::json!({ "tribunal_journal": kind, "version": 1 }).to_string()
}

fn link(previous: &B256, entry: &str) -> B256 {
    let mut hasher = blake3::Hasher::new_derive_key("tribunal.v1 journal");
    hasher.update(previous.as_slice()).update(entry.as_bytes());
    B256::new(*hasher.finalize().as_bytes())
}

/// Entries, the last link, and how many bytes of the file are sound.
fn read<T: DeserializeOwned>(file: &mut File, shown: &str, kind: &str) -> Result<(Vec<T>, B256, u64), JournalFault> {
    let io = |source| JournalFault::Io { path: shown.to_owned(), source };
    let damaged = |line, what: String| JournalFault::Damaged { path: shown.to_owned(), line, what };
    let (mut entries, mut last, mut sound) = (Vec::new(), B256::ZERO, 0u64);
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut reader = BufReader::new(file);
    for number in 1.. {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(LINE_BYTES_MAX as u64);
        let bytes = limited.read_until(b'\n', &mut line).map_err(io)?;
        if bytes == 0 {
            break;
        }
        if line.pop_if(|byte| *byte == b'\n').is_none() {
            if bytes == LINE_BYTES_MAX {
                return Err(damaged(number, format!("a line has at most {LINE_BYTES_MAX} bytes")));
            }
            // Cut off by a crash before it was synced.
            break;
        }
        if number == 1 {
            if line != header(kind).as_bytes() {
                return Err(damaged(1, format!("{} was expected", header(kind))));
            }
        } else {
            let parsed: Line<'_> = serde_json::from_slice(&line).map_err(|error| damaged(number, error.to_string()))?;
            let expected = link(&last, parsed.entry.get());
            if parsed.link != expected {
                return Err(damaged(number, format!("link {expected} was expected, not {}", parsed.link)));
            }
            last = parsed.link;
            let entry = serde_json::from_str(parsed.entry.get());
            entries.push(entry.map_err(|error| damaged(number, error.to_string()))?);
        }
        sound += bytes as u64;
    }
    Ok((entries, last, sound))
}
