//! A file of JSON lines that survives crashes, in the manner of a mediator's signing history.
//!
//! The first line names the format and whose file it is; every other is an entry with `link` = keccak256 of the previous
//! link and the entry's JSON. Lines are synced before [`LineFile::append`] returns. A line that a crash cut off was never
//! synced, so nothing was done for it; it is dropped. Anything else that does not fit is a fault that names the line.
//!
//! **Invariant:** what was appended is on the disk.
//! **Invariant:** one process holds a file at a time, by a lock on a file beside it, which is never replaced.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    marker::PhantomData,
    path::{Path, PathBuf},
};

use alloy_primitives::Keccak256;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tribunal_events::B256;

/// A line at most, in bytes: twice the hexadecimal form of the largest transaction that nodes take.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Why a file of lines cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LineFileFault {
    /// Another process holds it.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An entry is longer than a line may be. Nothing was written.
    #[error("{path}: an entry has {bytes} bytes, at most {LINE_BYTES_MAX} fit")]
    TooLong {
        /// The file.
        path: String,
        /// What the line would have.
        bytes: usize,
    },
    /// The file is not what was written.
    #[error("{path} is damaged at line {line}: {problem}")]
    Damaged {
        /// The file.
        path: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// It is of another format, chain or account.
    #[error("{path} begins with {actual}, not with {expected}")]
    Foreign {
        /// The file.
        path: String,
        /// The first line that it should have.
        expected: String,
        /// The first line.
        actual: String,
    },
}

/// See the module.
#[derive(Debug)]
pub struct LineFile<T> {
    path: PathBuf,
    header: String,
    /// None after a failed write: what reached the disk is known only after opening again.
    file: Option<File>,
    link: B256,
    _lock: File,
    _entry: PhantomData<fn(T)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<T> {
    entry: T,
    link: B256,
}

impl<T: Serialize + DeserializeOwned> LineFile<T> {
    /// Opens a file, or begins one, whose first line is `header`; gives its entries.
    ///
    /// # Errors
    /// Where it is in use, damaged or of another kind, or the disk fails.
    pub fn open(path: &Path, header: String) -> Result<(Self, Vec<T>), LineFileFault> {
        let path = path.to_path_buf();
        let shown = path.display().to_string();
        let io = |source| LineFileFault::Io { path: shown.clone(), source };
        std::fs::create_dir_all(folder(&path)).map_err(io)?;
        let lock = options().open(beside(&path, ".lock")).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LineFileFault::InUse(shown)),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut file = options().open(&path).map_err(io)?;
        let (entries, link, sound_bytes) = read(&mut file, &shown, &header)?;
        file.set_len(sound_bytes).map_err(io)?;
        file.seek(SeekFrom::Start(sound_bytes)).map_err(io)?;
        if sound_bytes == 0 {
            file.write_all(format!("{header}\n").as_bytes()).map_err(io)?;
        }
        file.sync_all().map_err(io)?;
        sync_folder(&path).map_err(io)?;
        Ok((Self { path, header, file: Some(file), link, _lock: lock, _entry: PhantomData }, entries))
    }

    /// The entries of a file that may be in use.
    ///
    /// # Errors
    /// As [`LineFile::open`], but for being in use.
    pub fn read(path: &Path, header: &str) -> Result<Vec<T>, LineFileFault> {
        let shown = path.display().to_string();
        let mut file = File::open(path).map_err(|source| LineFileFault::Io { path: shown.clone(), source })?;
        Ok(read(&mut file, &shown, header)?.0)
    }

    /// Entries in their order; when this returns they are on the disk.
    ///
    /// # Errors
    /// [`LineFileFault::TooLong`], or where they cannot be made durable; then nothing more can be written before the file is
    /// opened again.
    pub fn append(&mut self, entries: &[T]) -> Result<(), LineFileFault> {
        let (text, link) = self.lines(self.link, entries)?;
        let Some(mut file) = self.file.take() else {
            return Err(self.io(std::io::Error::other("an earlier write failed; start again")));
        };
        let written = file.write_all(&text).and_then(|()| file.sync_data());
        written.map_err(|source| self.io(source))?;
        (self.file, self.link) = (Some(file), link);
        Ok(())
    }

