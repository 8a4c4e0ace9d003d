//! Artifacts and blocks on disk, by content address.
//!
//! A file `<two hex digits>/<function>-<hex digits>` an address; a block of a CID lies under its SHA-256, so that a raw block and
//! the file that it is are one. A file is written beside (`new/`) and then renamed, and its bytes are checked again whenever it is
//! read: what does not have its digest is removed. When a file was last used is its time of change.
//!
//! Several processes may share a folder: who finds it above its bound takes the lock (`lock`) and removes what was longest not
//! used. Every process looks when it has written a sixteenth of the bound, and frees an eighth.

use std::{
    fs::{self, File, FileTimes},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tribunal_events::ContentAddress;

use super::{ArtifactFault, ArtifactSource, address_like, checked, file_of};
use crate::{AnyCid, Blocks, Reference};

/// What is written or downloaded in part is left over after that time.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(24 * 3600);
const NEW: &str = "new";
const PARTS: &str = "parts";

/// A folder of artifacts that were fetched before, at most so many bytes.
pub struct Cache {
    folder: PathBuf,
    bytes_max: u64,
    /// Bytes written since the folder was last looked at.
    written: AtomicU64,
    /// Names of new files.
    names: AtomicU64,
    faults: AtomicU64,
}

impl Cache {
    /// Uses a folder, which is made where it is not there.
    ///
    /// # Errors
    /// Where it cannot be made or written.
    pub fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        for inside in [NEW, PARTS] {
            fs::create_dir_all(folder.join(inside))?;
        }
        File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
        let (written, names, faults) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let this = Self { folder: folder.to_owned(), bytes_max, written, names, faults };
        this.evict()?;
        Ok(this)
    }

    /// How often the disk failed: then the cache has nothing, or keeps nothing.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// The bytes of an address, checked.
    pub fn get(&self, address: &ContentAddress) -> Option<Arc<[u8]>> {
        let path = self.path(address);
        let bytes = self.noted(read(&path, self.bytes_max))??;
        if address_like(address, &bytes) != *address {
            // Damaged on disk, or somebody else's. Another process may have put the right one there meanwhile; then it is
            // fetched once more.
            let _ = fs::remove_file(&path);
            return None;
        }
        self.touch(&path);
        Some(bytes.into())
    }

    /// Keeps bytes, if they are those of the address and not above the bound.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn put(&self, address: &ContentAddress, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > self.bytes_max || address_like(address, bytes) != *address {
            return Ok(());
        }
        self.write(&self.path(address), bytes)
    }

    /// [`Cache::put`] for a caller who has the bytes anyway: a disk that fails is counted.
    fn offer(&self, address: &ContentAddress, bytes: &[u8]) {
        self.noted(self.put(address, bytes));
    }

    /// Keeps the first bytes of an artifact that could not be fetched whole. They are not checked.
    pub fn keep_part(&self, address: &ContentAddress, bytes: &[u8]) {
        if !bytes.is_empty() && bytes.len() as u64 <= self.bytes_max {
            self.noted(self.write(&self.part(address), bytes));
        }
    }

    /// Takes such bytes away; no bytes where there are none.
    pub fn take_part(&self, address: &ContentAddress) -> Vec<u8> {
        let path = self.part(address);
        // Renamed first: two who fetch the same artifact do not go on with the same part.
        let own = self.new_path();
        if fs::rename(&path, &own).is_err() {
            return Vec::new();
        }
        let bytes = self.noted(read(&own, self.bytes_max)).flatten().unwrap_or_default();
        let _ = fs::remove_file(&own);
        bytes
    }

    fn noted<T>(&self, answer: io::Result<T>) -> Option<T> {
        if answer.is_err() {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        answer.ok()
    }

    fn path(&self, address: &ContentAddress) -> PathBuf {
        let name = name(address);
        let digits = name.split_once('-').map_or("", |(_, hex)| &hex[..2]);
        self.folder.join(digits).join(&name)
    }

    fn part(&self, address: &ContentAddress) -> PathBuf {
        self.folder.join(PARTS).join(name(address))
    }

    fn new_path(&self) -> PathBuf {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        // The address of this cache in memory keeps two of one process apart.
        let own = std::ptr::from_ref(self).addr();
        self.folder.join(NEW).join(format!("{}-{own:x}-{number}", std::process::id()))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = self.new_path();
        let written = (|| {
            // One of a process that had this number before may be left.
            let mut file = File::create(&new)?;
            file.write_all(bytes)?;
            drop(file);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::rename(&new, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new);
            return written;
        }
        let written = self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        if written > self.bytes_max / 16 {
            self.evict()?;
        }
        Ok(())
    }

    /// The time by the clock of the disk, which is what files are dated by.
    fn now(&self) -> io::Result<SystemTime> {
        let new = self.new_path();
        let now = File::create(&new)?.metadata()?.modified();
        let _ = fs::remove_file(&new);
        now
    }

    /// Says that a file was used. That it cannot be said makes it only go earlier.
    fn touch(&self, path: &Path) {
        if let (Ok(now), Ok(file)) = (self.now(), File::options().write(true).open(path)) {
            let _ = file.set_times(FileTimes::new().set_modified(now));
        }
    }

    /// Removes what was longest not used, where all together is above the bound.
    fn evict(&self) -> io::Result<()> {
        let lock = File::options().write(true).open(self.folder.join("lock"))?;
        if lock.try_lock().is_err() {
            return Ok(());
        }
        self.written.store(0, Ordering::Relaxed);
        let (mut files, mut total) = (Vec::new(), 0u64);
        let now = self.now()?;
        for folder in fs::read_dir(&self.folder)?.flatten() {
            let left_over = folder.file_name() == NEW || folder.file_name() == PARTS;
            for entry in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                if left_over && now.duration_since(used).is_ok_and(|age| age > LEFT_OVER_AFTER) {
                    let _ = fs::remove_file(entry.path());
                } else if folder.file_name() != NEW {
                    total += metadata.len();
                    files.push((used, entry.path(), metadata.len()));
                }
            }
        }
        if total > self.bytes_max {
            files.sort();
            for (_, path, bytes) in files {
                if total <= self.bytes_max - self.bytes_max / 8 {
                    break;
                }
                if fs::remove_file(path).is_ok() {
                    total -= bytes;
                }
            }
        }
        Ok(())
    }
}

