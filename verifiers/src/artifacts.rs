//! Where the bytes of artifacts come from. Whatever a source says, bytes are checked against their address here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};
use tribunal_events::ContentAddress;

use crate::Reference;

/// Bytes of one artifact at most, unless a source is told otherwise.
pub const ARTIFACT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Files that a folder is searched through for a content address.
const INDEXED_FILES_MAX: usize = 65_536;
/// Folders below the artifacts folder that are searched.
const INDEXED_DEPTH_MAX: usize = 16;

/// Why a source could not serve what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactFault {
    /// The name leads out of the folder, or is no file. A request that says so is a bad request.
    #[error("{name}: {problem}")]
    Refused {
        /// The name asked for.
        name: String,
        /// Why not.
        problem: String,
    },
    /// More bytes than the source hands out.
    #[error("{name} has {found} bytes, more than {most}")]
    TooLarge {
        /// The name or address asked for.
        name: String,
        /// Its size.
        found: u64,
        /// The limit.
        most: u64,
    },
    /// The disk or network failed; asking again may help.
    #[error("{name} could not be read")]
    Io {
        /// The name or address asked for.
        name: String,
        /// What failed.
        #[source]
        source: std::io::Error,
    },
    /// The source sent other bytes than the address says.
    #[error("{expected} was asked for, the bytes that came are {actual}")]
    OtherBytes {
        /// Address asked for.
        expected: ContentAddress,
        /// Address of what came.
        actual: ContentAddress,
    },
}

/// Serves artifacts. Implemented by whoever holds them; called from verification threads.
pub trait ArtifactSource: Send + Sync {
    /// The bytes behind a reference; nothing where this source does not have them.
    ///
    /// # Errors
    /// [`ArtifactFault`] where it might have them, but cannot hand them out.
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault>;
}

/// The address of the bytes, under the hash function of `like`.
pub fn address_like(like: &ContentAddress, bytes: &[u8]) -> ContentAddress {
    match like {
        ContentAddress::Blake3(_) => ContentAddress::of(bytes),
        ContentAddress::Sha256(_) => ContentAddress::Sha256(Sha256::digest(bytes).into()),
    }
}

/// Asks sources in turn; the first that has the artifact answers. A fault counts only if nobody has it.
#[derive(Clone, Default)]
pub struct Chain(pub Vec<Arc<dyn ArtifactSource>>);

impl ArtifactSource for Chain {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        let mut first_fault = None;
        for source in &self.0 {
            match source.fetch(reference).and_then(|found| checked(reference, found)) {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => {}
                Err(fault) => first_fault = first_fault.or(Some(fault)),
            }
        }
        first_fault.map_or(Ok(None), Err)
    }
}

/// Refuses bytes that are not those of the address.
pub(crate) fn checked(reference: &Reference, found: Option<Arc<[u8]>>) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
    if let (Reference::Address(expected), Some(bytes)) = (reference, &found) {
        let actual = address_like(expected, bytes);
        if actual != *expected {
            return Err(ArtifactFault::OtherBytes { expected: *expected, actual });
        }
    }
    Ok(found)
}

/// Artifacts in memory, by address and by name.
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    files: BTreeMap<String, Arc<[u8]>>,
    addresses: BTreeMap<ContentAddress, Arc<[u8]>>,
}

impl MemorySource {
    /// Holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes under both their addresses; gives the BLAKE3 one.
    pub fn add(&mut self, bytes: impl Into<Arc<[u8]>>) -> ContentAddress {
        let bytes = bytes.into();
        let address = ContentAddress::of(&bytes);
        self.addresses.insert(ContentAddress::Sha256(Sha256::digest(&bytes).into()), bytes.clone());
        self.addresses.insert(address, bytes);
        address
    }

    /// Adds bytes under their BLAKE3 address alone: SHA-256 of a module takes as long as a short job.
    pub(crate) fn add_blake3(&mut self, bytes: Arc<[u8]>) -> ContentAddress {
        let address = ContentAddress::of(&bytes);
        self.addresses.insert(address, bytes);
        address
    }

    /// Adds bytes under a file name and their addresses.
    pub fn add_file(&mut self, name: &str, bytes: impl Into<Arc<[u8]>>) -> ContentAddress {
        let bytes = bytes.into();
        self.files.insert(name.to_owned(), bytes.clone());
        self.add(bytes)
    }
}

impl ArtifactSource for MemorySource {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        Ok(match reference {
            Reference::File(name) => self.files.get(name).cloned(),
            Reference::Address(address) => self.addresses.get(address).cloned(),
            Reference::Cid(_) => None,
        })
    }
}

