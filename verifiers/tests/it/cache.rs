//! What was fetched is kept on disk, bounded, and never believed.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tribunal_events::ContentAddress;
use tribunal_verifiers::{
    AnyCid, ArtifactFault, ArtifactSource, Blocks, Cache, Cached, Content, FolderSource, Layout, MemorySource,
    Reference, address_like, fetch_content,
};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false if entry.file_name() != "lock" => found.push(entry.path()),
            false => {}
        }
    }
    found.sort();
    found
}

fn bytes_of(folder: &Path) -> u64 {
    files(folder).iter().map(|path| path.metadata().unwrap().len()).sum()
}

fn sha256(bytes: &[u8]) -> ContentAddress {
    address_like(&ContentAddress::Sha256([0; 32]), bytes)
}

/// Dates a file back, as if it was used so many seconds before.
fn used(path: &Path, age: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap() - Duration::from_secs(age);
    file.set_modified(time).unwrap();
}

/// Counts how often it is asked.
struct Counted<S> {
    source: S,
    asked: AtomicUsize,
}

impl<S> Counted<S> {
    fn new(source: S) -> Arc<Self> {
        Arc::new(Self { source, asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

impl<S: ArtifactSource> ArtifactSource for Counted<S> {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.source.fetch(reference)
    }

    fn blocks(&self, cid: &AnyCid, into: &mut Blocks) -> Result<(), ArtifactFault> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.source.blocks(cid, into)
    }
}

#[test]
fn what_was_fetched_once_is_not_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Arc::new(Cache::open(folder.path(), 1 << 20).unwrap());
    let mut memory = MemorySource::new();
    let blake3 = memory.add(b"hello".as_slice());
    let source = Counted::new(memory);
    let cached = Cached::new(Arc::clone(&cache), source.clone());
    for (address, asked) in [(blake3, 1), (blake3, 0), (sha256(b"hello"), 1), (sha256(b"hello"), 0)] {
        assert_eq!(cached.fetch(&Reference::Address(address)).unwrap().as_deref(), Some(&b"hello"[..]));
        assert_eq!(source.asked(), asked, "{address}");
    }
    // A raw block is the file with its SHA-256.
    let cid = Layout::V1.file(b"hello");
    assert_eq!(cached.fetch(&Reference::Cid(cid)).unwrap().as_deref(), Some(&b"hello"[..]));
    assert_eq!(source.asked(), 0);
    let missing = ContentAddress::Blake3([7; 32]);
    for _ in 0..2 {
        assert_eq!(cached.fetch(&Reference::Address(missing)).unwrap(), None);
        assert_eq!(source.asked(), 1, "that it is missing is not kept");
    }
    // Another process, later.
    let later = Cache::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(later.get(&blake3).as_deref(), Some(&b"hello"[..]));
    assert_eq!((cache.faults(), later.faults()), (0, 0));
}

#[test]
fn blocks_of_folders_are_kept_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Arc::new(Cache::open(folder.path(), 1 << 20).unwrap());
    let archives = FolderSource::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipfs"))).unwrap();
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../ipfs/vectors.json")).unwrap();
    let it = vectors["cars"].as_array().unwrap().iter().find(|it| it["file"] == "folder.car").unwrap();
    let root: AnyCid = it["root"].as_str().unwrap().parse().unwrap();
    let source = Counted::new(archives);
    let cached = Cached::new(cache, source.clone());
    let first = fetch_content(&cached, &root, 1 << 20).unwrap();
    assert!(matches!(&first, Some(Content::Folder(tree)) if tree.files.len() == 4), "{first:?}");
    let blocks = files(folder.path()).len();
    assert!(source.asked() == blocks && blocks > 8, "{blocks}");
    assert_eq!(fetch_content(&cached, &root, 1 << 20).unwrap(), first);
    assert_eq!(source.asked(), 0);
    // What is damaged on disk is fetched again, and whole again after that.
    for path in files(folder.path()) {
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&bytes[..], b"x"].concat()).unwrap();
        assert_eq!(fetch_content(&cached, &root, 1 << 20).unwrap(), first);
        assert_eq!(source.asked(), 1);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