fn name(address: &ContentAddress) -> String {
    address.to_string().replace(':', "-")
}

/// The bytes of a file; nothing where there is none, or it is above a bound.
fn read(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= bytes_max).then_some(bytes))
}

/// Asks a cache before a source, and keeps what the source gives once it is checked.
pub struct Cached {
    cache: Arc<Cache>,
    source: Arc<dyn ArtifactSource>,
}

impl Cached {
    /// A cache before a source.
    pub fn new(cache: Arc<Cache>, source: Arc<dyn ArtifactSource>) -> Self {
        Self { cache, source }
    }
}

impl ArtifactSource for Cached {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        let address = match reference {
            Reference::Address(address) => address,
            Reference::Cid(cid) => return file_of(self, cid),
            Reference::File(_) => return self.source.fetch(reference),
        };
        if let Some(bytes) = self.cache.get(address) {
            return Ok(Some(bytes));
        }
        let found = checked(reference, self.source.fetch(reference)?)?;
        if let Some(bytes) = &found {
            self.cache.offer(address, bytes);
        }
        Ok(found)
    }

    fn blocks(&self, cid: &AnyCid, into: &mut Blocks) -> Result<(), ArtifactFault> {
        if let Some(block) = self.cache.get(&cid.block_address()) {
            return into.keep(cid, block).map(|_| ());
        }
        let before = into.order().len();
        let answer = self.source.blocks(cid, into);
        for cid in &into.order()[before..] {
            if let Some(block) = into.get(cid) {
                self.cache.offer(&cid.block_address(), block);
            }
        }
        answer
    }
}
