//! The IPFS blocks of a folder: of its files and folders, as `ipfs add -r` cuts them in each [`Layout`], and of the CAR files in
//! it. Only where a block lies is kept, and it is checked when it is read.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use crate::{
    AnyCid, Layout,
    car::CarReader,
    cid::layout::{Links, Made, Node},
};

/// Files that a folder is searched through.
const FILES_MAX: usize = 65_536;
/// Folders below the artifacts folder that are searched.
const DEPTH_MAX: usize = 16;
/// Blocks that are known at most; a terabyte of files has more.
const BLOCKS_MAX: usize = 1 << 20;

/// What lies in a folder, without following symbolic links, ascending by path.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Regular files, their bytes and when they were changed.
    pub(super) files: BTreeMap<PathBuf, (u64, Option<SystemTime>)>,
    folders: Vec<PathBuf>,
}

impl Scan {
    pub(super) fn of(folder: &Path) -> Self {
        let (mut found, mut left) = (Self::default(), vec![(folder.to_owned(), 0)]);
        while let Some((folder, depth)) = left.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_file() && found.files.len() < FILES_MAX => {
                        found.files.insert(entry.path(), (metadata.len(), metadata.modified().ok()));
                    }
                    Ok(metadata) if metadata.is_dir() && depth < DEPTH_MAX => left.push((entry.path(), depth + 1)),
                    _ => {}
                }
            }
            found.folders.push(folder);
            if found.folders.len() > FILES_MAX {
                break;
            }
        }
        found.folders.sort();
        found
    }
}

/// Where a block lies.
#[derive(Clone)]
enum Place {
    /// In a file, with what stands around it in the block.
    Part {
        path: Arc<Path>,
        head: Arc<[u8]>,
        offset: u64,
        length: usize,
        tail: Arc<[u8]>,
    },
    Inner(Arc<[u8]>),
}

/// One file's blocks, by layout the node that it is.
struct FileBlocks {
    seen: (u64, Option<SystemTime>),
    nodes: Option<[Node; Layout::ALL.len()]>,
    places: Vec<([u8; 32], Place)>,
}

/// The blocks of one folder.
#[derive(Default)]
pub(super) struct BlockIndex {
    scan: Scan,
    files: BTreeMap<PathBuf, FileBlocks>,
    places: BTreeMap<[u8; 32], Place>,
}

impl BlockIndex {
    /// The bytes of a block, not checked.
    pub(super) fn read(&self, cid: &AnyCid) -> Option<io::Result<Vec<u8>>> {
        match self.places.get(cid.digest())? {
            Place::Inner(block) => Some(Ok(block.to_vec())),
            Place::Part { path, head, offset, length, tail } => {
                let read = || {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(*offset))?;
                    let mut block = head.to_vec();
                    file.take(*length as u64).read_to_end(&mut block)?;
                    block.extend_from_slice(tail);
                    Ok(block)
                };
                Some(read())
            }
        }
    }

    /// Looks at the folder again. `read` gives the bytes of a file.
    pub(super) fn refresh(&mut self, folder: &Path, read: &dyn Fn(&Path) -> Option<Arc<[u8]>>) {
        let scan = Scan::of(folder);
        if scan == self.scan {
            return;
        }
        self.files.retain(|path, file| scan.files.get(path) == Some(&file.seen));
        let mut blocks: usize = self.files.values().map(|file| file.places.len()).sum();
        for (path, seen) in &scan.files {
            if blocks < BLOCKS_MAX && !self.files.contains_key(path) {
                let file = FileBlocks::of(path, *seen, BLOCKS_MAX - blocks, read);
                blocks += file.places.len();
                self.files.insert(path.clone(), file);
            }
        }
        self.places = self.files.values().flat_map(|file| file.places.iter().cloned()).collect();
        for (index, layout) in Layout::ALL.into_iter().enumerate() {
            self.add_folders(&scan, index, layout);
        }
        self.scan = scan;
    }

    /// The nodes of all folders in a layout, from the deepest up.
    fn add_folders(&mut self, scan: &Scan, index: usize, layout: Layout) {
        let mut entries = BTreeMap::new();
        for (path, file) in &self.files {
            put_entry(&mut entries, path, file.nodes.map(|nodes| nodes[index]));
        }
        for folder in scan.folders.iter().rev() {
            let inside = entries.remove(folder.as_path()).unwrap_or_default();
            let mut links = Links::default();
            let mut whole = true;
            for (name, node) in &inside {
                match node {
                    Some(node) => links.put(name, node),
                    None => whole = false,
                }
            }
            let mut keep = |cid: &AnyCid, made: Made<'_>| {
                if let Made::Inner(block) = made {
                    self.places.insert(*cid.digest(), Place::Inner(block.into()));
                }
            };
            let node = whole.then(|| layout.folder_node(&links, &mut keep).ok()).flatten();
            put_entry(&mut entries, folder, node);
        }
    }
}

/// Notes what lies in a folder. Hidden entries are left out, as `ipfs add -r` does; a folder has no node where one of its
/// entries has none.
fn put_entry<'a>(entries: &mut BTreeMap<&'a Path, BTreeMap<String, Option<Node>>>, path: &'a Path, node: Option<Node>) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let node = node.filter(|_| name.to_str().is_some());
    let name = name.to_string_lossy();
    if !name.starts_with('.') {
        entries.entry(parent).or_default().insert(name.into_owned(), node);
    }
}

impl FileBlocks {
    fn of(
        path: &Path,
        seen: (u64, Option<SystemTime>),
        blocks_max: usize,
        read: &dyn Fn(&Path) -> Option<Arc<[u8]>>,
    ) -> Self {
        let shared: Arc<Path> = path.into();
        let mut places = Vec::new();
        if path.extension().is_some_and(|extension| extension == "car") {
            archived(&shared, blocks_max, &mut places);
        }
        let nodes = read(path).map(|bytes| {
            Layout::ALL.map(|layout| {
                layout.file_node(&bytes, &mut |cid, made| {
                    let place = match made {
                        Made::Inner(block) => Place::Inner(block.into()),
                        Made::Leaf { head, offset, length, tail } => Place::Part {
                            path: Arc::clone(&shared),
                            head: head.into(),
                            offset: offset as u64,
                            length,
                            tail: tail.into(),
                        },
                    };
                    if places.len() < blocks_max {
                        places.push((*cid.digest(), place));
                    }
                })
            })
        });
        Self { seen, nodes, places }
    }
}

/// The blocks of a CAR file, up to the place where it is none.
fn archived(path: &Arc<Path>, blocks_max: usize, places: &mut Vec<([u8; 32], Place)>) {
    let Ok(file) = File::open(path) else { return };
    let Ok(mut archive) = CarReader::open(BufReader::new(file)) else { return };
    let none: Arc<[u8]> = Arc::new([]);
    while let Ok(Some((cid, offset, block))) = archive.next_block() {
        // What is no block of its CID would hide the right one elsewhere.
        if places.len() == blocks_max || !cid.is_of(&block) {
            continue;
        }
        let path = Arc::clone(path);
        let place = Place::Part { path, head: Arc::clone(&none), offset, length: block.len(), tail: Arc::clone(&none) };
        places.push((*cid.digest(), place));
    }
}
