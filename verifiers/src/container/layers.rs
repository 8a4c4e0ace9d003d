//! Layers into a tree and numbered files; then the tree onto the disk.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, lchown, symlink},
    },
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use sha2::{Digest as _, Sha256};

use super::{
    Stop,
    archive::{self, Kind},
    layout::Layer,
    tree::{Folder, Node},
};

/// Members of all layers together.
const MEMBERS_MAX: usize = 200_000;
/// Folders that no member is, but that paths lead through.
const FOLDERS_MAX: usize = 50_000;
/// Bytes of all layers together, unpacked.
const UNPACKED_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// A layer this small may unpack to anything within the bound above.
const RATIO_FREE_BYTES: u64 = 16 * 1024 * 1024;
/// Times that a larger one may grow. Deflate's own limit is 1032; whole systems grow three- to fivefold.
const RATIO_MAX: u64 = 100;
/// Bytes of a path on the disk, below the root of the image.
const PATH_BYTES_MAX: usize = 2048;

/// Files by number, in a folder of their own.
pub(super) struct Files {
    folder: PathBuf,
    count: usize,
    /// Where files lie that have a place already.
    placed: BTreeMap<usize, PathBuf>,
}

/// Counts and hashes what is read, and refuses more than it may give.
struct Metered<R> {
    from: R,
    hash: Sha256,
    left: u64,
    over: bool,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        self.hash.update(&into[..count]);
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                self.over = true;
                return Err(io::Error::other("it unpacks to too many bytes"));
            }
        }
        Ok(count)
    }
}

impl Files {
    /// Files in a new folder.
    pub(super) fn new(folder: PathBuf) -> Result<Self, Stop> {
        fs::create_dir(&folder).map_err(Stop::io("the workspace"))?;
        Ok(Self { folder, count: 0, placed: BTreeMap::new() })
    }

    fn path(&self, number: usize) -> PathBuf {
        self.placed.get(&number).cloned().unwrap_or_else(|| self.folder.join(number.to_string()))
    }

    /// Keeps bytes; gives their number.
    pub(super) fn keep(&mut self, from: &mut dyn Read) -> Result<usize, Stop> {
        let number = self.count;
        self.count += 1;
        let mut file = File::create_new(self.path(number)).map_err(Stop::io("the workspace"))?;
        let mut buffer = [0; 16 * 1024];
        loop {
            // A failure to read is the archive's, one to write is ours.
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(number),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::invalid(format!("a layer cannot be read: {error}"))),
            };
            file.write_all(&buffer[..count]).map_err(Stop::io("the workspace"))?;
        }
    }

    /// Bytes of a folder's files, in whole pages, as a file system in memory counts them.
    pub(super) fn pages(&self, folder: &Folder) -> Result<u64, Stop> {
        let mut bytes = 0_u64;
        for entry in folder.entries.values() {
            let more = match &entry.node {
                Node::Folder(inner) => self.pages(inner)?,
                Node::File { bytes, .. } => {
                    fs::metadata(self.path(*bytes)).map_err(Stop::io("the workspace"))?.len().next_multiple_of(4096)
                }
                Node::Link { .. } => 4096,
            };
            bytes = bytes.saturating_add(more);
        }
        Ok(bytes)
    }

    /// Writes a folder to `at`, which is there and empty, and gives all of it to one owner. Each file is moved to its
    /// place; its further names are hard links.
    pub(super) fn place(&mut self, folder: &Folder, at: &Path, owner: u32) -> Result<(), Stop> {
        self.write(folder, at, owner, 0, true)
    }

    /// [`Files::place`] on another file system: copies.
    pub(super) fn copy(&mut self, folder: &Folder, at: &Path, owner: u32) -> Result<(), Stop> {
        self.write(folder, at, owner, 0, false)
    }

    fn write(&mut self, folder: &Folder, at: &Path, owner: u32, above: usize, places: bool) -> Result<(), Stop> {
        let failed = |error| Stop::io("the image's files")(error);
        for (name, entry) in &folder.entries {
            let path = at.join(OsStr::from_bytes(name));
            let length = above + name.len() + 1;
            if length > PATH_BYTES_MAX {
                return Err(Stop::invalid(format!("a path in the image has more than {PATH_BYTES_MAX} bytes")));
            }
            match &entry.node {
                Node::Folder(inner) => {
                    fs::create_dir(&path).map_err(failed)?;
                    self.write(inner, &path, owner, length, places)?;
                }
                Node::File { bytes, marks } => {
                    let kept = self.path(*bytes);
                    if !places {
                        fs::copy(kept, &path).map_err(failed)?;
                    } else if self.placed.contains_key(bytes) {
                        fs::hard_link(kept, &path).map_err(failed)?;
                    } else {
                        fs::rename(kept, &path).map_err(failed)?;
                        self.placed.insert(*bytes, path.clone());
                    }
                    lchown(&path, Some(owner), Some(owner)).map_err(failed)?;
                    fs::set_permissions(&path, Permissions::from_mode(marks.mode)).map_err(failed)?;
                    set_time(&path, marks.modified_s)?;
                }
                Node::Link { target, modified_s } => {
                    symlink(OsStr::from_bytes(target), &path).map_err(failed)?;
                    lchown(&path, Some(owner), Some(owner)).map_err(failed)?;
                    set_time(&path, *modified_s)?;
                }
            }
        }
        lchown(at, Some(owner), Some(owner)).map_err(failed)?;
        fs::set_permissions(at, Permissions::from_mode(folder.marks.mode)).map_err(failed)?;
        set_time(at, folder.marks.modified_s)
    }
}