struct Liar;

impl ArtifactSource for Liar {
    fn fetch(&self, _: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        Ok(Some(b"lie".as_slice().into()))
    }

    fn blocks(&self, cid: &AnyCid, into: &mut Blocks) -> Result<(), ArtifactFault> {
        into.keep(cid, b"lie".as_slice()).map(|_| ())
    }
}

#[test]
fn lies_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Arc::new(Cache::open(folder.path(), 1 << 20).unwrap());
    let truth = sha256(b"truth");
    cache.put(&truth, b"lie").unwrap();
    let cached = Cached::new(Arc::clone(&cache), Arc::new(Liar));
    assert!(matches!(cached.fetch(&Reference::Address(truth)), Err(ArtifactFault::OtherBytes { .. })));
    assert!(matches!(cached.fetch(&Reference::Cid(Layout::V1.file(b"truth"))), Err(ArtifactFault::OtherBlock { .. })));
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
    // One that lies there is removed when it is asked for.
    cache.put(&truth, b"truth").unwrap();
    let [path] = &files(folder.path())[..] else { panic!() };
    std::fs::write(path, b"lie").unwrap();
    assert_eq!(cache.get(&truth), None);
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_cache_stays_within_its_bound_and_drops_what_was_longest_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 16_000).unwrap();
    let made = |number: u8| vec![number; 1000];
    for number in 0..200 {
        cache.put(&sha256(&made(number)), &made(number)).unwrap();
        assert!(bytes_of(folder.path()) <= 16_000 + 1000, "{number}");
    }
    let large = vec![1; 16_001];
    cache.put(&sha256(&large), &large).unwrap();
    assert_eq!(cache.get(&sha256(&large)), None, "it would be all that there is");

    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 1 << 20).unwrap();
    for number in 0..16 {
        cache.put(&sha256(&made(number)), &made(number)).unwrap();
    }
    for path in files(folder.path()) {
        used(&path, 5000);
    }
    cache.get(&sha256(&made(3))).unwrap();
    // Whoever opens it with a smaller bound, or shares it, keeps what was used last.
    let other = Cache::open(folder.path(), 2000).unwrap();
    assert_eq!(bytes_of(folder.path()), 1000);
    assert!(other.get(&sha256(&made(3))).is_some());
}

#[test]
fn two_who_share_a_folder_see_whole_files_only() {
    let folder = tempfile::tempdir().unwrap();
    let made = |number: usize| vec![number as u8; 5000 + number];
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let cache = Cache::open(folder.path(), 60_000).unwrap();
            std::thread::spawn(move || {
                for round in 0..200 {
                    let bytes = made((round * 7 + thread) % 40);
                    let address = sha256(&bytes);
                    if let Some(found) = cache.get(&address) {
                        assert_eq!(found[..], bytes[..]);
                    }
                    cache.put(&address, &bytes).unwrap();
                }
                cache.faults()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 0);
    }
    assert!(bytes_of(folder.path()) <= 60_000 + 4 * (60_000 / 16 + 6000));
    assert!(!files(folder.path()).iter().any(|path| path.starts_with(folder.path().join("new"))));
}

#[test]
fn parts_are_taken_once_and_old_ones_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 1 << 20).unwrap();
    let address = sha256(b"whole");
    assert_eq!(cache.take_part(&address), b"");
    cache.keep_part(&address, b"who");
    assert_eq!(cache.get(&address), None, "a part is no artifact");
    assert_eq!(cache.take_part(&address), b"who");
    assert_eq!(cache.take_part(&address), b"");
    cache.keep_part(&address, b"who");
    std::fs::write(folder.path().join("new/left"), "by a process that died").unwrap();
    Cache::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(files(folder.path()).len(), 2, "another one may be at work");
    for path in files(folder.path()) {
        used(&path, 25 * 3600);
    }
    Cache::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(cache.faults(), 0);
    // A disk that fails is counted, and nothing else fails.
    std::fs::remove_dir_all(folder.path()).unwrap();
    cache.keep_part(&address, b"who");
    assert_eq!((cache.take_part(&address), cache.faults()), (Vec::new(), 1));
}