/// What is known of one file: enough to see that it changed, and its digests.
struct Indexed {
    bytes: u64,
    modified: Option<SystemTime>,
    blake3: ContentAddress,
    sha256: ContentAddress,
}

/// The files of one folder, by name and by content address. No name and no symbolic link leads out of it.
pub struct FolderSource {
    folder: PathBuf,
    bytes_max: u64,
    index: Mutex<BTreeMap<PathBuf, Indexed>>,
}

impl FolderSource {
    /// Serves a folder.
    ///
    /// # Errors
    /// Where it is no folder that can be read.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        let folder = fs::canonicalize(folder)?;
        if !folder.is_dir() {
            return Err(std::io::Error::new(std::io::ErrorKind::NotADirectory, "artifacts are files in a folder"));
        }
        Ok(Self { folder, bytes_max: ARTIFACT_BYTES_MAX, index: Mutex::default() })
    }

    /// Serves no file above `bytes_max` bytes.
    #[must_use]
    pub const fn with_bytes_max(mut self, bytes_max: u64) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    fn by_name(&self, name: &str) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        let refused = |problem: &str| ArtifactFault::Refused { name: name.to_owned(), problem: problem.to_owned() };
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(name).components().all(plain) {
            return Err(refused("leads out of the artifacts folder"));
        }
        let io = |source| ArtifactFault::Io { name: name.to_owned(), source };
        let path = match fs::canonicalize(self.folder.join(name)) {
            Ok(path) => path,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(io(error)),
        };
        if !path.starts_with(&self.folder) {
            return Err(refused("leads out of the artifacts folder"));
        }
        if !fs::metadata(&path).map_err(io)?.is_file() {
            return Err(refused("is no file"));
        }
        self.read(&path, name).map(Some)
    }

    fn read(&self, path: &Path, name: &str) -> Result<Arc<[u8]>, ArtifactFault> {
        use std::io::Read as _;
        let io = |source| ArtifactFault::Io { name: name.to_owned(), source };
        let too_large = |found| ArtifactFault::TooLarge { name: name.to_owned(), found, most: self.bytes_max };
        let file = fs::File::open(path).map_err(io)?;
        let found = file.metadata().map_err(io)?.len();
        if found > self.bytes_max {
            return Err(too_large(found));
        }
        let mut bytes = Vec::with_capacity(found as usize);
        file.take(self.bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > self.bytes_max {
            return Err(too_large(bytes.len() as u64));
        }
        Ok(bytes.into())
    }

    /// Regular files below the folder, without following symbolic links, ascending by path.
    fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![(self.folder.clone(), 0)]);
        while let Some((folder, depth)) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_file() => files.push(entry.path()),
                    Ok(kind) if kind.is_dir() && depth < INDEXED_DEPTH_MAX => folders.push((entry.path(), depth + 1)),
                    _ => {}
                }
            }
            if files.len() >= INDEXED_FILES_MAX {
                break;
            }
        }
        files.sort();
        files.truncate(INDEXED_FILES_MAX);
        files
    }

    fn by_address(&self, address: &ContentAddress) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |index: &BTreeMap<PathBuf, Indexed>| {
            let mut known = index.iter();
            known.find(|(_, file)| file.blake3 == *address || file.sha256 == *address).map(|(path, _)| path.clone())
        };
        let name = address.to_string();
        // A file that the index knows may have changed since; then everything is looked at again.
        if let Some(path) = find(&index)
            && let Ok(bytes) = self.read(&path, &name)
            && address_like(address, &bytes) == *address
        {
            return Ok(Some(bytes));
        }
        let files = self.files();
        index.retain(|path, _| files.binary_search(path).is_ok());
        for path in files {
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let known = index.get(&path);
            if known.is_some_and(|file| file.bytes == metadata.len() && file.modified == metadata.modified().ok()) {
                continue;
            }
            let Ok(bytes) = self.read(&path, &name) else { continue };
            let entry = Indexed {
                bytes: metadata.len(),
                modified: metadata.modified().ok(),
                blake3: ContentAddress::of(&bytes),
                sha256: ContentAddress::Sha256(Sha256::digest(&bytes).into()),
            };
            index.insert(path, entry);
        }
        let Some(path) = find(&index) else { return Ok(None) };
        drop(index);
        self.read(&path, &name).map(Some)
    }
}

impl ArtifactSource for FolderSource {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        match reference {
            Reference::File(name) => self.by_name(name),
            Reference::Address(address) => self.by_address(address),
            Reference::Cid(_) => Ok(None),
        }
    }
}
