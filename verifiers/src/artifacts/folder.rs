//! A folder of artifacts: by name, by content address, and by CID.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};
use tribunal_events::ContentAddress;

use super::{
    ARTIFACT_BYTES_MAX, ArtifactFault, ArtifactSource, address_like, file_of,
    index::{BlockIndex, Scan},
};
use crate::{AnyCid, Blocks, Reference};

/// What is known of one file: enough to see that it changed, and its digests.
struct Indexed {
    seen: (u64, Option<SystemTime>),
    blake3: ContentAddress,
    sha256: ContentAddress,
}

/// The files of one folder, by name, by content address and by CID, and the blocks of CAR files (`….car`) that lie in it. No
/// name and no symbolic link leads out of it.
///
/// A file or folder in it has the CIDs that `ipfs add -r` gives it in each [`crate::Layout`].
pub struct FolderSource {
    folder: PathBuf,
    bytes_max: u64,
    index: Mutex<BTreeMap<PathBuf, Indexed>>,
    /// Made when the first CID is asked for.
    blocks: Mutex<BlockIndex>,
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
        Ok(Self { folder, bytes_max: ARTIFACT_BYTES_MAX, index: Mutex::default(), blocks: Mutex::default() })
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
        let files = Scan::of(&self.folder).files;
        index.retain(|path, file| files.get(path) == Some(&file.seen));
        for (path, seen) in files {
            if index.contains_key(&path) {
                continue;
            }
            let Ok(bytes) = self.read(&path, &name) else { continue };
            let sha256 = ContentAddress::Sha256(Sha256::digest(&bytes).into());
            index.insert(path, Indexed { seen, blake3: ContentAddress::of(&bytes), sha256 });
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
            Reference::Cid(cid) => file_of(self, cid),
        }
    }

    fn blocks(&self, cid: &AnyCid, into: &mut Blocks) -> Result<(), ArtifactFault> {
        let mut index = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        // Once for an artifact: what a file was before it changed has blocks that are not there any more.
        if cid == into.root() {
            index.refresh(&self.folder, &|path| self.read(path, &path.display().to_string()).ok());
        }
        if let Some(Ok(block)) = index.read(cid) {
            match into.keep(cid, block) {
                // Changed since it was looked at: then the block is not here.
                Err(ArtifactFault::OtherBlock { .. }) => {}
                kept => drop(kept?),
            }
        }
        Ok(())
    }
}