fn set_time(path: &Path, modified_s: u64) -> Result<(), Stop> {
    let time = Timespec { tv_sec: i64::try_from(modified_s).unwrap_or(0), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| Stop::io("the image's files")(error.into()))
}

/// What may still be unpacked.
struct Left {
    members: usize,
    folders: usize,
}

/// Lays all layers over one another.
pub(super) fn unpack(layers: &[Layer<'_>], files: &mut Files) -> Result<Folder, Stop> {
    let mut tree = Folder::default();
    let (mut left, mut bytes) = (Left { members: MEMBERS_MAX, folders: FOLDERS_MAX }, UNPACKED_BYTES_MAX);
    for (number, layer) in layers.iter().enumerate() {
        let packed = layer.bytes.len() as u64;
        let ratio = packed.saturating_mul(RATIO_MAX).max(RATIO_FREE_BYTES);
        let most = if layer.gzip { bytes.min(ratio) } else { bytes };
        let from: Box<dyn Read + '_> =
            if layer.gzip { Box::new(MultiGzDecoder::new(layer.bytes)) } else { Box::new(layer.bytes) };
        let mut metered = Metered { from, hash: Sha256::new(), left: most, over: false };
        let unpacked = lay(number, &mut metered, &mut left, &mut tree, files);
        if metered.over && most == ratio {
            let detail = format!("layer {number}: {packed} bytes unpack to more than {most}");
            return Err(Stop::operator(detail));
        }
        if metered.over {
            return Err(Stop::operator(format!("the image unpacks to more than {UNPACKED_BYTES_MAX} bytes")));
        }
        unpacked.map_err(|stop| stop.within(&format!("layer {number}")))?;
        bytes -= most - metered.left;
        let diff_id = format!("sha256:{}", hex::encode(metered.hash.finalize()));
        if diff_id != layer.diff_id {
            let detail = format!("layer {number} unpacks to {diff_id}, its diff_id is {}", layer.diff_id);
            return Err(Stop::invalid(detail));
        }
    }
    Ok(tree)
}

fn lay(
    layer: usize,
    from: &mut Metered<Box<dyn Read + '_>>,
    left: &mut Left,
    tree: &mut Folder,
    files: &mut Files,
) -> Result<(), Stop> {
    let Left { members, folders } = left;
    archive::read(&mut *from, members, &mut |member, bytes| {
        let number = if member.kind == Kind::File { files.keep(bytes)? } else { 0 };
        tree.lay(layer, member, number, folders)
    })?;
    // The digest covers what stands after the last member, too.
    let rest = io::copy(from, &mut io::sink());
    rest.map(|_| ()).map_err(|error| Stop::invalid(format!("the archive cannot be read: {error}")))
}