    /// Puts these entries in place of all; after a crash either all are there or what was before.
    ///
    /// # Errors
    /// As [`LineFile::append`].
    pub fn replace(&mut self, entries: &[T]) -> Result<(), LineFileFault> {
        let part = beside(&self.path, ".part");
        let (text, link) = self.lines(B256::ZERO, entries)?;
        let write = || {
            let mut file = options().truncate(true).open(&part)?;
            file.write_all(format!("{}\n", self.header).as_bytes())?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&part, &self.path)?;
            sync_folder(&self.path)?;
            Ok(file)
        };
        let written: std::io::Result<File> = write();
        // Whether the name is the old file's or the new one's is not known after a fault.
        self.file = None;
        self.file = Some(written.map_err(|source| self.io(source))?);
        self.link = link;
        Ok(())
    }

    /// The lines of entries that follow a link, and the last link.
    fn lines(&self, mut last: B256, entries: &[T]) -> Result<(Vec<u8>, B256), LineFileFault> {
        let mut text = Vec::new();
        for entry in entries {
            last = link(last, entry);
            let before = text.len();
            serde_json::to_writer(&mut text, &Line { entry, link: last }).expect("an entry has a JSON form");
            text.push(b'\n');
            let bytes = text.len() - before;
            if bytes > LINE_BYTES_MAX {
                return Err(LineFileFault::TooLong { path: self.path.display().to_string(), bytes });
            }
        }
        Ok((text, last))
    }

    fn io(&self, source: std::io::Error) -> LineFileFault {
        LineFileFault::Io { path: self.path.display().to_string(), source }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.read(true).write(true).create(true).truncate(false);
    options
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file's name is durable only once its folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(folder(path)).and_then(|folder| folder.sync_all())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn link<T: Serialize>(previous: B256, entry: &T) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update(previous);
    hasher.update(serde_json::to_vec(entry).expect("an entry has a JSON form"));
    hasher.finalize()
}

/// Entries, the last link, and how many bytes of the file are sound.
fn read<T: Serialize + DeserializeOwned>(
    file: &mut File,
    shown: &str,
    header: &str,
) -> Result<(Vec<T>, B256, u64), LineFileFault> {
    let io = |source| LineFileFault::Io { path: shown.to_owned(), source };
    let damaged = |line, problem: String| LineFileFault::Damaged { path: shown.to_owned(), line, problem };
    let (mut entries, mut last, mut sound) = (Vec::new(), B256::ZERO, 0u64);
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut reader = BufReader::new(file);
    for number in 1.. {
        let mut line = Vec::new();
        let bytes = (&mut reader).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).map_err(io)?;
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
            if line != header.as_bytes() {
                let actual = String::from_utf8_lossy(&line).chars().take(200).collect();
                return Err(LineFileFault::Foreign { path: shown.to_owned(), expected: header.to_owned(), actual });
            }
        } else {
            let parsed: Line<T> = serde_json::from_slice(&line).map_err(|error| damaged(number, error.to_string()))?;
            let expected = link(last, &parsed.entry);
            if parsed.link != expected {
                return Err(damaged(number, format!("link {expected} was expected, not {}", parsed.link)));
            }
            last = parsed.link;
            entries.push(parsed.entry);
        }
        sound += bytes as u64;
    }
    Ok((entries, last, sound))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        (folder, path)
    }

    fn open(path: &Path) -> Result<(LineFile<String>, Vec<String>), LineFileFault> {
        LineFile::open(path, "{}".into())
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_was_appended_or_put_in_place_is_there() {
        let (_folder, path) = place();
        let (mut file, entries) = open(&path).unwrap();
        assert!(entries.is_empty());
        file.append(&words(&["a", "b"])).unwrap();
        file.append(&words(&["c"])).unwrap();
        drop(file);
        let (mut file, entries) = open(&path).unwrap();
        assert_eq!(entries, words(&["a", "b", "c"]));
        file.replace(&words(&["c"])).unwrap();
        file.append(&words(&["d"])).unwrap();
        assert!(matches!(open(&path), Err(LineFileFault::InUse(_))), "the lock outlives the file");
        drop(file);
        assert_eq!(open(&path).unwrap().1, words(&["c", "d"]));
    }

    #[test]
    fn after_a_failed_write_nothing_is_written() {
        let (_folder, path) = place();
        let (mut file, _) = open(&path).unwrap();
        file.append(&words(&["a"])).unwrap();
        let sound = file.file.replace(File::open(&path).unwrap());
        assert!(matches!(file.append(&words(&["b"])), Err(LineFileFault::Io { .. })), "it cannot be written to");
        let fault = file.append(&words(&["c"])).unwrap_err();
        assert!(std::error::Error::source(&fault).unwrap().to_string().contains("start again"), "{fault}");
        drop((file, sound));
        assert_eq!(open(&path).unwrap().1, words(&["a"]));
    }

    #[test]
    fn an_entry_that_does_not_fit_is_refused_and_the_next_one_is_not() {
        let (_folder, path) = place();
        let (mut file, _) = open(&path).unwrap();
        let fault = file.append(&["x".repeat(LINE_BYTES_MAX)]).unwrap_err();
        assert!(matches!(fault, LineFileFault::TooLong { .. }), "{fault}");
        file.append(&words(&["a"])).unwrap();
        drop(file);
        assert_eq!(open(&path).unwrap().1, words(&["a"]));
    }
}
